"""Planning: the same numbers always give the same plan, and the plan says why."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.index.ladder import Rung
from retrieval.plan import (
    SCANNED_ROWS_MAX,
    GatherSurvivors,
    Neighbourhood,
    NoSurvivors,
    ProbeLists,
    Recall,
    ScanSurvivors,
    Statistics,
    lists_may_pay,
    plan,
)

LISTS, FACES_A_LIST = 1_000, 1_000
LADDER = tuple(
    Rung(depth=depth, lists=lists, recall=recall)
    for depth, shares in {
        10: (0.80, 0.97, 0.99, 1.0),
        100: (0.60, 0.90, 0.98, 1.0),
        1000: (0.40, 0.70, 0.97, 1.0),
    }.items()
    for lists, recall in zip((4, 16, 64, 256), shares, strict=True)
)


def statistics(survivors_by_list: list[int], *, queries: int = 1) -> Statistics:
    """A million faces in a thousand lists, nearest first."""
    held = np.array(survivors_by_list + [0] * (LISTS - len(survivors_by_list)))
    return Statistics(
        rows=LISTS * FACES_A_LIST,
        survivors=int(held.sum()),
        queries=queries,
        dimension=512,
        near=Neighbourhood(
            survivors=np.cumsum(held),
            faces=np.arange(1, LISTS + 1) * FACES_A_LIST,
            ladder=LADDER,
        ),
    )


def counted(survivors: int, *, queries: int = 1, rows: int = 1_000_000) -> Statistics:
    """Only counts are known."""
    return Statistics(rows=rows, survivors=survivors, queries=queries, dimension=512, near=None)


def test_a_filter_that_nothing_passes_is_answered_without_searching() -> None:
    assert isinstance(plan(10, recall=0.95, statistics=counted(0)), NoSurvivors)


def test_when_all_survivors_are_asked_for_they_are_all_taken() -> None:
    assert isinstance(plan(10, recall=0.95, statistics=counted(10)), GatherSurvivors)


@pytest.mark.parametrize("recall", ["exact", "certified", 1.0])
def test_a_promise_of_everything_scores_every_survivor(recall: Recall) -> None:
    chosen = plan(10, recall=recall, statistics=statistics([FACES_A_LIST] * LISTS))
    assert isinstance(chosen, ScanSurvivors)


def test_certified_says_that_exact_serves_it() -> None:
    assert "certified" in plan(10, recall="certified", statistics=counted(50_000)).why


def test_few_survivors_are_gathered_and_many_are_scanned_where_they_lie() -> None:
    few = plan(10, recall="exact", statistics=counted(100))
    many = plan(10, recall="exact", statistics=counted(500_000))
    assert (type(few), type(many)) == (GatherSurvivors, ScanSurvivors)


def test_many_queries_share_one_gathering() -> None:
    chosen = plan(10, recall="exact", statistics=counted(500_000, queries=256))
    assert isinstance(chosen, GatherSurvivors)


def test_without_a_filter_the_ladder_says_how_many_lists() -> None:
    chosen = plan(10, recall=0.95, statistics=statistics([FACES_A_LIST] * LISTS))
    assert isinstance(chosen, ProbeLists)
    assert chosen.lists == 16


def test_higher_recall_and_more_neighbours_need_more_lists() -> None:
    everything = statistics([FACES_A_LIST] * LISTS)
    plans = [
        plan(count, recall=recall, statistics=everything)
        for count, recall in ((10, 0.70), (10, 0.95), (100, 0.95), (1000, 0.95))
    ]
    assert [one.lists for one in plans if isinstance(one, ProbeLists)] == [4, 16, 64, 64]


def test_the_same_share_of_survivors_is_probed_when_near_and_scanned_when_far() -> None:
    near = statistics([FACES_A_LIST] * 100)
    far = statistics([0] * 900 + [FACES_A_LIST] * 100)
    assert near.survivors == far.survivors
    assert isinstance(plan(10, recall=0.95, statistics=near), ProbeLists)
    chosen = plan(10, recall=0.95, statistics=far)
    assert isinstance(chosen, ScanSurvivors)
    assert "near the query" in chosen.why


def test_a_filter_spread_evenly_needs_a_deeper_rung() -> None:
    chosen = plan(10, recall=0.95, statistics=statistics([FACES_A_LIST // 10] * LISTS))
    assert isinstance(chosen, ProbeLists)
    assert chosen.lists == 64


def test_lists_that_would_hold_most_survivors_anyway_are_not_asked() -> None:
    own_corner = statistics([FACES_A_LIST] * 20)
    assert not isinstance(plan(10, recall=0.95, statistics=own_corner), ProbeLists)


def test_a_few_dead_rows_do_not_cost_a_rung() -> None:
    chosen = plan(10, recall=0.95, statistics=statistics([FACES_A_LIST - 20] * LISTS))
    assert isinstance(chosen, ProbeLists)
    assert chosen.lists == 16


def test_lists_are_not_even_looked_at_for_few_survivors_or_exact_answers() -> None:
    many = SCANNED_ROWS_MAX + 1
    assert lists_may_pay(0.95, survivors=many, ladder=LADDER)
    assert not lists_may_pay(0.95, survivors=many - 1, ladder=LADDER)
    assert not lists_may_pay("exact", survivors=many, ladder=LADDER)
    assert not lists_may_pay(0.95, survivors=many, ladder=())


@given(
    held=st.lists(st.integers(0, FACES_A_LIST), max_size=LISTS),
    count=st.integers(1, 10_000),
    recall=st.floats(0.01, 1.0) | st.sampled_from(["exact", "certified"]),
    queries=st.integers(1, 1_000),
)
def test_every_question_has_one_plan_with_a_reason(
    held: list[int], count: int, recall: Recall, queries: int
) -> None:
    known = statistics(held, queries=queries)
    chosen = plan(count, recall=recall, statistics=known)
    assert chosen == plan(count, recall=recall, statistics=known)
    assert chosen.why
    if isinstance(chosen, ProbeLists):
        assert known.near is not None
        assert known.near.survivors[chosen.lists - 1] > 0


def test_planning_loads_nothing_heavy() -> None:
    program = "import sys, retrieval.plan; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert {"faiss", "pyarrow", "sqlalchemy"}.isdisjoint(done.stdout.decode().split())
