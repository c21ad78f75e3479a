"""From what a file held to a DataSet: unit rows, columns of our types, queries of two kinds.

Only the cosine exists here. A set that was made for Euclidean distance is made unit as well; the
neighbours that its file lists then hold no longer, and `truth` works out its own for every set.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.filtered.data.grid import table_of_queries, with_grid
from benchmarks.filtered.values import DataSet, Numbers
from retrieval.errors import SchemaMismatchError, UsageError
from retrieval.fields import BUILT_IN
from retrieval.filters.columns import ARROW_TYPES
from retrieval.values import FieldType, UnitRows, unit_rows

NO_COLUMNS: Final = pa.table({})
TUNING_EVERY: Final = 3  # of a set's own queries, each third is for tuning
_BLOCK_ROWS: Final = 16_384


def unit_in_blocks(raw: npt.NDArray[Any]) -> UnitRows:
    """`raw` (n, d), perhaps on disk, as unit rows; memory beyond the answer is one block.

    Raises:
        UnusableVectorError: a row is NaN, infinite or near zero.
    """
    rows = np.empty(raw.shape, np.float32)
    for start in range(0, len(raw), _BLOCK_ROWS):
        rows[start : start + _BLOCK_ROWS] = unit_rows(raw[start : start + _BLOCK_ROWS])
    rows.setflags(write=False)
    return UnitRows(rows)


def with_own_queries(
    name: str,
    vectors: UnitRows,
    table: pa.Table,
    *,
    asked: UnitRows,
    asked_table: pa.Table = NO_COLUMNS,
    seed: int = 0,
) -> DataSet:
    """A set that brings queries: every third is for tuning, the others are reported on.

    Raises:
        UsageError: rows, queries and tables do not fit one another.
    """
    _fits(vectors, table, what="the rows")
    _fits(asked, asked_table, what="the queries")
    if vectors.shape[1] != asked.shape[1]:
        raise UsageError(
            f"{name}: rows of {vectors.shape[1]} dimensions, queries of {asked.shape[1]}"
        )
    table = with_grid(table, vectors, seed=seed)
    asked_table = table_of_queries(asked_table, asked, rows=vectors, table=table, seed=seed)
    tuning = np.arange(len(asked)) % TUNING_EVERY == TUNING_EVERY - 1
    return DataSet(
        name=name,
        vectors=vectors,
        table=table,
        queries=UnitRows(asked[~tuning]),
        query_table=asked_table.filter(pa.array(~tuning)),
        tuning=UnitRows(asked[tuning]),
        tuning_table=asked_table.filter(pa.array(tuning)),
    )


def with_rows_held_out(
    name: str, vectors: UnitRows, table: pa.Table, *, queries: int, tuning: int, seed: int = 0
) -> DataSet:
    """A set without queries: some of its rows, drawn at random, become queries and are no rows.

    Raises:
        UsageError: fewer rows than would be held out, or the table has another number of them.
    """
    _fits(vectors, table, what="the rows")
    if queries + tuning >= len(vectors):
        raise UsageError(f"{name} has {len(vectors)} rows; {queries + tuning} cannot be held out")
    order = np.random.default_rng(seed).permutation(len(vectors))
    asked, tuned, kept = np.split(order, [queries, queries + tuning])
    kept.sort()
    rows = _taken(vectors, kept)
    row_table = with_grid(_table_taken(table, kept), rows, seed=seed)

    def questions(chosen: Numbers) -> tuple[UnitRows, pa.Table]:
        some, given = _taken(vectors, chosen), _table_taken(table, chosen)
        return some, table_of_queries(given, some, rows=rows, table=row_table, seed=seed)

    reported, reported_table = questions(asked)
    tuned_rows, tuned_table = questions(tuned)
    return DataSet(
        name=name,
        vectors=rows,
        table=row_table,
        queries=reported,
        query_table=reported_table,
        tuning=tuned_rows,
        tuning_table=tuned_table,
    )


def as_fields(table: pa.Table) -> pa.Table:
    """The table with each column of a type that a field has; NaN becomes NULL.

    Raises:
        SchemaMismatchError: a column cannot be a field; the message lists them all.
    """
    columns, problems = {}, []
    for name, type_ in zip(table.column_names, table.schema.types, strict=True):
        kind = _kind(name, type_)
        if kind is None:
            problems.append(f'the column "{name}" is {type_}, which no field can be')
            continue
        try:
            columns[name] = _cast(table.column(name), kind)
        except pa.ArrowInvalid as cause:
            problems.append(f'the column "{name}" is no {kind} ({cause})')
    if problems:
        raise SchemaMismatchError("; ".join(problems))
    return pa.table(columns)


def _kind(name: str, type_: pa.DataType) -> FieldType | None:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return FieldType.TAGS if _is_text(type_.value_type) else None
    if pa.types.is_integer(type_):
        return FieldType.NUMBER if BUILT_IN.get(name) is FieldType.NUMBER else FieldType.INTEGER
    if pa.types.is_floating(type_):
        return FieldType.NUMBER
    if pa.types.is_boolean(type_):
        return FieldType.BOOLEAN
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return FieldType.TIMESTAMP
    return FieldType.TEXT if _is_text(type_) else None


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _cast(column: pa.ChunkedArray, kind: FieldType) -> pa.ChunkedArray:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(column.type):
        # A moment that names no zone is UTC already, as in a filter.
        column = column.cast(pa.timestamp("us", column.type.tz or "UTC"))
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column.cast(ARROW_TYPES[kind])


def _fits(vectors: UnitRows, table: pa.Table, *, what: str) -> None:
    if table.num_columns and table.num_rows != len(vectors):
        raise UsageError(
            f"{what} have {len(vectors)} vectors and {table.num_rows} sets of attributes"
        )


def _taken(vectors: UnitRows, rows: Numbers) -> UnitRows:
    some = vectors[rows]
    some.setflags(write=False)
    return UnitRows(some)


def _table_taken(table: pa.Table, rows: Numbers) -> pa.Table:
    return table.take(pa.array(rows)) if table.num_columns else table
