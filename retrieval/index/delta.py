"""What came after the snapshot: chunks of new vectors, patches of changed attributes.

Both are kept like the runs of a log-structured merge tree: an update appends a small one, and
neighbours of like size are merged. So n rows that come in many updates are copied log n times, and
a filter looks into log n pieces.
"""

from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa

from retrieval.fields import Fields
from retrieval.filters.columns import ARROW_TYPES, Columns
from retrieval.filters.rows import RowSet
from retrieval.index.exact import Mask, Numbers, Rows, scales_of
from retrieval.values import FaceIds, HalfRows

MERGED_ROWS_MAX: Final = 2**17  # larger ones stay as they are: 128 MiB of vectors at 512 dimensions
Piece = TypeVar("Piece", bound=Sized)


@dataclass(frozen=True)
class Chunk:
    """Faces whose vectors are newer than the snapshot, by ascending id."""

    rows: Rows
    table: pa.Table  # every field, in row order
    columns: Columns
    alive: Mask  # (n,) neither gone nor in a later chunk

    def __len__(self) -> int:
        return len(self.rows.ids)

    @cached_property
    def findable(self) -> RowSet:
        """The rows that a search may find."""
        return RowSet.of_mask(self.alive & self.rows.usable)


@dataclass(frozen=True)
class Patch:
    """Snapshot rows whose attributes changed; their vectors are still right."""

    numbers: Numbers  # (n,) rows of the snapshot, ascending
    table: pa.Table  # every field, in the same order
    columns: Columns

    def __len__(self) -> int:
        return len(self.numbers)


def chunk(ids: FaceIds, vectors: HalfRows, table: pa.Table, *, fields: Fields) -> Chunk:
    """A chunk of rows in any order, each face once; missing fields are NULL."""
    order = np.argsort(ids)
    vectors = np.ascontiguousarray(vectors[order])
    table = with_all(table, fields).take(pa.array(order))
    return Chunk(
        rows=Rows(ids=ids[order], scales=scales_of(vectors), vectors=vectors),
        table=table,
        columns=Columns.from_arrow(table, fields),
        alive=np.ones(len(ids), np.bool_),
    )


def patch(numbers: Numbers, table: pa.Table, *, fields: Fields) -> Patch:
    """A patch of snapshot rows in any order, each row once; missing fields are NULL."""
    order = np.argsort(numbers)
    table = with_all(table, fields).take(pa.array(order))
    return Patch(numbers[order], table, Columns.from_arrow(table, fields))


def with_chunk(chunks: tuple[Chunk, ...], new: Chunk, *, fields: Fields) -> tuple[Chunk, ...]:
    """The chunks with one more; those of which nothing lives are left out."""
    living = tuple(one for one in chunks if one.alive.any())
    return _appended(living, new, merge=lambda *pair: _merged_chunks(*pair, fields=fields))


def with_patch(patches: tuple[Patch, ...], new: Patch, *, fields: Fields) -> tuple[Patch, ...]:
    """The patches with one more, whose values win."""
    return _appended(patches, new, merge=lambda *pair: _merged_patches(*pair, fields=fields))


def _merged_chunks(older: Chunk, newer: Chunk, *, fields: Fields) -> Chunk:
    """One chunk of all that is alive in two."""
    pieces = (older, newer)
    return chunk(
        np.concatenate([one.rows.ids[one.alive] for one in pieces]),
        np.concatenate([one.rows.vectors[one.alive] for one in pieces]),
        pa.concat_tables(
            [with_all(one.table, fields).filter(pa.array(one.alive)) for one in pieces]
        ),
        fields=fields,
    )


def _merged_patches(older: Patch, newer: Patch, *, fields: Fields) -> Patch:
    """One patch of two; the newer values win."""
    kept = ~np.isin(older.numbers, newer.numbers)
    table = with_all(older.table, fields).filter(pa.array(kept))
    return patch(
        np.concatenate([older.numbers[kept], newer.numbers]),
        pa.concat_tables([table, with_all(newer.table, fields)]),
        fields=fields,
    )


def _appended(
    pieces: tuple[Piece, ...], piece: Piece, *, merge: Callable[[Piece, Piece], Piece]
) -> tuple[Piece, ...]:
    """The pieces with one more, neighbours of like size merged."""
    while pieces and len(pieces[-1]) <= 2 * len(piece):
        if len(pieces[-1]) + len(piece) > MERGED_ROWS_MAX:
            break
        piece = merge(pieces[-1], piece)
        pieces = pieces[:-1]
    return (*pieces, piece)


def with_all(table: pa.Table, fields: Fields) -> pa.Table:
    """The table's columns of these fields; a field that it lacks is NULL."""
    return pa.table(
        {
            name: table.column(name)
            if name in table.column_names
            else pa.nulls(table.num_rows, ARROW_TYPES[kind])
            for name, kind in fields.items()
        }
    )


def completed(columns: Columns, fields: Fields) -> Columns:
    """The columns with an all-NULL one for each field that was declared later."""
    lacking = {name: kind for name, kind in fields.items() if name not in columns.fields}
    if not lacking:
        return columns
    empty = pa.table(
        {name: pa.nulls(columns.rows, ARROW_TYPES[kind]) for name, kind in lacking.items()}
    )
    new = Columns.from_arrow(empty, lacking)
    return Columns(
        rows=columns.rows,
        fields={**columns.fields, **lacking},
        by_name={**columns.by_name, **new.by_name},
    )
