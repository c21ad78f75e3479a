"""The dispatcher: what the user named -> pictures with all their facts, in a stable order.

Arguments are taken in their order, each file once; a folder gives its pictures in byte order,
an archive in its own. An archive is opened where it is named, alone or by a glob; inside a
folder it is passed over, as is every file without a picture's suffix. A file that is named is
always tried. Where facts differ, the manifest is right before the archive or the .txt of captions
beside a picture, these before the names of folder and file, and these before the defaults of the
options.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from indexer.sources.facts import captions, frame_number, merged, sidecar_text, text
from indexer.sources.folders import Found, expand, find_files, is_picture
from indexer.sources.manifest import Manifest, read_manifest
from indexer.sources.pictures import (
    Facts,
    Picture,
    Refused,
    SourceOptions,
    printable,
    reason_of,
    storable,
)
from indexer.sources.records import count_records, is_rec, list_records
from indexer.sources.tars import is_tar, list_tar
from retrieval.errors import LimitExceededError, UsageError
from retrieval.fields import SENSITIVE
from retrieval.limits import SIDECAR_BYTES_MAX, within
from retrieval.values import ORIGINS, FieldType

_SHOWN_MAX: Final = 3  # arguments that one message repeats
_Entry = Picture | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Everything that was named, checked as far as it can be before the first picture."""

    arguments: Sequence[Path | Refused]  # none: the manifest names the pictures
    options: SourceOptions
    manifest: Manifest | None

    @property
    def attribute_types(self) -> Mapping[str, FieldType]:
        """The manifest's attributes. Those of shards are known only as they come."""
        return self.manifest.attribute_types if self.manifest else {}

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should be told before work begins."""
        return self.manifest.notices if self.manifest else ()

    def count(self) -> int | None:
        """About how many pictures there are; None where only reading a whole tar would tell."""
        total = 0
        for found in self._files():
            count = 0 if isinstance(found, Refused) else _count(found)
            if count is None:
                return None
            total += count
        return total

    def __iter__(self) -> Iterator[_Entry]:
        """The pictures, lazily; the same each time while the disk rests."""
        rows = self.manifest.rows if self.manifest else {}
        seen: set[int] = set()
        for found in self._files():
            if isinstance(found, Refused):
                yield found
                continue
            for entry in self._entries(found):
                inside = f"/{entry.member}" if entry.member else ""
                row = rows.get(found.location + inside)
                if row is not None:
                    seen.add(row)
                yield self._completed(entry, root=found.root, row=row)
        if self.manifest and self.arguments:
            files = (self.manifest.file(row) for row in rows.values() if row not in seen)
            yield from (file for file in files if isinstance(file, Refused))

    def _files(self) -> Iterator[Found | Refused]:
        if self.manifest and not self.arguments:
            return (self.manifest.file(row) for row in self.manifest.rows.values())
        return find_files(self.arguments)

    def _entries(self, found: Found) -> Iterator[_Entry]:
        if is_rec(found.path.name):
            return list_records(found.path)
        if is_tar(found.path.name):
            return list_tar(found.path, left_out=_left_out(self.options))
        return iter([_captioned(found.path)])

    def _completed(self, entry: _Entry, *, root: Path, row: int | None) -> _Entry:
        """The picture with the facts of all who know something about it."""
        if isinstance(entry, Refused):
            return entry
        options = self.options
        facts = Facts(source=options.source, origin=options.origin)
        if options.person_from_folder or options.frames:
            facts = merged(_named_facts(entry, root=root, options=options), facts)
        facts = merged(entry.facts, facts)
        if self.manifest and row is not None:
            facts = merged(self.manifest.facts(row), facts)
        return Picture(path=entry.path, member=entry.member, content=entry.content, facts=facts)


def list_pictures(paths: Sequence[str | Path], *, options: SourceOptions) -> Listing:
    """Everything behind `paths`; iterate over the answer to get Picture and Refused.

    Args:
        paths: files, folders, globs, tars, .rec files; none where the manifest names all.
        options: how they are read.

    Raises:
        UsageError: nothing was named, nothing that was named exists, or an option is wrong.
        SchemaMismatchError: the manifest does not fit; all its problems are listed.
    """
    if options.origin not in ORIGINS:
        raise UsageError(f"the origin is one of {', '.join(ORIGINS)}")
    try:
        text(options.source or "")
    except ValueError as cause:
        raise UsageError(f"the source {cause}") from cause
    if not paths and options.metadata is None:
        raise UsageError("name a picture, a folder, a glob, an archive, or --metadata FILE")
    arguments = expand(paths)
    if paths and all(isinstance(argument, Refused) for argument in arguments):
        raise UsageError(_nothing(arguments))
    manifest = None
    if options.metadata is not None:
        manifest = read_manifest(options.metadata, left_out=_left_out(options))
    return Listing(arguments=arguments, options=options, manifest=manifest)


def _captioned(path: Path) -> _Entry:
    """The picture with the captions in the text file of its name beside it, where there is one."""
    sidecar = path.with_suffix(".txt")
    # False also where nobody may look, unlike Path.is_file: reading the picture will say why.
    if not is_picture(path.name) or not os.path.isfile(sidecar):  # noqa: PTH113
        return Picture(path=path)
    try:
        within(SIDECAR_BYTES_MAX, sidecar.stat().st_size, what="its size in bytes")
        said = captions(sidecar_text(sidecar.read_bytes()))
    except OSError as error:
        return Refused(path=path, reason=f"the .txt beside it cannot be read: {reason_of(error)}")
    except LimitExceededError as error:
        return Refused(path=path, reason=f"the .txt beside it: {error}")
    except ValueError as error:
        return Refused(path=path, reason=f"the .txt beside it {error}")
    return Picture(path=path, facts=Facts(captions=said or None))


def _nothing(arguments: Sequence[Path | Refused]) -> str:
    refused = [argument for argument in arguments if isinstance(argument, Refused)]
    shown = "; ".join(f"{printable(r.path)}: {r.reason}" for r in refused[:_SHOWN_MAX])
    return shown + (f"; and {len(refused) - _SHOWN_MAX} more" if len(refused) > _SHOWN_MAX else "")


def _left_out(options: SourceOptions) -> frozenset[str]:
    return frozenset() if options.allow_sensitive else SENSITIVE


def _count(found: Found) -> int | None:
    if is_rec(found.path.name):
        return count_records(found.path)
    return None if is_tar(found.path.name) else 1


def _named_facts(picture: Picture, *, root: Path, options: SourceOptions) -> Facts:
    """What the names of folder and file say."""
    if picture.member is None:
        inside = PurePosixPath(picture.path.relative_to(root))
        holder, top = picture.path.parent.name, root.name
    else:
        inside = PurePosixPath(picture.member)
        holder, top = inside.parent.name, picture.path.name
    track = inside.parent.as_posix() if inside.parent.name else top
    return Facts(
        person=storable(holder) or None if options.person_from_folder else None,
        track=storable(track) or None if options.frames else None,
        frame=frame_number(inside.stem) if options.frames else None,
    )
