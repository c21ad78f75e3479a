"""One question of several vectors: which faces have the best sum of similarities, exactly.

"This person, smiling" asks two indexes, that of identities and that of looks. A face's similarity
is the mean of its cosines there, weighted; only a face with a vector in each can be found. The best
are found by the threshold algorithm (Fagin, Lotem & Naor 2003): each index is asked for its best
faces, all of them are scored in both, and no face that neither has named can be better than the sum
of the last similarities named. More are asked for until that sum is below the last face kept; in
the end, everything is scored. So the answer is as exact as the answers it is made of.

Weights are given in units of what similarities differ by among unlike faces (`spread`): a cosine of
.3 says much of an identity and little of looks. Rankings of different kinds, as of a full-text
search, are not added but fused by reciprocal rank (Cormack, Clarke & Büttcher 2009).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from statistics import NormalDist
from typing import Final

import numpy as np

from retrieval.filters.rows import RowSet
from retrieval.filters.tree import Filter
from retrieval.index.exact import Doubles, Hits, nothing, places_in
from retrieval.index.view import Survivors, View
from retrieval.limits import COUNT_MAX
from retrieval.search import Answer, GroupBy, Question, best_faces, scored, search
from retrieval.values import FaceIds, Floats, Tier, UnitRows

FIRST: Final = 16  # times the faces wanted are asked of each index at first
FIRST_MIN: Final = 64
GROWTH: Final = 4  # times as many in each further round
SCANNED_SHARE: Final = 32  # where one face in so many would be asked for, all are scored
RANK_SHIFT: Final = 60  # Cormack's k: how little the very first ranks count more than the next
SAMPLED: Final = 512  # rows whose pairs tell a spread
PAIRS_MIN: Final = 32  # rows below which they tell none
USUAL_SPREAD: Final = 0.1
_MEDIAN: Final = NormalDist().inv_cdf(0.75)  # of |x| where x is normal

_TIERS: Final = (Tier.EXACT, Tier.CERTIFIED, Tier.CALIBRATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is asked of one index."""

    view: View
    vector: UnitRows  # (1, d)
    weight: float  # above 0; those of all parts add up to 1
    ask: Callable[[View, Question], Answer] = search


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Composed:
    """The answer to one composed question."""

    hits: Hits  # by the weighted mean of cosines
    similarities: tuple[Doubles, ...]  # (m,) each: the cosines of every part
    weights: tuple[float, ...]
    survivors: int  # rows that pass the filter, where they are fewest: a hit is in every index
    tier: Tier  # the weakest of all parts
    answers: tuple[Answer, ...]  # to the last questions, one a part; none where all was scored
    rounds: int
    candidates: int  # faces scored in every part at last
    rows_scored: int  # in all rounds and parts
    group_by: GroupBy | None = None

    @property
    def scanned(self) -> bool:
        """Whether everything was scored at last."""
        return not self.answers


def weights(share: float, spreads: tuple[float, float]) -> tuple[float, float]:
    """The weights of two cosines, so that `share` of what tells faces apart is the second's.

    >>> weights(0.5, (0.1, 0.3))
    (0.75, 0.25)
    """
    first, second = (1.0 - share) / spreads[0], share / spreads[1]
    return 1.0 - second / (first + second), second / (first + second)


def spread(view: View) -> float:
    """What the similarities of unlike faces differ by: the deviation of cosines about 0.

    By the median, so that a person with several faces counts little. From some rows that only
    change with what can be found; of few rows nothing can be told.
    """
    sample = sampled(view, count=SAMPLED)
    if len(sample) < PAIRS_MIN:
        return USUAL_SPREAD
    cosines = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
    return max(float(np.median(np.abs(cosines))) / _MEDIAN, 1e-3)


def sampled(view: View, *, count: int) -> Floats:
    """At most `count` vectors of unit length, spread evenly over the snapshot, or what came."""
    if view.snapshot is not None:
        rows, numbers = view.snapshot.rows, view.everything.snapshot.row_numbers()
        pieces = [(rows, numbers)]
    else:
        pieces = [
            (piece.rows, some.row_numbers())
            for piece, some in zip(view.chunks, view.everything.chunks, strict=True)
        ]
    total = sum(len(numbers) for _, numbers in pieces)
    step = max(1, -(-total // count))
    blocks = [
        rows.vectors[numbers[::step]].astype(np.float32) * rows.scales[numbers[::step], None]
        for rows, numbers in pieces
    ]
    return np.concatenate([np.empty((0, view.dimension), np.float32), *blocks])


def compose(parts: Sequence[Part], question: Question) -> Composed:
    """The faces with the best weighted mean of similarities.

    Args:
        parts: what each index is asked.
        question: all else that is asked; its vectors are not looked at.
    """
    survivors = [part.view.survivors(question.filter) for part in parts]
    least = min(some.total for some in survivors)
    count = max(FIRST * question.count, FIRST_MIN)
    rounds = rows = 0
    while True:
        rounds += 1
        some_only = count <= COUNT_MAX and count * SCANNED_SHARE < least
        answers = [_asked(part, question, count=count) for part in parts] if some_only else []
        table = _joined(parts, survivors, _named(answers))
        rows += sum(one.rows_scored for one in answers) + (
            len(parts) * len(table.ids) if some_only else sum(some.total for some in survivors)
        )
        if not some_only or table.certain(question, _bound(parts, answers, count=count)):
            break
        count *= GROWTH
    hits, similarities = table.told(question)
    return Composed(
        hits=hits,
        similarities=similarities,
        weights=tuple(part.weight for part in parts),
        survivors=least,
        tier=max([Tier.EXACT, *(one.tier for one in answers)], key=_TIERS.index),
        answers=tuple(answers),
        rounds=rounds,
        candidates=len(table.ids),
        rows_scored=rows,
        group_by=question.group_by,
    )


def fused(rankings: Sequence[FaceIds], *, count: int) -> Hits:
    """The best of several rankings by reciprocal rank, with the sum of 1 / (60 + rank).

    >>> fused([np.array([7, 8]), np.array([8, 9])], count=2).ids.tolist()
    [8, 7]
    """
    ids = np.concatenate([np.empty(0, np.int64), *rankings])
    shares = [1.0 / (RANK_SHIFT + 1.0 + np.arange(len(ranking))) for ranking in rankings]
    faces, places = np.unique(ids, return_inverse=True)
    sums = np.zeros(len(faces))
    np.add.at(sums, places, np.concatenate([np.empty(0), *shares]))
    order = np.lexsort((faces, -sums))[:count]
    return Hits(faces[order], sums[order])


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Faces with their similarities, best first."""

    view: View  # that tells their persons
    ids: FaceIds  # (m,)
    means: Doubles  # (m,)
    columns: tuple[Doubles, ...]  # (m,) each

    def certain(self, question: Question, bound: float) -> bool:
        """Whether no face that is not here can be among those told."""
        if question.min_similarity is not None and bound < question.min_similarity:
            return True
        kept = self._kept(question)
        # A face of the same similarity and a lower number would come first.
        return len(kept) > question.count - 1 and bool(self.means[kept[question.count - 1]] > bound)

    def told(self, question: Question) -> tuple[Hits, tuple[Doubles, ...]]:
        """Those that are told, and their similarities in each part."""
        kept = self._kept(question)[: question.count]
        if question.min_similarity is not None:
            kept = kept[self.means[kept] >= question.min_similarity]
        hits = Hits(self.ids[kept], self.means[kept])
        return hits, tuple(column[kept] for column in self.columns)

    def _kept(self, question: Question) -> FaceIds:
        """The places of those that may be told: of each group the first, where it is asked so."""
        first = best_faces(self.view, Hits(self.ids, self.means), question.group_by).ids
        return np.flatnonzero(np.isin(self.ids, first))


def similarities_of(parts: Sequence[Part], filter_: Filter | None, faces: FaceIds) -> Scored:
    """Those of some faces that pass and have every vector, with their similarities."""
    return _joined(parts, [part.view.survivors(filter_) for part in parts], faces)


def _asked(part: Part, question: Question, *, count: int) -> Answer:
    """The best faces of one part."""
    asked = replace(question, vectors=part.vector, count=count, min_similarity=None, group_by=None)
    return part.ask(part.view, asked)


def _named(answers: Sequence[Answer]) -> FaceIds | None:
    """The faces of any answer; None without answers."""
    return np.unique(np.concatenate([one.hits[0].ids for one in answers])) if answers else None


def _bound(parts: Sequence[Part], answers: Sequence[Answer], *, count: int) -> float:
    """What a face that no part has named can reach at most; -inf where a part has named all."""
    found = [answer.hits[0].similarities for answer in answers]
    if any(len(similarities) < count for similarities in found):
        return -np.inf
    # Summed as similarities are: rounding keeps the order, so the bound holds to the bit.
    return float(_mean(parts, [similarities[-1:] for similarities in found])[0])


def _mean(parts: Sequence[Part], columns: Sequence[Doubles]) -> Doubles:
    total: Doubles = np.zeros(len(columns[0]))
    for part, column in zip(parts, columns, strict=True):
        total = total + part.weight * column
    return total


def _joined(parts: Sequence[Part], survivors: Sequence[Survivors], faces: FaceIds | None) -> Scored:
    """Those of the faces, or of all, that pass in every part, with their similarities."""
    found = []
    for part, some in zip(parts, survivors, strict=True):
        chosen = some if faces is None else _among(part.view, some, faces)
        hits = scored(part.view, part.vector, chosen) if chosen.total else nothing()
        order = np.argsort(hits.ids)
        found.append((hits.ids[order], hits.similarities[order]))
    ids = reduce(lambda one, other: np.intersect1d(one, other, assume_unique=True),
                 [ids for ids, _ in found])  # fmt: skip
    columns = [similarities[np.searchsorted(mine, ids)] for mine, similarities in found]
    means = _mean(parts, columns)
    order = np.lexsort((ids, -means))
    return Scored(
        parts[0].view, ids[order], means[order], tuple(column[order] for column in columns)
    )


def _among(view: View, survivors: Survivors, faces: FaceIds) -> Survivors:
    """Those survivors that are some faces."""
    snapshot = survivors.snapshot
    if view.snapshot is not None:
        snapshot = _placed(snapshot, view.snapshot.places(faces))
    return Survivors.of(
        snapshot,
        tuple(
            _placed(some, places_in(piece.rows.ids, faces))
            for piece, some in zip(view.chunks, survivors.chunks, strict=True)
        ),
    )


def _placed(some: RowSet, places: FaceIds) -> RowSet:
    rows = np.sort(places[places >= 0]).astype(np.int32)
    rows.setflags(write=False)
    return RowSet.of_numbers(some.keep(rows), size=some.size)
