"""Carrying out changes of persons, each operation with one event in the same transaction.

Operations on the persons of one collection take turns, by a lock that goes with the transaction:
what an operation decides from the rows still holds when it writes, and no two of them can wait for
each other. Ingest, import and updates of other fields need no turn. Rows are locked in one order
all the same, persons and then faces, each by id: those writers do so too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import IntegrityError

from retrieval.errors import StoreConflictError, UnknownNameError
from retrieval.limits import FACES_PER_EVENT_MAX, within
from retrieval.store import audit
from retrieval.store.people import rows
from retrieval.store.people.rows import Changes, EventId, FaceMove, PersonChange, PersonRow
from retrieval.values import Collection, FaceId, PersonId

LOCK_KIND: Final = 0x70657273  # "pers"
_LOCK: Final = text(
    "SELECT pg_advisory_xact_lock(:kind, CAST(:collection % 2147483648 AS integer))"
)
_LOCK_PERSONS: Final = text("""
    SELECT id, name, created_at, merged_into
    FROM person
    WHERE collection_id = :collection AND id = ANY(CAST(:ids AS bigint[]))
    ORDER BY id
    FOR UPDATE
""")
_LOCK_FACES: Final = text("""
    SELECT id, person_id
    FROM face
    WHERE collection_id = :collection AND id = ANY(CAST(:ids AS bigint[]))
    ORDER BY id
    FOR NO KEY UPDATE
""")
_INSERT_PERSONS: Final = text("""
    INSERT INTO person (id, collection_id, name, created_at, merged_into)
    OVERRIDING SYSTEM VALUE
    SELECT id, :collection, name, created_at, merged_into
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS given (id bigint, name text, created_at timestamptz, merged_into bigint)
    ORDER BY id
""")
_UPDATE_PERSONS: Final = text("""
    UPDATE person SET (name, created_at, merged_into) =
        (given.name, given.created_at, given.merged_into)
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS given (id bigint, name text, created_at timestamptz, merged_into bigint)
    WHERE person.id = given.id
""")
_DELETE_PERSONS: Final = text("DELETE FROM person WHERE id = ANY(:ids)")
_MOVE_FACES: Final = text("""
    UPDATE face SET person_id = given.person
    FROM unnest(CAST(:faces AS bigint[]), CAST(:persons AS bigint[])) AS given (face, person)
    WHERE id = given.face
""")
_ADD_REJECTIONS: Final = text("""
    INSERT INTO rejection (face_id, person_id)
    SELECT * FROM unnest(CAST(:ones AS bigint[]), CAST(:twos AS bigint[])) ORDER BY 1, 2
""")
_REMOVE_REJECTIONS: Final = text("""
    DELETE FROM rejection
    USING unnest(CAST(:ones AS bigint[]), CAST(:twos AS bigint[])) AS given (face, person)
    WHERE face_id = face AND person_id = person
""")
_ADD_LINKS: Final = text("""
    INSERT INTO person_link (one_id, two_id)
    SELECT * FROM unnest(CAST(:ones AS bigint[]), CAST(:twos AS bigint[])) ORDER BY 1, 2
""")
_REMOVE_LINKS: Final = text("""
    DELETE FROM person_link
    USING unnest(CAST(:ones AS bigint[]), CAST(:twos AS bigint[])) AS given (one, two)
    WHERE one_id = one AND two_id = two
""")
_INSERT_EVENT: Final = text("""
    INSERT INTO person_event (collection_id, actor, kind, undoes, persons, faces, detail)
    VALUES (:collection, :actor, :kind, :undoes, :persons, :faces, CAST(:detail AS jsonb))
    RETURNING id
""")
_INSERT_NAMES: Final = text("""
    INSERT INTO person_event_name (event_id, person_id, before, after)
    SELECT :event, * FROM unnest(
        CAST(:persons AS bigint[]), CAST(:before AS text[]), CAST(:after AS text[]))
""")
# Of the person, or of all persons where :person is NULL.
_EVENTS: Final = text("""
    SELECT id, at, actor, kind, undoes, detail, persons, faces
    FROM person_event
    WHERE collection_id = :collection AND id > :after
        AND (CAST(:persons AS bigint[]) IS NULL AND CAST(:faces AS bigint[]) IS NULL
            OR persons && CAST(:persons AS bigint[]) OR faces && CAST(:faces AS bigint[]))
    ORDER BY id DESC
    LIMIT :limit
""")
_EVENT: Final = text("""
    SELECT id, at, actor, kind, undoes, detail, persons, faces
    FROM person_event
    WHERE collection_id = :collection AND id = :event
""")
_NAMES: Final = text("""
    SELECT event_id, person_id, before, after FROM person_event_name WHERE event_id = ANY(:events)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One operation: who did what, when, and the rows it changed."""

    id: EventId
    at: datetime
    actor: str
    kind: str
    undoes: EventId | None
    changes: Changes


def take_turn(connection: Connection, collection: Collection) -> None:
    """Wait until no other transaction changes persons of the collection; ours is next."""
    connection.execute(_LOCK, {"kind": LOCK_KIND, "collection": collection.id})


def locked_persons(
    connection: Connection, persons: Sequence[PersonId], *, collection: Collection
) -> dict[PersonId, PersonRow]:
    """The present rows of these persons, held until the transaction ends."""
    wanted = {"collection": collection.id, "ids": list(persons)}
    return {
        PersonId(row.id): PersonRow(
            name=row.name, created_at=row.created_at, merged_into=row.merged_into
        )
        for row in connection.execute(_LOCK_PERSONS, wanted)
    }


def locked_faces(
    connection: Connection, faces: Sequence[FaceId], *, collection: Collection
) -> dict[FaceId, PersonId | None]:
    """Whose these faces are at present, held until the transaction ends."""
    wanted = {"collection": collection.id, "ids": list(faces)}
    return {FaceId(row.id): row.person_id for row in connection.execute(_LOCK_FACES, wanted)}


def perform(
    connection: Connection,
    kind: str,
    changes: Changes,
    *,
    collection: Collection,
    undoes: EventId | None = None,
) -> EventId | None:
    """Write the changes and the event that tells of them; None where nothing changes.

    Raises:
        StoreConflictError: another writer made a person of that name at the same moment.
        LimitExceededError: more faces than one event can hold.
    """
    if not changes:
        return None
    within(FACES_PER_EVENT_MAX, len(changes.faces()), what="the number of faces of one operation")
    try:
        _write_persons(connection, changes.persons, collection=collection)
    except IntegrityError as cause:
        raise StoreConflictError from cause
    _write_faces(connection, changes.moves)
    _write_pairs(connection, changes)
    unmade = [one.person for one in changes.persons if one.after is None]
    connection.execute(_DELETE_PERSONS, {"ids": unmade})
    return _recorded(connection, kind, changes, collection=collection, undoes=undoes)


def event(connection: Connection, number: int, *, collection: Collection) -> Event:
    """The event of that number, or UnknownNameError."""
    found = connection.execute(_EVENT, {"collection": collection.id, "event": number}).all()
    if not found:
        raise UnknownNameError(
            f"no event {number} in collection '{collection.name}': see `facedex person events`. "
            "Events of an erased person are gone with it"
        )
    return _events(connection, found)[0]


def events(
    connection: Connection,
    *,
    collection: Collection,
    persons: Sequence[PersonId] | None = None,
    faces: Sequence[FaceId] | None = None,
    after: int = 0,
    limit: int | None = None,
) -> list[Event]:
    """Events above `after`, the newest first, at most `limit`.

    Args:
        connection: an open transaction.
        collection: whose.
        persons: only events that name one of these, or one of `faces`; both None: all.
        faces: see `persons`.
        after: the number of an event.
        limit: None: all of them.
    """
    wanted = {
        "collection": collection.id,
        "persons": None if persons is None else list(persons),
        "faces": None if faces is None else list(faces),
        "after": after,
        "limit": limit,
    }
    return _events(connection, connection.execute(_EVENTS, wanted).all())


def _events(connection: Connection, found: Sequence[Row[Any]]) -> list[Event]:
    names: dict[int, dict[PersonId, tuple[str | None, str | None]]] = {}
    for row in connection.execute(_NAMES, {"events": [row.id for row in found]}):
        names.setdefault(row.event_id, {})[PersonId(row.person_id)] = (row.before, row.after)
    return [
        Event(
            id=EventId(row.id),
            at=row.at,
            actor=row.actor,
            kind=row.kind,
            undoes=row.undoes,
            changes=rows.read(row.detail, names.get(row.id, {})),
        )
        for row in found
    ]


def _write_persons(
    connection: Connection, persons: Sequence[PersonChange], *, collection: Collection
) -> None:
    made = [(one.person, one.after) for one in persons if one.before is None]
    changed = [(one.person, one.after) for one in persons if one.before is not None]
    for statement, given in ((_INSERT_PERSONS, made), (_UPDATE_PERSONS, changed)):
        if told := [_as_json(person, row) for person, row in given if row is not None]:
            connection.execute(statement, {"collection": collection.id, "rows": json.dumps(told)})


def _as_json(person: PersonId, row: PersonRow) -> dict[str, Any]:
    return {
        "id": person,
        "name": row.name,
        "created_at": row.created_at.isoformat(),
        "merged_into": row.merged_into,
    }


def _write_faces(connection: Connection, moves: Sequence[FaceMove]) -> None:
    if moves:
        given = {"faces": [one.face for one in moves], "persons": [one.after for one in moves]}
        connection.execute(_MOVE_FACES, given)


def _write_pairs(connection: Connection, changes: Changes) -> None:
    rejections = [(one.there, one.face, one.person) for one in changes.rejections]
    links = [(one.there, one.one, one.two) for one in changes.links]
    for statement, pairs, there in (
        (_REMOVE_REJECTIONS, rejections, False),
        (_ADD_REJECTIONS, rejections, True),
        (_REMOVE_LINKS, links, False),
        (_ADD_LINKS, links, True),
    ):
        if chosen := [(one, two) for so, one, two in pairs if so is there]:
            ones, twos = zip(*chosen, strict=True)
            connection.execute(statement, {"ones": list(ones), "twos": list(twos)})


def _recorded(
    connection: Connection,
    kind: str,
    changes: Changes,
    *,
    collection: Collection,
    undoes: EventId | None,
) -> EventId:
    number = connection.scalars(
        _INSERT_EVENT,
        {
            "collection": collection.id,
            "actor": audit.actor(),
            "kind": kind,
            "undoes": undoes,
            "persons": changes.named_persons(),
            "faces": changes.faces(),
            "detail": json.dumps(rows.written(changes)),
        },
    ).one()
    connection.execute(
        _INSERT_NAMES,
        {
            "event": number,
            "persons": [one.person for one in changes.persons],
            "before": [one.before and one.before.name for one in changes.persons],
            "after": [one.after and one.after.name for one in changes.persons],
        },
    )
    return EventId(number)
