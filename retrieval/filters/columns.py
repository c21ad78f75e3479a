"""The filterable fields of many faces in memory, one column each, in the order of the rows.

A column is a few plain numpy arrays, each a file of its own on disk, so that readers map them
and share their pages. NULL costs nothing where it can: a NULL number is NaN (stored numbers are
finite), a NULL code is -1, and that is the largest number once its sign is taken away. Text is a
dictionary in byte order plus codes, so that `<`, `>` and LIKE are ranges of codes. Tags lie twice:
by row for reading, by tag (posting lists) for filtering. Rows that only pad a list are all NULL.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as parts_of
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import SchemaMismatchError, SnapshotUnusableError
from retrieval.fields import Fields
from retrieval.values import FieldType, Value

Codes = npt.NDArray[np.signedinteger[Any]]  # as narrow as their dictionary allows; -1 is NULL
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FORMAT: Final = 1
INDEX_FILE: Final = "columns.json"
NULL_CODE: Final = -1
ARROW_TYPES: Final = {
    FieldType.NUMBER: pa.float64(),
    FieldType.INTEGER: pa.int64(),
    FieldType.TEXT: pa.string(),
    FieldType.BOOLEAN: pa.bool_(),
    FieldType.TIMESTAMP: pa.timestamp("us", "UTC"),
    FieldType.TAGS: pa.list_(pa.string()),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Distinct texts in byte order: word i is `text[ends[i]:ends[i + 1]]`."""

    ends: Places  # (words + 1,) int64
    text: npt.NDArray[np.uint8]  # UTF-8

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, code: int) -> bytes:
        return self.text[self.ends[code] : self.ends[code + 1]].tobytes()

    def place(self, word: bytes) -> int:
        """How many words lie before this one."""
        return bisect_left(range(len(self)), word, key=self.__getitem__)

    def code(self, word: str) -> int | None:
        """The code of a word, if it is one of them."""
        encoded = word.encode()
        place = self.place(encoded)
        return place if place < len(self) and self[place] == encoded else None

    def sound(self) -> bool:
        """Whether the two arrays belong together."""
        if self.ends.ndim != 1 or not len(self.ends):
            return False
        return self.ends.dtype == np.int64 and _is(self.text, np.uint8, self.ends[-1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NumberColumn:
    """Numbers: `values` (rows,) float64, NaN where NULL."""

    values: npt.NDArray[np.float64]

    def get(self, row: int) -> Value:
        """The value of one row."""
        value = float(self.values[row])
        return None if np.isnan(value) else value

    def sound(self, rows: int) -> bool:
        """Whether the arrays belong together and have that many rows."""
        return _is(self.values, np.float64, rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntegerColumn:
    """Integers, or microseconds since 1970: `values` (rows,) int64, `known` (rows,) not NULL."""

    values: Places
    known: Mask

    def get(self, row: int) -> int | None:
        """The value of one row."""
        return int(self.values[row]) if self.known[row] else None

    def sound(self, rows: int) -> bool:
        """Whether the arrays belong together and have that many rows."""
        return _is(self.values, np.int64, rows) and _is(self.known, np.bool_, rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextColumn:
    """Text: `codes` (rows,) of a dictionary in byte order."""

    codes: Codes
    ends: Places
    text: npt.NDArray[np.uint8]

    @property
    def words(self) -> Words:
        """The dictionary."""
        return Words(self.ends, self.text)

    def get(self, row: int) -> Value:
        """The value of one row."""
        code = int(self.codes[row])
        return None if code == NULL_CODE else self.words[code].decode()

    def sound(self, rows: int) -> bool:
        """Whether the arrays belong together and have that many rows."""
        return self.codes.shape == (rows,) and self.codes.dtype.kind == "i" and self.words.sound()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BooleanColumn:
    """Booleans: `codes` (rows,) int8, 1 or 0, -1 where NULL."""

    codes: npt.NDArray[np.int8]

    def get(self, row: int) -> Value:
        """The value of one row."""
        code = int(self.codes[row])
        return None if code == NULL_CODE else code == 1

    def sound(self, rows: int) -> bool:
        """Whether the arrays belong together and have that many rows."""
        return _is(self.codes, np.int8, rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TagsColumn:
    """Lists of tags, by row and by tag.

    Row r has the tags `codes[starts[r]:starts[r + 1]]` in their order; tag t is on the rows
    `tag_rows[tag_starts[t]:tag_starts[t + 1]]`.
    """

    known: Mask  # (rows,) not NULL
    starts: Places  # (rows + 1,) int64
    codes: Codes
    ends: Places
    text: npt.NDArray[np.uint8]
    tag_starts: Places  # (words + 1,) int64
    tag_rows: npt.NDArray[np.int32]

    @property
    def words(self) -> Words:
        """The dictionary."""
        return Words(self.ends, self.text)

    def get(self, row: int) -> Value:
        """The value of one row."""
        if not self.known[row]:
            return None
        codes = self.codes[self.starts[row] : self.starts[row + 1]]
        return tuple(self.words[code].decode() for code in codes)

    def rows_with(self, tag: str) -> npt.NDArray[np.int32]:
        """The rows that have this tag."""
        code = self.words.code(tag)
        if code is None:
            return self.tag_rows[:0]
        return self.tag_rows[self.tag_starts[code] : self.tag_starts[code + 1]]

    def sound(self, rows: int) -> bool:
        """Whether the arrays belong together and have that many rows."""
        return (
            _is(self.known, np.bool_, rows)
            and _is(self.starts, np.int64, rows + 1)
            and self.codes.shape == (self.starts[-1],)
            and self.codes.dtype.kind == "i"
            and self.words.sound()
            and _is(self.tag_starts, np.int64, len(self.words) + 1)
            and _is(self.tag_rows, np.int32, self.tag_starts[-1])
        )


Column = NumberColumn | IntegerColumn | TextColumn | BooleanColumn | TagsColumn
_KINDS: Final[Mapping[FieldType, type[Column]]] = {
    FieldType.NUMBER: NumberColumn,
    FieldType.INTEGER: IntegerColumn,
    FieldType.TEXT: TextColumn,
    FieldType.BOOLEAN: BooleanColumn,
    FieldType.TIMESTAMP: IntegerColumn,
    FieldType.TAGS: TagsColumn,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """The fields of `rows` faces. Nothing here is ever written to."""

    rows: int
    fields: Fields
    by_name: Mapping[str, Column]

    @classmethod
    def from_arrow(cls, table: pa.Table, fields: Fields) -> "Columns":
        """The columns of a table that has one of each field's name, of the type in ARROW_TYPES.

        Raises:
            SchemaMismatchError: columns are missing, of other types, or hold what no filter can
                compare (NaN, infinity, NULL inside tags); the message lists them all.
        """
        problems = [p for name, type_ in fields.items() if (p := _problem(table, name, type_))]
        if problems:
            raise SchemaMismatchError("; ".join(problems))
        columns = {name: _column(table.column(name), type_) for name, type_ in fields.items()}
        return cls(rows=table.num_rows, fields=MappingProxyType(dict(fields)), by_name=columns)

    @classmethod
    def open(cls, folder: Path) -> "Columns":
        """Map the columns that `save` wrote, read-only.

        Raises:
            SnapshotUnusableError: a file is missing, cut short, or does not fit the others.
        """
        try:
            index = json.loads((folder / INDEX_FILE).read_bytes())
            if index["format"] != FORMAT:
                raise SnapshotUnusableError(
                    f"{folder} has columns of format {index['format']}; this Facedex reads {FORMAT}"
                )
            rows = int(index["rows"])
            fields = {str(name): FieldType(type_) for name, type_ in index["fields"]}
            kinds = enumerate(fields.items())
            columns = {name: _opened(folder, place, _KINDS[t]) for place, (name, t) in kinds}
        except (OSError, ValueError, KeyError, TypeError, EOFError) as cause:
            raise SnapshotUnusableError(
                f"the columns in {folder} are missing or damaged ({cause}). "
                "Run `facedex index build`"
            ) from cause
        for place, (name, column) in enumerate(columns.items()):
            if not column.sound(rows):
                raise SnapshotUnusableError(
                    f'the column "{name}" (files {place}.* in {folder}) is damaged. '
                    "Run `facedex index build`"
                )
        return cls(rows=rows, fields=MappingProxyType(fields), by_name=columns)

    def save(self, folder: Path) -> list[Path]:
        """Write the columns into a folder that exists, and give all files written."""
        written = []
        for place, name in enumerate(self.fields):
            column = self.by_name[name]
            for part in parts_of(column):
                path = _part_file(folder, place, part.name)
                np.save(path, getattr(column, part.name), allow_pickle=False)
                written.append(path)
        # Files have numbers: a name may be any Unicode, a file system takes less.
        index = {
            "format": FORMAT,
            "rows": self.rows,
            "fields": [[name, type_.value] for name, type_ in self.fields.items()],
        }
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=1), encoding="utf-8")
        return [*written, folder / INDEX_FILE]

    def get(self, name: str, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> list[Value]:
        """The values of one field in a few rows; numpy is faster for many."""
        column = self.by_name[name]
        values = [column.get(int(row)) for row in rows]
        if self.fields[name] is FieldType.TIMESTAMP:
            return [moment(value) if isinstance(value, int) else None for value in values]
        return values


def field_types(table: pa.Table) -> Fields:
    """The field that each column of a table can be.

    Raises:
        SchemaMismatchError: a column is of a type that no field has; ARROW_TYPES lists them.
    """
    kinds = {type_: kind for kind, type_ in ARROW_TYPES.items()}
    for name, type_ in zip(table.column_names, table.schema.types, strict=True):
        if type_ not in kinds:
            known = ", ".join(map(str, kinds))
            raise SchemaMismatchError(f'the column "{name}" is {type_}; a field is one of: {known}')
    return {
        name: kinds[type_]
        for name, type_ in zip(table.column_names, table.schema.types, strict=True)
    }


def microseconds(when: datetime) -> int:
    """A moment as TIMESTAMP columns hold it."""
    return (when - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The moment that a TIMESTAMP column holds, in UTC."""
    return _EPOCH + value * _MICROSECOND


def _problem(table: pa.Table, name: str, type_: FieldType) -> str | None:
    """Why this column cannot be taken, if so."""
    if name not in table.column_names:
        return f'the column "{name}" is missing'
    column = table.column(name)
    if column.type != ARROW_TYPES[type_]:
        return f'the column "{name}" is {column.type}, not {ARROW_TYPES[type_]}'
    if type_ is FieldType.NUMBER and not pc.all(pc.is_finite(column), min_count=0).as_py():
        return f'the column "{name}" holds NaN or infinity'
    if type_ is FieldType.TAGS and pc.list_flatten(column).null_count:
        return f'the column "{name}" holds lists with NULL inside'
    return None


def _column(column: pa.ChunkedArray, type_: FieldType) -> Column:
    match type_:
        case FieldType.NUMBER:
            # Arrow's hash tables tell -0.0 from 0.0, SQL does not: adding zero leaves only 0.0.
            return NumberColumn(values=_numpy(column, null=float("nan")) + 0.0)
        case FieldType.INTEGER | FieldType.TIMESTAMP:
            known = pc.is_valid(column).to_numpy()
            return IntegerColumn(values=_numpy(column.cast(pa.int64()), null=0), known=known)
        case FieldType.BOOLEAN:
            return BooleanColumn(codes=_numpy(column.cast(pa.int8()), null=NULL_CODE))
        case FieldType.TEXT:
            codes, words = _encoded(column)
            return TextColumn(codes=codes, ends=words.ends, text=words.text)
        case FieldType.TAGS:
            return _tags(column)


def _tags(column: pa.ChunkedArray) -> TagsColumn:
    rows = len(column)
    lengths = _numpy(pc.list_value_length(column), null=0)
    codes, words = _encoded(pc.list_flatten(column))
    by_tag = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=len(words))
    return TagsColumn(
        known=pc.is_valid(column).to_numpy(),
        starts=_running_sum(lengths),
        codes=codes,
        ends=words.ends,
        text=words.text,
        tag_starts=_running_sum(counts),
        tag_rows=np.repeat(np.arange(rows, dtype=np.int32), lengths)[by_tag],
    )


def _encoded(column: pa.ChunkedArray) -> tuple[Codes, Words]:
    """Text as codes (n,) of a dictionary in byte order."""
    # Offsets of 64 bits: a million long texts may exceed the 2 GiB of a string array.
    encoded = column.cast(pa.large_string()).combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    words = encoded.dictionary.take(order)
    narrow = np.min_scalar_type(-max(len(words), 1))
    codes = np.empty(len(words) + 1, narrow)
    codes[order.to_numpy()] = np.arange(len(words))
    codes[NULL_CODE] = NULL_CODE  # the last place, where the index -1 of a NULL points
    lengths = _numpy(pc.binary_length(words), null=0)
    ends = _running_sum(lengths)
    text = np.frombuffer(words.buffers()[2] or b"", np.uint8)[: ends[-1]]
    return codes[_numpy(encoded.indices, null=NULL_CODE)], Words(ends, text)


def _numpy(column: pa.ChunkedArray | pa.Array, *, null: float) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = pc.fill_null(column, null).to_numpy(zero_copy_only=False)
    return values


def _running_sum(counts: npt.NDArray[np.integer[Any]]) -> Places:
    """(n + 1,) int64: 0, then the sum up to and with each."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))


def _part_file(folder: Path, place: int, part: str) -> Path:
    return folder / f"{place}.{part}.npy"


def _opened(folder: Path, place: int, kind: type[Column]) -> Column:
    """One column, mapped; `asarray` drops the slow memmap class and keeps the mapping."""
    arrays: dict[str, Any] = {
        part.name: np.asarray(np.load(_part_file(folder, place, part.name), mmap_mode="r"))
        for part in parts_of(kind)
    }
    return kind(**arrays)


def _is(array: npt.NDArray[Any], type_: type[np.generic], length: int) -> bool:
    return array.dtype == type_ and array.shape == (length,)
