"""The snapshot on disk: an immutable folder that is whole, of this database, or refused.

    <home>/snapshots/<collection id>/<space name>/<id>/
      manifest.json   what this is, what was measured, and the length and sha256 of every other file
      ids.npy         int64 face ids, ordered by inverted list; -1 where a list is padded to 64 rows
      order.npy       int64 row numbers by ascending face id (padding left out)
      scales.npy      float32 1 / length of each vector; 0 for padding and what cannot be scored
      vectors.npy     little-endian float16 rows
      codes.npy       one bit a dimension (index/codes.py)     factors.npy   two float16 a row
      mean.npy, signs.npy, places.npy                the frame that codes are measured in
      centroids.npy   float32, one a list            sizes.npy      int64 faces of each list
      list_codes.npy, list_factors.npy               codes of the centroids
      chances.npy     the table of the stopping rule (index/rule.py)
      columns/0/      what filters ask for, in the same row order

Format 1 had no codes: its snapshots open, and are searched exactly until the next build.
Files are mapped read-only and never written again, so processes share them through the page cache.
A reader holds a shared lock on the manifest while it lives; only folders that nobody locks are
removed. Opening hashes small files and compares the length of large ones, which costs
milliseconds; `verify` hashes everything.
"""

import ctypes
import dataclasses
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import psutil

from retrieval.errors import SnapshotUnusableError
from retrieval.filters.columns import Columns
from retrieval.index.codes import LAPS, Codes, Frame, words_of
from retrieval.index.exact import Numbers, Rows, frozen, places_in
from retrieval.index.lists import Lists
from retrieval.index.rule import Measured, Rule, measured_of
from retrieval.kernels.coded import NEARNESS_STEPS, WORST_STEPS
from retrieval.store.snapshots import PublishedSnapshot
from retrieval.values import CollectionId, Cursor, FaceIds, FieldType

FORMAT: Final = 2
FORMATS_READ: Final = (1, 2)
SMALL_FILE_BYTES: Final = 2**20  # hashed at every open
HASH_BLOCK_BYTES: Final = 2**22
MANIFEST: Final = "manifest.json"
CURRENT: Final = "current"
STAGING: Final = ".staging-"
COLUMNS: Final = "columns/0"
MADV_POPULATE_READ: Final = 22  # of Linux 5.14; Python has no name for it
TOUCHED_SHARE_MAX: Final = 0.5  # of the memory that is free


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """What the build measured against exact search, on stored faces as queries."""

    queries: int
    recall: float | None  # of 10 at the default, no filter; None: too few rows to ask
    filtered_recall: float | None  # the same behind a filter that passes every tenth row


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStamp:
    """A file of the snapshot as it was written."""

    path: str  # below the snapshot's folder
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a snapshot is."""

    id: str
    system_identifier: str
    collection_id: CollectionId
    space: str
    dimension: int
    rows: int  # faces
    padded_rows: int
    lists: int
    watermark: Cursor
    fields: dict[str, FieldType]
    self_check: SelfCheck
    measured: Measured | None  # None: of format 1
    seconds: float | None  # that writing it took; None: of format 1
    files: tuple[FileStamp, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """What a snapshot must belong to: the faces of one collection in one space of one database."""

    system_identifier: str
    collection_id: CollectionId
    space: str
    dimension: int
    published: tuple[PublishedSnapshot, ...]  # newest first, as the store remembers them


@dataclass(frozen=True)
class Coding:
    """What searching without looking at every vector needs."""

    frame: Frame
    codes: Codes
    lists: Lists
    rule: Rule


@dataclass(frozen=True)
class Snapshot:
    """An opened snapshot; its arrays are views of mapped files."""

    folder: Path
    manifest: Manifest
    rows: Rows
    order: Numbers  # (faces,) row numbers by ascending face id
    columns: Columns
    coding: Coding | None  # None: of format 1

    def places(self, faces: FaceIds) -> Numbers:
        """The row of each face, -1 for one that is not here."""
        ranks = places_in(self._sorted_ids, faces)
        return np.where(ranks >= 0, self.order[ranks], -1) if len(self.order) else ranks

    @cached_property
    def _sorted_ids(self) -> FaceIds:
        return self.rows.ids[self.order]


def snapshots_folder(home: Path, *, collection_id: CollectionId, space: str) -> Path:
    """Where the snapshots of a collection's space lie."""
    # A space may be named anything: its name must not climb out of the folder or hide in it.
    name = quote(space, safe="@")
    if name.startswith("."):
        name = "%2E" + name[1:]
    return home / "snapshots" / str(collection_id) / name


def open_best(folder: Path, gallery: Gallery) -> tuple[Snapshot | None, list[str]]:
    """The newest snapshot that can be used, and why the ones before it could not.

    Args:
        folder: of the collection's space, as `snapshots_folder` names it.
        gallery: what the snapshot must belong to.
    """
    problems: list[str] = []
    for name in _candidates(folder, gallery):
        try:
            return open_snapshot(folder / name, gallery), problems
        except SnapshotUnusableError as refusal:
            problems.append(str(refusal))
    return None, problems


def current_id(folder: Path) -> str | None:
    """The snapshot that was published last, or None before the first build."""
    try:
        return (folder / CURRENT).readlink().name
    except OSError:
        return None


def open_snapshot(folder: Path, gallery: Gallery) -> Snapshot:
    """Map a snapshot and hold a shared lock on it until the value is gone.

    Raises:
        SnapshotUnusableError: damaged, of an unknown version, or of another gallery.
    """
    try:
        lock = os.open(folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as cause:
        raise SnapshotUnusableError(f"snapshot {folder} has no manifest") from cause
    try:
        # Removal waits for nobody: it takes the lock exclusively or leaves the folder alone.
        fcntl.flock(lock, fcntl.LOCK_SH)
        snapshot = _opened(folder, gallery)
    except BaseException:
        os.close(lock)
        raise
    weakref.finalize(snapshot, os.close, lock)
    threading.Thread(target=_touch, args=(snapshot,), daemon=True).start()
    return snapshot


def verify(folder: Path) -> list[str]:
    """Hash every file of a snapshot and name each that is not as it was written."""
    try:
        manifest = read_manifest(folder)
    except SnapshotUnusableError as refusal:
        return [str(refusal)]
    return [problem for stamp in manifest.files if (problem := _changed(folder, stamp))]


def remove_unless_held(folder: Path) -> bool:
    """Delete a snapshot's folder; False where a reader still holds it."""
    try:
        lock = os.open(folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)  # never finished, or half removed
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The manifest goes first: whoever opens the folder from now on sees that it is none.
        (folder / MANIFEST).unlink()
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array the way snapshots keep it."""
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)


def stamped(folder: Path, paths: Iterable[Path]) -> tuple[FileStamp, ...]:
    """Bring files to the disk and take their length and hash."""
    stamps = []
    for path in sorted(paths):
        sync(path)
        name = path.relative_to(folder).as_posix()
        stamps.append(FileStamp(path=name, bytes=path.stat().st_size, sha256=_sha256(path)))
    return tuple(stamps)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the last file of a snapshot, with a hash of itself, and bring it to the disk."""
    content = {"format": FORMAT, **dataclasses.asdict(manifest)}
    content["sha256"] = _content_hash(content)
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sync(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a snapshot, or SnapshotUnusableError."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = content.pop("format")
    except (OSError, ValueError, KeyError, AttributeError) as cause:
        raise SnapshotUnusableError(f"the manifest of snapshot {folder} cannot be read") from cause
    if version not in FORMATS_READ:
        raise SnapshotUnusableError(
            f"snapshot {folder} has format version {version}; this program reads "
            f"{' and '.join(map(str, FORMATS_READ))}"
        )
    claimed = content.pop("sha256", None)
    if claimed != _content_hash({"format": version, **content}):
        raise SnapshotUnusableError(f"the manifest of snapshot {folder} was changed")
    try:
        return _manifest(content)
    except (KeyError, TypeError, ValueError) as cause:
        raise SnapshotUnusableError(
            f"the manifest of snapshot {folder} is not one that this program writes"
        ) from cause


def sync(path: Path) -> None:
    """Bring a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _candidates(folder: Path, gallery: Gallery) -> list[str]:
    """Names of snapshots to try: the one published last, then others from new to old."""
    newest_first = [one.id for one in gallery.published if (folder / one.id).is_dir()]
    last = current_id(folder)
    return list(dict.fromkeys([*([last] if last else []), *newest_first]))


def _opened(folder: Path, gallery: Gallery) -> Snapshot:
    manifest = read_manifest(folder)
    _check_origin(folder, manifest, gallery)
    for stamp in manifest.files:
        _check_file(folder, stamp)
    try:
        return mapped_snapshot(folder, manifest)
    except (OSError, ValueError, KeyError) as cause:
        raise SnapshotUnusableError(f"snapshot {folder} cannot be mapped: {cause}") from cause


def mapped_snapshot(folder: Path, manifest: Manifest) -> Snapshot:
    """Map the files that a manifest describes, without looking further and without a lock."""
    return Snapshot(
        folder=folder,
        manifest=manifest,
        rows=mapped_rows(folder, (manifest.padded_rows, manifest.dimension)),
        order=_mapped(folder / "order.npy", "<i8", (manifest.rows,)),
        columns=Columns.open(folder / COLUMNS),
        coding=_mapped_coding(folder, manifest),
    )


def _mapped_coding(folder: Path, manifest: Manifest) -> Coding | None:
    if manifest.measured is None:
        return None
    rows, dimension, lists = manifest.padded_rows, manifest.dimension, manifest.lists
    frame = Frame(
        mean=_mapped(folder / "mean.npy", "<f4", (dimension,)),
        signs=_mapped(folder / "signs.npy", "<f4", (LAPS, dimension)),
        places=_mapped(folder / "places.npy", "<i4", (LAPS, dimension)),
    )
    chances = _mapped(folder / "chances.npy", "<f4", (WORST_STEPS, NEARNESS_STEPS))
    return Coding(
        frame=frame,
        codes=mapped_codes(folder, "codes.npy", "factors.npy", (rows, dimension)),
        lists=Lists(
            centroids=_mapped(folder / "centroids.npy", "<f4", (lists, dimension)),
            sizes=_mapped(folder / "sizes.npy", "<i8", (lists,)),
            codes=mapped_codes(folder, "list_codes.npy", "list_factors.npy", (lists, dimension)),
        ),
        rule=Rule(chances, manifest.measured),
    )


def mapped_codes(folder: Path, words: str, factors: str, shape: tuple[int, int]) -> Codes:
    """Map the codes of (rows, dimension) vectors."""
    rows, dimension = shape
    return Codes(
        words=_mapped(folder / words, "<u8", (rows * words_of(dimension),)),
        factors=_mapped(folder / factors, "<u2", (rows * 2,)),
    )


def mapped_rows(folder: Path, shape: tuple[int, int]) -> Rows:
    """Map (rows, dimension) vectors with their ids and scales."""
    return Rows(
        ids=_mapped(folder / "ids.npy", "<i8", shape[:1]),
        scales=_mapped(folder / "scales.npy", "<f4", shape[:1]),
        vectors=_mapped(folder / "vectors.npy", "<f2", shape),
    )


def _mapped(path: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    # An empty file cannot be mapped.
    array = np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}, not {dtype} {shape}")
    plain: npt.NDArray[Any] = array.view(np.ndarray)  # the memmap class is slow; the mapping stays
    return frozen(plain)


def _touch(snapshot: Snapshot) -> None:
    """Have the system map what searches read, all at once: a first touch of a page costs 1 us.

    Left out where the files would push other things out of memory, and where Linux is too old.
    """
    held: list[npt.NDArray[Any]] = [*snapshot.rows.table]
    if snapshot.coding is not None:
        held += snapshot.coding.codes.arrays
    if sum(array.nbytes for array in held) > TOUCHED_SHARE_MAX * psutil.virtual_memory().available:
        return
    system = ctypes.CDLL(None)
    for array in held:
        begin = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
        length = array.ctypes.data + array.nbytes - begin
        system.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), MADV_POPULATE_READ)


def _check_origin(folder: Path, manifest: Manifest, gallery: Gallery) -> None:
    if manifest.system_identifier != gallery.system_identifier:
        raise SnapshotUnusableError(
            f"snapshot {folder} was built from another database. Run `facedex index build`"
        )
    ours = (gallery.collection_id, gallery.space, gallery.dimension)
    if (manifest.collection_id, manifest.space, manifest.dimension) != ours:
        raise SnapshotUnusableError(f"snapshot {folder} is of another collection or space")
    known = {one.id: one.watermark for one in gallery.published}
    if known.get(manifest.id) != manifest.watermark:
        raise SnapshotUnusableError(
            f"the database does not know snapshot {folder}: it was restored or copied since. "
            "Run `facedex index build`"
        )


def _check_file(folder: Path, stamp: FileStamp) -> None:
    path = folder / stamp.path
    try:
        found = path.stat().st_size
    except OSError as cause:
        raise SnapshotUnusableError(f"{path} is missing") from cause
    if found != stamp.bytes:
        raise SnapshotUnusableError(f"{path} has {found:,} bytes instead of {stamp.bytes:,}")
    if found <= SMALL_FILE_BYTES and (problem := _changed(folder, stamp)):
        raise SnapshotUnusableError(problem)


def _changed(folder: Path, stamp: FileStamp) -> str | None:
    path = folder / stamp.path
    try:
        whole = _sha256(path) == stamp.sha256
    except OSError as cause:
        return f"{path} cannot be read: {cause.strerror}"
    return None if whole else f"{path} is not as it was written"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _content_hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _manifest(content: dict[str, Any]) -> Manifest:
    check = content.pop("self_check")
    check.pop("ladder", None)  # of format 1
    fields = {name: FieldType(kind) for name, kind in content.pop("fields").items()}
    measured = content.pop("measured", None)
    return Manifest(
        **content
        | {
            "fields": fields,
            "self_check": SelfCheck(**check),
            "measured": measured and measured_of(measured),
            "seconds": content.get("seconds"),
            "files": tuple(FileStamp(**stamp) for stamp in content["files"]),
        }
    )
