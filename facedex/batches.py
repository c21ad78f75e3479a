"""Decisions by the million: Parquet in, Parquet out, a block at a time.

For those who make faces: whether pictures keep an identity (`verify`), and whether they give one
away (`identify`). A row that cannot be judged, as with a vector that points nowhere or a face that
is not there, gets an empty answer and is counted; the others go on. The file appears under its name
when it is whole.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from indexer.bulk.files import whole
from retrieval.errors import UsageError
from retrieval.index.exact import paired_cosines
from retrieval.limits import VECTOR_LENGTH_MIN
from retrieval.reader import Reader
from retrieval.search import Question
from retrieval.values import Floats, UnitRows

if TYPE_CHECKING:
    from facedex.recognition import Recognition
    from retrieval.people.calibration import Threshold

Mask = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]

BLOCK_ROWS: Final = 4_096  # two blocks of 512 dimensions take 32 MiB in float64
FACES: Final = ("face_a", "face_b")
VECTORS: Final = ("vector_a", "vector_b")
PROBE: Final = "vector"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """What was judged."""

    rows: int
    reached: int  # pairs called the same, or probes that look like somebody
    unusable: int  # rows without an answer
    threshold: "Threshold"


def verify_pairs(
    recognition: "Recognition", path: Path, out: Path, *, fmr: float, progress: Progress
) -> BatchReport:
    """Write `path` again with two more columns: similarity (float64) and same (boolean).

    Args:
        recognition: of the collection that faces are looked up in.
        path: Parquet with face_a and face_b, numbers of stored faces, or vector_a and vector_b.
        out: where to write.
        fmr: share of comparisons of strangers that may be called the same.
        progress: called with rows done and rows in all.

    Raises:
        UsageError: it is no such file.
    """
    threshold = recognition.calibration().for_fmr(fmr)
    index = recognition.faces()
    same = unusable = 0
    with _opened(path) as file, whole(out) as staged:
        columns = next((pair for pair in (FACES, VECTORS) if _has(file, *pair)), None)
        if columns is None:
            raise UsageError(f"{path} has neither face_a and face_b nor vector_a and vector_b")
        schema = file.schema_arrow
        for field in (pa.field("similarity", pa.float64()), pa.field("same", pa.bool_())):
            schema = schema.append(field)
        with pq.ParquetWriter(staged, schema) as writer:
            for batch in _batches(file, progress):
                (ones, there), (others, also) = (
                    _vectors(batch.column(name), index) for name in columns
                )
                usable = there & also
                similarity = np.where(usable, paired_cosines(ones, others), np.nan)
                reached = similarity >= threshold.similarity
                same += int(np.count_nonzero(reached))
                unusable += int(np.count_nonzero(~usable))
                writer.write_batch(
                    pa.record_batch(
                        [
                            *batch.columns,
                            pa.array(similarity, mask=~usable),
                            pa.array(reached, mask=~usable),
                        ],
                        schema=schema,
                    )
                )
        rows = file.metadata.num_rows
    return BatchReport(rows=rows, reached=same, unusable=unusable, threshold=threshold)


def identify_probes(
    recognition: "Recognition",
    path: Path,
    out: Path,
    *,
    fpir: float,
    count: int,
    progress: Progress,
) -> BatchReport:
    """Write the `count` most similar persons of each probe, those below the threshold too.

    Columns: probe (row number in `path`), id (that of `path`), rank (from 1), person, name,
    similarity (float64), reached (whether the threshold is).

    Args:
        recognition: of the collection whose persons are searched.
        path: Parquet with a column `vector`, one probe a row.
        out: where to write.
        fpir: share of searches for strangers that may reach somebody.
        count: persons told of each probe.
        progress: called with rows done and rows in all.

    Raises:
        UsageError: it is no such file.
    """
    index = recognition.persons()
    threshold = recognition.calibration().for_fpir(fpir, gallery=max(index.status().rows, 1))
    known = unusable = begin = 0
    with _opened(path) as file, whole(out) as staged:
        if not _has(file, PROBE):
            raise UsageError(f"{path} has no column '{PROBE}'")
        ids = file.schema_arrow.field("id").type if _has(file, "id") else pa.null()
        schema = _candidates_schema(ids)
        with pq.ParquetWriter(staged, schema) as writer:
            for batch in _batches(file, progress):
                vectors, usable = _vectors(batch.column(PROBE), index)
                found = _candidates(index, vectors, usable, count=count)
                reached = pc.greater_equal(found["similarity"], threshold.similarity)
                first = pc.and_(reached, pc.equal(found["rank"], 1))
                known += pc.sum(first).as_py() or 0
                unusable += int(np.count_nonzero(~usable))
                names = recognition.names_of(pc.unique(found["person"]).to_pylist())
                told = {
                    "probe": pc.add(found["probe"], begin),
                    "id": _ids(batch).take(found["probe"]),
                    "name": [names.get(person) for person in found["person"].to_pylist()],
                    "reached": reached,
                }
                columns = {
                    name: told[name] if name in told else found[name] for name in schema.names
                }
                writer.write_table(pa.table(columns, schema=schema))
                begin += len(batch)
        rows = file.metadata.num_rows
    return BatchReport(rows=rows, reached=known, unusable=unusable, threshold=threshold)


def _ids(batch: Any) -> Any:
    """What the file calls its probes; NULLs where it does not."""
    named = "id" in batch.schema.names
    return batch.column("id") if named else pa.nulls(len(batch))


def _candidates_schema(ids: pa.DataType) -> pa.Schema:
    return pa.schema(
        {
            "probe": pa.int64(),
            "id": ids,
            "rank": pa.int64(),
            "person": pa.int64(),
            "name": pa.string(),
            "similarity": pa.float64(),
            "reached": pa.bool_(),
        }
    )


def _candidates(index: Reader, vectors: Floats, usable: Mask, *, count: int) -> pa.Table:
    """The nearest persons of the usable probes: probe (place), rank, person, similarity."""
    places = np.flatnonzero(usable)
    question = Question(vectors=UnitRows(vectors[places]), count=count, recall="certified")
    hits = index.search(question).hits if len(places) else ()
    sizes = [len(one.ids) for one in hits]
    nothing = np.empty(0, np.int64)
    return pa.table(
        {
            "probe": np.repeat(places, sizes),
            "rank": np.concatenate([nothing, *(np.arange(1, size + 1) for size in sizes)]),
            "person": np.concatenate([nothing, *(one.ids for one in hits)]),
            "similarity": np.concatenate([np.empty(0), *(one.similarities for one in hits)]),
        }
    )


def _vectors(column: pa.Array, index: Reader) -> tuple[Floats, Mask]:
    """Vectors of unit length, (n, d), and which of them are usable, (n,)."""
    dimension = index.holding.space.dimension
    if pa.types.is_integer(column.type):
        faces = pc.fill_null(column, -1).cast(pa.int64()).to_numpy(zero_copy_only=False)
        halves, found = index.view.vectors_of(faces)
        rows = halves.astype(np.float32)
    else:
        rows, found = _given(column, dimension)
    lengths = np.linalg.norm(rows, axis=1)
    usable = found & np.isfinite(lengths) & (lengths > VECTOR_LENGTH_MIN)
    rows[~usable] = 0.0
    rows[~usable, 0] = 1.0  # in the place of one that points nowhere; its answer is left out
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows, usable


def _given(column: pa.Array, dimension: int) -> tuple[Floats, Mask]:
    """The vectors of a column of lists; those of another length are not usable."""
    lists = column.cast(pa.list_(pa.float32()))
    right = pc.fill_null(pc.equal(pc.list_value_length(lists), dimension), False)  # noqa: FBT003
    found = right.to_numpy(zero_copy_only=False)
    rows = np.zeros((len(column), dimension), np.float32)
    values = lists.filter(right).flatten().to_numpy(zero_copy_only=False)
    rows[found] = values.reshape(-1, dimension)
    return rows, found


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as cause:
        raise UsageError(f"{path} is no Parquet file: {cause}") from cause
    with file:
        yield file


def _has(file: pq.ParquetFile, *names: str) -> bool:
    return set(names) <= set(file.schema_arrow.names)


def _batches(file: pq.ParquetFile, progress: Progress) -> Iterator[Any]:
    done, total = 0, file.metadata.num_rows
    for batch in file.iter_batches(BLOCK_ROWS):
        yield batch
        done += len(batch)
        progress(done, total)
