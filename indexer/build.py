"""Building an index snapshot from the store.

One builder at a time, by an advisory lock. Everything is read in one consistent read and streamed
to the disk, so memory holds row numbers, one column at a time and the training sample, never all
vectors. What was written is searched and compared with exact search before anybody sees it; then
it is published (indexer/publish.py). A builder may be killed at any moment.
"""

import errno
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from indexer import selfcheck
from indexer.publish import clear_staging, publish
from indexer.spool import Spool, drop, spooled
from retrieval.errors import BuildFailedError
from retrieval.index.making import Faces, make, worth_keeping
from retrieval.index.snapshot import (
    COLUMNS,
    STAGING,
    Coding,
    Manifest,
    SelfCheck,
    mapped_snapshot,
    snapshots_folder,
)
from retrieval.index.view import view_of_snapshot
from retrieval.reader import IndexStatus
from retrieval.store.holdings import Holding, label_of
from retrieval.store.snapshots import sole_builder
from retrieval.values import UnitRows

REBUILD_SHARE: Final = 0.1  # of the snapshot, changed since: searches get slower by about as much
REBUILD_ROWS_MIN: Final = 2_000  # below it a build costs more than it saves
FILTERED_SHARE: Final = 0.1  # of the faces pass the filter of the self-check


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What was built and published."""

    snapshot: str  # its id
    folder: Path
    rows: int
    lists: int
    self_check: SelfCheck
    seconds: float


def should_build(status: IndexStatus) -> bool:
    """Whether so much changed since the snapshot that building anew pays."""
    changed = status.delta_rows + status.patched_rows + status.dead_rows
    if changed < REBUILD_ROWS_MIN:
        return False
    paid = status.build_seconds is not None and status.delta_seconds > status.build_seconds
    return paid or changed > REBUILD_SHARE * status.snapshot_rows


def _none() -> UnitRows | None:
    """Questions are like rows."""
    return None


def build(
    holding: Holding,
    *,
    home: Path,
    like: Coding | None = None,
    asked: Callable[[], UnitRows | None] = _none,
) -> BuildReport:
    """Build and publish a snapshot of everything that is committed now.

    Args:
        holding: what is read: faces or persons of a collection in a space.
        home: below it the snapshot is published.
        like: coding of the snapshot before, to take centroids and rule over where they still
            suit the number of rows; None: all are trained and measured anew.
        asked: gives vectors like questions where these are unlike rows; called where the rule is
            measured by lists.

    Raises:
        StoreConflictError: another process is building this collection's index.
        BuildFailedError: the disk is full, or the self-check found a wrong answer.
    """
    began = time.perf_counter()
    folder = snapshots_folder(home, collection_id=holding.collection.id, space=label_of(holding))
    with ExitStack() as stack:
        lock = stack.enter_context(sole_builder(holding.store, collection=holding.collection))
        stack.enter_context(_translating_disk_errors(folder))
        staging = stack.enter_context(_staging(folder))
        spool = spooled(holding, staging)
        manifest = _written(spool, staging, holding=holding, like=like, asked=asked)
        manifest = replace(manifest, self_check=_checked(staging, manifest, spool.faces))
        drop(staging)
        lock.require()
        publish(holding, staging, manifest, folder=folder)
    return BuildReport(
        snapshot=manifest.id,
        folder=folder / manifest.id,
        rows=manifest.rows,
        lists=manifest.lists,
        self_check=manifest.self_check,
        seconds=time.perf_counter() - began,
    )


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder to build in, gone at the end unless it was renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    clear_staging(folder)
    staging = folder / f"{STAGING}{secrets.token_hex(8)}"
    (staging / COLUMNS).mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _translating_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BuildFailedError(
                f"the disk of {folder} is full. Free space on it and run `facedex index build`"
            ) from cause
        raise BuildFailedError(f"the index could not be written: {cause}") from cause


def _written(
    spool: Spool,
    staging: Path,
    *,
    holding: Holding,
    like: Coding | None,
    asked: Callable[[], UnitRows | None],
) -> Manifest:
    """Write every file but the manifest."""
    began = time.perf_counter()
    suits = like is not None and worth_keeping(like, rows=len(spool.faces.ids))
    made = make(staging, spool.faces, like=like if suits else None, asked=asked)
    return Manifest(
        id=secrets.token_hex(16),
        system_identifier=holding.store.system_identifier(),
        collection_id=holding.collection.id,
        space=label_of(holding),
        dimension=holding.space.dimension,
        rows=len(spool.faces.ids),
        padded_rows=made.padded_rows,
        lists=made.lists,
        watermark=spool.cursor,
        fields=dict(spool.faces.fields),
        self_check=selfcheck.unchecked(),
        measured=made.measured,
        seconds=time.perf_counter() - began,
        files=made.files,
    )


def _checked(staging: Path, manifest: Manifest, faces: Faces) -> SelfCheck:
    """Search the new snapshot as readers will, and compare."""
    if manifest.rows == 0:
        return manifest.self_check
    view = view_of_snapshot(mapped_snapshot(staging, manifest), fields=faces.fields)
    ids, queries = selfcheck.sample(faces)
    highest = int(np.quantile(faces.ids, FILTERED_SHARE))
    recall, filtered_recall = selfcheck.checked(view, ids, queries, highest=highest)
    return SelfCheck(queries=len(ids), recall=recall, filtered_recall=filtered_recall)
