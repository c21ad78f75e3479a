"""Making a snapshot the one that readers open, and removing those that nobody needs.

The order of steps: files and folders are on the disk, the folder gets its name, the store learns
of it, the link `current` is replaced, older ones go. A crash between any two leaves the snapshot
before in use; what lies about then has no row in the store or is not `current`, and the next
build removes it.
"""

import shutil
from pathlib import Path
from typing import Final

from retrieval.index.snapshot import (
    CURRENT,
    STAGING,
    Manifest,
    current_id,
    remove_unless_held,
    sync,
    write_manifest,
)
from retrieval.store.changes import prune
from retrieval.store.database import Store
from retrieval.store.snapshots import (
    PublishedSnapshot,
    forget_snapshots,
    published_snapshots,
    record_snapshot,
)
from retrieval.values import Collection, Space

STAGED_LINK: Final = f"{STAGING}{CURRENT}"


def publish(
    store: Store,
    staging: Path,
    manifest: Manifest,
    *,
    folder: Path,
    collection: Collection,
    space: Space,
) -> None:
    """Name a finished snapshot, tell the store, and point `current` to it."""
    write_manifest(staging, manifest)
    for inner in (*(path for path in staging.rglob("*") if path.is_dir()), staging):
        sync(inner)
    before = current_id(folder)
    staging.rename(folder / manifest.id)
    sync(folder)
    sync(folder.parent)
    published = PublishedSnapshot(id=manifest.id, watermark=manifest.watermark, rows=manifest.rows)
    with store.writing() as connection:
        record_snapshot(connection, published, collection=collection, space=space)
    point_current(folder, manifest.id)
    remove_old(store, folder, {manifest.id, before}, collection=collection, space=space)
    prune(store, collection=collection)


def point_current(folder: Path, snapshot: str) -> None:
    """Replace the link in one step: a reader sees the old target or the new one."""
    staged = folder / STAGED_LINK
    staged.unlink(missing_ok=True)
    staged.symlink_to(snapshot)
    staged.replace(folder / CURRENT)
    sync(folder)


def remove_old(
    store: Store, folder: Path, kept: set[str | None], *, collection: Collection, space: Space
) -> None:
    """Remove every snapshot but the kept ones and those that a reader holds."""
    removed = [
        path.name
        for path in folder.iterdir()
        if path.is_dir() and not path.is_symlink() and path.name not in kept
        if remove_unless_held(path)
    ]
    with store.writing() as connection:
        known = published_snapshots(connection, collection_id=collection.id, space_id=space.id)
        absent = [one.id for one in known if not (folder / one.id).is_dir()]
        forget_snapshots(connection, [*removed, *absent])


def clear_staging(folder: Path) -> None:
    """Remove what killed builders left behind. Only the holder of the lock may do this."""
    for left in folder.glob(f"{STAGING}*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()
