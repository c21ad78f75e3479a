"""Live answers asked again: what is counted is what an exact search says."""

import time
from dataclasses import replace
from statistics import fmean
from typing import Final

import numpy as np
import pytest

from retrieval.index.exact import Hits
from retrieval.library import Index
from retrieval.monitor import QUERIES_MIN, RecallBucket, RecallMonitor
from retrieval.search import Answer, Question, search
from retrieval.values import Tier, UnitRows
from tests.galleries import clustered_vectors, unit_vectors

ROWS: Final = 4_000
ALWAYS, NEVER = 1e9, 0.0


@pytest.fixture(scope="module")
def index() -> Index:
    return Index.build(clustered_vectors(ROWS, dimension=32), {"row": np.arange(ROWS)})


def calibrated(index: Index, place: int, *, lost: int) -> tuple[Question, Answer]:
    """A question with an answer that lacks its last hits."""
    filter_ = index.prepare("row >= 3600").bind({}) if place % 2 else None
    question = Question(vectors=UnitRows(unit_vectors(1, dimension=32, seed=place)), filter=filter_)
    answer = replace(search(index.view, replace(question, recall="exact")), tier=Tier.CALIBRATED)
    [hits] = answer.hits
    kept = Hits(hits.ids[: 10 - lost], hits.similarities[: 10 - lost])
    return question, replace(answer, hits=(kept,))


def asked(monitor: RecallMonitor, index: Index, losses: list[int]) -> None:
    for place, lost in enumerate(losses):
        monitor.offer(index.view, *calibrated(index, place, lost=lost))
        while monitor._busy.locked():
            time.sleep(0.001)


def test_recall_is_counted_by_the_share_of_rows_that_passed(index: Index) -> None:
    monitor = RecallMonitor(cpu_share=ALWAYS)
    losses = [place % 4 for place in range(40)]
    asked(monitor, index, losses)
    wide, narrow = monitor.report()
    assert (wide.share, narrow.share) == ("10 % to 100 %", "1 % to 10 %")
    assert (wide.asked, wide.queries, narrow.queries) == (0.95, 20, 20)
    assert wide.recall == pytest.approx(fmean(1 - lost / 10 for lost in losses[::2]))
    assert narrow.recall == pytest.approx(fmean(1 - lost / 10 for lost in losses[1::2]))
    assert wide.low < wide.recall < wide.high


def test_a_promise_is_broken_when_the_whole_interval_lies_below_it(index: Index) -> None:
    monitor = RecallMonitor(cpu_share=ALWAYS)
    asked(monitor, index, [2, 0] * (QUERIES_MIN + 1))
    wide, narrow = monitor.report()
    assert wide.broken
    assert not narrow.broken
    few = RecallBucket(share="", asked=0.95, queries=5, recall=0.5, low=0.4, high=0.6)
    assert not few.broken


def test_nothing_is_asked_again_without_time_for_it_or_of_answers_that_are_exact(
    index: Index,
) -> None:
    poor, rich = RecallMonitor(cpu_share=NEVER), RecallMonitor(cpu_share=ALWAYS)
    question, answer = calibrated(index, 0, lost=1)
    poor.offer(index.view, question, answer)
    rich.offer(index.view, question, replace(answer, tier=Tier.EXACT))
    rich.offer(index.view, replace(question, recall="certified"), answer)
    assert poor.report() == rich.report() == ()
