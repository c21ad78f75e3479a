"""Groupings of faces against persons: each pair and each face one by one, and scikit-learn."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.evaluation.clustering import Table, _figures, figures, measure_clustering
from retrieval.evaluation.resampling import Measure

LABELS = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 5), min_size=n, max_size=n),
        st.lists(st.integers(-1, 5), min_size=n, max_size=n),
    )
)


def alone(clusters: list[int]) -> list[int]:
    """A number of its own for each face below zero."""
    return [100 + place if one < 0 else one for place, one in enumerate(clusters)]


def grouping(
    persons: int, faces: int, *, seed: int, apart: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """A face in `apart` goes to another person's cluster or to none."""
    random = np.random.default_rng(seed)
    known = np.repeat(np.arange(persons), faces)
    wrong = random.random(len(known)) < apart
    return known, np.where(wrong, random.integers(-1, persons, len(known)), known)


@given(LABELS)
def test_pairwise_figures_are_those_of_each_pair(labels: tuple[list[int], list[int]]) -> None:
    persons, clusters = labels[0], alone(labels[1])
    found = figures(*labels)
    pairs = list(combinations(range(len(persons)), 2))
    same = {pair for pair in pairs if persons[pair[0]] == persons[pair[1]]}
    together = {pair for pair in pairs if clusters[pair[0]] == clusters[pair[1]]}
    if together:
        assert found.pairwise_precision == pytest.approx(len(same & together) / len(together))
    else:
        assert np.isnan(found.pairwise_precision)
    if same:
        assert found.pairwise_recall == pytest.approx(len(same & together) / len(same))
        assert found.pairwise_f == pytest.approx(
            2 * len(same & together) / (len(same) + len(together))
        )


@given(LABELS)
def test_bcubed_is_the_mean_of_each_face(labels: tuple[list[int], list[int]]) -> None:
    persons, clusters = np.array(labels[0]), np.array(alone(labels[1]))
    same, together = persons[:, None] == persons, clusters[:, None] == clusters
    precision = ((same & together).sum(axis=1) / together.sum(axis=1)).mean()
    recall = ((same & together).sum(axis=1) / same.sum(axis=1)).mean()
    found = figures(*labels)
    assert found.bcubed_precision == pytest.approx(precision)
    assert found.bcubed_recall == pytest.approx(recall)
    assert found.bcubed_f == pytest.approx(2 * precision * recall / (precision + recall))


@given(LABELS)
def test_the_others_are_those_of_scikit_learn(labels: tuple[list[int], list[int]]) -> None:
    from sklearn import metrics

    persons, clusters = labels[0], alone(labels[1])
    found = figures(*labels)
    names = ("homogeneity", "completeness")
    for name in names:
        expected = getattr(metrics, f"{name}_score")(persons, clusters)
        assert getattr(found, name) == pytest.approx(expected, abs=1e-9)
    if len(set(persons)) > 1 or len(set(clusters)) > 1:
        expected = metrics.normalized_mutual_info_score(persons, clusters)
        assert found.nmi == pytest.approx(expected, abs=1e-9)
        expected = metrics.adjusted_rand_score(persons, clusters)
        if not np.isnan(found.ari):
            assert found.ari == pytest.approx(expected, abs=1e-9)


@given(LABELS, st.randoms(use_true_random=False))
def test_the_names_of_clusters_and_the_order_of_faces_change_nothing(
    labels: tuple[list[int], list[int]], random: object
) -> None:
    persons, clusters = np.array(labels[0]), np.array(labels[1])
    order = list(range(len(persons)))
    random.shuffle(order)
    renamed = np.where(clusters < 0, clusters, 40 - 7 * clusters)
    assert figures(3 * persons[order] - 50, renamed[order]) == pytest.approx(
        figures(persons, clusters), nan_ok=True
    )


@given(LABELS, st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_a_draw_counts_copies_of_persons_that_never_meet(
    labels: tuple[list[int], list[int]], drawn: list[int]
) -> None:
    known, persons = np.unique(labels[0], return_inverse=True)
    clusters = np.unique(alone(labels[1]), return_inverse=True)[1]
    weights = np.array(drawn[: len(known)], np.float64)
    faces = [
        (person, copy, cluster)
        for person, cluster in zip(persons.tolist(), clusters.tolist(), strict=True)
        for copy in range(int(weights[person]))
    ]
    pairs = [
        (one, other)
        for one, other in combinations(faces, 2)
        if one[0] != other[0] or one[1] == other[1]
    ]
    same = {n for n, (one, other) in enumerate(pairs) if one[0] == other[0]}
    together = {n for n, (one, other) in enumerate(pairs) if one[2] == other[2]}
    table = Table.of(persons, clusters)
    found = _figures(table, table, table.sums(), weights)
    if same or together:
        expected = 2 * len(same & together) / (len(same) + len(together))
        assert found.pairwise_f == pytest.approx(expected)


def test_a_grouping_that_is_right_has_every_figure_at_one() -> None:
    persons, _ = grouping(12, 3, seed=0)
    report = measure_clustering(persons, persons + 5, replicates=20)
    assert {name: one.value for name, one in report.figures.items() if one} == dict.fromkeys(
        report.figures, pytest.approx(1.0)
    )
    assert (report.mixed, report.split, report.alone, report.clusters) == (0, 0, 0, 12)


def test_faces_all_alone_have_no_precision_of_pairs() -> None:
    persons, _ = grouping(12, 3, seed=0)
    report = measure_clustering(persons, np.full(len(persons), -1), replicates=20)
    assert report.figures["pairwise_precision"] is None
    assert report.figures["pairwise_recall"] == Measure(value=0.0, low=None, high=None)
    assert (report.alone, report.clusters, report.split) == (36, 0, 12)


def test_pairs_count_at_most_so_many_faces_of_a_person() -> None:
    persons, clusters = grouping(30, 40, seed=1)
    persons[:400] = 0  # ten persons are one
    report = measure_clustering(persons, clusters, faces_max=20, replicates=20)
    assert report.faces_of_pairs == 20 * 21
    again = measure_clustering(persons, clusters, faces_max=20, replicates=20)
    assert again == report
    everything = measure_clustering(persons, clusters, faces_max=None, replicates=20)
    assert everything.faces_of_pairs == len(persons)
    assert everything.figures["pairwise_recall"].value == pytest.approx(
        figures(persons, clusters).pairwise_recall
    )
    assert everything.figures["bcubed_f"] == report.figures["bcubed_f"]


@pytest.mark.parametrize("name", ["pairwise_f", "bcubed_f", "ari", "nmi"])
def test_intervals_hold_what_other_persons_give(name: str) -> None:
    """Truth: the mean of many collections. Persons differ in how many of their faces are lost."""

    def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        known = np.repeat(np.arange(60), random.integers(1, 12, 60))
        lost = random.random(len(known)) < random.beta(1, 3, 60)[known]
        return known, np.where(lost, -1, known)

    truth = np.mean([getattr(figures(*drawn(seed)), name) for seed in range(1000, 1300)])
    inside = 0
    for seed in range(40):
        one = measure_clustering(*drawn(seed), faces_max=None, replicates=200).figures[name]
        inside += one.low <= truth <= one.high
    assert inside >= 34


def test_too_few_persons_and_arrays_that_differ_are_refused() -> None:
    with pytest.raises(UsageError, match="persons have two faces"):
        measure_clustering([0, 0, 1, 1], [0, 0, 1, 1])
    with pytest.raises(UsageError, match="one cluster for each face"):
        figures([0, 1], [0])
