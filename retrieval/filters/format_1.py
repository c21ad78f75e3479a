"""Columns as Facedex 0.1 wrote them: plain values, codes of texts, NULL as NaN, -1 or a mask.

They are read whole and encoded in memory, which takes about a second for a million rows: an index
that is built anew has columns that are only mapped.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval.filters.column import Column, is_array
from retrieval.filters.encoding import encoded
from retrieval.values import FieldType

PARTS: Final = {
    FieldType.NUMBER: ("values",),
    FieldType.INTEGER: ("values", "known"),
    FieldType.TIMESTAMP: ("values", "known"),
    FieldType.BOOLEAN: ("codes",),
    FieldType.TEXT: ("codes", "ends", "text"),
    FieldType.TAGS: ("known", "starts", "codes", "ends", "text"),
}


def column(type_: FieldType, parts: dict[str, npt.NDArray[Any]], *, rows: int) -> Column | None:
    """The column that these arrays were, or None where they don't belong together."""
    if not _sound(type_, parts, rows):
        return None
    return encoded(pa.chunked_array([_values(type_, parts)]), type_)


def _sound(type_: FieldType, parts: dict[str, npt.NDArray[Any]], rows: int) -> bool:
    match type_:
        case FieldType.NUMBER:
            return is_array(parts["values"], np.float64, rows)
        case FieldType.INTEGER | FieldType.TIMESTAMP:
            whole = is_array(parts["values"], np.int64, rows)
            return whole and is_array(parts["known"], np.bool_, rows)
        case FieldType.BOOLEAN:
            return is_array(parts["codes"], np.int8, rows)
        case FieldType.TEXT:
            return _sound_texts(parts, rows)
        case FieldType.TAGS:
            starts = parts["starts"]
            whole = is_array(parts["known"], np.bool_, rows) and is_array(
                starts, np.int64, rows + 1
            )
            return whole and _sound_texts(parts, int(starts[-1]))


def _sound_texts(parts: dict[str, npt.NDArray[Any]], count: int) -> bool:
    codes, ends, text = parts["codes"], parts["ends"], parts["text"]
    if codes.shape != (count,) or codes.dtype.kind != "i" or ends.ndim != 1 or not len(ends):
        return False
    return ends.dtype == np.int64 and is_array(text, np.uint8, int(ends[-1]))


def _values(type_: FieldType, parts: dict[str, npt.NDArray[Any]]) -> pa.Array:
    match type_:
        case FieldType.NUMBER:
            return pa.array(parts["values"], from_pandas=True)  # NaN becomes NULL
        case FieldType.INTEGER | FieldType.TIMESTAMP:
            return pa.array(parts["values"], mask=~parts["known"])
        case FieldType.BOOLEAN:
            return pa.array(parts["codes"] == 1, mask=parts["codes"] < 0)
        case FieldType.TEXT:
            return _texts(parts)
        case FieldType.TAGS:
            starts = pa.array(parts["starts"])
            unknown = pa.array(~parts["known"])
            return pa.LargeListArray.from_arrays(starts, _texts(parts), mask=unknown)


def _texts(parts: dict[str, npt.NDArray[Any]]) -> pa.Array:
    codes, ends = parts["codes"], parts["ends"]
    buffers = (pa.py_buffer(np.ascontiguousarray(part)) for part in (ends, parts["text"]))
    words = pa.LargeStringArray.from_buffers(len(ends) - 1, *buffers)
    return words.take(pa.array(codes, mask=codes < 0))
