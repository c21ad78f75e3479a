"""Exact search over rows of float16: what every other way of searching is measured against.

The similarity of a query and a row is their cosine in float64, summed in one fixed order: the same
bits wherever the row lies and whatever it is searched together with. Such sums are slow, so a
float32 one comes first, and whatever could still be among the best is summed again. Kernels do
this row by row (kernels/best.py); `gather` does it for many queries by one matrix product.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from retrieval.kernels.best import ERROR_PER_SUM, JOINS, LANES, measure, widen
from retrieval.values import FaceIds, Floats, HalfRows, UnitRows

PADDING: Final = -1  # the id of a row without a face
BLOCK_ROWS: Final = 8192  # 16 MiB of float32 at 512 dimensions

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
RowNumbers = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]
Halves = npt.NDArray[np.uint16]  # the bits of half floats
Table = tuple[Halves, Floats, FaceIds]
Array = TypeVar("Array", bound=npt.NDArray[Any])


@dataclass(frozen=True)
class Rows:
    """Vectors in row order, with what scoring them needs."""

    ids: FaceIds  # (n,), PADDING where there is no face
    scales: Floats  # (n,) 1 / length, 0 where the row can't be scored
    vectors: HalfRows  # (n, d)

    @cached_property
    def usable(self) -> Mask:
        """Which rows may be found at all, (n,)."""
        usable: Mask = (self.ids != PADDING) & (self.scales > 0)
        return usable

    @cached_property
    def table(self) -> Table:
        """As kernels take them."""
        halves = np.ascontiguousarray(self.vectors).reshape(-1).view(np.uint16)
        return frozen(halves), frozen(self.scales), frozen(self.ids)


class Hits(NamedTuple):
    """The answer to one query: best first, equals by face id."""

    ids: FaceIds  # (m,)
    similarities: Doubles  # (m,)


def frozen(array: Array) -> Array:
    """The array, read-only: kernels are compiled once, for arrays that nobody writes to."""
    view = array.view()
    view.setflags(write=False)
    return view


def scales_of(vectors: HalfRows) -> Floats:
    """1 / length of each row, (n,) float32; 0 for a row that points nowhere."""
    scales = np.empty(len(vectors), np.float32)
    halves = np.ascontiguousarray(vectors, np.float16).reshape(-1).view(np.uint16)
    measure(frozen(halves), vectors.shape[1], scales)
    return scales


def cosines(vectors: HalfRows, query: Floats) -> Doubles:
    """The similarity of each row and the query, (n,) float64 in [-1, 1].

    Each row is summed by halving, in an order that only the dimension decides.
    """
    return paired_cosines(vectors, query[None])


def paired_cosines(ones: HalfRows | Floats, others: HalfRows | Floats) -> Doubles:
    """The similarity of the rows of each pair, (n,) float64 in [-1, 1], summed as `cosines` does.

    Args:
        ones: (n, d)
        others: (n, d), or (1, d) for all.
    """
    wide, beside = _widened(ones), _widened(others)
    dots = _sums(wide * beside)
    lengths = np.sqrt(_sums(wide * wide)) * np.sqrt(_sums(beside * beside))
    similarities: Doubles = dots / lengths
    return np.clip(similarities, -1.0, 1.0, out=similarities)


def best(rows: Rows, query: Floats, candidates: Numbers, *, count: int) -> Hits:
    """The `count` candidates most similar to the query, by the similarity that is promised."""
    # Many equal pictures make many candidates: in blocks, or they would not fit into memory.
    blocks = [candidates[i : i + BLOCK_ROWS] for i in range(0, len(candidates), BLOCK_ROWS)]
    similarities = [cosines(rows.vectors[block], query) for block in blocks]
    return first(rows.ids[candidates], np.concatenate([np.empty(0), *similarities]), count=count)


def first(ids: FaceIds, similarities: Doubles, *, count: int) -> Hits:
    """The first `count` in the order of answers: similarity descending, face id ascending."""
    order = np.lexsort((ids, -similarities))[:count]
    return Hits(ids=ids[order], similarities=similarities[order])


def merged(parts: list[Hits], *, count: int) -> Hits:
    """The best of several answers to one query, over rows that hold different faces."""
    ids = np.concatenate([np.empty(0, np.int64), *(part.ids for part in parts)])
    similarities = np.concatenate([np.empty(0), *(part.similarities for part in parts)])
    return first(ids, similarities, count=count)


def gather(rows: Rows, queries: UnitRows, *, count: int, numbers: RowNumbers) -> list[Hits]:
    """The best `count` of some rows for each query, by one matrix product a block of rows.

    Args:
        rows: where to look.
        queries: (q, d).
        count: neighbours wanted, at least 1.
        numbers: (m,) rows that may be found.
    """
    pool = _Pool(len(queries), count=count, dimension=queries.shape[1])
    wide = np.empty((min(BLOCK_ROWS, len(numbers)), queries.shape[1]), np.float32)
    for begin in range(0, len(numbers), BLOCK_ROWS):
        block = numbers[begin : begin + BLOCK_ROWS]
        part = wide[: len(block)]
        widen(frozen(block), rows.table, part)
        pool.add(block.astype(np.int64), part @ queries.T)
    return [
        best(rows, query, candidates, count=count)
        for query, candidates in zip(queries, pool.candidates(), strict=True)
    ]


def places_in(ids: FaceIds, sought: FaceIds) -> Numbers:
    """The place of each number sought among ascending ones, -1 for one that is not there."""
    if len(ids) == 0:
        return np.full(len(sought), -1)
    places = np.minimum(np.searchsorted(ids, sought), len(ids) - 1)
    return np.where(ids[places] == sought, places, -1)


def nothing() -> Hits:
    """An empty answer."""
    return Hits(ids=np.empty(0, np.int64), similarities=np.empty(0))


class _Pool:
    """Candidates of many queries while blocks of rows pass by."""

    def __init__(self, queries: int, *, count: int, dimension: int) -> None:
        self._count = count
        self._slack = (dimension // LANES + JOINS) * ERROR_PER_SUM
        self._floors = np.full(queries, -np.inf, np.float32)  # below it nothing can be an answer
        self._parts: list[tuple[Numbers, Numbers, Floats]] = []  # query, row, score
        self._size = 0
        self._size_max = queries * max(4 * count, 256)

    def add(self, numbers: Numbers, scores: Floats) -> None:
        """Keep what could still be an answer: `scores` is (rows, queries)."""
        if len(scores) >= self._count and self._floors.min() == -np.inf:
            kth = np.partition(scores, len(scores) - self._count, axis=0)[-self._count]
            np.maximum(self._floors, kth - self._slack, out=self._floors)
        kept = np.flatnonzero(scores >= self._floors)
        places, queries = np.divmod(kept, len(self._floors))
        self._parts.append((queries, numbers[places], scores.ravel()[kept]))
        self._size += len(places)
        if self._size > self._size_max:
            self._prune()

    def candidates(self) -> list[Numbers]:
        """The rows that each query must look at again."""
        queries, numbers, _ = self._prune()
        return np.split(numbers, np.searchsorted(queries, np.arange(1, len(self._floors))))

    def _prune(self) -> tuple[Numbers, Numbers, Floats]:
        empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        queries, numbers, scores = map(np.concatenate, zip(empty, *self._parts, strict=True))
        order = np.lexsort((-scores, queries))
        queries, numbers, scores = queries[order], numbers[order], scores[order]
        begins, ends = (
            np.searchsorted(queries, np.arange(len(self._floors)), side=side)
            for side in ("left", "right")
        )
        full = ends - begins >= self._count
        kth = scores[begins[full] + self._count - 1] - self._slack
        self._floors[full] = np.maximum(self._floors[full], kth)
        keep = scores >= self._floors[queries]
        self._parts = [(queries[keep], numbers[keep], scores[keep])]
        self._size = len(self._parts[0][0])
        # Many equal rows cannot be pruned: sorting them anew for each block would be quadratic.
        self._size_max = max(self._size_max, 2 * self._size)
        return self._parts[0]


def _widened(rows: HalfRows | Floats) -> Doubles:
    """The rows in float64, filled up with zeros to a power of two."""
    wide = np.zeros((len(rows), _power_of_two(rows.shape[1])))
    wide[:, : rows.shape[1]] = rows
    return wide


def _sums(wide: Doubles) -> Doubles:
    """The sum of each row of a power-of-two width, which `wide` is used up for."""
    width = wide.shape[1]
    while width > 1:
        width //= 2
        wide[:, :width] += wide[:, width : 2 * width]
    return wide[:, 0].copy()


def _power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()
