"""What an index holds of a collection in one space: faces, captions, or a template of each person.

All are read in the same two ways, everything at first and then what changed since a cursor, so
one reader, one builder and one search serve all. The first field of each is the number of a row.
A caption has the fields of its face besides: a filter over faces is one over captions, too.

A template is no row of the store: it is made here of the faces that a person has, in the
transaction that reads them. So an index shows a template in the same moment as the assignment
behind it, and there is nothing that could drift.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol, assert_never

import numpy as np
import pyarrow as pa
from sqlalchemy import BigInteger, Select, Text, cast, column, func, select, text

from retrieval.fields import Fields
from retrieval.people.template import Doubles, PersonIds, templates
from retrieval.store import changes
from retrieval.store.changes import Changes, Everything, standing, table_of
from retrieval.store.collections import fields_of, space_of, text_space_of
from retrieval.store.database import Store
from retrieval.store.snapshots import PublishedSnapshot, published_snapshots
from retrieval.store.tables import caption, caption_vector, face, vector
from retrieval.store.vectors import binary_rows, half_rows
from retrieval.store.where import FACES_WITH_PERSONS, compile_sql
from retrieval.values import Collection, Cursor, FieldType, Space

# A template's id is that of its person, in the field that every index names its rows by.
PERSON_FIELDS: Final[Fields] = {"face": FieldType.INTEGER, "faces": FieldType.INTEGER}
CHANGED_PERSONS: Final = text("""
    SELECT DISTINCT unnest(person_ids) AS person
    FROM person_change
    WHERE collection_id = :collection_id
      AND xid >= pg_snapshot_xmin(CAST(:cursor AS pg_snapshot))
      AND NOT pg_visible_in_snapshot(xid, CAST(:cursor AS pg_snapshot))
""")
# Those that changed, and those of faces that did: a caption has the fields of its face.
CHANGED_CAPTIONS: Final = text("""
    WITH faces AS (
        SELECT DISTINCT unnest(face_ids) AS id
        FROM face_change
        WHERE collection_id = :collection_id
          AND xid >= pg_snapshot_xmin(CAST(:cursor AS pg_snapshot))
          AND NOT pg_visible_in_snapshot(xid, CAST(:cursor AS pg_snapshot))
    )
    SELECT unnest(caption_ids) AS id
    FROM caption_change
    WHERE collection_id = :collection_id
      AND xid >= pg_snapshot_xmin(CAST(:cursor AS pg_snapshot))
      AND NOT pg_visible_in_snapshot(xid, CAST(:cursor AS pg_snapshot))
    UNION
    SELECT caption.id FROM faces JOIN caption ON caption.face_id = faces.id
    ORDER BY id
""")


class Kind(StrEnum):
    """What one row of an index is, and with it the space of the index."""

    FACES = "faces"  # in the space of identities
    PERSONS = "persons"  # templates of faces in the space of identities
    LOOKS = "looks"  # faces in the face-text space: what they look like, in words
    CAPTIONS = "captions"  # sentences about faces, in the face-text space


class Holding(Protocol):
    """What an index is built of and follows."""

    @property
    def store(self) -> Store:
        """Where it is read from."""
        ...

    @property
    def collection(self) -> Collection:
        """Whose."""
        ...

    @property
    def space(self) -> Space:
        """Of which vectors."""
        ...

    @property
    def kind(self) -> Kind:
        """What one row is."""
        ...

    def at(self, store: Store) -> "Holding":
        """The same, read from another store."""
        ...

    def fields(self) -> Fields:
        """What a filter may name, as of now."""
        ...

    def everything(self, fields: Fields, *, batch_rows: int) -> AbstractContextManager[Everything]:
        """All rows at one moment, in batches of at most `batch_rows`."""
        ...

    def since(self, cursor: Cursor, fields: Fields) -> Changes:
        """Which rows changed since the cursor, and how they are now.

        Raises:
            CursorTooOldError: the log does not lead there; everything has to be read again.
            UnknownNameError: the collection was dropped.
        """
        ...


def kinds_of(collection: Collection) -> tuple[Kind, ...]:
    """The kinds of index that a collection has once it has faces."""
    if collection.text_space_id is None:
        return (Kind.FACES, Kind.PERSONS)
    return tuple(Kind)


def holding_of(store: Store, collection: Collection, kind: Kind) -> Holding:
    """What an index of that kind holds.

    Raises:
        UsageError: the collection has no face yet, and so no space.
        UnknownNameError: it has no face-text space.
    """
    space_of_kind = space_of if kind in (Kind.FACES, Kind.PERSONS) else text_space_of
    with store.reading() as connection:
        space = space_of_kind(connection, collection)
    match kind:
        case Kind.FACES | Kind.LOOKS:
            return Faces(store, collection, space, kind)
        case Kind.PERSONS:
            return Persons(store, collection, space)
        case Kind.CAPTIONS:
            return Captions(store, collection, space)
        case _:
            assert_never(kind)


def label_of(holding: Holding) -> str:
    """How snapshots and their folders name what they hold."""
    name = holding.space.name
    return name if holding.kind is Kind.FACES else f"{name} {holding.kind}"


def published(holding: Holding) -> tuple[PublishedSnapshot, ...]:
    """The snapshots of it that may be opened, newest first."""
    with holding.store.reading() as connection:
        return published_snapshots(
            connection, collection=holding.collection, space=holding.space, kind=holding.kind
        )


@dataclass(frozen=True, slots=True)
class Faces:
    """Every face that has a vector in the space, with all its fields."""

    store: Store
    collection: Collection
    space: Space
    kind: Kind = Kind.FACES

    def at(self, store: Store) -> "Faces":
        """The same, read from another store."""
        return replace(self, store=store)

    def fields(self) -> Fields:
        """Those of every face, and those that the collection declared."""
        with self.store.reading() as connection:
            return fields_of(connection, self.collection)

    def everything(self, fields: Fields, *, batch_rows: int) -> AbstractContextManager[Everything]:
        """All faces, in no order."""
        return changes.read_everything(
            self.store,
            collection=self.collection,
            space=self.space,
            fields=fields,
            batch_rows=batch_rows,
        )

    def since(self, cursor: Cursor, fields: Fields) -> Changes:
        """The faces that changed."""
        return changes.changes_since(
            self.store, collection=self.collection, space=self.space, fields=fields, cursor=cursor
        )


@dataclass(frozen=True, slots=True)
class Captions:
    """Every caption that has a vector in the space: its number, and all fields of its face."""

    store: Store
    collection: Collection
    space: Space
    kind: Kind = Kind.CAPTIONS

    def at(self, store: Store) -> "Captions":
        """The same, read from another store."""
        return replace(self, store=store)

    def fields(self) -> Fields:
        """The caption's number, and the fields of its face."""
        with self.store.reading() as connection:
            of_face = dict(fields_of(connection, self.collection))
        of_face.pop("caption", None)  # may have been declared before there were captions
        return {"caption": FieldType.INTEGER, **of_face}

    def everything(self, fields: Fields, *, batch_rows: int) -> AbstractContextManager[Everything]:
        """All captions, in no order."""
        return changes.everything_of(
            self.store,
            self._chosen(),
            caption_vector,
            space=self.space,
            fields=fields,
            batch_rows=batch_rows,
        )

    def since(self, cursor: Cursor, fields: Fields) -> Changes:
        """The captions that changed, and those of faces that did."""
        return changes.changes_of(
            self.store,
            self._chosen(),
            caption_vector,
            CHANGED_CAPTIONS,
            collection=self.collection,
            fields=fields,
            cursor=cursor,
        )

    def _chosen(self) -> Select[Any]:
        of_caption = caption_vector.c.caption_id == caption.c.id
        in_space = caption_vector.c.space_id == self.space.id
        return (
            select(caption.c.id.label("caption"))
            .select_from(FACES_WITH_PERSONS)
            .join(caption, caption.c.face_id == face.c.id)
            .join(caption_vector, of_caption & in_space)
            .where(
                face.c.collection_id == self.collection.id,
                caption.c.collection_id == self.collection.id,
            )
        )


@dataclass(frozen=True, slots=True)
class Persons:
    """A template for each person that has a captured face with a vector in the space."""

    store: Store
    collection: Collection
    space: Space
    kind: Kind = Kind.PERSONS

    def at(self, store: Store) -> "Persons":
        """The same, read from another store."""
        return replace(self, store=store)

    def fields(self) -> Fields:
        """The person's id and its number of faces."""
        return PERSON_FIELDS

    @contextmanager
    def everything(self, fields: Fields, *, batch_rows: int) -> Iterator[Everything]:
        """All templates, by person."""
        del fields  # always PERSON_FIELDS
        faces = _faces(self.collection, self.space)
        counted = faces.with_only_columns(func.count(face.c.person_id.distinct()))
        moment = select(cast(func.pg_current_snapshot(), Text))
        with self.store.arrow() as connection, connection.cursor() as reading:
            cursor = Cursor(table_of(reading, moment).column(0)[0].as_py())
            rows = table_of(reading, counted).column(0)[0].as_py()
            changes.hint_batches(reading, rows=batch_rows, space=self.space)
            reading.execute(compile_sql(_in_order(faces)))
            made = _made(reading.fetch_record_batch(), dimension=self.space.dimension)
            yield Everything(cursor=cursor, rows=rows, batches=made)

    def since(self, cursor: Cursor, fields: Fields) -> Changes:
        """The persons whose faces changed."""
        del fields
        of_it = {"collection_id": self.collection.id, "cursor": changes.checked(cursor)}
        changed = CHANGED_PERSONS.bindparams(**of_it).columns(column("person", BigInteger))
        persons = changed.cte("changed")
        with self.store.arrow() as connection, connection.cursor() as reading:
            now = standing(reading, cursor, self.collection)
            numbers = table_of(reading, select(persons.c.person).order_by(persons.c.person))
            rows = SCHEMA.empty_table()
            if numbers.num_rows:
                mine = _faces(self.collection, self.space).join(
                    persons, persons.c.person == face.c.person_id
                )
                found = table_of(reading, _in_order(mine))
                made = _made(found.to_batches(), dimension=self.space.dimension)
                rows = pa.Table.from_batches(made, schema=SCHEMA)
            return Changes(cursor=now, changed=numbers["person"].to_numpy(), rows=rows)


SCHEMA: Final = changes.arrow_schema(PERSON_FIELDS)


def _faces(collection: Collection, space: Space) -> Select[Any]:
    """The faces that templates are made of, with what making them needs."""
    return (
        select(face.c.person_id, face.c.quality, vector.c.data)
        .select_from(face)
        .join(vector, (vector.c.face_id == face.c.id) & (vector.c.space_id == space.id))
        .where(
            face.c.collection_id == collection.id,
            face.c.person_id.is_not(None),
            face.c.origin == "captured",
        )
    )


def _in_order(faces: Select[Any]) -> Select[Any]:
    # Sums depend on their order, and equal faces have to give equal bits.
    return faces.order_by(face.c.person_id, face.c.id)


def _made(batches: Iterable[pa.RecordBatch], *, dimension: int) -> Iterator[pa.RecordBatch]:
    """Templates of faces that come by person; a person may lie across batches."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        last = batch.column("person_id")[-1]
        begin = batch.column("person_id").index(last).as_py()
        if begin:
            yield _templates([*waiting, batch.slice(0, begin)], dimension=dimension)
            waiting = [batch.slice(begin)]
        elif waiting and waiting[-1].column("person_id")[-1] != last:
            yield _templates(waiting, dimension=dimension)
            waiting = [batch]
        else:
            waiting.append(batch)
    if waiting:
        yield _templates(waiting, dimension=dimension)


def _templates(batches: list[pa.RecordBatch], *, dimension: int) -> pa.RecordBatch:
    faces = pa.Table.from_batches(batches)
    persons: PersonIds = faces["person_id"].to_numpy()
    quality: Doubles = faces["quality"].cast(pa.float64()).to_numpy()  # NULL is NaN
    vectors = half_rows(faces["data"], dimension=dimension)
    names, rows = templates(vectors, quality, persons)
    counts = np.unique(persons, return_counts=True)[1]
    return pa.record_batch(
        [pa.array(names), binary_rows(rows.astype("<f2")), pa.array(counts)], schema=SCHEMA
    )
