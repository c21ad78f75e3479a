"""Compiling every kernel that a search needs, before somebody waits for an answer.

A kernel is compiled for the types of its arguments, so a small gallery is built and asked in each
way, as searches do it. What was compiled is kept (kernels/compiled.py): this takes some 14 s once,
and half a second afterwards.
"""

import time
from typing import Final

import numpy as np

from retrieval.index.rule import DEFAULT_RECALL
from retrieval.index.view import Survivors
from retrieval.library import Index
from retrieval.plan import Plan, Statistics, Strategy
from retrieval.search import carried_out
from retrieval.values import Tier, unit_rows

ROWS: Final = 256
DIMENSION: Final = 64
COUNT: Final = 5
WHERE: Final = (
    "number > 7 AND 'tag' = ANY(tags)",
    "number BETWEEN 5 AND 90 OR whole < 60",
    "whole = 3",
    "flag AND NOT word IN ('a', 'b')",
)


def warm() -> float:
    """Compile, or read, all kernels of building and searching; give the seconds that it took."""
    began = time.perf_counter()
    random = np.random.default_rng(0)
    index = Index.build(
        random.standard_normal((ROWS, DIMENSION)),
        {
            "number": np.arange(ROWS, dtype=np.float64),
            "whole": np.arange(ROWS),
            "word": ["abc"[row % 3] for row in range(ROWS)],
            "flag": [row % 2 == 0 for row in range(ROWS)],
            "tags": [["tag"] * (row % 40 == 0) for row in range(ROWS)],
        },
    )
    queries = unit_rows(random.standard_normal((2, DIMENSION)))
    for where in WHERE:
        index.search(queries[0], where=where, count=COUNT)
    view = index.view
    few = view.survivors(index.prepare(WHERE[0]).bind({}))
    for survivors in (view.everything, few):
        for strategy in Strategy:
            carried_out(view, queries, survivors, _plan(strategy, survivors), count=COUNT)
    return time.perf_counter() - began


def _plan(strategy: Strategy, survivors: Survivors) -> Plan:
    known = Statistics(
        rows=ROWS,
        survivors=survivors.total,
        queries=2,
        dimension=DIMENSION,
        lists=1,
        rule=None,
    )
    return Plan(
        strategy=strategy,
        tier=Tier.CALIBRATED,
        statistics=known,
        wanted=COUNT,
        recall=DEFAULT_RECALL,
        errors=1.0,
        missed=0.05,
    )
