"""What two collections share, against a comparison of everything with everything."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from facedex.handle import Facedex, open_facedex
from indexer.bulk.importing import ImportRequest
from retrieval.curation import overlap as module
from retrieval.errors import CalibrationMissingError, SpaceMismatchError, UsageError
from retrieval.people.template import templates
from retrieval.store.database import Store
from retrieval.values import UnitRows
from tests.labelled import people
from tests.people import gallery

FACES = people([3] * 60, noise=0.5, seed=1, dimension=16)
ABOVE = 0.9


def name_in_other(person: int) -> str | None:
    """What the second collection calls a person: nothing, another name, or the same."""
    if person % 5 == 0:
        return None
    return f"Q{person}" if person % 7 == 0 else f"P{person}"


def written(path: Path, rows: Sequence[int], names: Sequence[str | None]) -> Path:
    vectors = pa.array(FACES.vectors[rows].ravel())
    table = pa.table(
        {
            "id": [str(row) for row in rows],
            "vector": pa.FixedSizeListArray.from_arrays(vectors, 16),
            "person": pa.array(names, pa.string()),
            "quality": FACES.quality[rows],
        }
    )
    pq.write_table(table, path)
    return path


@pytest.fixture
def opened(store: Store, tmp_path: Path) -> Iterator[Facedex]:
    """Collections with the first two faces of 40 persons, and with the last one of all 60.

    Every fifth person has no name in the second one, so that its face is nobody's, every eleventh
    of the first neither; the name of every seventh is another one.
    """
    persons = FACES.persons
    first = [row for row in range(180) if row % 3 < 2 and persons[row] < 40]
    last = [row for row in range(180) if row % 3 == 2]
    named = [None if persons[row] % 11 == 0 else f"P{persons[row]}" for row in first]
    other = [name_in_other(int(persons[row])) for row in last]
    with open_facedex(home=tmp_path, database_url=store.url, collection="a") as facedex:
        for name, rows, names in (("a", first, named), ("b", last, other)):
            path = written(tmp_path / f"{name}.parquet", rows, names)
            facedex.import_file(ImportRequest(path=path, collection=name, space="made@1"))
        yield facedex


def everything(name: str, path: Path) -> dict[tuple[str, str], Any]:
    """Each person's template and each other face of a file, by what it is and its name."""
    table = pq.read_table(path / f"{name}.parquet").to_pylist()
    found: dict[tuple[str, str], Any] = {}
    for row in table:
        if row["person"] is None:
            found["face", row["id"]] = np.array(row["vector"], np.float16).astype(float)
    for person in sorted({row["person"] for row in table} - {None}):
        mine = [row for row in table if row["person"] == person]
        vectors = UnitRows(np.array([row["vector"] for row in mine], np.float16))
        quality = np.array([row["quality"] for row in mine])
        made = templates(vectors, quality, np.zeros(len(mine), np.int64))[1][0]
        found["person", person] = made.astype(np.float16).astype(float)
    return found


def cosine(one: Any, other: Any) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("candidates", [16, 1])
def test_all_pairs_that_reach_the_similarity_are_told_with_it(
    opened: Facedex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidates: int
) -> None:
    monkeypatch.setattr(module, "CANDIDATES", candidates)
    monkeypatch.setattr(module, "ASKED_AT_ONCE", 7)
    mine, its = (everything(name, tmp_path) for name in "ab")
    truth = {
        (*one, *other): cosine(mine[one], its[other])
        for one in mine
        for other in its
        if cosine(mine[one], its[other]) >= 0.5
    }
    found = opened.curation.overlap("a", "b", above=0.5)
    with opened.store.reading() as connection:
        ids = {row.id: row.external_id for row in connection.execute(text("SELECT * FROM face"))}

    def key(row: dict[str, Any], side: str) -> tuple[str, str]:
        if row[f"face_{side}"] is None:
            return ("person", row[f"person_{side}"])
        return ("face", ids[row[f"face_{side}"]])

    told = {
        (*key(row, "a"), *key(row, "b")): row["similarity"] for row in found.identities.to_pylist()
    }
    assert told == pytest.approx(truth, abs=1e-6)
    assert len(told) == found.identities.num_rows > 40
    figures = found.figures()
    assert figures["persons_shared_a"] == len({one[1] for one in truth if one[0] == "person"})
    assert figures["faces_shared_b"] == len({one[3] for one in truth if one[2] == "face"})
    assert {one["expected_false"] for one in figures["compared"]} == {None}


def test_names_are_told_with_what_the_faces_say(opened: Facedex) -> None:
    found = opened.curation.overlap("a", "b", above=ABOVE)
    names = {row["name"]: row for row in found.names.to_pylist()}
    both = {f"P{one}" for one in range(40) if one % 11 and one % 5 and one % 7}
    assert set(names) == both
    for row in names.values():
        assert row["faces_are"] == ("alike" if row["similarity"] >= ABOVE else "unlike")
    pairs = [row for row in found.identities.to_pylist() if row["kind"] == "person-person"]
    for row in pairs:
        same = row["person_a"] == row["person_b"]
        assert row["names"] == ("same" if same else "other")
    figures = found.figures()
    assert figures["names_shared"] == len(both)
    assert figures["alike_under_other_names"] == sum(row["names"] == "other" for row in pairs) > 0


def test_a_rate_needs_a_calibration_and_gives_the_expected_number_of_false_pairs(
    opened: Facedex,
) -> None:
    with pytest.raises(CalibrationMissingError):
        opened.curation.overlap("a", "b")
    opened.evaluation.calibrate()
    for one, other in (("a", "b"), ("b", "a")):
        found = opened.curation.overlap(one, other, fpir=0.05)
        [persons, *_] = found.figures()["compared"]
        assert persons["kind"] == "person-person"
        asking = found.figures()["persons_a"]
        # Of each search 0.05 find somebody by chance: about as many pairs, or a few more.
        assert 0.03 * asking < persons["expected_false"] < 0.1 * asking
        rows = found.identities.to_pylist()
        sure = sorted((row["similarity"], -row["expected_false"]) for row in rows[:10])
        assert [expected for _, expected in sure] == sorted(expected for _, expected in sure)


def test_the_same_bytes_are_one_picture(store: Store, tmp_path: Path) -> None:
    gallery(store, [["Ann"], ["Bob"], [None]], name="one")
    gallery(store, [["Ann"], ["Cid"]], name="two")
    with open_facedex(home=tmp_path, database_url=store.url, collection="one") as facedex:
        found = facedex.curation.overlap("one", "two", above=0.99)
    rows = found.pictures.to_pylist()
    assert [row["sha256"] for row in rows] == [f"{one:064x}" for one in (1, 2)]
    assert [row["image_a"] for row in rows] == ["/pictures/1.jpg", "/pictures/2.jpg"]
    assert [row["image_b"] for row in rows] == ["/pictures/1.jpg", "/pictures/2.jpg"]
    assert found.figures()["alike_under_other_names"] == 1  # Bob's picture is Cid's there


def test_two_spaces_and_one_collection_are_refused(opened: Facedex, store: Store) -> None:
    gallery(store, [["Ann"]], name="else")
    with pytest.raises(SpaceMismatchError, match="mean nothing"):
        opened.curation.overlap("a", "else", above=0.9)
    with pytest.raises(UsageError, match="two collections"):
        opened.curation.overlap("a", "a", above=0.9)
    with pytest.raises(UsageError, match="not both"):
        opened.curation.overlap("a", "b", above=0.9, fpir=0.1)
