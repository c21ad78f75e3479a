"""What can be said of persons. Each operation reads, decides on its changes, and performs them.

An operation is one event (events.py); where it would change nothing there is no event. Persons are
meant by name or `#id`; a merged person's name and number mean the survivor. The caller's
transaction is the operation's.
"""

from collections.abc import Collection as Collected
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from retrieval.errors import UnknownNameError, UsageError
from retrieval.store.people import reading
from retrieval.store.people.events import locked_faces, locked_persons, perform, take_turn
from retrieval.store.people.rows import (
    Changes,
    EventId,
    FaceMove,
    Link,
    PersonChange,
    PersonRow,
    Rejection,
    link,
)
from retrieval.values import Collection, FaceId, PersonId

FACES_TOLD_MAX: Final = 10  # in an error
_NEW: Final = text("SELECT nextval(pg_get_serial_sequence('person', 'id')) AS id, now() AS at")
_REJECTIONS: Final = text("""
    SELECT face_id FROM rejection
    WHERE person_id = :person AND face_id = ANY(CAST(:faces AS bigint[]))
""")
_FACES_OF: Final = text("SELECT id FROM face WHERE person_id = :person ORDER BY id")
_MERGED: Final = text("SELECT id FROM person WHERE merged_into = :person ORDER BY id")
_REJECTED: Final = text("SELECT face_id FROM rejection WHERE person_id = :person ORDER BY face_id")
_LINKED: Final = text("""
    SELECT CASE one_id WHEN :person THEN two_id ELSE one_id END
    FROM person_link
    WHERE :person IN (one_id, two_id)
    ORDER BY 1
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an operation did."""

    event: EventId | None  # None: all was so before, and nothing changed
    person: PersonId | None  # of whom it was; None: of nobody
    faces: int  # that changed


def create(connection: Connection, name: str | None, *, collection: Collection) -> Done:
    """A new person without faces; None leaves it unnamed.

    Raises:
        UsageError: the name is taken.
    """
    take_turn(connection, collection)
    if name is not None:
        _require_free(connection, name, collection)
    made = _new_person(connection, name)
    return _done(connection, "create", Changes(persons=(made,)), made.person, collection)


def assign(
    connection: Connection, faces: Sequence[FaceId], who: str, *, collection: Collection
) -> Done:
    """Give faces to a person, made where there is none of that name.

    A face that was rejected for the person is so no longer.

    Raises:
        UnknownNameError: a face is not in the collection, or there is no person `#id`.
    """
    take_turn(connection, collection)
    found = reading.found(connection, who, collection=collection)
    if found is None and reading.is_number(who):
        raise UnknownNameError(reading.no_person(who, collection))
    owners = _required_faces(connection, faces, collection)
    made = () if found is not None else (_new_person(connection, who),)
    person = found if found is not None else next(one.person for one in made)
    changes = Changes(
        persons=made,
        moves=_moves(owners, person),
        rejections=_rejections(_rejected(connection, owners, person), person, there=False),
    )
    return _done(connection, "assign", changes, person, collection)


def unassign(connection: Connection, faces: Sequence[FaceId], *, collection: Collection) -> Done:
    """Make faces nobody's; nothing is said of whose they are not."""
    take_turn(connection, collection)
    owners = _required_faces(connection, faces, collection)
    return _done(connection, "unassign", Changes(moves=_moves(owners, None)), None, collection)


def reject(
    connection: Connection, faces: Sequence[FaceId], who: str, *, collection: Collection
) -> Done:
    """Remember that these faces are not this person; those that were its own are nobody's."""
    take_turn(connection, collection)
    person = reading.required(connection, who, collection=collection)
    owners = _required_faces(connection, faces, collection)
    new = owners.keys() - _rejected(connection, owners, person)
    changes = Changes(
        moves=_moves(_those_of(person, owners), None),
        rejections=_rejections(new, person, there=True),
    )
    return _done(connection, "reject", changes, person, collection)


def link_persons(connection: Connection, one: str, two: str, *, collection: Collection) -> Done:
    """Remember that two persons are the same human, but stay two records.

    Raises:
        UsageError: both are one person.
    """
    take_turn(connection, collection)
    first, second = _two(connection, one, two, collection)
    known = second in connection.scalars(_LINKED, {"person": first}).all()
    changes = Changes() if known else Changes(links=(link(first, second, there=True),))
    return _done(connection, "link", changes, first, collection)


def unlink_persons(connection: Connection, one: str, two: str, *, collection: Collection) -> Done:
    """Forget that two persons are the same human."""
    take_turn(connection, collection)
    first, second = _two(connection, one, two, collection)
    known = second in connection.scalars(_LINKED, {"person": first}).all()
    changes = Changes(links=(link(first, second, there=False),)) if known else Changes()
    return _done(connection, "unlink", changes, first, collection)


def merge(connection: Connection, who: str, into: str, *, collection: Collection) -> Done:
    """Make `who` and `into` one person: faces, rejections and links go over.

    The name of `who` means `into` from now on.

    Raises:
        UsageError: both are one person already, or a face of one was rejected for the other.
    """
    take_turn(connection, collection)
    gone, stays = _two(connection, who, into, collection)
    merged = connection.scalars(_MERGED, {"person": gone}).all()
    rows = locked_persons(connection, sorted([gone, *merged]), collection=collection)
    faces = {*_ids(connection, _FACES_OF, gone), *_ids(connection, _REJECTED, gone)}
    owners = locked_faces(connection, sorted(faces), collection=collection)
    _require_agreement(connection, gone, stays)
    changes = Changes(
        persons=tuple(
            PersonChange(person=person, before=row, after=replace(row, merged_into=stays))
            for person, row in rows.items()
        ),
        moves=_moves(_those_of(gone, owners), stays),
        rejections=_rejections_gone_over(connection, gone, stays),
        links=_links_gone_over(connection, gone, stays),
    )
    return _done(connection, "merge", changes, stays, collection)


def split(
    connection: Connection,
    faces: Sequence[FaceId],
    who: str,
    *,
    name: str | None,
    collection: Collection,
) -> Done:
    """Make some faces of a person a new person; None leaves it unnamed.

    Raises:
        UsageError: a face is not the person's, all of them are meant, or the name is taken.
    """
    take_turn(connection, collection)
    person = reading.required(connection, who, collection=collection)
    if name is not None:
        _require_free(connection, name, collection)
    owners = _required_faces(connection, faces, collection)
    if foreign := [face for face, owner in owners.items() if owner != person]:
        raise UsageError(f"{_told(foreign)} not of person #{person}: only its own can be split off")
    if len(owners) == len(_ids(connection, _FACES_OF, person)):
        raise UsageError(f"these are all faces of person #{person}: rename it, or leave some out")
    made = _new_person(connection, name)
    changes = Changes(persons=(made,), moves=_moves(owners, made.person))
    return _done(connection, "split", changes, made.person, collection)


def rename(connection: Connection, who: str, name: str, *, collection: Collection) -> Done:
    """Give a person another name.

    Raises:
        UsageError: the name is taken by another person, or means this one since a merge.
    """
    take_turn(connection, collection)
    person = reading.required(connection, who, collection=collection)
    row = locked_persons(connection, [person], collection=collection)[person]
    if row.name == name:
        return Done(event=None, person=person, faces=0)
    _require_free(connection, name, collection)
    renamed = PersonChange(person=person, before=row, after=replace(row, name=name))
    return _done(connection, "rename", Changes(persons=(renamed,)), person, collection)


def _done(
    connection: Connection,
    kind: str,
    changes: Changes,
    person: PersonId | None,
    collection: Collection,
) -> Done:
    number = perform(connection, kind, changes, collection=collection)
    return Done(event=number, person=person, faces=len(changes.faces()))


def _new_person(connection: Connection, name: str | None) -> PersonChange:
    new = connection.execute(_NEW).one()
    at: datetime = new.at
    return PersonChange(
        person=PersonId(new.id),
        before=None,
        after=PersonRow(name=name, created_at=at, merged_into=None),
    )


def _require_free(connection: Connection, name: str, collection: Collection) -> None:
    reading.checked_name(name)
    owner = reading.found(connection, name, collection=collection)
    if owner is not None:
        raise UsageError(f"that name is taken by person #{owner}: choose another, or merge the two")


def _required_faces(
    connection: Connection, faces: Sequence[FaceId], collection: Collection
) -> dict[FaceId, PersonId | None]:
    """Whose these faces are, locked; UnknownNameError where one is not there."""
    if not faces:
        raise UsageError("no face was named: `facedex list` shows their numbers")
    owners = locked_faces(connection, faces, collection=collection)
    if absent := sorted(set(faces) - owners.keys()):
        raise UnknownNameError(
            f"{_told(absent)} not in collection '{collection.name}': `facedex list` shows its faces"
        )
    return owners


def _told(faces: Sequence[FaceId]) -> str:
    shown = ", ".join(map(str, faces[:FACES_TOLD_MAX]))
    more = f" and {len(faces) - FACES_TOLD_MAX} more" if len(faces) > FACES_TOLD_MAX else ""
    return f"face {shown} is" if len(faces) == 1 else f"faces {shown}{more} are"


def _two(
    connection: Connection, one: str, two: str, collection: Collection
) -> tuple[PersonId, PersonId]:
    first = reading.required(connection, one, collection=collection)
    second = reading.required(connection, two, collection=collection)
    if first == second:
        raise UsageError(f"both are person #{first}: name two persons")
    return first, second


def _moves(owners: dict[FaceId, PersonId | None], person: PersonId | None) -> tuple[FaceMove, ...]:
    return tuple(
        FaceMove(face=face, before=owner, after=person)
        for face, owner in owners.items()
        if owner != person
    )


def _those_of(
    person: PersonId, owners: dict[FaceId, PersonId | None]
) -> dict[FaceId, PersonId | None]:
    return {face: owner for face, owner in owners.items() if owner == person}


def _ids(connection: Connection, statement: object, person: PersonId) -> list[FaceId]:
    return list(connection.scalars(statement, {"person": person}))  # type: ignore[call-overload]


def _rejected(
    connection: Connection, faces: dict[FaceId, PersonId | None], person: PersonId
) -> set[FaceId]:
    return set(connection.scalars(_REJECTIONS, {"person": person, "faces": list(faces)}))


def _rejections(
    faces: Collected[FaceId], person: PersonId, *, there: bool
) -> tuple[Rejection, ...]:
    return tuple(Rejection(face=face, person=person, there=there) for face in sorted(faces))


def _require_agreement(connection: Connection, gone: PersonId, stays: PersonId) -> None:
    """Refuse to merge persons of whom one has faces that are known not to be the other."""
    for person, other in ((gone, stays), (stays, gone)):
        against = sorted(
            {*_ids(connection, _REJECTED, person)} & {*_ids(connection, _FACES_OF, other)}
        )
        if against:
            raise UsageError(
                f"{_told(against)} of person #{other} and rejected for #{person}: "
                "first undo the rejection, or move them elsewhere"
            )


def _rejections_gone_over(
    connection: Connection, gone: PersonId, stays: PersonId
) -> tuple[Rejection, ...]:
    old = set(_ids(connection, _REJECTED, gone))
    new = old - set(_ids(connection, _REJECTED, stays))
    return (
        *_rejections(old, gone, there=False),
        *_rejections(new, stays, there=True),
    )


def _links_gone_over(connection: Connection, gone: PersonId, stays: PersonId) -> tuple[Link, ...]:
    old = set(connection.scalars(_LINKED, {"person": gone}))
    new = old - set(connection.scalars(_LINKED, {"person": stays})) - {stays}
    return (
        *(link(gone, other, there=False) for other in sorted(old)),
        *(link(stays, other, there=True) for other in sorted(new)),
    )
