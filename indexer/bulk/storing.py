"""A chunk of encoded rows into the tables, in the transaction of the caller.

New faces go in by COPY. Faces that exist already go by COPY into temporary tables and change in
place: only what differs is written, so that putting in the same rows twice changes nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import IntegrityError
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError as WrappedIntegrityError

from indexer.bulk import arrow_copy, ledger
from indexer.bulk.encoding import Chunk, attribute_keys, face_columns
from indexer.bulk.ledger import FileInStore
from indexer.bulk.schema import Layout
from retrieval.errors import StoreConflictError
from retrieval.store.captions import STATED, NewCaption, add_captions
from retrieval.store.database import copy
from retrieval.store.images import persons_named
from retrieval.values import Collection, FaceId, FaceIds

VECTOR_COLUMNS: Final = ("face_id", "space_id", "data", "norm")
ATTRIBUTES: Final = "attributes"
KEPT: Final = ("id", "collection_id", "external_id")  # a face that changes keeps them
NO_FACE: Final = 0  # identities begin at 1

Mask = npt.NDArray[np.bool_]

_IDS: Final = text("""
    SELECT coalesce(string_agg(int8send(nextval(identity)), ''), '')
    FROM (SELECT CAST(pg_get_serial_sequence('face', 'id') AS regclass) OFFSET 0) AS of (identity),
        generate_series(1, :count)
""")
# The sub-select hides the array from the planner, which else weighs each of its values (1 us a row)
# and, while a table has no statistics, may prefer to read all of it.
_PRESENT: Final = text("""
    SELECT external_id, id FROM face
    WHERE collection_id = :collection
        AND external_id = ANY (CAST((SELECT CAST(:ids AS text[])) AS text[]))
""")
_MAY_SILENCE: Final = text("SELECT current_setting('is_superuser')")
_HOLD_COLLECTION: Final = text("SELECT id FROM collection WHERE id = ANY (:ids) FOR KEY SHARE")
_HOLD_SPACE: Final = text("SELECT id FROM space WHERE id = ANY (:ids) FOR KEY SHARE")
_HOLD_PERSONS: Final = text("SELECT id FROM person WHERE id = ANY (:ids) ORDER BY id FOR KEY SHARE")
_SILENCE: Final = text("SET LOCAL session_replication_role = replica")
_SPEAK: Final = text("SET LOCAL session_replication_role = origin")
_GIVEN_VECTORS: Final = text("""
    CREATE TEMPORARY TABLE given_vector ON COMMIT DROP AS
    SELECT face_id, space_id, data, norm FROM vector WITH NO DATA
""")
_CHANGE_VECTORS: Final = text("""
    INSERT INTO vector (face_id, space_id, data, norm)
    SELECT face_id, space_id, data, norm FROM given_vector ORDER BY face_id
    ON CONFLICT (face_id, space_id) DO UPDATE SET data = excluded.data, norm = excluded.norm
    WHERE (vector.data, vector.norm) IS DISTINCT FROM (excluded.data, excluded.norm)
""")

_DROP_OTHERS: Final = text("""
    DELETE FROM caption
    WHERE face_id = ANY (:faces) AND provider = :provider AND id <> ALL (:kept)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Rows of a chunk with their numbers in the store."""

    faces: FaceIds
    persons: pa.Array | None  # int64; None: the file names nobody
    chunk: Chunk

    def only(self, mask: Mask) -> "_Rows":
        """The rows that are marked."""
        if mask.all():
            return self
        marked = pa.array(mask)
        return _Rows(
            faces=self.faces[mask],
            persons=None if self.persons is None else self.persons.filter(marked),
            chunk=self.chunk.only(marked),
        )


def store_chunk(connection: Connection, chunk: Chunk, *, file: FileInStore, layout: Layout) -> int:
    """Write a chunk; give how many of its rows replaced an earlier one of the same id.

    Raises:
        StoreConflictError: another writer puts in the same faces, or the same file.
    """
    last = _last_of_each_id(chunk)
    faces = _present(connection, last, collection=file.collection)
    new = faces == NO_FACE
    faces[new] = _fresh_ids(connection, int(new.sum()))
    ledger.advance(
        connection,
        file,
        before=chunk.first_row,
        after=chunk.end_row,
        nameless=faces[_nameless(last)],
    )
    persons = _person_ids(connection, last, collection=file.collection)
    rows = _Rows(faces=faces, persons=persons, chunk=last)
    try:
        _insert(connection, rows.only(new), file=file, layout=layout)
        _change(connection, rows.only(~new), layout)
        _caption(connection, rows, collection=file.collection)
    except (IntegrityError, WrappedIntegrityError) as cause:
        raise StoreConflictError from cause
    return len(chunk) - int(new.sum())


def _nameless(chunk: Chunk) -> Mask:
    if chunk.ids is None:
        return np.ones(len(chunk), dtype=np.bool_)
    nameless: Mask = chunk.ids.is_null().to_numpy(zero_copy_only=False)
    return nameless


def _last_of_each_id(chunk: Chunk) -> Chunk:
    """Without the rows whose id comes again: the last wins, as it would in a later chunk."""
    if chunk.ids is None or pc.count_distinct(chunk.ids).as_py() == len(chunk.ids.drop_null()):
        return chunk
    codes = chunk.ids.dictionary_encode(null_encoding="encode").indices.to_numpy()
    newest = np.zeros(int(codes.max()) + 1, dtype=np.int64)
    np.maximum.at(newest, codes, np.arange(len(codes)))
    return chunk.only(pa.array((newest[codes] == np.arange(len(codes))) | _nameless(chunk)))


def _present(connection: Connection, chunk: Chunk, *, collection: Collection) -> FaceIds:
    """The face of each row's id, or NO_FACE."""
    faces = np.full(len(chunk), NO_FACE, dtype=np.int64)
    if chunk.ids is not None and chunk.ids.null_count < len(chunk):
        asked = {"ids": chunk.ids.to_pylist(), "collection": collection.id}
        found = {row.external_id: row.id for row in connection.execute(_PRESENT, asked)}
        if found:
            faces[:] = [found.get(id_, NO_FACE) for id_ in asked["ids"]]
    return faces


def _fresh_ids(connection: Connection, count: int) -> FaceIds:
    """Numbers that no other writer gets. Unused ones are lost, which harms nobody."""
    packed = connection.scalar(_IDS, {"count": count})
    return np.frombuffer(packed or b"", dtype=">i8").astype(np.int64)


def _person_ids(connection: Connection, chunk: Chunk, *, collection: Collection) -> pa.Array | None:
    """The person of each row, made where there is none."""
    if chunk.persons is None:
        return None
    names = chunk.persons.dictionary_encode()
    ids = persons_named(connection, names.dictionary.to_pylist(), collection=collection)
    known = pa.array([ids[name] for name in names.dictionary.to_pylist()], pa.int64())
    return known.take(names.indices)


def _insert(connection: Connection, rows: _Rows, *, file: FileInStore, layout: Layout) -> None:
    if len(rows.faces):
        with _keys_checked_at_once(connection, rows, file=file):
            _copy_into(connection, "face", face_columns(layout), _face_wire(rows, layout))
            _copy_into(connection, "vector", VECTOR_COLUMNS, _vector_wire(rows))


@contextmanager
def _keys_checked_at_once(
    connection: Connection, rows: _Rows, *, file: FileInStore
) -> Iterator[None]:
    """Check foreign keys for the whole chunk, with the locks that their triggers take row by row.

    The triggers take half of the server's time: 24 of 45 us a row. What they would look up is known
    here: one collection, one space, some persons, and the faces of this very transaction. Only a
    superuser may silence them; other triggers of these tables fire ALWAYS (0001_foundation.py).
    """
    if connection.scalar(_MAY_SILENCE) != "on":
        yield
        return
    persons = [] if rows.persons is None else pc.unique(rows.persons.drop_null()).to_pylist()
    for statement, ids in (
        (_HOLD_COLLECTION, [file.collection.id]),
        (_HOLD_SPACE, [file.space.id]),
        (_HOLD_PERSONS, persons),
    ):
        if ids and len(connection.execute(statement, {"ids": ids}).all()) != len(ids):
            raise StoreConflictError("what these faces belong to was deleted. Run it again")
    connection.execute(_SILENCE)
    yield
    connection.execute(_SPEAK)


def _change(connection: Connection, rows: _Rows, layout: Layout) -> None:
    if not len(rows.faces):
        return
    columns = face_columns(layout)
    connection.execute(text(_given_faces(columns)))
    connection.execute(_GIVEN_VECTORS)
    _copy_into(connection, "given_face", columns, _face_wire(rows, layout))
    _copy_into(connection, "given_vector", VECTOR_COLUMNS, _vector_wire(rows))
    keys = attribute_keys(layout)
    if changed := [name for name in columns if name not in KEPT and (name != ATTRIBUTES or keys)]:
        connection.execute(text(_change_faces(changed)), {"keys": keys} if keys else {})
    connection.execute(_CHANGE_VECTORS)


def _caption(connection: Connection, rows: _Rows, *, collection: Collection) -> None:
    """Let the faces have the stated captions of the file, and no others that were stated."""
    lists = rows.chunk.captions
    if lists is None:
        return
    owners = rows.faces[pc.list_parent_indices(lists).to_numpy()].tolist()
    said = zip(owners, pc.list_flatten(lists).to_pylist(), strict=True)
    captions = [NewCaption(face=FaceId(face), text=one) for face, one in said]
    kept = add_captions(connection, captions, collection=collection)
    named = {"faces": rows.faces.tolist(), "kept": kept, "provider": STATED}
    connection.execute(_DROP_OTHERS, named)


def _copy_into(connection: Connection, table: str, columns: Sequence[str], wire: pa.Array) -> None:
    # Names come from this module and from the schema's constants, never from a file.
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)"
    with copy(connection) as cursor, cursor.copy(statement) as sink:
        for piece in arrow_copy.stream(wire):
            sink.write(piece)


def _face_wire(rows: _Rows, layout: Layout) -> pa.Array:
    persons = [] if rows.persons is None else [arrow_copy.int8(rows.persons)]
    numbers = [arrow_copy.int8(pa.array(rows.faces)), *persons]
    return arrow_copy.rows(len(face_columns(layout)), [*numbers, (rows.chunk.faces,)])


def _vector_wire(rows: _Rows) -> pa.Array:
    faces = arrow_copy.int8(pa.array(rows.faces))
    return arrow_copy.rows(len(VECTOR_COLUMNS), [faces, (rows.chunk.vectors,)])


def _given_faces(columns: Sequence[str]) -> str:
    chosen = f"SELECT {', '.join(columns)} FROM face WITH NO DATA"  # noqa: S608
    return f"CREATE TEMPORARY TABLE given_face ON COMMIT DROP AS {chosen}"


def _change_faces(columns: Sequence[str]) -> str:
    """Fields that the file has take its values, NULL included; other attributes stay."""
    # Names come from the schema's constants, never from a file.
    merged = "(face.attributes - CAST(:keys AS text[])) || given.attributes"
    given = ", ".join(merged if name == ATTRIBUTES else f"given.{name}" for name in columns)
    held = ", ".join(f"face.{name}" for name in columns)
    return (
        f"UPDATE face SET ({', '.join(columns)}) = ROW({given})"  # noqa: S608
        f" FROM given_face AS given WHERE face.id = given.id"
        f" AND ROW({held}) IS DISTINCT FROM ROW({given})"
    )
