"""Readers of the files that other benchmarks use, and of Facedex's own export.

    ann_benchmarks      one HDF5 file: train, test (h5py, which is no dependency of Facedex)
    big_ann             .fbin or .u8bin rows and queries; the filter track's .spmat tags of both
    vector_db_bench     a folder: train*.parquet, test.parquet, scalar_labels.parquet
    plain_vectors       .fvecs or .bvecs rows and queries, attributes as JSON lines
    own_collection      what `facedex export` wrote

Each file is checked against the size that its head promises before anything is believed. The
neighbours that a set brings are not used (making.py says why); `ivecs` and `ibin` read them for
who wants to compare. Where a set has many millions of rows, `rows` takes the first ones only.
"""

import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from benchmarks.filtered.data.making import (
    NO_COLUMNS,
    as_fields,
    unit_in_blocks,
    with_own_queries,
    with_rows_held_out,
)
from benchmarks.filtered.values import DataSet
from retrieval.errors import SchemaMismatchError, UsageError
from retrieval.fields import BUILT_IN, RESERVED
from retrieval.values import UnitRows

TAGS: Final = "tags"
NUMBER: Final = "number"  # VectorDBBench filters by the rows' own numbers; `id` is taken here
_HEAD: Final = struct.Struct("<II")  # rows and dimensions of a .bin file
_SPARSE_HEAD: Final = struct.Struct("<qqq")  # rows, columns and entries of a .spmat file
_BIN_TYPES: Final = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1", ".ibin": "<i4"}
_VECS_TYPES: Final = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
_Array = npt.NDArray[Any]


def ann_benchmarks(path: Path) -> DataSet:
    """An HDF5 file of ann-benchmarks, whatever its distance.

    Raises:
        UsageError: the file is cut short or has no `train` and `test`.
    """
    import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]

    _there(path)
    try:
        with h5py.File(path, "r") as file:
            rows, asked = unit_in_blocks(file["train"]), unit_in_blocks(file["test"])
    except (OSError, KeyError) as cause:
        raise UsageError(f"{path} is no whole file of ann-benchmarks ({cause})") from cause
    return with_own_queries(path.stem, rows, NO_COLUMNS, asked=asked)


def big_ann(
    rows_file: Path,
    queries_file: Path,
    *,
    row_tags: Path | None = None,
    query_tags: Path | None = None,
    rows: int | None = None,
) -> DataSet:
    """Rows and queries of a big-ann set; with the filter track's tags, a column `tags` of both.

    Column c of the matrix is the tag "c". A query's tags are those that all must be on a row:
    `workload.tags_of_queries` makes the cell.

    Raises:
        UsageError: a file is cut short, or the files do not fit one another.
    """
    vectors, asked = _units(_bin(rows_file)[:rows]), _units(_bin(queries_file))
    table, asked_table = NO_COLUMNS, NO_COLUMNS
    if row_tags and query_tags:
        table = pa.table({TAGS: sparse_tags(row_tags).slice(0, rows)})
        asked_table = pa.table({TAGS: sparse_tags(query_tags)})
    return with_own_queries(rows_file.stem, vectors, table, asked=asked, asked_table=asked_table)


def vector_db_bench(folder: Path, *, rows: int | None = None) -> DataSet:
    """A folder of VectorDBBench, by row number; `number` and the labels are attributes.

    Raises:
        UsageError: a file is missing, or numbers are there twice.
        SchemaMismatchError: a file lacks a column, or has one that does not fit.
    """
    files = sorted(folder.glob("*train*.parquet"))
    shuffled = [file for file in files if file.name.startswith("shuffle_")]
    if not files:
        raise UsageError(f"{folder} holds no train*.parquet")
    numbers, vectors = _numbered_vectors(shuffled or files, rows=rows)
    _, asked = _numbered_vectors([_there(folder / "test.parquet")], rows=None)
    table = pa.table({NUMBER: numbers})
    labels = folder / "scalar_labels.parquet"
    if labels.exists():
        table = _labelled(table, labels)
    return with_own_queries(folder.name, vectors, table, asked=asked)


def plain_vectors(
    rows_file: Path,
    queries_file: Path,
    *,
    attributes: Path | None = None,
    query_attributes: Path | None = None,
) -> DataSet:
    """Rows and queries in .fvecs or .bvecs, with one JSON object a line for the attributes.

    Raises:
        UsageError: a file is cut short, or the files do not fit one another.
        SchemaMismatchError: a JSON value is of a type that no field has.
    """
    return with_own_queries(
        rows_file.stem,
        _units(_vecs(rows_file)),
        json_lines(attributes) if attributes else NO_COLUMNS,
        asked=_units(_vecs(queries_file)),
        asked_table=json_lines(query_attributes) if query_attributes else NO_COLUMNS,
    )


def own_collection(path: Path, *, queries: int = 1000, tuning: int = 500, seed: int = 0) -> DataSet:
    """A file of `facedex export`, or one that `facedex import` takes; queries are held out.

    Raises:
        UsageError: the file has too few rows, or is no whole Parquet file.
        SchemaMismatchError: there is no column of vectors, or a column that no field can be.
    """
    file = _parquet(path)
    if "vector" not in file.schema_arrow.names:
        raise SchemaMismatchError(f'{path} has no column "vector"')
    vectors = _units(_rows_of(file.read(["vector"]).column(0), path))
    # What describes a face without being a field of it: pictures, boxes, lengths, provenance.
    apart = RESERVED - frozenset(BUILT_IN)
    names = [name for name in file.schema_arrow.names if name not in apart]
    table = as_fields(file.read(names)) if names else NO_COLUMNS
    return with_rows_held_out(path.stem, vectors, table, queries=queries, tuning=tuning, seed=seed)


def ibin(path: Path) -> npt.NDArray[np.int32]:
    """(n, k) row numbers: neighbours as big-ann lists them."""
    return _bin(path)


def ivecs(path: Path) -> npt.NDArray[np.int32]:
    """(n, k) row numbers: neighbours as the TEXMEX sets list them."""
    return _vecs(path)


def sparse_tags(path: Path) -> pa.Array:
    """The tags of each row of a .spmat file: the columns where the matrix has an entry.

    Raises:
        UsageError: the file is cut short, or its parts contradict one another.
    """
    with _there(path).open("rb") as file:
        rows, columns, entries = _SPARSE_HEAD.unpack(_read(file, _SPARSE_HEAD.size, path))
        if min(rows, columns, entries) < 0:
            raise UsageError(f"{path} is no .spmat file: it promises {rows} rows")
        # 64-bit ends of the rows, 32-bit columns, 32-bit values that are not read.
        _promised(path, _SPARSE_HEAD.size + 8 * (rows + 1) + 8 * entries)
        ends = np.fromfile(file, "<i8", rows + 1)
        tags = np.fromfile(file, "<i4", entries)
    sound = ends[0] == 0 and ends[-1] == entries and (np.diff(ends) >= 0).all()
    if not sound or (entries and not 0 <= tags.min() <= tags.max() < columns):
        raise UsageError(f"{path} is damaged: its rows or columns lie outside the matrix")
    words = pa.array(tags).cast(pa.string())
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), words)


def json_lines(path: Path) -> pa.Table:
    """Attributes from a file with one JSON object a line; what a line lacks is NULL.

    Raises:
        UsageError: a line cannot be read.
        SchemaMismatchError: a value is of a type that no field has.
    """
    try:
        return as_fields(pyarrow.json.read_json(_there(path)))
    except pa.ArrowInvalid as cause:
        raise UsageError(f"{path} is no file of JSON lines ({cause})") from cause


def _bin(path: Path) -> _Array:
    """(n, d) of a big-ann file, mapped."""
    type_ = np.dtype(_type_of(path, _BIN_TYPES))
    with _there(path).open("rb") as file:
        rows, dimension = _HEAD.unpack(_read(file, _HEAD.size, path))
    if not rows or not dimension:
        raise UsageError(f"{path} promises {rows} rows of {dimension} dimensions")
    _promised(path, _HEAD.size + rows * dimension * type_.itemsize)
    return np.memmap(path, type_, mode="r", offset=_HEAD.size, shape=(rows, dimension))


def _vecs(path: Path) -> _Array:
    """(n, d) of a TEXMEX file, mapped: each row says its dimensions again."""
    type_ = np.dtype(_type_of(path, _VECS_TYPES))
    with _there(path).open("rb") as file:
        dimension = int.from_bytes(_read(file, 4, path), "little")
    step = 4 + dimension * type_.itemsize
    size = path.stat().st_size
    if not dimension or size % step:
        raise UsageError(f"{path} is cut short: {size} bytes are no whole rows of {step} bytes")
    rows = np.memmap(path, "u1", mode="r", shape=(size // step, step))
    heads = np.ascontiguousarray(rows[:, :4]).view("<i4")
    if (heads != dimension).any():
        raise UsageError(f"{path} is damaged: not every row has {dimension} dimensions")
    return np.ascontiguousarray(rows[:, 4:]).view(type_)


def _numbered_vectors(files: list[Path], *, rows: int | None) -> tuple[_Array, UnitRows]:
    """Numbers and vectors of all files, by number."""
    numbers, parts = [], []
    for path in files:
        file = _parquet(path)
        missing = {"id", "emb"} - set(file.schema_arrow.names)
        if missing:
            raise SchemaMismatchError(f"{path} lacks the columns: {', '.join(sorted(missing))}")
        for batch in file.iter_batches(columns=["id", "emb"]):
            numbers.append(batch.column("id").to_numpy())
            parts.append(_rows_of(pa.chunked_array([batch.column("emb")]), path))
    number = np.concatenate(numbers).astype(np.int64)
    order = np.argsort(number, kind="stable")[:rows]
    if (np.diff(number[order]) == 0).any():
        raise UsageError(f"{files[0].parent} gives a row's number twice")
    if len({part.shape[1] for part in parts}) != 1:
        raise UsageError(f"{files[0].parent} has vectors of several dimensions")
    return number[order], _units(np.concatenate(parts)[order])


def _labelled(table: pa.Table, path: Path) -> pa.Table:
    labels = _parquet(path).read()
    if "id" not in labels.column_names:
        raise SchemaMismatchError(f'{path} has no column "id"')
    places = pc.index_in(table.column(NUMBER), value_set=labels.column("id").cast(pa.int64()))
    if places.null_count:
        raise UsageError(f"{path} has no labels for {places.null_count} rows")
    given = as_fields(labels.drop_columns(["id"])).take(places)
    return pa.table(
        {NUMBER: table.column(NUMBER), **{name: given.column(name) for name in given.column_names}}
    )


def _rows_of(column: pa.ChunkedArray, path: Path) -> _Array:
    """(n, d) of a column of lists that all have one length, float16 or wider."""
    type_ = column.type
    listed = pa.types.is_list(type_) or pa.types.is_large_list(type_)
    if not (listed or pa.types.is_fixed_size_list(type_)):
        raise SchemaMismatchError(f"{path}: vectors are lists of numbers, not {type_}")
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if column.null_count or len(lengths) != 1:
        raise UsageError(f"{path}: vectors are missing, or of the lengths {lengths}")
    flat: _Array = pc.list_flatten(column).to_numpy()
    return flat.reshape(len(column), lengths[0])


def _units(raw: _Array) -> UnitRows:
    return unit_in_blocks(raw)


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(_there(path))
    except pa.ArrowInvalid as cause:
        raise UsageError(f"{path} is no whole Parquet file ({cause})") from cause


def _type_of(path: Path, types: dict[str, str]) -> str:
    if path.suffix not in types:
        raise UsageError(f"{path} is none of: {', '.join(types)}")
    return types[path.suffix]


def _there(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    return path


def _read(file: Any, size: int, path: Path) -> bytes:
    read: bytes = file.read(size)
    if len(read) < size:
        raise UsageError(f"{path} is cut short: it has no whole head")
    return read


def _promised(path: Path, size: int) -> None:
    found = path.stat().st_size
    if found != size:
        raise UsageError(f"{path} is cut short or damaged: {found} bytes, its head says {size}")
