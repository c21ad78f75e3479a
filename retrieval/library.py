"""The engine as a library: vectors and a table of attributes in, filtered neighbours out.

No database: the caller owns the facts. The files, the plans and the kernels are those of Facedex,
so that what is measured here holds there.

>>> import numpy as np
>>> vectors = np.random.default_rng(0).standard_normal((1000, 64))
>>> index = Index.build(vectors, {"age": [float(row % 90) for row in range(1000)]})
>>> young = index.prepare("age < :limit")
>>> found = index.search(vectors[30], where=young, parameters={"limit": 40.0}, count=3)
>>> int(found.ids[0]), found.answer.survivors
(30, 450)
"""

import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval.errors import SchemaMismatchError, UnusableVectorError, UsageError
from retrieval.fields import Fields
from retrieval.filters.columns import ARROW_TYPES, field_types
from retrieval.filters.parse import parse
from retrieval.filters.prepared import Prepared
from retrieval.filters.tree import Filter
from retrieval.index.exact import Doubles, scales_of
from retrieval.index.making import Faces, make, worth_keeping
from retrieval.index.rule import DEFAULT_RECALL
from retrieval.index.snapshot import (
    COLUMNS,
    MANIFEST,
    Coding,
    Gallery,
    Manifest,
    SelfCheck,
    open_snapshot,
    read_manifest,
    write_manifest,
)
from retrieval.index.view import View, advance, view_of_snapshot
from retrieval.limits import VECTOR_LENGTH_MIN
from retrieval.monitor import RecallBucket, RecallMonitor
from retrieval.plan import Recall
from retrieval.search import Answer, GroupBy, Question, search
from retrieval.store.changes import Changes
from retrieval.store.snapshots import PublishedSnapshot
from retrieval.values import (
    CollectionId,
    Cursor,
    FaceIds,
    HalfRows,
    Similarity,
    UnitRows,
    Value,
    unit_rows,
)

Attributes: TypeAlias = pa.Table | Mapping[str, Sequence[Any] | npt.NDArray[Any] | pa.Array]

ORIGIN: Final = "library"  # in the place of a database's identifier
NO_CURSOR: Final = Cursor("")
BLOCK_ROWS: Final = 16_384  # turned into unit vectors at once: 32 MiB at 512 dimensions
ROWS_AND_COLUMNS: Final = 2
MERGE_SECONDS_FIRST: Final = 1.0  # a guess, until one was made
UNIT_ERROR_MAX: Final = 1e-6  # of the length of a vector that is taken as it comes


class Found(NamedTuple):
    """The answer to one query."""

    ids: FaceIds  # (m,) best first, m < count only where fewer rows pass
    similarities: Doubles  # (m,) cosine
    answer: Answer  # tier, survivors, work, plan, timings; `answer.plan.why` explains


class Index:
    """Vectors with attributes, searchable under any filter. Safe to share between threads."""

    def __init__(self, view: View, *, asked: UnitRows | None = None) -> None:
        self._view = view
        self._asked = asked  # vectors like questions
        self._writing = threading.Lock()
        self._monitor = RecallMonitor()
        self._merging = threading.Lock()
        self._during_merge: list[Changes] | None = None
        self._merge_s = MERGE_SECONDS_FIRST  # what the last one took
        self._delta_s = 0.0  # spent on what came after the snapshot, since the last merge

    @classmethod
    def build(
        cls,
        vectors: npt.ArrayLike,
        attributes: Attributes | None = None,
        *,
        ids: npt.ArrayLike | None = None,
        questions: npt.ArrayLike | None = None,
        folder: Path | None = None,
    ) -> "Index":
        """Index vectors (n, d) with their attributes.

        Args:
            vectors: of any length but 0, in float16, float32 or float64; kept as float16.
            attributes: one column for each field, n values each. Numbers, text, booleans,
                timestamps (UTC) and lists of text are fields; None is NULL.
            ids: (n,) integers, each once; by default 0 to n - 1.
            questions: (q, d) vectors like those that will be asked, where these are unlike the rows
                (sentences among pictures): the recall that answers promise is measured with them,
                too. Some hundred; an index that is loaded has forgotten them.
            folder: where the files lie, made anew; by default a temporary one.

        Raises:
            UnusableVectorError: a vector is NaN, infinite or near zero.
            SchemaMismatchError: an attribute is of no known type, or their number is not n.
            UsageError: ids repeat or do not fit.
        """
        halves = _halves(vectors)
        table = _table(attributes, rows=len(halves))
        faces = Faces(_ids(ids, rows=len(halves)), halves, table, field_types(table))
        asked = None if questions is None else unit_rows(questions, dimension=halves.shape[1])
        if folder is None:
            return cls(_temporary(faces, like=None, asked=asked), asked=asked)
        return cls(_opened(_written(folder, faces, like=None, asked=asked)), asked=asked)

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Map an index that was saved or built at `folder`.

        Raises:
            SnapshotUnusableError: it is damaged, or of an unknown version.
        """
        return cls(_opened(Path(folder)))

    def save(self, folder: Path) -> None:
        """Write the index, and all that was added and deleted since, into a new folder."""
        view = self._view
        if (
            view.snapshot is not None
            and not view.chunks
            and view.everything.total == len(view.snapshot.order)
        ):
            _require_new(Path(folder))
            shutil.copytree(view.snapshot.folder, folder, dirs_exist_ok=True)
        else:
            _written(Path(folder), _faces_of(view), like=None, asked=self._asked)

    @property
    def fields(self) -> Fields:
        """What a filter may name."""
        return self._view.fields

    @property
    def view(self) -> View:
        """What a search that begins now sees."""
        return self._view

    def __len__(self) -> int:
        """How many vectors can be found."""
        return self._view.everything.total

    def prepare(self, where: str) -> Prepared:
        """Read a filter once, to bind and search with it many times: `age < :limit`."""
        return Prepared(parse(where, self._view.fields))

    def search(
        self,
        query: npt.ArrayLike,
        *,
        where: str | Prepared | None = None,
        parameters: Mapping[str, Value] | None = None,
        count: int = 10,
        recall: Recall = DEFAULT_RECALL,
        min_similarity: float | None = None,
        group_by: GroupBy | None = None,
    ) -> Found:
        """The `count` most similar vectors to one query (d,) among those that pass.

        Args:
            query: of any length but 0.
            where: an SQL condition over the attributes, or a prepared one.
            parameters: a value for each :name of the condition.
            count: at most COUNT_MAX.
            recall: the share of true neighbours that answers hold in the mean, "certified" or
                "exact".
            min_similarity: leave out what is less alike; a high one saves most of the work of
                certified and exact answers.
            group_by: tell only the best vector of each value of the attribute `person_id`
                ("person") or `track`; a vector without one stands alone.

        Raises:
            FilterError: the condition cannot be read, or a parameter does not fit.
            UsageError: there is no attribute to group by.
            UnusableVectorError: the query is of another dimension, NaN, infinite or near zero.
        """
        question = Question(
            vectors=_query(query),
            count=count,
            filter=self._filter(where, parameters),
            recall=recall,
            min_similarity=None if min_similarity is None else Similarity(min_similarity),
            group_by=group_by,
        )
        answer = self._answered(question)
        [hits] = answer.hits
        return Found(hits.ids, hits.similarities, answer)

    def search_many(
        self,
        queries: npt.ArrayLike,
        *,
        where: str | Prepared | None = None,
        parameters: Mapping[str, Value] | None = None,
        count: int = 10,
        recall: Recall = DEFAULT_RECALL,
        group_by: GroupBy | None = None,
    ) -> list[Found]:
        """The same for queries (q, d) that share one filter: faster than one by one."""
        question = Question(
            vectors=unit_rows(queries),
            count=count,
            filter=self._filter(where, parameters),
            recall=recall,
            group_by=group_by,
        )
        answer = self._answered(question)
        return [Found(hits.ids, hits.similarities, answer) for hits in answer.hits]

    def add(
        self, vectors: npt.ArrayLike, attributes: Attributes | None = None, *, ids: npt.ArrayLike
    ) -> None:
        """Add vectors, or put them in the place of those with the same ids; seen at once."""
        halves = _halves(vectors)
        if halves.shape[1] != self._view.dimension:
            raise UnusableVectorError(
                f"vectors have {halves.shape[1]} dimensions; the index has {self._view.dimension}"
            )
        table = _fitted(_table(attributes, rows=len(halves)), self.fields)
        faces = _ids(ids, rows=len(halves))
        bytes_ = pa.array([row.tobytes() for row in halves], pa.binary())
        rows = table.add_column(0, "face", pa.array(faces)).append_column("vector", bytes_)
        self._change(Changes(cursor=NO_CURSOR, changed=np.sort(faces), rows=rows))

    def delete(self, ids: npt.ArrayLike) -> None:
        """Delete the vectors with these ids, at once; an id that is not there is none."""
        empty = pa.table({"face": pa.array([], pa.int64()), "vector": pa.array([], pa.binary())})
        given = np.asarray(ids)
        if given.size and given.dtype.kind not in "iu":
            raise UsageError("ids are integers")
        gone = np.unique(given.astype(np.int64))
        self._change(Changes(cursor=NO_CURSOR, changed=gone, rows=empty))

    def merge(self) -> float:
        """Bring all that was added and deleted into the lists; give the seconds it took.

        Searches, additions and deletions go on meanwhile. Centroids and rule are made anew only
        where the number of rows has doubled or halved. Nobody has to call this: a merge begins by
        itself, in a thread, once more time went into scanning additions than the last one took.
        """
        with self._merging:
            began = time.perf_counter()
            with self._writing:
                view, self._during_merge, self._delta_s = self._view, [], 0.0
            try:
                merged = _temporary(_faces_of(view), like=_coding_of(view), asked=self._asked)
                with self._writing:
                    for changes in self._during_merge or ():
                        merged = advance(merged, changes, fields=merged.fields)
                    self._view = merged
            finally:
                self._during_merge = None
            self._merge_s = time.perf_counter() - began
            return self._merge_s

    def recall_report(self) -> tuple[RecallBucket, ...]:
        """The recall of answers so far, measured on those that were asked again exactly."""
        return self._monitor.report()

    def _answered(self, question: Question) -> Answer:
        view = self._view
        answer = search(view, question)
        self._monitor.offer(view, question, answer)
        if answer.timings.delta_ms:
            self._delta_s += 1e-3 * answer.timings.delta_ms
            if self._delta_s > self._merge_s and not self._merging.locked():
                threading.Thread(target=self._merge_if_free, daemon=True).start()
        return answer

    def _merge_if_free(self) -> None:
        if self._during_merge is None and self._delta_s > self._merge_s:
            self.merge()

    def _change(self, changes: Changes) -> None:
        with self._writing:
            self._view = advance(self._view, changes, fields=self._view.fields)
            if self._during_merge is not None:
                self._during_merge.append(changes)

    def _filter(
        self, where: str | Prepared | None, parameters: Mapping[str, Value] | None
    ) -> Filter | None:
        if where is None:
            return None
        prepared = self.prepare(where) if isinstance(where, str) else where
        return prepared.bind(parameters or {})


def _temporary(faces: Faces, *, like: Coding | None, asked: UnitRows | None) -> View:
    """A view of files in a temporary folder, which goes when nobody looks at it any more."""
    scratch = Path(tempfile.mkdtemp(prefix="facedex-index-"))
    try:
        view = _opened(_written(scratch / "index", faces, like=like, asked=asked))
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    weakref.finalize(view.snapshot, shutil.rmtree, scratch, ignore_errors=True)
    return view


def _opened(folder: Path) -> View:
    manifest = read_manifest(folder)
    published = PublishedSnapshot(id=manifest.id, watermark=manifest.watermark, rows=manifest.rows)
    gallery = Gallery(
        system_identifier=ORIGIN,
        collection_id=CollectionId(0),
        space=ORIGIN,
        dimension=manifest.dimension,
        published=(published,),
    )
    snapshot = open_snapshot(folder, gallery)
    return view_of_snapshot(snapshot, fields=snapshot.manifest.fields)


def _coding_of(view: View) -> Coding | None:
    """The coding that a merge can take over."""
    coding = view.snapshot.coding if view.snapshot else None
    if coding is None or not worth_keeping(coding, rows=view.everything.total):
        return None
    return coding


def _written(folder: Path, faces: Faces, *, like: Coding | None, asked: UnitRows | None) -> Path:
    """Write the files of an index into a new folder."""
    _require_new(folder)
    began = time.perf_counter()
    (folder / COLUMNS).mkdir(parents=True, exist_ok=True)
    made = make(folder, faces, like=like, asked=lambda: asked)
    manifest = Manifest(
        id=ORIGIN,
        system_identifier=ORIGIN,
        collection_id=CollectionId(0),
        space=ORIGIN,
        dimension=faces.vectors.shape[1],
        rows=len(faces.ids),
        padded_rows=made.padded_rows,
        lists=made.lists,
        watermark=NO_CURSOR,
        fields=dict(faces.fields),
        self_check=SelfCheck(queries=0, recall=None, filtered_recall=None),
        measured=made.measured,
        seconds=time.perf_counter() - began,
        files=made.files,
    )
    write_manifest(folder, manifest)
    return folder


def _require_new(folder: Path) -> None:
    if (folder / MANIFEST).exists():
        raise UsageError(f"{folder} holds an index already: name another folder")


def _faces_of(view: View) -> Faces:
    """All that can be found in a view, with what holds of it now."""
    parts = list(view.parts())
    tables = [
        pa.table({name: part.columns.arrow(name, part.numbers) for name in view.fields})
        for part in parts
    ]
    return Faces(
        ids=np.concatenate([part.ids for part in parts]),
        vectors=np.concatenate([part.rows.vectors[part.places] for part in parts]),
        table=pa.concat_tables(tables),
        fields=view.fields,
    )


def _halves(vectors: npt.ArrayLike) -> HalfRows:
    """Vectors in float16, at unit length or as they come; or UnusableVectorError."""
    given = np.asarray(vectors)
    if given.ndim != ROWS_AND_COLUMNS:
        raise UnusableVectorError(f"vectors are rows (n, d), not of shape {given.shape}")
    if given.dtype == np.dtype("<f2") and given.flags.c_contiguous:
        scales = scales_of(given)
        if ((scales > 0) & (scales < 1 / VECTOR_LENGTH_MIN)).all():
            return given  # every search divides by the length: nothing has to be copied
    halves = np.empty(given.shape, "<f2")
    for begin in range(0, len(given), BLOCK_ROWS):
        block = given[begin : begin + BLOCK_ROWS]
        if block.dtype in (np.float16, np.float32):
            # Rounded to float16 next: a length in float32 is as good as one in float64.
            wide = block.astype(np.float32)
            lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
            if (np.isfinite(lengths) & (lengths > VECTOR_LENGTH_MIN)).all():
                halves[begin : begin + BLOCK_ROWS] = wide / lengths[:, None]
                continue
        halves[begin : begin + BLOCK_ROWS] = unit_rows(block)
    return halves


def _query(query: npt.ArrayLike) -> UnitRows:
    """One query as (1, d); copied only where it has to be turned into a unit vector."""
    row = np.asarray(query)
    if row.ndim == 1 and row.dtype == np.float32 and row.flags.c_contiguous:
        length = float(np.dot(row, row))
        if abs(length - 1.0) < UNIT_ERROR_MAX:
            view = row[None]
            view.setflags(write=False)
            return UnitRows(view)
    if row.ndim != 1:
        raise UnusableVectorError(f"a query is one vector (d,), not of shape {row.shape}")
    return unit_rows(row)


def _ids(ids: npt.ArrayLike | None, *, rows: int) -> FaceIds:
    if ids is None:
        return np.arange(rows)
    given = np.asarray(ids)
    if given.shape != (rows,) or given.dtype.kind not in "iu":
        raise UsageError(f"ids are {rows:,} integers, one for each vector")
    faces: FaceIds = given.astype(np.int64)
    if (faces < 0).any() or len(np.unique(faces)) < rows:
        raise UsageError("ids are not below 0, and each is there once")
    return faces


def _table(attributes: Attributes | None, *, rows: int) -> pa.Table:
    """Attributes as a table whose columns have the types of fields."""
    if attributes is None:
        return pa.table({"_": pa.nulls(rows, pa.bool_())}).select([])
    table = attributes if isinstance(attributes, pa.Table) else pa.table(dict(attributes))
    if table.num_rows != rows:
        raise SchemaMismatchError(f"there are {rows:,} vectors and {table.num_rows:,} attributes")
    return table.cast(pa.schema([(name, _field(table, name)) for name in table.column_names]))


def _fitted(table: pa.Table, fields: Fields) -> pa.Table:
    """The table with columns of the fields' types: NULL is of every type, an integer a number."""
    for place, name in enumerate(table.column_names):
        column, kind = table.column(name), fields.get(name)
        wanted = None if kind is None else ARROW_TYPES[kind]
        empty = column.null_count == len(column)
        wider = (column.type, wanted) == (pa.int64(), pa.float64())
        if wanted is None or not (empty or wider or column.type == wanted):
            raise SchemaMismatchError(
                f"the attributes of this index are {', '.join(map(repr, fields)) or 'none'}, "
                "each of the type it was built with"
            )
        fitting = pa.nulls(len(column), wanted) if empty else column.cast(wanted)
        table = table.set_column(place, name, fitting)
    return table


def _field(table: pa.Table, name: str) -> pa.DataType:
    """The type of a field that holds what a column holds."""
    type_ = table.schema.field(name).type
    for is_one, field_type in _FIELD_TYPES:
        if is_one(type_):
            return field_type
    return type_


_FIELD_TYPES: Final = (
    (pa.types.is_integer, pa.int64()),
    (pa.types.is_floating, pa.float64()),
    (pa.types.is_large_string, pa.string()),
    (pa.types.is_dictionary, pa.string()),
    (pa.types.is_timestamp, pa.timestamp("us", "UTC")),
    (pa.types.is_list, pa.list_(pa.string())),
    (pa.types.is_large_list, pa.list_(pa.string())),
    (pa.types.is_null, pa.bool_()),
)
