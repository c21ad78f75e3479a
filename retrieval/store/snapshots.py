"""What the store remembers of index snapshots, and the lock that admits one builder at a time."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from retrieval.errors import StoreConflictError
from retrieval.store.database import Store, translating_store_errors
from retrieval.values import Collection, Cursor, Space

PUBLISHED: Final = text("""
    SELECT id, watermark::text AS watermark, rows
    FROM snapshot
    WHERE collection_id = :collection_id AND space_id = :space_id AND kind = :kind
    ORDER BY created_at DESC, id
""")
RECORD: Final = text("""
    INSERT INTO snapshot (id, collection_id, space_id, kind, watermark, rows)
    VALUES (:id, :collection_id, :space_id, :kind, CAST(:watermark AS pg_snapshot), :rows)
""")
FORGET: Final = text("DELETE FROM snapshot WHERE id = ANY(:ids)")
# Two-key advisory locks take int4: a collection's builds share one lock, which is enough.
LOCK: Final = text("SELECT pg_try_advisory_lock(:kind, CAST(:collection_id % 2147483648 AS int))")
UNLOCK: Final = text("SELECT pg_advisory_unlock(:kind, CAST(:collection_id % 2147483648 AS int))")
# The server needs a moment to see that a killed builder is gone.
LOCK_ATTEMPTS: Final = 10
LOCK_WAIT_S: Final = 0.1
LOCK_KIND: Final = 0x696E6478  # "indx"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSnapshot:
    """A snapshot that was built from this database."""

    id: str
    watermark: Cursor
    rows: int


class BuilderLock:
    """The right to build; gone when its connection is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def require(self) -> None:
        """Raise StoreUnavailableError where the connection, and with it the lock, was lost."""
        with translating_store_errors():
            self._connection.execute(text("SELECT 1"))


def published_snapshots(
    connection: Connection, *, collection: Collection, space: Space, kind: str
) -> tuple[PublishedSnapshot, ...]:
    """The snapshots that may be opened, newest first."""
    of_it = {"collection_id": collection.id, "space_id": space.id, "kind": kind}
    return tuple(
        PublishedSnapshot(id=row.id, watermark=Cursor(row.watermark), rows=row.rows)
        for row in connection.execute(PUBLISHED, of_it)
    )


def record_snapshot(
    connection: Connection,
    snapshot: PublishedSnapshot,
    *,
    collection: Collection,
    space: Space,
    kind: str,
) -> None:
    """Remember a snapshot that is whole on the disk."""
    connection.execute(
        RECORD,
        {
            "id": snapshot.id,
            "collection_id": collection.id,
            "space_id": space.id,
            "kind": kind,
            "watermark": snapshot.watermark,
            "rows": snapshot.rows,
        },
    )


def forget_snapshots(connection: Connection, ids: Sequence[str]) -> None:
    """Refuse these snapshots from now on, wherever a copy of them lies."""
    connection.execute(FORGET, {"ids": list(ids)})


@contextmanager
def sole_builder(store: Store, *, collection: Collection) -> Iterator[BuilderLock]:
    """Hold the lock of the collection's index builds, without an open transaction.

    Raises:
        StoreConflictError: another process is building now.
    """
    with (
        translating_store_errors(),
        store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        key = {"kind": LOCK_KIND, "collection_id": collection.id}
        if not _locked(connection, key):
            raise StoreConflictError(
                f"another process is building the index of '{collection.name}'. Wait for it"
            )
        try:
            yield BuilderLock(connection)
            connection.execute(UNLOCK, key)
        except BaseException:
            # The pool would hand the connection on with the lock still held.
            connection.invalidate()
            raise


def _locked(connection: Connection, key: dict[str, int]) -> bool:
    for attempt in range(LOCK_ATTEMPTS):
        if attempt:
            time.sleep(LOCK_WAIT_S)
        if connection.scalar(LOCK, key):
            return True
    return False
