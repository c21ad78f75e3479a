"""Columns from Arrow tables, and from the files of format 1.

Arrow's hash table finds the distinct values of a million rows in 5 to 60 ms; only these are
sorted. The rows by code come from numpy's radix sort where codes are narrow, and from a sort of
whole words (code, row) where they are not.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.filters.column import (
    BYTE_CODES,
    ORDERED_CODES_MIN,
    VALUE_TYPES,
    Codes,
    Column,
    Dictionary,
    Places,
    ScalarColumn,
    TagsColumn,
    Values,
    narrow,
)
from retrieval.filters.rows import NUMBERS_SHARE, RowSet, read_only, words_for
from retrieval.values import FieldType

BUCKETS_HALF: Final = 127  # any two neighbours hold more rows than this share, so 255 are enough
_NOTHING: Final = np.empty(0, np.int64)


def encoded(column: pa.ChunkedArray, type_: FieldType) -> Column:
    """The column of values of the type in ARROW_TYPES, checked already."""
    match type_:
        case FieldType.TAGS:
            return _tags(column)
        case FieldType.TEXT:
            codes, words = _texts(column)
            return _scalar(type_, codes, values=words.text, ends=words.ends)
        case FieldType.NUMBER:
            # Arrow's hash tables tell -0.0 from 0.0, SQL does not: adding zero leaves only 0.0.
            return _numbers(type_, pc.add(column, 0.0))
        case _:
            return _numbers(
                type_, column.cast(pa.int8() if type_ is FieldType.BOOLEAN else pa.int64())
            )


def _numbers(type_: FieldType, column: pa.ChunkedArray) -> ScalarColumn:
    hashed = _joined(column).dictionary_encode()
    distinct = hashed.dictionary.to_numpy()
    order = np.argsort(distinct)
    codes = _codes(hashed.indices, order)
    return _scalar(type_, codes, values=_held(type_, distinct[order]), ends=_NOTHING)


def _held(type_: FieldType, values: Values) -> Values:
    """The values in the smallest type that has all of them."""
    for kind in VALUE_TYPES[type_]:
        with np.errstate(over="ignore"):
            held = values.astype(kind)
        if np.array_equal(held, values):
            return held
    raise TypeError(f"a {type_} column cannot hold {values.dtype}")


def _texts(column: pa.ChunkedArray) -> tuple[Codes, Dictionary]:
    # Offsets of 64 bits: a million long texts may exceed the 2 GiB of a string array.
    hashed = _joined(column.cast(pa.large_string())).dictionary_encode()
    order = pc.sort_indices(hashed.dictionary)
    words = hashed.dictionary.take(order)
    ends = running_sum(pc.binary_length(words).to_numpy())
    text = np.frombuffer(words.buffers()[2] or b"", np.uint8)[: ends[-1]]
    return _codes(hashed.indices, order.to_numpy()), Dictionary(ends, text)


def _codes(indices: pa.Array, order: npt.NDArray[np.integer[Any]]) -> Codes:
    """Codes (n,) of the sorted dictionary, 0 where NULL; `order` sorts the dictionary."""
    codes = np.empty(len(order) + 1, narrow(len(order) + 1))
    codes[order] = np.arange(1, len(order) + 1)
    codes[-1] = 0  # the last place, where the index -1 of a NULL points
    found: Codes = codes[pc.fill_null(indices, -1).to_numpy(zero_copy_only=False)]
    return found


def _scalar(type_: FieldType, codes: Codes, *, values: Values, ends: Places) -> ScalarColumn:
    count = (len(ends) - 1 if type_ is FieldType.TEXT else len(values)) + 1
    starts = running_sum(np.bincount(codes, minlength=count)).astype(np.int32)
    firsts = _firsts(starts)
    wide = count > BYTE_CODES
    order = by_code(codes) if count > ORDERED_CODES_MIN else np.empty(0, np.int32)
    bucket_of = np.repeat(np.arange(len(firsts) - 1, dtype=np.uint8), np.diff(firsts))
    column = ScalarColumn(
        type=type_,
        codes=codes,
        starts=starts,
        values=values,
        ends=ends,
        order=order,
        buckets=bucket_of[codes] if wide else np.empty(0, np.uint8),
        firsts=firsts,
    )
    _read_only(column)
    return column


def by_code(codes: Codes) -> npt.NDArray[np.int32]:
    """The rows by code, then ascending, (n,) int32."""
    if codes.itemsize <= 2:  # noqa: PLR2004 - bytes that numpy sorts by radix
        return np.argsort(codes, kind="stable").astype(np.int32)
    pairs = codes.astype(np.uint64) << np.uint64(32)
    pairs |= np.arange(len(codes), dtype=np.uint64)
    pairs.sort()
    return pairs.astype(np.uint32).view(np.int32)


def _firsts(starts: npt.NDArray[np.int32]) -> Places:
    """The first code of each bucket, then the number of codes.

    Codes follow one another into a bucket until it would hold more than a share of all rows; a
    code of more rows than that has a bucket of its own, so that it is never a part of one.
    """
    count = len(starts) - 1
    if count <= BYTE_CODES:
        return np.arange(count + 1)
    share = max(1, int(starts[-1]) // BUCKETS_HALF)
    firsts = [0]
    while firsts[-1] < count:
        last = int(np.searchsorted(starts, starts[firsts[-1]] + share, side="right")) - 1
        firsts.append(min(max(last, firsts[-1] + 1), count))
    return np.array(firsts)


def _tags(column: pa.ChunkedArray) -> TagsColumn:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    codes, words = _texts(pc.list_flatten(column))
    rows = np.repeat(np.arange(len(column), dtype=np.int32), lengths)
    known = RowSet.of_mask(pc.is_valid(column).to_numpy()).bitmap()
    codes = (codes - 1).astype(narrow(len(words)))  # no NULL is among them
    return tags_column(known, running_sum(lengths), codes, words, rows)


def tags_column(
    known: npt.NDArray[np.uint64],
    starts: Places,
    codes: Codes,
    words: Dictionary,
    rows: npt.NDArray[np.int32],
) -> TagsColumn:
    """The column of tags by row; `rows` is the row of each code."""
    size = len(starts) - 1
    by_tag = by_code(codes)
    tag, row = codes[by_tag], rows[by_tag]
    again = (np.diff(tag) == 0) & (np.diff(row) == 0)  # a row may have a tag twice
    once = np.append(np.ones(min(len(tag), 1), np.bool_), ~again)
    tag, row = tag[once], row[once]
    counts = np.bincount(tag, minlength=len(words))
    frequent = np.flatnonzero(counts * NUMBERS_SHARE > size)
    ends = np.cumsum(counts)
    maps = np.zeros((len(frequent), words_for(size)), np.uint64)
    for place, code in enumerate(frequent):
        mask = np.zeros(size, np.bool_)
        mask[row[ends[code] - counts[code] : ends[code]]] = True
        maps[place] = RowSet.of_mask(mask).bitmap()
    rare = counts.copy()
    rare[frequent] = 0
    column = TagsColumn(
        known=known,
        starts=starts.astype(np.int32) if starts[-1] < 2**31 else starts,
        codes=codes,
        ends=words.ends,
        text=words.text,
        tag_starts=running_sum(rare),
        tag_rows=row[np.repeat(counts * NUMBERS_SHARE <= size, counts)],
        frequent=frequent,
        counts=counts[frequent],
        bitmaps=maps,
    )
    _read_only(column)
    return column


def running_sum(counts: npt.NDArray[np.integer[Any]]) -> Places:
    """(n + 1,) int64: 0, then the sum up to and with each."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _read_only(column: Column) -> None:
    """Make a new column's arrays as they are when mapped: kernels are compiled for such alone."""
    for part in column.PARTS:
        read_only(getattr(column, part))
