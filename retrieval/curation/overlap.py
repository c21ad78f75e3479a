"""What two data sets share: who of the one is like whom of the other, and what their names say.

The smaller side asks the index of the larger one, block by block, for all that reach a similarity;
so a test set is compared with a training set of any size in the time of so many searches, and two
large sets in memory that does not grow with them. Answers are certified: of ten thousand
neighbours one may be missed (retrieval/plan.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np

from retrieval.filters.tree import Filter
from retrieval.graph.gathering import Gathered
from retrieval.index.exact import Doubles, Numbers
from retrieval.index.view import View
from retrieval.limits import COUNT_MAX, PAIRS_MAX, within
from retrieval.search import Question, search
from retrieval.values import Similarity, UnitRows

Progress = Callable[[int, int], None]

ASKED_AT_ONCE: Final = 512
CANDIDATES: Final = 16  # fetched at first


class Names(StrEnum):
    """What the names of two persons that are alike say."""

    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"  # one of them has none


class Verdict(StrEnum):
    """What the faces of two persons of one name say."""

    ALIKE = "alike"
    UNLIKE = "unlike"  # as strangers are: the name means two people, or a label is wrong
    UNSURE = "unsure"


class Met(NamedTuple):
    """Pairs that reach a similarity."""

    ones: Numbers  # (m,) who asked, in the order of asking; then most alike first
    others: Numbers  # (m,)
    similarities: Doubles  # (m,)

    @property
    def turned(self) -> "Met":
        """The same, asked from the other side."""
        return Met(self.others, self.ones, self.similarities)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Side:
    """One of two that are compared: rows of an index."""

    view: View
    filter: Filter | None
    rows: Gathered  # that pass the filter, by number

    def __len__(self) -> int:
        return len(self.rows)


def met(one: Side, other: Side, *, floor: float, progress: Progress) -> Met:
    """All pairs of two sides that reach a similarity, by the first and then the most alike.

    Raises:
        LimitExceededError: there are too many to be told one by one.
    """
    if len(one) > len(other):
        found = _asked(other, one, floor=floor, progress=progress).turned
    else:
        found = _asked(one, other, floor=floor, progress=progress)
    order = np.lexsort((found.others, -found.similarities, found.ones))
    return Met(found.ones[order], found.others[order], found.similarities[order])


def _asked(asking: Side, asked: Side, *, floor: float, progress: Progress) -> Met:
    parts = [Met(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    total = 0
    for begin in range(0, len(asking), ASKED_AT_ONCE):
        places = np.arange(begin, min(begin + ASKED_AT_ONCE, len(asking)))
        part = _block(asking.rows, places, asked, floor=floor, count=CANDIDATES)
        total = within(PAIRS_MAX, total + len(part.ones), what="the number of pairs that are alike")
        parts.append(part)
        progress(begin + len(places), len(asking))
    return Met(*(np.concatenate(of) for of in zip(*parts, strict=True)))


def _block(rows: Gathered, places: Numbers, asked: Side, *, floor: float, count: int) -> Met:
    """What some rows are alike to; those of which there are more ask again for more."""
    question = Question(
        vectors=UnitRows(rows.wide(places)),
        count=count,
        filter=asked.filter,
        recall="certified",
        min_similarity=Similarity(floor),
    )
    hits = search(asked.view, question).hits
    sizes = np.array([len(one.ids) for one in hits], np.int64)
    told = (sizes < count) | (count == COUNT_MAX)
    some = [one for one, whole in zip(hits, told.tolist(), strict=True) if whole]
    found = Met(
        np.repeat(rows.ids[places[told]], sizes[told]),
        np.concatenate([np.empty(0, np.int64), *(one.ids for one in some)]),
        np.concatenate([np.empty(0), *(one.similarities for one in some)]),
    )
    if told.all():
        return found
    more = _block(rows, places[~told], asked, floor=floor, count=min(4 * count, COUNT_MAX))
    return Met(*(np.concatenate(of) for of in zip(found, more, strict=True)))


def names_say(one: str | None, other: str | None) -> Names:
    """Whether two persons have one name.

    >>> names_say("Ann", "Ann"), names_say("Ann", None)
    (<Names.SAME: 'same'>, <Names.UNKNOWN: 'unknown'>)
    """
    if one is None or other is None:
        return Names.UNKNOWN
    return Names.SAME if one == other else Names.OTHER


def faces_say(similarity: float, *, alike: float, unlike: float) -> Verdict:
    """What two templates under one name say."""
    if similarity >= alike:
        return Verdict.ALIKE
    return Verdict.UNLIKE if similarity < unlike else Verdict.UNSURE


def shared_names(
    one: Mapping[int, str | None], other: Mapping[int, str | None]
) -> list[tuple[int, int]]:
    """The persons of both that have one name, by the name."""
    named = {name: person for person, name in other.items() if name is not None}
    pairs = [(name, person, named[name]) for person, name in one.items() if name in named]
    return [(mine, its) for _, mine, its in sorted(pairs, key=lambda pair: str(pair[0]))]
