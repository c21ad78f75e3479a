"""What a reader of faces has not seen yet: everything at first, then the change log.

The log says which faces a transaction touched, never how, and a reader takes their present rows:
transactions commit in another order than they are numbered, so replaying operations in order of
their numbers leaves ghosts. A reader's cursor is the pg_snapshot it read in. New to it is what
that snapshot does not show, in whatever order it committed; log, rows and the next cursor come
out of one REPEATABLE READ transaction, so nothing falls between them. Applying changes twice is
harmless. (Rejected: all numbers below the oldest open transaction. One open session, on any
database of the server, would hide everybody's commits.)
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import psycopg
import pyarrow as pa
from adbc_driver_manager.dbapi import Cursor as AdbcCursor
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Label,
    Select,
    Table,
    Text,
    TextClause,
    case,
    cast,
    column,
    func,
    literal,
    null,
    select,
    text,
)

from retrieval.errors import CursorTooOldError, UnknownNameError
from retrieval.fields import Fields
from retrieval.filters.columns import ARROW_TYPES
from retrieval.store.database import Store, session_parameters, translating_store_errors
from retrieval.store.tables import PgSnapshot, face, vector
from retrieval.store.where import FACES_WITH_PERSONS, compile_sql, field_columns
from retrieval.values import Collection, Cursor, FaceIds, Space, Token

POLL_SECONDS_MAX: Final = 1.0  # a notification can be lost with its connection
BYTES_BESIDE_VECTOR: Final = 200  # of one row, about; it only sizes ADBC's batches
_CURSOR: Final = re.compile(r"\d+:\d+:[\d,]*")

CHANGED: Final = text("""
    SELECT DISTINCT unnest(face_ids) AS id
    FROM face_change
    WHERE collection_id = :collection_id
      AND xid >= pg_snapshot_xmin(CAST(:cursor AS pg_snapshot))
      AND NOT pg_visible_in_snapshot(xid, CAST(:cursor AS pg_snapshot))
    ORDER BY id  -- so that their rows are looked up in the order of the pages
""")
# `ours` is false for a cursor from the future: the database is a restored or another one.
STANDING: Final = text("""
    SELECT pg_current_snapshot()::text AS cursor,
        log_begins <= pg_snapshot_xmin(CAST(:cursor AS pg_snapshot)) AS reached,
        pg_snapshot_xmax(CAST(:cursor AS pg_snapshot)) <= pg_snapshot_xmax(pg_current_snapshot())
            AS ours
    FROM collection
    WHERE id = :collection_id
""")
# Below the oldest xmin of all kept watermarks, every snapshot shows every transaction. Row and
# boundary change in one statement, so no reader sees the one without the other.
PRUNE: Final = text("""
    WITH kept AS (
        SELECT pg_snapshot_xmin(watermark) AS begins
        FROM snapshot
        WHERE collection_id = :collection_id
        ORDER BY begins
        LIMIT 1
    ), moved AS (
        UPDATE collection SET log_begins = begins
        FROM kept
        WHERE id = :collection_id AND log_begins < begins
    ), persons AS (
        DELETE FROM person_change USING kept
        WHERE collection_id = :collection_id AND xid < begins
    ), captions AS (
        DELETE FROM caption_change USING kept
        WHERE collection_id = :collection_id AND xid < begins
    )
    DELETE FROM face_change USING kept
    WHERE collection_id = :collection_id AND xid < begins
""")
OLDEST_TRANSACTION: Final = text("""
    SELECT pid, state, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
    FROM pg_stat_activity
    WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    ORDER BY xact_start
    LIMIT 1
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """All that an index holds, faces for example, at one moment."""

    cursor: Cursor
    rows: int
    batches: Iterator[pa.RecordBatch]  # columns as in `arrow_schema`


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What became visible since a cursor."""

    cursor: Cursor  # for the next call
    changed: FaceIds  # ids, ascending; one without a row below is gone, or has no vector here
    rows: pa.Table  # columns as in `arrow_schema`; vector NULL: it is the one the reader has


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransaction:
    """A transaction that has not ended: nobody sees what it wrote, and VACUUM waits for it."""

    pid: int
    state: str | None  # None: of another user
    seconds: float


def read_everything(
    store: Store, *, collection: Collection, space: Space, fields: Fields, batch_rows: int
) -> AbstractContextManager[Everything]:
    """Stream all faces with their vectors, in batches of at most `batch_rows`, in no order."""
    faces = _faces(collection, space)
    return everything_of(store, faces, vector, space=space, fields=fields, batch_rows=batch_rows)


@contextmanager
def everything_of(
    store: Store,
    chosen: Select[Any],
    vectors: Table,
    *,
    space: Space,
    fields: Fields,
    batch_rows: int,
) -> Iterator[Everything]:
    """Stream the rows of a statement with their vectors.

    Args:
        store: where they are read from.
        chosen: gives a row's id, FROM tables that have all the fields and `vectors`.
        vectors: the table of their vectors, with columns `data` and `changed`.
        space: of the vectors.
        fields: the first one is the id.
        batch_rows: of a batch, at most.
    """
    rows = chosen.add_columns(vectors.c.data.label("vector"), *_others(fields))
    counted = chosen.with_only_columns(func.count()).scalar_subquery()
    moment = select(cast(func.pg_current_snapshot(), Text).label("cursor"), counted.label("rows"))
    with store.arrow() as connection, connection.cursor() as reading:
        found = table_of(reading, moment).to_pylist()[0]
        hint_batches(reading, rows=batch_rows, space=space)
        reading.execute(compile_sql(rows))
        batches = _sliced(reading.fetch_record_batch(), fields=fields, batch_rows=batch_rows)
        yield Everything(cursor=Cursor(found["cursor"]), rows=found["rows"], batches=batches)


def changes_since(
    store: Store, *, collection: Collection, space: Space, fields: Fields, cursor: Cursor
) -> Changes:
    """Which faces changed since the cursor, and how they are now.

    Raises:
        CursorTooOldError: the log was pruned beyond the cursor, or the cursor is of another
            database.
        UnknownNameError: the collection was dropped.
    """
    faces = _faces(collection, space)
    return changes_of(
        store, faces, vector, CHANGED, collection=collection, fields=fields, cursor=cursor
    )


def changes_of(
    store: Store,
    chosen: Select[Any],
    vectors: Table,
    changed_ids: TextClause,
    *,
    collection: Collection,
    fields: Fields,
    cursor: Cursor,
) -> Changes:
    """Which rows changed since the cursor, and how they are now; errors as of `changes_since`.

    Args:
        store: where they are read from.
        chosen: as in `everything_of`, and so are `vectors` and `fields`.
        vectors: the table of their vectors.
        changed_ids: gives ids as `id`, each once, of a `:collection_id` since a `:cursor`.
        collection: whose.
        fields: the first one is the id.
        cursor: what the reader has seen.
    """
    of_it = {"collection_id": collection.id, "cursor": checked(cursor)}
    changed = changed_ids.bindparams(**of_it).columns(column("id", BigInteger)).cte("changed")
    schema = arrow_schema(fields)
    with store.arrow() as connection, connection.cursor() as reading:
        now = standing(reading, cursor, collection)
        numbers = table_of(reading, select(changed.c.id).order_by(changed.c.id))["id"]
        rows = schema.empty_table()
        if len(numbers):
            [named] = chosen.exported_columns
            present = chosen.join(changed, changed.c.id == named.element)
            rows = table_of(
                reading, present.add_columns(_if_new(vectors, cursor), *_others(fields))
            )
        return Changes(cursor=now, changed=numbers.to_numpy(), rows=rows.cast(schema))


def prune(store: Store, *, collection: Collection) -> int:
    """Delete what every kept snapshot shows; give the number of faces' rows that went."""
    with store.writing() as connection:
        return connection.execute(PRUNE, {"collection_id": collection.id}).rowcount


def shows(cursor: Cursor, token: Token) -> bool:
    """Whether a reader at the cursor sees the write (or its transaction was rolled back).

    >>> [shows(Cursor("10:14:11,13"), Token(token)) for token in (9, 11, 12, 14)]
    [True, False, True, False]
    """
    xmin, xmax, open_ = checked(cursor).split(":")
    if token < int(xmin) or token >= int(xmax):
        return token < int(xmin)
    return str(token) not in open_.split(",")


@contextmanager
def listening(store: Store, *, collection: Collection) -> Iterator["Listener"]:
    """Hear of commits to a collection from here on."""
    with (
        translating_store_errors(),
        psycopg.connect(**session_parameters(store.url), autocommit=True) as connection,
    ):
        connection.execute("LISTEN face_change")
        yield Listener(connection, payload=str(collection.id))


class Listener:
    """A session that hears of commits to one collection."""

    def __init__(self, connection: psycopg.Connection[Any], *, payload: str) -> None:
        self._connection = connection
        self._payload = payload

    def wait(self, *, timeout_s: float = POLL_SECONDS_MAX) -> bool:
        """Return True at the first commit since the last call; False after `timeout_s`."""
        heard = self._connection.notifies(timeout=timeout_s)
        return any(notification.payload == self._payload for notification in heard)


def oldest_transaction(store: Store) -> OpenTransaction | None:
    """The transaction of any client that has been open for longest."""
    with store.reading() as connection:
        found = connection.execute(OLDEST_TRANSACTION).one_or_none()
    if found is None:
        return None
    return OpenTransaction(pid=found.pid, state=found.state, seconds=found.seconds)


def arrow_schema(fields: Fields) -> pa.Schema:
    """The columns of `Everything` and `Changes`: id (the first field), vector, other fields."""
    types = {name: ARROW_TYPES[type_] for name, type_ in fields.items()}
    return pa.schema({next(iter(fields)): pa.int64(), "vector": pa.binary(), **types})


def _faces(collection: Collection, space: Space) -> Select[Any]:
    """The faces of a collection that have a vector in a space; more columns may be added."""
    return (
        select(face.c.id.label("face"))
        .select_from(FACES_WITH_PERSONS)
        .join(vector, (vector.c.face_id == face.c.id) & (vector.c.space_id == space.id))
        .where(face.c.collection_id == collection.id)
    )


def _if_new(vectors: Table, cursor: Cursor) -> ColumnElement[Any]:
    """The vector, NULL where a reader at the cursor has it."""
    known = func.pg_visible_in_snapshot(vectors.c.changed, cast(literal(cursor), PgSnapshot))
    return case((known, null()), else_=vectors.c.data).label("vector")


def _others(fields: Fields) -> list[Label[Any]]:
    """The fields as columns, but for the first, the row's id, which `chosen` gives."""
    return field_columns(dict(islice(fields.items(), 1, None)))


def table_of(reading: AdbcCursor, statement: Select[Any] | TextClause) -> pa.Table:
    """All rows of a statement."""
    reading.execute(compile_sql(statement))  # type: ignore[arg-type]  # text compiles as well
    return reading.fetch_arrow_table()


def _sliced(
    batches: pa.RecordBatchReader, *, fields: Fields, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    schema = arrow_schema(fields)
    for batch in batches:
        for start in range(0, batch.num_rows, batch_rows):
            yield batch.slice(start, batch_rows).cast(schema)


def standing(reading: AdbcCursor, cursor: Cursor, collection: Collection) -> Cursor:
    """The next cursor of a reader at this one, if the log can lead it there.

    Raises:
        CursorTooOldError: the log was pruned beyond the cursor, or it is of another database.
        UnknownNameError: the collection was dropped.
    """
    of_it = {"collection_id": collection.id, "cursor": checked(cursor)}
    found = table_of(reading, STANDING.bindparams(**of_it)).to_pylist()
    if not found:
        raise UnknownNameError(f"the collection '{collection.name}' was dropped")
    if not found[0]["ours"]:
        raise CursorTooOldError(
            "this reader has seen more than the database holds: it was restored, or is another "
            "one. Open the index anew"
        )
    if not found[0]["reached"]:
        raise CursorTooOldError
    return Cursor(found[0]["cursor"])


def hint_batches(reading: AdbcCursor, *, rows: int, space: Space) -> None:
    """Ask the driver for batches of about so many rows with a vector."""
    size = rows * (2 * space.dimension + BYTES_BESIDE_VECTOR)
    reading.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(size)})


def checked(cursor: Cursor) -> Cursor:
    """Give a cursor back that can be one."""
    if not _CURSOR.fullmatch(cursor):
        raise ValueError(f"'{cursor}' is no pg_snapshot")
    return cursor
