"""What was found of duplicates, as files: a table of all members, and pages with pictures."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from facedex.duplicates import Found, Member
from indexer.backfill import ReadPicture, contents_of
from indexer.sources.pictures import printable
from retrieval.curation.duplicates import Level
from retrieval.curation.duplicates_page import (
    CARDS_SHOWN_MAX,
    GROUPS_A_PAGE,
    Card,
    Cards,
    page,
    page_name,
)
from retrieval.errors import RefusedImageError, UsageError
from retrieval.likeness import shown
from retrieval.store.pictured import NOWHERE, PicturedFaces

PAGES_MAX: Final = 40  # 2,000 groups; the tables have all
PORTRAITS: Final = 4  # faces shown of a person
SCHEMA: Final = pa.schema(
    [
        ("group", pa.int64()),
        ("image", pa.int64()),
        ("face", pa.int64()),
        ("decision", pa.string()),
        ("reason", pa.string()),
        ("person", pa.int64()),
        ("name", pa.string()),
        ("path", pa.string()),
        ("member", pa.string()),
        ("external_id", pa.string()),
    ]
)
TITLES: Final = {
    Level.IMAGE: ("picture", "pictures that are copies of one"),
    Level.FACE: ("face", "faces that are one shot"),
    Level.PERSON: ("person", "persons that are one human"),
    Level.TRACK: ("frame", "frames that are near-copies of another"),
}


@dataclass(frozen=True, slots=True)
class _Shot:
    """What is shown of one picture: all of it, or a face."""

    picture: int  # its place
    face: int | None  # its place


def write(found: Found, folder: Path) -> Path:
    """Write groups.parquet, groups.csv and report.html with its further pages; give the latter.

    Pages that an earlier run left are removed.

    Raises:
        UsageError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise UsageError(f"{folder} cannot be made: {cause.strerror}") from cause
    table = as_table(found)
    pq.write_table(table, folder / "groups.parquet")
    pc.write_csv(table, folder / "groups.csv")
    for stale in folder.glob("report-*.html"):
        stale.unlink()
    pages = max(1, min(PAGES_MAX, -(-len(found.groups) // GROUPS_A_PAGE)))
    for number in range(1, pages + 1):
        begin = (number - 1) * GROUPS_A_PAGE
        cards = _cards(found, range(begin, min(begin + GROUPS_A_PAGE, len(found.groups))))
        told = page(_title(found), list(_notes(found)), cards, number=number, pages=pages)
        (folder / page_name(number)).write_text(told, encoding="utf-8")
    return folder / page_name(1)


def as_table(found: Found) -> pa.Table:
    """A row for each member; of a picture, `face` is its largest."""
    largest = _largest_faces(found.pictured.faces)
    rows = [
        _row(number, member, found, largest)
        for number, group in enumerate(found.groups, start=1)
        for member in group
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _row(
    number: int, member: Member, found: Found, largest: dict[int, int]
) -> dict[str, int | str | None]:
    pictures, faces = found.pictured.pictures, found.pictured.faces
    at, face = member.picture, member.face
    if face is None and at is not None:
        face = largest.get(at)
    return {
        "group": number,
        "image": None if at is None else int(pictures.ids[at]),
        "face": None if face is None else int(faces.ids[face]),
        "decision": member.decision.value,
        "reason": member.reason,
        "person": member.person if face is None else faces.persons[face],
        "name": member.name,
        "path": None if at is None else printable(os.fsdecode(pictures.paths[at])),
        "member": None if at is None else pictures.members[at],
        "external_id": None if face is None else faces.external_ids[face],
    }


def _largest_faces(faces: PicturedFaces) -> dict[int, int]:
    """The largest face of each picture, by places; of two as large, that with the lower number."""
    largest: dict[int, int] = {}
    for row in np.argsort(-np.nan_to_num(faces.sizes), kind="stable").tolist():
        largest.setdefault(int(faces.places[row]), row)
    return largest


def _title(found: Found) -> str:
    return f"Duplicates: {TITLES[found.level][1]}"


def _notes(found: Found) -> Iterator[str]:
    groups, dropped = len(found.groups), len(found.duplicates)
    yield f"{_some(groups, 'group')}: {groups:,} kept, {dropped:,} to drop. Nothing is deleted."
    if found.threshold is not None:
        rate = found.threshold.expected.value
        similarity = found.threshold.similarity
        yield f"Templates at least {similarity:.3f} alike: {rate:.2g} of pairs of strangers are."
    if found.missing:
        yield f"{_some(len(found.missing), 'original')} could not be read and were left out."
    if found.level is not Level.PERSON and found.without_original:
        yield f"{_some(found.without_original, 'face')} came as vectors, without a picture."
    if groups > PAGES_MAX * GROUPS_A_PAGE:
        yield f"The first {PAGES_MAX * GROUPS_A_PAGE:,} groups are shown; groups.parquet has all."


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _cards(found: Found, groups: range) -> list[Cards]:
    shots = {
        (number, at): _shots(found, member)
        for number in groups
        for at, member in enumerate(found.groups[number][:CARDS_SHOWN_MAX])
    }
    pictures = _pictures(found, [one for some in shots.values() for one in some])
    word = TITLES[found.level][0]
    made = []
    for number in groups:
        members = found.groups[number]
        cards = tuple(
            _card(found, member, [pictures[one] for one in shots[number, at] if one in pictures])
            for at, member in enumerate(members[:CARDS_SHOWN_MAX])
        )
        head = f"Group {number + 1}: one {word}, {len(members)} times"
        made.append(Cards(title=head, cards=cards, left_out=len(members) - len(cards)))
    return made


def _card(found: Found, member: Member, pictures: Sequence[bytes]) -> Card:
    return Card(
        decision=member.decision,
        title=_named(found, member),
        reason=member.reason,
        where=_whereabouts(found, member),
        pictures=tuple(pictures),
    )


def _named(found: Found, member: Member) -> str:
    if member.person is not None:
        return f"person #{member.person}" + (f", {member.name}" if member.name else "")
    if member.face is not None:
        return f"face {found.pictured.faces.ids[member.face]}"
    return f"image {found.pictured.pictures.ids[member.picture or 0]}"


def _whereabouts(found: Found, member: Member) -> str | None:
    """The path of the picture, or what the face was called where it came from."""
    pictures, faces = found.pictured.pictures, found.pictured.faces
    if member.picture is not None:
        inside = pictures.members[member.picture]
        path = printable(os.fsdecode(pictures.paths[member.picture]))
        return f"{path}!{inside}" if inside else path
    return None if member.face is None else faces.external_ids[member.face]


def _shots(found: Found, member: Member) -> list[_Shot]:
    """What shows a member."""
    faces = found.pictured.faces
    if member.person is not None and member.picture is None and member.face is None:
        return [_Shot(int(faces.places[row]), row) for row in _best_faces(faces, member.person)]
    if member.picture is None:
        return []
    return [_Shot(member.picture, member.face)]


def _best_faces(faces: PicturedFaces, person: int) -> list[int]:
    """Some faces of a person that lie in pictures, the best first."""
    own = [
        row
        for row, owner in enumerate(faces.persons)
        if owner == person
        and faces.places[row] != NOWHERE
        and not np.isnan(faces.landmarks[row, 0, 0])
    ]
    return sorted(own, key=lambda row: (-np.nan_to_num(faces.quality[row]), row))[:PORTRAITS]


def _pictures(found: Found, shots: Sequence[_Shot]) -> dict[_Shot, bytes]:
    """Small pictures of what is at hand."""
    by_picture: dict[int, list[_Shot]] = {}
    for shot in shots:
        by_picture.setdefault(shot.picture, []).append(shot)
    wanted = {place: found.stored[place] for place in by_picture}
    places = {stored.image: place for place, stored in wanted.items()}
    made: dict[_Shot, bytes] = {}
    for one in contents_of(sorted(wanted.values(), key=lambda stored: stored.path)):
        if isinstance(one, ReadPicture):
            for shot in by_picture[places[one.stored.image]]:
                if (small := _small(one.content, shot, found.pictured.faces)) is not None:
                    made[shot] = small
    return made


def _small(content: bytes, shot: _Shot, faces: PicturedFaces) -> bytes | None:
    points = None if shot.face is None else faces.landmarks[shot.face]
    try:
        return shown(content, None if points is None or np.isnan(points).any() else points)
    except RefusedImageError:
        return None
