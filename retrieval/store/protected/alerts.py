"""The faces that a protected list was not compared with yet, and what was found among them.

What is new is read as every reader does it (store/changes.py): log, vectors and the next cursor out
of one REPEATABLE READ transaction. The cursor is kept beside the alerts and moves with them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from adbc_driver_manager.dbapi import Cursor as AdbcCursor
from sqlalchemy import Connection, text

from retrieval.errors import UnknownNameError
from retrieval.store import audit, changes
from retrieval.store.changes import checked, standing, table_of
from retrieval.store.database import Store
from retrieval.store.protected.gallery import PictureId, ProtectedId
from retrieval.store.vectors import half_rows
from retrieval.store.where import compile_sql
from retrieval.values import Collection, Cursor, FaceId, FaceIds, HalfRows, Similarity, Space

_MOMENT: Final = text("SELECT pg_current_snapshot()::text AS cursor")
_FACES: Final = """
    SELECT face.id, face.quality, vector.data, vector.changed::text::bigint AS changed
    FROM face JOIN vector ON vector.face_id = face.id AND vector.space_id = :space
    WHERE face.collection_id = :collection
"""
# A face whose attributes changed has the vector that was matched before.
_NEW: Final = """
    AND face.id IN (
        SELECT unnest(face_ids)
        FROM face_change
        WHERE collection_id = :collection
          AND xid >= pg_snapshot_xmin(CAST(:cursor AS pg_snapshot))
          AND NOT pg_visible_in_snapshot(xid, CAST(:cursor AS pg_snapshot))
    )
    AND NOT pg_visible_in_snapshot(vector.changed, CAST(:cursor AS pg_snapshot))
"""
# Of a face that was deleted meanwhile there is nothing to tell. The row is not locked: nobody else
# shall ever wait for this. One that is being deleted at this moment is told as deleted, by _ALERTS.
_WRITE: Final = text("""
    INSERT INTO protected.alert (person_id, face_id, vector_changed, similarity, threshold, poor,
                                 closest, closest_similarity)
    SELECT :person, id, CAST(CAST(:changed AS text) AS xid8), :similarity, :threshold, :poor,
        CAST(:closest AS bigint[]), CAST(:closest_similarity AS double precision[])
    FROM face
    WHERE id = :face
    ON CONFLICT (face_id, person_id, vector_changed) DO NOTHING
""")
_ALERTS: Final = text("""
    SELECT alert.*, face.id AS face,
        ARRAY(
            SELECT path
            FROM unnest(closest) WITH ORDINALITY AS near (id, place)
                JOIN protected.picture USING (id)
            ORDER BY place
        ) AS paths
    FROM protected.alert
        JOIN protected.person ON person.id = alert.person_id
        LEFT JOIN face ON face.id = alert.face_id
    WHERE person.collection_id = :collection AND alert.id > :after
        AND (alert.seen_at IS NULL OR NOT :unseen)
    ORDER BY alert.id
    LIMIT :limit
""")
_SEEN: Final = text("""
    UPDATE protected.alert SET seen_at = coalesce(seen_at, now()), seen_by = coalesce(seen_by, :by)
    FROM protected.person
    WHERE alert.id = :alert AND person.id = alert.person_id AND collection_id = :collection
""")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewFaces:
    """Some faces that were not matched yet."""

    ids: FaceIds  # (n,)
    vectors: HalfRows  # (n, d)
    quality: npt.NDArray[np.float64]  # (n,) NaN where unknown
    changed: npt.NDArray[np.int64]  # (n,) the transaction that wrote the vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """All faces that were not matched yet, at one moment."""

    cursor: Cursor  # of that moment
    batches: Iterator[NewFaces]


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """An authentic picture of a person on the list, and how alike the face is."""

    picture: PictureId
    similarity: Similarity


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAlert:
    """A face that looks like a person on the list."""

    face: FaceId
    changed: int
    person: ProtectedId
    similarity: Similarity  # to the person's template
    threshold: Similarity
    poor: bool  # below the quality floor: alike in being bad, perhaps
    closest: tuple[Near, ...]  # most similar first


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert as it is told."""

    id: int
    at: datetime
    person: ProtectedId
    face: FaceId | None  # None: it was deleted since
    similarity: Similarity
    threshold: Similarity
    poor: bool
    closest: tuple[Near, ...]
    paths: tuple[bytes, ...]  # where the closest pictures lay
    seen_at: datetime | None
    seen_by: str | None


@contextmanager
def unmatched(
    store: Store, cursor: Cursor | None, *, collection: Collection, space: Space, batch_rows: int
) -> Iterator[Unmatched]:
    """The faces with a vector that is new since the cursor; None: all faces.

    Raises:
        CursorTooOldError: the change log does not lead there; match all faces.
        UnknownNameError: the collection was dropped.
    """
    of_it = {"collection": collection.id, "space": space.id}
    with store.arrow() as connection, connection.cursor() as reading:
        if cursor is None:
            now = Cursor(table_of(reading, _MOMENT)["cursor"][0].as_py())
            statement = text(_FACES).bindparams(**of_it)
        else:
            now = standing(reading, cursor, collection)
            statement = text(_FACES + _NEW).bindparams(**of_it, cursor=checked(cursor))
        changes.hint_batches(reading, rows=batch_rows, space=space)
        reading.execute(compile_sql(statement))  # type: ignore[arg-type]  # text compiles as well
        yield Unmatched(cursor=now, batches=_batches(reading, space=space, rows=batch_rows))


def write_alerts(connection: Connection, alerts: Sequence[NewAlert]) -> int:
    """Keep alerts; one vector raises one alert for a person, however often it is matched."""
    rows: list[dict[str, Any]] = [
        {
            "person": one.person,
            "face": one.face,
            "changed": str(one.changed),
            "similarity": float(one.similarity),
            "threshold": float(one.threshold),
            "poor": one.poor,
            "closest": [near.picture for near in one.closest],
            "closest_similarity": [float(near.similarity) for near in one.closest],
        }
        # One order for all writers: two of them never wait for each other.
        for one in sorted(alerts, key=lambda one: (one.face, one.person))
    ]
    return connection.execute(_WRITE, rows).rowcount if rows else 0


def alerts(
    connection: Connection, *, collection: Collection, unseen: bool, after: int, limit: int
) -> list[Alert]:
    """At most `limit` alerts with a number above `after`, by number.

    Args:
        connection: an open transaction.
        collection: whose list.
        unseen: leave out those that somebody has seen.
        after: a number.
        limit: of the answer.
    """
    wanted = {"collection": collection.id, "unseen": unseen, "after": after, "limit": limit}
    return [_alert(row) for row in connection.execute(_ALERTS, wanted)]


def note_seen(connection: Connection, number: int, *, collection: Collection) -> None:
    """Remember who saw an alert first and when, or UnknownNameError where there is none."""
    wanted = {"alert": number, "collection": collection.id, "by": audit.actor()}
    if connection.execute(_SEEN, wanted).rowcount == 0:
        raise UnknownNameError(f"no alert {number}: see `facedex protected alerts`")


def _batches(reading: AdbcCursor, *, space: Space, rows: int) -> Iterator[NewFaces]:
    for read in reading.fetch_record_batch():
        for begin in range(0, read.num_rows, rows):
            batch = read.slice(begin, rows)
            data = pa.chunked_array([batch.column("data")])
            yield NewFaces(
                ids=batch.column("id").to_numpy(),
                vectors=half_rows(data, dimension=space.dimension),
                quality=batch.column("quality").cast(pa.float64()).to_numpy(zero_copy_only=False),
                changed=batch.column("changed").to_numpy(),
            )


def _alert(row: Any) -> Alert:
    nearest = zip(row.closest, row.closest_similarity, strict=True)
    return Alert(
        id=row.id,
        at=row.at,
        person=ProtectedId(row.person_id),
        face=None if row.face is None else FaceId(row.face),
        similarity=Similarity(row.similarity),
        threshold=Similarity(row.threshold),
        poor=row.poor,
        closest=tuple(
            Near(picture=PictureId(picture), similarity=Similarity(similarity))
            for picture, similarity in nearest
        ),
        paths=tuple(bytes(path) for path in row.paths),
        seen_at=row.seen_at,
        seen_by=row.seen_by,
    )
