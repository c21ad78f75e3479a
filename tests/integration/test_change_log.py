"""The change log against writers that do everything PostgreSQL lets them do."""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from sqlalchemy import text

from retrieval.errors import CursorTooOldError, UnknownNameError
from retrieval.fields import BUILT_IN
from retrieval.store import changes as log
from retrieval.store.database import Store, token
from retrieval.store.where import compile_sql
from retrieval.values import (
    Collection,
    CollectionId,
    Cursor,
    FieldType,
    Space,
    SpaceId,
    Token,
)

DIMENSION = 8
FIELDS = {**BUILT_IN, "shelf": FieldType.TEXT}
Row = dict[str, Any]
Database = psycopg.Connection[Any]

FACES = range(1, 301)
IMAGES = range(1, 31)
PERSONS = range(1, 11)
WRITERS = 8
SECONDS = 12.0


@dataclass
class Reader:
    """What an index would hold: every face as far as the log has told."""

    store: Store
    collection: Collection
    space: Space
    cursor: Cursor
    rows: dict[int, Row] = field(default_factory=dict)

    @classmethod
    def at_present(cls, store: Store, collection: Collection, space: Space) -> "Reader":
        cursor, rows = everything(store, collection, space)
        return cls(store, collection, space, cursor, rows)

    def advance(self, store: Any = None) -> log.Changes:
        """Apply what is new; `store` may pin the moment."""
        found = log.changes_since(
            store or self.store,
            collection=self.collection,
            space=self.space,
            fields=FIELDS,
            cursor=self.cursor,
        )
        present = {row["face"]: row for row in found.rows.to_pylist()}
        assert len(present) == found.rows.num_rows, "a face came twice"
        assert (np.diff(found.changed) > 0).all(), "a face is named twice"
        assert set(present) <= set(found.changed.tolist()), "a face came that did not change"
        for face in found.changed.tolist():
            before = self.rows.pop(face, None)
            if (now := present.get(face)) is not None:
                if now["vector"] is None:
                    assert before is not None, "the vector of an unknown face was left out"
                    now["vector"] = before["vector"]
                self.rows[face] = now
        self.cursor = found.cursor
        return found


@dataclass
class OneMoment:
    """A store whose every read happens in one transaction, so that two reads can be compared."""

    connection: Any

    @contextmanager
    def arrow(self) -> Iterator[Any]:
        yield self.connection


def everything(store: Any, collection: Collection, space: Space) -> tuple[Cursor, dict[int, Row]]:
    with log.read_everything(
        store, collection=collection, space=space, fields=FIELDS, batch_rows=50
    ) as read:
        batches = list(read.batches)
        table = pa.Table.from_batches(batches, schema=log.arrow_schema(FIELDS))
        assert table.num_rows == read.rows
        assert all(batch.num_rows <= 50 for batch in batches)
        return read.cursor, {row["face"]: row for row in table.to_pylist()}


@pytest.fixture
def space(store: Store) -> Space:
    with store.writing() as connection:
        number = connection.scalar(
            text(
                "INSERT INTO space (name, dimension, licence, commercial)"
                " VALUES ('test@1', 8, 'none', true) RETURNING id"
            )
        )
    return Space(
        id=SpaceId(number or 0),
        name="test@1",
        dimension=DIMENSION,
        model_sha256=None,
        licence="none",
        commercial=True,
    )


def new_collection(store: Store, name: str, space: Space) -> Collection:
    with store.writing() as connection:
        number = connection.scalar(
            text("INSERT INTO collection (name) VALUES (:name) RETURNING id"), {"name": name}
        )
        connection.execute(
            text("INSERT INTO attribute VALUES (:id, 'shelf', 'text')"), {"id": number}
        )
    return Collection(
        id=CollectionId(number or 0),
        name=name,
        space_id=space.id,
        text_space_id=None,
        demographics=False,
    )


@pytest.fixture
def collection(store: Store, space: Space) -> Collection:
    return new_collection(store, "gallery", space)


@pytest.fixture
def sql(database_url: str) -> Iterator[Database]:
    """Somebody's psql: every statement a transaction of its own."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def vector_bytes(seed: int) -> bytes:
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype("<f2").tobytes()


def insert_face(sql: Database, collection: Collection, space: Space, face: int = 1) -> None:
    sql.execute(
        'INSERT INTO face (id, collection_id, attributes) VALUES (%s, %s, \'{"shelf": "a"}\')',
        (face, collection.id),
    )
    sql.execute(
        "INSERT INTO vector (face_id, space_id, data) VALUES (%s, %s, %s)",
        (face, space.id, vector_bytes(face)),
    )


def changed_by(reader: Reader, sql: Database, statement: str) -> list[int]:
    """The faces that the log names for one statement, after checking the reader's rows."""
    sql.execute(statement)  # type: ignore[call-overload]
    changed = reader.advance().changed.tolist()
    assert reader.rows == everything(reader.store, reader.collection, reader.space)[1]
    return list(changed)


# One statement at a time

UPSERT = """
    INSERT INTO face (id, collection_id) VALUES (3, 1), (4, 1)
    ON CONFLICT (id) DO UPDATE SET quality = 1
"""
MERGE = """
    MERGE INTO face USING (VALUES (1), (7)) AS wanted (id) ON face.id = wanted.id
    WHEN MATCHED THEN DELETE
    WHEN NOT MATCHED THEN INSERT (id, collection_id) VALUES (wanted.id, 1)
"""
MOVE_VECTOR = """
    WITH moved AS (DELETE FROM vector WHERE face_id = 1 RETURNING data, space_id)
    INSERT INTO vector (face_id, space_id, data) SELECT 4, space_id, data FROM moved
"""


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("UPDATE face SET quality = 0.5 WHERE id = 1", [1]),
        ("UPDATE face SET quality = 0.5 WHERE id = 99", []),
        ("UPDATE vector SET data = decode('00', 'hex') WHERE face_id IN (1, 2)", [1, 2]),
        ("DELETE FROM vector WHERE face_id = 2", [2]),
        ("DELETE FROM face WHERE id = 2", [2]),
        ("DELETE FROM image", [1, 2]),
        ("UPDATE person SET name = 'somebody else'", [2, 3]),
        ("UPDATE person SET name = name", []),
        ("DELETE FROM person", [2, 3]),
        (UPSERT, [3, 4]),
        (MERGE, [1, 7]),
        (MOVE_VECTOR, [1, 4]),
        ("SET session_replication_role = replica; UPDATE face SET age = 30 WHERE id = 1", [1]),
        ("UPDATE collection SET demographics = true", []),
    ],
)
def test_each_statement_is_logged_with_the_faces_it_changed(
    store: Store,
    collection: Collection,
    space: Space,
    sql: Database,
    statement: str,
    changed: list[int],
) -> None:
    sql.execute(
        """
        INSERT INTO image (collection_id, sha256, path, bytes, width, height, format)
            VALUES (1, sha256('x'), 'x', 1, 1, 1, 'JPEG');
        INSERT INTO person (collection_id, name) VALUES (1, 'somebody');
        INSERT INTO face (id, collection_id, image_id, person_id)
            VALUES (1, 1, 1, NULL), (2, 1, 1, 1), (3, 1, NULL, 1), (4, 1, NULL, NULL);
        INSERT INTO vector (face_id, space_id, data)
            SELECT i, 1, decode('0102', 'hex') FROM generate_series(1, 3) AS i
        """
    )
    reader = Reader.at_present(store, collection, space)
    assert sorted(reader.rows) == [1, 2, 3]
    assert changed_by(reader, sql, statement) == changed


def test_an_unchanged_vector_is_not_sent_again_and_a_changed_one_is(
    store: Store, collection: Collection, space: Space, sql: Database
) -> None:
    insert_face(sql, collection, space)
    reader = Reader.at_present(store, collection, space)
    sql.execute("UPDATE face SET quality = 0.5")
    assert reader.advance().rows.to_pylist()[0]["vector"] is None
    sql.execute("UPDATE vector SET data = %s", (vector_bytes(7),))
    row = reader.advance().rows.to_pylist()[0]
    assert (row["vector"], row["quality"], row["shelf"]) == (vector_bytes(7), 0.5, "a")


def test_a_face_of_another_collection_or_space_is_not_read(
    store: Store, collection: Collection, space: Space, sql: Database
) -> None:
    other = new_collection(store, "other", space)
    reader = Reader.at_present(store, collection, space)
    insert_face(sql, other, space, face=5)
    assert reader.advance().changed.tolist() == []
    insert_face(sql, collection, space, face=6)
    sql.execute("DELETE FROM face WHERE id = 6")
    insert_face(sql, other, space, face=6)  # the same number, in the other collection now
    assert reader.advance().changed.tolist() == [6]
    assert reader.rows == {}


def test_truncating_faces_or_vectors_is_refused(
    collection: Collection, space: Space, sql: Database
) -> None:
    insert_face(sql, collection, space)
    for statement in ("TRUNCATE face CASCADE", "TRUNCATE vector", "TRUNCATE person CASCADE"):
        with pytest.raises(psycopg.errors.RaiseException, match=r"TRUNCATE would hide"):
            sql.execute(statement)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE face SET id = 2",
        "UPDATE face SET collection_id = 2",
        "UPDATE vector SET face_id = 2",
        "UPDATE vector SET space_id = 2",
    ],
)
def test_moving_a_face_or_a_vector_to_another_id_is_refused(
    store: Store, collection: Collection, space: Space, sql: Database, statement: str
) -> None:
    new_collection(store, "other", space)
    insert_face(sql, collection, space)
    with pytest.raises(psycopg.errors.RaiseException, match="keeps its ids"):
        sql.execute(statement)  # type: ignore[call-overload]


# Cursors and tokens


def test_a_long_open_transaction_hides_nobody_else_and_is_seen_when_it_commits(
    store: Store, collection: Collection, space: Space, sql: Database, database_url: str
) -> None:
    for face in (1, 2):
        insert_face(sql, collection, space, face)
    with psycopg.connect(database_url) as slow:
        slow.execute("UPDATE face SET quality = 0.1 WHERE id = 1")
        reader = Reader.at_present(store, collection, space)  # the slow one is open in its cursor
        for quality in (0.2, 0.3):
            sql.execute("UPDATE face SET quality = %s WHERE id = 2", (quality,))
            assert reader.advance().changed.tolist() == [2]
        assert reader.advance().changed.tolist() == []
        slow.commit()
    assert reader.advance().changed.tolist() == [1]
    assert [reader.rows[face]["quality"] for face in (1, 2)] == [0.1, 0.3]


def test_a_savepoint_writes_under_the_number_of_its_transaction(
    store: Store, collection: Collection, space: Space, sql: Database
) -> None:
    insert_face(sql, collection, space)
    reader = Reader.at_present(store, collection, space)
    with store.writing() as connection:
        outside = token(connection)
        with connection.begin_nested():
            assert token(connection) == outside
            connection.execute(text("UPDATE face SET quality = 1"))
        logged = connection.scalar(text("SELECT max(xid)::text FROM face_change"))
    assert int(logged or 0) == outside
    assert not log.shows(reader.cursor, outside)
    reader.advance()
    assert log.shows(reader.cursor, outside)


def test_a_cursor_shows_exactly_what_postgresql_says_it_shows(sql: Database) -> None:
    choose = random.Random(3)
    for _ in range(200):
        xmin = choose.randint(3, 50)
        xmax = xmin + choose.randint(0, 20)
        open_ = [number for number in range(xmin, xmax) if choose.random() < 0.4]
        if open_ and open_[0] != xmin:
            open_.insert(0, xmin)
        cursor = Cursor(f"{xmin}:{xmax}:{','.join(map(str, open_))}")
        numbers = list(range(max(xmin - 2, 0), xmax + 3))
        truth = sql.execute(
            "SELECT pg_visible_in_snapshot(n::text::xid8, %s::pg_snapshot)"
            " FROM unnest(%s::bigint[]) AS n",
            (cursor, numbers),
        ).fetchall()
        assert [log.shows(cursor, Token(n)) for n in numbers] == [row[0] for row in truth]


def test_pruning_keeps_what_a_kept_snapshot_lacks_and_refuses_older_cursors(
    store: Store, collection: Collection, space: Space, sql: Database
) -> None:
    insert_face(sql, collection, space)
    early = Reader.at_present(store, collection, space)
    assert log.prune(store, collection=collection) == 0  # no snapshot, so nobody has them
    sql.execute("UPDATE face SET quality = 0.1")
    snapshot = Reader.at_present(store, collection, space)
    sql.execute(
        "INSERT INTO snapshot (id, collection_id, space_id, watermark, rows)"
        " VALUES ('one', %s, %s, %s, 1)",
        (collection.id, space.id, snapshot.cursor),
    )
    sql.execute("UPDATE face SET quality = 0.2")
    assert log.prune(store, collection=collection) == 3  # face, vector, the first update
    assert log.prune(store, collection=collection) == 0
    with pytest.raises(CursorTooOldError, match="Open the index anew"):
        early.advance()
    assert snapshot.advance().changed.tolist() == [1]
    assert snapshot.rows[1]["quality"] == 0.2


def test_the_log_is_not_pruned_beyond_a_transaction_that_a_snapshot_did_not_see_end(
    store: Store, collection: Collection, space: Space, sql: Database, database_url: str
) -> None:
    insert_face(sql, collection, space)
    with psycopg.connect(database_url) as slow:
        slow.execute("UPDATE face SET quality = 0.1")
        snapshot = Reader.at_present(store, collection, space)
        slow.commit()
    sql.execute(
        "INSERT INTO snapshot (id, collection_id, space_id, watermark, rows)"
        " VALUES ('one', %s, %s, %s, 1)",
        (collection.id, space.id, snapshot.cursor),
    )
    log.prune(store, collection=collection)
    snapshot.advance()
    assert snapshot.rows[1]["quality"] == 0.1


def test_a_cursor_of_a_later_database_and_a_dropped_collection_are_refused(
    store: Store, collection: Collection, space: Space, sql: Database
) -> None:
    reader = Reader.at_present(store, collection, space)
    reader.cursor = Cursor("900000000:900000000:")
    with pytest.raises(CursorTooOldError, match="restored"):
        reader.advance()
    sql.execute("DELETE FROM collection")
    with pytest.raises(UnknownNameError, match="dropped"):
        reader.advance()


def test_a_commit_wakes_a_listener_and_one_elsewhere_or_rolled_back_does_not(
    store: Store, collection: Collection, space: Space, sql: Database, database_url: str
) -> None:
    other = new_collection(store, "other", space)
    with log.listening(store, collection=collection) as listener:
        insert_face(sql, other, space, face=5)
        with psycopg.connect(database_url) as given_up:
            insert_face(given_up, collection, space, face=6)
            given_up.rollback()
        assert not listener.wait(timeout_s=0.1)
        timer = threading.Timer(0.1, insert_face, (sql, collection, space, 1))
        timer.start()
        begun = time.perf_counter()
        assert listener.wait(timeout_s=10)
        assert time.perf_counter() - begun < 5
        timer.join()


def test_the_oldest_open_transaction_is_named(store: Store, database_url: str) -> None:
    assert log.oldest_transaction(store) is None
    with psycopg.connect(database_url) as slow, psycopg.connect(database_url) as fast:
        slow.execute("SELECT 1")
        fast.execute("SELECT 1")
        found = log.oldest_transaction(store)
        assert found is not None
        assert found.pid == slow.info.backend_pid
        assert found.state == "idle in transaction"
        assert 0 <= found.seconds < 30


def test_the_change_query_walks_the_index_of_a_long_log(
    collection: Collection, sql: Database
) -> None:
    sql.execute(
        "INSERT INTO face_change (xid, collection_id, face_ids)"
        " SELECT (3 + i / 400)::text::xid8, %s, ARRAY[i] FROM generate_series(1, 200000) AS i",
        (collection.id,),
    )
    sql.execute("ANALYZE face_change")
    ((now,),) = sql.execute("SELECT pg_current_snapshot()::text").fetchall()
    query = compile_sql(
        log.CHANGED.bindparams(collection_id=collection.id, cursor=now)  # type: ignore[arg-type]
    )
    plan = "\n".join(row[0] for row in sql.execute("EXPLAIN " + query))  # type: ignore[call-overload]
    assert "face_change_cursor" in plan
    assert "Seq Scan" not in plan


# All at once


STATEMENTS = (
    "DELETE FROM face WHERE id = ANY(%(faces)s)",
    "UPDATE face SET quality = random() WHERE id = ANY(%(faces)s)",
    """
    UPDATE face SET attributes = jsonb_build_object('shelf', %(name)s::text),
        tags = ARRAY[%(name)s::text]
    WHERE id = ANY(%(faces)s)
    """,
    """
    UPDATE face SET image_id = (SELECT id FROM image WHERE id = %(image)s),
        person_id = (SELECT id FROM person WHERE id = %(person)s)
    WHERE id = ANY(%(faces)s)
    """,
    "UPDATE vector SET data = %(data)s WHERE face_id = ANY(%(faces)s)",
    "DELETE FROM vector WHERE face_id = ANY(%(faces)s)",
    """
    INSERT INTO vector (face_id, space_id, data)
        SELECT id, %(space)s, %(data)s FROM face WHERE id = ANY(%(faces)s)
    ON CONFLICT (face_id, space_id) DO UPDATE SET data = excluded.data
    """,
    "UPDATE person SET name = %(name)s WHERE id = %(person)s",
    "DELETE FROM person WHERE id = %(person)s",
    """
    INSERT INTO person (id, collection_id, name) OVERRIDING SYSTEM VALUE
    VALUES (%(person)s, %(collection)s, %(name)s) ON CONFLICT DO NOTHING
    """,
    "DELETE FROM image WHERE id = %(image)s",
    """
    INSERT INTO image (id, collection_id, sha256, path, bytes, width, height, format)
        OVERRIDING SYSTEM VALUE
    VALUES (%(image)s, %(collection)s, sha256(%(data)s), 'x', 1, 1, 1, 'JPEG')
    ON CONFLICT DO NOTHING
    """,
)
REFUSED = (psycopg.errors.IntegrityError, psycopg.OperationalError)  # locks time out, too


class GiveUp(Exception):  # noqa: N818
    """A writer changed its mind."""


@dataclass
class Writer:
    """Somebody who does anything to anything, and often changes his mind."""

    sql: Database
    choose: random.Random
    collection: Collection
    space: Space
    commits: int = 0

    def work(self, stop: threading.Event) -> int:
        self.sql.execute("SET deadlock_timeout = '20ms'; SET lock_timeout = '100ms'")
        while not stop.is_set():
            with suppress(GiveUp, *REFUSED):
                with self.sql.transaction():
                    self._do_several(depth=0)
                    if self.choose.random() < 0.03:
                        time.sleep(self.choose.uniform(0.2, 1.5))
                self.commits += 1
        return self.commits

    def _do_several(self, *, depth: int) -> None:
        for _ in range(self.choose.randint(1, 4)):
            if depth < 3 and self.choose.random() < 0.3:
                with suppress(GiveUp, *REFUSED), self.sql.transaction():  # a savepoint
                    self._do_several(depth=depth + 1)
            elif self.choose.random() < 0.3:
                self._insert()
            else:
                self._execute(self.choose.choice(STATEMENTS), self._some_faces())
        if self.choose.random() < 0.2:
            raise GiveUp

    def _insert(self) -> None:
        """New faces, or others of the same ids, by COPY."""
        faces = self._some_faces()
        if self.choose.random() < 0.7:
            self._execute("DELETE FROM face WHERE id = ANY(%(faces)s)", faces)
        with self.sql.cursor() as cursor:
            with cursor.copy("COPY face (id, collection_id, frame) FROM STDIN") as rows:
                for face in faces:
                    rows.write_row((face, self.collection.id, self.choose.getrandbits(32)))
            with cursor.copy("COPY vector (face_id, space_id, data) FROM STDIN") as rows:
                for face in faces:
                    rows.write_row((face, self.space.id, self._vector()))

    def _execute(self, statement: str, faces: list[int]) -> None:
        values = {
            "faces": faces,
            "person": self.choose.choice(PERSONS),
            "image": self.choose.choice(IMAGES),
            "collection": self.collection.id,
            "space": self.space.id,
            "name": f"name {self.choose.random()}",
            "data": self._vector(),
        }
        self.sql.execute(statement, values)  # type: ignore[call-overload]

    def _some_faces(self) -> list[int]:
        return self.choose.sample(FACES, self.choose.randint(1, 6))

    def _vector(self) -> bytes:
        return self.choose.randbytes(2 * DIMENSION)


@dataclass
class Counts:
    """What a reader went through."""

    reads: int = 0
    changed: int = 0
    comparisons: int = 0


def follow(store: Store, reader: Reader, *, seed: int, stop: threading.Event) -> Counts:
    """Apply the log until told to stop, comparing with the store now and then, and at the end."""
    choose, counts = random.Random(seed), Counts()
    while True:
        last = stop.is_set()
        with store.arrow() as connection:
            moment = OneMoment(connection)
            counts.changed += len(reader.advance(moment).changed)
            counts.reads += 1
            if last or choose.random() < 0.1:
                cursor, truth = everything(moment, reader.collection, reader.space)
                assert cursor == reader.cursor
                assert reader.rows == truth
                counts.comparisons += 1
        if last:
            return counts
        time.sleep(choose.choice((0.0, 0.0, 0.01, 0.3)))


def test_readers_miss_nothing_and_keep_no_ghost_among_eight_writers(
    store: Store, collection: Collection, space: Space, database_url: str
) -> None:
    readers = [Reader.at_present(store, collection, space) for _ in range(2)]
    writers_stop, readers_stop = threading.Event(), threading.Event()
    with ExitStack() as stack, ThreadPoolExecutor(WRITERS + 2) as threads:
        sessions = [
            stack.enter_context(psycopg.connect(database_url, autocommit=True))
            for _ in range(WRITERS)
        ]
        writers = [
            Writer(sql, random.Random(seed), collection, space) for seed, sql in enumerate(sessions)
        ]
        working = [threads.submit(writer.work, writers_stop) for writer in writers]
        following = [
            threads.submit(follow, store, reader, seed=seed, stop=readers_stop)
            for seed, reader in enumerate(readers)
        ]
        time.sleep(SECONDS)
        writers_stop.set()
        commits = [one.result() for one in working]
        readers_stop.set()
        counts = [one.result() for one in following]
    truth = everything(store, collection, space)[1]
    assert len(truth) > 20
    assert [reader.rows == truth for reader in readers] == [True, True]
    assert min(commits) > 20
    assert min(count.comparisons for count in counts) > 5
