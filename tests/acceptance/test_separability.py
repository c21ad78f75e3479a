"""Identities that are too alike, and samples without such, from the command line."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.people import Crowd
from facedex.handle import open_facedex
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
    home: Path, vectors: np.ndarray
) -> None:
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    owners = np.arange(len(wide)) // EACH
    reached = np.triu((wide @ wide.T) >= 0.4, k=1) & (owners[:, None] != owners)
    passing = np.arange(len(wide)) % 2 == 0
    twins = (owners[:, None] < 2) & (owners < 2)
    with open_facedex(home=home) as opened:
        faces = opened.curation.separability(by="face", above=0.4)
        assert faces.pairs.num_rows == reached.sum() >= 9
        assert set(faces.pairs.column_names) >= {"face_a", "external_id_b", "person_a", "image_b"}
        some = opened.curation.separability(by="face", above=0.4, where="shelf = 0")
        assert some.pairs.num_rows == (reached & passing[:, None] & passing).sum()
        opened.people.link("person 0", "person 1")
        try:
            faces = opened.curation.separability(by="face", above=0.4)
            assert faces.pairs.num_rows == (reached & ~twins).sum()
            persons = opened.curation.separability(above=0.3).figures()
            assert persons["identities"] == PERSONS - 1
            assert persons["highest"] < 0.9
        finally:
            opened.people.unlink("person 0", "person 1")


def test_a_rate_needs_a_calibration_and_a_similarity_does_not(facedex: Facedex, home: Path) -> None:
    ran = facedex("evaluate", "separability", "--fmr", "1e-3")
    assert ran.status == 2
    assert "calibrat" in ran.err
    both = facedex("evaluate", "separability", "--fmr", "1e-3", "--above", "0.4")
    assert (both.status, "one of --above and --fmr" in both.err) == (2, True)
    with open_facedex(home=home, collection="calibrated") as opened:
        opened.evaluation.calibrate()
        for by, pairs in (("face", PERSONS * (PERSONS - 1) * EACH**2 // 2), ("person", 7140)):
            told = opened.curation.separability(by=by, fmr=2e-3).figures()
            assert told["pairs_compared"] == pairs
            expected = told["pairs_expected"]
            assert expected == pytest.approx(2e-3 * pairs, rel=0.25)
            assert expected / 2.5 < told["pairs"] < expected * 2.5
            assert told["pairs_expected_low"] < expected < told["pairs_expected_high"]
        low = opened.curation.separability(above=0.0).figures()
        assert low["pairs"] / 2 < low["pairs_expected"] < low["pairs"] * 2


def test_no_two_of_a_sample_are_alike_and_nothing_could_be_added(
    facedex: Facedex, home: Path, vectors: np.ndarray, tmp_path: Path
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
    with open_facedex(home=home) as opened:
        again = opened.curation.sample(1000, below=0.35)
        assert again.table.equals(table.cast(again.table.schema))
        few = opened.curation.sample(7, below=0.35)
        assert (few.table.num_rows, few.exhausted) == (7, False)
        assert few.table.equals(again.table.slice(0, 7).combine_chunks())
        other = opened.curation.sample(7, below=0.35, seed=1)
        assert not other.table.equals(few.table)


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
