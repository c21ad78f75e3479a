"""Making a graph: rows of one list meet all rows that look into it, in one matrix product.

Asking one by one would look at each code of each list some hundred times. Here vectors are compared
along the few directions in which they differ most, a pair that is met serves both of its rows, and
what was kept is scored in full, so that similarities are those of every other search. effort.py
says how many directions and lists a recall takes.

Work is kept in a folder now and then, and goes on there after it was cut off.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.filters.tree import Filter
from retrieval.graph import effort
from retrieval.graph.gathering import Gathered, Listed, evenly_listed, gathered, listed
from retrieval.index.exact import BLOCK_ROWS, Doubles, Mask, Numbers, frozen
from retrieval.index.lists import SAMPLE_PER_LIST, trained_centroids
from retrieval.index.view import View
from retrieval.kernels.graph import finish, push_block
from retrieval.limits import COUNT_MAX, within
from retrieval.plan import Recall
from retrieval.values import FaceIds, Floats

ASKING_AT_ONCE: Final = 1_024  # rows; their scores with a list stay in the processor's cache
LISTS_AT_ONCE: Final = 16
LIST_ROWS: Final = 256  # on average; products with fewer rows are slow
ALL_MEET_ROWS_MAX: Final = 20_000  # up to here every row meets every other
SAMPLE: Final = 65_536  # rows that directions are taken from
SPARE: Final = 1.5  # rows kept for each neighbour wanted: along few directions order is not exact
SPARE_MIN: Final = 8
CHECKPOINTS: Final = 16
SEED: Final = 30_721
STATE: Final = "graph.npz"

Progress = Callable[[int, int], None]
Heaps = tuple[Floats, npt.NDArray[np.int32], npt.NDArray[np.int32]]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some faces and the nearest others of each, best first."""

    ids: FaceIds  # (n,)
    neighbours: FaceIds  # (n, k) -1 where there are fewer
    similarities: Doubles  # (n, k) cosine; -2 where there are fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What is looked at for a recall."""

    directions: int  # that vectors are compared along
    lists: int
    nearness: float | None  # of the lists that rows look into; None: every row meets every other
    recall: float | None  # of the pilots; None: nothing is left out


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """A graph about to be made."""

    listed: Listed
    count: int
    kept: int  # rows kept of each row
    floor: float  # similarity along the directions, below which nothing is kept
    told: float  # similarity below which nothing is told
    effort: Effort


def neighbours(
    view: View,
    *,
    count: int,
    recall: Recall = 0.95,
    filter_: Filter | None = None,
    floor: float = -1.0,
    folder: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Iterator[Block]:
    """The `count` nearest faces of every face that passes, among those that pass.

    Faces come in no order that means anything, but always in the same.

    Args:
        view: where to look.
        count: neighbours of each face; a face is none of its own.
        recall: the share of true neighbours that is found in the mean, or "exact".
        filter_: which faces there are.
        floor: a similarity; what is less alike is not told.
        folder: where work is kept that was cut off; None: in memory alone.
        progress: called with lists done and lists in all.

    Raises:
        UsageError: "certified" is no recall of a graph.
    """
    planned = plan(view, count=count, recall=recall, filter_=filter_, floor=floor)
    return made(planned, folder=folder, progress=progress)


def plan(
    view: View, *, count: int, recall: Recall, filter_: Filter | None = None, floor: float = -1.0
) -> Plan:
    """Look at some rows, and decide how much all of them have to look at."""
    within(COUNT_MAX, count, what="the number of neighbours asked for")
    if recall == "certified":
        raise UsageError("a graph is made to a recall, such as 0.95, or exactly")
    rows = gathered(view, filter_)
    kept = max(int(SPARE * count), count + SPARE_MIN)
    if isinstance(recall, str) or recall >= 1.0 or len(rows) <= ALL_MEET_ROWS_MAX:
        basis = np.eye(view.dimension, dtype=np.float32)
        together = evenly_listed(rows, rows.turned(basis), size=LIST_ROWS)
        every = len(together.begins) - 1
        return Plan(
            listed=together,
            count=count,
            kept=kept,
            floor=floor - 1e-3,
            told=floor,
            effort=Effort(directions=view.dimension, lists=every, nearness=None, recall=None),
        )
    return _measured(rows, count=count, kept=kept, recall=recall, floor=floor)


def made(planned: Plan, *, folder: Path | None, progress: Progress) -> Iterator[Block]:
    """Carry a plan out."""
    heaps = _met(planned, folder=folder, progress=progress)
    rows = planned.listed.gathered
    for begin in range(0, len(rows), BLOCK_ROWS):
        size = min(BLOCK_ROWS, len(rows) - begin)
        faces = np.full((size, planned.count), -1)
        similarities = np.full((size, planned.count), -2.0)
        finish(begin, heaps, frozen(rows.numbers), rows.rows.table, faces, similarities)
        unlike = similarities < planned.told
        faces[unlike], similarities[unlike] = -1, -2.0
        yield Block(rows.ids[begin : begin + size], faces, similarities)


def _measured(rows: Gathered, *, count: int, kept: int, recall: float, floor: float) -> Plan:
    """The fewest directions, and then the fewest lists, that reach a recall."""
    random = np.random.default_rng(SEED)
    sample = rows.wide(np.sort(random.permutation(len(rows))[:SAMPLE]))
    pilots = effort.pilots_of(rows, count=count, floor=floor, random=random)
    basis, turned, near = _turned(rows, sample, pilots, kept=kept, lost=1.0 - recall)
    lists = 1 << round(np.log2(len(rows) / LIST_ROWS))
    some = sample[: SAMPLE_PER_LIST * lists] @ basis
    some /= np.linalg.norm(some, axis=1, keepdims=True)
    together = listed(rows, turned, trained_centroids(some, lists=lists))
    moved = pilots.moved(together.order)
    given = effort.nearness_given(together, moved)
    nearness = effort.nearness_for(given, near, moved, recall=recall)
    reached = moved.share(near if nearness is None else near & (given >= nearness)).mean()
    return Plan(
        listed=together,
        count=count,
        kept=kept,
        floor=floor - pilots.shortfall(turned),
        told=floor,
        effort=Effort(
            directions=basis.shape[1], lists=lists, nearness=nearness, recall=float(reached)
        ),
    )


def _turned(
    rows: Gathered, sample: Floats, pilots: effort.Pilots, *, kept: int, lost: float
) -> tuple[Floats, Floats, Mask]:
    """A basis, the rows along it, and which neighbours of pilots come far enough along it."""
    moments = sample.T.astype(np.float64) @ sample
    directions = np.linalg.eigh(moments)[1][:, ::-1].astype(np.float32)
    some = (one for one in effort.DIRECTIONS if one < sample.shape[1])
    for count in some:
        basis = np.ascontiguousarray(directions[:, :count])
        turned = rows.turned(basis)
        near = effort.ranks_along(turned, pilots) < kept
        if 1.0 - pilots.share(near).mean() <= effort.LOST_BY_DIRECTIONS * lost:
            return basis, turned, near
    return directions, rows.turned(directions), np.ones(len(pilots.ones), np.bool_)


def _met(planned: Plan, *, folder: Path | None, progress: Progress) -> Heaps:
    """The rows that were kept of each row, once all lists were looked into."""
    state = _State(planned, folder)
    lowest = _nearness_wanted(planned)
    every = len(planned.listed.begins) - 1
    if lowest is not None and state.done == 0:
        # Rows of one list first: what is nearest keeps the rest out of the heaps.
        for one, (begin, end) in enumerate(itertools.pairwise(planned.listed.begins)):
            _meet(planned, one, np.arange(begin, end), state)
    for first in range(state.done, every, LISTS_AT_ONCE):
        lists = range(first, min(first + LISTS_AT_ONCE, every))
        for one, asking in zip(lists, _asking(planned, lists, lowest), strict=True):
            _meet(planned, one, asking, state)
        state.note(lists.stop, every)
        progress(lists.stop, every)
    return state.heaps


def _nearness_wanted(planned: Plan) -> Floats | None:
    """The nearness of the lists that each row looks into; None: rows look into all."""
    own, nearness = planned.listed.own, planned.effort.nearness
    if nearness is None:
        return None
    wanted: Floats = np.minimum(effort.OWN_SHARE * own + np.float32(nearness), own - 1e-5)
    return wanted


def _asking(planned: Plan, lists: range, lowest: Floats | None) -> Iterator[Numbers]:
    """The rows that look into each of some lists."""
    together = planned.listed
    size = len(together.turned)
    if lowest is None:  # each pair meets once
        yield from (np.arange(together.begins[one], size) for one in lists)
        return
    centroids = together.centroids[lists.start : lists.stop].T
    near = np.empty((len(lists), size), np.bool_)
    for begin in range(0, size, BLOCK_ROWS):
        block = slice(begin, begin + BLOCK_ROWS)
        near[:, block] = (together.turned[block] @ centroids >= lowest[block, None]).T
    yield from map(np.flatnonzero, near)


def _meet(planned: Plan, one: int, asking: Numbers, state: "_State") -> None:
    """Compare the rows of a list with all that look into it."""
    turned, begins = planned.listed.turned, planned.listed.begins
    mine = turned[begins[one] : begins[one + 1]].T
    for begin in range(0, len(asking), ASKING_AT_ONCE):
        some = asking[begin : begin + ASKING_AT_ONCE]
        push_block(turned[some] @ mine, some, begins[one], state.heaps, state.floors)


class _State:
    """What was kept so far, in memory and, now and then, in a folder."""

    def __init__(self, planned: Plan, folder: Path | None) -> None:
        size = len(planned.listed.gathered)
        self.heaps: Heaps = (
            np.empty((size, planned.kept), np.float32),
            np.empty((size, planned.kept), np.int32),
            np.zeros(size, np.int32),
        )
        self.floors = np.full(size, planned.floor, np.float32)
        self.done = 0
        self._folder = folder
        self._stamp = _stamp(planned)
        self._noted = 0
        if folder is not None and (folder / STATE).is_file():
            self._resume(folder / STATE)

    def note(self, done: int, every: int) -> None:
        """Keep what there is, if enough was done since the last time."""
        if self._folder is None:
            return
        if (done - self._noted) * CHECKPOINTS < every and done < every:
            return
        self._noted = done
        self._folder.mkdir(parents=True, exist_ok=True)
        staged = self._folder / f"{STATE}.staged"
        similarities, rows, filled = self.heaps
        with staged.open("wb") as file:
            np.savez(
                file, stamp=np.array(self._stamp), done=np.array(done), floors=self.floors,
                similarities=similarities, rows=rows, filled=filled,
            )  # fmt: skip
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self._folder / STATE)

    def _resume(self, path: Path) -> None:
        """Go on where a run for the same graph was cut off."""
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["stamp"]) != self._stamp:
                return  # of other rows, or another plan: it begins anew
            self.heaps = (kept["similarities"], kept["rows"], kept["filled"])
            self.floors = kept["floors"]
            self.done = self._noted = int(kept["done"])


def _stamp(planned: Plan) -> str:
    """What a graph depends on: the faces with their vectors' order, and the plan."""
    together = planned.listed
    found = sha256(together.gathered.ids.tobytes())
    found.update(together.turned.tobytes())
    found.update(repr((planned.count, planned.kept, planned.floor, planned.effort)).encode())
    return found.hexdigest()
