"""The persons of a protected list, and the authentic pictures that they are known by.

A person is compared by its template, made as those of ordinary persons are (people/template.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NewType

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, text

from retrieval.errors import UnknownNameError
from retrieval.limits import PROTECTED_PERSONS_MAX, within
from retrieval.people.template import templates
from retrieval.store.people.reading import checked_name
from retrieval.values import Collection, HalfRows, Space

ProtectedId = NewType("ProtectedId", int)  # of a person on a list; no PersonId
PictureId = NewType("PictureId", int)
Numbers = npt.NDArray[np.int64]

_PICTURES: Final = text("""
    SELECT picture.id, picture.person_id, picture.quality, picture.data
    FROM protected.picture JOIN protected.person ON person.id = picture.person_id
    WHERE person.collection_id = :collection AND picture.space_id = :space
    ORDER BY picture.person_id, picture.id
""")
_BY_NAME: Final = text("""
    SELECT id FROM protected.person WHERE collection_id = :collection AND name = :name
""")
_BY_ID: Final = text("""
    SELECT id FROM protected.person WHERE collection_id = :collection AND id = :id
""")
_ADD_PERSON: Final = text("""
    INSERT INTO protected.person (collection_id, name) VALUES (:collection, :name)
    ON CONFLICT (collection_id, name) DO NOTHING
""")
_COUNT: Final = text("SELECT count(*) FROM protected.person WHERE collection_id = :collection")
_ADD_PICTURE: Final = text("""
    INSERT INTO protected.picture (person_id, space_id, sha256, path, quality, data)
    VALUES (:person, :space, :sha256, :path, :quality, :data)
    ON CONFLICT (person_id, space_id, sha256) DO NOTHING
""")
_REMOVE: Final = text("DELETE FROM protected.person WHERE id = :person")
_MEMBERS: Final = text("""
    SELECT id, name, created_at,
        (SELECT count(*) FROM protected.picture WHERE person_id = person.id) AS pictures,
        (SELECT count(*) FROM protected.alert WHERE person_id = person.id) AS alerts
    FROM protected.person
    WHERE collection_id = :collection
    ORDER BY id
""")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gallery:
    """Who is looked for, as arrays."""

    persons: Numbers  # (p,) ascending
    templates: HalfRows  # (p, d) of unit length
    pictures: Numbers  # (m,)
    owners: Numbers  # (m,) ascending: the person of each picture
    vectors: HalfRows  # (m, d) of unit length


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewPicture:
    """An authentic picture of a person, ready to be stored."""

    sha256: bytes
    path: bytes
    quality: float
    vector: npt.NDArray[np.float32]  # (d,) of unit length


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person on a list."""

    id: ProtectedId
    name: str
    created_at: datetime
    pictures: int
    alerts: int


def read_gallery(connection: Connection, *, collection: Collection, space: Space) -> Gallery:
    """The persons that have a picture in the space."""
    rows = connection.execute(_PICTURES, {"collection": collection.id, "space": space.id}).all()
    vectors = np.frombuffer(b"".join(row.data for row in rows), "<f2")
    vectors = vectors.reshape(len(rows), space.dimension)
    owners = np.array([row.person_id for row in rows], np.int64)
    persons, made = templates(vectors, np.array([row.quality for row in rows], float), owners)
    there = made.any(axis=1)  # pictures that cancel each other out point nowhere
    return Gallery(
        persons=persons[there],
        templates=made[there].astype("<f2"),
        pictures=np.array([row.id for row in rows], np.int64),
        owners=owners,
        vectors=vectors,
    )


def found(connection: Connection, who: str, *, collection: Collection) -> ProtectedId | None:
    """The person on the list that a name or `#id` means; None: there is none."""
    if who.startswith("#") and who[1:].isdecimal():
        by_id = {"collection": collection.id, "id": int(who[1:])}
        number: int | None = connection.scalar(_BY_ID, by_id)
    else:
        by_name = {"collection": collection.id, "name": checked_name(who)}
        number = connection.scalar(_BY_NAME, by_name)
    return None if number is None else ProtectedId(number)


def required(connection: Connection, who: str, *, collection: Collection) -> ProtectedId:
    """The person on the list that a name or `#id` means, or UnknownNameError."""
    person = found(connection, who, collection=collection)
    if person is None:
        raise UnknownNameError("nobody on the protected list is that: see `facedex protected list`")
    return person


def add_pictures(
    connection: Connection,
    pictures: Sequence[NewPicture],
    who: str,
    *,
    collection: Collection,
    space: Space,
) -> ProtectedId:
    """Give pictures to a person, put on the list where it is not; the same picture once.

    Raises:
        LimitExceededError: the list is full.
        UnknownNameError: `who` is a number that nobody has.
    """
    if not who.startswith("#"):
        name = checked_name(who)
        connection.execute(_ADD_PERSON, {"collection": collection.id, "name": name})
    count = int(connection.scalars(_COUNT, {"collection": collection.id}).one())
    within(PROTECTED_PERSONS_MAX, count, what="the number of persons on a protected list")
    person = required(connection, who, collection=collection)
    rows = [
        {
            "person": person,
            "space": space.id,
            "sha256": one.sha256,
            "path": one.path,
            "quality": one.quality,
            "data": np.ascontiguousarray(one.vector, "<f2").tobytes(),
        }
        for one in pictures
    ]
    connection.execute(_ADD_PICTURE, rows)
    return person


def remove(connection: Connection, person: ProtectedId) -> None:
    """Delete a person with its pictures and its alerts."""
    connection.execute(_REMOVE, {"person": person})


def members(connection: Connection, *, collection: Collection) -> list[Member]:
    """Everybody on the list, by number."""
    return [
        Member(
            id=ProtectedId(row.id),
            name=row.name,
            created_at=row.created_at,
            pictures=row.pictures,
            alerts=row.alerts,
        )
        for row in connection.execute(_MEMBERS, {"collection": collection.id})
    ]
