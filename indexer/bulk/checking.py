"""Rows as they may enter the store, and those that may not, each with its reason.

A batch of any Arrow types goes in, a batch of one canonical type for each field comes out: text as
UTF-8 without NUL, numbers as finite float64, whole numbers as int64, times as UTC microseconds,
vectors as float16 of unit length. What does not fit refuses its row, never the batch.

Three decisions: NaN in a number column is NULL, as pandas writes it, and infinity refuses the row.
A vector that is of unit length within 0.001 is kept bit for bit: rounding to float16 alone moves a
length by up to 0.0005, so a vector that was stored once would otherwise change at each import.
Its length before is `vector_norm` where the table says so, else what was measured, else NULL.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from indexer.bulk.schema import (
    CAPTION,
    CAPTIONS,
    ID,
    KNOWN,
    PERSON,
    POINTS,
    PROVENANCE,
    VECTOR,
    VECTOR_NORM,
    Layout,
    VectorLayout,
)
from indexer.sources.facts import captions
from retrieval.limits import NAME_BYTES_MAX, TAGS_MAX, TEXT_BYTES_MAX, VECTOR_LENGTH_MIN
from retrieval.values import ORIGINS, FieldType, HalfRows

UNIT_TOLERANCE: Final = 1e-3
BLOCK_ROWS: Final = 4096  # of vectors in float64: 16 MB at 512 dimensions
TIME_MIN_US: Final = -62_135_596_800_000_000  # year 1 to 9999: what Python and ISO 8601 can say
TIME_MAX_US: Final = 253_402_300_799_999_999
UNITS_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
INT8_MAX: Final = 2**63 - 1

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """A row that did not go in."""

    row: int  # counted from 0 in the file
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRows:
    """The rows of one batch that may be stored."""

    vectors: HalfRows
    norms: pa.Array  # float32; NULL: not known
    columns: Mapping[str, pa.Array]  # canonical types
    refused: tuple[RefusedRow, ...]

    def __len__(self) -> int:
        return len(self.vectors)


class _Sieve:
    """Which rows of a batch are refused, and the first reason found for each."""

    def __init__(self, rows: int) -> None:
        self.bad: Mask = np.zeros(rows, dtype=np.bool_)
        self._reasons: dict[int, str] = {}

    def refuse(self, bad: Mask | pa.Array, reason: str) -> None:
        """Refuse the rows that are marked; NULL marks nothing."""
        if isinstance(bad, pa.Array):
            if not pc.any(bad).as_py():
                return
            bad = pc.fill_null(bad, fill_value=False).to_numpy(zero_copy_only=False)
        self.bad |= bad
        for row in np.flatnonzero(bad):
            self._reasons.setdefault(int(row), reason)

    def refuse_one(self, row: int, reason: str) -> None:
        """Refuse a single row."""
        self.bad[row] = True
        self._reasons.setdefault(row, reason)

    def refused(self, first_row: int) -> tuple[RefusedRow, ...]:
        """The refusals in order of rows."""
        return tuple(
            RefusedRow(row=first_row + row, reason=reason)
            for row, reason in sorted(self._reasons.items())
        )


def checked(batch: pa.RecordBatch, layout: Layout, *, first_row: int) -> CheckedRows:
    """Sort the rows of a batch into those that may be stored and those that are refused."""
    sieve = _Sieve(len(batch))
    vectors, norms = _vectors(batch.column(VECTOR), layout.vectors, sieve)
    columns = {name: _known(name, batch.column(name), sieve) for name in layout.known}
    columns |= {name: _points(name, batch.column(name), sieve) for name in layout.points}
    columns |= {
        name: _typed(name, batch.column(name), type_, sieve)
        for name, type_ in layout.attributes.items()
    }
    if {CAPTION, CAPTIONS} & columns.keys():
        one, several = (columns.pop(name, None) for name in (CAPTION, CAPTIONS))
        columns[CAPTIONS] = _captions(one, several, sieve)
    if sieve.bad.any():
        good = ~sieve.bad
        vectors, norms = vectors[good], norms.filter(pa.array(good))
        columns = {name: column.filter(pa.array(good)) for name, column in columns.items()}
    given = columns.pop(VECTOR_NORM, None)
    return CheckedRows(
        vectors=vectors,
        norms=norms if given is None else given.cast(pa.float32(), safe=False),
        columns=columns,
        refused=sieve.refused(first_row),
    )


def _vectors(column: pa.Array, layout: VectorLayout, sieve: _Sieve) -> tuple[HalfRows, pa.Array]:
    """Unit vectors and the lengths they had, float32 (n,); refused rows hold anything."""
    lists = column if _is_list(column.type) else _as_binary(column)
    lengths = pc.list_value_length(lists) if _is_list(column.type) else pc.binary_length(lists)
    wanted = layout.dimension * (1 if _is_list(column.type) else layout.number.itemsize)
    sieve.refuse(pc.is_null(lists), "there is no vector")
    unfit = pc.fill_null(pc.not_equal(lengths, wanted), fill_value=True)
    sieve.refuse(
        pc.and_(unfit, pc.is_valid(lists)), f"the vector has not {layout.dimension} numbers"
    )
    fit: Mask = ~unfit.to_numpy(zero_copy_only=False)
    raw = _numbers(lists if fit.all() else lists.filter(pa.array(fit)), layout)
    halves = np.zeros((len(column), layout.dimension), dtype="<f2")
    norms = np.ones(len(column), dtype=np.float64)
    where = np.flatnonzero(fit)
    for start in range(0, len(raw), BLOCK_ROWS):
        rows = where[start : start + BLOCK_ROWS]
        halves[rows], norms[rows] = _unit(raw[start : start + BLOCK_ROWS])
    sieve.refuse(~np.isfinite(norms), "the vector holds NaN or infinity")
    sieve.refuse(norms <= VECTOR_LENGTH_MIN, "the vector has length zero")
    measured = np.where(np.abs(norms - 1) <= UNIT_TOLERANCE, np.nan, norms).astype(np.float32)
    return halves, pa.array(measured, from_pandas=True)


def _numbers(lists: pa.Array, layout: VectorLayout) -> npt.NDArray[np.floating]:
    """The numbers of lists of one length, (n, d)."""
    if _is_list(lists.type):
        flat: npt.NDArray[np.floating] = pc.list_flatten(lists).to_numpy(zero_copy_only=False)
    else:
        start = np.frombuffer(lists.buffers()[1], np.int32)[lists.offset] if len(lists) else 0
        held = lists.buffers()[2] or b""
        count = len(lists) * layout.dimension
        flat = np.frombuffer(held, layout.number, count=count, offset=int(start))
    return flat.reshape(-1, layout.dimension)


def _unit(raw: npt.NDArray[np.floating]) -> tuple[HalfRows, npt.NDArray[np.float64]]:
    """Rows of length 1 in float16, and the lengths they had."""
    with np.errstate(all="ignore"):  # what becomes NaN or infinite here is refused by its length
        wide = np.float32 if raw.dtype.itemsize == 2 else np.float64  # noqa: PLR2004
        rows: npt.NDArray[np.floating] = raw.astype(wide)
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows)).astype(np.float64)
        scaled = np.abs(norms - 1) > UNIT_TOLERANCE
        if not scaled.any():
            return raw.astype("<f2", copy=False), norms
        rows[scaled] /= norms[scaled, None]
        return rows.astype("<f2"), norms


def _known(name: str, column: pa.Array, sieve: _Sieve) -> pa.Array:
    """A column with a meaning of its own, in its canonical type."""
    if name in (ID, PERSON):
        return _text(name, column, sieve, bytes_max=NAME_BYTES_MAX)
    found = _typed(name, column, KNOWN[name], sieve)
    if name == PROVENANCE:
        return _provenance(found, sieve)
    if name == "origin":
        found = pc.fill_null(found, ORIGINS[0])
        unknown = pc.invert(pc.is_in(found, pa.array(ORIGINS)))
        sieve.refuse(unknown, f"'origin' is none of {', '.join(ORIGINS)}")
    return found


def _typed(name: str, column: pa.Array, type_: FieldType, sieve: _Sieve) -> pa.Array:
    match type_:
        case FieldType.TEXT:
            return _text(name, column, sieve, bytes_max=TEXT_BYTES_MAX)
        case FieldType.NUMBER:
            return _number(name, column, sieve)
        case FieldType.INTEGER:
            return _integer(name, column, sieve)
        case FieldType.BOOLEAN:
            return _plain(column)
        case FieldType.TIMESTAMP:
            return _timestamp(name, column, sieve)
        case FieldType.TAGS:
            return _tags(name, column, sieve)


def _text(name: str, column: pa.Array, sieve: _Sieve, *, bytes_max: int) -> pa.Array:
    found, broken = _utf8(_plain(column).cast(pa.string()))
    sieve.refuse(broken, f"'{name}' is not UTF-8")
    sieve.refuse(pc.match_substring(found, "\0"), f"'{name}' holds a NUL character")
    too_long = pc.greater(pc.binary_length(found), bytes_max)
    sieve.refuse(too_long, f"'{name}' is longer than {bytes_max:,} bytes")
    return found


def _utf8(column: pa.Array) -> tuple[pa.Array, Mask]:
    """The texts with broken ones as NULL, and which were broken. Parquet does not check."""
    broken = np.zeros(len(column), dtype=np.bool_)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        values = [_decoded(value) for value in column.cast(pa.binary()).to_pylist()]
        broken[:] = [value is False for value in values]
        return pa.array([None if v is False else v for v in values], pa.string()), broken
    return column, broken


def _decoded(value: bytes | None) -> str | bool | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return False


def _number(name: str, column: pa.Array, sieve: _Sieve) -> pa.Array:
    found = _plain(column).cast(pa.float64(), safe=False)
    sieve.refuse(pc.is_inf(found), f"'{name}' is infinite")
    missing = pc.is_nan(found)
    return pc.if_else(missing, None, found) if pc.any(missing).as_py() else found


def _integer(name: str, column: pa.Array, sieve: _Sieve) -> pa.Array:
    found = _plain(column)
    if pa.types.is_uint64(found.type):
        sieve.refuse(
            pc.greater(found, pa.scalar(INT8_MAX, found.type)), f"'{name}' is above {INT8_MAX}"
        )
    return found.cast(pa.int64(), safe=False)


def _timestamp(name: str, column: pa.Array, sieve: _Sieve) -> pa.Array:
    found = _plain(column)
    if pa.types.is_date(found.type):
        found = found.cast(pa.timestamp("s" if pa.types.is_date32(found.type) else "ms"))
    ticks, per_second = found.view(pa.int64()), UNITS_PER_SECOND[found.type.unit]
    if per_second <= UNITS_PER_SECOND["us"]:  # int64 nanoseconds end long before year 9999
        low, high = (us * per_second // 10**6 for us in (TIME_MIN_US, TIME_MAX_US))
        outside = pc.or_(pc.less(ticks, low), pc.greater(ticks, high))
        sieve.refuse(outside, f"'{name}' is not between year 1 and 9999")
    return found.cast(pa.timestamp("us", found.type.tz), safe=False).view(pa.timestamp("us"))


def _tags(name: str, column: pa.Array, sieve: _Sieve) -> pa.Array:
    found = column.cast(pa.list_(pa.string()))
    sieve.refuse(
        pc.greater(pc.list_value_length(found), TAGS_MAX), f"'{name}' has over {TAGS_MAX} tags"
    )
    tags, lists = pc.list_flatten(found), pc.list_parent_indices(found).to_numpy()
    one_by_one = _Sieve(len(tags))
    one_by_one.refuse(pc.is_null(tags), f"'{name}' holds NULL")
    _text(name, tags, one_by_one, bytes_max=TEXT_BYTES_MAX)
    for refusal in one_by_one.refused(0):
        sieve.refuse_one(int(lists[refusal.row]), refusal.reason)
    return found


def _captions(one: pa.Array | None, several: pa.Array | None, sieve: _Sieve) -> pa.Array:
    """The sentences about each row, lists of text: those of both columns."""
    rows = len(sieve.bad)
    lists = [None] * rows if several is None else several.to_pylist()
    singles = [None] * rows if one is None else one.to_pylist()
    found: list[tuple[str, ...]] = [()] * rows
    for row, (single, listed) in enumerate(zip(singles, lists, strict=True)):
        if not sieve.bad[row]:
            try:
                found[row] = captions([single, *(listed or ())])
            except ValueError as error:
                sieve.refuse_one(row, f"'{CAPTIONS}' {error}")
    return pa.array(found, pa.list_(pa.string()))


def _points(name: str, column: pa.Array, sieve: _Sieve) -> pa.Array:
    """Lists, nested or not, as fixed-size lists of float32."""
    numbers, owner = column, np.arange(len(column))
    while _is_list(numbers.type):
        owner = owner[pc.list_parent_indices(numbers).to_numpy()]
        numbers = pc.list_flatten(numbers)
    with np.errstate(over="ignore"):
        flat = numbers.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        flat = flat.astype(np.float32)
    held = pc.is_valid(column).to_numpy(zero_copy_only=False)
    full = np.bincount(owner, minlength=len(column)) == POINTS[name]
    finite = np.bincount(owner[~np.isfinite(flat)], minlength=len(column)) == 0
    sieve.refuse(held & ~(full & finite), f"'{name}' is not {POINTS[name]} finite numbers")
    values = np.zeros((len(column), POINTS[name]), dtype=np.float32)
    fits = held & full & finite
    values[fits] = flat[fits[owner]].reshape(-1, POINTS[name])
    return pa.FixedSizeListArray.from_arrays(values.reshape(-1), POINTS[name], mask=pa.array(~held))


def _provenance(column: pa.Array, sieve: _Sieve) -> pa.Array:
    values = [None if text is None else _claims(text) for text in column.to_pylist()]
    wrong = np.array([value == "" for value in values], dtype=np.bool_)
    sieve.refuse(wrong, f"'{PROVENANCE}' is not as `facedex export` writes it")
    return pa.array(values, pa.string())


def _claims(text: str) -> str:
    """{attribute: {provider, confidence}} as JSON that PostgreSQL takes too; "": it is not."""
    try:
        claims = json.loads(text)
        told = {name: _claim(claim) for name, claim in claims.items()}
        return (
            json.dumps(told, ensure_ascii=False).encode().decode() if "\\u0000" not in text else ""
        )
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return ""


def _claim(claim: Any) -> dict[str, Any]:
    provider, confidence = claim["provider"], claim["confidence"]
    if len(claim) != 2 or not isinstance(provider, str):  # noqa: PLR2004
        raise ValueError
    # Tags have a confidence each.
    each = confidence.values() if isinstance(confidence, dict) else [confidence]
    if not all(one is None or math.isfinite(one) for one in each):
        raise ValueError
    return {"provider": provider, "confidence": confidence}


def _plain(column: pa.Array) -> pa.Array:
    """The values themselves where a column holds them as a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _as_binary(column: pa.Array) -> pa.Array:
    return column if pa.types.is_binary(column.type) else column.cast(pa.binary())


def _is_list(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    )
