"""Identities that are too alike, and samples without such, from the command line."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.people import Crowd
from tests.acceptance.conftest import Facedex, run

PERSONS, EACH = 120, 3


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    made, _ = Crowd.drawn(PERSONS, seed=4).faces(np.repeat(np.arange(PERSONS), EACH))
    twins = np.array(made)
    twins[3:6] = twins[:3] * 0.97 + twins[3:6] * 0.1  # the second person is the first, nearly
    return (twins / np.linalg.norm(twins, axis=1, keepdims=True)).astype("<f2")


@pytest.fixture(scope="module")
def home(new_home, vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = new_home()
    path = tmp_path_factory.mktemp("given") / "faces.parquet"
    rows = range(PERSONS * EACH)
    pq.write_table(
        pa.table(
            {
                "id": [f"face {row}" for row in rows],
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 512),
                "person": [f"person {row // EACH}" for row in rows],
                "quality": [0.2 + 0.7 * (row % 7) / 7 for row in rows],
                "shelf": [row % 2 for row in rows],
            }
        ),
        path,
    )
    for collection in ("default", "calibrated"):
        ran = run(folder, "import", str(path), "--space", "made@1", "-c", collection)
        assert ran.status == 0, ran.err
    return folder


@pytest.fixture
def facedex(home: Path) -> Facedex:
    return lambda *words, **options: run(home, *words, **options)


def test_pairs_of_persons_are_told_with_names_and_counted(facedex: Facedex, tmp_path: Path) -> None:
    out = tmp_path / "apart"
    ran = facedex("evaluate", "separability", "--above", "0.3", "--out", str(out), "--json")
    assert ran.status == 0, ran.err
    told = ran.json
    assert told["identities"] == PERSONS
    assert told["pairs_compared"] == PERSONS * (PERSONS - 1) // 2
    assert told["pairs_expected"] is None  # nothing tells how alike strangers are in this space
    pairs = pq.read_table(out / "pairs.parquet").to_pylist()
    assert (
        len(pairs)
        == told["pairs"]
        == sum(one["pairs"] for one in told["histogram"] if one["from"] >= 0.3)
    )
    assert {pairs[0]["person_a"], pairs[0]["person_b"]} == {"person 0", "person 1"}
    assert pairs[0]["similarity"] == told["highest"] > 0.9
    assert told["most_alike"][0] == pairs[0]
    assert [one["similarity"] for one in pairs] == sorted(
        (one["similarity"] for one in pairs), reverse=True
    )
    before = (out / "pairs.parquet").read_bytes(), (out / "figures.json").read_bytes()
    assert facedex("evaluate", "separability", "--above", "0.3", "--out", str(out)).status == 0
    assert ((out / "pairs.parquet").read_bytes(), (out / "figures.json").read_bytes()) == before
    assert not (out / "work").exists()


def test_pairs_of_faces_leave_out_those_of_one_person_and_of_linked_ones(
    facedex: Facedex, vectors: np.ndarray
) -> None:
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    owners = np.arange(len(wide)) // EACH
    reached = np.triu((wide @ wide.T) >= 0.4, k=1) & (owners[:, None] != owners)
    asked = ("evaluate", "separability", "--by", "face", "--above", "0.4", "--json")
    assert facedex(*asked).json["pairs"] == reached.sum() >= 9
    passing = np.arange(len(wide)) % 2 == 0
    some = facedex(*asked, "--where", "shelf = 0").json
    assert some["pairs"] == (reached & passing[:, None] & passing).sum()
    assert facedex("person", "link", "person 0", "person 1").status == 0
    try:
        twins = (owners[:, None] < 2) & (owners < 2)
        assert facedex(*asked).json["pairs"] == (reached & ~twins).sum()
        persons = facedex("evaluate", "separability", "--above", "0.3", "--json").json
        assert persons["identities"] == PERSONS - 1
        assert persons["highest"] < 0.9
    finally:
        assert facedex("person", "unlink", "person 0", "person 1").status == 0


def test_a_rate_needs_a_calibration_and_a_similarity_does_not(facedex: Facedex) -> None:
    ran = facedex("evaluate", "separability", "--fmr", "1e-3")
    assert ran.status == 2
    assert "calibrat" in ran.err
    within = ("-c", "calibrated", "--json")
    ran = facedex("evaluate", "verification", "--calibrate", *within)
    assert ran.status == 0, ran.err
    for by, pairs in (("face", PERSONS * (PERSONS - 1) * EACH**2 // 2), ("person", 7140)):
        told = facedex("evaluate", "separability", "--by", by, "--fmr", "2e-3", *within).json
        assert told["pairs_compared"] == pairs
        assert told["pairs_expected"] == pytest.approx(2e-3 * pairs, rel=0.25)
        assert told["pairs_expected"] / 2.5 < told["pairs"] < told["pairs_expected"] * 2.5
        assert told["pairs_expected_low"] < told["pairs_expected"] < told["pairs_expected_high"]
    low = facedex("evaluate", "separability", "--above", "0.0", *within).json
    assert low["pairs"] / 2 < low["pairs_expected"] < low["pairs"] * 2
    both = facedex("evaluate", "separability", "--fmr", "1e-3", "--above", "0.4")
    assert (both.status, "one of --above and --fmr" in both.err) == (2, True)


def test_no_two_of_a_sample_are_alike_and_nothing_could_be_added(
    facedex: Facedex, vectors: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "chosen.parquet"
    ran = facedex("sample", "1000", "--max-cosine", "0.35", "--out", str(out), "--json")
    assert ran.status == 0, ran.err
    assert "only" in ran.err
    told = ran.json
    table = pq.read_table(out)
    rows = np.array([int(name.split()[1]) for name in table["external_id"].to_pylist()])
    assert len(rows) == told["sampled"] < told["among"] == PERSONS * EACH
    assert told["exhausted"]
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    among = wide[rows] @ wide[rows].T - 2 * np.eye(len(rows))
    assert among.max() < 0.35
    left = np.setdiff1d(np.arange(len(wide)), rows)
    assert ((wide[left] @ wide[rows].T).max(axis=1) >= 0.35).all()
    again = facedex("sample", "1000", "--max-cosine", "0.35", "--out", str(out), "--json")
    assert pq.read_table(out).equals(table), again.err
    few = facedex("sample", "7", "--max-cosine", "0.35", "--out", str(out), "--json").json
    assert (few["sampled"], few["exhausted"]) == (7, False)
    assert pq.read_table(out).equals(table.slice(0, 7))


def test_the_best_come_first_where_they_are_asked_for(facedex: Facedex, tmp_path: Path) -> None:
    out = tmp_path / "best.parquet"
    asked = ("sample", "40", "--max-cosine", "0.5", "--out", str(out))
    assert facedex(*asked, "--best", "--where", "shelf = 1").status == 0
    best = pq.read_table(out)
    assert best["quality"].to_pylist() == sorted(best["quality"].to_pylist(), reverse=True)
    assert {int(name.split()[1]) % 2 for name in best["external_id"].to_pylist()} == {1}
    assert facedex(*asked, "--persons").status == 0
    persons = pq.read_table(out)
    assert persons.column_names == ["person_id", "person", "faces"]
    assert set(persons["faces"].to_pylist()) == {EACH}
    assert not {"person 0", "person 1"} <= set(persons["person"].to_pylist())
