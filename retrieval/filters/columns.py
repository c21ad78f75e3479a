"""The filterable fields of many faces in memory, one column each, in the order of the rows.

`column.py` says how a column lies in memory. Each of its arrays is a file of its own on disk, so
that readers map them and share their pages, and nothing is built anew by a process that opens
them; columns of format 1 are encoded once more when they are opened.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import SchemaMismatchError, SnapshotUnusableError
from retrieval.fields import Fields
from retrieval.filters import format_1
from retrieval.filters.column import Column, ScalarColumn, TagsColumn
from retrieval.filters.encoding import encoded
from retrieval.filters.kept import KeptSets
from retrieval.values import FieldType, Value

FORMAT: Final = 2
FORMATS_READ: Final = (1, FORMAT)
INDEX_FILE: Final = "columns.json"
ARROW_TYPES: Final = {
    FieldType.NUMBER: pa.float64(),
    FieldType.INTEGER: pa.int64(),
    FieldType.TEXT: pa.string(),
    FieldType.BOOLEAN: pa.bool_(),
    FieldType.TIMESTAMP: pa.timestamp("us", "UTC"),
    FieldType.TAGS: pa.list_(pa.string()),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """The fields of `rows` faces. Nothing is ever written to, but for what `kept` remembers."""

    rows: int
    fields: Fields
    by_name: Mapping[str, Column]
    kept: KeptSets = field(default_factory=KeptSets, repr=False)

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
        columns = {name: encoded(table.column(name), type_) for name, type_ in fields.items()}
        return cls(rows=table.num_rows, fields=MappingProxyType(dict(fields)), by_name=columns)

    @classmethod
    def open(cls, folder: Path) -> "Columns":
        """Map the columns that `save` wrote, read-only.

        Raises:
            SnapshotUnusableError: a file is missing, cut short, or does not fit the others.
        """
        try:
            index = json.loads((folder / INDEX_FILE).read_bytes())
            version = index["format"]
            if version not in FORMATS_READ:
                raise SnapshotUnusableError(
                    f"{folder} has columns of format {version}; this Facedex reads "
                    f"{' and '.join(map(str, FORMATS_READ))}"
                )
            rows = int(index["rows"])
            fields = {str(name): FieldType(type_) for name, type_ in index["fields"]}
            read = _read_format_1 if version == 1 else _mapped
            kinds = enumerate(fields.items())
            columns = {name: read(folder, place, t, rows) for place, (name, t) in kinds}
        except (OSError, ValueError, KeyError, TypeError, EOFError) as cause:
            raise SnapshotUnusableError(
                f"the columns in {folder} are missing or damaged ({cause}). "
                "Run `facedex index build`"
            ) from cause
        whole = {name: column for name, column in columns.items() if column is not None}
        for place, name in enumerate(columns):
            if name not in whole:
                raise SnapshotUnusableError(
                    f'the column "{name}" (files {place}.* in {folder}) is damaged. '
                    "Run `facedex index build`"
                )
        return cls(rows=rows, fields=MappingProxyType(fields), by_name=whole)

    def save(self, folder: Path) -> list[Path]:
        """Write the columns into a folder that exists, and give all files written."""
        written = []
        for place, name in enumerate(self.fields):
            column = self.by_name[name]
            for part in column.PARTS:
                path = _part_file(folder, place, part)
                np.save(path, getattr(column, part), allow_pickle=False)
                written.append(path)
        # Files have numbers: a name may be any Unicode, a file system takes less.
        index = {
            "format": FORMAT,
            "rows": self.rows,
            "fields": [[name, type_.value] for name, type_ in self.fields.items()],
        }
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=1), encoding="utf-8")
        return [*written, folder / INDEX_FILE]

    def arrow(self, name: str, rows: npt.NDArray[np.int64]) -> pa.Array:
        """The values of one field in some rows, as the table held them."""
        column, arrow_type = self.by_name[name], ARROW_TYPES[self.fields[name]]
        if isinstance(column, TagsColumn):
            return pa.array(self.get(name, rows), arrow_type)
        if column.type is FieldType.TEXT:
            codes, words = column.codes[rows].astype(np.int64), column.words
            buffers = (pa.py_buffer(np.ascontiguousarray(p)) for p in (words.ends, words.text))
            texts = pa.LargeStringArray.from_buffers(len(words), *buffers)
            return texts.take(pa.array(codes - 1, mask=codes == 0)).cast(arrow_type)
        values, known = column.held(rows)
        kept = pa.array(values, mask=~known)
        return kept.cast(arrow_type) if column.type is FieldType.BOOLEAN else kept.view(arrow_type)

    def get(self, name: str, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> list[Value]:
        """The values of one field in a few rows; numpy is faster for many."""
        column = self.by_name[name]
        return [column.get(int(row)) for row in rows]


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


def _part_file(folder: Path, place: int, part: str) -> Path:
    return folder / f"{place}.{part}.npy"


def _arrays(folder: Path, place: int, parts: Sequence[str]) -> dict[str, Any]:
    """Arrays, mapped; `asarray` drops the slow memmap class and keeps the mapping."""
    return {
        part: np.asarray(np.load(_part_file(folder, place, part), mmap_mode="r")) for part in parts
    }


def _mapped(folder: Path, place: int, type_: FieldType, rows: int) -> Column | None:
    """One column, or None where its arrays don't belong together."""
    column: Column
    if type_ is FieldType.TAGS:
        column = TagsColumn(**_arrays(folder, place, TagsColumn.PARTS))
    else:
        column = ScalarColumn(type=type_, **_arrays(folder, place, ScalarColumn.PARTS))
    return column if column.sound(rows) else None


def _read_format_1(folder: Path, place: int, type_: FieldType, rows: int) -> Column | None:
    """One column of format 1, or None where its arrays don't belong together."""
    return format_1.column(type_, _arrays(folder, place, format_1.PARTS[type_]), rows=rows)
