"""Two columns that let a filter take any share of the rows, as near or far from a query as wished.

`slot` is a whole number below 100,000 that depends on nothing: a range of it is an independent
share. `position` orders the rows so that neighbours in it are neighbours in space: a band of it is
one region, near the query or far from it. Made here for vectors of any origin, by cutting the rows
in two again and again, at the median of the direction in which each part is longest.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.filtered.values import Numbers
from retrieval.values import Floats, UnitRows

SLOT: Final = "slot"
POSITION: Final = "position"
SLOTS: Final = 100_000
LEAF_ROWS: Final = 8
_SAMPLE_ROWS: Final = 1024
_TURNS: Final = 4  # of the power iteration; only roughly the longest direction is needed
_BLOCK_ROWS: Final = 16_384


def slots(random: np.random.Generator, count: int) -> Numbers:
    """An independent `slot` for each row."""
    return random.integers(0, SLOTS, count)


def with_grid(table: pa.Table, vectors: UnitRows, *, seed: int) -> pa.Table:
    """The table with the columns `slot` and `position`; one that is there already is kept."""
    columns = {name: table.column(name) for name in table.column_names}
    if SLOT not in columns:
        random = np.random.default_rng([seed, len(vectors)])
        columns[SLOT] = pa.array(slots(random, len(vectors)))
    if POSITION not in columns:
        columns[POSITION] = pa.array(positions(vectors, seed=seed))
    return pa.table(columns)


def table_of_queries(
    given: pa.Table, queries: UnitRows, *, rows: UnitRows, table: pa.Table, seed: int
) -> pa.Table:
    """The queries' table with all the rows' columns, in the rows' order.

    A column that `given` lacks holds the value of the row nearest to the query; `slot`, which
    depends on nothing, is drawn.
    """
    missing = [name for name in table.column_names if name not in given.column_names]
    if not missing:
        return given.select(table.column_names)
    near = table.select(missing).take(pa.array(nearest_rows(queries, rows)))
    columns = {name: given.column(name) for name in given.column_names}
    columns |= {name: near.column(name) for name in missing}
    if SLOT in missing:
        random = np.random.default_rng([seed, len(queries), 1])
        columns[SLOT] = pa.array(slots(random, len(queries)))
    return pa.table({name: columns[name] for name in table.column_names})


def positions(vectors: UnitRows, *, seed: int) -> npt.NDArray[np.float64]:
    """A place from 0 to 1 for each row, no two the same."""
    random = np.random.default_rng(seed)
    order = np.arange(len(vectors))
    parts = [(0, len(vectors))]
    while parts:
        start, end = parts.pop()
        if end - start <= LEAF_ROWS:
            continue
        mine = order[start:end]
        middle = (end - start) // 2
        along = _along(vectors, mine, random)
        order[start:end] = mine[np.argpartition(along, middle)]
        parts += [(start, start + middle), (start + middle, end)]
    places = np.empty(len(vectors))
    places[order] = (np.arange(len(vectors)) + 0.5) / len(vectors)
    return places


def nearest_rows(queries: UnitRows, rows: UnitRows) -> Numbers:
    """The row most similar to each query, in one pass over the rows."""
    best = np.full(len(queries), -np.inf, np.float32)
    found = np.zeros(len(queries), np.int64)
    for start in range(0, len(rows), _BLOCK_ROWS):
        scores = queries @ rows[start : start + _BLOCK_ROWS].T
        places = scores.argmax(axis=1)
        tops = scores[np.arange(len(queries)), places]
        better = tops > best
        best[better] = tops[better]
        found[better] = start + places[better]
    return found


def _along(vectors: UnitRows, mine: Numbers, random: np.random.Generator) -> Floats:
    """The rows' places along the direction in which a sample of them varies most."""
    chosen = mine if len(mine) <= _SAMPLE_ROWS else random.choice(mine, _SAMPLE_ROWS)
    sample = vectors[chosen]
    sample = sample - sample.mean(axis=0)
    direction = random.standard_normal((vectors.shape[1],), dtype=np.float32)
    for _ in range(_TURNS):
        direction = sample.T @ (sample @ direction)
        direction /= max(float(np.linalg.norm(direction)), np.finfo(np.float32).tiny)
    starts = range(0, len(mine), _BLOCK_ROWS)
    return np.concatenate([vectors[mine[s : s + _BLOCK_ROWS]] @ direction for s in starts])
