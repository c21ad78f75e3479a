"""kill -9 of an import at any moment, then the same command again: every row is in exactly once."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from retrieval.store.database import Store

ROWS = 6_000
KILLS = 5
IMPORT = """
import sys
from pathlib import Path
from indexer.bulk import importing
from retrieval.store.database import open_store
importing.CHUNK_ROWS_MAX = 100
with open_store(sys.argv[1]) as store:
    request = importing.ImportRequest(path=Path(sys.argv[2]), collection="c", space="s")
    print("begins", flush=True)
    importing.import_file(store, request)
"""


@pytest.fixture(params=[True, False], ids=["with ids", "without ids"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    raw = np.random.default_rng(5).standard_normal((ROWS, 16)).astype(np.float16)
    columns = {
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(raw.reshape(-1)), 16),
        "row": pa.array(range(ROWS)),
        "person": [f"person {n % 700}" for n in range(ROWS)],
    }
    if request.param:
        columns["id"] = [f"face {n}" for n in range(ROWS)]
    path = tmp_path / "faces.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_every_row_is_in_exactly_once(store: Store, database_url: str, file: Path) -> None:
    moments = random.Random(7)
    command = [sys.executable, "-c", IMPORT, database_url, str(file)]
    killed, finished = 0, False
    for _ in range(KILLS):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.uniform(0.05, 0.5))
            process.send_signal(signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
        # A run that ended before its kill leaves all rows, and the next one begins anew over them.
        finished |= process.returncode == 0
        finished |= assert_whole_chunks_only(store, finished=finished) == ROWS
    assert killed >= KILLS / 2
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with store.reading() as connection:
        rows = connection.execute(
            text("SELECT CAST(attributes ->> 'row' AS bigint) AS row FROM face ORDER BY 1")
        )
        assert [row.row for row in rows] == list(range(ROWS))
        assert connection.scalar(text("SELECT count(*) FROM person")) == 700


def assert_whole_chunks_only(store: Store, *, finished: bool) -> int:
    with store.reading() as connection:
        faces, vectors, done = connection.execute(
            text(
                "SELECT (SELECT count(*) FROM face), (SELECT count(*) FROM vector),"
                " (SELECT max(rows_done) FROM imported_file)"
            )
        ).one()
    assert faces == vectors
    assert done is None or faces == (ROWS if finished else done)
    return int(faces)
