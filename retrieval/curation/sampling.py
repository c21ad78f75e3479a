"""Rows no two of which are alike: taken one by one in an order, each that is unlike all before it.

The sample is maximal, nothing that was left out could be added, and not the largest there is: that
would be an independent set of a graph, which nobody finds. Similarities are the cosines of stored
vectors in float64; products in float32 decide wherever they cannot be wrong.
"""

from typing import Final

import numpy as np

from retrieval.curation.separability import ROUNDING
from retrieval.graph.gathering import Gathered
from retrieval.index.exact import BLOCK_ROWS, Mask, Numbers, paired_cosines
from retrieval.values import Floats

TOGETHER: Final = 1_024  # rows that are looked at at once


def sampled_apart(rows: Gathered, order: Numbers, *, count: int, below: float) -> Numbers:
    """The places of at most `count` rows, every two of them less alike than `below`.

    Args:
        rows: what there is.
        order: (n,) places among the rows, in the order in which they are taken.
        count: how many are wanted. Fewer are given where no further row is unlike all of these.
        below: a cosine that no two of them reach.
    """
    kept = _Kept(rows, below)
    for begin in range(0, len(order), TOGETHER):
        if len(kept.places) >= count:
            break
        kept.take(order[begin : begin + TOGETHER])
    return kept.places[:count]


class _Kept:
    """Rows that are unlike each other."""

    def __init__(self, rows: Gathered, below: float) -> None:
        self._rows = rows
        self._below = below
        self._wide: list[Floats] = []  # blocks of at most BLOCK_ROWS
        self.places = np.empty(0, np.int64)
        dimension = rows.rows.vectors.shape[1]
        self._slack = (dimension + 32) * ROUNDING

    def take(self, places: Numbers) -> None:
        """Keep each of some rows that is unlike all that are kept by then."""
        wide = self._rows.wide(places)
        unlike = ~self._like_kept(places, wide)
        places, wide = places[unlike], wide[unlike]
        like = self._like(places, wide, places, wide)
        left = np.ones(len(places), np.bool_)
        for at in range(len(places)):
            if left[at]:
                left[at + 1 :] &= ~like[at, at + 1 :]
        self.places = np.concatenate([self.places, places[left]])
        self._append(wide[left])

    def _append(self, wide: Floats) -> None:
        if self._wide and len(self._wide[-1]) + len(wide) <= BLOCK_ROWS:
            wide = np.concatenate([self._wide.pop(), wide])
        self._wide.append(wide)

    def _like_kept(self, places: Numbers, wide: Floats) -> Mask:
        """Which of some rows are like one that is kept."""
        like = np.zeros(len(places), np.bool_)
        begin = 0
        for block in self._wide:
            kept = self.places[begin : begin + len(block)]
            like |= self._like(places, wide, kept, block).any(axis=1)
            begin += len(block)
        return like

    def _like(self, ones: Numbers, wide: Floats, others: Numbers, beside: Floats) -> Mask:
        """Which of one side reach the similarity with which of the other, (a, b)."""
        scores = wide @ beside.T
        like: Mask = scores >= self._below
        doubtful = np.abs(scores - self._below) <= self._slack
        here, there = np.nonzero(doubtful)
        vectors, numbers = self._rows.rows.vectors, self._rows.numbers
        for begin in range(0, len(here), BLOCK_ROWS):
            one, other = here[begin : begin + BLOCK_ROWS], there[begin : begin + BLOCK_ROWS]
            exact = paired_cosines(vectors[numbers[ones[one]]], vectors[numbers[others[other]]])
            like[one, other] = exact >= self._below
        return like
