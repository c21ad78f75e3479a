"""The made-up faces of the clustering benchmark, its graph, and its rivals."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks.clustering.graphs import FLOOR, Pairs, pairs_of
from benchmarks.clustering.lfw import THRESHOLDS, Half, _crossed, _halves, _measured
from benchmarks.clustering.rivals import Faces, components, dbscan, hdbscan, whispers
from benchmarks.clustering.sets import PULL, FaceSet, Recipe, face_set, nobody
from retrieval.evaluation.clustering import measure_clustering
from retrieval.evaluation.resampling import Measure

EASY = Recipe(rows=2_000, noise=0.7)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def easy(work: Path) -> FaceSet:
    return face_set(EASY, work)


@pytest.fixture(scope="module")
def faces(easy: FaceSet, work: Path) -> Faces:
    return Faces(pairs=pairs_of(easy.vectors, work / "graph", count=80), count=len(easy.persons))


def test_a_recipe_gives_the_same_set_and_as_many_faces_and_persons_as_it_says(
    easy: FaceSet, tmp_path: Path
) -> None:
    again = face_set(EASY, tmp_path)
    for one in dataclasses.fields(FaceSet)[1:]:
        assert np.array_equal(getattr(easy, one.name), getattr(again, one.name)), one.name
    assert easy.vectors.shape == (2_000, 512)
    assert set(easy.persons) <= set(range(EASY.persons))
    assert np.linalg.norm(easy.vectors.astype(np.float32), axis=1) == pytest.approx(1, abs=1e-3)


def test_calibration_faces_are_of_other_people_with_the_same_noise(easy: FaceSet) -> None:
    unit = easy.calibration_vectors[::10].astype(np.float32)
    assert (unit @ easy.vectors.astype(np.float32).T).max() < 0.6

    def within(vectors: np.ndarray, persons: np.ndarray) -> float:
        order = np.argsort(persons, kind="stable")
        some, owners = vectors[order].astype(np.float32), persons[order]
        same = owners[1:] == owners[:-1]
        return float(np.einsum("ij,ij->i", some[1:], some[:-1])[same].mean())

    assert within(easy.vectors, easy.persons) == pytest.approx(
        within(easy.calibration_vectors, easy.calibration_persons), abs=0.01
    )


def test_pulled_faces_are_alike_and_of_low_quality_and_the_rest_stays(
    easy: FaceSet, tmp_path: Path
) -> None:
    pulled = face_set(dataclasses.replace(EASY, pulled=0.03), tmp_path)
    some = pulled.pulled
    assert 0.02 < some.mean() < 0.04
    assert np.array_equal(pulled.vectors[~some], easy.vectors[~some])
    assert np.array_equal(pulled.persons, easy.persons)
    along = pulled.vectors[some].astype(np.float32) @ nobody()
    assert np.square(along).min() > PULL[0] - 0.01
    assert np.square(along).max() < PULL[1] + 0.01
    assert np.median(pulled.quality[some]) < np.quantile(pulled.quality[~some], 0.1)


def test_the_graph_has_each_pair_of_near_faces_once(easy: FaceSet, faces: Faces) -> None:
    unit = easy.vectors.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    products = unit @ unit.T
    np.fill_diagonal(products, -2)
    near = np.argsort(-products, axis=1)[:, :80]
    expected = {
        (min(one, other), max(one, other))
        for one, others in enumerate(near.tolist())
        for other in others
        if products[one, other] >= FLOOR
    }
    pairs = faces.pairs
    found = list(zip(pairs.ones.tolist(), pairs.others.tolist(), strict=True))
    assert len(found) == len(set(found))
    assert len(set(found) ^ expected) <= 0.001 * len(expected)  # ties in float32
    assert (np.diff(pairs.similarities) <= 0).all()
    assert pairs.similarities == pytest.approx(products[pairs.ones, pairs.others], abs=1e-5)
    above = pairs.above(0.5)
    assert len(above.ones) == (pairs.similarities >= 0.5).sum()


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == one).tolist()) for one in np.unique(labels)}


def test_dbscan_of_two_faces_is_components_but_that_lone_faces_are_left_out(faces: Faces) -> None:
    joined = partition(components(faces, {"threshold": 0.5}))
    found = dbscan(faces, {"threshold": 0.5, "min_samples": 2})
    groups = {group for group in joined if len(group) > 1}
    clustered = {frozenset(np.flatnonzero(found == one).tolist()) for one in set(found) - {-1}}
    assert clustered == groups


def test_whispers_split_what_a_chain_joins() -> None:
    """Two groups of five that know each other well, and one weak pair between them."""
    known = [
        (a, b) for first in (0, 5) for a in range(first, first + 5) for b in range(a + 1, first + 5)
    ]
    ones, others = np.array([*known, (4, 5)], np.int32).T
    weights = np.array([0.9] * len(known) + [0.5], np.float32)
    chained = Faces(pairs=Pairs(ones, others, weights), count=10)
    assert len(partition(components(chained, {"threshold": 0.4}))) == 1
    assert partition(whispers(chained, {"threshold": 0.4})) == {
        frozenset(range(5)),
        frozenset(range(5, 10)),
    }


def half(easy: FaceSet, rows: np.ndarray, folder: Path) -> Half:
    vectors = easy.vectors[rows]
    pairs = pairs_of(vectors, folder)
    return Half(faces=Faces(pairs=pairs, count=len(rows)), rows=rows, persons=easy.persons[rows])


def test_each_half_is_grouped_by_what_was_best_for_the_other(easy: FaceSet, work: Path) -> None:
    rows = _halves(easy.persons)
    assert not set(easy.persons[rows[0]]) & set(easy.persons[rows[1]])
    assert sorted(np.concatenate(rows)) == list(range(len(easy.persons)))
    halves = [half(easy, each, work / f"half{number}") for number, each in enumerate(rows)]
    for judged, clusters, chosen in _crossed("components", halves, size=len(easy.persons)):
        for mine, other, settings in zip(halves, halves[::-1], chosen, strict=True):
            best = max(
                other.judged(components(other.faces, {"threshold": one}))[judged]
                for one in THRESHOLDS
            )
            assert other.judged(components(other.faces, settings))[judged] == best
            found = components(mine.faces, settings)
            assert partition(clusters[mine.rows]) == partition(found)
        assert not set(clusters[halves[0].rows]) & set(clusters[halves[1].rows])
        report = measure_clustering(easy.persons, clusters, faces_max=20)
        assert _measured(easy.persons, clusters, judged) == report.figures[judged]
        nothing = _measured(easy.persons, clusters, judged, less=clusters)
        assert nothing == Measure(value=0.0, low=None, high=None)


def test_hdbscan_puts_nothing_together_that_no_pair_joins(faces: Faces) -> None:
    pytest.importorskip("hdbscan")
    settings = {"threshold": 0.5, "min_cluster_size": 2, "min_samples": 1, "epsilon": 0.6}
    pieces, found = components(faces, settings), hdbscan(faces, settings)
    for one in set(found.tolist()) - {-1}:
        assert len(set(pieces[found == one].tolist())) == 1
    # All pairs left are nearer than epsilon, so that pieces stay whole.
    alone = found < 0
    found[alone] = found.max() + 1 + np.arange(alone.sum())
    assert partition(found) == partition(pieces)
