"""All pairs by tiles: the same as one by one."""

import numpy as np
import pytest

from retrieval.evaluation import pairs
from retrieval.evaluation.curves import (
    Curve,
    carried,
    curve_of,
    drawn_curve,
    impostor_pairs,
    whole_curve,
)
from retrieval.evaluation.pairs import BINS, bin_of_threshold, bins_of, score_pairs, threshold_of
from retrieval.evaluation.resampling import Measure, draws, interval, measured
from retrieval.values import UnitRows, unit_rows

RANDOM = np.random.default_rng(8)
FACES = np.array([3, 1, 0, 4, 2, 1, 5])  # of each person; one has none
PERSONS = np.repeat(np.arange(len(FACES)), FACES)
VECTORS = unit_rows(RANDOM.standard_normal((len(PERSONS), 8)))


def one_by_one(vectors: UnitRows, persons: np.ndarray, *, same: bool) -> np.ndarray:
    """The similarities of all genuine, or of all impostor pairs, each once."""
    return np.array(
        [
            float(vectors[a] @ vectors[b])
            for a in range(len(vectors))
            for b in range(a + 1, len(vectors))
            if (persons[a] == persons[b]) == same
        ]
    )


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "TILE_ROWS", 5)


def test_each_pair_is_counted_once_in_its_bin() -> None:
    scores = score_pairs(VECTORS, PERSONS, count=len(FACES))
    for same, counted in (
        (True, np.bincount(scores.genuine.bins, minlength=BINS)),
        (False, scores.impostors),
    ):
        bins = bins_of(one_by_one(VECTORS, PERSONS, same=same))
        # Sums in another order may fall on the other side of an edge.
        assert np.abs(np.cumsum(counted) - np.cumsum(np.bincount(bins, minlength=BINS))).max() <= 1
        assert counted.sum() == len(bins)


def test_the_kept_pairs_are_the_highest_and_say_between_whom() -> None:
    scores = score_pairs(VECTORS, PERSONS, count=len(FACES), floor=bin_of_threshold(0.2))
    truth = {
        (PERSONS[a], PERSONS[b], round(float(VECTORS[a] @ VECTORS[b]), 3))
        for a in range(len(VECTORS))
        for b in range(a + 1, len(VECTORS))
        if PERSONS[a] != PERSONS[b] and VECTORS[a] @ VECTORS[b] >= 0.2
    }
    kept = scores.kept
    assert len(kept) == len(truth) == scores.impostors[scores.floor :].sum()
    found = sorted(zip(kept.one, kept.other, kept.bins / 1e4 - 1, strict=True))
    for (one, other, similarity), true in zip(found, sorted(truth), strict=True):
        assert (one, other) == true[:2]
        assert similarity == pytest.approx(true[2], abs=7e-4)


def test_no_more_pairs_are_kept_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "KEPT_MAX", 20)
    scores = score_pairs(VECTORS, PERSONS, count=len(FACES))
    assert 15 <= len(scores.kept) <= 20
    assert scores.impostors[scores.floor - 1 :].sum() > 20


def test_a_curve_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import det_curve, roc_auc_score

    genuine, impostor = RANDOM.normal(0.5, 0.2, 900), RANDOM.normal(0.1, 0.15, 4000)
    bins = bins_of(np.concatenate([genuine, impostor]))
    labels = np.repeat([1, 0], [900, 4000])
    curve = curve_of(
        np.bincount(bins[labels == 1], minlength=BINS),
        np.bincount(bins[labels == 0], minlength=BINS),
    )
    assert curve.auc == pytest.approx(roc_auc_score(labels, bins), abs=1e-12)
    fmr, fnmr, thresholds = det_curve(labels, bins)
    at = thresholds[np.isfinite(thresholds)].astype(int)
    assert curve.fmr[at] == pytest.approx(fmr[: len(at)], abs=1e-12)
    assert curve.fnmr[at] == pytest.approx(fnmr[: len(at)], abs=1e-12)
    meeting = np.argmin(np.abs(fmr - fnmr))
    assert curve.eer == pytest.approx((fmr[meeting] + fnmr[meeting]) / 2, abs=1e-3)


def test_tar_is_read_at_the_lowest_threshold_that_keeps_the_fmr() -> None:
    impostor = np.zeros(BINS, np.int64)
    impostor[[100, 200, 300]] = 98, 1, 1
    genuine = np.zeros(BINS, np.int64)
    genuine[[150, 250, 350]] = 1, 1, 2
    curve = curve_of(genuine, impostor)
    assert [curve.bin_at(fmr) for fmr in (0.5, 0.02, 0.019, 0.005)] == [101, 101, 201, 301]
    assert [curve.tar_at(fmr) for fmr in (0.02, 0.019, 0.005)] == [1.0, 0.75, 0.5]


def test_a_draw_is_the_curve_of_the_drawn_faces() -> None:
    """The oracle lays each drawn person's faces side by side, and leaves out pairs of copies."""
    scores = score_pairs(VECTORS, PERSONS, count=len(FACES))
    whole = whole_curve(scores)
    for weights in draws(len(FACES), seed=3, count=20):
        copies = np.repeat(np.arange(len(FACES)), weights.astype(int))  # persons as drawn
        rows = [np.flatnonzero(person == PERSONS) for person in copies]
        similar = [[bins_of(VECTORS[one] @ VECTORS[other].T) for other in rows] for one in rows]
        impostor = [
            similar[a][b].ravel()
            for a in range(len(copies))
            for b in range(a + 1, len(copies))
            if copies[a] != copies[b]
        ]
        genuine = [similar[a][a][np.triu_indices(len(rows[a]), k=1)] for a in range(len(copies))]
        truth = curve_of(
            np.bincount(np.concatenate(genuine), minlength=BINS),
            np.bincount(np.concatenate(impostor), minlength=BINS),
        )
        found = drawn_curve(scores, weights, whole=whole)
        # A sum in another order may lie in the next bin.
        assert abs(found.auc - truth.auc) < 1e-3
        assert np.abs(found.fmr - truth.fmr).max() <= 4 / sum(map(len, impostor)) + 1e-12
        assert np.mean(found.fmr != truth.fmr) < 1e-3
        assert np.mean(np.abs(found.fnmr - truth.fnmr) > 1e-12) < 1e-3


def test_below_what_is_kept_a_draw_has_the_curve_of_the_whole() -> None:
    scores = score_pairs(VECTORS, PERSONS, count=len(FACES), floor=bin_of_threshold(0.3))
    whole = whole_curve(scores)
    drawn = drawn_curve(scores, next(iter(draws(len(FACES), seed=1))), whole=whole)
    assert (np.diff(drawn.fmr) <= 1e-12).all()
    low = whole.fmr[: scores.floor] > drawn.fmr[scores.floor]
    assert drawn.fmr[: scores.floor][low] == pytest.approx(whole.fmr[: scores.floor][low])


def test_pairs_of_a_draw_are_those_of_its_faces() -> None:
    everybody = impostor_pairs(FACES, np.ones(len(FACES)))
    assert everybody == len(one_by_one(VECTORS, PERSONS, same=False))


def test_thresholds_and_bins_name_each_other() -> None:
    assert [bin_of_threshold(t) for t in (-1, 0, 0.2959, 1)] == [0, 10_000, 12_959, 20_000]
    assert all(bin_of_threshold(threshold_of(bin_)) == bin_ for bin_ in range(0, BINS, 7))


def test_what_the_data_do_not_carry_is_not_given() -> None:
    assert carried([1e-2, 1e-3, 1e-4], 30_000) == [1e-2, 1e-3]
    assert measured(0.0, np.zeros(5)) == Measure(value=0.0, low=None, high=None)
    assert measured(0.5, np.arange(1001) / 1000) == Measure(value=0.5, low=0.025, high=0.975)
    assert interval(np.array([np.nan, np.nan])) == (None, None)
    assert interval(np.full(100, np.inf)) == (None, None)


def test_an_ordinary_curve_has_its_extremes() -> None:
    scores = score_pairs(VECTORS, PERSONS, count=len(FACES))
    curve: Curve = whole_curve(scores)
    assert (curve.fmr[0], curve.fmr[-1], curve.fnmr[0], curve.fnmr[-1]) == (1, 0, 0, 1)
