"""Rows in lists with codes, made in memory, and every way to search them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.filters.rows import RowSet
from retrieval.index.codes import encoded, frame_of
from retrieval.index.exact import PADDING, Hits, Mask, Rows, frozen, gather, scales_of
from retrieval.index.fitting import fitted_rule
from retrieval.index.lists import Lists, nearest_centroids, offsets_of, trained_centroids
from retrieval.index.rule import Rule
from retrieval.index.trials import Fitted
from retrieval.kernels.best import best_of_bitmap, best_of_numbers
from retrieval.kernels.coded import best_of_coded_numbers, best_of_codes, best_of_lists
from retrieval.values import Floats, UnitRows

ALL_ERRORS: Final = 20.0  # times a |q|: no estimate is so wrong
USUAL_ERRORS: Final = 2.5

Heap = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Engine:
    """Rows as a snapshot holds them."""

    parts: Fitted
    rule: Rule

    @property
    def rows(self) -> Rows:
        return self.parts.rows

    def search(self, way: str, query: Floats, *, count: int, survivors: Mask) -> Hits:
        """The answer of one way, from an empty heap."""
        heap = (np.full(count, np.nan), np.full(count, -7))
        kept = WAYS[way](self, frozen(query), survivors, heap, 0)
        return Hits(heap[1][:kept], heap[0][:kept])

    def truth(self, query: Floats, survivors: Mask, count: int) -> list[int]:
        """Ids of the nearest survivors, by (similarity descending, id); plain numpy."""
        vectors = self.rows.vectors[survivors].astype(np.float64)
        similarities = vectors @ query.astype(np.float64) / np.linalg.norm(vectors, axis=1)
        ids = self.rows.ids[survivors]
        # Equal pictures have equal vectors: to ten digits their order is that of their faces.
        return [int(i) for i in ids[np.lexsort((ids, -similarities.round(10)))][:count]]


def engine(vectors: npt.NDArray[Any], *, lists: int) -> Engine:
    """Rows as a snapshot orders them, ids counted downwards so that they follow no order."""
    halves = vectors.astype("<f2")
    dimension = halves.shape[1]
    sample = np.nan_to_num(halves.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    centroids, numbers = np.zeros((1, dimension), np.float32), np.zeros(len(halves), np.int32)
    if lists > 1:
        centroids = trained_centroids(sample, lists=lists)
        numbers = nearest_centroids(halves, centroids)
    sizes = np.bincount(numbers, minlength=lists)
    offsets = offsets_of(sizes)
    order = np.argsort(numbers, kind="stable")
    ids = np.full(offsets[-1], PADDING)
    stored = np.zeros((len(ids), dimension), "<f2")
    places = np.arange(len(order)) + (offsets[:-1] - np.cumsum(sizes) + sizes)[numbers[order]]
    ids[places] = 10 * len(halves) - order
    stored[places] = halves[order]
    rows = Rows(ids, scales_of(stored), stored)
    frame = frame_of(sample, seed=7)
    codes_of_lists = encoded(centroids, np.ones(lists, np.float32), frame)
    parts = Fitted(
        rows=rows,
        frame=frame,
        codes=encoded(stored, rows.scales, frame),
        lists=Lists(centroids, sizes, codes_of_lists),
    )
    return Engine(parts, fitted_rule(parts))


def words_of(mask: Mask) -> npt.NDArray[np.uint64]:
    """One bit a row, as kernels take them."""
    return RowSet.of_mask(mask).bitmap()


def numbers_of(mask: Mask) -> npt.NDArray[np.int32]:
    """Row numbers, as kernels take them."""
    return frozen(np.flatnonzero(mask).astype(np.int32))


Way = Callable[[Engine, Any, Mask, Heap, int], int]


def _gather(made: Engine, query: Floats, mask: Mask, heap: Heap, _: int) -> int:
    queries = UnitRows(query[None])
    [hits] = gather(made.rows, queries, count=len(heap[0]), numbers=numbers_of(mask))
    heap[0][: len(hits.ids)], heap[1][: len(hits.ids)] = hits.similarities, hits.ids
    return len(hits.ids)


def _numbers(made: Engine, query: Floats, mask: Mask, heap: Heap, filled: int) -> int:
    return int(best_of_numbers(query, numbers_of(mask), made.rows.table, heap, filled))


def _bitmap(made: Engine, query: Floats, mask: Mask, heap: Heap, filled: int) -> int:
    return int(best_of_bitmap(query, words_of(mask), made.rows.table, heap, filled))


def _by_codes(errors: float) -> Way:
    def way(made: Engine, query: Floats, mask: Mask, heap: Heap, filled: int) -> int:
        coded = (made.parts.frame.arrays, made.parts.codes.arrays, made.rows.table)
        return int(best_of_codes(query, words_of(mask), errors, *coded, heap, filled)[0])

    return way


def _by_coded_numbers(errors: float) -> Way:
    def way(made: Engine, query: Floats, mask: Mask, heap: Heap, filled: int) -> int:
        coded = (made.parts.frame.arrays, made.parts.codes.arrays, made.rows.table)
        return int(best_of_coded_numbers(query, numbers_of(mask), errors, *coded, heap, filled)[0])

    return way


def _by_lists(errors: float, missed: float) -> Way:
    def way(made: Engine, query: Floats, mask: Mask, heap: Heap, filled: int) -> int:
        words, lists = words_of(mask), made.parts.lists
        sizes = RowSet.of_bitmap(words, size=len(mask)).counts_per_block(lists.words)
        kept, *_ = best_of_lists(
            query, words, errors, missed, (frozen(sizes), *lists.arrays), made.rule.chances,
            made.parts.frame.arrays, made.parts.codes.arrays, made.rows.table, heap, filled,
        )  # fmt: skip
        return int(kept)

    return way


WAYS: Final[dict[str, Way]] = {
    "gather": _gather,
    "numbers": _numbers,
    "bitmap": _bitmap,
    "codes": _by_codes(ALL_ERRORS),
    "coded_numbers": _by_coded_numbers(ALL_ERRORS),
    "lists": _by_lists(ALL_ERRORS, -1.0),  # never enough: looks into every list
    "usual_codes": _by_codes(USUAL_ERRORS),
    "usual_coded_numbers": _by_coded_numbers(USUAL_ERRORS),
    "nearest_lists": _by_lists(USUAL_ERRORS, 0.05),
}
EXACT_WAYS: Final = ("gather", "numbers", "bitmap", "codes", "coded_numbers", "lists")
