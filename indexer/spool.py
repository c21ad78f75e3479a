"""Everything the store holds of one collection in one space, brought into files in one read.

Vectors and fields go to the disk as they come and are mapped afterwards: building an index of
more faces than memory holds needs memory for their numbers only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from retrieval.fields import Fields
from retrieval.index.delta import half_rows
from retrieval.index.making import Faces
from retrieval.store.changes import arrow_schema, read_everything
from retrieval.store.collections import fields_of
from retrieval.store.database import Store
from retrieval.values import Collection, Cursor, HalfRows, Space

BATCH_ROWS: Final = 10_000  # 10 MiB of vectors at 512 dimensions
VECTORS: Final = "spool.vectors"
TABLE: Final = "spool.arrow"


@dataclass(frozen=True, slots=True)
class Spool:
    """All faces in the order in which the store gave them."""

    cursor: Cursor
    faces: Faces  # mapped


def spooled(store: Store, folder: Path, *, collection: Collection, space: Space) -> Spool:
    """Read everything that is committed now, with every field that has values."""
    fields = _fields(store, collection)
    while True:
        cursor = _copy(store, folder, collection=collection, space=space, fields=fields)
        # Asked for afterwards: an attribute declared in between may have values already.
        declared = _fields(store, collection)
        if declared == fields:
            return _mapped(folder, cursor, fields=fields, dimension=space.dimension)
        fields = declared


def drop(folder: Path) -> None:
    """Remove the files; what is mapped of them stays readable."""
    (folder / VECTORS).unlink()
    (folder / TABLE).unlink()


def _copy(
    store: Store, folder: Path, *, collection: Collection, space: Space, fields: Fields
) -> Cursor:
    """Write both files and give the moment at which they are true."""
    names = list(fields)
    schema = pa.schema([arrow_schema(fields).field(name) for name in names])
    with (
        (folder / VECTORS).open("wb") as vectors,
        pa.OSFile(str(folder / TABLE), "wb") as file,
        pa.ipc.new_file(file, schema) as table,
        read_everything(
            store, collection=collection, space=space, fields=fields, batch_rows=BATCH_ROWS
        ) as everything,
    ):
        for batch in everything.batches:
            data = pa.chunked_array([batch.column("vector")])
            vectors.write(half_rows(data, dimension=space.dimension).tobytes())
            table.write_batch(batch.select(names))
        return everything.cursor


def _mapped(folder: Path, cursor: Cursor, *, fields: Fields, dimension: int) -> Spool:
    table = pa.ipc.open_file(pa.memory_map(str(folder / TABLE))).read_all()
    shape = (table.num_rows, dimension)
    vectors: HalfRows = np.empty(shape, "<f2")
    if table.num_rows:  # an empty file cannot be mapped
        vectors = np.asarray(np.memmap(folder / VECTORS, "<f2", mode="r", shape=shape))
    return Spool(cursor, Faces(table.column("face").to_numpy(), vectors, table, fields))


def _fields(store: Store, collection: Collection) -> Fields:
    with store.reading() as connection:
        return fields_of(connection, collection)
