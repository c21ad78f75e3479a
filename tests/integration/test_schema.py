"""The migrations make the tables that the program expects, once, whoever asks."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from retrieval.errors import StoreVersionError
from retrieval.store import embedded, schema
from retrieval.store.collections import collection_named
from retrieval.store.database import Store, open_store
from retrieval.store.people import operations
from retrieval.store.people.reading import persons
from retrieval.store.tables import metadata

COLUMNS = text("""
    SELECT attname, format_type(atttypid, NULL)
    FROM pg_attribute
    WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
""")


@pytest.fixture
def empty_url(server: embedded.ServerAddress) -> Iterator[str]:
    """A database without a table."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare")
        yield server.url.replace("/postgres?", "/bare?")
        connection.execute("DROP DATABASE bare WITH (FORCE)")


def test_the_tables_that_sqlalchemy_sees_are_those_of_the_database(store: Store) -> None:
    with store.reading() as connection:
        for table in metadata.sorted_tables:
            found = [tuple(row) for row in connection.execute(COLUMNS, {"table": table.name})]
            described = [
                (column.name, column.type.compile(store.engine.dialect).lower())
                for column in table.columns
            ]
            assert found == described, table.name


def test_an_empty_database_asks_for_the_upgrade_and_is_current_after_it(empty_url: str) -> None:
    with open_store(empty_url) as store:
        assert schema.current(store) is None
        with pytest.raises(StoreVersionError, match=r"no tables yet.*run `facedex upgrade`"):
            schema.require_current(store)
        schema.upgrade(store)
        schema.require_current(store)
        assert schema.current(store) == schema.head()


def test_upgrades_at_the_same_moment_take_turns(empty_url: str) -> None:
    def upgrade() -> None:
        with open_store(empty_url) as store:
            schema.upgrade(store)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(upgrade) for _ in range(4)]:
            done.result()
    with open_store(empty_url) as store:
        schema.require_current(store)


def test_a_database_of_the_first_version_keeps_its_persons(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "migrations"
    shutil.copytree(schema._folder(), first)
    for path in (first / "versions").glob("0*.py"):
        if not path.name.startswith("0001"):
            path.unlink()
    with open_store(empty_url) as store:
        with monkeypatch.context() as old:
            old.setattr(schema, "_folder", lambda: first)
            schema.upgrade(store)
        with store.writing() as connection:
            connection.execute(text("INSERT INTO collection (name) VALUES ('old')"))
            connection.execute(text("INSERT INTO person (collection_id, name) VALUES (1, 'Ann')"))
            connection.execute(text("INSERT INTO face (collection_id, person_id) VALUES (1, 1)"))
        with pytest.raises(StoreVersionError, match="at version 0001"):
            schema.require_current(store)
        schema.upgrade(store)
        schema.require_current(store)
        with store.writing() as connection:
            collection = collection_named(connection, "old")
            renamed = operations.rename(connection, "Ann", "Anna", collection=collection)
            shown = persons(connection, collection=collection)
    assert [(one.name, one.faces, one.merged) for one in shown] == [("Anna", 1, ())]
    assert renamed.event == 1


def test_a_database_behind_this_program_asks_for_the_upgrade(store: Store) -> None:
    with store.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(StoreVersionError, match=r"at version 0000.*run `facedex upgrade`"):
        schema.require_current(store)


def test_a_database_newer_than_this_program_is_left_alone(store: Store) -> None:
    with store.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for act in (schema.require_current, schema.upgrade):
        with pytest.raises(StoreVersionError, match="newer than this program"):
            act(store)
    assert schema.current(store) == "9999"


def test_an_upgrade_that_fails_leaves_nothing(empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE audit (id int)")  # somebody else's: the last of ours
        with open_store(empty_url) as store, pytest.raises(Exception, match="already exists"):
            schema.upgrade(store)
        tables = connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r'").fetchall()
        assert {name for (name,) in tables} & {"face", "alembic_version"} == set()


def test_looking_whether_a_database_is_current_takes_milliseconds(store: Store) -> None:
    schema.require_current(store)
    seconds = []
    for _ in range(20):
        begun = time.perf_counter()
        schema.require_current(store)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.005
