"""How a question will be answered, and why: decided before any distance is computed.

`plan` is a pure function for one query: the same numbers always give the same plan. A filter's
selectivity alone never decides: with the same share of survivors, lists near the query may hold
many of them or none (ENGINE.md section 2). So the survivors in the nearest lists are counted, and
the ladder that the build measured says how many lists hold a neighbourhood of what depth: with a
share s of survivors there, the k-th survivor lies at a depth of about k / s.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from retrieval.index.ladder import Rung

Recall = float | Literal["exact", "certified"]

DEFAULT_RECALL: Final = 0.95
SCANNED_ROWS_MAX: Final = 5_000  # survivors; scanning them takes less than choosing lists
PROBED_SHARE_MAX: Final = 0.5  # of the survivors; beyond, scanning all costs about as much
DEPTH_MISSED_MAX: Final = 0.1  # a share of survivors a little below 1 must not cost a rung
SHORTFALL_CUT: Final = 0.2  # the ladder was measured on few queries: ask it for a little more
MEASURED_DIMENSION: Final = 512
# Microseconds a row at 512 dimensions, one core, measured: to turn into float32; to multiply
# then; to pass over; to score as float16.
CONVERT_US, MULTIPLY_US, PASS_US, SCORE_US = 1.4, 0.006, 0.003, 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSurvivors:
    """There is nothing to find."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherSurvivors:
    """Copy the survivors out and multiply them with all queries at once. Exact."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSurvivors:
    """Score the survivors where they lie, one query after the other. Exact."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLists:
    """Score the survivors of the lists nearest to the query; scan them all if too few come."""

    lists: int
    why: str


Plan = NoSurvivors | GatherSurvivors | ScanSurvivors | ProbeLists


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """What the lists of the snapshot hold, seen from one query."""

    survivors: npt.NDArray[np.int64]  # (lists,) in the nearest list, the two nearest, ...
    faces: npt.NDArray[np.int64]  # the same without the filter
    ladder: tuple[Rung, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What is known before the search begins."""

    rows: int  # that could be found without a filter
    survivors: int
    queries: int
    dimension: int
    near: Neighbourhood | None  # None: lists are not asked, see `lists_may_pay`


def lists_may_pay(recall: Recall, *, survivors: int, ladder: tuple[Rung, ...]) -> bool:
    """Whether it is worth while to look how the survivors lie around each query."""
    return bool(ladder) and not wants_all(recall) and survivors > SCANNED_ROWS_MAX


def wants_all(recall: Recall) -> bool:
    """Whether nothing may be missed."""
    return isinstance(recall, str) or recall >= 1.0


def plan(count: int, *, recall: Recall, statistics: Statistics) -> Plan:
    """Choose the cheapest way that promises what was asked, for one query."""
    survivors = statistics.survivors
    if survivors == 0:
        return NoSurvivors(why=f"none of {statistics.rows:,} rows passes the filter")
    if survivors <= count:
        return GatherSurvivors(why=f"all {survivors:,} rows that pass the filter are asked for")
    if recall == "certified":
        return _exact(statistics, "an exact answer is a certified one")
    if wants_all(recall):
        return _exact(statistics, "an exact answer is asked for")
    if statistics.near is None:
        return _exact(statistics, "they are too few to be searched by lists")
    return _by_lists(count, float(recall), statistics, statistics.near)


def _by_lists(count: int, recall: float, statistics: Statistics, near: Neighbourhood) -> Plan:
    """The first rung that is deep enough for the survivors around the query."""
    target = recall + (1.0 - recall) * SHORTFALL_CUT
    for depth, lists in _rungs(near.ladder, target):
        held, faces = int(near.survivors[lists - 1]), max(int(near.faces[lists - 1]), 1)
        if depth * held / faces < (1.0 - DEPTH_MISSED_MAX) * count:
            continue
        if held > PROBED_SHARE_MAX * statistics.survivors:
            return _exact(statistics, f"the {lists:,} lists needed hold {held:,} of them")
        return ProbeLists(
            lists=lists,
            why=f"the nearest {lists:,} lists hold {held:,} of {statistics.survivors:,} rows that "
            f"pass the filter, and hold {depth:,} neighbours with recall {target:.3f} without one",
        )
    return _exact(statistics, "too few of them lie in the lists near the query")


def _rungs(ladder: tuple[Rung, ...], target: float) -> list[tuple[int, int]]:
    """For each depth the fewest lists that reach the target: (depth, lists), by depth."""
    fewest: dict[int, int] = {}
    for rung in ladder:
        if rung.recall >= target:
            fewest[rung.depth] = min(rung.lists, fewest.get(rung.depth, rung.lists))
    return sorted(fewest.items())


def _exact(statistics: Statistics, reason: str) -> GatherSurvivors | ScanSurvivors:
    """The cheaper of the two exact ways."""
    survivors, queries = statistics.survivors, statistics.queries
    size = statistics.dimension / MEASURED_DIMENSION
    gather_us = survivors * size * (CONVERT_US + MULTIPLY_US * queries)
    scan_us = queries * (statistics.rows * PASS_US + survivors * size * SCORE_US)
    why = f"{survivors:,} of {statistics.rows:,} rows pass the filter: {reason}"
    return GatherSurvivors(why=why) if gather_us < scan_us else ScanSurvivors(why=why)
