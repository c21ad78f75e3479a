"""Plans of a strategy that a test chooses: by what work is said to cost, not by skipping the plan.

What is promised, errors and shares missed are those of the real planner.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from retrieval.index.rule import Costs, Promise
from retrieval.plan import Plan, Recall, Statistics, Strategy, plan

WAYS: Final = (Strategy.SCORE, Strategy.MULTIPLY, Strategy.SCAN, Strategy.PROBE)
FREE, DEAR = 0.0, 1e9
PROMISES: Final = (
    Promise(missed=0.05, errors=1.5, recall=0.95),
)  # where a build had too few rows to measure

Planner = Callable[..., Plan]


def in_way(way: Strategy) -> Planner:
    """A planner that finds this way cheapest wherever it may be gone at all."""

    def planner(count: int, *, recall: Recall, statistics: Statistics) -> Plan:
        if statistics.survivors == 0 or statistics.rule is None:
            return plan(count, recall=recall, statistics=statistics)
        asked: Recall = "exact" if way is Strategy.MULTIPLY else recall
        with pytest.MonkeyPatch.context() as patch:
            # Nothing is promised for few survivors, so the real plan never probes them.
            patch.setattr("retrieval.plan.PROBED_SURVIVORS_MIN", 0)
            return plan(count, recall=asked, statistics=costing(statistics, way))

    return planner


def costing(known: Statistics, way: Strategy) -> Statistics:
    """The same question on a machine that is made for one way."""
    if known.rule is None:
        return known
    by_code = way in {Strategy.SCAN, Strategy.PROBE}
    costs = Costs(
        question=-DEAR if by_code else DEAR,
        row_by_code=1.0 if way is Strategy.PROBE else FREE,
        row_exactly=DEAR if way is Strategy.MULTIPLY else FREE,
        list_ranked=1.0 if way is Strategy.SCAN else FREE,
        seen=((0.0, 0.0),),
    )
    measured = known.rule.measured
    promises = measured.promises or PROMISES
    rule = replace(known.rule, measured=replace(measured, costs=costs, promises=promises))
    return known._replace(rule=rule)
