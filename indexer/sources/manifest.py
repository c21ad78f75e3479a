"""A CSV or Parquet table that says something about pictures, joined on its column `path`.

Everything is checked before the first picture is touched, and every problem is listed at once.
Columns with a reserved name become facts, every other column an attribute: with the type that
Parquet gives it, or in CSV the narrowest that fits all its cells (whole numbers without leading
zeros, numbers, true/false, ISO dates, else text). An empty cell says nothing. The table stays
columnar in memory; the facts of a row are built when they are asked for.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from indexer.sources.facts import ISO_TIME, READERS, missing, moment, reserved_facts
from indexer.sources.folders import Found, location_of, spelt
from indexer.sources.pictures import Facts, Refused, printable, reason_of
from retrieval.errors import LimitExceededError, SchemaMismatchError, UsageError
from retrieval.fields import RESERVED, checked_attribute_name
from retrieval.limits import ATTRIBUTES_MAX, TAGS_MAX, TEXT_BYTES_MAX, within
from retrieval.values import FieldType, Value

_BLOCK_BYTES: Final = 16 * 2**20  # no row of a CSV is longer
_TIME: Final = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a table says of pictures. Rows count from 0 below the heading."""

    path: Path
    attribute_types: Mapping[str, FieldType]  # to be declared before the first picture
    notices: tuple[str, ...]  # for the user: what was left out, and why
    rows: Mapping[str, int]  # location of a picture -> its row, in the order of the table
    paths: Any  # (n,) pyarrow: the column `path`
    reserved: Mapping[str, Any]  # column -> (n,) pyarrow
    attributes: Mapping[str, Any]  # column -> (n,) pyarrow, of the declared type

    def facts(self, row: int) -> Facts:
        """What `row` says."""
        facts = reserved_facts({name: cells[row].as_py() for name, cells in self.reserved.items()})
        values = {name: _value(cells[row].as_py()) for name, cells in self.attributes.items()}
        said = {name: value for name, value in values.items() if value is not None}
        return replace(facts, attributes=said)

    def file(self, row: int) -> Found | Refused:
        """The file that `row` names."""
        path = spelt(self.path.parent / os.fsdecode(self.paths[row].as_py()))
        try:
            path.stat()
        except OSError as error:
            reason = f"{reason_of(error)} (row {row + 1:,} of the metadata names it)"
            return Refused(path=path, reason=reason)
        return Found(path=path, root=path.parent, location=location_of(path))


@dataclass(frozen=True, slots=True)
class _Attribute:
    type: FieldType | None  # None: all cells are empty
    cells: Any


def read_manifest(path: Path, *, left_out: AbstractSet[str]) -> Manifest:
    """Read and check a manifest.

    Args:
        path: a .parquet file, or CSV in UTF-8 with commas and a heading.
        left_out: columns (lower case) that become no attributes.

    Raises:
        UsageError: the file cannot be opened.
        SchemaMismatchError: it does not fit; all problems are listed.
    """
    path = spelt(path)
    with _readable(path):
        table = _read_parquet(path) if _is_parquet(path) else _read_csv(path)
    _raise_if(_heading_problems(table.column_names), path=path)
    names = [name for name in table.column_names if name.lower() not in left_out]
    problems = _name_problems(names)
    columns = {name: _plain(table.column(name)) for name in names}
    reserved = {name: cells for name, cells in columns.items() if name in READERS}
    for name, cells in reserved.items():
        problems += _cell_problems(name, cells)
    if not _is_parquet(path):
        columns = {name: _narrowed(cells) for name, cells in columns.items() if name != "path"}
    attributes = _attributes(columns, problems=problems)
    values = [*reserved.values(), *(attribute.cells for attribute in attributes.values())]
    rows = _rows(table.column("path"), columns=values, folder=path.parent, problems=problems)
    for name in ("id", "external_id"):
        if name in reserved:
            problems += _id_problems(name, reserved[name], rows=rows)
    _raise_if(problems, path=path)
    return Manifest(
        path=path,
        attribute_types={name: a.type for name, a in attributes.items() if a.type},
        notices=tuple(
            f"{printable(path)}: column '{printable(name)}' was left out: it is sensitive"
            for name in table.column_names
            if name not in names
        ),
        rows=rows,
        paths=table.column("path"),
        reserved=reserved,
        attributes={name: a.cells for name, a in attributes.items() if a.type},
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise UsageError(f"the metadata {printable(path)}: {reason_of(cause)}") from cause
    except (pa.ArrowException, UnicodeDecodeError) as cause:
        raise SchemaMismatchError(f"{printable(path)} cannot be read: {cause}") from cause


def _raise_if(problems: Sequence[str], *, path: Path) -> None:
    if problems:
        lines = "".join(f"\n- {problem}" for problem in problems)
        raise SchemaMismatchError(f"{printable(path)} does not fit:{lines}")


def _rows_named(rows: Sequence[int]) -> str:
    """Rows in a message, counted from 1 below the heading."""
    return f"row {rows[0]:,}" + (f" and {len(rows) - 1:,} more" if len(rows) > 1 else "")


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in {".parquet", ".pq"}


def _read_parquet(path: Path) -> Any:
    with path.open("rb") as file:
        return pq.ParquetFile(file).read().combine_chunks()


def _read_csv(path: Path) -> Any:
    """All cells as text (`path` as bytes, for names that are no UTF-8), empty ones as nulls."""
    ragged: list[int] = []

    def skip(row: Any) -> str:
        ragged.append(row.number - 1)
        return "skip"

    read = pa_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    parse = pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip)
    with path.open("rb") as file, pa_csv.open_csv(file, read, parse) as reader:
        names = reader.schema.names
    ragged.clear()
    convert = pa_csv.ConvertOptions(
        column_types={name: pa.binary() if name == "path" else pa.string() for name in names},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    with path.open("rb") as file:
        table = pa_csv.read_csv(file, read, parse, convert).combine_chunks()
    if ragged:  # what stands in such a file cannot be relied on
        _raise_if([f"more or fewer cells than the heading: {_rows_named(ragged)}"], path=path)
    return table


def _heading_problems(names: Sequence[str]) -> list[str]:
    counts = Counter(names)
    problems = [
        f"column '{printable(n)}' stands there {c} times" for n, c in counts.items() if c > 1
    ]
    if "path" not in names:
        shown = ", ".join(printable(name) for name in names)
        problems.append(f"it has no column 'path'; its columns are: {shown}")
    return problems


def _name_problems(names: Sequence[str]) -> list[str]:
    problems = [
        f"column '{name}' is what Facedex itself finds out: rename it or drop it"
        for name in names
        if name in RESERVED - READERS.keys() - {"path"}
    ]
    attributes = [name for name in names if name not in RESERVED]
    for name in attributes:
        try:
            checked_attribute_name(name)
        except UsageError as error:
            problems.append(printable(str(error)))
    if {"id", "external_id"} <= set(names):
        problems.append("columns 'id' and 'external_id' mean the same: drop one")
    try:
        within(ATTRIBUTES_MAX, len(attributes), what="the number of attributes")
    except LimitExceededError as error:
        problems.append(str(error))
    return problems


def _plain(column: Any) -> Any:
    """The column without encodings that have no meaning of their own."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    if pa.types.is_timestamp(
        column.type
    ):  # Python holds microseconds, and knows UTC without tzdata
        column = column.cast(pa.timestamp("us", tz=column.type.tz and "UTC"), safe=False)
    return column


def _cell_problems(name: str, column: Any) -> list[str]:
    """What is wrong with the cells of a reserved column, each kind of problem once."""
    try:
        cells = column.to_pylist()
    except (OverflowError, ValueError):
        return [f"column '{name}' holds a time before the year 1 or after 9999"]
    problem_of = lru_cache(maxsize=4096)(partial(_cell_problem, name))
    rows_by_problem: dict[str, list[int]] = {}
    for row, cell in enumerate(cells):
        if problem := problem_of(tuple(cell) if isinstance(cell, list) else cell):
            rows_by_problem.setdefault(problem, []).append(row + 1)
    return [f"column {problem}: {_rows_named(rows)}" for problem, rows in rows_by_problem.items()]


def _cell_problem(name: str, cell: Any) -> str | None:
    try:
        reserved_facts({name: cell})
    except ValueError as error:
        return str(error)
    return None


def _narrowed(column: Any) -> Any:
    """Text of a CSV as the narrowest type that fits all its cells."""
    present = column.drop_null()
    if not len(present):
        return pa.chunked_array([pa.nulls(len(column))])
    for pattern, narrow in _NARROWER:
        if pc.all(pc.match_substring_regex(present, pattern)).as_py():
            try:
                return narrow(column)
            except ValueError:  # a whole number beyond 64 bits, the 30th of February
                return column
    return column


def _attributes(columns: Mapping[str, Any], *, problems: list[str]) -> dict[str, _Attribute]:
    """The attributes among `columns`; what cannot be one goes to `problems`."""
    attributes = {}
    for name, cells in columns.items():
        if name not in RESERVED:
            try:
                attributes[name] = _attribute(cells)
            except ValueError as error:
                problems.append(f"column '{printable(name)}' {error}")
    return attributes


def _cast(column: Any, kind: Any) -> Any:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as cause:
        raise ValueError("holds a value that is out of range") from cause


def _finite(column: Any) -> Any:
    """Float64, NaN as null: that is how pandas writes an empty cell."""
    numbers = column.cast(pa.float64())
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    if pc.any(pc.is_inf(numbers)).as_py():
        raise ValueError("holds infinite numbers")
    return numbers


def _times(column: Any) -> Any:
    times = _cast(column, _TIME)
    try:
        pc.min_max(times).as_py()
    except (OverflowError, ValueError) as cause:
        raise ValueError("holds a time before the year 1 or after 9999") from cause
    return times


def _checked_text(column: Any) -> Any:
    longest = pc.max(pc.binary_length(column)).as_py() or 0
    if longest > TEXT_BYTES_MAX:
        raise ValueError(f"holds text of {longest:,} bytes; at most {TEXT_BYTES_MAX:,} is allowed")
    if pc.any(pc.match_substring(column, "\0")).as_py():
        raise ValueError("holds text with a NUL in it")
    return column


def _parsed_times(column: Any) -> Any:
    times = [cell and moment(cell).at for cell in column.to_pylist()]
    return pa.chunked_array([pa.array(times, _TIME)])


def _checked_tags(column: Any) -> Any:
    inner = column.type.value_type
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner)):
        raise ValueError(f"has the type {column.type}, which no attribute has: convert or drop it")
    _checked_text(pc.list_flatten(column))
    longest = pc.max(pc.list_value_length(column)).as_py() or 0
    if longest > TAGS_MAX:
        raise ValueError(f"holds a list of {longest:,} texts; at most {TAGS_MAX:,} is allowed")
    return column


_NARROWER: Final[Sequence[tuple[str, Callable[[Any], Any]]]] = (
    ("^(0|-?[1-9][0-9]{0,18})$", lambda column: column.cast(pa.int64())),
    # With more digits before the point it is a name written in digits: text.
    (
        r"^-?((0|[1-9][0-9]{0,17})(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$",
        _finite,
    ),
    ("^(?i:true|false)$", lambda column: pc.equal(pc.utf8_lower(column), "true")),
    (ISO_TIME, _parsed_times),
)
_KINDS: Final[Sequence[tuple[Callable[[Any], bool], FieldType, Callable[[Any], Any]]]] = (
    (pa.types.is_boolean, FieldType.BOOLEAN, lambda column: column),
    (pa.types.is_integer, FieldType.INTEGER, lambda column: _cast(column, pa.int64())),
    (pa.types.is_floating, FieldType.NUMBER, _finite),
    (pa.types.is_decimal, FieldType.NUMBER, _finite),
    (pa.types.is_string, FieldType.TEXT, _checked_text),
    (pa.types.is_large_string, FieldType.TEXT, _checked_text),
    (pa.types.is_timestamp, FieldType.TIMESTAMP, _times),
    (pa.types.is_date, FieldType.TIMESTAMP, _times),
    (pa.types.is_list, FieldType.TAGS, _checked_tags),
    (pa.types.is_large_list, FieldType.TAGS, _checked_tags),
)


def _attribute(column: Any) -> _Attribute:
    """A column as a declared attribute holds it.

    Raises:
        ValueError: no attribute holds such cells; the message finishes "column 'x' ...".
    """
    if pa.types.is_null(column.type):
        return _Attribute(None, column)
    for fits, kind, checked in _KINDS:
        if fits(column.type):
            return _Attribute(kind, checked(column))
    raise ValueError(f"has the type {column.type}, which no attribute has: convert it or drop it")


def _rows(
    paths: Any, *, columns: Sequence[Any], folder: Path, problems: list[str]
) -> dict[str, int]:
    """Location of a picture -> its first row. What is wrong with paths goes to `problems`."""
    names = paths.to_pylist()
    unusable = [row + 1 for row, name in enumerate(names) if not _is_path(name)]
    if unusable:
        problems.append(f"column 'path' holds no path: {_rows_named(unusable)}")
        return {}
    real = lru_cache(maxsize=None)(os.path.realpath)  # pictures outnumber folders by far
    rows: dict[str, int] = {}
    twice: list[int] = []
    for row, name in enumerate(names):
        place, file = os.path.split(os.path.join(folder, os.fsdecode(name)))  # noqa: PTH118
        first = rows.setdefault(os.path.join(real(place), file), row)  # noqa: PTH118
        if first != row and not all(_same(c[first].as_py(), c[row].as_py()) for c in columns):
            twice.append(row + 1)
    if twice:
        problems.append(f"a path that an earlier row has with other values: {_rows_named(twice)}")
    return rows


def _is_path(name: Any) -> bool:
    return isinstance(name, bytes | str) and b"\0" not in os.fsencode(name) and len(name) > 0


def _same(one: Any, two: Any) -> bool:
    return bool(one == two) or (missing(one) and missing(two))


def _id_problems(name: str, column: Any, *, rows: Mapping[str, int]) -> list[str]:
    first: dict[Any, int] = {}
    twice = [
        row + 1
        for row in rows.values()
        if not missing(cell := column[row].as_py()) and first.setdefault(cell, row) != row
    ]
    if not twice:
        return []
    return [f"column '{name}' has a value that an earlier picture has: {_rows_named(twice)}"]


def _value(cell: Any) -> Value:
    """A cell of an attribute column as values.Value."""
    if isinstance(cell, list):
        return tuple(tag for tag in cell if tag is not None)
    if isinstance(cell, datetime):
        return cell.astimezone(UTC)
    return cell  # type: ignore[no-any-return]
