"""How a question will be answered, and why: decided before any distance is computed.

`plan` is a pure function: the same numbers always give the same plan. What work costs was measured
when the snapshot was built and is part of it. Where the survivors of a filter lie around a query
does not matter here: the stopping rule of a search by lists counts them while it runs
(index/rule.py), and ends up looking at every survivor where a filter excludes the neighbourhood.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import log1p
from typing import Final, Literal

from retrieval.index.rule import PROBED_SURVIVORS_MIN, Costs, Rule
from retrieval.values import Tier

Recall = float | Literal["exact", "certified"]

CERTIFIED_MISS: Final = 1e-4  # the chance that a certified answer misses a neighbour
ERRORS_SHARE: Final = 0.2  # of what may be missed is left to errors of estimates
RESCORED: Final = 2.5  # rows scored exactly for each neighbour and e-fold of survivors; measured
MEASURED_DIMENSION: Final = 512
# Microseconds at 512 dimensions where no build has measured: float16 rows scored where they lie,
# and made into float32 for a matrix product; one product.
ROW_EXACTLY_US, ROW_WIDENED_US, PRODUCT_US = 0.06, 0.1, 0.006


class Strategy(StrEnum):
    """The ways to answer."""

    NOTHING = "nothing"  # no row passes
    SCORE = "score"  # every survivor exactly, where it lies
    MULTIPLY = "multiply"  # every survivor exactly, with all queries at once
    SCAN = "scan"  # every survivor by its code, the best exactly
    PROBE = "probe"  # the survivors of the nearest lists, until few can be missed


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What is known before the search begins."""

    rows: int  # that could be found without a filter
    survivors: int
    queries: int
    dimension: int
    lists: int  # of the snapshot; 0: no codes, only exact ways
    rule: Rule | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The way chosen, and what the others would have cost."""

    strategy: Strategy
    tier: Tier
    reason: str
    statistics: Statistics
    costs_us: tuple[tuple[Strategy, float], ...]  # for all queries, of every way that would do
    errors: float = 0.0  # SCAN, PROBE: how far estimates may be off, in a |q|
    missed: float = 0.0  # PROBE: share of neighbours expected missed at which a search ends

    @property
    def why(self) -> str:
        """The reason in a sentence."""
        passing = f"{self.statistics.survivors:,} of {self.statistics.rows:,} rows pass"
        return f"{passing}: {self.reason}"

    @property
    def cost_us(self) -> float:
        """What this way should take, for all queries."""
        return dict(self.costs_us).get(self.strategy, 0.0)


def plan(count: int, *, recall: Recall, statistics: Statistics) -> Plan:
    """Choose the cheapest way that promises what was asked."""
    known = statistics
    if known.survivors == 0:
        return Plan(
            strategy=Strategy.NOTHING,
            tier=Tier.EXACT,
            reason="there is nothing to find",
            statistics=known,
            costs_us=(),
        )
    exact = _exact_costs(known)
    if known.rule is None or recall in ("exact", 1.0) or known.survivors <= count:
        reason = "all of them are asked for" if known.survivors <= count else _why_exact(recall)
        return _cheapest(known, exact, reason=reason)
    costs = known.rule.measured.costs
    if recall == "certified":
        exact[Strategy.SCAN] = _scan_cost(count, known, costs)
        errors = known.rule.errors_for(CERTIFIED_MISS / count)
        return _cheapest(known, exact, tier=Tier.CERTIFIED, errors=errors)
    share = float(recall)
    exact[Strategy.SCAN] = _scan_cost(count, known, costs)
    missed = known.rule.missed_for(share)
    if missed is not None and known.lists > 1 and known.survivors >= PROBED_SURVIVORS_MIN:
        exact[Strategy.PROBE] = _probe_cost(count, known, costs)
    # Where no list is left out, all that may be missed is left to errors.
    allowed = 1.0 - share if missed is None else ERRORS_SHARE * missed
    errors = known.rule.errors_for(allowed)
    return _cheapest(known, exact, tier=Tier.CALIBRATED, errors=errors, missed=missed or 0.0)


def _why_exact(recall: Recall) -> str:
    return "an exact answer is asked for" if recall in ("exact", 1.0) else "nothing was built yet"


def _cheapest(
    known: Statistics,
    costs: dict[Strategy, float],
    *,
    reason: str | None = None,
    tier: Tier = Tier.EXACT,
    errors: float = 0.0,
    missed: float = 0.0,
) -> Plan:
    strategy = min(costs, key=costs.__getitem__)
    exact = strategy in (Strategy.SCORE, Strategy.MULTIPLY)
    return Plan(
        strategy=strategy,
        tier=Tier.EXACT if exact else tier,
        reason=reason or _REASONS[strategy],
        statistics=known,
        costs_us=tuple(costs.items()),
        errors=errors,
        missed=missed if strategy is Strategy.PROBE else 0.0,
    )


_REASONS: Final = {
    Strategy.SCORE: "so few are scored exactly in the time that coding the query takes",
    Strategy.MULTIPLY: "one matrix product serves all queries",
    Strategy.SCAN: "scoring all their codes takes less than ranking lists",
    Strategy.PROBE: "the nearest lists should hold what is asked for",
}


def _exact_costs(known: Statistics) -> dict[Strategy, float]:
    size = known.dimension / MEASURED_DIMENSION
    row_us = ROW_EXACTLY_US * size if known.rule is None else known.rule.measured.costs.row_exactly
    costs = {Strategy.SCORE: known.queries * known.survivors * row_us}
    if known.queries > 1:
        row_for_all_us = ROW_WIDENED_US + PRODUCT_US * known.queries
        costs[Strategy.MULTIPLY] = known.survivors * size * row_for_all_us
    return costs


def _scan_cost(count: int, known: Statistics, costs: Costs) -> float:
    one = costs.question + known.survivors * costs.row_by_code + _rescored(count, known, costs)
    return known.queries * one


def _probe_cost(count: int, known: Statistics, costs: Costs) -> float:
    seen = known.survivors * _share_seen(known.survivors / known.rows, costs)
    one = (
        costs.question
        + known.lists * costs.list_ranked
        + seen * costs.row_by_code
        + _rescored(count, known, costs)
    )
    return known.queries * one


def _rescored(count: int, known: Statistics, costs: Costs) -> float:
    rows = RESCORED * count * log1p(known.survivors / count)
    return min(rows, known.survivors) * costs.row_exactly


def _share_seen(share: float, costs: Costs) -> float:
    """The share of survivors that the nearest measured share of rows had to look at."""
    for passing, seen in costs.seen:
        if passing <= share:
            return seen
    return 1.0
