"""Everything that an index will hold, brought from the store into files in one read.

Vectors and fields go to the disk as they come and are mapped afterwards: building an index of
more faces than memory holds needs memory for their numbers only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from retrieval.fields import Fields
from retrieval.index.making import Faces
from retrieval.store.changes import arrow_schema
from retrieval.store.holdings import Holding
from retrieval.store.vectors import half_rows
from retrieval.values import Cursor, HalfRows

BATCH_ROWS: Final = 10_000  # 10 MiB of vectors at 512 dimensions
VECTORS: Final = "spool.vectors"
TABLE: Final = "spool.arrow"


@dataclass(frozen=True, slots=True)
class Spool:
    """All faces in the order in which the store gave them."""

    cursor: Cursor
    faces: Faces  # mapped


def spooled(holding: Holding, folder: Path) -> Spool:
    """Read everything that is committed now, with every field that has values."""
    fields = holding.fields()
    while True:
        cursor = _copy(holding, folder, fields=fields)
        # Asked for afterwards: an attribute declared in between may have values already.
        declared = holding.fields()
        if declared == fields:
            return _mapped(folder, cursor, fields=fields, dimension=holding.space.dimension)
        fields = declared


def drop(folder: Path) -> None:
    """Remove the files; what is mapped of them stays readable."""
    (folder / VECTORS).unlink()
    (folder / TABLE).unlink()


def _copy(holding: Holding, folder: Path, *, fields: Fields) -> Cursor:
    """Write both files and give the moment at which they are true."""
    names = list(fields)
    schema = pa.schema([arrow_schema(fields).field(name) for name in names])
    with (
        (folder / VECTORS).open("wb") as vectors,
        pa.OSFile(str(folder / TABLE), "wb") as file,
        pa.ipc.new_file(file, schema) as table,
        holding.everything(fields, batch_rows=BATCH_ROWS) as everything,
    ):
        for batch in everything.batches:
            data = pa.chunked_array([batch.column("vector")])
            vectors.write(half_rows(data, dimension=holding.space.dimension).tobytes())
            table.write_batch(batch.select(names))
        return everything.cursor


def _mapped(folder: Path, cursor: Cursor, *, fields: Fields, dimension: int) -> Spool:
    table = pa.ipc.open_file(pa.memory_map(str(folder / TABLE))).read_all()
    shape = (table.num_rows, dimension)
    vectors: HalfRows = np.empty(shape, "<f2")
    if table.num_rows:  # an empty file cannot be mapped
        vectors = np.asarray(np.memmap(folder / VECTORS, "<f2", mode="r", shape=shape))
    return Spool(cursor, Faces(table.column(0).to_numpy(), vectors, table, fields))
