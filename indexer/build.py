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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from indexer import selfcheck
from indexer.publish import clear_staging, publish
from indexer.spool import Spool, drop, spooled
from retrieval.errors import BuildFailedError
from retrieval.filters.column import Column
from retrieval.filters.columns import Columns
from retrieval.index.exact import BLOCK_ROWS, PADDING, Numbers, scales_of
from retrieval.index.ivf import (
    SAMPLE_PER_LIST,
    SEED,
    Lists,
    assigned,
    list_count,
    trained_centroids,
)
from retrieval.index.snapshot import (
    COLUMNS,
    STAGING,
    Manifest,
    SelfCheck,
    mapped_snapshot,
    snapshots_folder,
    stamped,
    write_array,
)
from retrieval.index.view import view_of_snapshot
from retrieval.reader import IndexStatus
from retrieval.store.database import Store
from retrieval.store.snapshots import sole_builder
from retrieval.values import Collection, Floats, HalfRows, Space

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
    return changed >= REBUILD_ROWS_MIN and changed > REBUILD_SHARE * status.snapshot_rows


def build(store: Store, *, home: Path, collection: Collection, space: Space) -> BuildReport:
    """Build and publish a snapshot of everything that is committed now.

    Raises:
        StoreConflictError: another process is building this collection's index.
        BuildFailedError: the disk is full, or the self-check found a wrong answer.
    """
    began = time.perf_counter()
    folder = snapshots_folder(home, collection_id=collection.id, space=space.name)
    with ExitStack() as stack:
        lock = stack.enter_context(sole_builder(store, collection=collection))
        stack.enter_context(_translating_disk_errors(folder))
        staging = stack.enter_context(_staging(folder))
        spool = spooled(store, staging, collection=collection, space=space)
        manifest = _written(
            spool,
            staging,
            system_identifier=store.system_identifier(),
            collection=collection,
            space=space,
        )
        manifest = replace(manifest, self_check=_checked(staging, manifest, spool))
        drop(staging)
        lock.require()
        publish(store, staging, manifest, folder=folder, collection=collection, space=space)
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
    spool: Spool, staging: Path, *, system_identifier: str, collection: Collection, space: Space
) -> Manifest:
    """Write every file but the manifest."""
    lists, sources = _arranged(spool)
    ids = np.where(sources >= 0, spool.ids[sources], PADDING) if len(spool.ids) else sources
    filled = np.flatnonzero(sources >= 0)
    write_array(staging / "ids.npy", ids)
    write_array(staging / "order.npy", filled[np.argsort(ids[filled])])
    write_array(staging / "centroids.npy", lists.centroids)
    write_array(staging / "sizes.npy", lists.sizes)
    write_array(staging / "scales.npy", _write_vectors(staging / "vectors.npy", spool, sources))
    written = [*staging.glob("*.npy"), *_columns(spool, sources).save(staging / COLUMNS)]
    return Manifest(
        id=secrets.token_hex(16),
        system_identifier=system_identifier,
        collection_id=collection.id,
        space=space.name,
        dimension=space.dimension,
        rows=len(spool.ids),
        padded_rows=len(sources),
        lists=len(lists.sizes),
        watermark=spool.cursor,
        fields=dict(spool.fields),
        self_check=selfcheck.unchecked(),
        files=stamped(staging, written),
    )


def _arranged(spool: Spool) -> tuple[Lists, Numbers]:
    """The lists, and for each row of the snapshot its row of the spool, -1 for padding."""
    rows, count = len(spool.ids), list_count(len(spool.ids))
    centroids = np.zeros((count, spool.vectors.shape[1]), np.float32)
    numbers = np.zeros(rows, np.int32)
    if count > 1:
        centroids = trained_centroids(_training_sample(spool.vectors, count), lists=count)
        numbers = assigned(spool.vectors, centroids)
    lists = Lists(centroids, np.bincount(numbers, minlength=count))
    order = np.lexsort((spool.ids, numbers))
    begins = np.cumsum(lists.sizes) - lists.sizes
    shift = (lists.offsets[:-1] - begins)[numbers[order]]
    sources = np.full(lists.offsets[-1], -1)
    sources[np.arange(rows) + shift] = order
    return lists, sources


def _training_sample(vectors: HalfRows, lists: int) -> Floats:
    chosen = np.random.default_rng(SEED).choice(
        len(vectors), min(len(vectors), lists * SAMPLE_PER_LIST), replace=False
    )
    sample = vectors[np.sort(chosen)]
    scales = scales_of(sample)
    usable = scales > 0
    return sample[usable].astype(np.float32) * scales[usable, None]


def _write_vectors(path: Path, spool: Spool, sources: Numbers) -> Floats:
    """Write the vectors in the snapshot's order and give their scales."""
    dimension = spool.vectors.shape[1]
    scales = np.zeros(len(sources), np.float32)
    header = {"descr": "<f2", "fortran_order": False, "shape": (len(sources), dimension)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for begin in range(0, len(sources), BLOCK_ROWS):
            places = sources[begin : begin + BLOCK_ROWS]
            block = spool.vectors[places]
            block[places < 0] = 0
            scales[begin : begin + BLOCK_ROWS] = scales_of(block)
            file.write(block.tobytes())
    return scales


def _columns(spool: Spool, sources: Numbers) -> Columns:
    """The fields in the snapshot's order, NULL in padding; one at a time, or they fill memory."""
    places = pa.array(sources, mask=sources < 0)
    columns: dict[str, Column] = {}
    for name, kind in spool.fields.items():
        taken = spool.table.select([name]).take(places)
        columns.update(Columns.from_arrow(taken, {name: kind}).by_name)
    return Columns(rows=len(sources), fields=spool.fields, by_name=columns)


def _checked(staging: Path, manifest: Manifest, spool: Spool) -> SelfCheck:
    """Search the new snapshot as readers will, and compare."""
    if manifest.rows == 0:
        return manifest.self_check
    snapshot = mapped_snapshot(staging, manifest)
    faces, queries = selfcheck.sample(spool)
    ladder = selfcheck.ladder(snapshot, faces, queries)
    laddered = replace(manifest, self_check=replace(manifest.self_check, ladder=ladder))
    view = view_of_snapshot(replace(snapshot, manifest=laddered), fields=spool.fields)
    highest = int(np.quantile(spool.ids, FILTERED_SHARE))
    recall, filtered_recall = selfcheck.checked(view, faces, queries, highest=highest)
    return SelfCheck(
        queries=len(faces), recall=recall, filtered_recall=filtered_recall, ladder=ladder
    )
