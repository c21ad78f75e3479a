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
    MANIFEST,
    STAGING,
    Manifest,
    current_id,
    remove_unless_held,
    sync,
    write_manifest,
)
from retrieval.store.changes import prune
from retrieval.store.holdings import Holding, published
from retrieval.store.snapshots import PublishedSnapshot, forget_snapshots, record_snapshot

STAGED_LINK: Final = f"{STAGING}{CURRENT}"


def publish(holding: Holding, staging: Path, manifest: Manifest, *, folder: Path) -> None:
    """Name a finished snapshot, tell the store, and point `current` to it."""
    write_manifest(staging, manifest)
    for inner in (*(path for path in staging.rglob("*") if path.is_dir()), staging):
        sync(inner)
    before = current_id(folder)
    staging.rename(folder / manifest.id)
    sync(folder)
    sync(folder.parent)
    made = PublishedSnapshot(id=manifest.id, watermark=manifest.watermark, rows=manifest.rows)
    with holding.store.writing() as connection:
        record_snapshot(
            connection,
            made,
            collection=holding.collection,
            space=holding.space,
            kind=holding.kind,
        )
    point_current(folder, manifest.id)
    remove_old(holding, folder, kept={manifest.id, before})
    prune(holding.store, collection=holding.collection)


def point_current(folder: Path, snapshot: str) -> None:
    """Replace the link in one step: a reader sees the old target or the new one."""
    staged = folder / STAGED_LINK
    staged.unlink(missing_ok=True)
    staged.symlink_to(snapshot)
    staged.replace(folder / CURRENT)
    sync(folder)


def remove_old(holding: Holding, folder: Path, *, kept: set[str | None]) -> None:
    """Remove every snapshot but the kept ones and those that a reader holds."""
    removed = [
        path.name
        for path in folder.iterdir()
        if path.is_dir() and not path.is_symlink() and path.name not in kept
        if remove_unless_held(path)
    ]
    absent = [one.id for one in published(holding) if not (folder / one.id).is_dir()]
    with holding.store.writing() as connection:
        forget_snapshots(connection, [*removed, *absent])


def remove_all_others(holding: Holding, folder: Path) -> None:
    """Remove every snapshot but the current one, those too that a reader holds.

    What a reader has mapped stays readable to it until it lets go; nobody else finds it any more.
    """
    kept = current_id(folder)
    for path in folder.iterdir():
        # A builder at work began after the current snapshot was published, and clears up itself.
        of_builder = path.name.startswith(STAGING)
        if path.is_dir() and not path.is_symlink() and path.name != kept and not of_builder:
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path)
    others = [one.id for one in published(holding) if one.id != kept]
    with holding.store.writing() as connection:
        forget_snapshots(connection, others)
    prune(holding.store, collection=holding.collection)


def clear_staging(folder: Path) -> None:
    """Remove what killed builders left behind. Only the holder of the lock may do this."""
    for left in folder.glob(f"{STAGING}*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()
