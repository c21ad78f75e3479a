"""The connection to PostgreSQL: what its transactions promise, and how it fails."""

import threading
from contextlib import suppress

import psycopg
import pyarrow as pa
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from retrieval.errors import SettingError, StoreConflictError, StoreUnavailableError
from retrieval.store.database import Store, copy, open_store

ADD_SPACE = text(
    "INSERT INTO space (name, dimension, licence, commercial) VALUES (:n, 2, '', true)"
)
COUNT_SPACES = text("SELECT count(*) FROM space")
DISCONNECT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def disconnect_everybody(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(DISCONNECT)


def test_a_write_is_committed_at_the_end_and_undone_by_an_exception(store: Store) -> None:
    with store.writing() as connection:
        connection.execute(ADD_SPACE, {"n": "kept"})
    with suppress(KeyError), store.writing() as connection:
        connection.execute(ADD_SPACE, {"n": "undone"})
        raise KeyError
    with store.reading() as connection:
        assert connection.scalars(text("SELECT name FROM space")).all() == ["kept"]


def test_a_copy_belongs_to_the_transaction_around_it(store: Store) -> None:
    with suppress(KeyError), store.writing() as connection:
        with copy(connection).copy(
            "COPY space (name, dimension, licence, commercial) FROM STDIN"
        ) as rows:
            rows.write_row(("copied", 2, "", True))
        assert connection.scalar(COUNT_SPACES) == 1
        raise KeyError
    with store.reading() as connection:
        assert connection.scalar(COUNT_SPACES) == 0


def test_a_reader_sees_one_moment_and_cannot_write(store: Store) -> None:
    with store.reading() as reader, store.arrow() as arrow, arrow.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM space")
        assert (reader.scalar(COUNT_SPACES), cursor.fetchone()) == (0, (0,))
        with store.writing() as connection:
            connection.execute(ADD_SPACE, {"n": "later"})
        cursor.execute("SELECT count(*) FROM space")
        assert (reader.scalar(COUNT_SPACES), cursor.fetchone()) == (0, (0,))
        with pytest.raises(DBAPIError, match="read-only transaction"):
            reader.execute(ADD_SPACE, {"n": "by a reader"})


def test_sessions_are_alike_whatever_the_address_says(database_url: str) -> None:
    shown = (
        "SELECT current_setting('TimeZone'), current_setting('application_name'),"
        " current_setting('work_mem'), current_setting('idle_in_transaction_session_timeout')"
    )
    with open_store(database_url + "&options=-c%20work_mem%3D5MB") as store:
        with store.reading() as connection:
            found = tuple(connection.execute(text(shown)).one())
        with store.arrow() as arrow, arrow.cursor() as cursor:
            cursor.execute(shown)
            assert cursor.fetchone() == found
    assert found == ("UTC", "facedex", "5MB", "10min")


def test_arrow_gives_the_types_of_the_columns(store: Store) -> None:
    with store.arrow() as arrow, arrow.cursor() as cursor:
        cursor.execute(
            "SELECT 1::int8 AS i, 0.5::float8 AS f, 'x' AS t, true AS b, now() AS w,"
            " ARRAY['a', 'b'] AS l, '\\x01'::bytea AS v"
        )
        found = cursor.fetch_arrow_table().schema
    assert found.types == [
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.bool_(),
        pa.timestamp("us", "UTC"),
        pa.list_(pa.string()),
        pa.binary(),
    ]


def test_an_arrow_stream_that_nobody_reads_to_its_end_does_no_harm(store: Store) -> None:
    with store.arrow() as arrow, arrow.cursor() as cursor:
        cursor.execute("SELECT repeat('x', 1000) FROM generate_series(1, 50000)")
        next(iter(cursor.fetch_record_batch()))
    with store.arrow() as arrow, arrow.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_connections_that_died_in_the_pool_are_replaced(store: Store, database_url: str) -> None:
    for _ in range(2):
        with store.reading() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        with store.arrow() as arrow, arrow.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
        disconnect_everybody(database_url)


def test_a_connection_lost_in_the_middle_is_a_store_that_did_not_answer(
    store: Store, database_url: str
) -> None:
    def write() -> None:
        with store.writing() as connection:
            connection.execute(ADD_SPACE, {"n": "lost"})
            disconnect_everybody(database_url)
            connection.execute(COUNT_SPACES)

    def read_arrow() -> None:
        with store.arrow() as arrow, arrow.cursor() as cursor:
            disconnect_everybody(database_url)
            cursor.execute("SELECT 1")

    for act in (write, read_arrow):
        with pytest.raises(StoreUnavailableError, match=r"did not answer.*again"):
            act()
    with store.reading() as connection:
        assert connection.scalar(COUNT_SPACES) == 0


def test_a_deadlock_is_a_conflict(store: Store) -> None:
    with store.writing() as connection:
        for name in ("one", "two"):
            connection.execute(ADD_SPACE, {"n": name})
    both_hold_one = threading.Barrier(2)
    outcomes: list[type[BaseException] | None] = []

    def lock(first: str, second: str) -> None:
        update = text("UPDATE space SET licence = 'x' WHERE name = :n")
        try:
            with store.writing() as connection:
                connection.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
                connection.execute(update, {"n": first})
                both_hold_one.wait()
                connection.execute(update, {"n": second})
            outcomes.append(None)
        except StoreConflictError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=lock, args=n) for n in (("one", "two"), ("two", "one"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) == {None, StoreConflictError}


def test_a_full_disk_says_so(store: Store) -> None:
    full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
    with (
        pytest.raises(StoreUnavailableError, match="disk of the database is full"),
        store.writing() as connection,
    ):
        connection.execute(text(full))


def test_a_mistake_of_the_program_is_not_disguised(store: Store) -> None:
    with pytest.raises(DBAPIError, match="does not exist"), store.reading() as connection:
        connection.execute(text("SELECT * FROM nowhere"))


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql://user:s3cret@127.0.0.1:1/name", StoreUnavailableError),
        ("host=127.0.0.1 port=1 user=u password=s3cret", StoreUnavailableError),
        ("postgresql://user:p@s3cret@host/name", SettingError),
        ("postgresql+psycopg://user:s3cret@host/name", SettingError),
        ("user:s3cret@host", SettingError),
    ],
)
def test_no_error_and_no_repr_tells_the_password(url: str, error: type[Exception]) -> None:
    def read() -> None:
        with open_store(url) as store:
            assert "s3cret" not in repr(store)
            with store.reading():
                pass

    def read_arrow() -> None:
        with open_store(url) as store, store.arrow():
            pass

    for act in (read, read_arrow):
        with pytest.raises(error) as caught:
            act()
        chain: BaseException | None = caught.value
        while chain is not None:
            assert "s3cret" not in str(chain)
            chain = chain.__cause__


def test_databases_of_one_server_have_one_system_identifier(
    store: Store, database_url: str
) -> None:
    with open_store(database_url) as other:
        assert other.system_identifier() == store.system_identifier()
    assert store.system_identifier().isdigit()
