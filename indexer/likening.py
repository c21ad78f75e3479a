"""What is kept of originals to find copies: read once, kept below the home by their content.

A record holds the hashes, the small grey square, and where its faces' squares lie in a second file.
It is written after they are, and found by a digest of the picture's sha256 and its landmarks; so a
run that was cut off goes on where it stopped, a torn end is cut off, and a face that lies elsewhere
now is looked at again. One run at a time; another waits. Pictures of erased persons go with the
whole folder (erasing.py): the next run reads the others again.

One thread reads and hashes, others decode: OpenCV and Pillow let go of the interpreter's lock.
"""

import fcntl
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from indexer.backfill import MissingPicture, ReadPicture, contents_of, missing
from retrieval.errors import RefusedImageError
from retrieval.image import decode
from retrieval.likeness import FACE_SIDE_PX, SIDE_PX, Signature, signature
from retrieval.store.looks import LackingPicture
from retrieval.values import Pixels

Progress = Callable[[int, int], None]  # done, of all
DECODED_AHEAD: Final = 4  # pictures for each thread
FACE_BYTES: Final = FACE_SIDE_PX * FACE_SIDE_PX
NOT_READ: Final = -1
RECORD: Final = np.dtype(
    [
        ("key", "V32"),
        ("hash", "<u8"),
        ("mirrored_hash", "<u8"),
        ("first_face", "<i8"),
        ("faces", "<i8"),
        ("grey", "u1", (SIDE_PX, SIDE_PX)),
    ]
)
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Signatures:
    """What is kept of the pictures that were asked for, n of them; m were read."""

    records: Numbers  # (n,) of each among the following; NOT_READ
    hashes: npt.NDArray[np.uint64]
    mirrored_hashes: npt.NDArray[np.uint64]
    greys: Pixels  # (.., SIDE_PX, SIDE_PX), mapped
    first_faces: Numbers
    faces: Pixels  # (.., FACE_SIDE_PX, FACE_SIDE_PX), mapped
    missing: tuple[MissingPicture, ...]


def signatures_of(
    pictures: Sequence[LackingPicture],
    *,
    folder: Path,
    threads: int,
    progress: Progress,
) -> Signatures:
    """What is kept of these pictures, of which those that nothing is kept of are read."""
    with _locked(folder):
        kept = _Kept.opened(folder)
        keys = [_key(one) for one in pictures]
        new = [one for one, key in zip(pictures, keys, strict=True) if key not in kept.places]
        absent = _read(new, kept, folder, threads=threads, progress=progress)
        records, faces = _mapped(folder)
        return Signatures(
            records=np.array([kept.places.get(key, NOT_READ) for key in keys], np.int64),
            hashes=np.array(records["hash"]),
            mirrored_hashes=np.array(records["mirrored_hash"]),
            greys=records["grey"],
            first_faces=np.array(records["first_face"]),
            faces=faces,
            missing=absent,
        )


@dataclass(eq=False, slots=True)
class _Kept:
    """Which pictures are kept, and how far the files reach."""

    places: dict[bytes, int]
    faces: int

    @classmethod
    def opened(cls, folder: Path) -> Self:
        """Cut off what was being written when a run ended, and read the rest."""
        pictures, faces = _files(folder)
        pictures.touch()
        faces.touch()
        for path, size in ((pictures, RECORD.itemsize), (faces, FACE_BYTES)):
            _cut(path, path.stat().st_size // size * size)
        records, squares = _mapped(folder)
        ends = records["first_face"] + records["faces"]
        # Faces are written first: only a disk that lost them has fewer than the records say.
        whole = int(np.searchsorted(ends, len(squares), side="right"))
        _cut(pictures, whole * RECORD.itemsize)
        used = int(ends[whole - 1]) if whole else 0
        _cut(faces, used * FACE_BYTES)
        keys = [bytes(key) for key in records["key"][:whole]]
        return cls({key: place for place, key in enumerate(keys)}, used)

    def add(self, key: bytes, made: Signature, files: "tuple[_Appended, _Appended]") -> None:
        """Write one picture behind the others."""
        record = np.zeros(1, RECORD)
        record["key"] = np.void(key)
        record["hash"], record["mirrored_hash"] = made.hash, made.mirrored_hash
        record["first_face"], record["faces"] = self.faces, len(made.faces)
        record["grey"] = made.grey
        pictures, faces = files
        faces.write(made.faces.tobytes())
        pictures.write(record.tobytes())
        self.places[key] = len(self.places)
        self.faces += len(made.faces)


class _Appended:
    """A file that grows; flushed in the order of the calls."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Add to its end."""
        self._file.write(data)

    def close(self) -> None:
        """Bring it to the disk."""
        os.fsync(self._file.fileno())
        self._file.close()


def _read(
    pictures: Sequence[LackingPicture],
    kept: _Kept,
    folder: Path,
    *,
    threads: int,
    progress: Progress,
) -> tuple[MissingPicture, ...]:
    """Add these pictures; give those that cannot be read."""
    absent: list[MissingPicture] = []
    places = _files(folder)
    files = (_Appended(places[0]), _Appended(places[1]))
    try:
        for done, outcome in enumerate(_signed(pictures, threads=threads), start=1):
            if isinstance(outcome, MissingPicture):
                absent.append(outcome)
            else:
                stored, made = outcome
                if _key(stored) not in kept.places:
                    kept.add(_key(stored), made, files)
            progress(done, len(pictures))
    finally:
        for file in reversed(files):
            file.close()
    return tuple(sorted(absent, key=lambda one: (str(one.path), one.member or "")))


def _signed(
    pictures: Sequence[LackingPicture], *, threads: int
) -> Iterator[tuple[LackingPicture, Signature] | MissingPicture]:
    """Signatures in the order of the contents, some decoded ahead."""
    waiting: deque[Future[tuple[LackingPicture, Signature] | MissingPicture]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        # By path, so that an archive is listed once.
        for one in contents_of(sorted(pictures, key=attrgetter("path"))):
            if isinstance(one, MissingPicture):
                yield one
                continue
            waiting.append(pool.submit(_sign, one))
            if len(waiting) > DECODED_AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _sign(one: ReadPicture) -> tuple[LackingPicture, Signature] | MissingPicture:
    landmarks = list(one.stored.landmarks.values())
    try:
        pixels = decode(one.content).pixels
    except RefusedImageError as refusal:
        return missing(one.stored, str(refusal))
    points = np.stack(landmarks) if landmarks else np.empty((0, 5, 2), np.float32)
    return one.stored, signature(pixels, points)


def _key(picture: LackingPicture) -> bytes:
    digest = hashlib.sha256(picture.sha256)
    for points in picture.landmarks.values():
        digest.update(np.ascontiguousarray(points, "<f4").tobytes())
    return digest.digest()


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / "pictures.bin", folder / "faces.bin"


def _mapped(folder: Path) -> tuple[npt.NDArray[np.void], Pixels]:
    pictures, faces = _files(folder)
    records, squares = np.zeros(0, RECORD), np.zeros((0, FACE_SIDE_PX, FACE_SIDE_PX), np.uint8)
    if pictures.stat().st_size:
        records = np.memmap(pictures, RECORD, mode="r")
    if faces.stat().st_size:
        squares = np.memmap(faces, np.uint8, mode="r").reshape(-1, FACE_SIDE_PX, FACE_SIDE_PX)
    return records, squares


def _cut(path: Path, size: int) -> None:
    if path.stat().st_size > size:
        os.truncate(path, size)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
