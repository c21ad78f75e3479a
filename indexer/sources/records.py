"""MXNet's RecordIO with pictures, as insightface ships its data sets (`train.rec`).

A record is: the magic 0xced7230a, a word whose upper 3 bits say whether it is whole (0) or the
first, a middle or the last part (1, 2, 3) and whose lower 29 bits give its length, the data, and
zeros up to a multiple of 4 bytes. A writer splits data wherever it holds the magic at such a
multiple and leaves the magic out, so after damage the next magic is the next record. The data
is a header (flag, label as float32, two ids), `flag` more labels, then the encoded picture.

Records without a picture and with flag > 0 belong to the data set itself (the first one says
where the headers of identities begin) and are passed over. The `.idx` file is not needed.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from indexer.sources.pictures import Facts, Picture, Refused, Span, reason_of
from retrieval.errors import LimitExceededError
from retrieval.limits import IMAGE_BYTES_MAX, within

_MAGIC: Final = struct.pack("<I", 0xCED7230A)
_WORD: Final = struct.Struct("<4sI")
_HEADER: Final = struct.Struct("<IfQQ")
_LENGTH_BITS: Final = 29
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_LABELS_MAX: Final = 4096  # a flag beyond it is damage, not labels
_CHUNK_BYTES: Final = 2**20  # read at once while looking for the next record
_BUFFER_BYTES: Final = 512  # only headers are read here; pictures in between are skipped


@dataclass(frozen=True, slots=True)
class _Record:
    parts: tuple[Span, ...]
    end: int  # where the next record begins


@dataclass(frozen=True, slots=True)
class _Header:
    flag: int
    id: int
    label: float  # the only one, or the first
    size: int  # of header and labels together


def is_rec(name: str) -> bool:
    """Whether a file that was named is a RecordIO file, by its suffix."""
    return name.lower().endswith(".rec")


def list_records(path: Path) -> Iterator[Picture | Refused]:
    """The pictures of a .rec in its order, person = label; damage costs its own records only."""
    try:
        with path.open("rb", buffering=_BUFFER_BYTES) as file:
            yield from _pictures(file, path=path)
    except OSError as error:
        yield Refused(path=path, reason=reason_of(error))


def count_records(path: Path) -> int | None:
    """How many pictures the first record promises; None if it promises nothing."""
    try:
        with path.open("rb", buffering=_BUFFER_BYTES) as file:
            record = _record_at(file, 0, size=_size(file))
            header = _header(file, record) if record else None
    except OSError:
        return None
    if record is None or header is None or not header.flag or _length(record) > header.size:
        return None
    return int(header.label) - 1 if header.label >= 1 else None


def _pictures(file: BinaryIO, *, path: Path) -> Iterator[Picture | Refused]:
    at, size = 0, _size(file)
    while at < size:
        record = _record_at(file, at, size=size)
        if record is None:
            begin, at = at, _next_record(file, at + len(_MAGIC), size=size)
            reason = f"no whole record at byte {begin:,}; {at - begin:,} bytes were passed over"
            yield Refused(path=path, reason=reason)
            continue
        yield from _picture(file, record, path=path)
        at = record.end


def _picture(file: BinaryIO, record: _Record, *, path: Path) -> Iterator[Picture | Refused]:
    begin = record.parts[0].offset
    try:
        within(IMAGE_BYTES_MAX, _length(record), what=f"the size of the record at byte {begin:,}")
    except LimitExceededError as error:
        yield Refused(path=path, reason=str(error))
        return
    header = _header(file, record)
    if header is None:
        yield Refused(path=path, reason=f"the record at byte {begin:,} has a damaged header")
    elif _length(record) == header.size:
        if not header.flag:
            yield Refused(path=path, member=str(header.id), reason="it is empty")
    else:
        yield Picture(
            path=path,
            member=str(header.id),
            content=_content(file, record.parts, skip=header.size),
            facts=Facts(person=str(int(header.label)) if header.label.is_integer() else None),
        )


def _record_at(file: BinaryIO, begin: int, *, size: int) -> _Record | None:
    """The record that begins at byte `begin`, or None where none does, or not a whole one."""
    parts: list[Span] = []
    at, kind = begin, _FIRST
    while kind in {_FIRST, _MIDDLE}:
        head = _read(file, at, count=_WORD.size)
        if len(head) < _WORD.size:
            return None
        magic, word = _WORD.unpack(head)
        kind, length = word >> _LENGTH_BITS, word & ((1 << _LENGTH_BITS) - 1)
        expected = {_MIDDLE, _LAST} if parts else {_WHOLE, _FIRST}
        at += _WORD.size
        if magic != _MAGIC or kind not in expected or at + length > size:
            return None
        parts.append(Span(offset=at, size=length))
        at = min(at + length + -length % len(_MAGIC), size)
    # A damaged length leads astray: then no magic follows, and one lies before that place.
    astray = at < size and _read(file, at, count=len(_MAGIC)) != _MAGIC
    if astray and _next_record(file, begin + len(_MAGIC), size=at) < at:
        return None
    return _Record(tuple(parts), at)


def _next_record(file: BinaryIO, begin: int, *, size: int) -> int:
    """Where the next record begins at or after `begin`, or `size`."""
    chunk_begin = begin
    while chunk_begin < size:
        chunk = _read(file, chunk_begin, count=min(_CHUNK_BYTES + _WORD.size, size - chunk_begin))
        place = chunk.find(_MAGIC)
        while 0 <= place <= min(_CHUNK_BYTES, len(chunk) - _WORD.size):
            kind = _WORD.unpack_from(chunk, place)[1] >> _LENGTH_BITS
            if (chunk_begin + place) % len(_MAGIC) == 0 and kind in {_WHOLE, _FIRST}:
                return chunk_begin + place
            place = chunk.find(_MAGIC, place + 1)
        chunk_begin += _CHUNK_BYTES
    return size


def _header(file: BinaryIO, record: _Record) -> _Header | None:
    """The header of the picture in a record; None if it does not fit into the record."""
    head = _joined(file, record.parts, count=_HEADER.size + 4)
    if len(head) < _HEADER.size:
        return None
    flag, label, identifier, _ = _HEADER.unpack_from(head)
    size = _HEADER.size + 4 * flag
    if flag > _LABELS_MAX or size > _length(record):
        return None
    if flag:
        (label,) = struct.unpack_from("<f", head, _HEADER.size)
    return _Header(flag=flag, id=identifier, label=label, size=size)


def _content(file: BinaryIO, parts: Sequence[Span], *, skip: int) -> Span | bytes:
    """What follows the first `skip` bytes: a span where the record is in one piece."""
    if len(parts) == 1:
        return Span(offset=parts[0].offset + skip, size=parts[0].size - skip)
    return _joined(file, parts, count=None)[skip:]


def _joined(file: BinaryIO, parts: Sequence[Span], *, count: int | None) -> bytes:
    """The first `count` bytes of a record's data (None: all), with the magics put back."""
    if len(parts) == 1:
        return _read(file, parts[0].offset, count=min(count or parts[0].size, parts[0].size))
    return _MAGIC.join(_read(file, part.offset, count=part.size) for part in parts)[:count]


def _length(record: _Record) -> int:
    return sum(part.size for part in record.parts) + len(_MAGIC) * (len(record.parts) - 1)


def _read(file: BinaryIO, offset: int, *, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
