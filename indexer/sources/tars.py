"""Tar shards: webdataset, img2dataset, and plain tars of pictures, read in one pass.

Neighbouring files whose names agree up to the first dot are one sample: pictures, `.json` (its
keys are facts and attributes) and `.txt` (attribute `caption`). Nothing is extracted: of a plain
tar only headers and sidecars are read here, pictures are spans for `os.pread`. A compressed tar
has no offsets, so its pictures carry their bytes; at most SAMPLE_PARTS_MAX wait at once.

Keys that fit none of Facedex's types are left out, and the log names them once per archive.
"""

import json
import logging
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final, Literal, Self

from indexer.sources.facts import READERS, attribute_value, reserved_facts, sidecar_text
from indexer.sources.folders import is_picture
from indexer.sources.pictures import Facts, Picture, Refused, Span, printable, reason_of, storable
from retrieval.errors import LimitExceededError, UsageError
from retrieval.fields import checked_attribute_name
from retrieval.limits import ATTRIBUTES_MAX, IMAGE_BYTES_MAX, SIDECAR_BYTES_MAX, within
from retrieval.values import Value

TAR_SUFFIXES: Final = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
SAMPLE_PARTS_MAX: Final = 8  # more of one name are frames of a film, not parts of a sample
_Mode = Literal["r:", "r:gz", "r:bz2", "r:xz"]
_MODES: Final[Mapping[bytes, _Mode]] = {b"\x1f\x8b": "r:gz", b"BZ": "r:bz2", b"\xfd7": "r:xz"}
_SIDECARS: Final = frozenset({"json", "txt"})
_IMG2DATASET: Final = frozenset({"key", "url", "status"})
_IMG2DATASET_DROPPED: Final = frozenset({"status", "error_message", "exif"})  # exif: in the picture
_BROKEN: Final = (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError)
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """A picture or a sidecar in the archive."""

    name: str
    content: Span | bytes  # a sidecar over its limit is not read

    @property
    def key(self) -> str:
        """What the parts of a sample share: folder, and name up to the first dot."""
        folder, _, name = self.name.rpartition("/")
        return f"{folder}/{name.partition('.')[0]}"

    @property
    def suffix(self) -> str:
        """What follows the first dot, in lower case."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()


@dataclass(slots=True)
class _Remarks:
    """What is said once about a whole archive."""

    left_out: set[str] = field(default_factory=set)
    lone_sidecars: int = 0


class _StrictInfo(tarfile.TarInfo):
    """A header that does not pass for the end of the archive when it is damaged or cut off."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as cause:
            # A whole archive ends with blocks of zeros. TarFile.next takes anything for its end,
            # and what follows the damage would vanish without a word.
            if buf.count(0) == tarfile.BLOCKSIZE:
                raise
            raise tarfile.ReadError("it is damaged or cut off") from cause


def is_tar(name: str) -> bool:
    """Whether a file that was named is a tar, by its suffix."""
    return name.lower().endswith(TAR_SUFFIXES)


def list_tar(path: Path, *, left_out: AbstractSet[str]) -> Iterator[Picture | Refused]:
    """The pictures of one tar in its order; damage ends it with one Refused.

    Args:
        path: the archive.
        left_out: names (lower case) that become no attributes.
    """
    remarks = _Remarks()
    for _, neighbours in groupby(_parts(path), key=_key):
        while sample := list(islice(neighbours, SAMPLE_PARTS_MAX)):
            yield from _pictures(sample, path=path, left_out=left_out, remarks=remarks)
    shown = printable(path)
    if remarks.left_out:
        names = printable(", ".join(sorted(remarks.left_out)))
        _log.warning("%s: these keys became no attributes: %s", shown, names)
    if remarks.lone_sidecars:
        _log.warning("%s: %d sidecars have no picture beside them", shown, remarks.lone_sidecars)


def _key(part: _Part | Refused) -> str | None:
    return part.key if isinstance(part, _Part) else None


def _parts(path: Path) -> Iterator[_Part | Refused]:
    """Pictures and sidecars in the order of the archive, and why it broke, if it did."""
    # Errors are caught in here: the parts before the damage must still leave as a sample.
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            mode = _MODES.get(file.read(2), "r:")
        with tarfile.TarFile.open(path, mode, tarinfo=_StrictInfo) as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else all headers stay
                if mode == "r:" and info.offset_data + info.size > size:
                    raise tarfile.ReadError(f"{printable(info.name)} is cut off")
                if not info.isreg() or info.issparse():
                    continue
                if part := _part(archive, info=info, seekable=mode == "r:"):
                    yield part
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno:
            yield Refused(path=path, reason=reason_of(error))
        else:
            yield Refused(path=path, reason=f"the archive cannot be read further: {error}")


def _part(archive: tarfile.TarFile, *, info: tarfile.TarInfo, seekable: bool) -> _Part | None:
    """The picture or sidecar at hand, read if it must be and may be; None: another file."""
    part = _Part(storable(info.name), Span(offset=info.offset_data, size=info.size))
    if part.suffix in _SIDECARS:
        readable = info.size <= SIDECAR_BYTES_MAX
    elif is_picture(info.name):
        readable = not seekable and info.size <= IMAGE_BYTES_MAX
    else:
        return None
    return replace(part, content=_content(archive, info)) if readable else part


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    data = file.read() if file else b""
    if len(data) < info.size:
        raise tarfile.ReadError(f"{printable(info.name)} is cut off")
    return data


def _pictures(
    sample: Sequence[_Part | Refused], *, path: Path, left_out: AbstractSet[str], remarks: _Remarks
) -> Iterator[Picture | Refused]:
    """The pictures of one sample, each with what its sidecars say."""
    yield from (part for part in sample if isinstance(part, Refused))
    parts = [part for part in sample if isinstance(part, _Part)]
    pictures = [part for part in parts if part.suffix not in _SIDECARS]
    sidecars = {part.suffix: part.content for part in parts if part.suffix in _SIDECARS}
    try:
        facts = _facts(sidecars, left_out=left_out, remarks=remarks)
    except ValueError as error:
        yield from (Refused(path=path, member=p.name, reason=str(error)) for p in pictures)
        return
    if facts is None:
        return
    if sidecars and not pictures:
        remarks.lone_sidecars += 1
    for part in pictures:
        try:
            if isinstance(part.content, Span):
                within(IMAGE_BYTES_MAX, part.content.size, what="its size in bytes")
        except LimitExceededError as error:
            yield Refused(path=path, member=part.name, reason=str(error))
        else:
            yield Picture(path=path, member=part.name, content=part.content, facts=facts)


def _facts(
    sidecars: dict[str, Span | bytes], *, left_out: AbstractSet[str], remarks: _Remarks
) -> Facts | None:
    """What the sidecars say; None: img2dataset failed to download this sample.

    Raises:
        ValueError: a sidecar is damaged, or a reserved key of it cannot be read.
    """
    cells = _json(sidecars["json"]) if "json" in sidecars else {}
    if cells.keys() >= _IMG2DATASET:
        if cells["status"] != "success":
            return None
        cells = {key: cell for key, cell in cells.items() if key not in _IMG2DATASET_DROPPED}
    if "txt" in sidecars:
        lines = _decoded(sidecars["txt"], suffix="txt")
        if "caption" not in cells:  # img2dataset writes it twice
            cells.setdefault("captions", lines)
    try:
        facts = reserved_facts(cells)
    except ValueError as cause:
        raise ValueError(f"the key {cause}") from cause
    return replace(facts, attributes=_attributes(cells, left_out=left_out, remarks=remarks))


def _attributes(
    cells: Mapping[str, Any], *, left_out: AbstractSet[str], remarks: _Remarks
) -> dict[str, Value]:
    """Every key without a meaning of its own that a collection could declare."""
    attributes: dict[str, Value] = {}
    unusable: set[str] = set()
    for name, cell in cells.items():
        try:
            if name not in READERS and name.lower() not in left_out:
                attributes[checked_attribute_name(name)] = attribute_value(cell)
        except (UsageError, ValueError):
            unusable.add(name)
    unusable |= {name for name in cells if name.lower() in left_out}
    if len(remarks.left_out) < ATTRIBUTES_MAX:
        remarks.left_out |= unusable
    return {name: value for name, value in attributes.items() if value is not None}


def _json(content: Span | bytes) -> dict[str, Any]:
    text = _decoded(content, suffix="json")
    try:
        cells = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise ValueError("the .json beside it is damaged") from cause
    if not isinstance(cells, dict):
        raise ValueError("the .json beside it holds no object")  # noqa: TRY004 -- see facts.py
    return cells


def _decoded(content: Span | bytes, *, suffix: str) -> str:
    if isinstance(content, Span):
        raise ValueError(f"the .{suffix} beside it has more than {SIDECAR_BYTES_MAX:,} bytes")  # noqa: TRY004 -- see facts.py
    try:
        return sidecar_text(content)
    except ValueError as cause:
        raise ValueError(f"the .{suffix} beside it {cause}") from cause
