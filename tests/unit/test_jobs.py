import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.jobs import IngestRequest
from indexer.sources.pictures import Framing

# Names as file systems allow them: any bytes but NUL, which Python spells with surrogate escapes.
NAMES = st.binary(min_size=1, max_size=20).map(lambda name: os.fsdecode(name.replace(b"\0", b"")))
REQUESTS = st.builds(
    IngestRequest,
    paths=st.lists(NAMES, max_size=4),
    metadata=st.none() | NAMES,
    person_from_folder=st.booleans(),
    frames=st.booleans(),
    framing=st.sampled_from(Framing),
    source=st.none() | NAMES,
    origin=st.sampled_from(["captured", "generated", "restored"]),
    copy_originals=st.booleans(),
    allow_sensitive=st.booleans(),
    retry_refused=st.booleans(),
)


def request_for(*paths: str, metadata: str | None = None) -> IngestRequest:
    return IngestRequest(
        paths=list(paths),
        metadata=metadata,
        person_from_folder=False,
        frames=False,
        framing=Framing.SCENE,
        source=None,
        origin="captured",
        copy_originals=False,
        allow_sensitive=False,
        retry_refused=False,
    )


@given(REQUESTS)
def test_a_request_survives_json_whatever_bytes_its_names_hold(request_: IngestRequest) -> None:
    assert IngestRequest.from_json(json.loads(request_.to_json())) == request_


@given(REQUESTS)
def test_the_json_of_a_request_holds_nothing_that_jsonb_refuses(request_: IngestRequest) -> None:
    text = request_.to_json()
    assert text.isascii()
    assert "\\u" not in text


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").touch()
    anchored = request_for("a.jpg", "missing.jpg", "*.png", "/b.jpg", metadata="m.csv").anchored()
    here = str(tmp_path)
    assert anchored.paths == [
        f"{here}/a.jpg",
        f"{here}/missing.jpg",
        f"{here}/*.png",
        "/b.jpg",
    ]
    assert anchored.metadata == f"{here}/m.csv"


def test_a_glob_is_not_confused_by_the_folder_it_was_typed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "[2024]"
    folder.mkdir()
    (folder / "a.jpg").touch()
    monkeypatch.chdir(folder)
    anchored = request_for("*.jpg", "a.jpg").anchored()
    assert list(Path("/").glob(anchored.paths[0].lstrip("/"))) == [folder / "a.jpg"]
    assert anchored.paths[1] == str(folder / "a.jpg")


def test_an_empty_path_does_not_become_the_working_folder() -> None:
    assert request_for("").anchored().paths == [""]
