"""What a search by lists finds where it stops early, under filters made up for the purpose.

Filters are made of rows and lists, not of attributes: independent ones by chance, near ones of the
lists nearest to the query, far ones of the farthest, "own" ones keep a query's neighbours besides,
as an attribute of a person does; so a promise holds for whatever filters come. The worst of these
classes decides what is promised.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from retrieval.filters.rows import WORD_BITS, RowSet, Words, scattered
from retrieval.index.codes import Codes, Frame
from retrieval.index.exact import Doubles, Numbers, Rows, frozen
from retrieval.index.lists import SEED, Lists
from retrieval.index.rule import DEFAULT_RECALL, ERRORS_SHARE, PROBED_SURVIVORS_MIN, Promise, Rule
from retrieval.kernels.coded import best_of_codes, best_of_lists
from retrieval.kernels.fitting import estimated
from retrieval.values import Floats

NEIGHBOURS: Final = 10
SHARES: Final = (1.0, 0.3, 0.05)  # of the rows that pass
PLACES: Final = ("independent", "own", "near", "far")
OWN_SHARE: Final = 1e-3  # the nearest rows, which filters of a query's own attributes keep
MISSED: Final = (0.2, 0.1, 0.07, 0.06, 0.05, 0.03, 0.015, 0.005)
ASKED: Final = 128  # queries of each class for each share missed; and as many more at a time
ASKED_MAX: Final = 1024
TURNS_MAX: Final = 32  # in which more are asked
SEEN_AT: Final = 0.05  # of these, for which the rows looked at are told
BOUND: Final = NormalDist().inv_cdf(0.95)
ALL_BITS: Final = ~np.uint64(0)
NO_ROW: Final = -1


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries to measure with."""

    vectors: Floats  # (q, d) unit length
    places: Numbers  # (q,) the row that each of them is; NO_ROW where it is none

    def part(self, begin: int, end: int | None = None) -> "Asked":
        """Some of them."""
        return Asked(self.vectors[begin:end], self.places[begin:end])


@dataclass(frozen=True)
class Fitted:
    """All that searching needs, while its rule is being made."""

    rows: Rows
    frame: Frame
    codes: Codes
    lists: Lists

    def by_lists(
        self, query: Floats, words: Words, sizes: Numbers, rule: Rule, missed: float
    ) -> "Sight":
        """Search in lists as questions will be searched."""
        heap = (np.empty(NEIGHBOURS), np.empty(NEIGHBOURS, np.int64))
        errors = rule.errors_for(ERRORS_SHARE * missed)
        kept, seen, _, _ = best_of_lists(
            query, words, errors, missed, (sizes, *self.lists.arrays),
            rule.chances, self.frame.arrays, self.codes.arrays, self.rows.table, heap, 0,
        )  # fmt: skip
        return Sight(heap[0][:kept], int(seen))

    def by_codes(self, query: Floats, words: Words, errors: float) -> "Sight":
        """Score every survivor by its code."""
        heap = (np.empty(NEIGHBOURS), np.empty(NEIGHBOURS, np.int64))
        kept, seen, _ = best_of_codes(
            query, words, errors, self.frame.arrays, self.codes.arrays, self.rows.table, heap, 0
        )
        return Sight(heap[0][:kept], int(seen))


@dataclass(frozen=True, slots=True)
class Sight:
    """What one trial found, and how many rows it looked at."""

    similarities: Doubles
    seen: int


def promised(
    parts: Fitted, rule: Rule, askers: Sequence[Asked]
) -> tuple[tuple[Promise, ...], tuple[tuple[float, float], ...]]:
    """The recall of each share missed, and the share of survivors that was looked at.

    A promise holds for each kind of queries: none of them makes up for another.
    """
    trials = [_Trial(parts, rule, *which, asked) for which in _classes(parts) for asked in askers]
    for trial in trials:
        trial.ask(MISSED)
    _settle(trials)
    promises = tuple(
        Promise(
            missed=missed,
            errors=rule.errors_for(ERRORS_SHARE * missed),
            recall=min(trial.bound(missed) for trial in trials),
        )
        for missed in MISSED
        if trials  # none where no class has rows enough to be measured
    )
    seen: dict[float, list[float]] = {}
    for trial in trials:
        if trial.place == "independent":
            seen.setdefault(trial.share, []).extend(trial.seen)
    return promises, tuple((share, float(np.mean(shares))) for share, shares in seen.items())


def _settle(trials: list["_Trial"]) -> None:
    """Ask more where few queries leave open whether the shipped recall is kept.

    The largest share missed that may keep it is asked about in the class that it holds for least:
    what is left open is paid for by every search.
    """
    turns = TURNS_MAX if trials else 0
    for missed in MISSED:
        while turns and min(trial.mean(missed) for trial in trials) >= DEFAULT_RECALL:
            worst = min(trials, key=lambda trial: trial.bound(missed))
            if worst.bound(missed) >= DEFAULT_RECALL:
                return
            if not worst.ask([missed]):
                break
            turns -= 1


class _Trial:
    """What stopping at some share missed gives under filters of one share and place."""

    def __init__(
        self,
        parts: Fitted,
        rule: Rule,
        share: float,
        place: str,
        asked: Asked,
    ) -> None:
        self.share = share
        self.place = place
        self.seen: list[float] = []  # shares of the survivors, at SEEN_AT
        self._parts = parts
        self._rule = rule
        self._asked = asked
        self._made_up = _MadeUp(parts, share=share, place=place)
        self._recalls: dict[float, list[float]] = {missed: [] for missed in MISSED}

    def ask(self, shares_missed: Sequence[float]) -> bool:
        """Ask ASKED queries that none of these was asked before; False where there are none."""
        begin = max(len(self._recalls[missed]) for missed in shares_missed)
        asked = self._asked.part(begin, begin + ASKED)
        for query, row in zip(asked.vectors, asked.places, strict=True):
            passing = self._made_up.filter(query, int(row))
            words = passing.bitmap()
            sizes = frozen(passing.counts_per_block(self._parts.lists.words))
            truth = self._parts.by_codes(query, words, self._rule.errors_for(0.0))
            for missed in shares_missed:
                sight = self._parts.by_lists(query, words, sizes, self._rule, missed)
                found = np.count_nonzero(sight.similarities >= truth.similarities[-1])
                self._recalls[missed].append(found / len(truth.similarities))
                if missed == SEEN_AT:
                    self.seen.append(sight.seen / truth.seen)
        return len(asked.places) > 0

    def mean(self, missed: float) -> float:
        """The recall of all that was asked."""
        return float(np.mean(self._recalls[missed]))

    def bound(self, missed: float) -> float:
        """Its lower 95 % bound."""
        values = self._recalls[missed]
        return self.mean(missed) - BOUND * float(np.std(values)) / float(np.sqrt(len(values)))


def _classes(parts: Fitted) -> Iterator[tuple[float, str]]:
    rows = int(parts.lists.sizes.sum())
    if len(parts.lists.sizes) > 1:
        for share in SHARES:
            for place in PLACES:
                if share * rows >= PROBED_SURVIVORS_MIN and (share < 1.0 or place == "independent"):
                    yield share, place


class _MadeUp:
    """Filters made of rows and lists, without the query's own row."""

    def __init__(self, parts: Fitted, *, share: float, place: str) -> None:
        self._parts = parts
        self._share = share
        self._place = place
        self._rows = len(parts.rows.ids)
        self._usable = RowSet.of_mask(parts.rows.usable).bitmap()
        self._by_chance = np.zeros(0, np.uint64)
        if place in ("independent", "own"):
            chances = np.random.default_rng(SEED).random(self._rows, np.float32)
            self._by_chance = RowSet.of_mask(chances < share).bitmap()

    def filter(self, query: Floats, row: int) -> RowSet:
        """The rows that pass."""
        if self._place == "independent":
            words = self._by_chance.copy()
        elif self._place == "own":
            words = self._by_chance | self._nearest(query)
        else:
            words = self._in_lists(query, near=self._place == "near")
        words &= self._usable
        if row != NO_ROW:
            words[row // WORD_BITS] &= ~np.uint64(1 << row % WORD_BITS)
        return RowSet.of_bitmap(words, size=self._rows)

    def _nearest(self, query: Floats) -> Words:
        """The rows with the best estimates."""
        estimates = np.empty(self._rows, np.float32)
        estimated(query, self._parts.frame.arrays, self._parts.codes.arrays, estimates)
        estimates[~self._parts.rows.usable] = -np.inf
        count = max(1, round(OWN_SHARE * self._rows))
        nearest = np.argpartition(estimates, self._rows - count)[self._rows - count :]
        return scattered(frozen(nearest.astype(np.int32)), size=self._rows)

    def _in_lists(self, query: Floats, *, near: bool) -> Words:
        """The rows of the nearest lists, or of the farthest."""
        lists = self._parts.lists
        nearness = lists.centroids @ query
        order = np.argsort(-nearness if near else nearness)
        held = np.cumsum(lists.sizes[order])
        words = np.zeros(len(self._usable), np.uint64)
        for one in order[: 1 + int(np.searchsorted(held, self._share * held[-1]))]:
            words[lists.words[one] : lists.words[one + 1]] = ALL_BITS
        return words
