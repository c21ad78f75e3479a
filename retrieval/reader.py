"""The reader: a collection's faces or persons in one space, searchable, as of the last `refresh`.

It opens the snapshot that was published last, or one before it, or reads the store where no
snapshot can be used, and follows the change log from there. Searching never waits for following:
a search takes the view that is there and keeps it.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from retrieval.errors import (
    CursorTooOldError,
    SnapshotUnusableError,
    TokenTimeoutError,
    UnknownNameError,
)
from retrieval.fields import Fields
from retrieval.index.snapshot import (
    Coding,
    Gallery,
    Snapshot,
    current_id,
    open_best,
    snapshots_folder,
)
from retrieval.index.view import View, advance, view_of_snapshot, view_of_store
from retrieval.monitor import RecallBucket, RecallMonitor
from retrieval.search import Answer, Question, search
from retrieval.store.changes import Changes, shows
from retrieval.store.holdings import Holding, label_of, published
from retrieval.values import Cursor, FaceIds, Token, UnitRows, unit_rows

READ_ROWS: Final = 10_000  # of one batch from the store
POLL_SECONDS: Final = 0.02  # while somebody waits for a write
OPEN_ATTEMPTS: Final = 3  # a builder may publish and prune while a snapshot is being opened


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatus:
    """What a reader holds."""

    snapshot: str | None  # its id; None: everything was read from the store
    rows: int  # faces that can be found
    snapshot_rows: int  # faces of the snapshot, those included that died since
    dead_rows: int  # of the snapshot, gone or with a new vector
    patched_rows: int  # of the snapshot, with new attributes
    delta_rows: int  # faces whose vectors came after the snapshot
    delta_seconds: float  # that this reader spent on scanning them
    build_seconds: float | None  # that building the snapshot took; None: unknown, or no snapshot
    cursor: Cursor
    problems: tuple[str, ...]  # why newer snapshots were not opened


class Reader:
    """A searchable view of what an index holds. Safe to share between threads."""

    def __init__(self, holding: Holding, *, home: Path) -> None:
        self._holding = holding
        self._folder = snapshots_folder(
            home, collection_id=holding.collection.id, space=label_of(holding)
        )
        self._system_identifier = holding.store.system_identifier()
        self._following = threading.Lock()
        self._monitor = RecallMonitor()
        self._delta_s = 0.0  # spent on what came after the snapshot, since it was opened
        self._problems: tuple[str, ...] = ()
        self._seen: str | None = None  # what `current` named when the view was opened
        self._view = self._opened()

    @classmethod
    def open(cls, holding: Holding, *, home: Path) -> "Reader":
        """Open the best snapshot there is and bring it up to the present.

        Raises:
            UnknownNameError: the collection was dropped.
        """
        return cls(holding, home=home)

    @property
    def holding(self) -> Holding:
        """What the index holds, and where it comes from."""
        return self._holding

    @property
    def view(self) -> View:
        """What a search that begins now would see."""
        return self._view

    @property
    def coding(self) -> Coding | None:
        """How the snapshot codes its rows; None without one, or of format 1."""
        return None if self._view.snapshot is None else self._view.snapshot.coding

    def search(self, question: Question) -> Answer:
        """Answer a question from the present view."""
        return self.search_in(self._view, question)

    def search_in(self, view: View, question: Question) -> Answer:
        """Answer a question from a view that this reader had: several questions, one moment."""
        answer = search(view, question)
        self._delta_s += 1e-3 * answer.timings.delta_ms
        self._monitor.offer(view, question, answer)
        return answer

    def recall_report(self) -> tuple[RecallBucket, ...]:
        """The recall of answers so far, measured on those that were asked again exactly."""
        return self._monitor.report()

    def refresh(self) -> None:
        """Take in what was committed, and a new snapshot if there is one."""
        with self._following:
            if current_id(self._folder) != self._seen:
                self._view = self._opened()
                return
            try:
                self._view = self._advanced(self._view)
            except CursorTooOldError:
                self._view = self._opened()

    def wait_for(self, token: Token, *, timeout_s: float) -> None:
        """Refresh until the view shows the write that gave the token.

        Raises:
            TokenTimeoutError: it did not within `timeout_s`.
        """
        deadline = time.perf_counter() + timeout_s
        while not shows(self._view.cursor, token):
            self.refresh()
            if shows(self._view.cursor, token):
                return
            if time.perf_counter() > deadline:
                raise TokenTimeoutError
            time.sleep(POLL_SECONDS)

    def vectors_of(self, faces: FaceIds) -> UnitRows:
        """The vectors of these faces, (n, d), or UnknownNameError for one that is not there."""
        vectors, found = self._view.vectors_of(faces)
        if not found.all():
            missing = ", ".join(map(str, faces[~found][:10]))
            raise UnknownNameError(
                f"no face {missing} with a vector of '{self._holding.space.name}' "
                f"in collection '{self._holding.collection.name}'"
            )
        return unit_rows(vectors)

    def status(self) -> IndexStatus:
        """What the reader holds now."""
        view = self._view
        faces = 0 if view.snapshot is None else view.snapshot.manifest.rows
        return IndexStatus(
            snapshot=None if view.snapshot is None else view.snapshot.manifest.id,
            rows=view.everything.total,
            snapshot_rows=faces,
            dead_rows=faces - int(np.count_nonzero(view.alive)),
            patched_rows=sum(len(patch) for patch in view.patches),
            delta_rows=sum(int(np.count_nonzero(one.alive)) for one in view.chunks),
            delta_seconds=self._delta_s,
            build_seconds=None if view.snapshot is None else view.snapshot.manifest.seconds,
            cursor=view.cursor,
            problems=self._problems,
        )

    def _opened(self) -> View:
        """The view of the best snapshot, or of the store."""
        self._delta_s = 0.0
        for _ in range(OPEN_ATTEMPTS):
            self._seen = current_id(self._folder)
            snapshot, problems = open_best(self._folder, self._gallery())
            self._problems = tuple(problems)
            if snapshot is None:
                break
            try:
                return self._followed(snapshot)
            except (CursorTooOldError, SnapshotUnusableError) as problem:
                self._problems = (*problems, str(problem))
        return self._read()

    def _followed(self, snapshot: Snapshot) -> View:
        return self._advanced(view_of_snapshot(snapshot, fields=self._holding.fields()))

    def _advanced(self, view: View) -> View:
        changes, fields = self._changes(view.cursor, view.fields)
        return advance(view, changes, fields=fields)

    def _changes(self, cursor: Cursor, fields: Fields) -> tuple[Changes, Fields]:
        """What came since the cursor, with every field that may have values then."""
        while True:
            changes = self._holding.since(cursor, fields)
            # Asked for afterwards: an attribute declared in between may have values already.
            declared = self._holding.fields()
            if declared == fields:
                return changes, fields
            fields = declared

    def _read(self) -> View:
        """The view of the store itself."""
        dimension = self._holding.space.dimension
        fields = self._holding.fields()
        while True:
            with self._holding.everything(fields, batch_rows=READ_ROWS) as everything:
                view = view_of_store(everything, dimension=dimension, fields=fields)
            declared = self._holding.fields()
            if declared == fields:
                return view
            fields = declared

    def _gallery(self) -> Gallery:
        return Gallery(
            system_identifier=self._system_identifier,
            collection_id=self._holding.collection.id,
            space=label_of(self._holding),
            dimension=self._holding.space.dimension,
            published=published(self._holding),
        )
