"""Copies of originals below FACEDEX_HOME, for `ingest --copy`; named by their content."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def keep_original(content: bytes, path: Path, *, home: Path) -> Path:
    """Copy `content` to its place in `home` and give that place.

    The file is complete or absent: it is written beside its place and renamed.
    """
    digest = hashlib.sha256(content).hexdigest()
    place = home / "originals" / digest[:2] / f"{digest}{path.suffix.lower()}"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    staged = place.with_name(f"{place.name}.{os.getpid()}.staged")
    with staged.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(place)
    return place


def originals_of(digest: bytes, *, home: Path) -> list[Path]:
    """Where the content with this sha256 is kept; under each suffix that it came with."""
    name = digest.hex()
    return sorted((home / "originals" / name[:2]).glob(f"{name}*"))


def remove_originals(digests: Iterable[bytes], *, home: Path) -> None:
    """Delete what is kept of the contents with these sha256."""
    for digest in digests:
        for path in originals_of(digest, home=home):
            path.unlink(missing_ok=True)
