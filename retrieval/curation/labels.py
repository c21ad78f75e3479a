"""Faces under a wrong label: unlike the rest of their person, and perhaps like somebody else.

Each face is compared with the template of its person's other faces. One that is not surely like
them is looked for among all persons; where it is like one of those, and more than its own, that
person is proposed. Those faces are then taken out of the templates that they spoiled, and what is
still unlike the rest is told without a proposal. So of two faces under one label, one of them
somebody else's, the right one is not blamed for the wrong one.

A face below the quality floor is unlike anybody: it is told as poor, and not as wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.people.template import weights
from retrieval.values import UnitRows

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

LENGTH_MIN: Final = 1e-9  # of a sum of faces; less points nowhere
BLOCK_ROWS: Final = 65_536
YEARS_MAX: Final = 10.0  # that estimates of one shot may differ
Nearest = Callable[[UnitRows], tuple[Numbers, Doubles]]  # (m, k) persons, best first; cosines


class Kind(StrEnum):
    """What is wrong."""

    MISLABELLED = "mislabelled"  # like another person, and more than like its own
    UNLIKE = "unlike"  # its own person, and nobody else is known to be like it
    SAME_PERSON = "same_person"  # two labels, one human
    CONFLICT = "conflict"  # one shot, of which two things are said
    POOR = "poor"  # too poor to say


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LabelledFaces:
    """Faces by person; n rows everywhere."""

    vectors: UnitRows  # (n, d)
    quality: Doubles  # (n,) NaN where unknown
    persons: Numbers  # (n,) ascending


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How alike is alike."""

    own: float  # a face that is less like its own person is unlike it
    other: float  # a face that is so much like another person may be that one's
    quality: float  # below it a face is poor


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A face whose label is doubted."""

    row: int
    kind: Kind
    own: float  # similarity to the rest of its person
    other: int | None = None  # the person that is proposed
    similarity: float | None = None  # to that person


def leave_one_out(faces: LabelledFaces, out: Mask) -> Doubles:
    """How like each face is to the template of its person's other faces, (n,).

    NaN where there are none, or these cancel each other out.

    Args:
        faces: those that are judged.
        out: (n,) faces that belong into no template.
    """
    counted = np.where(out, 0.0, weights(faces.quality))
    begins = np.flatnonzero(np.diff(faces.persons, prepend=faces.persons[:1] - 1))
    ends = np.append(begins[1:], len(faces.persons))
    similarities = np.full(len(faces.persons), np.nan)
    first = 0
    while first < len(begins):
        # Whole persons, about a block of rows at once.
        last = max(first + 1, int(np.searchsorted(ends, begins[first] + BLOCK_ROWS, side="right")))
        rows = slice(begins[first], ends[last - 1])
        sizes = ends[first:last] - begins[first:last]
        weighted = faces.vectors[rows].astype(np.float64) * counted[rows, None]
        sums = np.add.reduceat(weighted, begins[first:last] - begins[first], axis=0)
        others = np.repeat(sums, sizes, axis=0) - weighted
        left = np.repeat(np.add.reduceat(~out[rows], begins[first:last] - begins[first]), sizes)
        lengths = np.linalg.norm(others, axis=1)
        there = (left - ~out[rows] > 0) & (lengths > LENGTH_MIN)
        products = np.einsum("ij,ij->i", others, faces.vectors[rows])
        similarities[rows][there] = products[there] / lengths[there]
        first = last
    return similarities


def doubted(
    faces: LabelledFaces, limits: Limits, nearest: Nearest, *, one: Mapping[int, int]
) -> list[Doubt]:
    """The faces whose labels are doubted, by row.

    Args:
        faces: all faces whose person is known.
        limits: how alike is alike.
        nearest: the persons whose templates are nearest to some faces, the own one included.
        one: the same number for all persons that are known to be one; others stand for themselves.
    """
    nobody = np.zeros(len(faces.persons), np.bool_)
    own = leave_one_out(faces, nobody)
    poor = faces.quality < limits.quality
    doubtful = np.flatnonzero(own < limits.other)
    others, similarities = _somebody_else(faces, doubtful, nearest, one)
    wrong = (similarities >= limits.other) & (similarities > own[doubtful]) & ~poor[doubtful]
    out = nobody.copy()
    out[doubtful[wrong]] = True
    rest = leave_one_out(faces, out)
    found = [
        Doubt(
            row=row,
            kind=Kind.MISLABELLED,
            own=float(own[row]),
            other=int(others[place]),
            similarity=float(similarities[place]),
        )
        for place, row in zip(np.flatnonzero(wrong).tolist(), doubtful[wrong].tolist(), strict=True)
    ]
    for row in np.flatnonzero((rest < limits.own) & ~out).tolist():
        kind = Kind.POOR if poor[row] else Kind.UNLIKE
        found.append(Doubt(row=row, kind=kind, own=float(rest[row])))
    return sorted(found, key=lambda doubt: doubt.row)


def _somebody_else(
    faces: LabelledFaces, rows: Numbers, nearest: Nearest, one: Mapping[int, int]
) -> tuple[Numbers, Doubles]:
    """The nearest person that is not the face's own, and how near; -inf where there is none."""
    others, best = np.full(len(rows), -1), np.full(len(rows), -np.inf)
    if not len(rows):
        return others, best
    persons, similarities = nearest(UnitRows(faces.vectors[rows]))
    own = faces.persons[rows]
    for place, mine in enumerate(own.tolist()):
        for person, similarity in zip(
            persons[place].tolist(), similarities[place].tolist(), strict=True
        ):
            if person >= 0 and one.get(person, person) != one.get(mine, mine):
                others[place], best[place] = person, similarity
                break
    return others, best


def cleaned_templates(faces: LabelledFaces, out: Mask, persons: Numbers) -> Mapping[int, Doubles]:
    """The templates of some persons without the faces that are out; none where nothing is left."""
    counted = np.where(out, 0.0, weights(faces.quality))
    made = {}
    for person in persons.tolist():
        begin, end = np.searchsorted(faces.persons, [person, person + 1])
        total = counted[begin:end] @ faces.vectors[begin:end].astype(np.float64)
        length = float(np.linalg.norm(total))
        if length > LENGTH_MIN:
            made[person] = total / length
    return made


def conflicting(one: Any, other: Any, *, ignored: frozenset[str] = frozenset()) -> bool:
    """Whether two values of one field cannot both be right of one shot.

    What is not known contradicts nothing. Numbers may differ by ten (years), tags may not at all.

    >>> conflicting("female", None), conflicting(31.0, 38.5), conflicting(["hat"], [])
    (False, False, True)
    """
    if one is None or other is None:
        return False
    if isinstance(one, float):
        return bool(abs(one - other) > YEARS_MAX)
    if isinstance(one, list):
        mine, its = set(one) - ignored, set(other) - ignored
        return mine != its
    return bool(one != other)
