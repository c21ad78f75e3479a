"""Similarities of all pairs of faces: genuine ones each, impostors counted, the highest each.

13,233 faces make 87 million pairs. They are products of tiles of rows, counted in bins of 1e-4 and
forgotten, so memory does not grow with them. Kept are the genuine pairs, and the impostor pairs
with the highest similarities: between which persons they are decides how sure a rate is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.limits import within
from retrieval.values import UnitRows

Ints = npt.NDArray[np.int64]
SmallInts = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

BINS_A_UNIT: Final = 10_000  # bins of 1e-4 of cosine; float32 sums differ by 1e-6 at most
BINS: Final = 2 * BINS_A_UNIT + 1  # the last one holds the similarity 1
TILE_ROWS: Final = 2_048  # a tile of float32 takes 16 MiB
KEPT_MAX: Final = 1_000_000  # impostor pairs: FMR 1.1 % of 87 million pairs, 12 MB
GENUINE_MAX: Final = 50_000_000  # one person with 10,000 pictures; 1 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Pairs with their similarity, (m,) each; `one` and `other` are numbers of persons."""

    one: SmallInts
    other: SmallInts
    bins: SmallInts

    def __len__(self) -> int:
        return len(self.bins)

    def at_least(self, bin_: int) -> "Matches":
        """Those of this bin and above."""
        high = self.bins >= bin_
        return Matches(one=self.one[high], other=self.other[high], bins=self.bins[high])


@dataclass(frozen=True, slots=True, kw_only=True)
class Genuine:
    """All pairs of faces of one person, (g,) each."""

    persons: SmallInts
    one: SmallInts  # rows
    other: SmallInts
    bins: SmallInts

    def __len__(self) -> int:
        return len(self.bins)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScores:
    """Every pair of some faces."""

    faces: Ints  # (p,) of each person
    genuine: Genuine
    impostors: Ints  # (BINS,) pairs in each bin
    floor: int  # the bin from which on impostor pairs are kept
    kept: Matches


def bins_of(similarities: npt.NDArray[np.floating]) -> SmallInts:
    """The bin of each similarity: bin k begins at k / BINS_A_UNIT - 1.

    >>> bins_of(np.array([-1.0, 0.0, 0.00015, 1.0, 1.0000001])).tolist()
    [0, 10000, 10001, 20000, 20000]
    """
    raised = similarities * BINS_A_UNIT
    raised += BINS_A_UNIT
    np.clip(raised, 0, BINS - 1, out=raised)
    return raised.astype(np.int32)


def threshold_of(bin_: int) -> float:
    """The similarity at which a bin begins."""
    return round(bin_ / BINS_A_UNIT - 1, 4)


def bin_of_threshold(threshold: float) -> int:
    """The first bin of which no pair lies below a threshold of -1 to 1, to 1e-4."""
    return int(np.clip(round((threshold + 1) * BINS_A_UNIT), 0, BINS))


def score_pairs(
    vectors: UnitRows,
    persons: Ints,
    *,
    count: int,
    floor: int | None = None,
    progress: Progress = lambda *_: None,
) -> PairScores:
    """Compare each face with each other one, once.

    Args:
        vectors: (n, d).
        persons: (n,) ascending numbers from 0 to `count` - 1.
        count: of persons; some may have no face.
        floor: keep impostor pairs from this bin on; without it, as many as KEPT_MAX allows.
        progress: called with steps done and steps in all.

    Raises:
        LimitExceededError: more than GENUINE_MAX genuine pairs.
    """
    faces = np.bincount(persons, minlength=count)
    tiles = list(_tiles(len(vectors)))
    steps = len(tiles) * 2
    impostors = np.zeros(BINS, np.int64)
    for step, tile in enumerate(tiles):
        bins, apart = _tile(vectors, persons, tile)
        impostors += np.bincount(bins[apart], minlength=BINS)
        progress(step + 1, steps)
    floor = _affordable(impostors) if floor is None else floor
    found = []
    for step, tile in enumerate(tiles):
        found.append(_highest(vectors, persons, tile, floor))
        progress(len(tiles) + step + 1, steps)
    return PairScores(
        faces=faces,
        genuine=genuine_pairs(vectors, faces),
        impostors=impostors,
        floor=floor,
        kept=_joined(found),
    )


def genuine_pairs(vectors: UnitRows, faces: Ints) -> Genuine:
    """All pairs of faces that show one person, from the number of faces of each."""
    within(GENUINE_MAX, int((faces * (faces - 1) // 2).sum()), what="the number of genuine pairs")
    begins = np.concatenate([[0], np.cumsum(faces)])
    parts = [np.empty((4, 0), np.int32)]
    for person in np.flatnonzero(faces > 1):
        begin, end = begins[person], begins[person + 1]
        one, other = np.triu_indices(end - begin, k=1)
        own = vectors[begin:end]
        bins = bins_of((own @ own.T)[one, other])
        who = np.full(len(bins), person)
        parts.append(np.stack([who, one + begin, other + begin, bins]).astype(np.int32))
    who, one, other, bins = np.concatenate(parts, axis=1)
    return Genuine(persons=who, one=one, other=other, bins=bins)


def _tiles(count: int) -> Iterator[tuple[slice, slice]]:
    """Tiles on the diagonal and right of it."""
    for top in range(0, count, TILE_ROWS):
        for left in range(top, count, TILE_ROWS):
            yield slice(top, top + TILE_ROWS), slice(left, left + TILE_ROWS)


def _tile(
    vectors: UnitRows, persons: Ints, tile: tuple[slice, slice]
) -> tuple[SmallInts, npt.NDArray[np.bool_] | slice]:
    """The bins of a tile, and which of them are impostor pairs that are met here first."""
    rows, columns = tile
    bins = bins_of(vectors[rows] @ vectors[columns].T)
    # Persons ascend: two stretches share nobody, unless one ends where the other begins.
    if persons[rows][-1] < persons[columns][0]:
        return bins.ravel(), slice(None)
    ahead = persons[rows][:, None] < persons[columns][None, :]
    return bins.ravel(), ahead.ravel()


def _highest(vectors: UnitRows, persons: Ints, tile: tuple[slice, slice], floor: int) -> Matches:
    rows, columns = tile
    bins, apart = _tile(vectors, persons, tile)
    high = bins >= floor
    if not isinstance(apart, slice):
        high &= apart
    places = np.flatnonzero(high)
    row, column = np.divmod(places, len(persons[columns]))
    return Matches(
        one=persons[rows][row].astype(np.int32),
        other=persons[columns][column].astype(np.int32),
        bins=bins[places],
    )


def _affordable(impostors: Ints) -> int:
    """The lowest bin from which on at most KEPT_MAX pairs lie."""
    above = impostors[::-1].cumsum()[::-1]
    return int(np.count_nonzero(above > KEPT_MAX))


def _joined(parts: list[Matches]) -> Matches:
    if not parts:
        nobody = np.empty(0, np.int32)
        return Matches(one=nobody, other=nobody, bins=nobody)
    return Matches(
        one=np.concatenate([part.one for part in parts]),
        other=np.concatenate([part.other for part in parts]),
        bins=np.concatenate([part.bins for part in parts]),
    )
