"""What a source gives: a picture that can be read later, in any process, and what is known of it.

A picture says where its bytes lie and does not hold them: a file, or a span of an archive that
`os.pread` reads, so that several processes read one archive at once. Only what cannot be
reached by an offset (compressed tars, records in several parts) carries its bytes along.
"""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Final

from retrieval.errors import LimitExceededError, RefusedImageError
from retrieval.limits import IMAGE_BYTES_MAX, within
from retrieval.values import Box, Value

_REASONS: Final = {
    errno.ENOENT: "no such file or folder",
    errno.ENOTDIR: "no such file or folder",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ELOOP: "a symbolic link that leads back to itself",
    errno.EISDIR: "a folder, not a picture",
}


class Framing(Enum):
    """What the pictures show."""

    SCENE = "scene"  # faces have to be found
    ALIGNED = "aligned"  # each picture is one ready 112 x 112 crop


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a picture before it is decoded. None: nobody said."""

    person: str | None = None  # who the face in `box` is; without a box, the pipeline chooses
    box: Box | None = None
    source: str | None = None
    origin: str | None = None  # a word of values.ORIGINS
    captured_at: datetime | None = None  # always with a time zone
    captured_at_assumed_utc: bool = False  # it was written without a time zone
    track: str | None = None
    frame: int | None = None
    tags: tuple[str, ...] | None = None
    age: float | None = None
    gender: str | None = None
    external_id: str | None = None
    captions: tuple[str, ...] | None = None  # sentences about that face
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of an archive, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One encoded picture that `read_bytes` can fetch, with its facts."""

    path: Path  # absolute: the file, or the archive that holds it
    member: str | None = None  # name inside the archive, fit to be stored as text
    content: Span | bytes | None = None  # None: the whole file
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An entry that gives no picture, and why. The reason names no path."""

    path: Path
    reason: str
    member: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """How the sources of one ingest are read."""

    person_from_folder: bool = False  # the folder right above a picture names its person
    frames: bool = False  # folders are tracks, numbers in file names are frames
    metadata: Path | None = None  # the manifest
    source: str | None = None  # for pictures of which nothing else says it; so is `origin`
    origin: str = "captured"
    allow_sensitive: bool = False  # whether fields.SENSITIVE become attributes


def read_bytes(picture: Picture) -> bytes:
    """The encoded picture, at most IMAGE_BYTES_MAX bytes.

    Raises:
        RefusedImageError: it is missing, unreadable, empty, too large, or no regular file.
    """
    try:
        match picture.content:
            case None:
                data = _read_file(picture.path)
            case Span() as span:
                data = _read_span(picture.path, span)
            case data:
                pass
        within(IMAGE_BYTES_MAX, len(data), what="its size in bytes")
    except (OSError, LimitExceededError) as cause:
        raise RefusedImageError(reason_of(cause)) from cause
    if not data:
        raise RefusedImageError("it is empty")
    return data


def _read_file(path: Path) -> bytes:
    # stat comes before open: opening a pipe would wait for its writer for ever.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise RefusedImageError("a pipe, socket or device, not a picture")
    within(IMAGE_BYTES_MAX, status.st_size, what="its size in bytes")
    with path.open("rb") as file:
        return file.read(IMAGE_BYTES_MAX + 1)


def _read_span(path: Path, span: Span) -> bytes:
    within(IMAGE_BYTES_MAX, span.size, what="its size in bytes")
    with path.open("rb", buffering=0) as archive:
        data = os.pread(archive.fileno(), span.size, span.offset)
    if len(data) < span.size:
        raise RefusedImageError("the archive ends in the middle of it")
    return data


def reason_of(error: Exception) -> str:
    """Why an entry is refused, in words that name no path."""
    if isinstance(error, OSError) and error.errno is not None:
        return _REASONS.get(error.errno, os.strerror(error.errno).lower())
    return str(error)


def printable(path: str | os.PathLike[str]) -> str:
    r"""A name that is safe to show: line breaks, control characters, stray bytes are escaped.

    >>> printable("two\nlines\udcff.jpg")
    'two\\nlines\\xff.jpg'
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fspath(path))


def storable(name: str) -> str:
    r"""A name as text that a database takes: stray bytes and NUL are escaped, all else stays.

    >>> storable("Jos\udce9")
    'Jos\\xe9'
    """
    return "".join(_escaped(c) if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in name)


def _escaped(character: str) -> str:
    # Python keeps an undecodable byte b of a file name as U+DC00 + b.
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
