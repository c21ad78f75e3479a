"""Open-set identification against one that goes probe by probe."""

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.evaluation.identification import (
    THRESHOLDS,
    Population,
    Scoring,
    identify_all,
    threshold_at,
)
from retrieval.people.template import templates
from retrieval.store.labelled import Labelled
from tests.labelled import people, with_quality

MATED = [2, 5, 3, 4, 2, 6, 3, 2, 4, 3, 5, 2] * 3
FACES = people([*MATED, *[1] * 400], noise=1.0, dimension=24, seed=4)


def probed(
    faces: Labelled, *, scoring: Scoring, seed: int, quality_min: float = 0.0
) -> tuple[list[float], list[int], list[float]]:
    """Own similarity and rank of each mated probe, best similarity of each stranger."""
    random = np.random.default_rng(seed)
    people_ = Population.of(faces)
    left_out = people_.begins + random.integers(people_.counts)
    good = faces.quality >= quality_min
    gallery = {}
    for begin, count, without in zip(people_.begins, people_.counts, left_out, strict=True):
        rows = [r for r in range(begin, begin + count) if r != without and good[r]]
        if not rows:
            continue
        one = np.zeros(len(rows), np.int64)
        made = templates(faces.vectors[rows], faces.quality[rows], one)[1]
        gallery[begin] = made if scoring is Scoring.TEMPLATE else faces.vectors[rows]

    def best(row: int) -> dict[int, float]:
        if not good[row]:
            return {}
        return {who: float((mine @ faces.vectors[row]).max()) for who, mine in gallery.items()}

    own, rank = [], []
    for begin, row in zip(people_.begins, left_out, strict=True):
        scores = best(row)
        own.append(scores.get(begin, -np.inf))
        better = sum(score > own[-1] for score in scores.values())
        rank.append(better + 1 if begin in scores else 10**6)
    return own, rank, [max(best(row).values(), default=-np.inf) for row in people_.strangers]


@pytest.mark.parametrize("scoring", list(Scoring))
@pytest.mark.parametrize("quality_min", [0.0, 0.3])
def test_rates_are_those_of_probe_by_probe(scoring: Scoring, quality_min: float) -> None:
    report = identify_all(FACES, splits=1, galleries=(), seed=6, quality_min=quality_min)
    own, rank, top = probed(FACES, scoring=scoring, seed=6, quality_min=quality_min)
    found = next(one for one in report.galleries if one.scoring is scoring)
    assert found.persons == len(MATED) == report.mated
    assert report.strangers == 400
    assert report.refused == (FACES.quality < quality_min).sum()
    assert [one.fpir for one in found.at_fpir] == [0.1]  # .01 of 400 are not 30 strangers
    assert report.not_carried == (0.01, 0.001)
    at = found.at_fpir[0]
    # A sum in another order differs in the last bit, and one stranger lies just below.
    assert sum(score > at.threshold + 1e-6 for score in top) in (39, 40)
    assert at.fnir.value == pytest.approx(np.mean(np.array(own) < at.threshold))
    assert at.fnir.value > 0
    for limit, share in found.ranks:
        assert share.value == pytest.approx(np.mean(np.array(rank) <= limit))
    for place in (40, 80, 120):
        assert found.fpir[place] == pytest.approx(np.mean(np.array(top) >= THRESHOLDS[place]))
        assert found.fnir[place] == pytest.approx(np.mean(np.array(own) < THRESHOLDS[place]))


def test_a_refused_probe_is_a_miss_and_a_refused_stranger_is_nobody() -> None:
    people_ = Population.of(FACES)
    quality = FACES.quality.copy()
    bad = people_.strangers[:100]
    quality[:] = 0.9
    quality[bad] = 0.1
    few = with_quality(FACES, quality)
    report = identify_all(few, splits=2, galleries=(), quality_min=0.5)
    assert all(one.fpir.max() <= 0.75 for one in report.galleries)
    quality[:] = 0.1
    quality[people_.strangers] = 0.9
    nobody = identify_all(with_quality(FACES, quality), splits=2, galleries=(), quality_min=0.5)
    for one in nobody.galleries:
        assert one.at_fpir[0].fnir.value == 1
        assert [share.value for _, share in one.ranks] == [0, 0, 0]


def test_an_unknown_quality_passes_the_floor() -> None:
    unknown = with_quality(FACES, np.full(len(FACES), np.nan))
    report = identify_all(unknown, splits=1, galleries=(), quality_min=0.9)
    assert report.refused == 0


def test_small_galleries_err_less_and_splits_are_told() -> None:
    report = identify_all(FACES, splits=8, galleries=(5, 20, 1000), seed=1)
    sizes = sorted({one.persons for one in report.galleries})
    assert sizes == [5, 20, len(MATED)]
    for scoring in Scoring:
        mine = [one for one in report.galleries if one.scoring is scoring]
        assert all(len(one.at_fpir[0].splits) == 8 for one in mine)
        assert (mine[0].fpir <= mine[-1].fpir + 0.02).all()
        at = mine[-1].at_fpir[0]
        assert at.spread == pytest.approx(np.std(at.splits, ddof=1))
        assert at.fnir.value == pytest.approx(np.mean(at.splits))
        assert at.fnir.low is not None
        assert at.fnir.high is not None
        assert at.fnir.low < at.fnir.value < at.fnir.high


def test_templates_are_compared_with_best_of_n_in_the_same_draws() -> None:
    report = identify_all(FACES, splits=4, galleries=(20,), seed=2)
    by = {(one.persons, one.scoring): one.at_fpir[0].fnir for one in report.galleries}
    assert [one.persons for one in report.gains] == [20, len(MATED)]
    for one in report.gains:
        ours, theirs = by[one.persons, Scoring.TEMPLATE], by[one.persons, Scoring.BEST]
        change = one.fnir_change
        assert change.value == pytest.approx(ours.value - theirs.value)
        assert None not in (change.low, change.high, ours.low, theirs.high)
        assert change.low <= change.value <= change.high
        # Draws are shared, so that the difference is known better than both sides apart.
        assert change.high - change.low < ours.high - ours.low + theirs.high - theirs.low


def test_the_threshold_of_a_draw_is_that_of_the_drawn_strangers() -> None:
    random = np.random.default_rng(9)
    top = random.random(200).astype(np.float32).astype(np.float64)
    weights = random.poisson(1, (50, 200)).astype(np.float64)
    found = threshold_at(top, 0.2, weights)
    for threshold, drawn in zip(found, weights, strict=True):
        everybody = np.repeat(top, drawn.astype(int))
        assert (everybody >= threshold).mean() <= 0.2
        lower = top[top < threshold].max()
        assert (everybody >= lower).mean() >= 0.2


def test_too_few_persons_are_an_error() -> None:
    with pytest.raises(UsageError, match="9 persons have two faces"):
        identify_all(people([2] * 9 + [1] * 100))
    with pytest.raises(UsageError, match="29 persons have one face and are strangers"):
        identify_all(people([2] * 10 + [1] * 29))
