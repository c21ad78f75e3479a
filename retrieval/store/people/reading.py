"""Which person a name means, and what is known of persons."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from retrieval.errors import UnknownNameError, UsageError
from retrieval.limits import NAME_BYTES_MAX, within
from retrieval.values import Collection, FaceId, ImageId, PersonId

# A merged person's name and number go on to mean the survivor.
_BY_NAME: Final = text("""
    SELECT coalesce(merged_into, id) AS id
    FROM person
    WHERE collection_id = :collection AND name = :name
""")
_BY_ID: Final = text("""
    SELECT coalesce(merged_into, id) AS id
    FROM person
    WHERE collection_id = :collection AND id = :id
""")
_PERSONS: Final = text("""
    SELECT person.id, person.name, person.created_at,
        (SELECT count(*) FROM face WHERE face.person_id = person.id) AS faces,
        ARRAY(SELECT merged.id FROM person AS merged
            WHERE merged.merged_into = person.id ORDER BY 1) AS merged,
        ARRAY(SELECT merged.name FROM person AS merged
            WHERE merged.merged_into = person.id AND merged.name IS NOT NULL ORDER BY 1) AS aliases,
        ARRAY(SELECT CASE person.id WHEN one_id THEN two_id ELSE one_id END
            FROM person_link WHERE person.id IN (one_id, two_id) ORDER BY 1) AS links
    FROM person
    WHERE person.collection_id = :collection AND person.merged_into IS NULL
        AND person.id > :after AND (CAST(:id AS bigint) IS NULL OR person.id = :id)
    ORDER BY person.id
    LIMIT :limit
""")
_NAMES: Final = text("SELECT id, name FROM person WHERE id = ANY(:persons)")
_LINKS: Final = text("""
    SELECT CASE one_id WHEN :person THEN two_id ELSE one_id END
    FROM person_link
    WHERE :person IN (one_id, two_id)
    ORDER BY 1
""")
_ALL_LINKS: Final = text("""
    SELECT one_id, two_id
    FROM person_link JOIN person ON person.id = one_id
    WHERE person.collection_id = :collection
    ORDER BY one_id, two_id
""")
_FACES: Final = text("SELECT id FROM face WHERE person_id = :person ORDER BY id")
_REJECTED: Final = text("SELECT face_id FROM rejection WHERE person_id = :person ORDER BY face_id")
_SPACES: Final = text("""
    SELECT DISTINCT space.name
    FROM face
        JOIN vector ON vector.face_id = face.id
        JOIN space ON space.id = vector.space_id
    WHERE face.person_id = :person
    ORDER BY 1
""")
_IMAGES: Final = text("""
    SELECT id, sha256, path, member, bytes, width, height, format, created_at
    FROM image
    WHERE id IN (SELECT image_id FROM face WHERE person_id = :person)
    ORDER BY id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person and what belongs to it."""

    id: PersonId
    name: str | None
    created_at: datetime
    faces: int
    merged: tuple[PersonId, ...]  # persons that were merged into this one
    aliases: tuple[str, ...]  # their names
    links: tuple[PersonId, ...]  # other records of the same human


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonImage:
    """A picture that shows the person."""

    id: ImageId
    sha256: bytes
    path: bytes
    member: str | None
    bytes: int
    width: int
    height: int
    format: str
    created_at: datetime


def found(connection: Connection, who: str, *, collection: Collection) -> PersonId | None:
    """The person that a name or `#id` means; None: there is none.

    Raises:
        UsageError: `who` cannot name a person.
    """
    if (number := _number(who)) is not None:
        wanted: dict[str, Any] = {"collection": collection.id, "id": number}
        return connection.scalars(_BY_ID, wanted).one_or_none()
    wanted = {"collection": collection.id, "name": checked_name(who)}
    return connection.scalars(_BY_NAME, wanted).one_or_none()


def required(connection: Connection, who: str, *, collection: Collection) -> PersonId:
    """The person that a name or `#id` means, or UnknownNameError."""
    person = found(connection, who, collection=collection)
    if person is None:
        raise UnknownNameError(no_person(who, collection))
    return person


def no_person(who: str, collection: Collection) -> str:
    """What to tell someone who named a person that is not there. A name is not repeated."""
    what = "of that name" if _number(who) is None else who
    return f"no person {what} in collection '{collection.name}': see `facedex person list`"


def is_number(who: str) -> bool:
    """Whether `who` is a person's number, #12."""
    return _number(who) is not None


def checked_name(name: str) -> str:
    """Give the name back, or raise UsageError where it cannot name a person."""
    if not name.strip() or "\0" in name:
        raise UsageError("a person's name is empty, or holds a NUL")
    if name.startswith("#"):
        raise UsageError("'#' begins a person's number, as in #12; no name begins with it")
    within(NAME_BYTES_MAX, len(name.encode(errors="surrogatepass")), what="the length of a name")
    return name


def persons(
    connection: Connection, *, collection: Collection, after: int = 0, limit: int = 100
) -> list[Person]:
    """At most `limit` persons with an id above `after`, by id; merged ones stand in others."""
    wanted = {"collection": collection.id, "after": after, "id": None, "limit": limit}
    return [_person(row) for row in connection.execute(_PERSONS, wanted)]


def person(connection: Connection, number: PersonId, *, collection: Collection) -> Person:
    """The person of that number, which is there and not merged."""
    wanted = {"collection": collection.id, "after": 0, "id": number, "limit": 1}
    return _person(connection.execute(_PERSONS, wanted).one())


def names_of(connection: Connection, numbers: Sequence[PersonId]) -> dict[PersonId, str | None]:
    """The name of each person that is there."""
    rows = connection.execute(_NAMES, {"persons": list(numbers)})
    return {PersonId(row.id): row.name for row in rows}


def links_of(connection: Connection, number: PersonId) -> list[PersonId]:
    """The other records of the same human, ascending."""
    return list(connection.scalars(_LINKS, {"person": number}))


def all_links(connection: Connection, *, collection: Collection) -> list[tuple[int, int]]:
    """Every two records of the same human, the lower number first."""
    rows = connection.execute(_ALL_LINKS, {"collection": collection.id})
    return [(row.one_id, row.two_id) for row in rows]


def faces_of(connection: Connection, number: PersonId) -> list[FaceId]:
    """The faces of a person, ascending."""
    return list(connection.scalars(_FACES, {"person": number}))


def rejected_of(connection: Connection, number: PersonId) -> list[FaceId]:
    """The faces that are known not to be the person's, ascending."""
    return list(connection.scalars(_REJECTED, {"person": number}))


def spaces_of(connection: Connection, number: PersonId) -> list[str]:
    """The names of the spaces in which the person's faces have vectors."""
    return list(connection.scalars(_SPACES, {"person": number}))


def images_of(connection: Connection, number: PersonId) -> list[PersonImage]:
    """The pictures that show the person, by id."""
    rows: Sequence[Row[Any]] = connection.execute(_IMAGES, {"person": number}).all()
    return [PersonImage(**row._mapping) for row in rows]  # noqa: SLF001  (the public name of it)


def _number(who: str) -> int | None:
    digits = who[1:]
    if not (who.startswith("#") and digits.isascii() and digits.isdigit()):
        return None
    return min(int(digits[:20]), 2**63 - 1)


def _person(row: Row[Any]) -> Person:
    return Person(
        id=PersonId(row.id),
        name=row.name,
        created_at=row.created_at,
        faces=row.faces,
        merged=tuple(row.merged),
        aliases=tuple(row.aliases),
        links=tuple(row.links),
    )
