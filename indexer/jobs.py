"""Jobs: what is to be done later, by whichever worker is free.

A job is a row of `job` and, while it is to be done, a row of pgqueuer's queue that names it; one
statement writes both, so a job is queued or it never was. Who may take which job, heartbeats and
take-over are pgqueuer's (indexer/worker.py); what a job asks for and what came of it is here.

Each start of a job has a number, its attempt. A worker that slept through its heartbeats may find
that another one started its job: every change below is refused for an attempt that was overtaken.
"""

import dataclasses
import glob
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sqlalchemy import Connection, Row, TextClause, text

from indexer.sources.pictures import Framing
from retrieval.values import Collection, Token

INGEST: Final = "ingest"
ENTRYPOINT: Final = "facedex"  # our jobs' name in pgqueuer's queue

_QUEUE: Final = text("""
    WITH added AS (
        INSERT INTO job (collection_id, kind, request)
        VALUES (:collection, :kind, CAST(:request AS jsonb))
        RETURNING id
    ), queued AS (
        INSERT INTO pgqueuer (priority, entrypoint, payload, status)
        SELECT 0, :entrypoint, convert_to(CAST(id AS text), 'UTF8'), 'queued' FROM added
    )
    SELECT id FROM added
""")
_RECORDS: Final = """
    SELECT job.id, collection.name AS collection, job.kind, job.request, job.state, job.attempt,
        job.report, job.created_at, job.finished_at, job.error
    FROM job JOIN collection ON collection.id = job.collection_id
"""
_START: Final = text("""
    UPDATE job SET state = 'running', attempt = attempt + 1, report = NULL
    WHERE id = :job AND state IN ('waiting', 'running')
""")
_REPORT: Final = text("""
    UPDATE job SET report = CAST(:report AS jsonb)
    WHERE id = :job AND attempt = :attempt AND state = 'running'
""")
_FINISH: Final = text("""
    UPDATE job SET state = 'done', report = CAST(:report AS jsonb), finished_at = now()
    WHERE id = :job AND attempt = :attempt AND state = 'running'
""")
_FAIL: Final = text("""
    UPDATE job SET state = 'failed', error = :error, finished_at = now()
    WHERE id = :job AND attempt = :attempt AND state = 'running'
""")
_PUT_BACK: Final = text("""
    UPDATE job SET state = 'waiting'
    WHERE id = :job AND attempt = :attempt AND state = 'running'
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRequest:
    """What `facedex ingest` was asked for."""

    paths: list[str]  # files, folders, archives, globs; broken bytes as surrogate escapes
    metadata: str | None = None
    person_from_folder: bool = False
    frames: bool = False
    framing: Framing = Framing.SCENE
    source: str | None = None
    origin: str = "captured"
    copy_originals: bool = False
    allow_sensitive: bool = False
    retry_refused: bool = False

    def anchored(self) -> "IngestRequest":
        """The same request with absolute paths: a worker runs in another folder."""
        metadata = None if self.metadata is None else _anchored(self.metadata)
        return dataclasses.replace(
            self, paths=[_anchored(path) for path in self.paths], metadata=metadata
        )

    def to_json(self) -> str:
        """Text for a jsonb column. What came from the shell is percent-encoded: it may be no UTF-8.

        PostgreSQL refuses the lone surrogates that stand for broken bytes, and NUL.
        """
        said = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps(
            {
                **said,
                "paths": [_encoded(path) for path in self.paths],
                "metadata": None if self.metadata is None else _encoded(self.metadata),
                "source": None if self.source is None else _encoded(self.source),
                "framing": self.framing.value,
            }
        )

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "IngestRequest":
        """The request that `to_json` wrote, from the column's value."""
        return cls(
            **{
                **said,
                "paths": [_decoded(path) for path in said["paths"]],
                "metadata": None if said["metadata"] is None else _decoded(said["metadata"]),
                "source": None if said["source"] is None else _decoded(said["source"]),
                "framing": Framing(said["framing"]),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What one start of a job did, or did so far."""

    images: int
    known: int  # on a second start: those of the first one, too
    faces: int
    refused: int
    seconds: float
    token: Token | None  # of the last write; None while the job runs


class JobState(StrEnum):
    """How far a job is."""

    WAITING = "waiting"
    RUNNING = "running"  # or its worker died, and another one will start it again
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One row of `job`."""

    id: int
    collection: str
    kind: str
    request: IngestRequest
    state: JobState
    attempt: int  # starts so far
    report: JobReport | None
    created_at: datetime
    finished_at: datetime | None
    error: str | None


def queue_ingest(connection: Connection, collection: Collection, request: IngestRequest) -> int:
    """Queue an ingest in the caller's transaction; give the job's id."""
    job: int = connection.execute(
        _QUEUE,
        {
            "collection": collection.id,
            "kind": INGEST,
            "request": request.anchored().to_json(),
            "entrypoint": ENTRYPOINT,
        },
    ).scalar_one()
    return job


def jobs(connection: Connection, limit: int) -> list[JobRecord]:
    """The newest jobs, newest first."""
    newest = text(_RECORDS + " ORDER BY job.id DESC LIMIT :limit")
    return [_record(row) for row in connection.execute(newest, {"limit": limit})]


def started(connection: Connection, job: int) -> JobRecord | None:
    """Begin an attempt; None where the job ended before, or went with its collection."""
    return _changed(connection, _START, {"job": job})


def progressed(connection: Connection, job: JobRecord, report: JobReport) -> JobRecord | None:
    """Write down how far the attempt is; None where it was overtaken."""
    return _changed(connection, _REPORT, _attempt(job) | {"report": _report_json(report)})


def finished(connection: Connection, job: JobRecord, report: JobReport) -> JobRecord | None:
    """End the job well; None where the attempt was overtaken."""
    return _changed(connection, _FINISH, _attempt(job) | {"report": _report_json(report)})


def failed(connection: Connection, job: JobRecord, error: str) -> JobRecord | None:
    """End the job badly; None where the attempt was overtaken."""
    # NUL cannot be stored, and a message may quote bytes that are no UTF-8.
    storable = error.replace("\0", "").encode("utf-8", "backslashreplace").decode()
    return _changed(connection, _FAIL, _attempt(job) | {"error": storable})


def put_back(connection: Connection, job: JobRecord) -> JobRecord | None:
    """Let the job wait for its next start; None where the attempt was overtaken."""
    return _changed(connection, _PUT_BACK, _attempt(job))


def _attempt(job: JobRecord) -> dict[str, int | str]:
    return {"job": job.id, "attempt": job.attempt}


def _changed(
    connection: Connection, change: TextClause, bound: Mapping[str, int | str]
) -> JobRecord | None:
    """Make the change and give the job as it is now; None where no row was changed."""
    if connection.execute(change, bound).rowcount == 0:
        return None
    record = text(_RECORDS + " WHERE job.id = :job")
    return _record(connection.execute(record, bound).one())


def _record(row: Row[Any]) -> JobRecord:
    return JobRecord(
        id=row.id,
        collection=row.collection,
        kind=row.kind,
        request=IngestRequest.from_json(row.request),
        state=JobState(row.state),
        attempt=row.attempt,
        report=None if row.report is None else JobReport(**row.report),
        created_at=row.created_at,
        finished_at=row.finished_at,
        error=row.error,
    )


def _report_json(report: JobReport) -> str:
    return json.dumps(dataclasses.asdict(report))


def _anchored(path: str) -> str:
    """An absolute path; before a glob, the folder's own `*?[` are escaped."""
    if not path or os.path.lexists(path):
        return path and str(Path(path).absolute())
    return str(Path(glob.escape(str(Path.cwd()))) / path)


def _encoded(spelt: str) -> str:
    return quote_from_bytes(os.fsencode(spelt))


def _decoded(encoded: str) -> str:
    return os.fsdecode(unquote_to_bytes(encoded))
