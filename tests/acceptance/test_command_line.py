"""The command line as a program among others."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.cli.main import COMMANDS
from tests.acceptance.conftest import run


@pytest.fixture
def folder_with_an_api(tmp_path: Path) -> Path:
    """A user's project that has an `api/` of its own."""
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "__init__.py").write_text("raise ImportError('the wrong api')")
    return tmp_path


def test_a_folder_with_an_api_of_its_own_does_not_get_in_the_way(folder_with_an_api: Path) -> None:
    home = folder_with_an_api / "home"
    assert run(home, "config", "show", folder=folder_with_an_api).status == 0
    script = folder_with_an_api / "mine.py"
    script.write_text("import facedex; print(facedex.open, facedex.Index, facedex.Facedex)")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    from click.testing import CliRunner

    from api.cli.main import cli

    shown = CliRunner().invoke(cli, [command, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.output
    first_word = COMMANDS[command][1].partition(" ")[0]
    assert first_word in shown.output


def test_help_comes_at_once(tmp_path: Path) -> None:
    durations = []
    for _ in range(5):
        begun = time.perf_counter()
        assert run(tmp_path, "--help").status == 0
        durations.append(time.perf_counter() - begun)
    assert min(durations) < 0.4


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["search"],
        ["search", "--face", "1", "--vector", "x.npy"],
        ["search", "--face", "1", "--recall", "2"],
        ["ingest"],
        ["update", "--where", "face = 1", "--set", "nothing"],
        ["collection", "attributes", "x", "year=whole"],
    ],
)
def test_wrong_usage_is_status_2_and_says_so(words: list[str], tmp_path: Path) -> None:
    ran = run(tmp_path / "home", *words)
    assert ran.status == 2
    assert ran.err
    assert "Traceback" not in ran.err
