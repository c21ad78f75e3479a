"""Files of other programs as tables that look like ours: columns `vector`, `id`, `image`, ...

Every adapter gives a `Table` whose batches can start at any row, so that an import resumes. Nothing
is unpickled, ever: a pickle runs code. DeepFace's `.pkl` stores therefore come in by way of JSON
or CSV; how to write those is said at the adapter. Formats as their writers have them:

* npy: an (n, d) array, with or without a Parquet or CSV of attributes for the same rows.
* clip-retrieval: `img_emb/*.npy` and `metadata/*.parquet` in the same order (its `writer.py`).
* deepface, immich: `COPY` of their PostgreSQL tables to CSV (their schemas); JSON of DeepFace.
* faiss: an index file that holds whole vectors (retrieval/index/faiss_file.py).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from indexer.bulk.schema import ID, IMAGE, PERSON, VECTOR
from retrieval.errors import SchemaMismatchError, UsageError

READ_BYTES: Final = 2**20  # at a time, of each column: a row group may have a gigabyte
FIRST_ROWS: Final = 1024  # read at a time in search of a vector
# Columns of DeepFace's `embeddings` table, of its `find` store, and of what `represent` gives.
DEEPFACE: Final = {"embedding": VECTOR, "img_name": IMAGE, "identity": IMAGE, "id": ID,
                   "face_confidence": "detector_score", "model_name": "model_name"}  # fmt: skip
DEEPFACE_BOX: Final = ("target_x", "target_y", "target_w", "target_h")
# Columns of Immich's tables face_search, asset_face, asset and person.
IMMICH: Final = {"embedding": VECTOR, "faceId": ID, "originalPath": IMAGE, "name": PERSON,
                 "assetId": "assetId"}  # fmt: skip
IMMICH_BOX: Final = ("boundingBoxX1", "boundingBoxY1", "boundingBoxX2", "boundingBoxY2")


class Format(StrEnum):
    """What a file is."""

    PARQUET = "parquet"
    NPY = "npy"
    CLIP_RETRIEVAL = "clip-retrieval"
    DEEPFACE = "deepface"
    IMMICH = "immich"
    FAISS = "faiss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table in files, to be read in batches from any row on."""

    schema: pa.Schema
    rows: int
    files: tuple[Path, ...]  # all that its content depends on
    read: Callable[[int, int], Iterator[pa.RecordBatch]]  # (first row, rows of a batch)

    def batches(self, first_row: int, *, rows: int) -> Iterator[pa.RecordBatch]:
        """Batches of at most `rows` rows, from `first_row` on; UsageError where one is damaged."""
        with _reading(self.files[0]):
            yield from self.read(first_row, rows)

    def first_vector(self) -> pa.Scalar | None:
        """The first vector that is not NULL, where the type alone does not say the dimension."""
        places = [n for n, field in enumerate(self.schema) if field.name == VECTOR]
        if places and not pa.types.is_fixed_size_list(self.schema.field(places[0]).type):
            for batch in self.batches(0, rows=FIRST_ROWS):
                found = batch.column(places[0]).drop_null()
                if len(found):
                    return found[0]
        return None


def opened(path: Path, format_: Format, *, attributes: Path | None) -> Table:
    """The table in a file or folder.

    Args:
        path: the file; of clip-retrieval the folder.
        format_: what it is.
        attributes: for npy and faiss, a Parquet or CSV with a row for each vector.

    Raises:
        UsageError: it is not there, damaged, or of another format.
    """
    for needed in (path, *([] if attributes is None else [attributes])):
        if not needed.exists():
            raise UsageError(f"there is no {needed}")
    if attributes is not None and format_ not in (Format.NPY, Format.FAISS):
        raise UsageError(f"{format_} brings its attributes along; only npy and faiss need a file")
    with _reading(path):
        return _opened(
            path, format_, beside=None if attributes is None else _attributes(attributes)
        )


def _opened(path: Path, format_: Format, *, beside: Table | None) -> Table:
    match format_:
        case Format.PARQUET:
            return _parquet(path)
        case Format.NPY:
            return _side_by_side([_npy(path, beside)])
        case Format.CLIP_RETRIEVAL:
            return _clip_retrieval(path)
        case Format.DEEPFACE:
            return _deepface(path)
        case Format.IMMICH:
            return _immich(path)
        case Format.FAISS:
            return _faiss(path, beside)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as cause:
        # Arrow's own words may quote a cell; the first line of Parquet's never does.
        words = str(cause).splitlines()[0] if path.suffix == ".parquet" else "not what it should be"
        raise UsageError(f"{path} is damaged or of another format: {words}") from cause
    except (ValueError, EOFError) as cause:
        raise UsageError(f"{path} is damaged or of another format") from cause
    except OSError as cause:
        raise UsageError(f"{path} cannot be read: {cause.strerror or 'it is damaged'}") from cause


def _parquet(path: Path) -> Table:
    with pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows

    def read(first_row: int, count: int) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            ends = np.cumsum(sizes)
            groups = np.flatnonzero(ends > first_row).tolist()
            skip = first_row - int(ends[groups[0]] - sizes[groups[0]]) if groups else 0
            for batch in file.iter_batches(count, row_groups=groups, use_threads=False):
                if skip < len(batch):
                    yield batch.slice(skip)
                skip = max(0, skip - len(batch))

    return Table(schema=schema, rows=rows, files=(path,), read=read)


def _in_memory(table: pa.Table, *files: Path) -> Table:
    def read(first_row: int, count: int) -> Iterator[pa.RecordBatch]:
        whole = table.slice(first_row).combine_chunks()
        yield from whole.to_batches(max_chunksize=count)

    return Table(schema=table.schema, rows=len(table), files=files, read=read)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Vectors, and a table with as many rows beside them."""

    file: Path
    vectors: npt.NDArray[np.floating]
    beside: Table | None


def _npy(path: Path, beside: Table | None) -> _Part:
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    if vectors.ndim != 2 or vectors.dtype.kind != "f":  # noqa: PLR2004
        raise SchemaMismatchError(f"{path} is no (n, d) array of floating-point numbers")
    return _Part(file=path, vectors=vectors, beside=beside)


def _side_by_side(parts: Sequence[_Part]) -> Table:
    """One table of several parts, one after the other."""
    for part in parts:
        if part.beside is not None and part.beside.rows != len(part.vectors):
            raise SchemaMismatchError(
                f"{part.file} has {len(part.vectors):,} rows,"
                f" {part.beside.files[0]} {part.beside.rows:,}"
            )
    schemas = [part.beside.schema for part in parts if part.beside is not None]
    attributes = pa.unify_schemas([pa.schema([]), *schemas], promote_options="permissive")
    number = pa.from_numpy_dtype(parts[0].vectors.dtype.newbyteorder("="))
    type_ = pa.list_(number, parts[0].vectors.shape[1])
    schema = attributes.append(pa.field(VECTOR, type_))

    def read(first_row: int, count: int) -> Iterator[pa.RecordBatch]:
        start = 0
        for part in parts:
            row = max(0, first_row - start)
            start += len(part.vectors)
            for batch in _rows_beside(part, row, count):
                lists = _lists(part.vectors[row : row + len(batch)], number)
                columns = [*_conformed(batch, attributes), lists]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)
                row += len(batch)

    rows = sum(len(part.vectors) for part in parts)
    files = [f for p in parts for f in (p.file, *(() if p.beside is None else p.beside.files))]
    return Table(schema=schema, rows=rows, files=tuple(files), read=read)


def _rows_beside(part: _Part, row: int, count: int) -> Iterator[pa.RecordBatch]:
    """Batches of attributes from `row` on; without columns where there are none."""
    if part.beside is not None:
        yield from part.beside.read(row, count)
        return
    for start in range(row, len(part.vectors), count):
        size = min(count, len(part.vectors) - start)
        yield pa.RecordBatch.from_struct_array(pa.array([{}] * size, pa.struct([])))


def _conformed(batch: pa.RecordBatch, schema: pa.Schema) -> list[pa.Array]:
    """The batch's columns in the types and order of `schema`, NULL where it has none."""
    return [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for field in schema
    ]


def _attributes(path: Path) -> Table:
    if path.suffix == ".csv":
        return _in_memory(pyarrow.csv.read_csv(path), path)
    return _parquet(path)


def _clip_retrieval(folder: Path) -> Table:
    arrays = sorted((folder / "img_emb").glob("*.npy"))
    tables = sorted((folder / "metadata").glob("*.parquet"))
    if not arrays or len(arrays) != len(tables):
        raise SchemaMismatchError(
            f"{folder} holds {len(arrays)} arrays in img_emb and {len(tables)} tables in metadata;"
            " clip-retrieval writes as many of one as of the other"
        )
    beside = [_renamed(_parquet(table), {"image_path": IMAGE}) for table in tables]
    return _side_by_side([_npy(path, table) for path, table in zip(arrays, beside, strict=True)])


def _renamed(table: Table, names: dict[str, str]) -> Table:
    new = [names.get(name, name) for name in table.schema.names]
    schema = pa.schema([field.with_name(n) for field, n in zip(table.schema, new, strict=True)])

    def read(first_row: int, count: int) -> Iterator[pa.RecordBatch]:
        for batch in table.read(first_row, count):
            yield batch.rename_columns(new)

    return Table(schema=schema, rows=table.rows, files=table.files, read=read)


def _deepface(path: Path) -> Table:
    """DeepFace: CSV of its `embeddings` table, or JSON (an array, or a record a line).

    From a `.pkl` of `DeepFace.find`, in an environment that trusts it:
    `json.dump(pickle.load(open(pkl, "rb")), open("faces.json", "w"))`.
    """
    if path.suffix == ".pkl":
        raise UsageError(
            f"{path} is a pickle, which would run any code in it: write its records as JSON"
            " where you trust it, and import that"
        )
    found = _csv(path) if path.suffix == ".csv" else _json(path)
    if "facial_area" in found.column_names:
        area = found["facial_area"].combine_chunks()
        for side in "xywh":
            found = found.append_column(f"target_{side}", area.field(side))
    box = _box(found, DEEPFACE_BOX)
    if box is not None:
        box[:, 2:] += box[:, :2]  # from width and height to the far corner
    return _in_memory(_as_ours(found, DEEPFACE, box), path)


def _immich(path: Path) -> Table:
    r"""Immich: CSV of its faces, as psql writes it.

    \copy (SELECT s."faceId", s.embedding, a."originalPath", p.name, f.* FROM face_search s
    JOIN asset_face f ON f.id = s."faceId" JOIN asset a ON a.id = f."assetId"
    LEFT JOIN person p ON p.id = f."personId") TO 'faces.csv' CSV HEADER
    """
    found = _csv(path)
    ours = _as_ours(found, IMMICH, _box(found, IMMICH_BOX))
    if PERSON in ours.column_names:
        place, names = ours.column_names.index(PERSON), ours[PERSON]
        unnamed = pc.equal(names, "")
        ours = ours.set_column(place, PERSON, pc.if_else(unnamed, None, names))
    return _in_memory(ours, path)


def _as_ours(
    found: pa.Table, names: dict[str, str], box: npt.NDArray[np.float32] | None
) -> pa.Table:
    """The columns that have a meaning here, under our names."""
    if "embedding" not in found.column_names:
        raise SchemaMismatchError("there is no column 'embedding'")
    columns = {
        ours: found[theirs] for theirs, ours in names.items() if theirs in found.column_names
    }
    if pa.types.is_string(columns[VECTOR].type):
        columns[VECTOR] = _numbers_in_text(columns[VECTOR])
    if box is not None:
        columns["box"] = _lists(box, pa.float32())
    return pa.table(columns)


def _numbers_in_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`[1,2]` of pgvector or JSON, `{1,2}` of PostgreSQL's arrays, as lists."""
    bare = pc.replace_substring_regex(column, r"[\[\]{}\s]", "")
    return pc.cast(pc.split_pattern(bare, ","), pa.list_(pa.float32()))


def _box(found: pa.Table, names: tuple[str, ...]) -> npt.NDArray[np.float32] | None:
    if not set(names) <= set(found.column_names):
        return None
    return np.stack([found[name].to_numpy() for name in names], axis=1).astype(np.float32)


def _csv(path: Path) -> pa.Table:
    # Names of persons and files are text even where they look like numbers or dates.
    texts = dict.fromkeys(("id", "faceId", "name", "img_name", "embedding", "assetId"), pa.string())
    convert = pyarrow.csv.ConvertOptions(column_types=texts, strings_can_be_null=True,
                                         quoted_strings_can_be_null=False)  # fmt: skip
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    return pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert)


def _json(path: Path) -> pa.Table:
    with path.open("rb") as file:
        if file.read(1) == b"[":
            file.seek(0)
            return pa.Table.from_pylist(json.load(file))
    return pyarrow.json.read_json(path)


def _faiss(path: Path, beside: Table | None) -> Table:
    from retrieval.index.faiss_file import vectors_of_file

    vectors, ids = vectors_of_file(path)
    if ids is not None and beside is None:
        beside = _in_memory(pa.table({ID: pa.array(ids)}))
    elif ids is not None and beside is not None and ID not in beside.schema.names:
        known = pa.Table.from_batches(beside.read(0, beside.rows), beside.schema)
        beside = _in_memory(known.append_column(ID, pa.array(ids)), *beside.files)
    return _side_by_side([_Part(file=path, vectors=vectors, beside=beside)])


def _lists(rows: npt.NDArray[np.floating], number: pa.DataType) -> pa.FixedSizeListArray:
    """The rows of an (n, d) array as fixed-size lists of `number`."""
    flat = np.ascontiguousarray(rows, dtype=number.to_pandas_dtype()).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), rows.shape[1])
