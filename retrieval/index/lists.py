"""Inverted lists: the rows grouped by the centroid they are most similar to.

A query looks into the lists whose centroids are nearest, until few neighbours can be missed. Lists
are ranked by codes of their centroids, made like those of rows.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index.codes import Codes
from retrieval.index.exact import BLOCK_ROWS, frozen
from retrieval.values import Floats, HalfRows

LIST_ALIGNMENT: Final = 64  # rows; the bitmap of each list begins at a whole word
LISTED_ROWS_MIN: Final = 20_000  # below it, scoring every code takes less than ranking lists
SAMPLE_PER_LIST: Final = 48  # vectors that a centroid is trained on
TRAINING_ROUNDS: Final = 8
SEED: Final = 20_240_229
THREADS_MAX: Final[int] = faiss.omp_get_max_threads()  # before anybody changes it

Counts = npt.NDArray[np.int64]
ListArrays = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64], npt.NDArray[np.uint16]]


@dataclass(frozen=True)
class Lists:
    """Where the lists lie among the rows, and what ranks them."""

    centroids: Floats  # (lists, d) unit length
    sizes: Counts  # (lists,) faces; padding follows them up to the next list
    codes: Codes  # of the centroids

    @cached_property
    def offsets(self) -> Counts:
        """The row at which each list begins, and the end, (lists + 1,)."""
        return frozen(offsets_of(self.sizes))

    @cached_property
    def words(self) -> Counts:
        """The same in words of a bitmap."""
        return frozen(self.offsets // LIST_ALIGNMENT)

    @cached_property
    def arrays(self) -> ListArrays:
        """As kernels take them, behind the survivors of each list."""
        return self.offsets, self.codes.words, self.codes.factors


def offsets_of(sizes: Counts) -> Counts:
    """The row at which each list begins, and the end, (lists + 1,): lists fill whole words.

    >>> offsets_of(np.array([0, 1, 64, 65])).tolist()
    [0, 0, 64, 128, 256]
    """
    padded = -(-sizes // LIST_ALIGNMENT) * LIST_ALIGNMENT
    return np.concatenate([[0], np.cumsum(padded)])


def list_count(rows: int) -> int:
    """How many lists suit a number of rows: a power of two near twice the square root, or one.

    >>> [list_count(rows) for rows in (1_000, 200_000, 1_000_000, 10_000_000)]
    [1, 1024, 2048, 8192]
    """
    return 1 if rows < LISTED_ROWS_MIN else 1 << round(np.log2(rows) / 2 + 1)


def trained_centroids(sample: Floats, *, lists: int) -> Floats:
    """Centroids by spherical k-means, (lists, d) float32 of unit length."""
    faiss.omp_set_num_threads(THREADS_MAX)
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


def nearest_centroids(rows: HalfRows | Floats, centroids: Floats) -> npt.NDArray[np.int32]:
    """The most similar centroid of each row (n, d), whatever the row's length, (n,).

    By numpy's matrix product: the OpenBLAS inside FAISS falls back to Prescott on new processors.
    """
    found = np.empty(len(rows), np.int32)
    for begin in range(0, len(rows), BLOCK_ROWS):
        block = rows[begin : begin + BLOCK_ROWS].astype(np.float32, copy=False)
        if rows.dtype == np.float16:
            # Only hands write NaN and infinity; such rows go anywhere: no search finds them.
            np.nan_to_num(block, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        found[begin : begin + BLOCK_ROWS] = np.argmax(block @ centroids.T, axis=1)
    return found
