"""Which frames of a track carry information, and which are near-copies of one that is kept.

Frames are taken best first, and a frame is kept unless one that was kept before is as near as
copies are, in every way in which frames differ: as a vector of the identity, in pose, and as a look
where the collection has looks. So each mode of a track (a pose, a light, an expression) keeps its
best frame, and each frame that goes lies near a better one that stays.

How near copies are is learned from the tracks. Successive frames are near-copies for the most part,
and two frames drawn at random from a track are not; where their distances make two heaps, the bound
lies between them (Otsu 1979, in the logarithm). Where they make one heap, it lies above what
successive frames differ by. Beyond `farthest` nothing is a copy, whatever was learned: pictures of
one person that follow each other in an album are none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.values import Floats

Numbers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

TOGETHER: Final = 512  # frames that are looked at at once
PAIRS_MIN: Final = 5  # fewer say nothing of how near copies are
HEAPS_SHARE: Final = 0.8  # of the variance lies between two heaps; of one normal heap, 0.64 do
HEAPS_RATIO: Final = 2.0  # of their distances, at least
DEVIATIONS: Final = 5.0  # of successive frames, above their median
BINS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way in which frames differ, as the distance of rows of numbers."""

    name: str
    nearest: float  # below it, frames are alike whatever was learned: storing a vector moves it so
    farthest: float  # beyond it they are no copies


# Distances of unit vectors: cosines of 0.9998 and 0.9.
VECTOR: Final = Way(name="vector", nearest=0.02, farthest=0.447)
LOOK: Final = Way(name="look", nearest=0.02, farthest=0.447)
POSE: Final = Way(name="pose", nearest=1.0, farthest=15.0)  # degrees


@dataclass(frozen=True, eq=False, kw_only=True)
class Frames:
    """Frames of one track or several; n rows everywhere."""

    ways: Mapping[Way, Floats]  # (n, k) each; a row with NaN is not known, and tells nothing apart

    def __len__(self) -> int:
        return len(next(iter(self.ways.values())))

    def some(self, rows: Numbers) -> "Frames":
        """Some of them."""
        return Frames(ways={way: of[rows] for way, of in self.ways.items()})


class Steps(NamedTuple):
    """Pairs of frames of one track, as two rows each."""

    successive: tuple[Numbers, Numbers]
    drawn: tuple[Numbers, Numbers]


class Covered(NamedTuple):
    """What became of frames."""

    by: Numbers  # (n,) the row that is kept for each; its own where it is kept
    distances: Mapping[Way, Doubles]  # (n,) to that row; NaN where it is not known

    @property
    def kept(self) -> Mask:
        """Which frames stay, (n,)."""
        kept: Mask = self.by == np.arange(len(self.by))
        return kept


def steps_of(tracks: Numbers, *, seed: int) -> Steps:
    """Successive frames, and as many pairs drawn at random, each of one track.

    Args:
        tracks: (n,) number of the track of each frame; frames of one are together, in their order.
        seed: of the draw.
    """
    places = np.arange(len(tracks))
    same = np.flatnonzero(tracks[1:] == tracks[:-1])
    _, begins, sizes = np.unique(tracks, return_index=True, return_counts=True)
    of = np.searchsorted(begins, same, side="right") - 1
    # Another frame of the same track that is neither itself nor the next one.
    many = sizes[of] > 2  # noqa: PLR2004
    ones, of = same[many], of[many]
    apart = np.random.default_rng(seed).integers(2, sizes[of])
    others = begins[of] + (ones - begins[of] + apart) % sizes[of]
    return Steps((places[same], places[same + 1]), (ones, others))


def bounds_of(frames: Frames, steps: Steps) -> dict[Way, float]:
    """How near copies are, in each way."""
    return {
        way: _bound(way, *(_distances(rows, *pairs) for pairs in steps))
        for way, rows in frames.ways.items()
    }


def covered(frames: Frames, best_first: Numbers, bounds: Mapping[Way, float]) -> Covered:
    """Keep a frame unless one that was kept before is within all bounds.

    Args:
        frames: of one track.
        best_first: (n,) rows in the order in which they are taken.
        bounds: distances up to which frames are copies.
    """
    by = np.full(len(best_first), -1)
    kept = np.empty(0, np.int64)
    for begin in range(0, len(best_first), TOGETHER):
        block = best_first[begin : begin + TOGETHER]
        _cover(frames, block, kept, bounds, by)
        left = block[by[block] < 0]
        near = _ratios(frames, left, left, bounds)
        for at, row in enumerate(left.tolist()):
            if by[row] < 0:
                by[row] = row
                later = left[at + 1 :]
                mine = near[at + 1 :, at] <= 1.0
                by[later[mine & (by[later] < 0)]] = row
        kept = np.concatenate([kept, left[by[left] == left]])
    return Covered(
        by=by,
        distances={
            way: _distances(rows, np.arange(len(by)), by) for way, rows in frames.ways.items()
        },
    )


def _cover(
    frames: Frames, block: Numbers, kept: Numbers, bounds: Mapping[Way, float], by: Numbers
) -> None:
    """Note for each frame of a block the nearest one that is kept, if it is near enough."""
    best = np.full(len(block), np.inf)
    for begin in range(0, len(kept), TOGETHER):
        some = kept[begin : begin + TOGETHER]
        near = _ratios(frames, block, some, bounds)
        places = near.argmin(axis=1)
        ratios = near[np.arange(len(block)), places]
        nearer = (ratios <= 1.0) & (ratios < best)
        by[block[nearer]] = some[places[nearer]]
        best = np.where(nearer, ratios, best)


def _ratios(frames: Frames, ones: Numbers, others: Numbers, bounds: Mapping[Way, float]) -> Doubles:
    """The largest distance of each pair in units of its bound, (a, b)."""
    most = np.zeros((len(ones), len(others)))
    for way, rows in frames.ways.items():
        one, other = rows[ones].astype(np.float64), rows[others].astype(np.float64)
        squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)
        distances = np.sqrt(np.maximum(squares - 2 * (one @ other.T), 0.0))
        most = np.fmax(most, distances / bounds[way])  # what is not known tells nothing apart
    return most


def _distances(rows: Floats, ones: Numbers, others: Numbers) -> Doubles:
    found: Doubles = np.linalg.norm(
        rows[ones].astype(np.float64) - rows[others].astype(np.float64), axis=1
    )
    return found


def _bound(way: Way, successive: Doubles, drawn: Doubles) -> float:
    """Where near-copies end."""
    known = [of[np.isfinite(of)] for of in (successive, drawn)]
    if len(known[0]) < PAIRS_MIN:
        return way.farthest if way is POSE else way.nearest
    found = _between(known, lowest=way.nearest)
    if found is None:
        middle = float(np.median(known[0]))
        spread = 1.4826 * float(np.median(np.abs(known[0] - middle)))
        found = middle + DEVIATIONS * spread
    return float(np.clip(found, way.nearest, way.farthest))


def _between(parts: Sequence[Doubles], *, lowest: float) -> float | None:
    """The distance that divides two heaps best; None where there is but one."""
    size = min(map(len, parts)) or len(parts[0])
    evenly = [part[:: max(1, len(part) // size)] for part in parts]
    logs = np.log(np.maximum(np.concatenate(evenly), lowest / 4))
    counts, edges = np.histogram(logs, bins=BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    sums = np.cumsum(counts * middles)
    above = below[-1] + counts[-1] - below
    low, high = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * np.square(high - low) / len(logs) ** 2
    # Of bins that divide equally well, as those of a gap, the middle one.
    equal = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    at = int(equal[len(equal) // 2])
    variance = float(logs.var())
    if variance == 0.0 or between[at] < HEAPS_SHARE * variance:
        return None
    if high[at] - low[at] < np.log(HEAPS_RATIO):
        return None
    return float(np.exp((low[at] + high[at]) / 2))
