from pathlib import Path

import pytest

from retrieval.errors import SettingError
from retrieval.settings import configuration, without_password


def test_an_option_beats_the_environment_which_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "facedex.toml").write_text('collection = "file"\nworkers = 3\nuse = "commercial"\n')
    monkeypatch.setenv("FACEDEX_COLLECTION", "environment")
    monkeypatch.setenv("FACEDEX_WORKERS", "4")
    read = configuration({"collection": "option", "workers": None}, folder=tmp_path)
    assert (read.settings.collection, read.settings.workers) == ("option", 4)
    assert read.settings.use == "commercial"
    assert read.origins["collection"] == "option"
    assert read.origins["workers"] == "FACEDEX_WORKERS"
    assert read.origins["use"] == str(tmp_path / "facedex.toml")
    assert read.origins["models"] == "default"


def test_the_file_in_home_is_read_where_the_working_folder_has_none(tmp_path: Path) -> None:
    home = tmp_path / "elsewhere"
    home.mkdir()
    (home / "facedex.toml").write_text('collection = "at-home"')
    read = configuration({"home": "elsewhere"}, folder=tmp_path)
    assert read.settings.collection == "at-home"
    assert read.settings.home == home


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("colection = 'a'", "'colection' is no setting"),
        ("workers = -1", "0 or more"),
        ("workers = 'many'", "workers cannot be 'many'"),
        ("use = 'private'", "research, commercial"),
        ("use = ", "cannot be read"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "facedex.toml").write_text(line)
    with pytest.raises(SettingError, match=told):
        configuration({}, folder=tmp_path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:secret@host:5432/db", "postgresql://ann:***@host:5432/db"),
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
        ("host=here user=ann password=secret", "host=here user=ann password=***"),
        ("postgresql:///db?host=/tmp&password=secret", "postgresql:///db?host=/tmp&password=***"),
        (None, None),
    ],
)
def test_a_shown_address_has_no_password(url: str | None, shown: str | None) -> None:
    assert without_password(url) == shown
