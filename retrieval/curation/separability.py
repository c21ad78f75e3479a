"""Which identities are too alike to be told apart: all pairs above a similarity, exactly.

Every row meets every other in products of blocks, along as many of the main directions as pay off:
what lies beside them can add no more than the product of two lengths, so no pair is missed. Of 512
directions, the generator's faces need 128, and those of LFW 192 at a similarity of 0.6, 384 at 0.3.
Similarities are the cosines of stored vectors in float64 (index/exact.py), to the bit.

Asking an index certified for every row takes six times as long (300,000 rows, 0.4), and may miss a
neighbour, with a small chance each, where here all pairs together are promised.

Rows are taken by number, so that the answer does not depend on how an index lies. A stripe of rows
that was compared with all after it is kept in a folder, and not looked at again by a later run.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from retrieval.graph.gathering import Gathered
from retrieval.index.exact import BLOCK_ROWS, Doubles, Numbers, frozen
from retrieval.kernels.pairs import tally
from retrieval.limits import PAIRS_MAX, within
from retrieval.values import FaceIds, Floats

Progress = Callable[[int, int], None]

STRIPE_ROWS: Final = 4_096
ROWS_AT_ONCE: Final = 512  # products of these with so many others stay in the processor's cache
COLUMNS_AT_ONCE: Final = 1_024
SAMPLE: Final = 32_768  # rows that directions are taken from
PILOTS: Final = 1_536  # rows whose pairs tell how many would be scored in full
DIRECTIONS: Final = (32, 64, 96, 128, 192, 256, 384)
NS_A_DIRECTION: Final = 0.014  # of a pair in a product of blocks
NS_A_SCORE: Final = 160.0  # of a pair in full
ROUNDING: Final = 6e-8  # of one operation in float32
BESIDE_ERROR: Final = 1e-6  # of a length that is worked out as a difference
BIN: Final = 0.01
TAIL: Final = 0.1  # how far below the threshold similarities are counted
PART: Final = "stripe-{:06d}.npz"


@dataclass(frozen=True, eq=False, kw_only=True)
class Identities:
    """Rows to be told apart, by number."""

    rows: Gathered
    owners: Numbers  # (n,) rows with one owner are one identity


@dataclass(frozen=True, eq=False, kw_only=True)
class Separability:
    """The pairs of identities that reach a similarity."""

    threshold: float
    rows: int
    identities: int
    compared: int  # pairs of rows of different identities: all of them
    scored: int  # of those, in full
    directions: int
    highest: float | None  # of all pairs; None: there is none
    edges: Doubles  # (e,) lower edges of bins of similarity; the last one has no upper edge
    counts: Numbers  # (e,) pairs in each
    ones: FaceIds  # (m,) ids; pairs that reach the threshold, most alike first, then by ids
    others: FaceIds  # (m,)
    similarities: Doubles  # (m,)
    involved: int  # identities in one of these pairs


class _Projected(NamedTuple):
    """Rows along some directions."""

    along: Floats  # (n, directions) float32
    besides: Floats  # (n,) float32, at least as long as what lies beside


class _Tally(NamedTuple):
    """What some pairs of rows gave."""

    counts: Numbers  # (e + 1,)
    highest: float
    ones: Numbers
    others: Numbers
    similarities: Doubles


def separability(
    identities: Identities,
    *,
    threshold: float,
    folder: Path | None = None,
    progress: Progress = lambda *_: None,
    directions: Sequence[int] = DIRECTIONS,
) -> Separability:
    """Compare every identity with every other one.

    Args:
        identities: rows by number.
        threshold: a cosine, from which on pairs are told.
        folder: where work is kept that was cut off; it is removed at the end.
        progress: called with stripes done and stripes in all.
        directions: numbers of them to choose from; all of them can always be chosen.

    Raises:
        LimitExceededError: more than PAIRS_MAX pairs reach the threshold.
    """
    rows = identities.rows
    edges = np.round(threshold + BIN * np.arange(-round(TAIL / BIN), 101), 6)
    edges[round(TAIL / BIN)] = threshold  # to the bit
    edges = edges[edges < 1.0 + BIN / 2]
    basis = _basis(rows, floor=float(edges[0]), directions=directions)
    with tempfile.TemporaryDirectory(prefix="facedex-pairs-") as scratch:
        projected = _projected(rows, basis, Path(scratch))
        stripes = _Stripes(identities, projected, threshold=threshold, edges=edges, folder=folder)
        found = list(stripes.all(progress))
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    return _told(identities, found, threshold=threshold, edges=edges, directions=basis.shape[1])


class _Stripes:
    """Stripes of rows, each compared with itself and all rows after it."""

    def __init__(
        self,
        identities: Identities,
        projected: _Projected,
        *,
        threshold: float,
        edges: Doubles,
        folder: Path | None,
    ) -> None:
        self._identities = identities
        self._projected = projected
        self._threshold = threshold
        self._edges = frozen(edges)
        self._folder = folder
        self._stamp = _stamp(identities, threshold) if folder is not None else ""
        self._highest = -2.0
        directions = projected.along.shape[1]
        self._slack = np.float32((directions + 32) * ROUNDING + BESIDE_ERROR)
        self._scores = np.empty(ROWS_AT_ONCE * COLUMNS_AT_ONCE, np.float32)
        room = max(ROWS_AT_ONCE * COLUMNS_AT_ONCE // 16, COLUMNS_AT_ONCE)
        self._buffer = (np.empty(room + 1), np.empty(room, np.int64), np.empty(room, np.int64))

    def all(self, progress: Progress) -> Iterator[_Tally]:
        """Every stripe, from where an earlier run was cut off."""
        size = len(self._identities.owners)
        every = -(-size // STRIPE_ROWS)
        told = 0
        for stripe in range(every):
            found = self._kept(stripe) or self._keep(stripe, self._compared(stripe * STRIPE_ROWS))
            told += len(found.ones)
            within(
                PAIRS_MAX, told, what=f"the number of pairs that reach {self._threshold:.4f} so far"
            )
            self._highest = max(self._highest, found.highest)
            progress(stripe + 1, every)
            yield found

    def _compared(self, begin: int) -> _Tally:
        along, size = self._projected.along, len(self._identities.owners)
        counts = np.zeros(len(self._edges) + 1, np.int64)
        kept: list[tuple[Doubles, Numbers, Numbers]] = []
        self._buffer[0][-1] = self._highest
        for left in range(begin, size, COLUMNS_AT_ONCE):
            columns = np.ascontiguousarray(along[left : left + COLUMNS_AT_ONCE]).T
            for top in range(begin, min(begin + STRIPE_ROWS, size), ROWS_AT_ONCE):
                end = min(top + ROWS_AT_ONCE, begin + STRIPE_ROWS, size)
                kept += self._met(self._products(along[top:end], columns), top, left, counts)
        similarities, ones, others = (
            np.concatenate([none, *(part[at] for part in kept)])
            for at, none in enumerate((np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)))
        )
        return _Tally(counts, float(self._buffer[0][-1]), ones, others, similarities)

    def _products(self, rows: Floats, columns: Floats) -> Floats:
        """All products, in memory that is used again: new memory costs half as much as they do."""
        size = len(rows) * columns.shape[1]
        out = self._scores[:size].reshape(len(rows), columns.shape[1])
        return np.matmul(rows, columns, out=out)

    def _met(
        self, scores: Floats, top: int, left: int, counts: Numbers
    ) -> Iterator[tuple[Doubles, Numbers, Numbers]]:
        """The pairs of a block that reach the threshold."""
        rows = self._identities.rows
        place = np.array([top, left, 0, 0])
        while place[2] < len(scores):
            place[3] = 0
            tally(
                scores, self._slack, place, self._projected.besides, self._identities.owners,
                rows.numbers, rows.rows.table, self._threshold, self._edges, counts, self._buffer,
            )  # fmt: skip
            similarities, ones, others = self._buffer
            kept = int(place[3])
            yield similarities[:kept].copy(), ones[:kept].copy(), others[:kept].copy()

    def _kept(self, stripe: int) -> _Tally | None:
        """What a run that was cut off has found for the same rows."""
        if self._folder is None or not (self._folder / PART.format(stripe)).is_file():
            return None
        with np.load(self._folder / PART.format(stripe), allow_pickle=False) as kept:
            if str(kept["stamp"]) != self._stamp:
                return None
            return _Tally(
                kept["counts"], float(kept["highest"]), kept["ones"], kept["others"],
                kept["similarities"],
            )  # fmt: skip

    def _keep(self, stripe: int, found: _Tally) -> _Tally:
        if self._folder is None:
            return found
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / PART.format(stripe)
        staged = path.with_suffix(".staged")
        with staged.open("wb") as file:
            np.savez(file, stamp=np.array(self._stamp), **found._asdict())
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        return found


def _told(
    identities: Identities,
    found: list[_Tally],
    *,
    threshold: float,
    edges: Doubles,
    directions: int,
) -> Separability:
    ids, owners = identities.rows.ids, identities.owners
    similarities = np.concatenate([np.empty(0), *(one.similarities for one in found)])
    ones, others = (
        np.concatenate([np.empty(0, np.int64), *(getattr(one, name) for one in found)])
        for name in ("ones", "others")
    )
    order = np.lexsort((ids[others], ids[ones], -similarities))
    counts = np.sum([np.zeros(len(edges) + 1, np.int64), *(one.counts for one in found)], axis=0)
    sizes = np.unique(owners, return_counts=True)[1]
    compared = (len(owners) * (len(owners) - 1) - int((sizes * (sizes - 1)).sum())) // 2
    return Separability(
        threshold=threshold,
        rows=len(owners),
        identities=len(sizes),
        compared=compared,
        scored=int(counts[-1]),
        directions=directions,
        highest=max(one.highest for one in found) if compared else None,
        edges=edges,
        counts=counts[:-1],
        ones=ids[ones][order],
        others=ids[others][order],
        similarities=similarities[order],
        involved=len(np.unique(owners[np.concatenate([ones, others])])),
    )


def _basis(rows: Gathered, *, floor: float, directions: Sequence[int]) -> Doubles:
    """As many of the main directions as make the cheapest comparison of all pairs, (d, m)."""
    step = max(1, -(-len(rows) // SAMPLE))
    sample = rows.wide(np.arange(0, len(rows), step)).astype(np.float64)
    basis = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]
    pilots = sample[:: max(1, -(-len(sample) // PILOTS))]
    pairs = max(len(pilots) * (len(pilots) - 1) // 2, 1)
    costs = {sample.shape[1]: NS_A_DIRECTION * sample.shape[1]}
    for count in (one for one in directions if one < sample.shape[1]):
        along = pilots @ basis[:, :count]
        beside = np.sqrt(np.maximum(1.0 - np.square(along).sum(axis=1), 0.0))
        most = along @ along.T + np.outer(beside, beside)
        reaching = np.count_nonzero(np.triu(most >= floor, k=1)) / pairs
        costs[count] = NS_A_DIRECTION * count + NS_A_SCORE * reaching
    best = min(costs, key=lambda count: (costs[count], count))
    chosen: Doubles = np.ascontiguousarray(basis[:, :best])
    return chosen


def _projected(rows: Gathered, basis: Doubles, scratch: Path) -> _Projected:
    """All rows along a basis, in a file that the system may keep in memory or not."""
    size = len(rows)
    along = np.zeros((0, basis.shape[1]), np.float32)
    if size:
        along = np.memmap(scratch / "along", np.float32, mode="w+", shape=(size, basis.shape[1]))
    besides = np.empty(size, np.float32)
    for begin in range(0, size, BLOCK_ROWS):
        part = slice(begin, min(begin + BLOCK_ROWS, size))
        wide = rows.wide(np.arange(part.start, part.stop)).astype(np.float64)
        turned = wide @ basis
        along[part] = turned
        left = np.square(wide).sum(axis=1) - np.square(turned).sum(axis=1)
        besides[part] = np.sqrt(np.maximum(left, 0.0)) + BESIDE_ERROR
    return _Projected(along, frozen(besides))


def _stamp(identities: Identities, threshold: float) -> str:
    """What an answer depends on: rows, their vectors and owners, and the threshold."""
    rows = identities.rows
    found = sha256(rows.ids.tobytes())
    found.update(identities.owners.tobytes())
    for begin in range(0, len(rows), BLOCK_ROWS):
        found.update(rows.rows.vectors[rows.numbers[begin : begin + BLOCK_ROWS]].tobytes())
    found.update(repr((threshold, STRIPE_ROWS, BIN, TAIL)).encode())
    return found.hexdigest()
