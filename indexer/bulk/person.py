"""All that is held of one person, in a folder: the answer to a request for access.

`person.json` tells facts, faces, pictures and events; a Parquet file for each space holds the
vectors as `import` reads them. Pictures are named with the copy that is kept, and not added: others
may be seen in them. Of others there are numbers only.
"""

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from indexer.bulk.exporting import export_file
from indexer.originals import originals_of
from retrieval.errors import UsageError
from retrieval.fields import BUILT_IN
from retrieval.filters.parse import parse
from retrieval.store.captions import Caption, captions_of
from retrieval.store.collections import space_named
from retrieval.store.database import Connection, Store
from retrieval.store.faces import FaceRecord, face_records
from retrieval.store.people import reading
from retrieval.store.people.events import Event, events
from retrieval.store.people.reading import Person, PersonImage
from retrieval.store.people.rows import written
from retrieval.values import Collection, FaceId, PersonId

FACTS: Final = "person.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonExport:
    """What was written."""

    files: tuple[Path, ...]
    faces: int
    vectors: int
    images: int
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What one read of the store found."""

    person: Person
    faces: list[FaceRecord]
    captions: dict[FaceId, list[Caption]]
    images: list[PersonImage]
    rejected: list[int]
    events: list[Event]
    spaces: list[str]


def export_person(
    store: Store, person: PersonId, *, folder: Path, collection: Collection, home: Path
) -> PersonExport:
    """Write all that is held of a person, who is not merged into another, into a new folder.

    Raises:
        UsageError: the folder holds something already, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty: name a new folder")
        with store.reading() as connection:
            held = _held(connection, person, collection)
            spaces = [space_named(connection, name) for name in held.spaces]
        _write(folder / FACTS, _facts(held, home=home))
    except OSError as cause:
        raise UsageError(f"{folder} cannot be written to: {cause.strerror}") from cause
    files, vectors = [folder / FACTS], 0
    where = parse(f"person_id = {person}", BUILT_IN)
    for space in spaces:
        path = folder / f"{quote(space.name, safe='@')}.parquet"
        report = export_file(store, path, collection=collection, space=space, where=where)
        files.append(path)
        vectors += report.rows
    return PersonExport(
        files=tuple(files),
        faces=len(held.faces),
        vectors=vectors,
        images=len(held.images),
        events=len(held.events),
    )


def _held(connection: Connection, number: PersonId, collection: Collection) -> _Held:
    person = reading.person(connection, number, collection=collection)
    faces = reading.faces_of(connection, number)
    records = face_records(connection, faces, collection=collection)
    persons = [number, *person.merged]
    return _Held(
        person=person,
        faces=[records[face] for face in faces if face in records],
        captions=captions_of(connection, faces, collection=collection),
        images=reading.images_of(connection, number),
        rejected=list(reading.rejected_of(connection, number)),
        events=events(connection, collection=collection, persons=persons, faces=faces),
        spaces=reading.spaces_of(connection, number),
    )


def _facts(held: _Held, *, home: Path) -> dict[str, Any]:
    person = held.person
    persons = {person.id, *person.merged}
    return {
        "person": person.id,
        "name": person.name,
        "created_at": person.created_at,
        "merged": person.merged,
        "aliases": person.aliases,
        "links": person.links,
        "rejected_faces": held.rejected,
        "faces": [_face(one, held.captions.get(one.face, [])) for one in held.faces],
        "images": [_image(image, home=home) for image in held.images],
        "events": [_event(one, persons=persons) for one in reversed(held.events)],
    }


def _face(record: FaceRecord, captions: Sequence[Caption]) -> dict[str, Any]:
    box = record.box
    return {
        "face": record.face,
        "external_id": record.external_id,
        "image": record.image,
        "member": record.member,
        "box": None if box is None else [box.left, box.top, box.right, box.bottom],
        "attributes": record.attributes,
        "captions": [{"text": one.text, "provider": one.provider} for one in captions],
    }


def _image(image: PersonImage, *, home: Path) -> dict[str, Any]:
    return {
        "image": image.id,
        "path": image.path,
        "member": image.member,
        "sha256": image.sha256.hex(),
        "bytes": image.bytes,
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "created_at": image.created_at,
        "kept": originals_of(image.sha256, home=home),
    }


def _event(one: Event, *, persons: set[PersonId]) -> dict[str, Any]:
    """An event with this person's names; `changes` is as it lies in the store."""
    named = [change for change in one.changes.persons if change.person in persons]
    return {
        "event": one.id,
        "at": one.at,
        "author": one.actor,
        "kind": one.kind,
        "undoes": one.undoes,
        "changes": written(one.changes),
        "names": [
            {
                "person": change.person,
                "before": None if change.before is None else change.before.name,
                "after": None if change.after is None else change.after.name,
            }
            for change in named
        ],
    }


def _write(path: Path, facts: dict[str, Any]) -> None:
    """The file is whole or absent."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with staged.open("w", encoding="utf-8") as file:
        json.dump(facts, file, indent=1, ensure_ascii=False, default=_plain)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


def _plain(value: object) -> str | Sequence[object]:
    match value:
        case bytes() | Path():
            return os.fsencode(value).decode(errors="backslashreplace")
        case datetime():
            return value.isoformat()
        case _:
            raise TypeError(f"{type(value).__name__} has no place in JSON")
