"""What a build measures of its own rows: chances, tails of errors, promises, costs.

Stored faces are the queries, each left out of its own answer. Where questions are not like rows (a
sentence among faces), vectors like those questions are asked beside them, as many.
"""

import time
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.index.exact import BLOCK_ROWS, Doubles, Numbers, Rows, frozen
from retrieval.index.lists import SEED
from retrieval.index.rule import Costs, Measured, Rule, Tail
from retrieval.index.trials import ASKED_MAX, NO_ROW, Asked, Fitted, promised
from retrieval.kernels.best import best_of_numbers
from retrieval.kernels.coded import (
    NEARNESS_STEPS,
    WORST_STEPS,
    best_of_coded_numbers,
)
from retrieval.kernels.fitting import ERROR_STEPS, estimated, nearness_steps, tally
from retrieval.values import Floats

COUNTED: Final = 128  # queries for chances and tails
COUNTED_ROWS_MAX: Final = 1_000_000  # of each query; every j-th list is counted beyond
TAILS: Final = (0.1, 0.04, 0.02, 0.01, 6e-3, 3e-3, 1e-3, 4e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def fitted_rule(parts: Fitted, *, asked: Floats | None = None) -> Rule:
    """Measure everything; the same rows give the same rule, but for the costs.

    Args:
        parts: what was built.
        asked: (q, d) of unit length, vectors that are like questions and unlike rows; the more
            there are the tighter are promises, up to COUNTED + ASKED_MAX.

    Raises:
        UsageError: there are no more than COUNTED of them.
    """
    rows = int(np.count_nonzero(parts.rows.usable))
    askers = [_stored(parts.rows)]
    if asked is not None:
        askers.append(_outside(asked))
    counted = [one.part(0, COUNTED) for one in askers]
    queries = frozen(np.concatenate([one.vectors for one in counted]))
    places = np.concatenate([one.places for one in counted])
    table, tails, pairs = _counted(parts, queries, places)
    unpriced = Costs(question=0, row_by_code=0, row_exactly=0, list_ranked=0, seen=())
    rule = Rule(table, Measured(tails=tails, promises=(), costs=unpriced, pairs=pairs, rows=rows))
    promises, seen = promised(parts, rule, [one.part(COUNTED) for one in askers])
    costs = _priced(parts, rule, queries, seen)
    return Rule(
        table, Measured(tails=tails, promises=promises, costs=costs, pairs=pairs, rows=rows)
    )


def _stored(rows: Rows) -> Asked:
    """Stored vectors as queries."""
    usable = np.flatnonzero(rows.usable)
    random = np.random.default_rng(SEED)
    count = min(len(usable), COUNTED + ASKED_MAX)
    places = random.permutation(random.choice(usable, count, replace=False))
    vectors = rows.vectors[places].astype(np.float32) * rows.scales[places, None]
    return Asked(frozen(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)), places)


def _outside(asked: Floats) -> Asked:
    """Vectors from elsewhere, in an order of chance."""
    if len(asked) <= COUNTED:
        raise UsageError(f"more than {COUNTED} questions are needed to measure with")
    count = min(len(asked), COUNTED + ASKED_MAX)
    chosen = np.random.default_rng(SEED).permutation(len(asked))[:count]
    return Asked(frozen(asked[chosen]), np.full(count, NO_ROW))


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
