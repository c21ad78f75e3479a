"""From an asked error rate to a similarity, and back: what a threshold is worth.

A `Tail` says how many strangers reach a similarity: of one comparison (FMR, ISO/IEC 19795-1), or of
one search through a gallery of a given size. The second is measured on searches and not worked out
from the first, since probes differ: a blurred face is like many, so that its false matches come
together, and a gallery of n persons has fewer searches with a false match than n times the FMR. As
a gallery grows, the expected number of false matches grows in proportion:

    FPIR(t, n) = 1 - exp(-strangers(t) * n / size)

The logarithm of the rate is interpolated between measured points. Where few false matches were
seen, it is fitted to the tail, which is less in error than single counts are; beyond the last point
too, where rates are told as extrapolated, and have no interval. What is fitted is the exponent of
the cosines of vectors that point anywhere in so many dimensions,

    log rate = a + b log(1 - similarity ** 2)

which suits made-up and real faces (b is 62 for 126 dimensions), and never rises.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.values import Similarity

Doubles = npt.NDArray[np.float64]

FORMAT: Final = 1
EVENTS_MIN: Final = 20  # fewer false matches at a point say too little of its rate
EVENTS_MANY: Final = 400  # from here on a count is as good as the fit
POINTS_A_DECADE: Final = 20
FITTED_DECADES: Final = 2.0  # of the tail
RATE_MIN: Final = 1e-12
STEEP: Final = 60.0  # the exponent where a tail has but one point
SIMILARITY_MAX: Final = 1.0
CURVES: Final = Path(__file__).parent / "curves"


@dataclass(frozen=True, kw_only=True, eq=False)
class Tail:
    """How many strangers reach a similarity, of one trial."""

    similarities: Doubles  # (m,) ascending
    rates: Doubles  # (m,) descending; expected strangers at or above the similarity
    lows: Doubles  # (m,) 95 % interval
    highs: Doubles
    trials: int  # comparisons, or searches
    size: int  # persons of the gallery that was searched; 1 for comparisons

    def rate(self, similarity: float) -> "Rate":
        """What a threshold lets through, of one trial."""
        first, last = self.similarities[[0, -1]]
        if similarity > last:
            return Rate(value=self._continued(similarity), low=None, high=None)
        place = max(float(similarity), float(first))
        value, low, high = (
            float(np.exp(np.interp(place, self.similarities, np.log(np.maximum(of, RATE_MIN)))))
            for of in (self.rates, self.lows, self.highs)
        )
        return Rate(value=value, low=low, high=high)

    def threshold(self, rate: float) -> Similarity:
        """The lowest similarity that at most so many strangers reach, of one trial."""
        if rate >= self.rates[0]:
            return Similarity(float(self.similarities[0]))
        if rate >= self.rates[-1]:
            logs = np.log(self.rates[::-1])
            return Similarity(float(np.interp(math.log(rate), logs, self.similarities[::-1])))
        low, high = float(self.similarities[-1]), SIMILARITY_MAX
        if self._continued(high) > rate:
            return Similarity(high)
        for _ in range(60):  # halvings: beyond the last bit of a double
            middle = (low + high) / 2
            low, high = (middle, high) if self._continued(middle) > rate else (low, middle)
        return Similarity(high)

    def _continued(self, similarity: float) -> float:
        end, last = float(self.rates[-1]), float(self.similarities[-1])
        fallen = self._exponent * (_room(similarity) - _room(last))
        return max(end * math.exp(fallen), RATE_MIN)

    @cached_property
    def _exponent(self) -> float:
        return _fitted(self.similarities, self.rates, self.rates)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """An error rate that is expected; without an interval it is extrapolated."""

    value: float
    low: float | None
    high: float | None

    @property
    def extrapolated(self) -> bool:
        """Whether the data did not reach so far."""
        return self.high is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A similarity, and the error rate that it should give."""

    similarity: Similarity
    asked: float
    expected: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What is known of strangers in one space."""

    space: str
    model_sha256: str | None  # of the space; None: vectors from outside
    data: str  # what it was measured on, in words
    comparisons: Tail  # face against face
    searches: Tail  # face against the templates of a gallery

    def for_fmr(self, fmr: float) -> Threshold:
        """The similarity that a share `fmr` of comparisons of strangers reaches."""
        _checked(fmr, what="fmr")
        similarity = self.comparisons.threshold(fmr)
        expected = self.comparisons.rate(similarity)
        return Threshold(similarity=similarity, asked=fmr, expected=expected)

    def for_fmr_of_templates(self, fmr: float) -> Threshold:
        """The same for comparisons of a face with a stranger's template."""
        _checked(fmr, what="fmr")
        similarity = self.searches.threshold(fmr * self.searches.size)
        found = self.searches.rate(similarity)
        each = (one and one / self.searches.size for one in (found.value, found.low, found.high))
        value, low, high = each
        return Threshold(
            similarity=similarity,
            asked=fmr,
            expected=Rate(value=value or 0.0, low=low, high=high),
        )

    def for_fpir(self, fpir: float, *, gallery: int) -> Threshold:
        """The similarity that a share `fpir` of searches for strangers finds somebody at.

        Args:
            fpir: above 0 and below 1.
            gallery: persons that are searched, at least 1.
        """
        _checked(fpir, what="fpir")
        each = -math.log1p(-fpir) / max(gallery, 1)
        similarity = self.searches.threshold(each * self.searches.size)
        if similarity == self.searches.similarities[0]:
            # Every search through the gallery of the data met somebody so alike: fewer persons
            # need less, which only comparisons tell.
            similarity = min(similarity, self.comparisons.threshold(each))
        return Threshold(
            similarity=similarity, asked=fpir, expected=self.fpir(similarity, gallery=gallery)
        )

    def fpir(self, similarity: float, *, gallery: int) -> Rate:
        """The share of searches for strangers that find somebody at a threshold."""
        tail = self.searches
        if similarity < tail.similarities[0]:
            tail = self.comparisons
        growth, rate = max(gallery, 1) / tail.size, tail.rate(similarity)
        if rate.low is None or rate.high is None:
            return Rate(value=-math.expm1(-rate.value * growth), low=None, high=None)
        low, value, high = (-math.expm1(-of * growth) for of in (rate.low, rate.value, rate.high))
        return Rate(value=value, low=low, high=high)


def tail_of_maxima(maxima: Doubles, *, size: int, weights: Doubles | None = None) -> Tail:
    """The tail of searches, from the highest similarity that each of them met.

    Args:
        maxima: (n,) one for each search of a stranger, or of a person whose own template was left
            out.
        size: persons searched.
        weights: (b, n) how often each search is in each of b bootstrap samples; None: Poisson
            counts are assumed for the interval.
    """
    order = np.argsort(-maxima)
    found, total = maxima[order], len(maxima)
    counts = _grid(total)
    # Of equal similarities the last one counts them all.
    counts = np.unique(np.searchsorted(-found, -found[counts - 1], side="right"))[::-1]
    counts = counts[counts < total]
    shares = counts / (total + 1)
    lows, highs = _bounds(counts, total, None if weights is None else weights[:, order])
    return _tail(
        found[counts - 1],
        *(-np.log1p(-np.minimum(of, 1 - 1e-9)) for of in (shares, lows, highs)),
        events=counts.astype(np.float64),
        trials=total,
        size=size,
    )


def tail_of_counts(
    similarities: Doubles, rates: Doubles, lows: Doubles, highs: Doubles, *, trials: int
) -> Tail:
    """The tail of comparisons from a curve that was counted; points with few events are left out.

    Args:
        similarities: (m,) ascending thresholds.
        rates: (m,) shares of comparisons at or above each.
        lows: (m,) 95 % interval.
        highs: (m,)
        trials: comparisons.
    """
    enough = rates * trials >= EVENTS_MIN
    if not enough.any():
        raise UsageError(
            f"{trials:,} comparisons of strangers are too few to say how often they are alike"
        )
    # One point a step of the rate: a curve of thousands says no more.
    steps = np.floor(-np.log10(rates[enough]) * POINTS_A_DECADE)
    _, firsts = np.unique(steps, return_index=True)
    kept = np.flatnonzero(enough)[np.sort(firsts)]
    return _tail(
        *(of[kept] for of in (similarities, rates, lows, highs)),
        events=rates[kept] * trials,
        trials=trials,
        size=1,
    )


def shipped(space: str, *, model_sha256: str | None) -> Calibration | None:
    """The calibration that came with Facedex for a model, None where there is none."""
    path = CURVES / f"{space}.json"
    if not path.is_file():
        return None
    found = from_json(json.loads(path.read_text(encoding="utf-8")))
    return found if found.model_sha256 == model_sha256 else None


def to_json(calibration: Calibration) -> dict[str, Any]:
    """As plain values, to be written to a file or a column."""
    return {
        "format": FORMAT,
        "space": calibration.space,
        "model_sha256": calibration.model_sha256,
        "data": calibration.data,
        "comparisons": _tail_to_json(calibration.comparisons),
        "searches": _tail_to_json(calibration.searches),
    }


def from_json(written: Mapping[str, Any]) -> Calibration:
    """What `to_json` gave.

    Raises:
        UsageError: it was written by a newer Facedex, or is something else.
    """
    if written.get("format") != FORMAT:
        raise UsageError("this is no calibration, or one of a newer Facedex: calibrate again")
    return Calibration(
        space=written["space"],
        model_sha256=written["model_sha256"],
        data=written["data"],
        comparisons=_tail_from_json(written["comparisons"]),
        searches=_tail_from_json(written["searches"]),
    )


def _checked(rate: float, *, what: str) -> None:
    if not 0.0 < rate < 1.0:
        raise UsageError(f"{what} is a share above 0 and below 1, such as 0.001")


def _grid(total: int) -> npt.NDArray[np.int64]:
    """Counts of events from about all down to EVENTS_MIN, evenly in their logarithm."""
    if total <= EVENTS_MIN:
        raise UsageError(
            f"{total} searches for strangers are too few to calibrate with; have more than "
            f"{EVENTS_MIN}"
        )
    decades = math.log10(total / EVENTS_MIN)
    points = max(2, math.ceil(decades * POINTS_A_DECADE) + 1)
    counts = np.unique(np.geomspace(EVENTS_MIN, total - 1, points).astype(np.int64))
    return counts[::-1]


def _bounds(
    counts: npt.NDArray[np.int64], total: int, weights: Doubles | None
) -> tuple[Doubles, Doubles]:
    """The 95 % interval of each share."""
    if weights is None:
        spread = 1.96 / np.sqrt(counts)
        return counts / total * np.exp(-spread), counts / total * np.exp(spread)
    sums = np.cumsum(weights, axis=1)
    shares = sums[:, counts - 1] / sums[:, -1:]
    low, high = np.quantile(shares, (0.025, 0.975), axis=0)
    return low, high


def _tail(
    similarities: Doubles,
    rates: Doubles,
    lows: Doubles,
    highs: Doubles,
    *,
    events: Doubles,
    trials: int,
    size: int,
) -> Tail:
    """A tail whose similarities ascend and whose rates descend, each strictly."""
    at_end, exponent = _fitted(similarities, rates, events)
    fit = np.exp(at_end + exponent * (_rooms(similarities) - _room(float(similarities[-1]))))
    smooth = np.where(events < EVENTS_MANY, fit, rates)
    rising = np.diff(similarities, prepend=-np.inf) > 0
    kept = rising & (smooth < np.minimum.accumulate(np.concatenate([[np.inf], smooth[:-1]])))
    return Tail(
        similarities=similarities[kept],
        rates=smooth[kept],
        lows=np.minimum(lows, smooth)[kept],
        highs=np.maximum(highs, smooth)[kept],
        trials=trials,
        size=size,
    )


def _fitted(similarities: Doubles, rates: Doubles, events: Doubles) -> tuple[float, float]:
    """The log rate at the last similarity and the exponent that suit the end of the tail best.

    A count of n is wrong by some 1 / sqrt(n) of itself: so much more the larger ones weigh.
    """
    logs = np.log(rates)
    tail = logs <= logs[-1] + FITTED_DECADES * math.log(10)
    rooms = _rooms(similarities[tail]) - _room(float(similarities[-1]))
    if np.ptp(rooms) == 0.0:
        return float(logs[-1]), STEEP
    exponent, at_end = np.polynomial.polynomial.polyfit(
        rooms, logs[tail], 1, w=np.sqrt(events[tail])
    )[::-1]
    return (float(at_end), float(exponent)) if exponent > 0 else (float(logs[-1]), STEEP)


def _rooms(similarities: Doubles) -> Doubles:
    """log(1 - similarity ** 2), which falls as similarities rise from 0 to nearly 1."""
    rooms: Doubles = np.log1p(-np.square(np.clip(similarities, 0.0, 1.0 - 1e-9)))
    return rooms


def _room(similarity: float) -> float:
    return float(_rooms(np.array([similarity]))[0])


def _tail_to_json(tail: Tail) -> dict[str, Any]:
    return {
        "trials": tail.trials,
        "size": tail.size,
        "similarities": [round(float(one), 5) for one in tail.similarities],
        **{
            name: [float(f"{one:.4g}") for one in getattr(tail, name)]
            for name in ("rates", "lows", "highs")
        },
    }


def _tail_from_json(written: Mapping[str, Any]) -> Tail:
    arrays = {
        name: np.array(written[name], np.float64)
        for name in ("similarities", "rates", "lows", "highs")
    }
    return Tail(trials=int(written["trials"]), size=int(written["size"]), **arrays)
