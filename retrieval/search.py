"""Questions and answers: carries out what `plan` decided, over the snapshot and what came after.

Every answer is exact about what it tells: similarities are computed anew from the stored vectors
(index/exact.py), so the same face has the same similarity, to the bit, wherever it lies. Equal
similarities are ordered by face id. Plans differ only in what they may miss, and only ProbeLists
may miss anything.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, assert_never

import numpy as np

from retrieval.errors import UnusableVectorError, UsageError
from retrieval.filters.tree import Filter
from retrieval.index import exact
from retrieval.index.exact import Hits
from retrieval.index.snapshot import Snapshot
from retrieval.index.view import Survivors, View
from retrieval.limits import COUNT_MAX, within
from retrieval.plan import (
    DEFAULT_RECALL,
    GatherSurvivors,
    Neighbourhood,
    NoSurvivors,
    Plan,
    ProbeLists,
    Recall,
    ScanSurvivors,
    Statistics,
    lists_may_pay,
    plan,
)
from retrieval.values import FaceId, Neighbour, Similarity, Tier, UnitRows

QUERIES_AT_ONCE: Final = 512  # with a block of rows their scores take 16 MiB
GROUPS_OVERFETCH: Final = 4  # faces fetched for each person asked for, at first


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who is near these vectors?"""

    vectors: UnitRows  # (n, d), one query each
    count: int = 10
    filter: Filter | None = None
    recall: Recall = DEFAULT_RECALL
    min_similarity: Similarity | None = None
    group_by: Literal["person"] | None = None  # a person's best face only; others stand alone

    def __post_init__(self) -> None:
        """Check what a caller may get wrong."""
        within(COUNT_MAX, self.count, what="the number of neighbours asked for")
        if self.count < 1:
            raise UsageError("ask for at least one neighbour")
        if not isinstance(self.recall, str) and not 0.0 < self.recall <= 1.0:
            raise UsageError("recall is a number above 0 and up to 1, 'certified' or 'exact'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time went, in milliseconds."""

    filter_ms: float
    plan_ms: float
    search_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The neighbours of each query, and how they were found."""

    neighbours: list[list[Neighbour]]  # one list a query, best first
    tier: Tier  # the weakest of all queries
    survivors: int  # rows that pass the filter
    rows_scored: int  # over all queries, what was scored anew left out
    plans: tuple[Plan, ...]  # one a query
    timings: Timings


@dataclass(frozen=True, slots=True)
class _Found:
    """The answer to one query before it is told."""

    hits: Hits
    scored: int
    tier: Tier


def search(view: View, question: Question) -> Answer:
    """Answer a question from one view.

    Raises:
        UnusableVectorError: the vectors are of another dimension than the view's.
        FilterError: a parameter of the filter is not bound.
    """
    if question.vectors.shape[1] != view.dimension:
        raise UnusableVectorError(
            f"a vector has {question.vectors.shape[1]} dimensions; the space has {view.dimension}"
        )
    began = time.perf_counter()
    survivors = view.survivors(question.filter)
    filtered = time.perf_counter()
    wider = question if question.group_by is None else replace(question, count=_overfetch(question))
    plans = _plans(view, wider, survivors)
    planned = time.perf_counter()
    found = _carried_out(view, wider, survivors, plans)
    if question.group_by is not None:
        found = [
            _grouped(view, replace(question, vectors=UnitRows(query[None])), survivors, one)
            for query, one in zip(question.vectors, found, strict=True)
        ]
    ended = time.perf_counter()
    return Answer(
        neighbours=[_told(one.hits, question) for one in found],
        tier=Tier.EXACT if all(one.tier is Tier.EXACT for one in found) else Tier.UNVERIFIED,
        survivors=survivors.total,
        rows_scored=sum(one.scored for one in found),
        plans=plans,
        timings=Timings(
            filter_ms=1e3 * (filtered - began),
            plan_ms=1e3 * (planned - filtered),
            search_ms=1e3 * (ended - planned),
        ),
    )


def _plans(view: View, question: Question, survivors: Survivors) -> tuple[Plan, ...]:
    """One plan for each query."""
    queries, count = question.vectors, question.count
    known = Statistics(
        rows=view.everything.total,
        survivors=survivors.total,
        queries=len(queries),
        dimension=view.dimension,
        near=None,
    )
    snapshot = view.snapshot
    if snapshot is None or not lists_may_pay(
        question.recall, survivors=known.survivors, ladder=snapshot.manifest.self_check.ladder
    ):
        return (plan(count, recall=question.recall, statistics=known),) * len(queries)
    return tuple(
        plan(count, recall=question.recall, statistics=replace(known, near=near))
        for near in _neighbourhoods(snapshot, queries, survivors)
    )


def _neighbourhoods(
    snapshot: Snapshot, queries: UnitRows, survivors: Survivors
) -> Iterable[Neighbourhood]:
    by_list = snapshot.listed.survivors_by_list(survivors.snapshot)
    for order in snapshot.listed.nearness(queries):
        yield Neighbourhood(
            survivors=np.cumsum(by_list[order]),
            faces=np.cumsum(snapshot.lists.sizes[order]),
            ladder=snapshot.manifest.self_check.ladder,
        )


def _carried_out(
    view: View, question: Question, survivors: Survivors, plans: Sequence[Plan]
) -> list[_Found]:
    """The answers in the order of the queries; those with like plans are found together."""
    together: dict[tuple[type[Plan], int], list[int]] = defaultdict(list)
    for place, one in enumerate(plans):
        together[type(one), one.lists if isinstance(one, ProbeLists) else 0].append(place)
    found: dict[int, _Found] = {}
    for places in together.values():
        for begin in range(0, len(places), QUERIES_AT_ONCE):
            block = places[begin : begin + QUERIES_AT_ONCE]
            part = replace(question, vectors=UnitRows(question.vectors[block]))
            found.update(zip(block, _acted(view, part, survivors, plans[block[0]]), strict=True))
    return [found[place] for place in range(len(plans))]


def _acted(view: View, question: Question, survivors: Survivors, one: Plan) -> list[_Found]:
    """Carry out one plan for all vectors of the question."""
    count = question.count
    match one:
        case NoSurvivors():
            return [_Found(exact.nothing(), 0, Tier.EXACT) for _ in question.vectors]
        case GatherSurvivors():
            return _gathered(view, question.vectors, survivors, count=count)
        case ScanSurvivors():
            return _scanned(view, question.vectors, survivors, count=count)
        case ProbeLists(lists=lists):
            return _probed(view, question.vectors, survivors, count=count, lists=lists)
        case _:
            assert_never(one)


def _gathered(view: View, queries: UnitRows, survivors: Survivors, *, count: int) -> list[_Found]:
    answers = [
        exact.gather(one.rows, queries, count=count, survivors=mask)
        for one, mask in view.segments(survivors)
    ]
    return _exactly(answers, queries, survivors, count=count)


def _scanned(view: View, queries: UnitRows, survivors: Survivors, *, count: int) -> list[_Found]:
    answers = [
        one.flat.nearest(queries, count=count, survivors=mask)
        for one, mask in view.segments(survivors)
    ]
    return _exactly(answers, queries, survivors, count=count)


def _exactly(
    answers: list[list[Hits]], queries: UnitRows, survivors: Survivors, *, count: int
) -> list[_Found]:
    """Join the segments' answers to each query."""
    return [
        _Found(
            exact.merged([answer[place] for answer in answers], count=count),
            survivors.total,
            Tier.EXACT,
        )
        for place in range(len(queries))
    ]


def _probed(
    view: View, queries: UnitRows, survivors: Survivors, *, count: int, lists: int
) -> list[_Found]:
    """Search the nearest lists of the snapshot and all that came after it."""
    if view.snapshot is None:
        raise TypeError("there are no lists without a snapshot")
    listed = view.snapshot.listed
    by_list = listed.survivors_by_list(survivors.snapshot)
    near = listed.nearness(queries)[:, :lists]
    probed = np.where(by_list[near] > 0, near, -1)
    parts = [listed.nearest(queries, count=count, survivors=survivors.snapshot, probed=probed)]
    parts += [
        one.flat.nearest(queries, count=count, survivors=mask)
        for one, mask in zip(view.chunks, survivors.chunks, strict=True)
    ]
    later = sum(int(np.count_nonzero(mask)) for mask in survivors.chunks)
    wanted = min(count, int(by_list.sum()))
    found = []
    for place in range(len(queries)):
        if len(parts[0][place].ids) < wanted:
            query = UnitRows(queries[place : place + 1])
            found += _scanned(view, query, survivors, count=count)
            continue
        hits = exact.merged([part[place] for part in parts], count=count)
        found.append(_Found(hits, int(by_list[near[place]].sum()) + later, Tier.UNVERIFIED))
    return found


def _overfetch(question: Question) -> int:
    """How many faces to look at first where only one of each person is told."""
    return min(question.count * GROUPS_OVERFETCH, COUNT_MAX)


def _grouped(view: View, question: Question, survivors: Survivors, found: _Found) -> _Found:
    """The best face of each person for one query; look further where these are too few."""
    kept, scored = _best_faces(view, found.hits), found.scored
    fetched = _overfetch(question)
    while len(kept.ids) < question.count and fetched < survivors.total:
        fetched = min(fetched * GROUPS_OVERFETCH, survivors.total)
        [found] = _scanned(view, question.vectors, survivors, count=fetched)
        kept, scored = _best_faces(view, found.hits), scored + found.scored
    hits = Hits(kept.ids[: question.count], kept.similarities[: question.count])
    return _Found(hits, scored, found.tier)


def _best_faces(view: View, hits: Hits) -> Hits:
    """The first hit of each person, and every hit without a person."""
    persons = view.persons_of(hits.ids)
    alone = persons < 0
    # A face without a person is a group of its own: face ids, made negative, are no person's.
    _, places = np.unique(np.where(alone, -1 - hits.ids, persons), return_index=True)
    places.sort()
    return Hits(hits.ids[places], hits.similarities[places])


def _told(hits: Hits, question: Question) -> list[Neighbour]:
    lowest = -2.0 if question.min_similarity is None else question.min_similarity
    return [
        Neighbour(face=FaceId(face), similarity=Similarity(similarity))
        for face, similarity in zip(hits.ids.tolist(), hits.similarities.tolist(), strict=True)
        if similarity >= lowest
    ]
