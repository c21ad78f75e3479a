"""`facedex person`: a day of naming people, taking back, exporting, erasing.

The whole command line in this process, on a database of the test's own: a process for each of
sixty commands would take two minutes.
"""

import getpass
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.cli.main import main
from tests.acceptance.conftest import Facedex, Ran
from tests.conftest import with_kernels

DIMENSION = 8
PERSONS = ["Ann", "Ann", "Ann", "Ben", "Ben", None, "Zöe Ünal", "Cleo"]


@pytest.fixture
def facedex(
    database_url: str,
    tmp_path: Path,
    compiled: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Facedex:
    (tmp_path / "home").mkdir()
    home = with_kernels(tmp_path / "home", compiled)

    def run(*words: str) -> Ran:
        options = ["--home", str(home), "--database-url", database_url]
        monkeypatch.setattr("sys.argv", ["facedex", *options, *words])
        monkeypatch.setattr("sys.stdin", io.StringIO())
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ran(status=int(str(ended.value.code)), out=said.out, err=said.err)

    return run


@pytest.fixture
def vectors(facedex: Facedex, tmp_path: Path) -> np.ndarray:
    """Faces 1 to 8 with these persons; their vectors, (8, 8)."""
    rows = np.random.default_rng(0).standard_normal((len(PERSONS), DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIMENSION)
    ids = [f"face-{number}" for number in range(1, len(PERSONS) + 1)]
    pq.write_table(pa.table({"vector": column, "id": ids, "person": PERSONS}), tmp_path / "in.pq")
    assert facedex("import", str(tmp_path / "in.pq"), "--space", "mine@1").status == 0
    return rows


def listed(facedex: Facedex) -> dict[str, int]:
    found = facedex("person", "list", "--json").json["persons"]
    return {one["name"] or f"#{one['person']}": one["count"] for one in found}


def test_a_day_of_naming_people(facedex: Facedex, vectors: np.ndarray) -> None:
    def change(*words: str) -> int:
        ran = facedex("person", *words, "--json")
        assert ran.status == 0, ran.err
        assert set(ran.json) >= {"event", "person", "faces", "token"}
        assert isinstance(ran.json["token"], int)
        event: int = ran.json["event"]
        return event

    assert listed(facedex) == {"Ann": 3, "Ben": 2, "Cleo": 1, "Zöe Ünal": 1}
    change("assign", "Dora", "6")
    change("reject", "Ann", "3")
    change("link", "Ann", "Dora")
    change("unlink", "Dora", "Ann")
    merged = change("merge", "Ben", "Ann")
    assert listed(facedex) == {"Ann": 4, "Cleo": 1, "Dora": 1, "Zöe Ünal": 1}
    change("rename", "Ben", "Anna")  # a merged name means the survivor
    split = change("split", "Anna", "4", "--name", "Eve")
    refused = facedex("person", "undo", str(merged))
    assert (refused.status, refused.out) == (2, "")
    assert f"undo {split} (split) first" in refused.err
    for event in (split, split + 1, split + 2):  # undo, redo, undo
        change("undo", str(event))
    change("undo", str(merged))
    assert listed(facedex) == {"Anna": 2, "Ben": 2, "Cleo": 1, "Dora": 1, "Zöe Ünal": 1}
    shown = facedex("person", "show", "Anna", "--json").json
    assert (shown["faces"], shown["rejected"], shown["links"]) == ([1, 2], [3], [])
    events = facedex("person", "events", "--json").json["events"]
    kinds = ["assign", "reject", "link", "unlink", "merge", "rename", "split", "undo", "redo"]
    assert [one["kind"] for one in reversed(events)] == [*kinds, "undo", "undo"]
    assert {one["author"] for one in events} == {getpass.getuser()}
    hits = facedex("search", "--face", "1", "--where", "person = 'Anna'", "--json").json["hits"]
    assert [hit["face"] for hit in hits] == sorted(
        [1, 2], key=lambda f: -vectors[f - 1] @ vectors[0]
    )


def test_an_export_holds_all_that_is_known_of_a_person(
    facedex: Facedex, vectors: np.ndarray, tmp_path: Path
) -> None:
    facedex("person", "reject", "Ann", "8")
    facedex("person", "merge", "Zöe Ünal", "Ann")
    facedex("person", "rename", "Ann", "Änn")
    facedex("person", "rename", "Cleo", "Other")
    ran = facedex("person", "export", "Änn", "--out", str(tmp_path / "out"), "--json")
    counts = {"faces": 4, "vectors": 4, "images": 0, "events": 3}
    assert {name: ran.json[name] for name in counts} == counts
    told = json.loads((tmp_path / "out" / "person.json").read_text())
    assert (told["name"], told["aliases"], told["rejected_faces"]) == ("Änn", ["Zöe Ünal"], [8])
    assert [face["face"] for face in told["faces"]] == [1, 2, 3, 7]
    assert [face["captions"] for face in told["faces"]] == [[], [], [], []]
    assert [event["kind"] for event in told["events"]] == ["reject", "merge", "rename"]
    assert told["events"][2]["names"] == [
        {"person": told["person"], "before": "Ann", "after": "Änn"}
    ]
    assert "Other" not in json.dumps(told)
    table = pq.read_table(tmp_path / "out" / "mine@1.parquet")
    exported = np.array(table["vector"].to_pylist(), np.float32)
    np.testing.assert_array_equal(exported, vectors[[0, 1, 2, 6]].astype(np.float16))
    assert table["person"].to_pylist() == ["Änn"] * 4
    again = facedex("person", "export", "Änn", "--out", str(tmp_path / "out"))
    assert again.status == 2
    assert "is not empty" in again.err


def test_erasing_asks_first_and_leaves_nothing_to_undo(
    facedex: Facedex, vectors: np.ndarray
) -> None:
    event = facedex("person", "rename", "Ann", "Anna", "--json").json["event"]
    unasked = facedex("person", "erase", "Anna")
    assert unasked.status == 3
    assert listed(facedex)["Anna"] == 3
    erased = facedex("person", "erase", "Anna", "--yes", "--json").json
    assert (erased["persons"], erased["faces"], erased["images"]) == (1, 3, 0)
    assert len(erased["erasure"]) == 32
    assert isinstance(erased["token"], int)
    for words in (("undo", str(event)), ("show", "Anna"), ("assign", "#1", "4")):
        ran = facedex("person", *words)
        assert ran.status == 2
        assert "Ann" not in ran.err
    assert "Anna" not in listed(facedex)
    del vectors


def test_every_command_helps_and_refuses_nonsense(facedex: Facedex, vectors: np.ndarray) -> None:
    for words, said in (
        (("person", "assign", "Ann"), "Missing argument 'FACE...'"),
        (("person", "assign", "Ann", "99"), "face 99 is not in collection 'default'"),
        (("person", "merge", "Nobody", "Ann"), "no person of that name"),
        (("person", "rename", "Ann", "Ben"), "that name is taken by person #"),
        (("person", "split", "Ann", "1", "2", "3"), "rename it, or leave some out"),
        (("person", "undo", "17"), "no event 17"),
        (("person", "unlink", "Ann", "Ann"), "name two persons"),
        (("person", "erase", "#99", "--yes"), "no person #99"),
    ):
        ran = facedex(*words)
        assert (ran.status, ran.out) == (2, "")
        assert said in ran.err
        assert "Traceback" not in ran.err
    again = facedex("person", "assign", "Ann", "1", "--json").json
    assert (again["event"], again["faces"]) == (None, 0)
    del vectors
