"""What is loaded when: a command line that starts slowly is not used."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "faiss", "polars", "numba", "sqlalchemy", "fastapi", "onnxruntime", "pyarrow")


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after `statement`."""
    program = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return set(done.stdout.decode().split())


@pytest.mark.parametrize(
    "statement",
    ["import retrieval", "import facedex", "import indexer", "import api.cli"],
)
def test_importing_a_package_loads_nothing_heavy(statement: str) -> None:
    assert loaded_after(statement).isdisjoint(HEAVY)


def test_help_loads_no_numpy() -> None:
    show_help = "from api.cli.main import cli; cli.main(['--help'], standalone_mode=False)"
    assert loaded_after(show_help).isdisjoint({*HEAVY, "numpy"})
