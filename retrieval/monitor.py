"""Whether the recall that was promised is kept: live questions, asked again exactly.

As many as fit into a small share of the process's time are repeated in a thread of their own and
compared by similarity, so that equal faces count as one another. What is kept is counts: no vector,
no face, no filter outlives its comparison.
"""

import math
import threading
import time
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final

import numpy as np

from retrieval.index.view import View
from retrieval.plan import score_cost_us
from retrieval.search import Answer, Question, search
from retrieval.values import Tier

CPU_SHARE: Final = 0.02  # of the process's time
QUERIES_MIN: Final = 30  # of a bucket, before its mean says anything
SAME: Final = 1e-12  # similarities are computed in one order: equal rows give equal ones
_WIDTH: Final = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallBucket:
    """The recall measured among filters of like share, for one recall asked."""

    share: str  # of the rows that passed: "10 % to 100 %"
    asked: float
    queries: int
    recall: float
    low: float  # 95 % interval of the mean
    high: float

    @property
    def broken(self) -> bool:
        """Whether the promise is surely not kept: `facedex index build` measures anew."""
        return self.queries >= QUERIES_MIN and self.high < self.asked


class RecallMonitor:
    """Counts what answers missed. Safe to share between threads."""

    def __init__(self, *, cpu_share: float = CPU_SHARE) -> None:
        self._cpu_share = cpu_share
        self._since = time.process_time()
        self._spent = 0.0
        self._busy = threading.Lock()
        self._sums: dict[tuple[int, float], tuple[int, float, float]] = {}  # n, sum, squares

    def offer(self, view: View, question: Question, answer: Answer) -> None:
        """Ask again if there is time for it; returns at once."""
        if answer.tier is not Tier.CALIBRATED or isinstance(question.recall, str):
            return
        cost_s = 1e-6 * score_cost_us(answer.plan.statistics)
        allowed = self._cpu_share * (time.process_time() - self._since)
        if self._spent + cost_s > allowed or not self._busy.acquire(blocking=False):
            return
        threading.Thread(target=self._repeat, args=(view, question, answer), daemon=True).start()

    def report(self) -> tuple[RecallBucket, ...]:
        """What was measured so far, the widest filters first."""
        return tuple(
            _bucket(decade, asked, *sums) for (decade, asked), sums in sorted(self._sums.items())
        )

    def _repeat(self, view: View, question: Question, answer: Answer) -> None:
        began = time.thread_time()
        try:
            truth = search(view, replace(question, recall="exact"))
            share = answer.survivors / max(answer.plan.statistics.rows, 1)
            key = (math.floor(-math.log10(max(share, 1e-9))), float(question.recall))
            for found, true in zip(answer.hits, truth.hits, strict=True):
                if len(true.ids):
                    kept = found.similarities >= true.similarities[-1] - SAME
                    recall = float(np.count_nonzero(kept)) / len(true.ids)
                    queries, total, squares = self._sums.get(key, (0, 0.0, 0.0))
                    self._sums[key] = (queries + 1, total + recall, squares + recall**2)
        finally:
            self._spent += time.thread_time() - began
            self._busy.release()


def _bucket(decade: int, asked: float, queries: int, total: float, squares: float) -> RecallBucket:
    mean = total / queries
    deviation = math.sqrt(max(squares / queries - mean**2, 0.0))
    half = _WIDTH * deviation / math.sqrt(queries)
    return RecallBucket(
        share=f"{100 / 10 ** (decade + 1):g} % to {100 / 10**decade:g} %",
        asked=asked,
        queries=queries,
        recall=mean,
        low=max(mean - half, 0.0),
        high=min(mean + half, 1.0),
    )
