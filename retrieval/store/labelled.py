"""Faces with their vectors and persons: what error rates and captions are measured on.

One SELECT, so one moment of the store. Everything is held at once: a million faces of 512
dimensions take 1 GiB on the way and 2 GiB as float32.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Label, Select, Text, cast, func, null, select

from retrieval.errors import UsageError
from retrieval.fields import Fields, nearest_name
from retrieval.filters.tree import Filter
from retrieval.store.changes import hint_batches
from retrieval.store.database import Store
from retrieval.store.tables import face, image, vector
from retrieval.store.where import FACES_WITH_PERSONS, compile_sql, field_expression, where
from retrieval.values import Collection, FaceIds, FieldType, Space, UnitRows, unit_rows

BATCH_ROWS: Final = 16_384
GROUPING: Final = (FieldType.TEXT, FieldType.BOOLEAN, FieldType.INTEGER)
# Each of these says who somebody is: groups of them are persons, not groups.
IDENTIFYING: Final = frozenset({"face", "external_id", "image_id", "person", "person_id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Faces by person and then by face; n rows everywhere."""

    vectors: UnitRows  # (n, d)
    faces: FaceIds  # (n,)
    persons: npt.NDArray[np.int64]  # (n,) ascending
    quality: npt.NDArray[np.float64]  # (n,) 0 to 1, NaN where unknown
    images: tuple[str | None, ...]  # path, `archive!member` inside an archive; None: imported
    groups: tuple[str | None, ...]  # value of the grouping field; None: unknown

    def __len__(self) -> int:
        return len(self.faces)


def read_labelled(
    store: Store,
    *,
    collection: Collection,
    space: Space,
    filter_: Filter | None,
    group: Label[Any] | None = None,
) -> Labelled:
    """The faces that pass the filter, have a person, and have a vector in the space.

    `group` is what `checked_group` made of the grouping field.
    """
    statement = _faces(collection, space, filter_, group).where(face.c.person_id.is_not(None))
    return _read(store, statement, space)


def read_everybody(
    store: Store,
    *,
    collection: Collection,
    space: Space,
    filter_: Filter | None,
    group: Label[Any] | None = None,
) -> Labelled:
    """The same with faces of unknown person: each is a person of its own, below zero."""
    return _read(store, _faces(collection, space, filter_, group), space)


def _read(store: Store, statement: Select[Any], space: Space) -> Labelled:
    with store.arrow() as connection, connection.cursor() as reading:
        hint_batches(reading, rows=BATCH_ROWS, space=space)
        reading.execute(compile_sql(statement))
        table = reading.fetch_arrow_table()
    return _labelled(table, space)


def checked_group(name: str, fields: Fields) -> Label[Any]:
    """The column of a field that may divide faces into groups, as text.

    Raises:
        UsageError: no such field, one of numbers, times or tags, or one that names a person.
    """
    if name not in fields:
        near = nearest_name(name, fields)
        hint = f"; did you mean '{near}'?" if near else f"; there are {', '.join(fields)}"
        raise UsageError(f"no field is called '{name}'{hint}")
    if name in IDENTIFYING:
        raise UsageError(f"'{name}' says who somebody is: group by a field that persons share")
    if fields[name] not in GROUPING:
        raise UsageError(
            f"'{name}' holds {fields[name]}: group by text, integer or boolean, such as an age band"
        )
    return cast(field_expression(name, fields[name]), Text).label("group")


def _faces(
    collection: Collection, space: Space, filter_: Filter | None, group: Label[Any] | None
) -> Select[Any]:
    chosen = [] if filter_ is None else [where(filter_)]
    person = func.coalesce(face.c.person_id, -face.c.id)
    return (
        select(
            face.c.id.label("face"),
            person.label("person"),
            face.c.quality.label("quality"),
            vector.c.data.label("vector"),
            image.c.path.label("path"),
            image.c.member.label("member"),
            cast(null(), Text).label("group") if group is None else group,
        )
        .select_from(
            FACES_WITH_PERSONS.join(vector, vector.c.face_id == face.c.id).outerjoin(
                image, image.c.id == face.c.image_id
            )
        )
        .where(
            face.c.collection_id == collection.id,
            vector.c.space_id == space.id,
            *chosen,
        )
        .order_by(person, face.c.id)
    )


def _labelled(table: pa.Table, space: Space) -> Labelled:
    joined = b"".join(table["vector"].to_pylist())
    raw = np.frombuffer(joined, "<f2").reshape(len(table), space.dimension)
    quality = pc.fill_null(table["quality"].cast(pa.float64()), np.nan)
    return Labelled(
        vectors=unit_rows(raw) if len(table) else UnitRows(raw.astype(np.float32)),
        faces=table["face"].to_numpy(),
        persons=table["person"].to_numpy(),
        quality=quality.to_numpy(),
        images=tuple(map(_told, table["path"].to_pylist(), table["member"].to_pylist())),
        groups=tuple(table["group"].to_pylist()),
    )


def _told(path: bytes | None, member: str | None) -> str | None:
    if path is None:
        return None
    told = path.decode(errors="backslashreplace")
    return f"{told}!{member}" if member else told
