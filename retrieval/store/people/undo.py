"""Taking an operation back: its changes turned round, where nothing stands in the way.

Each row must be as the operation left it, or somebody built on it since: then undo names the last
event that did. It also must not leave what no operation leaves: something owned by a person that
is merged or gone, a face on a person it was rejected for, a name twice. What undo does is an event
too, so undoing an undo is redoing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from retrieval.errors import UndoRefusedError
from retrieval.store.people.events import (
    Event,
    event,
    events,
    locked_faces,
    locked_persons,
    perform,
    take_turn,
)
from retrieval.store.people.operations import Done
from retrieval.store.people.rows import Changes, EventId, Key
from retrieval.values import Collection, FaceId, PersonId

UNDO: Final = "undo"
REDO: Final = "redo"
_REJECTIONS: Final = text("""
    SELECT face_id, person_id FROM rejection WHERE face_id = ANY(CAST(:faces AS bigint[]))
""")
_LINKS: Final = text("""
    SELECT one_id, two_id FROM person_link WHERE one_id = ANY(:persons) AND two_id = ANY(:persons)
""")
_OPEN: Final = text("SELECT id FROM person WHERE id = ANY(:persons) AND merged_into IS NULL")
_NAMESAKES: Final = text("""
    SELECT id FROM person
    WHERE collection_id = :collection AND name = ANY(:names) AND id <> ALL(:persons)
""")
# What persons own that are to be merged or gone, besides what is taken from them. The cast matters:
# psycopg sends small numbers as int2[], which PostgreSQL compares with each row one by one.
_OWNED: Final = text("""
    SELECT 'face' AS word, id AS one, 0 AS two FROM face
    WHERE person_id = ANY(:persons) AND id <> ALL(CAST(:moved AS bigint[]))
    UNION ALL
    SELECT 'rejection', face_id, person_id FROM rejection WHERE person_id = ANY(:persons)
    UNION ALL
    SELECT 'link', one_id, two_id FROM person_link
    WHERE one_id = ANY(:persons) OR two_id = ANY(:persons)
    UNION ALL
    SELECT 'person', id, 0 FROM person
    WHERE merged_into = ANY(:persons) AND id <> ALL(:changed)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Present:
    """The rows that an undo is about, as they are now, locked."""

    owners: dict[FaceId, PersonId | None]
    rejections: set[tuple[FaceId, PersonId]]
    differing: set[Key]  # those that are not as the event left them


def undo(connection: Connection, number: int, *, collection: Collection) -> Done:
    """Take an event back; an undo is taken back the same way.

    Raises:
        UnknownNameError: no such event, or it went with an erased person.
        UndoRefusedError: its rows were changed since; the message names the event to undo first.
    """
    take_turn(connection, collection)
    done = event(connection, number, collection=collection)
    back = done.changes.reversed()
    present = _present(connection, back, collection)
    in_the_way = (
        present.differing
        or _unowned(connection, back)
        or _left_over(connection, back)
        or _contradictions(back, present)
        or _namesakes(connection, back, collection)
    )
    if in_the_way:
        raise UndoRefusedError(_refusal(connection, done, in_the_way, collection))
    kind = REDO if done.kind == UNDO else UNDO
    made = perform(connection, kind, back, collection=collection, undoes=EventId(number))
    return Done(event=made, person=None, faces=len(back.faces()))


def _present(connection: Connection, back: Changes, collection: Collection) -> _Present:
    """The present rows, persons locked before faces, compared with what `back` starts from."""
    changed = [one.person for one in back.persons]
    persons = locked_persons(connection, sorted(changed), collection=collection)
    faces = back.faces()
    owners = locked_faces(connection, faces, collection=collection)
    rejected = connection.execute(_REJECTIONS, {"faces": faces})
    rejections = {(row.face_id, row.person_id) for row in rejected}
    ends = [end for one in back.links for end in (one.one, one.two)]
    links = {(row.one_id, row.two_id) for row in connection.execute(_LINKS, {"persons": ends})}
    absent = {("face", face, 0) for face in faces if face not in owners}
    as_left = {
        *(("person", p.person, 0) for p in back.persons if persons.get(p.person) == p.before),
        *(("face", m.face, 0) for m in back.moves if owners.get(m.face) == m.before),
        *(
            ("rejection", r.face, r.person)
            for r in back.rejections
            if ((r.face, r.person) in rejections) is not r.there
        ),
        *(("link", o.one, o.two) for o in back.links if ((o.one, o.two) in links) is not o.there),
    }
    differing = (back.keys() - as_left) | absent
    return _Present(owners=owners, rejections=rejections, differing=differing)


def _unowned(connection: Connection, back: Changes) -> set[Key]:
    """Persons that would own something and are merged or gone."""
    owning = {
        *(one.after for one in back.moves if one.after is not None),
        *(one.person for one in back.rejections if one.there),
        *(end for one in back.links if one.there for end in (one.one, one.two)),
        *(one.after.merged_into for one in back.persons if one.after and one.after.merged_into),
    }
    open_ = set(connection.scalars(_OPEN, {"persons": list(owning)}))
    for one in back.persons:
        if one.after is not None and one.after.merged_into is None:
            open_.add(one.person)
        else:
            open_.discard(one.person)
    return {("person", person, 0) for person in owning - open_}


def _left_over(connection: Connection, back: Changes) -> set[Key]:
    """What persons own that would be merged or gone, and what would stay with them."""
    closed = [p.person for p in back.persons if p.after is None or p.after.merged_into is not None]
    if not closed:
        return set()
    owned = connection.execute(
        _OWNED,
        {
            "persons": closed,
            "moved": [one.face for one in back.moves],
            "changed": [one.person for one in back.persons],
        },
    )
    return {(row.word, row.one, row.two) for row in owned} - back.keys()


def _contradictions(back: Changes, present: _Present) -> set[Key]:
    """Faces that would be on a person for whom they are rejected."""
    owners = present.owners | {one.face: one.after for one in back.moves}
    rejections = present.rejections | {(one.face, one.person) for one in back.rejections}
    rejections -= {(one.face, one.person) for one in back.rejections if not one.there}
    against = [(face, person) for face, person in rejections if owners.get(face) == person]
    return {key for face, person in against for key in (_face(face), ("rejection", face, person))}


def _namesakes(connection: Connection, back: Changes, collection: Collection) -> set[Key]:
    """Persons that have taken a name which would come back."""
    wanted = {
        "collection": collection.id,
        "names": [one.after.name for one in back.persons if one.after and one.after.name],
        "persons": [one.person for one in back.persons],
    }
    return {("person", person, 0) for person in connection.scalars(_NAMESAKES, wanted)}


def _face(face: FaceId) -> Key:
    return ("face", face, 0)


def _refusal(
    connection: Connection, done: Event, in_the_way: set[Key], collection: Collection
) -> str:
    """Which event has to be undone first; where none did it, what changed the rows besides."""
    later = events(
        connection,
        collection=collection,
        persons=_persons(in_the_way),
        faces=[FaceId(one) for word, one, _ in in_the_way if word in ("face", "rejection")],
        after=done.id,
    )
    culprit = next((one for one in later if one.changes.keys() & in_the_way), None)
    what = f"event {done.id} ({done.kind})"
    if culprit is None:
        word, one, _ = min(in_the_way)
        return (
            f"{what} cannot be undone: {word} {one} was changed or deleted since, by ingest,"
            " import, delete or erase, or an event that went with an erased person"
        )
    if culprit.undoes == done.id:
        return f"{what} is undone already: undo {culprit.id} ({culprit.kind}) to do it again"
    return f"{what} cannot be undone now: undo {culprit.id} ({culprit.kind}) first"


def _persons(keys: Iterable[Key]) -> list[PersonId]:
    """The persons in whose events these rows can be."""
    found: set[int] = set()
    for word, one, two in keys:
        found |= {"person": {one}, "rejection": {two}, "link": {one, two}}.get(word, set())
    return [PersonId(one) for one in sorted(found)]
