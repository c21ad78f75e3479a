"""Lists of software packages as texts with attributes: real words that someone wrote.

Read are Debian's (`apt-cache dumpavail`) and tables of PyPI and npm with one package a line
(name, version, month, rank, summary; name, version, downloads, summary). A text is a package's
summary; each text is taken once, whatever registry says it first.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

SUMMARY_CHARACTERS_MIN: Final = 20
_PYPI_CELLS: Final = 5
_NPM_CELLS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package as its list tells it; None where that list does not say."""

    registry: str
    name: str
    summary: str
    section: str | None = None
    priority: str | None = None
    size_kib: int | None = None
    released_at: datetime | None = None
    rank: int | None = None
    downloads: int | None = None
    tags: tuple[str, ...] | None = None


def debian(path: Path) -> Iterator[Package]:
    """The packages of a file in Debian's control format."""
    for fields in _stanzas(path):
        if "Package" not in fields or "Description" not in fields:
            continue
        tags = fields.get("Tag")
        yield Package(
            registry="debian",
            name=fields["Package"],
            summary=fields["Description"],
            section=fields.get("Section"),
            priority=fields.get("Priority"),
            size_kib=_number(fields.get("Installed-Size", "")),
            tags=tuple(tag.strip() for tag in tags.split(",")) if tags else None,
        )


def pypi(path: Path) -> Iterator[Package]:
    """The packages of a table: name, version, month, rank among the downloaded, summary."""
    for name, _, month, rank, summary in _rows(path, cells=_PYPI_CELLS):
        yield Package(
            registry="pypi",
            name=name,
            summary=summary,
            released_at=_month(month),
            rank=_number(rank),
        )


def npm(path: Path) -> Iterator[Package]:
    """The packages of a table: name, version, downloads a month, summary."""
    for name, _, downloads, summary in _rows(path, cells=_NPM_CELLS):
        yield Package(registry="npm", name=name, summary=summary, downloads=_number(downloads))


def chosen(packages: Iterable[Package], *, count: int) -> list[Package]:
    """Up to `count` packages, each text once, the registries in turn.

    Within a registry the order is that of the texts' hashes: as good as random, and a smaller
    choice is the beginning of a larger one.
    """
    first: dict[str, Package] = {}
    for package in packages:
        if len(package.summary) >= SUMMARY_CHARACTERS_MIN:
            first.setdefault(package.summary.casefold(), package)
    turns: dict[str, int] = {}
    placed = []
    for text in sorted(first, key=lambda text: hashlib.sha256(text.encode()).digest()):
        package = first[text]
        turn = turns.get(package.registry, 0)
        placed.append((turn, package.registry, package))
        turns[package.registry] = turn + 1
    placed.sort(key=lambda place: place[:2])
    return [package for _, _, package in placed[:count]]


def _stanzas(path: Path) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    last = ""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                yield fields
                fields = {}
            elif line[0].isspace():
                # The long description would go on from the summary; lists of tags do go on.
                if last == "Tag":
                    fields[last] += line.strip()
            else:
                last, _, told = line.partition(":")
                fields[last] = told.strip()
    yield fields


def _rows(path: Path, *, cells: int) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        next(file, None)  # the names of the columns
        for line in file:
            row = [cell.strip().replace("\0", "") for cell in line.rstrip("\n").split("\t")]
            if len(row) == cells:
                yield row


def _number(told: str) -> int | None:
    return int(told) if told.isascii() and told.isdigit() else None


def _month(told: str) -> datetime | None:
    try:
        return datetime.strptime(told, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        return None
