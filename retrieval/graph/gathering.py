"""The rows of a graph: those that pass a filter, along few directions and grouped into lists."""

import itertools
from dataclasses import dataclass

import numpy as np

from retrieval.filters.tree import Filter
from retrieval.index.exact import BLOCK_ROWS, Numbers, Rows, frozen, scales_of
from retrieval.index.lists import nearest_centroids
from retrieval.index.view import View
from retrieval.kernels.best import widen
from retrieval.values import FaceIds, Floats


@dataclass(frozen=True, eq=False)
class Gathered:
    """Rows in an order of our own."""

    rows: Rows
    numbers: Numbers  # (n,) where each is in `rows`

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def ids(self) -> FaceIds:
        """The faces, (n,)."""
        return self.rows.ids[self.numbers]

    def wide(self, places: Numbers) -> Floats:
        """Some rows as unit vectors, (m, d) float32."""
        made = np.empty((len(places), self.rows.vectors.shape[1]), np.float32)
        widen(frozen(self.numbers[places]), self.rows.table, made)
        return made

    def turned(self, basis: Floats) -> Floats:
        """All rows along the columns of a basis (d, directions), (n, directions) float32."""
        made = np.empty((len(self), basis.shape[1]), np.float32)
        for begin in range(0, len(self), BLOCK_ROWS):
            places = np.arange(begin, min(begin + BLOCK_ROWS, len(self)))
            np.matmul(self.wide(places), basis, out=made[begin : begin + BLOCK_ROWS])
        return made

    def ordered(self, order: Numbers) -> "Gathered":
        """The same rows in another order."""
        return Gathered(self.rows, self.numbers[order])


@dataclass(frozen=True, eq=False)
class Listed:
    """Rows in the order of their lists, along few directions."""

    gathered: Gathered
    turned: Floats  # (n, directions)
    centroids: Floats  # (lists, directions) unit length
    begins: Numbers  # (lists + 1,) the first row of each list, and the end
    order: Numbers  # (n,) where each row came before
    own: Floats  # (n,) nearness of each row to the centroid of its list


def gathered(view: View, filter_: Filter | None) -> Gathered:
    """The rows of a view that pass."""
    segments = [
        (rows, some.row_numbers().astype(np.int64))
        for rows, some in view.segments(view.survivors(filter_))
        if some.count
    ]
    if len(segments) == 1:
        return Gathered(*segments[0])
    # Of several segments one is made: kernels know one table.
    vectors = np.concatenate(
        [np.empty((0, view.dimension), "<f2"), *(rows.vectors[at] for rows, at in segments)]
    )
    ids = np.concatenate([np.empty(0, np.int64), *(rows.ids[at] for rows, at in segments)])
    return Gathered(Rows(ids, scales_of(vectors), vectors), np.arange(len(ids)))


def listed(rows: Gathered, turned: Floats, centroids: Floats) -> Listed:
    """Group rows by the centroid they are most similar to."""
    owners = nearest_centroids(turned, centroids)
    order = np.argsort(owners, kind="stable")
    begins = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(centroids)))])
    moved = turned[order]
    own = np.empty(len(moved), np.float32)
    for one, (begin, end) in enumerate(itertools.pairwise(begins)):
        own[begin:end] = moved[begin:end] @ centroids[one]
    return Listed(rows.ordered(order), moved, centroids, begins, order, own)


def evenly_listed(rows: Gathered, turned: Floats, *, size: int) -> Listed:
    """Lists of so many rows as they come: for rows that all meet each other."""
    begins = np.minimum(np.arange(0, len(rows) + size, size), len(rows))
    centroids = np.zeros((len(begins) - 1, turned.shape[1]), np.float32)
    own = np.zeros(len(rows), np.float32)
    return Listed(rows, turned, centroids, begins, np.arange(len(rows)), own)
