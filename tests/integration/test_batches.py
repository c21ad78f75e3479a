"""Many decisions at once equal those of brute force."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from facedex.batches import identify_probes, verify_pairs
from facedex.handle import Facedex, open_facedex
from indexer.bulk.importing import ImportRequest
from retrieval.errors import UsageError
from retrieval.people.calibration import Calibration, tail_of_counts, tail_of_maxima
from retrieval.people.template import templates
from retrieval.store import collections as tenants
from retrieval.store import embedded
from retrieval.store.calibrations import keep_calibration
from retrieval.values import UnitRows, unit_rows

DIMENSION, PERSONS, EACH, PAIRS, PROBES = 32, 60, 5, 10_000, 700
RANDOM = np.random.default_rng(11)
STRANGERS = stats.beta((DIMENSION - 1) / 2, (DIMENSION - 1) / 2, loc=-1, scale=2)


def drawn(count: int) -> UnitRows:
    return unit_rows(RANDOM.standard_normal((count, DIMENSION)).astype("<f2"))


def calibration() -> Calibration:
    at = np.linspace(-0.5, 0.8, 500)
    rates = STRANGERS.sf(at)
    maxima = STRANGERS.ppf(RANDOM.random(5_000) ** (1 / PERSONS))
    return Calibration(
        space="made@1",
        model_sha256=None,
        data="numbers",
        comparisons=tail_of_counts(at, rates, rates, rates, trials=10_000_000),
        searches=tail_of_maxima(maxima, size=PERSONS),
    )


def fixed(vectors: np.ndarray) -> pa.Array:
    flat = pa.array(vectors.astype(np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


@pytest.fixture(scope="module")
def vectors() -> UnitRows:
    centres = np.repeat(drawn(PERSONS), EACH, axis=0)
    return unit_rows((centres + 0.15 * RANDOM.standard_normal(centres.shape)).astype("<f2"))


@pytest.fixture(scope="module")
def facedex(tmp_path_factory: pytest.TempPathFactory, vectors: UnitRows) -> Iterator[Facedex]:
    """A collection of persons whose vectors came from outside."""
    home = tmp_path_factory.mktemp("batches")
    file = home / "faces.parquet"
    names = [f"P{row // EACH}" for row in range(len(vectors))]
    ids = [f"{row}" for row in range(len(vectors))]
    pq.write_table(pa.table({"vector": fixed(vectors), "person": names, "id": ids}), file)
    try:
        with open_facedex(home=home) as opened:
            opened.import_file(ImportRequest(path=file, collection="default", space="made@1"))
            tenant = opened.collection()
            with opened.store.writing() as connection:
                space = tenants.space_of(connection, tenant)
                keep_calibration(connection, calibration(), collection=tenant, space=space)
            yield opened
    finally:
        embedded.stop(home)


def quiet(done: int, total: int) -> None:
    """No bar."""
    assert 0 <= done <= total


def test_pairs_of_vectors_are_judged_as_one_by_one(facedex: Facedex, tmp_path: Path) -> None:
    ones = drawn(PAIRS)
    others = unit_rows(ones + RANDOM.standard_normal(ones.shape) * RANDOM.random((PAIRS, 1)))
    columns = {"vector_a": fixed(ones), "vector_b": fixed(others), "note": list(range(PAIRS))}
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    report = verify_pairs(
        facedex.recognition, tmp_path / "pairs.parquet", tmp_path / "out.parquet",
        fmr=1e-3, progress=quiet,
    )  # fmt: skip
    out = pq.read_table(tmp_path / "out.parquet")
    truth = np.einsum("ij,ij->i", ones.astype(np.float64), others.astype(np.float64))
    assert out["similarity"].to_numpy() == pytest.approx(truth, abs=1e-6)
    assert out["note"].to_pylist() == list(range(PAIRS))
    same = truth >= report.threshold.similarity
    assert out["same"].to_pylist() == same.tolist()
    assert (report.rows, report.reached, report.unusable) == (PAIRS, int(same.sum()), 0)
    assert 0 < report.reached < PAIRS


def test_pairs_of_stored_faces_are_judged_and_those_that_are_not_there_are_counted(
    facedex: Facedex, tmp_path: Path, vectors: UnitRows
) -> None:
    faces = {record.external_id: record.face for record in facedex.faces(limit=1_000)}
    rows = RANDOM.integers(0, len(vectors), (500, 2))
    ones = [faces[f"{row}"] for row in rows[:, 0]]
    others = [faces[f"{row}"] for row in rows[:, 1]]
    table = pa.table({"face_a": [*ones, 10**9, None], "face_b": [*others, ones[0], ones[0]]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    report = verify_pairs(
        facedex.recognition, tmp_path / "pairs.parquet", tmp_path / "out.parquet",
        fmr=1e-3, progress=quiet,
    )  # fmt: skip
    found = pq.read_table(tmp_path / "out.parquet")["similarity"]
    truth = np.einsum("ij,ij->i", vectors[rows[:, 0]], vectors[rows[:, 1]])
    assert found.to_numpy()[:500] == pytest.approx(truth, abs=2e-3)
    assert (report.unusable, found.null_count) == (2, 2)


def test_probes_meet_the_persons_that_brute_force_finds(
    facedex: Facedex, tmp_path: Path, vectors: UnitRows
) -> None:
    near = vectors[RANDOM.integers(0, len(vectors), PROBES // 2)]
    probes = unit_rows(np.concatenate([near + 0.1 * drawn(PROBES // 2), drawn(PROBES // 2)]))
    table = pa.table({"vector": fixed(probes), "id": [f"probe {n}" for n in range(PROBES)]})
    pq.write_table(table, tmp_path / "probes.parquet")
    report = identify_probes(
        facedex.recognition, tmp_path / "probes.parquet", tmp_path / "out.parquet",
        fpir=0.01, count=3, progress=quiet,
    )  # fmt: skip
    out = pq.read_table(tmp_path / "out.parquet")
    quality = np.full(len(vectors), np.nan)
    _, gallery = templates(vectors, quality, np.repeat(np.arange(PERSONS), EACH))
    scores = probes @ unit_rows(gallery.astype("<f2")).T
    order = np.argsort(-scores, axis=1)[:, :3]
    named = np.array([int(name[1:]) for name in out["name"].to_pylist()]).reshape(PROBES, 3)
    best = np.take_along_axis(scores, order, axis=1)
    # The store rounds vectors to float16: persons that are alike to a thousandth may change places.
    assert np.take_along_axis(scores, named, axis=1) == pytest.approx(best, abs=1e-3)
    assert out["similarity"].to_numpy() == pytest.approx(best.ravel(), abs=1e-3)
    assert out["rank"].to_pylist() == [1, 2, 3] * PROBES
    assert out["id"].to_pylist() == [f"probe {n // 3}" for n in range(3 * PROBES)]
    assert report.reached == int((best[:, 0] >= report.threshold.similarity).sum())
    assert PROBES // 3 < report.reached < PROBES * 2 // 3


def test_probes_that_point_nowhere_are_counted_and_the_others_answered(
    facedex: Facedex, tmp_path: Path
) -> None:
    rows = [[0.0] * DIMENSION, [1.0] * DIMENSION, [float("nan")] * DIMENSION, [1.0] * 3, None]
    table = pa.table({"vector": pa.array(rows, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "probes.parquet")
    report = identify_probes(
        facedex.recognition, tmp_path / "probes.parquet", tmp_path / "out.parquet",
        fpir=0.01, count=2, progress=quiet,
    )  # fmt: skip
    out = pq.read_table(tmp_path / "out.parquet")
    assert (report.rows, report.unusable) == (5, 4)
    assert out["probe"].to_pylist() == [1, 1]


def test_a_file_without_the_columns_is_refused_and_leaves_nothing(
    facedex: Facedex, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"face_a": [1]}), tmp_path / "in.parquet")
    out = tmp_path / "out.parquet"
    recognition = facedex.recognition
    with pytest.raises(UsageError, match="neither face_a"):
        verify_pairs(recognition, tmp_path / "in.parquet", out, fmr=1e-3, progress=quiet)
    with pytest.raises(UsageError, match="no column 'vector'"):
        identify_probes(
            recognition, tmp_path / "in.parquet", out, fpir=0.01, count=1, progress=quiet
        )
    (tmp_path / "text").write_text("text")
    with pytest.raises(UsageError, match="no Parquet"):
        verify_pairs(recognition, tmp_path / "text", out, fmr=1e-3, progress=quiet)
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet", "text"}
