"""What one search sees: a snapshot, and all that changed since, at one cursor of the store.

A view is a value. `advance` makes the next one from the faces that changed, and a reader puts it
in the place of the last by one assignment: a search that has begun goes on in the view it took.

* A new or changed vector goes into a chunk; the row it had before dies in the same view.
* A changed attribute or person of a face in the snapshot only patches the columns: the filter is
  evaluated on the snapshot's columns, then the bits of patched rows are set anew.
* Applying the same changes twice gives the same answers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import CursorTooOldError, SnapshotUnusableError, UsageError
from retrieval.fields import Fields
from retrieval.filters.column import Column, ScalarColumn
from retrieval.filters.columns import Columns
from retrieval.filters.evaluate import evaluate
from retrieval.filters.rows import RowSet
from retrieval.filters.tree import Filter
from retrieval.index.delta import (
    Chunk,
    Patch,
    chunk,
    completed,
    patch,
    with_chunk,
    with_patch,
)
from retrieval.index.exact import PADDING, Mask, Numbers, Rows, places_in
from retrieval.index.snapshot import Snapshot
from retrieval.store.changes import Changes, Everything
from retrieval.store.vectors import half_rows
from retrieval.values import Cursor, FaceIds, FieldType, HalfRows, Value

CHUNK_ROWS: Final = 2**16  # the store is read in pieces of this size where there is no snapshot


class Survivors(NamedTuple):
    """The rows that pass a filter."""

    snapshot: RowSet  # of the padded rows; of none without a snapshot
    chunks: tuple[RowSet, ...]
    total: int

    @classmethod
    def of(cls, snapshot: RowSet, chunks: tuple[RowSet, ...]) -> "Survivors":
        """Those of the snapshot and of each chunk."""
        total = snapshot.count
        for rows in chunks:
            total += rows.count
        return cls(snapshot, chunks, total)


@dataclass(frozen=True, slots=True)
class Part:
    """Some faces with all that the index holds of them."""

    rows: Rows
    places: Numbers  # (n,) where they are in `rows`
    columns: Columns
    numbers: Numbers  # (n,) where they are in `columns`

    @property
    def ids(self) -> FaceIds:
        """The faces, (n,)."""
        return self.rows.ids[self.places]


@dataclass(frozen=True)
class View:
    """The faces of one collection in one space, as the store had them at `cursor`."""

    dimension: int
    fields: Fields
    cursor: Cursor
    snapshot: Snapshot | None
    columns: Columns | None  # the snapshot's, completed by the fields declared since
    alive: Mask  # (padded rows,) of the snapshot
    patches: tuple[Patch, ...]  # a later one wins
    chunks: tuple[Chunk, ...]

    @cached_property
    def everything(self) -> Survivors:
        """All rows that can be found."""
        usable = self.snapshot.rows.usable if self.snapshot else self.alive
        return Survivors.of(
            RowSet.of_mask(self.alive & usable), tuple(one.findable for one in self.chunks)
        )

    def survivors(self, filter_: Filter | None) -> Survivors:
        """The rows that can be found and pass the filter."""
        if filter_ is None:
            return self.everything
        snapshot = self._snapshot_survivors(filter_)
        if not self.chunks:
            return Survivors(snapshot, (), snapshot.count)
        return Survivors.of(
            snapshot,
            tuple(
                evaluate(filter_, one.columns).intersection(one.findable.bitmap())
                for one in self.chunks
            ),
        )

    def segments(self, survivors: Survivors) -> Iterator[tuple[Rows, RowSet]]:
        """Everything that holds vectors, with its survivors."""
        if self.snapshot is not None:
            yield self.snapshot.rows, survivors.snapshot
        for one, rows in zip(self.chunks, survivors.chunks, strict=True):
            yield one.rows, rows

    def vectors_of(self, faces: FaceIds) -> tuple[HalfRows, Mask]:
        """The stored vector of each face, (n, d), and which faces there are, (n,)."""
        vectors = np.zeros((len(faces), self.dimension), "<f2")
        found = np.zeros(len(faces), np.bool_)
        for rows, alive, places in self._places(faces):
            here = np.flatnonzero(places >= 0)
            here = here[alive[places[here]]]
            vectors[here] = rows.vectors[places[here]]
            found[here] = True
        return vectors, found

    def groups_of(self, faces: FaceIds, field: str) -> Numbers:
        """A number for each face's value of a field, (n,), equal where values are; -1 without one.

        Numbers mean nothing beyond one call.

        Raises:
            UsageError: there is no such field, or it holds several values a face.
        """
        groups, known = np.full(len(faces), -1), dict[Value, int]()
        if field not in self.fields or self.fields[field] is FieldType.TAGS:
            raise UsageError(f"faces are grouped by '{field}', which is no field of this index")
        for places, columns in self._columns_of(faces):
            here = np.flatnonzero(places >= 0)
            groups[here] = _grouped(columns.by_name[field], places[here], known)
        return groups

    def parts(self) -> Iterator[Part]:
        """All faces, each in one part, with what holds of them now."""
        if self.snapshot is not None and self.columns is not None:
            rows, left = self.snapshot.rows, self.alive.copy()
            for one in reversed(self.patches):
                mine = np.flatnonzero(left[one.numbers])
                yield Part(rows, one.numbers[mine], one.columns, mine)
                left[one.numbers] = False
            places = np.flatnonzero(left)
            yield Part(rows, places, self.columns, places)
        for piece in self.chunks:
            places = np.flatnonzero(piece.alive)
            yield Part(piece.rows, places, piece.columns, places)

    def _columns_of(self, faces: FaceIds) -> Iterator[tuple[Numbers, Columns]]:
        """Where the faces are in columns, -1 where not; what comes later holds."""
        if self.snapshot is not None and self.columns is not None:
            places = self.snapshot.places(faces)
            yield places, self.columns
            for one in self.patches:
                yield places_in(one.numbers, places), one.columns
        for piece in self.chunks:
            places = places_in(piece.rows.ids, faces)
            yield np.where((places >= 0) & piece.alive[places], places, -1), piece.columns

    def _snapshot_survivors(self, filter_: Filter) -> RowSet:
        if self.columns is None:
            return self.everything.snapshot
        rows = evaluate(filter_, self.columns)
        for one in self.patches:
            passing = evaluate(filter_, one.columns).row_numbers()
            rows = rows.replaced(one.numbers, one.numbers[passing])
        return rows.intersection(self.everything.snapshot.bitmap())

    def _places(self, faces: FaceIds) -> Iterator[tuple[Rows, Mask, Numbers]]:
        """Where the faces are in each segment, -1 where not; dead rows included."""
        if self.snapshot is not None:
            yield self.snapshot.rows, self.alive, self.snapshot.places(faces)
        for one in self.chunks:
            yield one.rows, one.alive, places_in(one.rows.ids, faces)


def view_of_snapshot(snapshot: Snapshot, *, fields: Fields) -> View:
    """The view at a snapshot's watermark.

    Raises:
        SnapshotUnusableError: a field changed its type since.
    """
    held = snapshot.columns.fields
    changed = [name for name in held if fields.get(name, held[name]) is not held[name]]
    if changed:
        raise SnapshotUnusableError(
            f"{', '.join(changed)} changed their type since snapshot {snapshot.folder} was built. "
            "Run `facedex index build`"
        )
    return View(
        dimension=snapshot.manifest.dimension,
        fields=fields,
        cursor=snapshot.manifest.watermark,
        snapshot=snapshot,
        columns=completed(snapshot.columns, fields),
        alive=snapshot.rows.ids != PADDING,
        patches=(),
        chunks=(),
    )


def view_of_store(everything: Everything, *, dimension: int, fields: Fields) -> View:
    """The view before the first build: everything is in chunks."""
    view = View(
        dimension=dimension,
        fields=fields,
        cursor=everything.cursor,
        snapshot=None,
        columns=None,
        alive=np.zeros(0, np.bool_),
        patches=(),
        chunks=(),
    )
    for table in _tables(everything.batches):
        new = _chunk_of(table, dimension=dimension, fields=fields)
        view = replace(view, chunks=with_chunk(view.chunks, new, fields=fields))
    return view


def advance(view: View, changes: Changes, *, fields: Fields) -> View:
    """The view after these changes.

    Args:
        view: at the cursor that the changes were asked for.
        changes: as the store gave them.
        fields: what the collection has now; `changes.rows` holds all of them.

    Raises:
        CursorTooOldError: a face's attributes came that the view has no vector of.
    """
    view = _with_fields(view, fields)
    rows: pa.Table = changes.rows
    new_vector = pc.is_valid(rows.column("vector"))
    moved, patched = rows.filter(new_vector), rows.filter(pc.invert(new_vector))
    # Faces of the delta keep their vector and get new attributes, which moves them on.
    faces, vectors, known = _delta_vectors(view, _faces(patched))
    kept, patched = patched.filter(pa.array(known)), patched.filter(pa.array(~known))
    numbers = _snapshot_rows(view, _faces(patched))
    view = _without(view, np.setdiff1d(changes.changed, _faces(patched)))
    if len(faces) or moved.num_rows:
        new = chunk(
            np.concatenate([faces, _faces(moved)]),
            np.concatenate([vectors, half_rows(moved.column("vector"), dimension=view.dimension)]),
            pa.concat_tables([kept, moved]),
            fields=fields,
        )
        view = replace(view, chunks=with_chunk(view.chunks, new, fields=fields))
    if len(numbers):
        newer = patch(numbers, patched, fields=fields)
        view = replace(view, patches=with_patch(view.patches, newer, fields=fields))
    return replace(view, cursor=changes.cursor)


def _with_fields(view: View, fields: Fields) -> View:
    if view.fields == fields:
        return view
    return replace(
        view,
        fields=fields,
        columns=view.columns and completed(view.columns, fields),
        patches=tuple(replace(p, columns=completed(p.columns, fields)) for p in view.patches),
        chunks=tuple(replace(c, columns=completed(c.columns, fields)) for c in view.chunks),
    )


def _without(view: View, faces: FaceIds) -> View:
    """The view in which these faces are gone from wherever they were."""
    alive = view.alive
    if view.snapshot is not None:
        alive = _killed(alive, view.snapshot.places(faces))
    chunks = tuple(
        replace(one, alive=_killed(one.alive, places_in(one.rows.ids, faces)))
        for one in view.chunks
    )
    return replace(view, alive=alive, chunks=chunks)


def _killed(alive: Mask, places: Numbers) -> Mask:
    """A copy without these rows, or the same array where they are dead already."""
    places = places[places >= 0]
    if not alive[places].any():
        return alive
    alive = alive.copy()
    alive[places] = False
    return alive


def _delta_vectors(view: View, faces: FaceIds) -> tuple[FaceIds, HalfRows, Mask]:
    """Which of the faces are in chunks, their vectors, and a mask of them over `faces`."""
    vectors = np.zeros((len(faces), view.dimension), "<f2")
    known = np.zeros(len(faces), np.bool_)
    for one in view.chunks:
        places = places_in(one.rows.ids, faces)
        here = np.flatnonzero(places >= 0)
        here = here[one.alive[places[here]]]
        vectors[here] = one.rows.vectors[places[here]]
        known[here] = True
    return faces[known], vectors[known], known


def _snapshot_rows(view: View, faces: FaceIds) -> Numbers:
    places = np.full(len(faces), -1) if view.snapshot is None else view.snapshot.places(faces)
    if (places < 0).any() or not view.alive[places].all():
        raise CursorTooOldError(
            "the index has no vector of a face whose attributes changed. Open the index anew"
        )
    return places


def _chunk_of(table: pa.Table, *, dimension: int, fields: Fields) -> Chunk:
    vectors = half_rows(table.column("vector"), dimension=dimension)
    return chunk(_faces(table), vectors, table, fields=fields)


def _faces(table: pa.Table) -> FaceIds:
    faces: FaceIds = table.column(0).to_numpy()  # the row's id, whatever a row is
    return faces


def _tables(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches joined into tables of some CHUNK_ROWS rows."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= CHUNK_ROWS:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if any(one.num_rows for one in waiting):
        yield pa.Table.from_batches(waiting)


def _grouped(column: Column, rows: Numbers, known: dict[Value, int]) -> Numbers:
    """The number of each row's value, which `known` tells, or is told; -1 for none."""
    if not isinstance(column, ScalarColumn):
        raise TypeError("a field of one value is no such column")
    codes, firsts, places = np.unique(column.codes[rows], return_index=True, return_inverse=True)
    numbers = [
        known.setdefault(column.get(row), len(known)) if code else -1
        for code, row in zip(codes.tolist(), rows[firsts].tolist(), strict=True)
    ]
    return np.array(numbers, np.int64)[places]
