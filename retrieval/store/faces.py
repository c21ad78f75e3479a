"""Faces as people read and change them: listing, counting, updating, deleting by filter."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, func, select, text

from retrieval.errors import UnknownNameError, UsageError
from retrieval.fields import BUILT_IN, Fields, nearest_name
from retrieval.filters.tree import Filter
from retrieval.store import tables
from retrieval.store.images import json_value
from retrieval.store.people import operations
from retrieval.store.people.events import take_turn
from retrieval.store.where import FACES_WITH_PERSONS, where
from retrieval.values import (
    ORIGINS,
    Box,
    Collection,
    FaceId,
    FieldType,
    PersonId,
    Space,
    UnitRows,
    Value,
    unit_rows,
)

# What `update` may set besides declared attributes; the rest is measured or belongs to the store.
SETTABLE: Final = ("person", "age", "gender", "source", "origin", "captured_at", "track", "frame",
                   "tags")  # fmt: skip
_PARSERS: Final[Mapping[FieldType, Callable[[str], Value]]] = {
    FieldType.NUMBER: lambda written: _finite(float(written)),
    FieldType.INTEGER: int,
    FieldType.TEXT: str,
    FieldType.BOOLEAN: lambda written: {"true": True, "false": False}[written.lower()],
    FieldType.TIMESTAMP: lambda written: _in_utc(datetime.fromisoformat(written)),
    FieldType.TAGS: lambda written: tuple(part.strip() for part in written.split(",") if part),
}
_DESCRIBED: Final = tuple(
    name
    for name in BUILT_IN
    if name not in ("face", "external_id", "image_id", "person_id", "person")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRecord:
    """One face with all that is known of it but its vector."""

    face: FaceId
    external_id: str | None
    image: bytes | None  # path, as the file system spells it
    member: str | None  # name inside an archive
    person: str | None
    person_id: PersonId | None
    box: Box | None
    attributes: dict[str, Any]  # built-in ones that are known, then declared ones


def face_records(
    connection: Connection, faces: Sequence[FaceId], *, collection: Collection
) -> dict[FaceId, FaceRecord]:
    """The present records of these faces; one that is gone meanwhile is left out."""
    chosen = tables.face.c.id == func.any(list(faces))
    rows = connection.execute(_records(collection).where(chosen))
    return {record.face: record for record in map(_record, rows)}


def list_faces(
    connection: Connection,
    *,
    collection: Collection,
    filter_: Filter | None,
    after: FaceId,
    limit: int,
) -> list[FaceRecord]:
    """At most `limit` records with an id above `after`, by id."""
    statement = _records(collection).where(tables.face.c.id > after)
    if filter_ is not None:
        statement = statement.where(where(filter_))
    rows = connection.execute(statement.order_by(tables.face.c.id).limit(limit))
    return [_record(row) for row in rows]


def count_faces(connection: Connection, *, collection: Collection, filter_: Filter | None) -> int:
    """How many faces pass the filter."""
    statement = (
        select(func.count()).select_from(FACES_WITH_PERSONS).where(*_chosen(collection, filter_))
    )
    return connection.execute(statement).scalar_one()


def delete_faces(connection: Connection, *, collection: Collection, filter_: Filter) -> int:
    """Delete the faces that pass, and the images left without a face; give the faces' number."""
    chosen = _chosen_ids(connection, collection, filter_)
    ids = {"ids": chosen}
    # Their own first and set-wise: the cascade would go row by row.
    for statement in (
        "DELETE FROM caption_vector USING caption WHERE caption_id = id AND face_id = ANY(:ids)",
        "DELETE FROM caption WHERE face_id = ANY(:ids)",
        "DELETE FROM vector WHERE face_id = ANY(:ids)",
    ):
        connection.execute(text(statement), ids)
    images = connection.execute(
        text("DELETE FROM face WHERE id = ANY(:ids) RETURNING image_id"), ids
    )
    emptied = sorted({row.image_id for row in images if row.image_id is not None})
    connection.execute(
        text(
            "DELETE FROM image WHERE id = ANY(:images)"
            " AND NOT EXISTS (SELECT FROM face WHERE image_id = image.id)"
        ),
        {"images": emptied},
    )
    return len(chosen)


def update_faces(
    connection: Connection,
    changes: Mapping[str, Value],
    *,
    collection: Collection,
    filter_: Filter,
    fields: Fields,
) -> int:
    """Set fields of the faces that pass the filter; None clears one. Give their number.

    Setting `person` is the operation `assign` of persons, or `unassign`, with its event.

    Raises:
        UsageError: a field that is unknown, measured, or of another type than the value.
    """
    columns, attributes, cleared = _assignments(changes, fields)
    if "person" in changes:
        take_turn(connection, collection)
    chosen = _chosen_ids(connection, collection, filter_)
    if "person" in changes and chosen:
        _set_person(connection, chosen, changes["person"], collection=collection)
    _set_fields(connection, chosen, columns, attributes, cleared)
    return len(chosen)


def _set_person(
    connection: Connection, chosen: Sequence[FaceId], value: Value, *, collection: Collection
) -> None:
    if value is None:
        operations.unassign(connection, chosen, collection=collection)
    else:
        who = str(_of_type("person", value, FieldType.TEXT))
        operations.assign(connection, chosen, who, collection=collection)


def _set_fields(
    connection: Connection,
    chosen: Sequence[FaceId],
    columns: Mapping[str, Any],
    attributes: Mapping[str, Any],
    cleared: Sequence[str],
) -> None:
    parts = [f"{name} = :{name}" for name in columns]
    if attributes or cleared:
        parts.append(
            "attributes = (attributes || CAST(:attributes AS jsonb)) - CAST(:cleared AS text[])"
        )
    if "tags" in columns:
        # What somebody set is no model's guess, and no other model's guess takes its place.
        parts.append(
            "provenance = CASE WHEN provenance -> 'tags' IS NULL THEN provenance"
            " ELSE jsonb_set(provenance, '{tags,confidence}', '{}') END"
        )
    if not parts:
        return
    connection.execute(
        # Only names from SETTABLE reach the statement; values are bound.
        text(f"UPDATE face SET {', '.join(parts)} WHERE id = ANY(:ids)"),  # noqa: S608
        {
            **columns,
            "attributes": json.dumps(attributes),
            "cleared": list(cleared),
            "ids": list(chosen),
        },
    )


def parsed_value(name: str, written: str, fields: Fields) -> Value:
    """The value that a person typed for a field, by the field's type; "" is None.

    Raises:
        UsageError: the field is unknown, or the text is no value of its type.
    """
    if name not in fields:
        raise UsageError(_unknown(name, fields))
    if written == "":
        return None
    try:
        return _PARSERS[fields[name]](written)
    except (ValueError, KeyError) as cause:
        raise UsageError(f"'{name}' is {fields[name]}; '{written}' is not") from cause


def vector_of(
    connection: Connection, face: FaceId, *, collection: Collection, space: Space
) -> UnitRows:
    """The vector of one face, (1, d), or UnknownNameError."""
    row = connection.execute(
        text(
            "SELECT data FROM vector JOIN face ON face.id = face_id WHERE face_id = :face"
            " AND space_id = :space AND collection_id = :collection"
        ),
        {"face": face, "space": space.id, "collection": collection.id},
    ).first()
    if row is None:
        raise UnknownNameError(
            f"no face {face} with a vector of '{space.name}' in collection '{collection.name}'"
        )
    return unit_rows(np.frombuffer(row.data, dtype="<f2"), dimension=space.dimension)


def quality_of(connection: Connection, face: FaceId, *, collection: Collection) -> float | None:
    """The quality of one face, None where nothing is known of it, or UnknownNameError."""
    row = connection.execute(
        text("SELECT quality FROM face WHERE id = :face AND collection_id = :collection"),
        {"face": face, "collection": collection.id},
    ).one_or_none()
    if row is None:
        raise UnknownNameError(f"no face {face} in collection '{collection.name}'")
    return None if row.quality is None else float(row.quality)


def persons_passing(
    connection: Connection, *, collection: Collection, filter_: Filter
) -> set[PersonId]:
    """The persons with a captured face that passes the filter."""
    statement = (
        select(tables.face.c.person_id)
        .distinct()
        .select_from(FACES_WITH_PERSONS)
        .where(
            *_chosen(collection, filter_),
            tables.face.c.person_id.is_not(None),
            tables.face.c.origin == "captured",
        )
    )
    return set(connection.scalars(statement))


def _records(collection: Collection) -> Any:
    return (
        select(
            *(tables.face.c[name] for name in _DESCRIBED),
            tables.face.c.id,
            tables.face.c.external_id,
            tables.face.c.person_id,
            tables.face.c.box,
            tables.face.c.attributes,
            tables.person.c.name.label("person"),
            tables.image.c.path,
            tables.image.c.member,
        )
        .select_from(
            FACES_WITH_PERSONS.outerjoin(tables.image, tables.image.c.id == tables.face.c.image_id)
        )
        .where(tables.face.c.collection_id == collection.id)
    )


def _record(row: Row[Any]) -> FaceRecord:
    known = {name: value for name in _DESCRIBED if (value := getattr(row, name)) is not None}
    return FaceRecord(
        face=FaceId(row.id),
        external_id=row.external_id,
        image=row.path,
        member=row.member,
        person=row.person,
        person_id=None if row.person_id is None else PersonId(row.person_id),
        box=None if row.box is None else Box(**dict(zip(Box.__slots__, row.box, strict=True))),
        attributes=known | row.attributes,
    )


def _chosen(collection: Collection, filter_: Filter | None) -> list[ColumnElement[bool]]:
    of_it = tables.face.c.collection_id == collection.id
    return [of_it] if filter_ is None else [of_it, where(filter_)]


def _chosen_ids(connection: Connection, collection: Collection, filter_: Filter) -> list[FaceId]:
    """Ids that pass, locked in one order so that two writers never deadlock."""
    statement = (
        select(tables.face.c.id)
        .select_from(FACES_WITH_PERSONS)
        .where(*_chosen(collection, filter_))
        .order_by(tables.face.c.id)
        .with_for_update(of=tables.face)
    )
    return list(connection.execute(statement).scalars())


def _assignments(
    changes: Mapping[str, Value], fields: Fields
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Split changes into typed columns but `person`, declared attributes, attributes to clear."""
    columns: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    cleared: list[str] = []
    for name, value in changes.items():
        if name not in fields:
            raise UsageError(_unknown(name, fields))
        if name in BUILT_IN and name not in SETTABLE:
            raise UsageError(f"'{name}' is measured and cannot be set; {_settable()}")
        if name == "person":
            continue
        if name in BUILT_IN:
            columns[name] = _column_value(name, value, fields[name])
        elif value is None:
            cleared.append(name)
        else:
            attributes[name] = json_value(_of_type(name, value, fields[name]))
    return columns, attributes, cleared


def _column_value(name: str, value: Value, type_: FieldType) -> Any:
    if name == "origin" and value not in ORIGINS:
        raise UsageError(f"origin is one of {', '.join(ORIGINS)}")
    checked = None if value is None else _of_type(name, value, type_)
    return list(checked) if isinstance(checked, tuple) else checked


def _of_type(name: str, value: Value, type_: FieldType) -> Value:
    python: dict[FieldType, tuple[type, ...]] = {
        FieldType.NUMBER: (int, float),
        FieldType.INTEGER: (int,),
        FieldType.TEXT: (str,),
        FieldType.BOOLEAN: (bool,),
        FieldType.TIMESTAMP: (datetime,),
        FieldType.TAGS: (tuple,),
    }
    fits = isinstance(value, python[type_])
    if not fits or (isinstance(value, bool) and type_ is not FieldType.BOOLEAN):
        raise UsageError(f"'{name}' is {type_}; the value given is not")
    return value


def _unknown(name: str, fields: Fields) -> str:
    close = nearest_name(name, fields)
    hint = f"; did you mean '{close}'?" if close else ""
    return f"no field '{name}'{hint}; {_settable()} and what `facedex collection attributes` lists"


def _settable() -> str:
    return f"settable are {', '.join(SETTABLE)}"


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("numbers are finite")
    return number


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
