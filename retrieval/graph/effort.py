"""How much has to be looked at for a recall: measured on some rows whose neighbours are known.

A true neighbour is missed where neither of the two rows looks into the list of the other, or where
it does not come far enough along few directions to be scored in full. Both are counted for some
hundred pilots, drawn at random; the lower 95 % bound of their recall must reach what is asked.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from retrieval.graph.gathering import Gathered, Listed
from retrieval.index.exact import BLOCK_ROWS, Doubles, Mask, Numbers
from retrieval.values import Floats

PILOTS: Final = 512
DIRECTIONS: Final = (64, 96, 128, 192, 256, 384)
LOST_BY_DIRECTIONS: Final = 0.25  # of what may be missed
OWN_SHARE: Final = 0.5  # .25 and .75 need 4 and 8 % more
NEARNESS_ERROR: Final = 1e-5  # of a product in float32
SHORT_SHARE: Final = 0.999
NORMAL_95: Final = 1.96


@dataclass(frozen=True, eq=False, kw_only=True)
class Pilots:
    """Rows with their true neighbours, m pairs in all."""

    ones: Numbers  # (m,) places of pilots among the rows, each pilot's together
    others: Numbers  # (m,) of their neighbours
    similarities: Doubles  # (m,)

    @property
    def begins(self) -> Numbers:
        """The first pair of each pilot."""
        return np.flatnonzero(np.diff(self.ones, prepend=-1))

    def share(self, found: Mask) -> Doubles:
        """The share of each pilot's neighbours that were found."""
        sums = np.add.reduceat(found.astype(np.float64), self.begins)
        shares: Doubles = sums / np.diff(self.begins, append=len(found))
        return shares

    def moved(self, order: Numbers) -> "Pilots":
        """The same once rows were put in another order."""
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        return Pilots(
            ones=places[self.ones], others=places[self.others], similarities=self.similarities
        )

    def shortfall(self, rows: Floats) -> float:
        """How much less alike neighbours are along few directions, nearly always."""
        along = np.einsum("ij,ij->i", rows[self.ones], rows[self.others])
        return float(np.quantile(self.similarities - along, SHORT_SHARE))


def pilots_of(rows: Gathered, *, count: int, floor: float, random: np.random.Generator) -> Pilots:
    """Some rows with their neighbours by a product with all rows."""
    places = np.sort(random.permutation(len(rows))[:PILOTS])
    best = np.full((len(places), count), -np.inf, np.float32)
    others = np.full((len(places), count), -1)
    queries = rows.wide(places)
    for begin in range(0, len(rows), BLOCK_ROWS):
        block = np.arange(begin, min(begin + BLOCK_ROWS, len(rows)))
        scores = queries @ rows.wide(block).T
        mine = (places >= begin) & (places < begin + len(block))
        scores[mine, places[mine] - begin] = -np.inf
        scores = np.concatenate([best, scores], axis=1)
        numbers = np.concatenate(
            [others, np.broadcast_to(block, (len(places), len(block)))], axis=1
        )
        kept = np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]
        best, others = (np.take_along_axis(of, kept, axis=1) for of in (scores, numbers))
    there = best >= max(floor, -1.0)
    return Pilots(
        ones=np.repeat(places, there.sum(axis=1)),
        others=others[there],
        similarities=best[there].astype(np.float64),
    )


def ranks_along(rows: Floats, pilots: Pilots) -> Numbers:
    """How many rows come before each neighbour of its pilot along few directions, (m,)."""
    begins = np.append(pilots.begins, len(pilots.ones))
    queries = rows[pilots.ones[begins[:-1]]]
    scores = np.einsum("ij,ij->i", rows[pilots.ones], rows[pilots.others])
    lowest = np.minimum.reduceat(scores, begins[:-1])[:, None]
    before: list[list[Floats]] = [[] for _ in queries]
    for begin in range(0, len(rows), BLOCK_ROWS):
        found = queries @ rows[begin : begin + BLOCK_ROWS].T
        here, at = np.nonzero(found > lowest)
        parts = np.split(found[here, at], np.searchsorted(here, np.arange(1, len(queries))))
        for mine, part in zip(before, parts, strict=True):
            mine.append(part)
    ranks = np.empty(len(scores), np.int64)
    for pilot, parts in enumerate(before):
        sorted_ = np.sort(np.concatenate(parts))
        own = slice(begins[pilot], begins[pilot + 1])
        ranks[own] = len(sorted_) - np.searchsorted(sorted_, scores[own], side="right")
    return ranks - 1  # the pilot itself comes before all


def nearness_given(listed: Listed, pilots: Pilots) -> Floats:
    """The nearness at which the rows of each pair meet, (m,): the higher, the sooner.

    A row looks into the lists that are as near as half its own list is, and so much more or less:
    one number for all rows, which leaves a third of the work that so many lists for each would be.
    """
    owners = np.searchsorted(listed.begins, np.arange(len(listed.gathered)), side="right") - 1
    given = np.full(len(pilots.ones), -np.inf, np.float32)
    for ones, others in ((pilots.ones, pilots.others), (pilots.others, pilots.ones)):
        for begin in range(0, len(ones), BLOCK_ROWS):
            part = slice(begin, begin + BLOCK_ROWS)
            rows, centroids = ones[part], listed.centroids[owners[others[part]]]
            near = np.einsum("ij,ij->i", listed.turned[rows], centroids)
            given[part] = np.maximum(given[part], near - OWN_SHARE * listed.own[rows])
    return given


def nearness_for(given: Floats, near: Mask, pilots: Pilots, *, recall: float) -> float | None:
    """The highest nearness that reaches a recall; None where looking into all lists does not."""
    sorted_ = np.sort(given)[::-1]
    low, high = 0, len(sorted_)
    while low < high:
        middle = (low + high) // 2
        if lower_bound(pilots.share(near & (given >= sorted_[middle]))) >= recall:
            high = middle
        else:
            low = middle + 1
    return float(sorted_[high]) - NEARNESS_ERROR if high < len(sorted_) else None


def lower_bound(shares: Doubles) -> float:
    """The lower 95 % bound of a mean."""
    return float(shares.mean() - NORMAL_95 * shares.std() / np.sqrt(len(shares)))
