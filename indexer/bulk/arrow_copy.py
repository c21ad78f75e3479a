"""Arrow columns as the binary COPY format of PostgreSQL, a whole column at a time.

A row on the wire is the number of its fields, then each field as its length and its bytes. Each
column becomes two Arrow binary columns, lengths and bytes, and one `binary_join_element_wise` puts
the rows together in C++: about 15 ns a field on one core (binary COPY through psycopg's `write_row`
takes 10 us a row), without holding the interpreter's lock, so the server works meanwhile. JSON and
text arrays are made by the same kernels.

Fields that are known only in the transaction (ids) come first and are joined last, in `rows`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension
TRAILER: Final = b"\xff\xff"
WRITE_BYTES: Final = 128 * 1024  # psycopg splits what is larger
NULL_LENGTH: Final = -1
FLOAT4_OID: Final = 700
TEXT_OID: Final = 25
JSONB_VERSION: Final = b"\x01"
POSTGRES_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01 in Unix microseconds
# What JSON must escape, NUL excepted: it never gets this far.
_TO_ESCAPE: Final = r'["\\\x01-\x1f]'
_EMPTY: Final = pa.scalar(b"", pa.binary())

Fields = tuple[pa.Array | pa.Scalar, ...]  # binary columns that are put side by side


def int8_constant(value: int) -> Fields:
    """One whole number for every row."""
    return (pa.scalar((8).to_bytes(4, "big") + value.to_bytes(8, "big", signed=True), pa.binary()),)


def int8(values: pa.Array) -> Fields:
    """Whole numbers as bigint."""
    return _fixed(values, np.dtype(">i8"))


def float8(values: pa.Array) -> Fields:
    """Numbers as double precision."""
    return _fixed(values, np.dtype(">f8"))


def float4(values: pa.Array) -> Fields:
    """Numbers as real."""
    return _fixed(values, np.dtype(">f4"))


def timestamptz(values: pa.Array) -> Fields:
    """Microseconds since 1970 in UTC as timestamptz."""
    return int8(pc.subtract(values.view(pa.int64()), POSTGRES_EPOCH_US))


def text(values: pa.Array) -> Fields:
    """Text or bytes as text or bytea."""
    return _prefixed(values.view(pa.binary()))


def bytea_rows(rows: npt.NDArray[np.generic]) -> Fields:
    """The rows of an (n, d) array as bytea."""
    return _prefixed(_wire(np.ascontiguousarray(rows).reshape(len(rows), -1)))


def float4_lists(values: pa.FixedSizeListArray) -> Fields:
    """Fixed-size lists of float32 as real[]."""
    size = values.type.list_size
    record = np.dtype([("length", ">i4"), ("value", ">f4")])
    wire = np.zeros(len(values), dtype=[("head", ">i4", 5), ("items", record, size)])
    wire["head"] = (1, 0, FLOAT4_OID, size, 1)  # dimensions, NULLs, type, size, first index
    wire["items"]["length"] = record["value"].itemsize
    # A masked list has its numbers all the same: `values`, unlike `flatten`, leaves none out.
    numbers = values.values.to_numpy()[values.offset * size :][: len(values) * size]
    wire["items"]["value"] = numbers.reshape(-1, size)
    return _prefixed(_only(_wire(wire), values.is_valid()))


def text_lists(values: pa.ListArray) -> Fields:
    """Lists of text as text[]."""
    sizes = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    head = np.zeros(len(values), dtype=(">i4", 5))
    head[:] = (1, 0, TEXT_OID, 0, 1)
    head[:, 3] = sizes
    heads = _wire(head)
    if not sizes.all():
        # PostgreSQL's empty array has no dimension, so neither size nor first index.
        empty = _wire(np.tile(np.array([0, 0, TEXT_OID], ">i4"), (len(values), 1)))
        heads = pc.if_else(pa.array(sizes == 0), empty, heads)
    items = _joined(text(pc.list_flatten(values)))
    wire = _joined((heads, _regrouped(items, sizes)))
    return _prefixed(_only(wire, values.is_valid()))


def jsonb(columns: Mapping[str, pa.Array], *, rows: int) -> Fields:
    """One object a row with the columns' values; NULL leaves its key out."""
    members = [_member(name, values) for name, values in columns.items()]
    if members:
        # Arrow (26.0) forgets rows that are NULL in every column when it skips NULLs.
        nothing = reduce(pc.and_, (member.is_null() for member in members))
        members[0] = pc.if_else(nothing, "", members[0])
        inside = pc.binary_join_element_wise(*members, ",", null_handling="skip")
    else:
        inside = pa.array([""] * rows, pa.string())
    return _prefixed(pc.binary_join_element_wise("\x01{", inside, "}", "").view(pa.binary()))


def jsonb_texts(values: pa.Array) -> Fields:
    """JSON that is written out already as jsonb."""
    version = pa.scalar(JSONB_VERSION, pa.binary())
    return _prefixed(pc.binary_join_element_wise(version, values.view(pa.binary()), _EMPTY))


def joined(columns: Iterable[Fields]) -> pa.Array:
    """The fields of several columns as one binary column."""
    return _joined([field for column in columns for field in column])


def rows(count: int, columns: Iterable[Fields]) -> pa.Array:
    """Whole rows of `count` fields each, ready for the wire."""
    head = pa.scalar(count.to_bytes(2, "big"), pa.binary())
    return _joined([head, *(field for column in columns for field in column)])


def stream(wire: pa.Array) -> Iterator[bytes | memoryview]:
    """What COPY reads, in pieces."""
    yield HEADER
    if len(wire):
        first, last = np.frombuffer(wire.buffers()[1], np.int32)[
            [wire.offset, wire.offset + len(wire)]
        ]
        held = memoryview(wire.buffers()[2])[first:last]
        for start in range(0, len(held), WRITE_BYTES):
            yield held[start : start + WRITE_BYTES]
    yield TRAILER


def _fixed(values: pa.Array, wire: np.dtype[np.generic]) -> Fields:
    """Numbers of one size, with lengths in the same piece where there is no NULL."""
    plain = values.fill_null(0) if values.null_count else values
    numbers = plain.to_numpy(zero_copy_only=False)
    if values.null_count:
        return _prefixed(_only(_wire(numbers.astype(wire)), values.is_valid()))
    record = np.empty(len(values), dtype=[("length", ">i4"), ("value", wire)])
    record["length"], record["value"] = wire.itemsize, numbers
    return (_wire(record),)


def _prefixed(values: pa.Array) -> Fields:
    """Bytes with their length before them, -1 for NULL."""
    lengths = pc.fill_null(pc.binary_length(values), NULL_LENGTH)
    return (_wire(lengths.to_numpy(zero_copy_only=False).astype(">i4")), values)


def _wire(rows: npt.NDArray[np.generic]) -> pa.Array:
    """The memory of each row as one value, without a copy."""
    width = rows[:1].nbytes
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(width)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.Array.from_buffers(pa.binary(), len(rows), buffers)


def _only(values: pa.Array, valid: pa.Array) -> pa.Array:
    return pc.if_else(valid, values, None)


def _joined(fields: Iterable[pa.Array | pa.Scalar]) -> pa.Array:
    return pc.binary_join_element_wise(
        *fields, _EMPTY, null_handling="replace", null_replacement=b""
    )


def _regrouped(items: pa.Array, sizes: npt.NDArray[np.int32]) -> pa.Array:
    """The bytes of each list's items in one value: they lie side by side already."""
    ends = np.frombuffer(items.buffers()[1], np.int32)[items.offset :]
    offsets = ends[np.concatenate(([0], np.cumsum(sizes)))].astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), items.buffers()[2]]
    return pa.Array.from_buffers(pa.binary(), len(sizes), buffers)


def _member(name: str, values: pa.Array) -> pa.Array:
    """`"name":value` for each row, NULL where there is none."""
    key = json.dumps(name, ensure_ascii=False) + ":"
    if pa.types.is_string(values.type):
        return pc.binary_join_element_wise(key, _quoted(values), "")
    if pa.types.is_timestamp(values.type):
        written = pc.binary_replace_slice(values.cast(pa.string()), 10, 11, "T")
        return pc.binary_join_element_wise(key + '"', written, '+00:00"', "")
    if pa.types.is_list(values.type):
        return pc.binary_join_element_wise(key + "[", _listed(values), "]", "")
    return pc.binary_join_element_wise(key, values.cast(pa.string()), "")


def _quoted(values: pa.Array) -> pa.Array:
    """Texts as JSON strings."""
    quoted = pc.binary_join_element_wise('"', values, '"', "")
    escaped = pc.match_substring_regex(values, _TO_ESCAPE)
    if not pc.any(escaped).as_py():
        return quoted
    told = [json.dumps(value, ensure_ascii=False) for value in values.filter(escaped).to_pylist()]
    return pc.replace_with_mask(
        quoted, pc.fill_null(escaped, fill_value=False), pa.array(told, pa.string())
    )


def _listed(values: pa.ListArray) -> pa.Array:
    """The items of each list as JSON strings with commas between."""
    items = _quoted(pc.list_flatten(values))
    sizes = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), items)
    return pc.if_else(values.is_valid(), pc.binary_join(lists, ","), None)
