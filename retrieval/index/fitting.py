"""What a build measures of its own rows: chances, tails of errors, promises, costs.

Stored faces are the queries, each left out of its own answer. Filters are made of rows and lists,
not of attributes: independent ones by chance, near ones of the lists nearest to the query, far ones
of the farthest, "own" ones keep a query's neighbours besides, as an attribute of a person does; so
the promise holds for whatever filters come.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.filters.rows import WORD_BITS, RowSet, Words, scattered
from retrieval.index.codes import Codes, Frame
from retrieval.index.exact import BLOCK_ROWS, Doubles, Numbers, Rows, frozen
from retrieval.index.lists import SEED, Lists
from retrieval.index.rule import (
    DEFAULT_RECALL,
    ERRORS_SHARE,
    PROBED_SURVIVORS_MIN,
    Costs,
    Measured,
    Promise,
    Rule,
    Tail,
)
from retrieval.kernels.best import best_of_numbers
from retrieval.kernels.coded import (
    NEARNESS_STEPS,
    WORST_STEPS,
    best_of_coded_numbers,
    best_of_codes,
    best_of_lists,
)
from retrieval.kernels.fitting import ERROR_STEPS, estimated, nearness_steps, tally
from retrieval.values import Floats

COUNTED: Final = 128  # queries for chances and tails
COUNTED_ROWS_MAX: Final = 1_000_000  # of each query; every j-th list is counted beyond
NEIGHBOURS: Final = 10
SHARES: Final = (1.0, 0.3, 0.05)  # of the rows that pass
PLACES: Final = ("independent", "own", "near", "far")
OWN_SHARE: Final = 1e-3  # the nearest rows, which filters of a query's own attributes keep
MISSED: Final = (0.2, 0.1, 0.07, 0.06, 0.05, 0.03, 0.015, 0.005)
ASKED: Final = 128  # queries of each class for each share missed; and as many more at a time
ASKED_MAX: Final = 1024
TURNS_MAX: Final = 32  # in which more are asked
SEEN_AT: Final = 0.05  # of these, for which the rows looked at are told
TAILS: Final = (0.1, 0.04, 0.02, 0.01, 6e-3, 3e-3, 1e-3, 4e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
BOUND: Final = NormalDist().inv_cdf(0.95)
ALL_BITS: Final = ~np.uint64(0)


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


def fitted_rule(parts: Fitted) -> Rule:
    """Measure everything; the same rows give the same rule, but for the costs."""
    rows = int(np.count_nonzero(parts.rows.usable))
    queries, places = _queries(parts.rows)
    table, tails, pairs = _counted(parts, queries[:COUNTED], places[:COUNTED])
    unpriced = Costs(question=0, row_by_code=0, row_exactly=0, list_ranked=0, seen=())
    rule = Rule(table, Measured(tails=tails, promises=(), costs=unpriced, pairs=pairs, rows=rows))
    promises, seen = _promised(parts, rule, queries[COUNTED:], places[COUNTED:])
    costs = _priced(parts, rule, queries, seen)
    return Rule(
        table, Measured(tails=tails, promises=promises, costs=costs, pairs=pairs, rows=rows)
    )


def _queries(rows: Rows) -> tuple[Floats, Numbers]:
    """Stored vectors as queries, and their rows."""
    usable = np.flatnonzero(rows.usable)
    random = np.random.default_rng(SEED)
    count = min(len(usable), COUNTED + ASKED_MAX)
    places = random.permutation(random.choice(usable, count, replace=False))
    vectors = rows.vectors[places].astype(np.float32) * rows.scales[places, None]
    return frozen(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)), places


def _counted(
    parts: Fitted, queries: Floats, places: Numbers
) -> tuple[Floats, tuple[Tail, ...], int]:
    """Chances by similarity and nearness, and the tail of estimates' errors."""
    counts = (
        np.zeros((WORST_STEPS, NEARNESS_STEPS), np.int64),
        np.zeros(ERROR_STEPS, np.int64),
    )
    usable, arrays = parts.rows.usable, parts.frame.arrays
    list_of_row = np.repeat(
        np.arange(len(parts.lists.sizes), dtype=np.int32), np.diff(parts.lists.offsets)
    )
    list_of_row = np.append(list_of_row, np.zeros(len(usable) - len(list_of_row), np.int32))
    steps = np.empty((len(queries), len(parts.lists.sizes)), np.int32)
    for query, step in zip(queries, steps, strict=True):
        nearness = np.empty(len(step), np.float32)
        estimated(query, arrays, parts.lists.codes.arrays, nearness)
        nearness_steps(nearness, step)
    for begin, end in _blocks(parts):
        block = parts.rows.vectors[begin:end].astype(np.float32)
        np.nan_to_num(block, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        block *= parts.rows.scales[begin:end, None]
        similarities = queries @ block.T
        words, factors = parts.codes.part(begin, end)
        estimates = np.empty(end - begin, np.float32)
        for number, (query, place) in enumerate(zip(queries, places, strict=True)):
            allowed = usable[begin:end].copy()
            if begin <= place < end:
                allowed[place - begin] = False
            length = estimated(query, arrays, (words, factors), estimates)
            tally(
                similarities[number], estimates, factors, length,
                steps[number][list_of_row[begin:end]], allowed, counts,
            )  # fmt: skip
    return _chances(counts[0]), _tails(counts[1]), int(counts[1].sum())


def _blocks(parts: Fitted) -> Iterator[tuple[int, int]]:
    """Blocks of rows to count, spread over all of them."""
    rows = len(parts.rows.ids)
    stride = max(1, round(rows / COUNTED_ROWS_MAX))
    for begin in range(0, rows, BLOCK_ROWS * stride):
        yield begin, min(begin + BLOCK_ROWS, rows)


def _chances(counts: npt.NDArray[np.int64]) -> Floats:
    """The share of rows of each nearness that beat each similarity, falling with both."""
    beating = np.cumsum(counts[::-1], axis=0)[::-1]
    table = np.stack([_falling(row, beating[0]) for row in beating])
    return frozen(table.astype(np.float32))


def _falling(hits: Numbers, totals: Numbers) -> Doubles:
    """Hits / totals made to fall: neighbours that rise are pooled (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []
    for hit, total in zip(hits.tolist(), totals.tolist(), strict=True):
        pool = (float(hit), float(total), 1)
        while pools and pools[-1][0] * pool[1] <= pool[0] * pools[-1][1]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    return np.concatenate([np.full(n, hit / max(total, 1.0)) for hit, total, n in pools])


def _tails(counts: Numbers) -> tuple[Tail, ...]:
    """How large errors are, by how often they are larger; beyond what was counted, as if normal."""
    total = int(counts.sum())
    beyond = total - np.cumsum(counts)
    one_sigma = _errors_at(beyond, total, 1.0 - NormalDist().cdf(1.0))
    return tuple(
        Tail(
            chance=chance,
            errors=max(
                _errors_at(beyond, total, chance), one_sigma * -NormalDist().inv_cdf(chance)
            ),
        )
        for chance in TAILS
    )


def _errors_at(beyond: Numbers, total: int, chance: float) -> float:
    """The smallest error that is exceeded at most so often."""
    return (1 + int(np.argmax(beyond <= chance * total))) / 128.0


def _promised(
    parts: Fitted, rule: Rule, queries: Floats, places: Numbers
) -> tuple[tuple[Promise, ...], tuple[tuple[float, float], ...]]:
    """The recall of each share missed, and the share of survivors that was looked at."""
    trials = [_Trial(parts, rule, *which, (queries, places)) for which in _classes(parts)]
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
    seen = {t.share: float(np.mean(t.seen)) for t in trials if t.place == "independent"}
    return promises, tuple(seen.items())


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
        asked: tuple[Floats, Numbers],
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
        queries, rows = (held[begin : begin + ASKED] for held in self._asked)
        for query, row in zip(queries, rows, strict=True):
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
        return len(queries) > 0

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


def _priced(
    parts: Fitted, rule: Rule, queries: Floats, seen: tuple[tuple[float, float], ...]
) -> Costs:
    """Time the kernels on these rows."""
    usable = np.flatnonzero(parts.rows.usable).astype(np.int32)
    random = np.random.default_rng(SEED)
    few, many = (
        frozen(np.sort(random.choice(usable, min(len(usable), count), replace=False)))
        for count in (64, 8192)
    )
    heap = (np.empty(1), np.empty(1, np.int64))
    table, frame, codes = parts.rows.table, parts.frame.arrays, parts.codes.arrays
    exactly = _time(lambda query: best_of_numbers(query, many, table, heap, 0), queries)
    arguments = (rule.errors_for(0.01), frame, codes, table, heap, 0)
    short = _time(lambda query: best_of_coded_numbers(query, few, *arguments), queries)
    long = _time(lambda query: best_of_coded_numbers(query, many, *arguments), queries)
    nearness = np.empty(len(parts.lists.sizes), np.float32)
    ranked = _time(
        lambda query: estimated(query, frame, parts.lists.codes.arrays, nearness), queries
    )
    per_code = max(long - short, 1e-3) / max(len(many) - len(few), 1)
    return Costs(
        question=short,
        row_by_code=per_code,
        row_exactly=exactly / max(len(many), 1),
        list_ranked=2.0 * ranked / len(nearness),  # ordering takes about as long as estimating
        seen=seen,
    )


def _time(act: Callable[[Floats], object], queries: Floats) -> float:
    """Microseconds of one call; the best of three rounds, others being disturbed; 0 of no rows."""
    rounds = []
    for _ in range(3):
        began = time.perf_counter()
        for query in queries[:32]:
            act(query)
        rounds.append((time.perf_counter() - began) / max(min(len(queries), 32), 1))
    return 1e6 * min(rounds)
