"""Planning: the same numbers always give the same plan, the cheapest, and the plan says why."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.index.rule import (
    ERRORS_SHARE_BEFORE,
    PROBED_SURVIVORS_MIN,
    Costs,
    Measured,
    Promise,
    Rule,
    Tail,
    measured_of,
)
from retrieval.plan import CERTIFIED_MISS, Plan, Recall, Statistics, Strategy, plan
from retrieval.values import Tier

COSTS = Costs(
    question=5.0,
    row_by_code=0.01,
    row_exactly=0.1,
    list_ranked=0.02,
    seen=((1.0, 0.02), (0.3, 0.05), (0.05, 0.2)),
)
MEASURED = Measured(
    tails=(
        Tail(chance=0.1, errors=1.0),
        Tail(chance=0.01, errors=2.0),
        Tail(chance=1e-3, errors=3.0),
        Tail(chance=1e-6, errors=5.0),
    ),
    promises=(
        Promise(missed=0.2, errors=1.1, recall=0.84),
        Promise(missed=0.05, errors=1.6, recall=0.96),
        Promise(missed=0.005, errors=2.4, recall=0.99),
    ),
    costs=COSTS,
    pairs=1_000_000,
    rows=1_000_000,
)
RULE = Rule(np.zeros((1, 1), np.float32), MEASURED)
RECALLS = st.floats(0.01, 1.0) | st.sampled_from(["exact", "certified"])


def known(survivors: int, **others: Any) -> Statistics:
    """A million rows in a thousand lists, one query, unless told otherwise."""
    numbers: dict[str, Any] = {
        "rows": 1_000_000,
        "survivors": survivors,
        "queries": 1,
        "dimension": 512,
        "lists": 1_000,
        "rule": RULE,
        **others,
    }
    return Statistics(**numbers)


def ways(chosen: Plan) -> set[Strategy]:
    return {way for way, _ in chosen.costs_us}


def test_a_filter_that_nothing_passes_is_answered_without_searching() -> None:
    chosen = plan(10, recall=0.95, statistics=known(0))
    assert (chosen.strategy, chosen.tier, chosen.cost_us) == (Strategy.NOTHING, Tier.EXACT, 0.0)


@pytest.mark.parametrize("recall", [0.5, 0.95, 1.0, "certified", "exact"])
@pytest.mark.parametrize("survivors", [1, 9, 10])
def test_when_all_survivors_are_asked_for_they_are_all_scored(
    survivors: int, recall: Recall
) -> None:
    chosen = plan(10, recall=recall, statistics=known(survivors))
    assert (chosen.strategy, chosen.tier) == (Strategy.SCORE, Tier.EXACT)
    assert "all of them are asked for" in chosen.why


def test_exact_and_a_snapshot_without_codes_know_only_exact_ways() -> None:
    asked = plan(10, recall="exact", statistics=known(500_000))
    unbuilt = plan(10, recall=0.95, statistics=known(500_000, rule=None, lists=0))
    assert ways(asked) == ways(unbuilt) == {Strategy.SCORE}
    assert asked.tier is unbuilt.tier is Tier.EXACT
    assert "an exact answer is asked for" in asked.why
    assert "there are no codes yet" in unbuilt.why
    many = plan(10, recall="exact", statistics=known(500_000, queries=256))
    assert (many.strategy, many.tier) == (Strategy.MULTIPLY, Tier.EXACT)


def test_few_survivors_are_scored_more_are_scanned_and_many_are_probed() -> None:
    chosen = [
        plan(10, recall=0.95, statistics=known(count)).strategy for count in (50, 5_000, 1_000_000)
    ]
    assert chosen == [Strategy.SCORE, Strategy.SCAN, Strategy.PROBE]


def test_certified_never_leaves_a_list_out() -> None:
    chosen = plan(10, recall="certified", statistics=known(1_000_000))
    assert (chosen.strategy, chosen.tier) == (Strategy.SCAN, Tier.CERTIFIED)
    assert ways(chosen) == {Strategy.SCORE, Strategy.SCAN}
    assert chosen.errors == RULE.errors_for(CERTIFIED_MISS / 10) == 5.0


def test_certified_answers_that_are_cheaper_exactly_are_exact() -> None:
    chosen = plan(10, recall="certified", statistics=known(50))
    assert (chosen.strategy, chosen.tier) == (Strategy.SCORE, Tier.EXACT)


@pytest.mark.parametrize(
    ("recall", "missed", "errors"),
    [(0.5, 0.2, 1.1), (0.84, 0.2, 1.1), (0.9, 0.05, 1.6), (0.97, 0.005, 2.4)],
)
def test_probing_may_miss_the_largest_share_whose_measured_recall_is_enough(
    recall: float, missed: float, errors: float
) -> None:
    chosen = plan(10, recall=recall, statistics=known(1_000_000))
    assert (chosen.strategy, chosen.tier) == (Strategy.PROBE, Tier.CALIBRATED)
    assert (chosen.missed, chosen.errors) == (missed, errors)


def test_a_recall_that_no_share_gave_is_not_probed() -> None:
    chosen = plan(10, recall=0.995, statistics=known(1_000_000))
    assert (chosen.strategy, chosen.tier) == (Strategy.SCAN, Tier.CALIBRATED)
    assert (chosen.missed, chosen.errors) == (0.0, RULE.errors_for(0.005))


def test_promises_of_older_snapshots_allow_the_errors_that_they_were_measured_with() -> None:
    older = json.loads(json.dumps(asdict(MEASURED)))
    for promise in older["promises"]:
        del promise["errors"]
    read = measured_of(older)
    assert [one.errors for one in read.promises] == [
        RULE.errors_for(ERRORS_SHARE_BEFORE * one.missed) for one in MEASURED.promises
    ]


def test_recall_1_is_exact() -> None:
    everything = plan(10, recall=1.0, statistics=known(1_000_000))
    assert (everything.strategy, everything.tier) == (Strategy.SCORE, Tier.EXACT)


def test_survivors_too_few_for_a_promise_are_not_probed() -> None:
    few, enough = (
        ways(plan(10, recall=0.95, statistics=known(survivors)))
        for survivors in (PROBED_SURVIVORS_MIN - 1, PROBED_SURVIVORS_MIN)
    )
    assert Strategy.PROBE not in few
    assert Strategy.PROBE in enough


def test_one_list_is_not_probed() -> None:
    assert Strategy.PROBE not in ways(plan(10, recall=0.5, statistics=known(1_000, lists=1)))


def test_a_filter_that_leaves_few_expects_more_of_them_to_be_looked_at() -> None:
    def cost(survivors: int) -> float:
        chosen = plan(10, recall=0.95, statistics=known(survivors))
        return dict(chosen.costs_us)[Strategy.PROBE]

    # 20 % of a twentieth are fewer rows than 2 % of all, but by far not a twentieth as many.
    assert cost(1_000_000) > cost(50_000) > 0.4 * cost(1_000_000)


@pytest.mark.parametrize(
    ("chance", "errors"),
    [(0.5, 1.0), (0.1, 1.0), (0.09, 2.0), (0.01, 2.0), (1e-3, 3.0), (1e-4, 5.0), (1e-9, 5.0)],
)
def test_errors_are_allowed_for_so_that_they_are_exceeded_no_more_often_than_asked(
    chance: float, errors: float
) -> None:
    assert RULE.errors_for(chance) == errors


def test_what_a_manifest_keeps_of_a_rule_comes_back_as_it_was() -> None:
    def as_json(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: as_json(one) for name, one in value.items()}
        return [as_json(one) for one in value] if isinstance(value, list | tuple) else value

    assert measured_of(as_json(asdict(MEASURED))) == MEASURED


COSTS_OF_ANY_MACHINE = st.builds(
    Costs,
    question=st.floats(0, 100),
    row_by_code=st.floats(1e-4, 1),
    row_exactly=st.floats(1e-3, 10),
    list_ranked=st.floats(0, 1),
    seen=st.just(()) | st.just(((1.0, 0.01), (0.05, 0.3))),
)


@st.composite
def any_statistics(draw: st.DrawFn) -> Statistics:
    rows = draw(st.integers(1, 10**8))
    costs = draw(st.none() | COSTS_OF_ANY_MACHINE)
    return known(
        int(draw(st.floats(0, 1)) * rows),
        rows=rows,
        queries=draw(st.integers(1, 1_000)),
        dimension=draw(st.sampled_from([8, 128, 512, 1024])),
        lists=draw(st.sampled_from([1, 64, 4096])),
        rule=None if costs is None else Rule(RULE.chances, replace(MEASURED, costs=costs)),
    )


@given(numbers=any_statistics(), count=st.integers(1, 10_000), recall=RECALLS)
def test_every_question_has_one_plan_with_a_reason_the_cheapest_of_its_ways(
    numbers: Statistics, count: int, recall: Recall
) -> None:
    chosen = plan(count, recall=recall, statistics=numbers)
    assert chosen == plan(count, recall=recall, statistics=Statistics(*numbers))
    assert chosen.reason
    assert f"{numbers.survivors:,} of {numbers.rows:,} rows pass" in chosen.why
    assert chosen.cost_us == min((cost for _, cost in chosen.costs_us), default=0.0)
    assert all(cost >= 0 for _, cost in chosen.costs_us)
    assert (chosen.strategy is Strategy.NOTHING) == (numbers.survivors == 0)
    assert (Strategy.MULTIPLY in ways(chosen)) == (numbers.queries > 1 and numbers.survivors > 0)
    promised = {"exact": Tier.EXACT, "certified": Tier.CERTIFIED}.get(str(recall), Tier.CALIBRATED)
    guesses = chosen.strategy in {Strategy.SCAN, Strategy.PROBE}
    assert chosen.tier is (promised if guesses else Tier.EXACT)
    assert not (guesses and promised is Tier.EXACT)
    assert (chosen.errors > 0) or not guesses
    assert (chosen.missed > 0) == (chosen.strategy is Strategy.PROBE)


def test_planning_loads_nothing_heavy() -> None:
    program = "import sys, retrieval.plan; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    heavy = {"faiss", "pyarrow", "sqlalchemy", "numba", "llvmlite", "retrieval.search"}
    assert heavy.isdisjoint(done.stdout.decode().split())
