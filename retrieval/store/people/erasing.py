"""The end of a person: its rows, its events, its names; and what is remembered of that.

What is erased is found by numbers together with their times of creation: in a database that was
restored from an older backup, a number may have been given to somebody else since. Events that
name the person or one of its faces go whole, whomever else they name: that others can no longer
undo them is the price of nothing being left.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, Row, TextClause, text

from retrieval.store import audit
from retrieval.values import Collection, CollectionId, PersonId

_CREATED: Final = text("SELECT id, created_at FROM person WHERE id = :person")
# Persons that were merged into one of these are the same human.
_PERSONS: Final = text("""
    WITH named AS (
        SELECT person.id
        FROM person JOIN unnest(CAST(:ids AS bigint[]), CAST(:times AS timestamptz[]))
            AS given (id, created_at) USING (id, created_at)
        WHERE collection_id = :collection
    )
    SELECT id, created_at
    FROM person
    -- Not OR: that would read every person.
    WHERE id IN (
        SELECT id FROM named
        UNION SELECT merged.id FROM person AS merged JOIN named ON merged.merged_into = named.id
    )
    ORDER BY id
    FOR UPDATE
""")
_FACES: Final = text("""
    WITH named AS (
        SELECT face.id
        FROM face JOIN unnest(CAST(:ids AS bigint[]), CAST(:times AS timestamptz[]))
            AS given (id, created_at) USING (id, created_at)
        WHERE collection_id = :collection
    ), erased_image AS (
        SELECT image.id
        FROM image JOIN unnest(CAST(:images AS bigint[]), CAST(:image_times AS timestamptz[]))
            AS given (id, created_at) USING (id, created_at)
        WHERE collection_id = :collection
    )
    SELECT id, created_at, image_id
    FROM face
    WHERE id IN (
        SELECT id FROM named
        UNION SELECT id FROM face WHERE person_id = ANY(:persons)
        -- Whoever is nobody in a picture that was erased once went with it.
        UNION SELECT shown.id FROM face AS shown JOIN erased_image ON image_id = erased_image.id
            WHERE person_id IS NULL
    )
    ORDER BY id
    FOR UPDATE
""")
_IMAGES: Final = text("""
    SELECT id, created_at, sha256
    FROM image
    WHERE id = ANY(CAST(:images AS bigint[]))
        AND NOT EXISTS (
            SELECT FROM face
            WHERE image_id = image.id AND face.id <> ALL(CAST(:faces AS bigint[]))
        )
    ORDER BY id
    FOR UPDATE
""")
_SHARED: Final = text("""
    SELECT image.sha256
    FROM collection JOIN image ON image.collection_id = collection.id
    WHERE image.sha256 = ANY(:hashes) AND image.id <> ALL(CAST(:images AS bigint[]))
""")
_DELETES: Final = (
    """DELETE FROM person_event
        WHERE collection_id = :collection AND (persons && CAST(:persons AS bigint[])
            OR faces && CAST(:faces AS bigint[]))""",
    """DELETE FROM rejection
        WHERE face_id = ANY(CAST(:faces AS bigint[])) OR person_id = ANY(:persons)""",
    "DELETE FROM person_link WHERE one_id = ANY(:persons) OR two_id = ANY(:persons)",
    """DELETE FROM caption_vector USING caption
        WHERE caption_id = id AND face_id = ANY(CAST(:faces AS bigint[]))""",
    "DELETE FROM caption WHERE face_id = ANY(CAST(:faces AS bigint[]))",
    "DELETE FROM vector WHERE face_id = ANY(CAST(:faces AS bigint[]))",
    """DELETE FROM proposal
        WHERE face_id = ANY(CAST(:faces AS bigint[])) OR person_id = ANY(:persons)""",
    "DELETE FROM face WHERE id = ANY(CAST(:faces AS bigint[]))",
    "DELETE FROM image WHERE id = ANY(CAST(:images AS bigint[]))",
    "DELETE FROM person WHERE id = ANY(:persons)",
    """UPDATE marking SET
            faces = ARRAY(SELECT unnest(faces) EXCEPT SELECT unnest(CAST(:faces AS bigint[]))
                ORDER BY 1),
            opened = ARRAY(SELECT unnest(opened) EXCEPT SELECT unnest(CAST(:faces AS bigint[]))
                ORDER BY 1)
        WHERE collection_id = :collection AND (faces && CAST(:faces AS bigint[])
            OR opened && CAST(:faces AS bigint[]))""",
    # Both arrays at once: persons at the same place belong together.
    """UPDATE marking SET (ones, twos) = (
            SELECT coalesce(array_agg(one ORDER BY at), '{}'),
                coalesce(array_agg(two ORDER BY at), '{}')
            FROM unnest(ones, twos) WITH ORDINALITY AS pair (one, two, at)
            WHERE one <> ALL(CAST(:persons AS bigint[])) AND two <> ALL(CAST(:persons AS bigint[]))
        )
        WHERE collection_id = :collection AND (ones && CAST(:persons AS bigint[])
            OR twos && CAST(:persons AS bigint[]))""",
    """UPDATE imported_file SET faces = faces - CAST(:ranges AS int8multirange)
        WHERE collection_id = :collection AND faces && CAST(:ranges AS int8multirange)""",
)
_RANGES: Final = text("""
    SELECT coalesce(range_agg(int8range(id, id, '[]')), '{}')::text
    FROM unnest(CAST(:faces AS bigint[])) AS given (id)
""")
_RECORD: Final = text("""
    INSERT INTO erasure (id, collection_id, actor, erased)
    VALUES (:id, :collection, :actor, CAST(:erased AS jsonb))
""")
_ALL_IDS: Final = text("SELECT id FROM erasure")
_RECORDED: Final = text("SELECT id, collection_id, erased FROM erasure WHERE id = ANY(:ids)")
_UNCLEAN: Final = text("SELECT DISTINCT collection_id FROM erasure WHERE cleaned_at IS NULL")
_CLEANED: Final = text("""
    UPDATE erasure SET cleaned_at = now()
    WHERE collection_id = :collection AND cleaned_at IS NULL AND id = ANY(:ids)
""")
_FORGET_OTHERS: Final = text("""
    DELETE FROM snapshot WHERE collection_id = :collection AND id <> ALL(:kept)
""")
_UNCLEAN_OF: Final = text("""
    SELECT id FROM erasure WHERE collection_id = :collection AND cleaned_at IS NULL
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """A row's number, and when it was made: another row of that number is another thing."""

    id: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What one erasing removes, as the ledger remembers it: opaque numbers, no name, no hash."""

    id: str  # 32 hex digits, random
    collection_id: CollectionId
    persons: tuple[Stamped, ...]
    faces: tuple[Stamped, ...]
    images: tuple[Stamped, ...]  # those that show nobody else


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """An erasure as it is about to happen, its rows locked."""

    erasure: Erasure
    hashes: tuple[bytes, ...]  # sha256 of pictures that no image of any collection has besides


def of_person(connection: Connection, person: PersonId, *, collection: Collection) -> Doomed:
    """What erasing a person would remove; nothing is removed yet."""
    row = connection.execute(_CREATED, {"person": person}).one()
    seed = Erasure(
        id=secrets.token_hex(16),
        collection_id=collection.id,
        persons=(_stamped(row),),
        faces=(),
        images=(),
    )
    return found_again(connection, seed)


def found_again(connection: Connection, erasure: Erasure) -> Doomed:
    """What is there of an erasure: its persons with all their faces, its faces, its images.

    A face that is the person's now but was not when it was erased goes too: that it was taken off
    the person, or deleted, is among what a restore has forgotten.
    """
    persons = _locked(connection, _PERSONS, erasure, erasure.persons)
    image_ids, image_times = _columns(erasure.images)
    faces = _locked(
        connection,
        _FACES,
        erasure,
        erasure.faces,
        persons=[row.id for row in persons],
        images=image_ids,
        image_times=image_times,
    )
    shown = {row.image_id for row in faces if row.image_id is not None}
    wanted = {"images": sorted(shown), "faces": [row.id for row in faces]}
    images = connection.execute(_IMAGES, wanted).all()
    hashes = {bytes(row.sha256) for row in images}
    gone = {"hashes": sorted(hashes), "images": [row.id for row in images]}
    shared = {bytes(sha256) for sha256 in connection.scalars(_SHARED, gone)}
    there = Erasure(
        id=erasure.id,
        collection_id=erasure.collection_id,
        persons=tuple(map(_stamped, persons)),
        faces=tuple(map(_stamped, faces)),
        images=tuple(map(_stamped, images)),
    )
    return Doomed(erasure=there, hashes=tuple(sorted(hashes - shared)))


def erase_rows(connection: Connection, doomed: Doomed, *, remembered: Erasure) -> None:
    """Delete the rows, and remember the erasing; `remembered` is as the ledger has it."""
    erasure = doomed.erasure
    numbers: dict[str, Any] = {
        "collection": erasure.collection_id,
        "persons": [one.id for one in erasure.persons],
        "faces": [one.id for one in erasure.faces],
        "images": [one.id for one in erasure.images],
    }
    numbers["ranges"] = connection.scalar(_RANGES, {"faces": numbers["faces"]})
    for statement in _DELETES:
        connection.execute(text(statement), numbers)
    connection.execute(
        _RECORD,
        {
            "id": erasure.id,
            "collection": erasure.collection_id,
            "actor": audit.actor(),
            "erased": json.dumps(written(remembered)),
        },
    )


def written(erasure: Erasure) -> dict[str, list[tuple[str, list[int]]]]:
    """The numbers of an erasure by their times, in JSON's types: one batch has one time."""
    return {
        word: [
            (at.isoformat(), [one.id for one in made])
            for at, made in groupby(sorted(stamped, key=_when), key=attrgetter("created_at"))
        ]
        for word, stamped in (
            ("persons", erasure.persons),
            ("faces", erasure.faces),
            ("images", erasure.images),
        )
    }


def read(number: str, collection_id: int, erased: dict[str, list[Any]]) -> Erasure:
    """An erasure as `written` gave it."""
    stamped = {
        word: tuple(
            Stamped(id=one, created_at=datetime.fromisoformat(at))
            for at, ids in erased[word]
            for one in ids
        )
        for word in ("persons", "faces", "images")
    }
    return Erasure(id=number, collection_id=CollectionId(collection_id), **stamped)


def recorded_ids(connection: Connection) -> set[str]:
    """The erasures that the database knows."""
    return set(connection.scalars(_ALL_IDS))


def recorded(connection: Connection, ids: Sequence[str]) -> list[Erasure]:
    """Those of these erasures that the database knows."""
    rows = connection.execute(_RECORDED, {"ids": list(ids)})
    return [read(row.id, row.collection_id, row.erased) for row in rows]


def unclean_collections(connection: Connection) -> list[CollectionId]:
    """Collections whose index snapshots may still hold what was erased."""
    return [CollectionId(one) for one in connection.scalars(_UNCLEAN)]


def unclean_erasures(connection: Connection, collection_id: CollectionId) -> list[str]:
    """The erasures for which the collection's snapshots were not made anew yet."""
    return list(connection.scalars(_UNCLEAN_OF, {"collection": collection_id}))


def note_clean(
    connection: Connection, collection_id: CollectionId, ids: Sequence[str], *, kept: Sequence[str]
) -> None:
    """Remember that only the kept snapshots may be opened, and hold nothing of these erasures."""
    connection.execute(_FORGET_OTHERS, {"collection": collection_id, "kept": list(kept)})
    connection.execute(_CLEANED, {"collection": collection_id, "ids": list(ids)})


def _locked(
    connection: Connection,
    statement: TextClause,
    erasure: Erasure,
    stamped: Sequence[Stamped],
    **more: Any,
) -> Sequence[Row[Any]]:
    ids, times = _columns(stamped)
    wanted = {"collection": erasure.collection_id, "ids": ids, "times": times, **more}
    return connection.execute(statement, wanted).all()


def _when(stamped: Stamped) -> tuple[datetime, int]:
    return (stamped.created_at, stamped.id)


def _columns(stamped: Sequence[Stamped]) -> tuple[list[int], list[datetime]]:
    return [one.id for one in stamped], [one.created_at for one in stamped]


def _stamped(row: Row[Any]) -> Stamped:
    return Stamped(id=row.id, created_at=row.created_at)
