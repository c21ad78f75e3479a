"""Rows and names as plain Python, for databases that take documents and simple names."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from benchmarks.filtered.values import DataSet
from retrieval.fields import Fields
from retrieval.filters.literals import Literal

Plain = bool | int | float | str  # a literal, with moments as numbers

BATCH_ROWS: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def simple_names(fields: Fields) -> dict[str, str]:
    """A name of letters and digits for each field, whatever it is called."""
    return {name: f"c{place}" for place, name in enumerate(fields)}


def counted(table: pa.Table, names: dict[str, str]) -> pa.Table:
    """The table under simple names, with moments as microseconds since 1970."""
    columns = {}
    for name, simple in names.items():
        column = table.column(name)
        is_moment = pa.types.is_timestamp(column.type)
        columns[simple] = column.cast(pa.int64()) if is_moment else column
    return pa.table(columns) if columns else table


def rows_of(data: DataSet, names: dict[str, str]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The attributes in batches: the number of the first row, and a dict for each without NULLs."""
    table = counted(data.table, names)
    for start in range(0, len(data.vectors), BATCH_ROWS):
        batch = table.slice(start, BATCH_ROWS).to_pylist()
        # A table without columns has no rows either.
        batch = batch or [{} for _ in data.vectors[start : start + BATCH_ROWS]]
        yield start, [{k: v for k, v in row.items() if v is not None} for row in batch]


def as_number(value: Literal) -> Plain:
    """A moment as microseconds; anything else as it is."""
    if not isinstance(value, datetime):
        return value
    return (value - _EPOCH) // timedelta(microseconds=1)


def after(prefix: str) -> str:
    """The first text after all that begin with `prefix`, by code points; `prefix` is not empty."""
    last = ord(prefix[-1]) + 1
    if 0xD800 <= last <= 0xDFFF:  # surrogates are no characters
        last = 0xE000
    return prefix[:-1] + chr(last)
