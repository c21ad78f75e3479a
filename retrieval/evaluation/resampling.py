"""The person bootstrap: what another draw of as many persons might have given.

Faces of one person resemble each other, and every person stands in many pairs, so pairs are not
independent: intervals that take them as such come out far too narrow. Here persons are drawn with
replacement, each with all its faces (the subsets bootstrap of Bolle, Ratha and Pankanti 2004). A
person drawn w times counts genuine pairs w times, and pairs with one drawn v times w * v times; two
copies of a person make no impostor pair. Where impostor matches are few and far between, these
intervals are up to 1.7 times too wide (Owen 2007, the pigeonhole bootstrap).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError

Doubles = npt.NDArray[np.float64]

REPLICATES: Final = 1_000
LEVEL: Final = 0.95
PERSONS_MIN: Final = 10  # with two faces or more; of fewer no draw says anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure with its interval; None: the draws do not tell, as of errors never seen."""

    value: float
    low: float | None
    high: float | None


def draws(persons: int, *, seed: int, count: int = REPLICATES) -> Iterator[Doubles]:
    """How often each person is drawn, (persons,), `count` times."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        drawn = random.integers(persons, size=persons)
        yield np.bincount(drawn, minlength=persons).astype(np.float64)


def interval(replicates: Doubles, *, level: float = LEVEL) -> tuple[float | None, float | None]:
    """The middle `level` of what the draws gave; None where a bound is not finite.

    Draws that all give the same tell nothing, as of an error never seen: (None, None).
    """
    known = replicates[~np.isnan(replicates)]
    if not len(known) or known.min() == known.max():
        return None, None
    tail = (1 - level) / 2
    # Between infinity and a number nothing can be interpolated.
    low, high = np.quantile(known, [tail, 1 - tail], method="nearest")
    return _finite(low), _finite(high)


def measured(value: float, replicates: Doubles, *, level: float = LEVEL) -> Measure:
    """A figure with the interval of its replicates.

    >>> measured(0.5, np.array([0.4, 0.5, 0.6]))
    Measure(value=0.5, low=0.4, high=0.6)
    """
    low, high = interval(replicates, level=level)
    return Measure(value=float(value), low=low, high=high)


def require_persons(faces: npt.NDArray[np.int64]) -> None:
    """Raise UsageError where too few persons have two faces.

    Args:
        faces: (p,) of each person.
    """
    mated = int((faces > 1).sum())
    if mated < PERSONS_MIN:
        raise UsageError(
            f"{mated} persons have two faces or more; error rates need at least {PERSONS_MIN}: name"
            " more faces (`facedex ingest --person-from folder`), or widen the filter"
        )


def _finite(bound: float) -> float | None:
    return float(bound) if np.isfinite(bound) else None
