"""Collections, their declared attributes, and the spaces their vectors live in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import IntegrityError

from retrieval.errors import (
    SchemaMismatchError,
    SpaceMismatchError,
    UnknownNameError,
    UsageError,
)
from retrieval.fields import BUILT_IN, Fields, checked_attribute_name
from retrieval.limits import ATTRIBUTES_MAX, within
from retrieval.values import Collection, CollectionId, FieldType, Space, SpaceId

_COLLECTIONS: Final = "SELECT id, name, space_id, text_space_id, demographics FROM collection"
_SPACES: Final = "SELECT id, name, dimension, model_sha256, licence, commercial FROM space"
_INSERT_COLLECTION: Final = text("""
    INSERT INTO collection (name, demographics) VALUES (:name, :demographics)
    ON CONFLICT (name) DO NOTHING
""")
_OVERVIEW: Final = text("""
    SELECT collection.name, space.name AS space,
        (SELECT count(*) FROM image WHERE collection_id = collection.id) AS images,
        (SELECT count(*) FROM face WHERE collection_id = collection.id) AS faces
    FROM collection LEFT JOIN space ON space.id = collection.space_id
    ORDER BY collection.name
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A collection as a list of collections shows it."""

    name: str
    space: str | None
    images: int
    faces: int


def collections(connection: Connection) -> list[Collection]:
    """Every collection, by name."""
    rows = connection.execute(text(_COLLECTIONS + " ORDER BY name"))
    return [_collection(row) for row in rows]


def overview(connection: Connection) -> list[Overview]:
    """Every collection with its space and size, by name."""
    return [
        Overview(name=row.name, space=row.space, images=row.images, faces=row.faces)
        for row in connection.execute(_OVERVIEW)
    ]


def collection_named(connection: Connection, name: str) -> Collection:
    """The collection of that name, or UnknownNameError."""
    row = connection.execute(text(_COLLECTIONS + " WHERE name = :name"), {"name": name}).first()
    if row is None:
        known = ", ".join(one.name for one in collections(connection)) or "none yet"
        raise UnknownNameError(f"no collection '{name}'; there are: {known}")
    return _collection(row)


def collection_of_id(connection: Connection, number: CollectionId) -> Collection | None:
    """The collection of that number; None: it was dropped."""
    row = connection.execute(text(_COLLECTIONS + " WHERE id = :id"), {"id": number}).one_or_none()
    return None if row is None else _collection(row)


def collection_or_new(connection: Connection, name: str) -> Collection:
    """The collection of that name, made now where there is none."""
    _create(connection, name, demographics=False)
    return collection_named(connection, name)


def create_collection(connection: Connection, name: str, *, demographics: bool) -> Collection:
    """A new collection, or UsageError where the name is taken.

    Args:
        connection: an open transaction.
        name: letters, digits, '_', '.', '-', at most 63.
        demographics: whether age and gender are estimated for pictures to come.
    """
    if not _create(connection, name, demographics=demographics):
        raise UsageError(f"there is a collection '{name}' already")
    return collection_named(connection, name)


def drop_collection(connection: Connection, collection: Collection) -> None:
    """Delete a collection and everything in it."""
    # Set-wise and children first: cascades would go row by row.
    of_it = {"id": collection.id}
    for statement in (
        "DELETE FROM caption_vector USING caption WHERE caption_id = id AND collection_id = :id",
        "DELETE FROM caption WHERE collection_id = :id",
        "DELETE FROM vector USING face WHERE face_id = face.id AND collection_id = :id",
        "DELETE FROM face WHERE collection_id = :id",
        "DELETE FROM collection WHERE id = :id",
        "DELETE FROM face_change WHERE collection_id = :id",
        "DELETE FROM person_change WHERE collection_id = :id",
        "DELETE FROM caption_change WHERE collection_id = :id",
    ):
        connection.execute(text(statement), of_it)


def declared(connection: Connection, collection: Collection) -> Fields:
    """The attributes that the collection declared."""
    rows = connection.execute(
        text("SELECT name, type FROM attribute WHERE collection_id = :id ORDER BY name"),
        {"id": collection.id},
    )
    return {row.name: FieldType(row.type) for row in rows}


def fields_of(connection: Connection, collection: Collection) -> Fields:
    """All that a filter over this collection may name."""
    return {**BUILT_IN, **declared(connection, collection)}


def declare(
    connection: Connection, collection: Collection, attributes: Mapping[str, FieldType]
) -> None:
    """Declare attributes; those declared already must have the same type.

    Raises:
        SchemaMismatchError: a type differs from the declared one; every conflict is named.
        UsageError: a name that cannot be declared.
    """
    known = declared(connection, collection)
    conflicts = [
        f"'{name}' is declared as {known[name]}, not {type_}"
        for name, type_ in attributes.items()
        if known.get(name, type_) != type_
    ]
    if conflicts:
        raise SchemaMismatchError("; ".join(conflicts))
    new = [
        {"id": collection.id, "name": checked_attribute_name(name), "type": str(type_)}
        for name, type_ in attributes.items()
        if name not in known
    ]
    within(ATTRIBUTES_MAX, len(known) + len(new), what="the number of declared attributes")
    if new:
        connection.execute(
            text(
                "INSERT INTO attribute (collection_id, name, type) VALUES (:id, :name, :type)"
                " ON CONFLICT DO NOTHING"
            ),
            new,
        )


def spaces(connection: Connection) -> list[Space]:
    """Every space, by name."""
    return [_space(row) for row in connection.execute(text(_SPACES + " ORDER BY name"))]


def space_named(connection: Connection, name: str) -> Space:
    """The space of that name, or UnknownNameError."""
    row = connection.execute(text(_SPACES + " WHERE name = :name"), {"name": name}).first()
    if row is None:
        known = ", ".join(space.name for space in spaces(connection)) or "none yet"
        raise UnknownNameError(f"no space '{name}'; there are: {known}")
    return _space(row)


def space_of(connection: Connection, collection: Collection) -> Space:
    """The space in which the collection is searched, or UsageError while it has none."""
    if collection.space_id is None:
        raise UsageError(
            f"collection '{collection.name}' holds no face yet: `facedex ingest` or `import` first"
        )
    row = connection.execute(text(_SPACES + " WHERE id = :id"), {"id": collection.space_id}).one()
    return _space(row)


def text_space_of(connection: Connection, collection: Collection) -> Space:
    """The space in which words find the collection's faces, or UnknownNameError without one."""
    if collection.text_space_id is None:
        raise UnknownNameError(
            f"collection '{collection.name}' has no face-text space, so words find none of its"
            " faces: `facedex space add NAME --model FOLDER`, then `facedex space backfill`"
        )
    of_it = {"id": collection.text_space_id}
    return _space(connection.execute(text(_SPACES + " WHERE id = :id"), of_it).one())


def set_text_space(
    connection: Connection, collection: Collection, space: Space | None
) -> Collection:
    """Make a stored space, or none, the collection's face-text space; give the collection then.

    Vectors of the space before stay in the store, for whoever goes back to it.

    Raises:
        UsageError: it is the space of the collection's identities.
    """
    if space is not None and space.id == collection.space_id:
        raise UsageError(f"'{space.name}' is the space of identities of '{collection.name}'")
    row = connection.execute(
        text(
            "UPDATE collection SET text_space_id = :space WHERE id = :id"
            " RETURNING id, name, space_id, text_space_id, demographics"
        ),
        {"space": None if space is None else space.id, "id": collection.id},
    ).one()
    return _collection(row)


def space_or_new(connection: Connection, space: Space) -> Space:
    """The stored space of that name, made now where there is none (its id is ignored).

    Raises:
        SpaceMismatchError: the name stands for another model or another dimension.
    """
    connection.execute(
        text(
            "INSERT INTO space (name, dimension, model_sha256, licence, commercial)"
            " VALUES (:name, :dimension, :model_sha256, :licence, :commercial)"
            " ON CONFLICT (name) DO NOTHING"
        ),
        {
            "name": space.name,
            "dimension": space.dimension,
            "model_sha256": space.model_sha256,
            "licence": space.licence,
            "commercial": space.commercial,
        },
    )
    stored = space_named(connection, space.name)
    if (stored.dimension, stored.model_sha256) != (space.dimension, space.model_sha256):
        raise SpaceMismatchError(
            f"space '{space.name}' is another model here: {_told(stored)} is stored,"
            f" {_told(space)} was given; use another space name"
        )
    return stored


def search_in(connection: Connection, collection: Collection, space: Space) -> Collection:
    """Make `space` the one in which the collection is searched, if it has none yet."""
    row = connection.execute(
        text(
            "UPDATE collection SET space_id = coalesce(space_id, :space) WHERE id = :id"
            " RETURNING id, name, space_id, text_space_id, demographics"
        ),
        {"space": space.id, "id": collection.id},
    ).one()
    return _collection(row)


def _create(connection: Connection, name: str, *, demographics: bool) -> bool:
    """Whether the collection was made now."""
    values = {"name": name, "demographics": demographics}
    try:
        return connection.execute(_INSERT_COLLECTION, values).rowcount == 1
    except IntegrityError as cause:
        raise UsageError(
            f"'{name}' cannot name a collection: letters, digits, '_', '.', '-', at most 63"
        ) from cause


def _collection(row: Row[tuple[object, ...]]) -> Collection:
    return Collection(
        id=CollectionId(row.id),
        name=row.name,
        space_id=None if row.space_id is None else SpaceId(row.space_id),
        text_space_id=None if row.text_space_id is None else SpaceId(row.text_space_id),
        demographics=row.demographics,
    )


def _space(row: Row[tuple[object, ...]]) -> Space:
    return Space(
        id=SpaceId(row.id),
        name=row.name,
        dimension=row.dimension,
        model_sha256=row.model_sha256,
        licence=row.licence,
        commercial=row.commercial,
    )


def _told(space: Space) -> str:
    model = "an external model" if space.model_sha256 is None else f"model {space.model_sha256[:8]}"
    return f"{model} with {space.dimension} dimensions"
