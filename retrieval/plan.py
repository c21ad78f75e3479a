"""How a question will be answered, and why: decided before any distance is computed.

`plan` is a pure function: the same numbers always give the same plan. What work costs was measured
when the snapshot was built and is part of it. Where the survivors of a filter lie around a query
does not matter here: the stopping rule of a search by lists counts them while it runs
(index/rule.py), and ends up looking at every survivor where a filter excludes the neighbourhood.
"""

from enum import StrEnum
from math import exp, log
from typing import Final, Literal, NamedTuple

from retrieval.index.rule import PROBED_SURVIVORS_MIN, Costs, Rule
from retrieval.values import Tier

Recall = float | Literal["exact", "certified"]

CERTIFIED_MISS: Final = 1e-4  # the chance that a certified answer misses a neighbour
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


class Statistics(NamedTuple):
    """What is known before the search begins."""

    rows: int  # that could be found without a filter
    survivors: int
    queries: int
    dimension: int
    lists: int  # of the snapshot; 0: no codes, only exact ways
    rule: Rule | None


class Plan(NamedTuple):
    """The way chosen, and what it was chosen for."""

    strategy: Strategy
    tier: Tier
    statistics: Statistics
    wanted: int  # neighbours
    recall: Recall
    errors: float = 0.0  # SCAN, PROBE: how far estimates may be off, in a |q|
    missed: float = 0.0  # PROBE: share of neighbours expected missed at which a search ends

    @property
    def why(self) -> str:
        """The reason in a sentence."""
        passing = f"{self.statistics.survivors:,} of {self.statistics.rows:,} rows pass"
        return f"{passing}: {self.reason}"

    @property
    def reason(self) -> str:
        """Why this way."""
        if self.strategy is Strategy.NOTHING:
            return "there is nothing to find"
        if self.statistics.survivors <= self.wanted:
            return "all of them are asked for"
        if self.recall in ("exact", 1.0):
            return "an exact answer is asked for"
        if self.statistics.rule is None:
            return "there are no codes yet; `facedex index build` makes them"
        return _REASONS[self.strategy]

    @property
    def costs_us(self) -> tuple[tuple[Strategy, float], ...]:
        """What every way that would do should take, for all queries."""
        return tuple(_costs(self.wanted, self.recall, self.statistics).items())

    @property
    def cost_us(self) -> float:
        """What this way should take, for all queries."""
        return dict(self.costs_us).get(self.strategy, 0.0)


def plan(count: int, *, recall: Recall, statistics: Statistics) -> Plan:
    """Choose the cheapest way that promises what was asked."""
    strategy, rule = _cheapest(count, recall, statistics), statistics.rule
    if strategy not in (Strategy.SCAN, Strategy.PROBE) or rule is None:
        return Plan(strategy, Tier.EXACT, statistics, count, recall)
    tier = Tier.CERTIFIED if recall == "certified" else Tier.CALIBRATED
    promise = rule.promise_for(float(recall)) if strategy is Strategy.PROBE else None
    if promise is None:
        errors = _errors_of_scan(count, recall, rule)
        return Plan(strategy, tier, statistics, count, recall, errors)
    return Plan(strategy, tier, statistics, count, recall, promise.errors, promise.missed)


def score_cost_us(known: Statistics) -> float:
    """What scoring every survivor exactly should take, for all queries."""
    size = known.dimension / MEASURED_DIMENSION
    row_us = ROW_EXACTLY_US * size if known.rule is None else known.rule.measured.costs.row_exactly
    return known.queries * known.survivors * row_us


def _cheapest(count: int, recall: Recall, known: Statistics) -> Strategy:
    if known.survivors == 0:
        return Strategy.NOTHING
    least = known.rule.measured.costs.question if known.rule else 0.0
    if known.queries == 1 and score_cost_us(known) <= least:
        return Strategy.SCORE  # every other way begins with coding the query
    costs = _costs(count, recall, known)
    return min(costs, key=costs.__getitem__)


def _costs(count: int, recall: Recall, known: Statistics) -> dict[Strategy, float]:
    """What every way takes that keeps the promise."""
    if known.survivors == 0:
        return {}
    costs = {Strategy.SCORE: score_cost_us(known)}
    if known.queries > 1:
        row_for_all_us = ROW_WIDENED_US + PRODUCT_US * known.queries
        size = known.dimension / MEASURED_DIMENSION
        costs[Strategy.MULTIPLY] = known.survivors * size * row_for_all_us
    if known.rule is None or recall in ("exact", 1.0) or known.survivors <= count:
        return costs
    errors = _errors_of_scan(count, recall, known.rule)
    costs[Strategy.SCAN] = _coded_cost(count, known, errors=errors)
    if recall == "certified" or known.lists <= 1 or known.survivors < PROBED_SURVIVORS_MIN:
        return costs
    promise = known.rule.promise_for(float(recall))
    if promise is not None:
        seen = _share_seen(known.survivors / known.rows, known.rule.measured.costs)
        costs[Strategy.PROBE] = _coded_cost(
            count, known, errors=promise.errors, seen=seen, ranked=known.lists
        )
    return costs


def _errors_of_scan(count: int, recall: Recall, rule: Rule) -> float:
    """What estimates may err where no list is left out: all that may be missed is left to it."""
    return rule.errors_for(CERTIFIED_MISS / count if recall == "certified" else 1 - float(recall))


_REASONS: Final = {
    Strategy.SCORE: "so few are scored exactly in the time that coding the query takes",
    Strategy.MULTIPLY: "one matrix product serves all queries",
    Strategy.SCAN: "scoring all their codes takes less than ranking lists",
    Strategy.PROBE: "the nearest lists should hold what is asked for",
}


def _coded_cost(
    count: int, known: Statistics, *, errors: float, seen: float = 1.0, ranked: int = 0
) -> float:
    """What looking at a share of the survivors by code takes, and at the best of them exactly."""
    if known.rule is None:
        return 0.0
    costs, survivors = known.rule.measured.costs, known.survivors
    # Of rows in random order, count (1 + ln(n / count)) are among the best when they come; so many
    # more look as if they were, the more errors are allowed: measured at 1,000 to 200,000 rows.
    rescored = min(count * (1.0 + log(survivors / count)) * exp(errors), survivors)
    return known.queries * (
        costs.question
        + ranked * costs.list_ranked
        + seen * survivors * costs.row_by_code
        + rescored * costs.row_exactly
    )


def _share_seen(share: float, costs: Costs) -> float:
    """The share of survivors that the nearest measured share of rows had to look at."""
    for passing, seen in costs.seen:
        if passing <= share:
            return seen
    return 1.0
