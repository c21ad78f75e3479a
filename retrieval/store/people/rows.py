"""What an operation on persons changes: each row before and after.

An event is its changes and nothing else, so undoing is turning them round, whatever the operation
was. They lie in jsonb as opaque ids and times. A person's name is kept apart, in rows that go with
their event: whoever reads events, or a copy of them, learns no name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, NewType

from retrieval.values import FaceId, PersonId

EventId = NewType("EventId", int)
Key = tuple[str, int, int]  # one row: its table's word and its ids, 0 where there is but one id


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonRow:
    """A person as its row says; its faces say the rest."""

    name: str | None
    created_at: datetime
    merged_into: PersonId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonChange:
    """A person that is made, changed or unmade; None: there is no row."""

    person: PersonId
    before: PersonRow | None
    after: PersonRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceMove:
    """A face that goes from one person to another; None: nobody's."""

    face: FaceId
    before: PersonId | None
    after: PersonId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Whether `face` is known not to be `person`, after the operation; before, it was not so."""

    face: FaceId
    person: PersonId
    there: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Whether two persons are linked, the smaller id first, after the operation."""

    one: PersonId
    two: PersonId
    there: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All rows that one operation changes, each once."""

    persons: tuple[PersonChange, ...] = ()
    moves: tuple[FaceMove, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    links: tuple[Link, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.persons or self.moves or self.rejections or self.links)

    def reversed(self) -> "Changes":
        """What takes these changes back."""
        return Changes(
            persons=tuple(replace(one, before=one.after, after=one.before) for one in self.persons),
            moves=tuple(replace(one, before=one.after, after=one.before) for one in self.moves),
            rejections=tuple(replace(one, there=not one.there) for one in self.rejections),
            links=tuple(replace(one, there=not one.there) for one in self.links),
        )

    def keys(self) -> set[Key]:
        """The rows that are changed."""
        return {
            *(("person", one.person, 0) for one in self.persons),
            *(("face", one.face, 0) for one in self.moves),
            *(("rejection", one.face, one.person) for one in self.rejections),
            *(("link", one.one, one.two) for one in self.links),
        }

    def faces(self) -> list[FaceId]:
        """Every face that is named, ascending."""
        return sorted({*(one.face for one in self.moves), *(one.face for one in self.rejections)})

    def named_persons(self) -> list[PersonId]:
        """Every person that is named, ascending, whether its row changes or not."""
        rows = [row for one in self.persons for row in (one.before, one.after) if row is not None]
        named = {
            *(one.person for one in self.persons),
            *(row.merged_into for row in rows),
            *(one.before for one in self.moves),
            *(one.after for one in self.moves),
            *(one.person for one in self.rejections),
            *(one.one for one in self.links),
            *(one.two for one in self.links),
        }
        return sorted(person for person in named if person is not None)


def link(one: PersonId, two: PersonId, *, there: bool) -> Link:
    """A link of two persons, given in any order."""
    return Link(one=min(one, two), two=max(one, two), there=there)


def written(changes: Changes) -> dict[str, Any]:
    """The changes as they lie in an event: ids and times in JSON's types, no name.

    >>> moves = [FaceMove(face=FaceId(f), before=None, after=PersonId(5)) for f in (3, 4)]
    >>> written(Changes(moves=tuple(moves)))["moves"]
    [[None, 5, [3, 4]]]
    """
    return {
        "persons": [
            [one.person, _written_row(one.before), _written_row(one.after)]
            for one in changes.persons
        ],
        "moves": [
            [before, after, [move.face for move in moves]]
            for (before, after), moves in groupby(
                sorted(changes.moves, key=_way_and_face), key=lambda one: (one.before, one.after)
            )
        ],
        "rejections": [[one.face, one.person, one.there] for one in changes.rejections],
        "links": [[one.one, one.two, one.there] for one in changes.links],
    }


def read(
    detail: Mapping[str, Any], names: Mapping[PersonId, tuple[str | None, str | None]]
) -> Changes:
    """The changes of an event; `names` are those of its persons before and after."""
    return Changes(
        persons=tuple(_read_persons(detail["persons"], names)),
        moves=tuple(
            FaceMove(face=face, before=before, after=after)
            for before, after, faces in detail["moves"]
            for face in faces
        ),
        rejections=tuple(
            Rejection(face=face, person=person, there=there)
            for face, person, there in detail["rejections"]
        ),
        links=tuple(Link(one=one, two=two, there=there) for one, two, there in detail["links"]),
    )


def _way_and_face(move: FaceMove) -> tuple[int, int, int]:
    return (move.before or 0, move.after or 0, move.face)


def _written_row(row: PersonRow | None) -> list[Any] | None:
    return None if row is None else [row.created_at.isoformat(), row.merged_into]


def _read_persons(
    persons: Iterable[Any], names: Mapping[PersonId, tuple[str | None, str | None]]
) -> Iterable[PersonChange]:
    for person, before, after in persons:
        name_before, name_after = names.get(person, (None, None))
        yield PersonChange(
            person=person,
            before=_read_row(before, name_before),
            after=_read_row(after, name_after),
        )


def _read_row(written_row: list[Any] | None, name: str | None) -> PersonRow | None:
    if written_row is None:
        return None
    created_at, merged_into = written_row
    return PersonRow(
        name=name, created_at=datetime.fromisoformat(created_at), merged_into=merged_into
    )
