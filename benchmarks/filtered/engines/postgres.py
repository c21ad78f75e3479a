"""pgvector in the PostgreSQL that Facedex brings along: HNSW with iterative scans, or exact.

One backend for a thread, no parallel workers; B-trees on scalar fields, GIN on tags. An iterative
scan goes on through the graph until enough rows pass, up to `hnsw.max_scan_tuples`; `exact` turns
the graph off, so that the planner takes the other indexes or the whole table.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg

from benchmarks.filtered.engines import build_threads
from benchmarks.filtered.engines.lists import with_exact
from benchmarks.filtered.engines.plain import BATCH_ROWS
from benchmarks.filtered.engines.sql import Dialect, condition, quoted_name, quoted_text
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting
from retrieval.filters.tree import pattern_of
from retrieval.store import embedded
from retrieval.values import FieldType

LINKS: Final = 16
BUILD_CANDIDATES: Final = 100
WIDTHS: Final = (10, 16, 32, 64, 128, 256, 512, 1000)
SCANNED_MAX: Final = (20_000, 1_000_000)
DONE: Final = "indexed"  # a file: the table is whole
ROW: Final = "row number"  # no field has this name
VECTOR: Final = "row vector"
TYPES: Final = {
    FieldType.NUMBER: "float8",
    FieldType.INTEGER: "int8",
    FieldType.TEXT: "text",
    FieldType.BOOLEAN: "bool",
    FieldType.TIMESTAMP: "timestamptz",
    FieldType.TAGS: "text[]",
}
DIALECT: Final = Dialect(
    has=lambda column, tag: f"{column} @> ARRAY[{tag}]::text[]",
    begins=lambda column, prefix: f"{column} LIKE {quoted_text(pattern_of(prefix))}",
)


class Adapter:
    """A table in a server of its own."""

    def __init__(self) -> None:
        self._opened = threading.local()
        self._connections: list[psycopg.Connection[Any]] = []
        self._home: Path | None = None

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Start the server; copy the rows and build the indexes where they are missing."""
        self._home = folder / "home"
        self._url = embedded.ensure_running(self._home).url
        if not (folder / DONE).exists():
            self._copy(data)
            (folder / DONE).touch()
        self._connection()

    def _copy(self, data: DataSet) -> None:
        kinds = data.fields
        vector_bytes = data.vectors.nbytes
        connection = self._connection()
        _run(connection, "CREATE EXTENSION IF NOT EXISTS vector")
        _run(connection, "DROP TABLE IF EXISTS rows")
        columns = "".join(f", {quoted_name(n)} {_declared(kind)}" for n, kind in kinds.items())
        dimension = data.vectors.shape[1]
        _run(
            connection,
            f'CREATE TABLE rows ("{ROW}" int8, "{VECTOR}" vector({dimension}){columns})',
        )
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(["int8", "bytea", *(TYPES[kind] for kind in kinds.values())])
            for row in _rows(data):
                copy.write_row(row)
        _run(connection, f"SET maintenance_work_mem = '{vector_bytes * 2 // 1024 + 65_536}kB'")
        _run(connection, f"SET max_parallel_maintenance_workers = {build_threads() - 1}")
        _run(
            connection,
            f'CREATE INDEX ON rows USING hnsw ("{VECTOR}" vector_ip_ops)'
            f" WITH (m = {LINKS}, ef_construction = {BUILD_CANDIDATES})",
        )
        for name, kind in kinds.items():
            method = "gin" if kind is FieldType.TAGS else "btree"
            _run(connection, f"CREATE INDEX ON rows USING {method} ({quoted_name(name)})")
        _run(connection, "VACUUM ANALYZE rows")

    def settings(self, cell: Cell) -> Sequence[Setting]:
        """Over ef, how far a filtered scan may go, and the order in which it answers."""
        if cell.where is None:
            return [{"ef": ef} for ef in WIDTHS]
        scans: list[Setting] = [
            {"ef": ef, "tuples": tuples} for ef in WIDTHS for tuples in SCANNED_MAX
        ]
        return with_exact(scans, {"exact": 1}, cell)

    def asked(self, ask: Ask) -> object:
        """The statement and the vector as text."""
        written = "" if ask.filter is None else f"WHERE {condition(ask.filter, DIALECT)}"
        statement = (
            f'SELECT "{ROW}" FROM rows {written.replace("%", "%%")}'  # noqa: S608 - our own words
            f' ORDER BY "{VECTOR}" <#> %s::vector LIMIT %s'
        )
        return statement, "[" + ",".join(map(repr, ask.query.tolist())) + "]"

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """Ask for row numbers only."""
        assert isinstance(asked, tuple)
        statement, vector = asked
        connection = self._connection()
        if self._opened.setting != setting:
            _apply(connection, setting)
            self._opened.setting = setting
        # A plan made for one filter must not serve the next.
        found = connection.execute(statement, (vector, count), prepare=False, binary=True)
        return np.array([row for (row,) in found], np.int64)

    def processes(self) -> list[int]:
        """The backends: their time is this engine's."""
        return [connection.info.backend_pid for connection in self._connections]

    def _connection(self) -> psycopg.Connection[Any]:
        """This thread's connection."""
        if not hasattr(self._opened, "connection"):
            connection = psycopg.connect(self._url, autocommit=True)
            _run(connection, "SET max_parallel_workers_per_gather = 0")
            _run(connection, "SET work_mem = '256MB'")
            self._opened.connection, self._opened.setting = connection, None
            self._connections.append(connection)
        opened: psycopg.Connection[Any] = self._opened.connection
        return opened

    def close(self) -> None:
        """Stop the server."""
        for connection in self._connections:
            connection.close()
        if self._home is not None:
            embedded.stop(self._home)


_COPY: Final = "COPY rows FROM STDIN (FORMAT binary)"


def _run(connection: psycopg.Connection[Any], statement: str) -> None:
    connection.execute(statement)


def _apply(connection: psycopg.Connection[Any], setting: Setting) -> None:
    exact = "exact" in setting
    _run(connection, f"SET enable_indexscan = {'off' if exact else 'on'}")
    if exact:
        return
    _run(connection, f"SET hnsw.ef_search = {setting['ef']}")
    scan = "relaxed_order" if "tuples" in setting else "off"
    _run(connection, f"SET hnsw.iterative_scan = {scan}")
    _run(connection, f"SET hnsw.max_scan_tuples = {setting.get('tuples', SCANNED_MAX[0])}")
    _run(connection, "SET hnsw.scan_mem_multiplier = 4")


def _declared(kind: FieldType) -> str:
    # Texts compare by bytes here, as everywhere in Facedex.
    return f'{TYPES[kind]} COLLATE "C"' if kind is FieldType.TEXT else TYPES[kind]


def _rows(data: DataSet) -> Iterator[tuple[Any, ...]]:
    """Rows as COPY takes them: number, vector in pgvector's binary form, attributes."""
    head = np.array([data.vectors.shape[1], 0], ">i2").tobytes()
    for start in range(0, len(data.vectors), BATCH_ROWS):
        vectors = data.vectors[start : start + BATCH_ROWS].astype(">f4")
        part = data.table.slice(start, BATCH_ROWS)
        columns = [column.to_pylist() for column in part.columns]
        for place, vector in enumerate(vectors):
            attributes = (column[place] for column in columns)
            yield (start + place, head + vector.tobytes(), *attributes)
