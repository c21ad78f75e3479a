"""Comparing store and index at one cursor, both ways.

The index is brought to the very moment of the read: change log and faces come out of one
REPEATABLE READ transaction, so every difference is a fault and none is a write in between.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.fields import Fields
from retrieval.index.exact import Mask, Numbers, places_in
from retrieval.index.snapshot import current_id, snapshots_folder, verify
from retrieval.index.view import Part, View, advance
from retrieval.reader import Reader
from retrieval.store.database import Store
from retrieval.store.holdings import Holding, label_of
from retrieval.store.vectors import half_rows
from retrieval.values import FaceId

BATCH_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A face of which store and index do not say the same."""

    face: FaceId
    kind: str  # missing: not in the index; ghost: not in the store; stale: differs
    fields: tuple[str, ...]  # what differs, "vector" included; only of a stale face


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What the comparison found."""

    store: int  # faces
    index: int
    differences: tuple[Difference, ...]  # by face

    @property
    def missing(self) -> int:
        """Faces of the store that the index lacks."""
        return sum(one.kind == "missing" for one in self.differences)

    @property
    def ghosts(self) -> int:
        """Faces of the index that the store lacks."""
        return sum(one.kind == "ghost" for one in self.differences)

    @property
    def stale(self) -> int:
        """Faces that both have, with other contents."""
        return sum(one.kind == "stale" for one in self.differences)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """Whether the current snapshot is as it was written."""

    snapshot: str | None  # its id; None: nothing was built yet
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _OneMoment(Store):
    """A store whose every Arrow read happens in one transaction."""

    connection: Any

    @contextmanager
    def arrow(self) -> Iterator[Any]:
        """The one connection, which stays open."""
        yield self.connection


def verify_current(holding: Holding, *, home: Path) -> VerifyReport:
    """Hash every file of the snapshot that was published last."""
    folder = snapshots_folder(home, collection_id=holding.collection.id, space=label_of(holding))
    last = current_id(folder)
    problems = () if last is None else tuple(verify(folder / last))
    return VerifyReport(snapshot=last, problems=problems)


def check(index: Reader) -> CheckReport:
    """Compare every row of the store with the index, field by field and bit by bit.

    To repair what is found, build the index anew.
    """
    index.refresh()
    fields = index.holding.fields()
    while True:
        report = _compared(index.holding, index.view, fields)
        declared = index.holding.fields()
        if declared == fields:
            return report
        fields = declared


def _compared(holding: Holding, view: View, fields: Fields) -> CheckReport:
    own = {one.name: getattr(holding.store, one.name) for one in dataclasses.fields(Store)}
    with holding.store.arrow() as connection:
        moment = holding.at(_OneMoment(**own, connection=connection))
        changes = moment.since(view.cursor, fields)
        index = _Indexed(advance(view, changes, fields=fields))
        with moment.everything(fields, batch_rows=BATCH_ROWS) as everything:
            for batch in everything.batches:
                index.compare(pa.Table.from_batches([batch]))
            return index.report(store_faces=everything.rows)


class _Indexed:
    """The faces of a view, to be met by those of the store."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._parts = list(view.parts())
        ids = [part.ids for part in self._parts]
        lengths = [len(one) for one in ids]
        joined = np.concatenate([np.empty(0, np.int64), *ids])
        order = np.argsort(joined, kind="stable")
        self._ids = joined[order]
        self._part_of = np.repeat(np.arange(len(ids)), lengths)[order]
        counted = [np.arange(length) for length in lengths]
        self._place_in_part = np.concatenate([np.empty(0, np.int64), *counted])[order]
        self._met = np.zeros(len(joined), np.bool_)
        self._differences: list[Difference] = []

    def compare(self, table: pa.Table) -> None:
        """Meet some faces of the store."""
        faces = table.column(0).to_numpy()
        found = places_in(self._ids, faces)
        self._met[found[found >= 0]] = True
        self._add("missing", faces[found < 0])
        for number, part in enumerate(self._parts):
            mine = np.flatnonzero((found >= 0) & (self._part_of[found] == number))
            if len(mine):
                places = self._place_in_part[found[mine]]
                self._compare_part(part, places, table.take(pa.array(mine)))

    def report(self, *, store_faces: int) -> CheckReport:
        """What was found, after all faces of the store were met."""
        # A face twice in the index is met once: the other one is a ghost, too.
        self._add("ghost", self._ids[~self._met])
        return CheckReport(
            store=store_faces,
            index=len(self._ids),
            differences=tuple(sorted(self._differences, key=lambda one: one.face)),
        )

    def _compare_part(self, part: Part, places: Numbers, table: pa.Table) -> None:
        """Compare faces of one part, (n,), with their rows of the store."""
        faces = table.column(0).to_numpy()
        stored = half_rows(table.column("vector"), dimension=self._view.dimension)
        held = part.rows.vectors[part.places[places]]
        wrong: dict[str, Mask] = {
            "vector": (stored.view(np.uint16) != held.view(np.uint16)).any(axis=1)
        }
        for name in self._view.fields:
            values = part.columns.arrow(name, part.numbers[places])
            wrong[name] = _differing(table.column(name).combine_chunks(), values)
        for row in np.flatnonzero(np.any(list(wrong.values()), axis=0)):
            names = tuple(name for name, mask in wrong.items() if mask[row])
            self._add("stale", faces[row : row + 1], fields=names)

    def _add(self, kind: str, faces: npt.NDArray[np.int64], fields: tuple[str, ...] = ()) -> None:
        self._differences += [
            Difference(face=FaceId(face), kind=kind, fields=fields) for face in faces.tolist()
        ]


def _differing(stored: pa.Array, held: pa.Array) -> Mask:
    """Where two arrays differ, (n,); NULL equals NULL."""
    if pa.types.is_list(stored.type):
        pairs = zip(stored.to_pylist(), held.to_pylist(), strict=True)
        return np.array([one != other for one, other in pairs], np.bool_)
    both_null = pc.and_(pc.is_null(stored), pc.is_null(held))
    same = pc.or_(both_null, pc.fill_null(pc.equal(stored, held), fill_value=False))
    differing: Mask = pc.invert(same).to_numpy(zero_copy_only=False)
    return differing
