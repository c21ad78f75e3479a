"""Import against bare COPY: how much of the server's rate `facedex import` reaches.

Three ways for the same rows into fresh databases of one embedded server with its real settings,
each in a process of its own, over the same chunks:

* bare: COPY of buffers that were encoded before (not timed) into `face` and `vector`, with their
  keys, foreign keys and the log triggers;
* plain: COPY of the same fields into one table without keys;
* import: `import_file`, from opening the file to its last commit.

    python -m benchmarks.import_rate --rows 1000000
"""

import argparse
import json
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.bulk import arrow_copy, importing
from indexer.bulk.encoding import face_columns
from indexer.bulk.importing import ImportRequest, import_file
from indexer.bulk.storing import VECTOR_COLUMNS
from retrieval.store import embedded, schema
from retrieval.store.database import open_store

ROW_GROUP = 65_536
PLAIN_TYPES = {"id": "bigint", "collection_id": "bigint", "external_id": "text",
               "attributes": "jsonb", "face_id": "bigint", "space_id": "bigint",
               "data": "bytea", "norm": "real"}  # fmt: skip


def write_file(path: Path, *, rows: int, dimension: int, seed: int) -> None:
    """Random unit vectors in float16 with an id and ten attributes of every type."""
    random = np.random.default_rng(seed)
    writer = None
    for start in range(0, rows, ROW_GROUP):
        table = _some_rows(random, start, min(ROW_GROUP, rows - start), dimension)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _some_rows(random: np.random.Generator, start: int, count: int, dimension: int) -> pa.Table:
    vectors = random.standard_normal((count, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = pa.array(vectors.astype(np.float16).reshape(-1))
    words = pa.array([f"word {number}" for number in range(1000)])
    tags = words.take(pa.array(random.integers(0, 1000, 2 * count)))
    seconds = random.integers(1_500_000_000, 1_700_000_000, count)
    return pa.table(
        {
            "id": [f"face-{number:09d}" for number in range(start, start + count)],
            "vector": pa.FixedSizeListArray.from_arrays(flat, dimension),
            "score": random.random(count),
            "sharp": random.random(count).round(3),
            "weight": random.standard_normal(count).astype(np.float32),
            "camera": random.integers(0, 5000, count),
            "visit": random.integers(0, 2**40, count),
            "city": words.take(pa.array(random.integers(0, 1000, count))),
            "remark": words.take(pa.array(random.integers(0, 1000, count))),
            "indoors": random.random(count) < 0.5,
            "seen_at": pa.array(seconds, pa.timestamp("s", "UTC")),
            "labels": pa.ListArray.from_arrays(
                pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32)), tags
            ),
        }
    )


def bare(url: str, path: Path, rows: int) -> float:
    """Seconds of COPY and COMMIT into `face` and `vector`."""
    seconds = 0.0
    with psycopg.connect(url) as connection:
        for first, columns, chunk in _chunks(url, path):
            ids = arrow_copy.int8(pa.array(np.arange(first + 1, first + 1 + len(chunk))))
            faces = arrow_copy.rows(len(columns), [ids, (chunk.faces,)])
            vectors = arrow_copy.rows(len(VECTOR_COLUMNS), [ids, (chunk.vectors,)])
            begun = time.perf_counter()
            _copied(connection, f"face ({', '.join(columns)})", faces)
            _copied(connection, f"vector ({', '.join(VECTOR_COLUMNS)})", vectors)
            connection.commit()
            seconds += time.perf_counter() - begun
        _expect(connection, "vector", rows)
    return seconds


def plain(url: str, path: Path, rows: int) -> float:
    """Seconds of COPY and COMMIT into one table without keys."""
    seconds = 0.0
    with psycopg.connect(url) as connection:
        for first, face, chunk in _chunks(url, path):
            columns = [*face, *VECTOR_COLUMNS]
            if first == 0:
                told = ", ".join(f"{name} {PLAIN_TYPES[name]}" for name in columns)
                connection.execute(f"CREATE TABLE plain ({told})")
            ids = arrow_copy.int8(pa.array(np.arange(first + 1, first + 1 + len(chunk))))
            fields = [ids, (chunk.faces,), ids, (chunk.vectors,)]
            wire = arrow_copy.rows(len(columns), fields)
            begun = time.perf_counter()
            _copied(connection, f"plain ({', '.join(columns)})", wire)
            connection.commit()
            seconds += time.perf_counter() - begun
        _expect(connection, "plain", rows)
    return seconds


def imported(url: str, path: Path, rows: int) -> float:
    """Seconds of `import_file`."""
    with open_store(url) as store:
        report = import_file(store, _request(path))
    assert (report.rows, report.updated, report.refused_count) == (rows, 0, 0)
    with psycopg.connect(url) as connection:
        _expect(connection, "vector", rows)
    return report.seconds


def _request(path: Path) -> ImportRequest:
    return ImportRequest(path=path, collection="bench", space="bench@1")


def _chunks(url: str, path: Path) -> Iterator[tuple[int, list[str], Any]]:
    """First row, columns and fields of each chunk, as the import makes them."""
    with open_store(url) as store:
        plan = importing.planned(store, _request(path))
        with store.writing() as connection:
            file = importing.entered(connection, _request(path), plan, sha256=bytes(32))
    for chunk in importing.encoded_chunks(plan, file, first_row=0):
        yield chunk.first_row, face_columns(plan.layout), chunk


def _copied(connection: psycopg.Connection[Any], target: str, wire: pa.Array) -> None:
    statement = f"COPY {target} FROM STDIN (FORMAT binary)"
    with connection.cursor() as cursor, cursor.copy(statement) as sink:
        for piece in arrow_copy.stream(wire):
            sink.write(piece)


def _expect(connection: psycopg.Connection[Any], table: str, rows: int) -> None:
    found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    assert found == (rows,), found


def _measured(way: Callable[[str, Path, int], float], options: Any, results: Any) -> None:
    """In a process of its own: seconds, and the most memory it ever held, in MiB."""
    seconds = way(*options)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    results.put((seconds, peak / 1024))


def _apart(target: Callable[..., None], *options: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=target, args=options)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{target.__name__} failed")


def main() -> None:
    """Print one JSON line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--dimension", type=int, default=512)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--turns", type=int, default=1, help="repeat all three, and add them up")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="facedex-bench-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        _apart(_write, folder / "rows.parquet", chosen.rows, chosen.dimension, chosen.seed)
        try:
            server = embedded.ensure_running(folder / "home")
            seconds, peaks = _all_ways(server.url, folder / "rows.parquet", chosen)
        finally:
            embedded.stop(folder / "home")
    rates = {name: round(chosen.turns * chosen.rows / spent) for name, spent in seconds.items()}
    print(
        json.dumps(
            {
                "benchmark": "import_rate",
                "rows": chosen.rows,
                "dimension": chosen.dimension,
                "turns": chosen.turns,
                "rows_per_second": rates,
                "import_to_bare": round(rates["imported"] / rates["bare"], 3),
                "import_to_plain": round(rates["imported"] / rates["plain"], 3),
                "client_peak_mib": round(peaks["imported"]),
                "seed": chosen.seed,
                "machine": platform.machine(),
                "python": platform.python_version(),
                "pyarrow": pa.__version__,
                "postgresql": "embedded, fsync on",
            }
        )
    )


def _write(path: Path, rows: int, dimension: int, seed: int) -> None:
    write_file(path, rows=rows, dimension=dimension, seed=seed)


def _all_ways(
    server_url: str, path: Path, chosen: argparse.Namespace
) -> tuple[dict[str, float], dict[str, float]]:
    seconds = {"bare": 0.0, "plain": 0.0, "imported": 0.0}
    peaks = dict.fromkeys(seconds, 0.0)
    for _ in range(chosen.turns):
        for way in (bare, plain, imported):
            with _database(server_url) as url:
                results = multiprocessing.get_context("spawn").SimpleQueue()
                _apart(_measured, way, (url, path, chosen.rows), results)
                spent, peak = results.get()
            seconds[way.__name__] += spent
            peaks[way.__name__] = max(peaks[way.__name__], peak)
    return seconds, peaks


@contextmanager
def _database(server_url: str) -> Iterator[str]:
    """A fresh database, with everything before it on disk."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bench")
    url = server_url.replace("/postgres?", "/bench?")
    with open_store(url) as store:
        schema.upgrade(store)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        yield url
        connection.execute("DROP DATABASE bench WITH (FORCE)")


if __name__ == "__main__":
    main()
