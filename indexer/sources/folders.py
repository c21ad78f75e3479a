"""From arguments to files: paths, globs and folders, in a stable order, each file once.

A folder is walked depth first, its files in the byte order of their whole paths. Symbolic links
are followed; a folder is known by its real path, so no folder is walked twice and no loop is
entered. What is remembered grows with folders and with files named one by one, never with the
files inside folders.
"""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Final

from indexer.sources.pictures import Refused, reason_of

PICTURE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One file that was named, or that a named folder holds."""

    path: Path  # absolute, spelt as the user did
    root: Path  # the folder that was named; for a named file the one that holds it
    location: str  # real path of its folder, and its name: one for all spellings


@dataclass(slots=True)
class _Seen:
    """What was listed already, so that it is listed once."""

    folders: set[str] = field(default_factory=set)  # real paths
    files: set[str] = field(default_factory=set)  # locations of the files named one by one


@dataclass(frozen=True, slots=True)
class _Entry:
    order: bytes
    name: str
    is_folder: bool = False
    is_link: bool = False
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class _Folder:
    path: Path
    real: str
    entries: Iterator[_Entry]


def is_picture(name: str) -> bool:
    """Whether a file inside a folder or an archive is taken for a picture, by its suffix."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122 -- no Path a file


def spelt(path: str | os.PathLike[str]) -> Path:
    """`path` made absolute; its links stay as they are, unless a `..` may stand behind one."""
    plain = Path(path)
    if ".." not in plain.parts:
        return plain.absolute()
    if plain.name == "..":
        return Path(os.path.realpath(plain))
    return Path(os.path.realpath(plain.parent), plain.name)


def location_of(path: Path) -> str:
    """Real path of the folder, and the name: equal for all spellings of one entry."""
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 -- text wanted


def expand(arguments: Sequence[str | os.PathLike[str]]) -> list[Path | Refused]:
    """Every argument as the shell would have expanded it, matches of a glob in byte order."""
    found = (path for argument in arguments for path in _expand(os.fspath(argument)))
    return list(dict.fromkeys(found))


def _expand(argument: str) -> list[Path | Refused]:
    if os.path.lexists(argument):
        return [spelt(argument)]
    if not glob.has_magic(argument):
        return [Refused(path=spelt(argument), reason="no such file or folder")]
    pattern = Path(argument)
    base = Path(pattern.anchor or ".").absolute()
    try:  # unlike the glob module, Path.glob enters no loop of links
        matches = sorted(base.glob(str(pattern.relative_to(pattern.anchor))), key=os.fsencode)
    except (OSError, ValueError) as error:
        return [Refused(path=pattern, reason=reason_of(error))]
    return [*matches] or [Refused(path=pattern, reason="no file matches this pattern")]


def find_files(paths: Sequence[Path | Refused]) -> Iterator[Found | Refused]:
    """The files behind `paths`, lazily, in the order of `paths`; a refusal stays in its place."""
    seen = _Seen()
    for path in paths:
        if isinstance(path, Refused):
            yield path
            continue
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError as error:
            yield Refused(path=path, reason=reason_of(error))
            continue
        if is_folder:
            yield from _walk(path, seen=seen)
        else:
            yield from _named(path, seen=seen)


def _named(path: Path, *, seen: _Seen) -> Iterator[Found]:
    location = location_of(path)
    walked = os.path.dirname(location) in seen.folders and is_picture(path.name)  # noqa: PTH120
    if not walked and location not in seen.files:
        seen.files.add(location)
        yield Found(path=path, root=path.parent, location=location)


def _walk(root: Path, *, seen: _Seen) -> Iterator[Found | Refused]:
    stack: list[_Folder] = []
    refusal = _enter(root, real=os.path.realpath(root), stack=stack, seen=seen)
    # A stack instead of recursion: folders may lie deeper than Python calls may.
    while stack or refusal:
        if refusal:
            yield refusal
            refusal = None
            continue
        folder = stack[-1]
        entry = next(folder.entries, None)
        if entry is None:
            stack.pop()
            continue
        path = folder.path / entry.name
        location = os.path.join(folder.real, entry.name)  # noqa: PTH118 -- no Path a file
        if entry.refusal:
            refusal = Refused(path=path, reason=entry.refusal)
        elif entry.is_folder:
            real = os.path.realpath(path) if entry.is_link else location
            refusal = _enter(path, real=real, stack=stack, seen=seen)
        elif location not in seen.files:
            yield Found(path=path, root=root, location=location)


def _enter(path: Path, *, real: str, stack: list[_Folder], seen: _Seen) -> Refused | None:
    """Push the folder onto the stack, or say why not; None also if it was walked before."""
    if real in seen.folders:
        if any(folder.real == real for folder in stack):
            return Refused(path=path, reason="a symbolic link back to a folder above it")
        return None
    seen.folders.add(real)
    try:
        with os.scandir(path) as scan:
            entries = [found for entry in scan if (found := _entry(entry))]
    except OSError as error:
        return Refused(path=path, reason=reason_of(error))
    entries.sort(key=attrgetter("order"))
    stack.append(_Folder(path, real, iter(entries)))
    return None


def _entry(entry: os.DirEntry[str]) -> _Entry | None:
    """What a folder's entry is to us; None: neither a folder nor a picture."""
    order = os.fsencode(entry.name)
    try:
        is_folder = entry.is_dir()
    except OSError as error:
        return _Entry(order, entry.name, refusal=reason_of(error))
    if is_folder:
        # With its slash, a folder stands where the paths of its files belong.
        return _Entry(order + b"/", entry.name, is_folder=True, is_link=entry.is_symlink())
    return _Entry(order, entry.name) if is_picture(entry.name) else None
