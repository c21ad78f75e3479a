"""Vectors and attributes out to Parquet, under the names that `import` reads them by.

One SELECT, so one moment of the store, streamed by Arrow: memory does not grow with the rows. The
file appears under its name when it is whole, or not at all. Importing it again gives the same file:
vectors and their lengths are kept bit for bit, `id` is the external id, `image` the picture's path
(of a picture inside an archive `archive!member`), `person` the name, `captions` those that were
stated, where there are any. What only this database can
know stays behind: its own numbers, the pictures, and which nameless faces belong to one person.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import ColumnElement, Label, Select, Text, cast, exists, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from indexer.bulk.files import whole
from indexer.bulk.schema import (
    CAPTIONS,
    ID,
    IMAGE,
    PERSON,
    POINTS,
    PROVENANCE,
    TYPED,
    VECTOR,
    VECTOR_NORM,
)
from retrieval.errors import StoreUnavailableError
from retrieval.fields import BUILT_IN, Fields
from retrieval.filters.tree import Filter
from retrieval.store.captions import STATED
from retrieval.store.collections import declared
from retrieval.store.database import Store
from retrieval.store.tables import caption, face, image, person, vector
from retrieval.store.where import FACES_WITH_PERSONS, compile_sql, field_columns, where
from retrieval.values import Collection, FieldType, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export did."""

    rows: int
    without_vector: int  # faces that passed, but have no vector in this space: not in the file
    space: str
    seconds: float


def export_file(
    store: Store, path: Path, *, collection: Collection, space: Space, where: Filter | None
) -> ExportReport:
    """Write the faces that pass the filter, with their vectors of one space, by face id.

    Raises:
        UsageError: the file's folder is not there, or may not be written to.
        FacedexError: the disk is full.
        StoreUnavailableError: the database went away.
    """
    started = perf_counter()
    with store.reading() as connection:
        fields = declared(connection, collection)
        missing = connection.execute(_missing(collection, space, where)).scalar_one()
        captioned = connection.scalar(select(exists().where(*_stated(collection))))
    schema = _schema(fields, space, captioned=bool(captioned))
    statement = compile_sql(_faces(fields, collection, space, where, captioned=bool(captioned)))
    rows = 0
    with whole(path) as staged, store.arrow() as arrow, arrow.cursor() as cursor:
        cursor.execute(statement)
        with pq.ParquetWriter(staged, schema, **_compactness(schema)) as writer:
            for batch in _batches(cursor):
                writer.write_batch(_as_ours(batch, schema))
                rows += len(batch)
    return ExportReport(
        rows=rows, without_vector=missing, space=space.name, seconds=perf_counter() - started
    )


def _compactness(schema: pa.Schema) -> dict[str, list[str]]:
    """Dictionaries for text alone, statistics for plain columns alone.

    The numbers of a vector do not repeat and nobody asks for their range. A dictionary would make
    reading them five times slower, and statistics the whole file's writing twice.
    """
    return {
        "use_dictionary": [field.name for field in schema if pa.types.is_string(field.type)],
        "write_statistics": [f.name for f in schema if not pa.types.is_nested(f.type)],
    }


def _batches(cursor: Any) -> Iterator[pa.RecordBatch]:
    try:
        yield from cursor.fetch_record_batch()
    except OSError as cause:  # all that Arrow's stream says of an error of the driver
        raise StoreUnavailableError(
            "the database stopped answering in the middle. Export again: no file was left"
        ) from cause


def _faces(
    fields: Fields, collection: Collection, space: Space, filter_: Filter | None, *, captioned: bool
) -> Select[Any]:
    """Columns in the order of `_schema`, with path and member of the image at the end."""
    typed = field_columns({name: BUILT_IN[name] for name in TYPED})
    columns: list[ColumnElement[Any]] = [
        face.c.external_id,
        vector.c.data,
        vector.c.norm,
        face.c.attributes[IMAGE].astext,
        person.c.name,
        *(face.c[name] for name in POINTS),
        *typed,
        cast(face.c.provenance, Text),
        *([_captions(collection)] if captioned else []),
        *field_columns(fields),
        image.c.path,
        image.c.member,
    ]
    numbered = [Label(f"column_{n}", column) for n, column in enumerate(columns)]
    return (
        select(*numbered)
        .select_from(
            FACES_WITH_PERSONS.join(vector, vector.c.face_id == face.c.id).outerjoin(
                image, image.c.id == face.c.image_id
            )
        )
        .where(vector.c.space_id == space.id, *_chosen(collection, filter_))
        .order_by(face.c.id)
    )


def _captions(collection: Collection) -> ColumnElement[Any]:
    """The stated captions of a face as text[], in one order wherever they lie; NULL without one."""
    said = caption.c.text.collate("C")
    found = select(func.array_agg(aggregate_order_by(caption.c.text, said)))
    return found.where(caption.c.face_id == face.c.id, *_stated(collection)).scalar_subquery()


def _stated(collection: Collection) -> list[ColumnElement[bool]]:
    """Captions that somebody stated; the others can be made again."""
    return [caption.c.collection_id == collection.id, caption.c.provider == STATED]


def _missing(collection: Collection, space: Space, filter_: Filter | None) -> Select[Any]:
    """How many faces pass and have no vector in the space."""
    there = exists().where(vector.c.face_id == face.c.id, vector.c.space_id == space.id)
    chosen = _chosen(collection, filter_)
    return select(func.count()).select_from(FACES_WITH_PERSONS).where(~there, *chosen)


def _chosen(collection: Collection, filter_: Filter | None) -> list[ColumnElement[bool]]:
    of_it = face.c.collection_id == collection.id
    return [of_it] if filter_ is None else [of_it, where(filter_)]


def _schema(fields: Fields, space: Space, *, captioned: bool) -> pa.Schema:
    """What a file of this collection and space looks like."""
    known: dict[str, pa.DataType] = {
        ID: pa.string(),
        VECTOR: pa.list_(pa.float16(), space.dimension),
        VECTOR_NORM: pa.float32(),
        IMAGE: pa.string(),
        PERSON: pa.string(),
        **{name: pa.list_(pa.float32(), count) for name, count in POINTS.items()},
        **{name: ARROW_TYPES[BUILT_IN[name]] for name in TYPED},
        PROVENANCE: pa.string(),
        **({CAPTIONS: pa.list_(pa.string())} if captioned else {}),
    }
    return pa.schema([*known.items(), *((name, ARROW_TYPES[t]) for name, t in fields.items())])


ARROW_TYPES: Final[dict[FieldType, pa.DataType]] = {
    FieldType.NUMBER: pa.float64(),
    FieldType.INTEGER: pa.int64(),
    FieldType.TEXT: pa.string(),
    FieldType.BOOLEAN: pa.bool_(),
    FieldType.TIMESTAMP: pa.timestamp("us", "UTC"),
    FieldType.TAGS: pa.list_(pa.string()),
}


def _as_ours(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    *columns, path, member = batch.columns
    place = {name: number for number, name in enumerate(schema.names)}
    columns[place[VECTOR]] = _halves(columns[place[VECTOR]], schema.field(VECTOR).type)
    columns[place[IMAGE]] = _told_paths(path, member, otherwise=columns[place[IMAGE]])
    for name in POINTS:
        columns[place[name]] = _points(columns[place[name]], schema.field(name).type)
    arrays = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _halves(data: pa.Array, type_: pa.DataType) -> pa.Array:
    """The bytes of float16 rows, which lie side by side, as fixed-size lists."""
    offsets = np.frombuffer(data.buffers()[1], np.int32)
    flat = pa.py_buffer(b"") if not len(data) else data.buffers()[2].slice(offsets[data.offset])
    count = len(data) * type_.list_size
    numbers = pa.Array.from_buffers(pa.float16(), count, [None, flat])
    return pa.FixedSizeListArray.from_arrays(numbers, type=type_)


def _points(lists: pa.Array, type_: pa.DataType) -> pa.Array:
    """Lists of one length, or NULL, as fixed-size lists."""
    return lists.cast(type_)


def _told_paths(path: pa.Array, member: pa.Array, *, otherwise: pa.Array) -> pa.Array:
    """Paths as text, `archive!member` in an archive; of imported faces what they came with."""
    if path.null_count == len(path):
        return otherwise
    try:
        told = path.cast(pa.string())  # this checks that it is UTF-8
    except pa.ArrowInvalid:
        spelt = (p if p is None else p.decode(errors="backslashreplace") for p in path.to_pylist())
        told = pa.array(spelt, pa.string())
    inside = pc.binary_join_element_wise(told, member, "!")
    return pc.coalesce(inside, told, otherwise)
