"""Questions and answers: carries out what `plan` decided, over the snapshot and what came after.

Every answer is exact about what it tells: similarities are computed in float64 from the stored
vectors (kernels/best.py), so the same face has the same similarity, to the bit, wherever it lies.
Equal similarities are ordered by face id. Ways differ only in what they may miss: PROBE and SCAN
no more than was asked for, the others nothing.
"""

import time
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import Final, Literal, NamedTuple, assert_never

import numpy as np

from retrieval.errors import UnusableVectorError, UsageError
from retrieval.filters.rows import RowSet
from retrieval.filters.tree import Filter
from retrieval.index import exact
from retrieval.index.exact import Doubles, Hits, Rows
from retrieval.index.rule import DEFAULT_RECALL
from retrieval.index.snapshot import Coding
from retrieval.index.view import Survivors, View
from retrieval.kernels.best import best_of_bitmap, best_of_numbers
from retrieval.kernels.coded import best_of_coded_numbers, best_of_codes, best_of_lists
from retrieval.limits import COUNT_MAX, within
from retrieval.plan import Plan, Recall, Statistics, Strategy, plan
from retrieval.values import FaceId, FaceIds, Floats, Neighbour, Similarity, Tier, UnitRows

QUERIES_AT_ONCE: Final = 512  # with a block of rows their scores take 16 MiB
GROUPS_OVERFETCH: Final = 4  # faces fetched for each person asked for, at first
Heap = tuple[Doubles, FaceIds]  # (k,) each
Coded = tuple[Rows, Coding]
GroupBy = Literal["person", "track"]  # the best face of each is told; one without any stands alone
GROUP_FIELDS: Final[dict[GroupBy, str]] = {"person": "person_id", "track": "track"}
NOBODY: Final = 2**63 - 1  # a face that comes after every other of the same similarity
_NO_HITS: Final = exact.nothing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who is near these vectors?"""

    vectors: UnitRows  # (n, d), one query each
    count: int = 10
    filter: Filter | None = None
    recall: Recall = DEFAULT_RECALL
    min_similarity: Similarity | None = None
    group_by: GroupBy | None = None

    def __post_init__(self) -> None:
        """Check what a caller may get wrong."""
        within(COUNT_MAX, self.count, what="the number of neighbours asked for")
        if self.count < 1:
            raise UsageError("ask for at least one neighbour")
        if not isinstance(self.recall, str) and not 0.0 < self.recall <= 1.0:
            raise UsageError("recall is a number above 0 and up to 1, 'certified' or 'exact'")


class Timings(NamedTuple):
    """Where the time went, in milliseconds."""

    filter_ms: float
    plan_ms: float
    delta_ms: float  # what came after the snapshot
    search_ms: float  # the rest


class Work(NamedTuple):
    """What was done for a question, over all its queries."""

    by_code: int = 0  # rows scored by their code
    exactly: int = 0  # rows scored in full
    lists: int = 0  # looked into
    lists_held: int = 0  # that held survivors, and were ranked

    def plus(self, other: "Work") -> "Work":
        """Both together."""
        return Work(*map(add, self, other))


@dataclass(kw_only=True, eq=False)  # a frozen one takes three times as long to make
class Answer:
    """The neighbours of each query, and how they were found."""

    hits: tuple[Hits, ...]  # one a query, best first
    tier: Tier
    recall: Recall  # what was asked for
    survivors: int  # rows that pass the filter
    work: Work
    plan: Plan
    timings: Timings
    group_by: GroupBy | None = None

    @cached_property
    def neighbours(self) -> list[list[Neighbour]]:
        """The hits as values, one list a query."""
        return [
            [
                Neighbour(face=FaceId(face), similarity=Similarity(similarity))
                for face, similarity in zip(
                    hits.ids.tolist(), hits.similarities.tolist(), strict=True
                )
            ]
            for hits in self.hits
        ]

    @property
    def rows_scored(self) -> int:
        """Rows scored by code or exactly, over all queries; a row counts once."""
        return max(self.work.by_code, self.work.exactly)


class _Found(NamedTuple):
    """The answer to one query before it is told."""

    hits: Hits
    work: Work
    delta_s: float = 0.0


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
    wanted = question.count if question.group_by is None else _overfetch(question)
    chosen = _plan(view, question, survivors, count=wanted)
    planned = time.perf_counter()
    floor = question.min_similarity if question.group_by is None else None
    found = carried_out(view, question.vectors, survivors, chosen, count=wanted, floor=floor)
    if question.group_by is not None:
        found = _all_grouped(view, question, survivors, found, chosen.tier)
    if len(found) == 1:  # as of nearly every question
        [(first, work, delta_s)] = found
        hits: tuple[Hits, ...] = (first,)
    else:
        delta_s = sum(one.delta_s for one in found)
        work = reduce(Work.plus, [one.work for one in found] or [Work()])
        hits = tuple(one.hits for one in found)
    if question.min_similarity is not None:
        hits = tuple(_above(one, question.min_similarity) for one in hits)
    ended = time.perf_counter()
    return Answer(
        hits=hits,
        tier=chosen.tier,
        recall=question.recall,
        survivors=survivors.total,
        work=work,
        plan=chosen,
        timings=Timings(
            1e3 * (filtered - began),
            1e3 * (planned - filtered),
            1e3 * delta_s,
            1e3 * (ended - planned - delta_s),
        ),
        group_by=question.group_by,
    )


def _plan(view: View, question: Question, survivors: Survivors, *, count: int) -> Plan:
    coding = view.snapshot.coding if view.snapshot else None
    known = Statistics(
        view.everything.total,
        survivors.total,
        len(question.vectors),
        view.dimension,
        len(coding.lists.sizes) if coding else 0,
        coding.rule if coding else None,
    )
    return plan(count, recall=question.recall, statistics=known)


def carried_out(
    view: View,
    queries: UnitRows,
    survivors: Survivors,
    chosen: Plan,
    *,
    count: int,
    floor: float | None = None,
) -> list[_Found]:
    """The answers in the order of the queries; hits below `floor` need not be neighbours at all."""
    match chosen.strategy:
        case Strategy.NOTHING:
            return [_Found(_NO_HITS, Work()) for _ in queries]
        case Strategy.MULTIPLY:
            return [
                one
                for begin in range(0, len(queries), QUERIES_AT_ONCE)
                for one in _multiplied(
                    view, UnitRows(queries[begin : begin + QUERIES_AT_ONCE]), survivors, count=count
                )
            ]
        case Strategy.SCORE | Strategy.SCAN | Strategy.PROBE:
            size = min(count, survivors.total)
            return [
                _looked_for(view, query, survivors, chosen, _heap(size, chosen, floor))
                for query in queries
            ]
        case _:
            assert_never(chosen.strategy)


def scored(view: View, vector: UnitRows, survivors: Survivors) -> Hits:
    """Every survivor with its similarity to one vector (1, d), best first."""
    question = Question(vectors=vector, recall="exact")
    chosen = _plan(view, question, survivors, count=survivors.total)
    [found] = carried_out(view, vector, survivors, chosen, count=survivors.total)
    return found.hits


def best_faces(view: View, hits: Hits, by: GroupBy | None) -> Hits:
    """The first hit of each person or track, and every hit without one; None: all hits.

    Raises:
        UsageError: the index has no such field.
    """
    if by is None:
        return hits
    groups = view.groups_of(hits.ids, GROUP_FIELDS[by])
    # A face without any is a group of its own: face ids, made negative, are no group's number.
    _, places = np.unique(np.where(groups < 0, -1 - hits.ids, groups), return_index=True)
    places.sort()
    return Hits(hits.ids[places], hits.similarities[places])


def _multiplied(view: View, queries: UnitRows, survivors: Survivors, *, count: int) -> list[_Found]:
    answers = [
        exact.gather(rows, queries, count=count, numbers=some.row_numbers())
        for rows, some in view.segments(survivors)
        if some.count
    ]
    work = Work(exactly=survivors.total)
    return [
        _Found(exact.merged([answer[place] for answer in answers], count=count), work)
        for place in range(len(queries))
    ]


def _heap(size: int, chosen: Plan, floor: float | None) -> tuple[Heap, int]:
    """Room for the hits of one query, and how many places are taken.

    Where hits below a floor are not told, places are taken by nobody, just below it: a row that
    cannot reach the floor is then not looked at further. Not where lists are left out, since that
    rule goes by what was found of all that was asked for.
    """
    if floor is None or chosen.strategy is Strategy.PROBE:
        return (np.empty(size), np.empty(size, np.int64)), 0
    below = np.nextafter(floor, -np.inf)
    return (np.full(size, below), np.full(size, NOBODY)), size


def _looked_for(
    view: View, query: Floats, survivors: Survivors, chosen: Plan, room: tuple[Heap, int]
) -> _Found:
    """One query: what came after the snapshot exactly, the snapshot as planned."""
    heap, kept = room
    work, delta_s = Work(), 0.0
    if view.chunks:
        began = time.perf_counter()
        for piece, some in zip(view.chunks, survivors.chunks, strict=True):
            if some.count:
                kept = _score(query, piece.rows, some, heap, kept)
                work = work.plus(Work(exactly=some.count))
        delta_s = time.perf_counter() - began
    snapshot, some = view.snapshot, survivors.snapshot
    if snapshot is not None and some.count:
        rows, coding = snapshot.rows, snapshot.coding
        if chosen.strategy is Strategy.SCORE or coding is None:
            kept, more = _score(query, rows, some, heap, kept), Work(exactly=some.count)
        elif chosen.strategy is Strategy.SCAN:
            kept, more = _scan(query, (rows, coding), some, chosen, heap, kept)
        else:
            kept, more = _probe(query, (rows, coding), some, chosen, heap, kept)
        work = more if delta_s == 0.0 else work.plus(more)
    similarities, faces = heap
    return _Found(Hits(faces[:kept], similarities[:kept]), work, delta_s)


def _score(query: Floats, rows: Rows, some: RowSet, heap: Heap, kept: int) -> int:
    """Score every survivor exactly; give how many rows the heap keeps then."""
    if some.numbers is not None:
        return int(best_of_numbers(query, some.numbers, rows.table, heap, kept))
    return int(best_of_bitmap(query, some.bitmap(), rows.table, heap, kept))


def _scan(
    query: Floats, coded: Coded, some: RowSet, chosen: Plan, heap: Heap, kept: int
) -> tuple[int, Work]:
    rows, coding = coded
    few = some.numbers is not None
    kernel = best_of_coded_numbers if few else best_of_codes
    which = some.numbers if few else some.bitmap()
    kept, by_code, exactly = kernel(
        query, which, chosen.errors, coding.frame.arrays, coding.codes.arrays,
        rows.table, heap, kept,
    )  # fmt: skip
    return kept, Work(by_code, exactly)


def _probe(
    query: Floats, coded: Coded, some: RowSet, chosen: Plan, heap: Heap, kept: int
) -> tuple[int, Work]:
    rows, coding = coded
    sizes = some.counts_per_block(coding.lists.words)
    kept, by_code, exactly, lists = best_of_lists(
        query, some.bitmap(), chosen.errors, chosen.missed,
        (exact.frozen(sizes), *coding.lists.arrays), coding.rule.chances,
        coding.frame.arrays, coding.codes.arrays, rows.table, heap, kept,
    )  # fmt: skip
    return kept, Work(by_code, exactly, lists, int(np.count_nonzero(sizes)))


def _above(hits: Hits, lowest: float) -> Hits:
    kept = int(np.searchsorted(-hits.similarities, -lowest, side="right"))
    return Hits(hits.ids[:kept], hits.similarities[:kept])


def _overfetch(question: Question) -> int:
    """How many faces to look at first where only one of each person is told."""
    return min(question.count * GROUPS_OVERFETCH, COUNT_MAX)


def _all_grouped(
    view: View, question: Question, survivors: Survivors, found: list[_Found], tier: Tier
) -> list[_Found]:
    """The best face of each group for every query."""
    # What is looked at further must keep the promise of the first look.
    alike = replace(question, recall="exact" if tier is Tier.EXACT else question.recall)
    return [
        _grouped(view, replace(alike, vectors=UnitRows(query[None])), survivors, one)
        for query, one in zip(question.vectors, found, strict=True)
    ]


def _grouped(view: View, question: Question, survivors: Survivors, found: _Found) -> _Found:
    """The best face of each group for one query; look further where these are too few."""
    kept, work = best_faces(view, found.hits, question.group_by), found.work
    fetched = _overfetch(question)
    while _wanting(kept, found.hits, question) and fetched < survivors.total:
        fetched = min(fetched * GROUPS_OVERFETCH, survivors.total)
        further = _plan(view, question, survivors, count=fetched)
        [found] = carried_out(view, question.vectors, survivors, further, count=fetched)
        kept, work = best_faces(view, found.hits, question.group_by), work.plus(found.work)
    hits = Hits(kept.ids[: question.count], kept.similarities[: question.count])
    return _Found(hits, work)


def _wanting(kept: Hits, looked_at: Hits, question: Question) -> bool:
    """Whether more groups may be told than were met, those below the lowest similarity aside."""
    lowest = question.min_similarity
    ended = lowest is not None and looked_at.similarities[-1:].min(initial=np.inf) < lowest
    return len(kept.ids) < question.count and not ended
