"""How far each file has come: what makes an import resumable, and a second one harmless.

The row of a file (its content's hash, in one collection and space) advances in the transaction
that stores the rows, so it is true at any moment. Rows with an id are safe without it: they are
put in by id. For rows without one it also keeps which faces they became, as ranges of ids: the
file is done for good while any of those faces is left. It starts anew when all were deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, text

from retrieval.errors import StoreConflictError
from retrieval.values import Collection, FaceIds, Space

_OPEN: Final = text("""
    INSERT INTO imported_file (collection_id, space_id, sha256, rows_done)
    VALUES (:collection, :space, :sha256, 0)
    ON CONFLICT DO NOTHING
""")
_LOCK: Final = text("""
    SELECT FROM imported_file
    WHERE collection_id = :collection AND space_id = :space AND sha256 = :sha256
    FOR UPDATE
""")
# A statement of its own: one that waits for the lock goes on with the faces of before it waited.
_READ: Final = text("""
    SELECT rows_done, CASE WHEN isempty(faces)
        THEN EXISTS (SELECT FROM face WHERE collection_id = :collection)
        ELSE EXISTS (
            SELECT FROM unnest(faces) AS range (ids)
            JOIN face ON face.id >= lower(ids) AND face.id < upper(ids)
            WHERE face.collection_id = :collection)
        END AS remain
    FROM imported_file
    WHERE collection_id = :collection AND space_id = :space AND sha256 = :sha256
""")
_AGAIN: Final = text("""
    UPDATE imported_file SET rows_done = 0, faces = '{}'
    WHERE collection_id = :collection AND space_id = :space AND sha256 = :sha256
""")
_ADVANCE: Final = text("""
    UPDATE imported_file SET rows_done = :after, faces = faces + coalesce((
        SELECT range_agg(int8range(low, high, '[]'))
        FROM unnest(CAST(:lows AS bigint[]), CAST(:highs AS bigint[])) AS run (low, high)
    ), '{}')
    WHERE collection_id = :collection AND space_id = :space AND sha256 = :sha256
        AND rows_done = :before
""")
_CLOSE: Final = text("""
    DELETE FROM imported_file
    WHERE collection_id = :collection AND space_id = :space AND sha256 = :sha256
        AND isempty(faces)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInStore:
    """One file on its way into one collection and space."""

    collection: Collection
    space: Space
    sha256: bytes

    @property
    def key(self) -> dict[str, Any]:
        """What its row is found by."""
        return {
            "collection": self.collection.id,
            "space": self.space.id,
            "sha256": self.sha256,
        }


def begin(connection: Connection, file: FileInStore) -> int:
    """The number of the file's rows that are in the store already."""
    connection.execute(_OPEN, file.key)
    connection.execute(_LOCK, file.key)
    found = connection.execute(_READ, file.key).one()
    if not found.remain:
        connection.execute(_AGAIN, file.key)
        return 0
    return int(found.rows_done)


def advance(
    connection: Connection, file: FileInStore, *, before: int, after: int, nameless: FaceIds
) -> None:
    """Say that the rows from `before` to `after` are in, with the faces that have no id.

    Raises:
        StoreConflictError: another process imports the same file, or the collection is gone.
    """
    lows, highs = _runs(nameless)
    moved = connection.execute(
        _ADVANCE, {**file.key, "before": before, "after": after, "lows": lows, "highs": highs}
    )
    if moved.rowcount != 1:
        raise StoreConflictError(
            "another process is importing this file, or its collection was dropped"
        )


def finish(connection: Connection, file: FileInStore) -> None:
    """Forget a file whose faces all have ids: importing it again puts them in by id."""
    connection.execute(_CLOSE, file.key)


def _runs(ids: FaceIds) -> tuple[Sequence[int], Sequence[int]]:
    """First and last of each run of consecutive ids."""
    runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1) if len(ids) else []
    return [int(run[0]) for run in runs], [int(run[-1]) for run in runs]
