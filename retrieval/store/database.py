"""The connection to PostgreSQL: transactions in, the driver's errors out as ours.

One `Store` a process. `writing` and `reading` give SQLAlchemy connections in one transaction
each, `arrow` an ADBC connection for whole tables; all have the same session settings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import adbc_driver_manager
import adbc_driver_manager.dbapi
import adbc_driver_postgresql.dbapi
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from retrieval.errors import (
    FacedexError,
    SettingError,
    StoreConflictError,
    StoreUnavailableError,
)
from retrieval.values import Token

# Who passes a connection on names its type without importing SQLAlchemy.
__all__ = ["Connection", "Store", "copy", "open_store", "session_parameters", "token",
           "translating_store_errors"]  # fmt: skip

CONNECT_SECONDS_MAX: Final = 10
POOL_SIZE: Final = 4  # held open; a burst may open as many again
POOL_SECONDS_MAX: Final = 10.0  # waiting for a free one
# An abandoned transaction would hold back VACUUM for ever, and with it the pruning of the log.
SESSION: Final = "-c TimeZone=UTC -c idle_in_transaction_session_timeout=10min"
BEGIN_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
CONFLICTS: Final = ("40001", "40P01")  # serialization failure, deadlock
DISK_FULL: Final = "53100"
UNAVAILABLE: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    adbc_driver_manager.OperationalError,
    adbc_driver_manager.InterfaceError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The database. Threads may share it; a forked child opens its own."""

    url: str = field(repr=False)  # it may hold a password
    engine: Engine
    arrow_pool: QueuePool = field(repr=False)  # connecting takes ADBC 50 ms, a query 0.5 ms

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One READ COMMITTED transaction, committed at the end, rolled back on an exception."""
        with translating_store_errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One REPEATABLE READ, READ ONLY transaction: every statement sees the same rows."""
        with translating_store_errors(), self.engine.connect() as connection:
            yield connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    @contextmanager
    def arrow(self) -> Iterator[adbc_driver_manager.dbapi.Connection]:
        """One REPEATABLE READ, READ ONLY transaction that reads into Arrow batches."""
        with translating_store_errors():
            pooled = self._arrow_begun()
            try:
                yield pooled.driver_connection
                _execute(pooled, "ROLLBACK")
            except BaseException:
                pooled.invalidate()
                raise
            finally:
                pooled.close()

    def _arrow_begun(self) -> PoolProxiedConnection:
        """A connection inside a transaction; one that died in the pool is replaced."""
        pooled = self.arrow_pool.connect()
        try:
            _execute(pooled, BEGIN_SNAPSHOT)
        except adbc_driver_manager.OperationalError:
            pooled.invalidate()
            pooled = self.arrow_pool.connect()
            _execute(pooled, BEGIN_SNAPSHOT)
        return pooled

    def system_identifier(self) -> str:
        """What tells this database cluster from every other."""
        with self.reading() as connection:
            found = connection.scalar(text("SELECT system_identifier FROM pg_control_system()"))
        return str(found)


@contextmanager
def open_store(url: str) -> Iterator[Store]:
    """Open the database at a libpq address; connections are made when they are needed.

    Raises:
        SettingError: the address cannot be read. It is not repeated: it may hold a password.
    """
    parameters = session_parameters(url)
    engine = create_engine(
        "postgresql+psycopg://",
        connect_args=parameters,
        pool_size=POOL_SIZE,
        max_overflow=POOL_SIZE,
        pool_timeout=POOL_SECONDS_MAX,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    address = make_conninfo(**parameters)
    arrow_pool = QueuePool(
        # Transactions are begun and ended by hand: ADBC's own would idle in the pool.
        lambda: adbc_driver_postgresql.dbapi.connect(address, autocommit=True),
        pool_size=1,
        max_overflow=2 * POOL_SIZE - 1,
        timeout=POOL_SECONDS_MAX,
        reset_on_return=None,
    )
    try:
        yield Store(url=url, engine=engine, arrow_pool=arrow_pool)
    finally:
        arrow_pool.dispose()
        engine.dispose()


def copy(connection: Connection) -> psycopg.Cursor[Any]:
    """A cursor of the driver in the same transaction, for COPY."""
    driver: Any = connection.connection.driver_connection
    cursor: psycopg.Cursor[Any] = driver.cursor()
    return cursor


def token(connection: Connection) -> Token:
    """The name of this transaction: who waits for it reads what it wrote."""
    found: int = connection.scalars(text("SELECT pg_current_xact_id()::text::bigint")).one()
    return Token(found)


def session_parameters(url: str) -> dict[str, Any]:
    """The address in libpq's parts, with the session's settings added to those it brings along.

    Raises:
        SettingError: the address cannot be read. It is not repeated: it may hold a password.
    """
    try:
        said = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise SettingError(
            "the database address cannot be read; write postgresql://USER@HOST:PORT/NAME"
        ) from None
    if "@" in str(said.get("host") or ""):  # part of the password, and libpq's errors name hosts
        raise SettingError("the database address has two '@': write the one in a password as %40")
    defaults = {"application_name": "facedex", "connect_timeout": CONNECT_SECONDS_MAX}
    options = f"{said.get('options') or ''} {SESSION}".strip()
    return {**defaults, **said, "client_encoding": "UTF8", "options": options}


@contextmanager
def translating_store_errors() -> Iterator[None]:
    """Turn exceptions of SQLAlchemy, psycopg and ADBC into ours; the cause stays attached."""
    try:
        yield
    except PoolTimeoutError as cause:
        raise StoreUnavailableError(
            f"all {2 * POOL_SIZE} connections to the database are in use. Try again"
        ) from cause
    except DBAPIError as cause:
        if (ours := _ours(cause.orig, lost=cause.connection_invalidated)) is not None:
            raise ours from cause
        raise
    except (psycopg.Error, adbc_driver_manager.Error) as cause:
        if (ours := _ours(cause, lost=False)) is not None:
            raise ours from cause
        raise


def _ours(cause: BaseException | None, *, lost: bool) -> FacedexError | None:
    """What the user can act on; None where the error is a mistake of the program."""
    state = getattr(cause, "sqlstate", None)
    if state in CONFLICTS:
        return StoreConflictError()
    if state == DISK_FULL:
        return StoreUnavailableError(
            "the disk of the database is full. Free space and run the command again"
        )
    if lost or isinstance(cause, UNAVAILABLE):
        said = str(cause).splitlines() or ["the connection is gone"]
        return StoreUnavailableError(
            f"the database did not answer ({said[0]}). Run the command again: writes are idempotent"
        )
    return None


def _execute(pooled: PoolProxiedConnection, statement: str) -> None:
    adbc: Any = pooled.driver_connection
    with adbc.cursor() as cursor:
        cursor.execute(statement)
