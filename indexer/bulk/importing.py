"""Ready-made vectors and attributes into the store: by COPY, in chunks that commit one by one.

The schema is checked before anything is written. A chunk is one transaction: faces, vectors, new
persons and the file's progress commit together, so a killed import goes on where it stopped and
no row is in twice. A thread encodes the next chunk while the server works on this one.

Rows with an `id` are put in by it: where a face of that id exists, its given fields and its vector
change in place, its other fields stay; of rows with the same id in one file the last wins. Rows
without one are remembered by the file's content (ledger.py).
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from sqlalchemy import Connection

from indexer.bulk import ledger
from indexer.bulk.checking import CheckedRows, RefusedRow, checked
from indexer.bulk.encoding import Chunk, encoded
from indexer.bulk.formats import Format, Table, opened
from indexer.bulk.ledger import FileInStore
from indexer.bulk.schema import Layout, layout
from indexer.bulk.storing import store_chunk
from retrieval.errors import SpaceMismatchError, UnknownNameError, UsageError
from retrieval.fields import SENSITIVE, Fields
from retrieval.limits import REFUSED_ROWS_MAX
from retrieval.store.collections import (
    collection_named,
    collection_or_new,
    declare,
    declared,
    search_in,
    space_named,
    space_or_new,
)
from retrieval.store.database import Store, token
from retrieval.values import Space, SpaceId, Token

CHUNK_BYTES: Final = 32 * 2**20  # of float16 vectors: what is lost by a kill, held thrice in memory
CHUNK_ROWS_MAX: Final = 32_768
UNKNOWN_LICENCE: Final = "unknown: vectors came from outside"

_SHA256: Final = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int, int], None]  # rows done, rows in all


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What is imported, and where to."""

    path: Path
    collection: str
    space: str
    format: Format = Format.PARQUET
    dimension: int | None = None  # needed where vectors are bytes and the space is new
    model_sha256: str | None = None  # None: of a new space, that its vectors came from outside
    attributes: Path | None = None  # with npy and faiss: a table with a row for each vector
    allow_sensitive: bool = False  # take columns like ethnicity, which are left out otherwise

    def __post_init__(self) -> None:
        if self.model_sha256 is not None and not _SHA256.fullmatch(self.model_sha256):
            raise UsageError("the hash of a model is 64 hexadecimal digits in lower case")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did, or would do."""

    rows: int  # put into the store
    updated: int  # of these, rows whose face was there before
    known: int  # skipped: an earlier import of the same file had stored or refused them
    refused_count: int
    refused: tuple[RefusedRow, ...]  # the first REFUSED_ROWS_MAX
    attributes: Fields  # that the file brought
    left_out: dict[str, str]  # columns that were not read, with the reason
    space: str
    seconds: float
    token: Token | None  # of the last commit; None: nothing was written


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A file, what its columns become, and where they go."""

    table: Table
    layout: Layout
    chunk_rows: int


def _silent(_done: int, _rows: int) -> None:
    """Show no progress."""


def check_file(
    store: Store, request: ImportRequest, *, progress: Progress = _silent
) -> ImportReport:
    """Read the whole file as `import_file` would, and write nothing.

    Raises:
        SchemaMismatchError: columns that do not fit, all of them.
    """
    started = perf_counter()
    plan = planned(store, request)
    tally = _Tally(plan, request)
    for chunk in _checked_chunks(plan, first_row=0):
        rows, end_row = chunk
        tally.add(rows=len(rows), updated=0, refused=rows.refused)
        progress(end_row, plan.table.rows)
    return tally.report(seconds=perf_counter() - started)


def import_file(
    store: Store, request: ImportRequest, *, progress: Progress = _silent
) -> ImportReport:
    """Put the rows of a file into a collection.

    Raises:
        SchemaMismatchError: columns that do not fit, all of them; nothing was written.
        SpaceMismatchError: the space is of another model.
        StoreUnavailableError: the database went away; the same call goes on where it stopped.
        StoreConflictError: somebody else writes the same faces.
    """
    started = perf_counter()
    plan = planned(store, request)
    tally = _Tally(plan, request)
    sha256 = fingerprint(plan, request)
    with store.writing() as connection:
        file = entered(connection, request, plan, sha256=sha256)
        tally.known = ledger.begin(connection, file)
        if tally.known >= plan.table.rows:
            ledger.finish(connection, file)
        tally.token = token(connection)
    progress(tally.known, plan.table.rows)
    for chunk in _ahead(encoded_chunks(plan, file, first_row=tally.known)):
        with store.writing() as connection:
            updated = store_chunk(connection, chunk, file=file, layout=plan.layout)
            if chunk.end_row == plan.table.rows:
                ledger.finish(connection, file)
            committed = token(connection)
        tally.token = committed
        tally.add(rows=len(chunk), updated=updated, refused=chunk.refused)
        progress(chunk.end_row, plan.table.rows)
    return tally.report(seconds=perf_counter() - started)


class _Tally:
    """What has happened so far."""

    def __init__(self, plan: Plan, request: ImportRequest) -> None:
        self.known = 0
        self.token: Token | None = None
        self._layout, self._space = plan.layout, request.space
        self._rows = self._updated = self._refused_count = 0
        self._refused: list[RefusedRow] = []

    def add(self, *, rows: int, updated: int, refused: tuple[RefusedRow, ...]) -> None:
        """Count a chunk."""
        self._rows += rows
        self._updated += updated
        self._refused_count += len(refused)
        self._refused += refused[: REFUSED_ROWS_MAX - len(self._refused)]

    def report(self, *, seconds: float) -> ImportReport:
        """The sum."""
        return ImportReport(
            rows=self._rows,
            updated=self._updated,
            known=self.known,
            refused_count=self._refused_count,
            refused=tuple(self._refused),
            attributes=self._layout.attributes,
            left_out=dict(self._layout.left_out),
            space=self._space,
            seconds=seconds,
            token=self.token,
        )


# Before anything is written


def planned(store: Store, request: ImportRequest) -> Plan:
    """Open the file and check its schema against what the store declares."""
    table = opened(request.path, request.format, attributes=request.attributes)
    with store.reading() as connection:
        known = _declared(connection, request.collection)
        space = _space(connection, request)
    columns = layout(
        table.schema,
        first_vector=table.first_vector(),
        dimension=request.dimension if space is None else space.dimension,
        declared=known,
        allowed=SENSITIVE if request.allow_sensitive else frozenset(),
    )
    chunk_rows = max(1, min(CHUNK_ROWS_MAX, CHUNK_BYTES // (2 * columns.vectors.dimension)))
    return Plan(table=table, layout=columns, chunk_rows=chunk_rows)


def _declared(connection: Connection, name: str) -> Fields:
    """The attributes that the collection declared before; none while there is no such one."""
    try:
        return declared(connection, collection_named(connection, name))
    except UnknownNameError:
        return {}


def _space(connection: Connection, request: ImportRequest) -> Space | None:
    """The space as it is stored, checked against what the request says of it."""
    try:
        space = space_named(connection, request.space)
    except UnknownNameError:
        return None
    if request.dimension not in (None, space.dimension):
        raise SpaceMismatchError(
            f"space '{space.name}' has {space.dimension} dimensions, not {request.dimension}"
        )
    if request.model_sha256 not in (None, space.model_sha256):
        raise SpaceMismatchError(f"space '{space.name}' is of another model; use another name")
    return space


def entered(
    connection: Connection, request: ImportRequest, plan: Plan, *, sha256: bytes
) -> FileInStore:
    """Make collection and space where they are missing, and declare the attributes."""
    collection = collection_or_new(connection, request.collection)
    space = _space(connection, request) or _pinned(connection, request, plan)
    declare(connection, collection, plan.layout.attributes)
    search_in(connection, collection, space)
    return FileInStore(collection=collection, space=space, sha256=sha256)


def _pinned(connection: Connection, request: ImportRequest, plan: Plan) -> Space:
    """A new space: its first import says which model it is of, or that nobody knows."""
    new = Space(
        id=SpaceId(0),
        name=request.space,
        dimension=plan.layout.vectors.dimension,
        model_sha256=request.model_sha256,
        licence=UNKNOWN_LICENCE,
        commercial=False,
    )
    return space_or_new(connection, new)


def fingerprint(plan: Plan, request: ImportRequest) -> bytes:
    """A hash of the file's content and of how it is read."""
    told = (request.format.value, plan.layout.vectors.dimension, sorted(plan.layout.attributes))
    whole = hashlib.sha256(repr(told).encode())
    for path in plan.table.files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.digest()


# Encoding, in a thread of its own


def _checked_chunks(plan: Plan, *, first_row: int) -> Iterator[tuple[CheckedRows, int]]:
    """Checked rows with the number of the row after them."""
    row = first_row
    for batch in plan.table.batches(first_row, rows=plan.chunk_rows):
        yield checked(batch, plan.layout, first_row=row), row + len(batch)
        row += len(batch)


def encoded_chunks(plan: Plan, file: FileInStore, *, first_row: int) -> Iterator[Chunk]:
    """The file's rows from `first_row` on, checked and encoded."""
    for rows, end_row in _checked_chunks(plan, first_row=first_row):
        place = {"first_row": first_row, "end_row": end_row}
        yield encoded(rows, plan.layout, collection=file.collection, space=file.space, **place)
        first_row = end_row


def _ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same chunks, each made while the one before is in use."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode") as thread:
        waiting = thread.submit(next, chunks, None)
        while (chunk := waiting.result()) is not None:
            waiting = thread.submit(next, chunks, None)
            yield chunk
