"""Inverted lists: the rows grouped by the centroid they are most similar to.

A query looks only into the lists whose centroids are nearest to it. The lists are those of the
snapshot, read by FAISS where they are mapped: it is told the address of each list, and only the
row numbers (8 bytes a row) are copied into its memory. Candidates are scored anew, so an answer
may miss a neighbour, but never tells a wrong similarity.
"""

import ctypes
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index.exact import (
    BLOCK_ROWS,
    EXTRA,
    THREADS_MAX,
    Hits,
    Mask,
    Numbers,
    Rows,
    best,
    byte_view,
    nobody,
    share_work,
    surviving,
)
from retrieval.values import Floats, HalfRows, UnitRows

LIST_ALIGNMENT: Final = 64  # rows; the bitmap of each list begins at a whole word
LISTED_ROWS_MIN: Final = 20_000  # below it, scanning everything is as fast
SAMPLE_PER_LIST: Final = 64  # vectors that a centroid is trained on
TRAINING_ROUNDS: Final = 10
SEED: Final = 20_240_229

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """Where the lists lie among the rows."""

    centroids: Floats  # (lists, d) unit length
    sizes: Counts  # (lists,) faces; padding follows them up to the next list

    @cached_property
    def offsets(self) -> Counts:
        """The row at which each list begins, and the end, (lists + 1,)."""
        return np.concatenate([[0], np.cumsum(padded(self.sizes))])


class ListIndex:
    """FAISS's inverted lists over mapped rows."""

    def __init__(self, rows: Rows, lists: Lists) -> None:
        self._rows = rows
        self.lists = lists
        self._bytes = byte_view(rows.vectors)  # FAISS keeps only the address
        self._coarse = faiss.IndexFlatIP(rows.vectors.shape[1])
        self._coarse.add(np.ascontiguousarray(lists.centroids))
        self._index = self._over(self._bytes)

    def nearness(self, queries: UnitRows) -> Counts:
        """The numbers of all lists for each query, nearest first, (q, lists)."""
        return np.argsort(-(queries @ self.lists.centroids.T), axis=1, kind="stable")

    def survivors_by_list(self, survivors: Mask) -> Counts:
        """How many of the rows (n,) each list holds, (lists,)."""
        words = np.packbits(survivors, bitorder="little").view(np.uint64)
        running = np.concatenate([[0], np.cumsum(np.bitwise_count(words), dtype=np.int64)])
        return np.diff(running[self.lists.offsets // LIST_ALIGNMENT])

    def nearest(
        self, queries: UnitRows, *, count: int, survivors: Mask, probed: Counts
    ) -> list[Hits]:
        """The best `count` survivors of the probed lists for each query.

        Args:
            queries: (q, d).
            count: neighbours wanted, at least 1.
            survivors: (n,) rows that may be found; a part of `rows.usable`.
            probed: (q, p) numbers of lists; -1 stands for none.
        """
        packed = np.packbits(survivors, bitorder="little")
        parameters = faiss.SearchParametersIVF(
            nprobe=probed.shape[1], sel=faiss.IDSelectorBitmap(packed)
        )
        numbers = self._searched(queries, probed, fetched=count + EXTRA, parameters=parameters)
        return [
            best(self._rows, query, surviving(found, survivors), count=count)
            for query, found in zip(queries, numbers, strict=True)
        ]

    def _searched(
        self,
        queries: UnitRows,
        probed: Counts,
        *,
        fetched: int,
        parameters: faiss.SearchParametersIVF,
    ) -> Numbers:
        """Row numbers, (q, fetched), best first; -1 where a place stays empty."""
        units, probed = np.ascontiguousarray(queries), np.ascontiguousarray(probed)
        numbers = np.empty((len(queries), fetched), np.int64)
        scores = np.empty(numbers.shape, np.float32)
        coarse = np.zeros(probed.shape, np.float32)  # unused: codes are not residuals
        share_work(len(queries))
        # FAISS's Python wrapper takes no parameters here.
        self._index.search_preassigned_c(
            len(queries),
            faiss.swig_ptr(units),
            fetched,
            faiss.swig_ptr(probed),
            faiss.swig_ptr(coarse),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(numbers),
            False,  # noqa: FBT003  # store_pairs
            parameters,
        )
        return numbers

    def _over(self, codes: npt.NDArray[np.uint8]) -> faiss.IndexIVFScalarQuantizer:
        dimension, lists = self._rows.vectors.shape[1], len(self.lists.sizes)
        index = faiss.IndexIVFScalarQuantizer(
            self._coarse,
            dimension,
            lists,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # noqa: FBT003  # by_residual; FAISS takes no keywords here
        )
        inverted = faiss.downcast_InvertedLists(index.invlists)
        # With codes of no length, resizing makes room for row numbers alone.
        inverted.code_size = 0
        views = faiss.MaybeOwnedVectorUInt8Vector()
        for number, (begin, size) in enumerate(
            zip(self.lists.offsets.tolist(), self.lists.sizes.tolist(), strict=False)
        ):
            inverted.resize(number, size)
            rows = np.arange(begin, begin + size)
            if size:  # an empty list has no address
                ctypes.memmove(int(inverted.get_ids(number)), rows.ctypes.data, rows.nbytes)
            part = codes[begin * 2 * dimension : (begin + size) * 2 * dimension]
            views.push_back(_view(part))
        inverted.code_size = 2 * dimension
        inverted.codes = views
        index.is_trained = True  # float16 needs no training, the centroids had theirs
        index.ntotal = int(self.lists.sizes.sum())
        return index


def padded(sizes: Counts) -> Counts:
    """Sizes rounded up to whole words of a bitmap.

    >>> padded(np.array([0, 1, 64, 65])).tolist()
    [0, 64, 64, 128]
    """
    return -(-sizes // LIST_ALIGNMENT) * LIST_ALIGNMENT


def list_count(rows: int) -> int:
    """How many lists suit a number of rows: a power of two near the square root, or one.

    >>> [list_count(rows) for rows in (1_000, 200_000, 1_000_000, 10_000_000)]
    [1, 512, 1024, 4096]
    """
    return 1 if rows < LISTED_ROWS_MIN else 1 << round(np.log2(rows) / 2)


def trained_centroids(sample: Floats, *, lists: int) -> Floats:
    """Centroids by spherical k-means, (lists, d) float32 of unit length."""
    share_work(THREADS_MAX)
    kmeans = faiss.Kmeans(
        sample.shape[1],
        lists,
        niter=TRAINING_ROUNDS,
        seed=SEED,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE_PER_LIST,
    )
    kmeans.train(sample)
    centroids: Floats = kmeans.centroids
    return centroids


def assigned(vectors: HalfRows, centroids: Floats) -> npt.NDArray[np.int32]:
    """The list of each row: its most similar centroid, (n,).

    By numpy's matrix product: the OpenBLAS inside FAISS falls back to Prescott on new CPUs.
    """
    found = np.empty(len(vectors), np.int32)
    for begin in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[begin : begin + BLOCK_ROWS].astype(np.float32)
        # Only hands write NaN and infinity; such rows go to any list, where no search finds them.
        np.nan_to_num(block, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        found[begin : begin + BLOCK_ROWS] = np.argmax(block @ centroids.T, axis=1)
    return found


def _view(part: npt.NDArray[np.uint8]) -> faiss.MaybeOwnedVectorUInt8:
    """A list's codes where they lie."""
    if part.size == 0:
        return faiss.MaybeOwnedVectorUInt8()
    return faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(part), part.size, nobody())
