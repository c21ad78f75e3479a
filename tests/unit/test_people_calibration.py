"""Thresholds from asked error rates, against distributions whose tails are known."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from retrieval.errors import UsageError
from retrieval.people.calibration import (
    Calibration,
    Tail,
    from_json,
    tail_of_counts,
    tail_of_maxima,
    to_json,
)

# Two vectors at random in so many dimensions: their cosine, moved to 0..1, is Beta((d-1)/2, same).
STRANGERS = stats.beta(62.5, 62.5, loc=-1, scale=2)
GALLERY, SEARCHES = 10_000, 200_000


def maxima(searches: int, *, gallery: int, seed: int = 1) -> np.ndarray:
    """The highest of `gallery` similarities of strangers, drawn for each search."""
    uniform = np.random.default_rng(seed).random(searches)
    return STRANGERS.ppf(uniform ** (1 / gallery))


def comparisons() -> Tail:
    similarities = np.linspace(-0.5, 0.6, 4_000)
    rates = STRANGERS.sf(similarities)
    return tail_of_counts(similarities, rates, rates * 0.9, rates * 1.1, trials=100_000_000)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration(
        space="test@1",
        model_sha256=None,
        data="numbers",
        comparisons=comparisons(),
        searches=tail_of_maxima(maxima(SEARCHES, gallery=GALLERY), size=GALLERY),
    )


@pytest.mark.parametrize("fmr", [1e-1, 1e-3, 1e-5, 1e-6])
def test_a_share_of_strangers_as_asked_reaches_the_threshold(
    calibration: Calibration, fmr: float
) -> None:
    found = calibration.for_fmr(fmr)
    assert STRANGERS.sf(found.similarity) == pytest.approx(fmr, rel=0.02)
    assert found.expected.low is not None
    assert found.expected.high is not None
    assert found.expected.low < fmr < found.expected.high


@pytest.mark.parametrize("fpir", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("gallery", [1, 10, 1_000, 10_000, 50_000])
def test_searches_through_galleries_of_any_size_err_as_often_as_asked(
    calibration: Calibration, fpir: float, gallery: int
) -> None:
    threshold = calibration.for_fpir(fpir, gallery=gallery)
    measured = -math.expm1(gallery * math.log1p(-STRANGERS.sf(threshold.similarity)))
    assert measured == pytest.approx(fpir, rel=0.2)


def test_beyond_the_data_a_rate_is_told_as_extrapolated_and_is_near(
    calibration: Calibration,
) -> None:
    found = calibration.for_fmr(1e-9)
    assert found.expected.extrapolated
    assert found.expected.high is None
    assert math.log10(STRANGERS.sf(found.similarity)) == pytest.approx(-9, abs=0.4)
    assert not calibration.for_fmr(1e-6).expected.extrapolated


def test_a_stricter_rate_never_lowers_the_threshold(calibration: Calibration) -> None:
    rates = np.geomspace(0.5, 1e-11, 200)
    for strict in (
        [calibration.for_fmr(rate).similarity for rate in rates],
        [calibration.for_fpir(rate, gallery=500).similarity for rate in rates],
        [calibration.for_fpir(0.01, gallery=int(1 / rate)).similarity for rate in rates],
        [calibration.for_fpir(0.3, gallery=persons).similarity for persons in range(1, 400)],
    ):
        assert all(one <= other for one, other in pairwise(strict))


def test_the_interval_of_a_tail_holds_the_truth_in_most_draws() -> None:
    held = 0
    for seed in range(60):
        tail = tail_of_maxima(maxima(2_000, gallery=100, seed=seed), size=100)
        place = int(np.argmin(np.abs(tail.rates - 0.05)))
        true = -math.log(STRANGERS.cdf(tail.similarities[place]) ** 100)
        held += tail.lows[place] <= true <= tail.highs[place]
    assert held >= 54


def test_bootstrap_weights_widen_the_interval_where_searches_come_in_groups() -> None:
    single = maxima(500, gallery=100)
    tenfold = np.repeat(single, 10)
    random = np.random.default_rng(0)
    draws = random.multinomial(500, np.full(500, 1 / 500), 200).astype(float)
    alone = tail_of_maxima(single, size=100, weights=draws)
    grouped = tail_of_maxima(tenfold, size=100, weights=np.repeat(draws, 10, axis=1))
    naive = tail_of_maxima(tenfold, size=100)
    width = [
        float(tail.highs[at] / tail.lows[at])
        for tail in (grouped, naive)
        for at in [int(np.argmin(np.abs(tail.rates - 0.1)))]
    ]
    assert math.log(width[0]) > 2 * math.log(width[1])
    assert alone.trials * 10 == grouped.trials


def test_a_calibration_reads_back_as_it_was_written(calibration: Calibration) -> None:
    again = from_json(to_json(calibration))
    assert to_json(again) == to_json(calibration)
    assert again.for_fmr(1e-4).similarity == pytest.approx(
        calibration.for_fmr(1e-4).similarity, abs=1e-4
    )


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, math.nan])
def test_what_is_no_rate_is_refused(calibration: Calibration, rate: float) -> None:
    with pytest.raises(UsageError, match="above 0 and below 1"):
        calibration.for_fmr(rate)
    with pytest.raises(UsageError, match="above 0 and below 1"):
        calibration.for_fpir(rate, gallery=10)


def test_too_few_strangers_are_refused() -> None:
    with pytest.raises(UsageError, match="too few"):
        tail_of_maxima(np.array([0.1, 0.2]), size=3)
    with pytest.raises(UsageError, match="too few"):
        tail_of_counts(np.array([0.5]), np.array([0.01]), np.zeros(1), np.ones(1), trials=100)


def test_something_else_is_no_calibration() -> None:
    with pytest.raises(UsageError, match="no calibration"):
        from_json({"format": 99})
