"""Pictures and their faces, written together: an image is in with all its faces, or not at all.

Content is the identity: one sha256 is one image of a collection, however often it arrives and from
however many processes. The second writer of the same content sees a conflict and adds nothing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
from psycopg import Cursor as DriverCursor
from sqlalchemy import Connection, text

from retrieval.store.captions import NewCaption, add_captions
from retrieval.store.database import copy
from retrieval.values import (
    Box,
    Collection,
    FaceId,
    FaceReading,
    ImageId,
    PersonId,
    Space,
    Value,
)

_KNOWN: Final = text("""
    SELECT image.sha256, image.id, image.path, image.member,
        array_remove(ARRAY[person.name, merged.name], NULL) AS persons
    FROM image
    LEFT JOIN face ON face.image_id = image.id AND face.person_id IS NOT NULL
    LEFT JOIN person ON person.id = face.person_id
    LEFT JOIN person AS merged ON merged.merged_into = person.id
    WHERE image.collection_id = :collection AND image.sha256 = ANY(:hashes)
""")
_REFUSED: Final = text("""
    SELECT sha256, reason FROM refusal WHERE collection_id = :collection AND sha256 = ANY(:hashes)
""")
_INSERT_IMAGES: Final = text("""
    INSERT INTO image (collection_id, sha256, path, member, bytes, width, height, format,
                       captured_at_assumed_utc)
    SELECT :collection, * FROM unnest(
        CAST(:sha256 AS bytea[]), CAST(:path AS bytea[]), CAST(:member AS text[]),
        CAST(:bytes AS bigint[]), CAST(:width AS integer[]), CAST(:height AS integer[]),
        CAST(:format AS text[]), CAST(:assumed_utc AS boolean[]))
    -- One order for all writers, so that two of them with the same pictures never deadlock.
    ORDER BY 1, 2
    ON CONFLICT (collection_id, sha256) DO NOTHING
    RETURNING id, sha256
""")
_INSERT_REFUSALS: Final = text("""
    INSERT INTO refusal (collection_id, sha256, path, member, reason)
    SELECT :collection, * FROM unnest(
        CAST(:sha256 AS bytea[]), CAST(:path AS bytea[]), CAST(:member AS text[]),
        CAST(:reason AS text[]))
    ORDER BY 1, 2
    ON CONFLICT (collection_id, sha256) DO UPDATE SET path = excluded.path, reason = excluded.reason
""")
_FACES_OF: Final = text("""
    SELECT image.id AS image, image.width, image.height, face.id AS face, face.box
    FROM image JOIN face ON face.image_id = image.id
    WHERE image.id = ANY(:images) AND face.box IS NOT NULL
    ORDER BY image.id, face.id
""")
# What is known stays; equal rows are not written, so that a second time changes nothing.
_FILL_IN: Final = text("""
    WITH filled AS (
        SELECT face.id, coalesce(face.person_id, stated.person) AS person_id,
            coalesce(face.age, stated.age) AS age, coalesce(face.gender, stated.gender) AS gender,
            coalesce(face.source, stated.source) AS source,
            coalesce(face.captured_at, stated.captured_at) AS captured_at,
            coalesce(face.track, stated.track) AS track,
            coalesce(face.frame, stated.frame) AS frame,
            -- What a model gave stands beside what is stated.
            CASE WHEN face.provenance -> 'tags' IS NOT NULL AND face.tags <@ ARRAY(
                SELECT jsonb_object_keys(face.provenance #> '{tags,confidence}')
            ) THEN coalesce(stated.tags, '{}') || ARRAY(
                SELECT tag FROM unnest(face.tags) AS tag
                WHERE stated.tags IS NULL OR tag <> ALL (stated.tags)
            ) ELSE coalesce(face.tags, stated.tags) END AS tags,
            stated.attributes || face.attributes AS attributes,
            -- A tag that is stated is no longer a model's guess.
            CASE WHEN face.provenance -> 'tags' IS NOT NULL AND stated.tags IS NOT NULL
                THEN jsonb_set(face.provenance, '{tags,confidence}',
                    (face.provenance #> '{tags,confidence}') - stated.tags)
                ELSE face.provenance END AS provenance
        FROM face JOIN jsonb_to_recordset(CAST(:stated AS jsonb)) AS stated (
            face bigint, person bigint, age double precision, gender text, source text,
            captured_at timestamptz, track text, frame bigint, tags text[], attributes jsonb
        ) ON stated.face = face.id
    )
    UPDATE face SET (person_id, age, gender, source, captured_at, track, frame, tags, attributes,
                     provenance) =
        (filled.person_id, filled.age, filled.gender, filled.source, filled.captured_at,
         filled.track, filled.frame, filled.tags, filled.attributes, filled.provenance)
    FROM filled
    WHERE face.id = filled.id
        AND (face.person_id, face.age, face.gender, face.source, face.captured_at,
             face.track, face.frame, face.tags, face.attributes, face.provenance)
        IS DISTINCT FROM
            (filled.person_id, filled.age, filled.gender, filled.source, filled.captured_at,
             filled.track, filled.frame, filled.tags, filled.attributes, filled.provenance)
""")
_FACE_IDS: Final = text("""
    SELECT nextval(pg_get_serial_sequence('face', 'id')) FROM generate_series(1, :count)
""")
_PERSONS: Final = text("""
    WITH asked AS (SELECT DISTINCT unnest(CAST(:names AS text[])) COLLATE "C" AS name),
    made AS (
        INSERT INTO person (collection_id, name) SELECT :collection, name FROM asked ORDER BY name
        ON CONFLICT (collection_id, name) DO NOTHING
        RETURNING id, name
    ),
    held AS (  -- until the faces are in: nobody merges or erases these persons meanwhile
        SELECT coalesce(person.merged_into, person.id) AS id, person.name
        FROM person JOIN asked USING (name)
        WHERE collection_id = :collection
        ORDER BY person.id
        FOR SHARE OF person
    )
    SELECT id, name FROM made
    UNION ALL
    SELECT id, name FROM held
""")
_COPY_FACES: Final = """
    COPY face (id, collection_id, image_id, person_id, external_id,
               box, landmarks, quality, sharpness, detector_score, size_px, yaw, pitch, roll,
               age, gender, source, origin, captured_at, track, frame, tags, attributes, provenance)
    FROM STDIN
"""
_COPY_VECTORS: Final = "COPY vector (face_id, space_id, data, norm) FROM STDIN (FORMAT BINARY)"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceFacts:
    """What is known of a face besides what the models say."""

    person: str | None = None
    external_id: str | None = None
    source: str | None = None
    origin: str = "captured"
    captured_at: datetime | None = None
    track: str | None = None
    frame: int | None = None
    tags: tuple[str, ...] | None = None
    age: float | None = None  # where it was stated; it outweighs an estimate
    gender: str | None = None
    captions: tuple[str, ...] = ()  # sentences about the face that came with it
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """One picture with its faces, ready to be stored."""

    sha256: bytes
    path: bytes
    member: str | None
    bytes: int
    width: int
    height: int
    format: str
    captured_at_assumed_utc: bool
    faces: Sequence[tuple[FaceReading, FaceFacts]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRefusal:
    """One picture that cannot become faces, and why."""

    sha256: bytes
    path: bytes
    member: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownImage:
    """A picture that is stored already."""

    id: ImageId
    path: bytes
    member: str | None
    persons: frozenset[str]  # names of its faces' persons, and of those merged into them


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFaces:
    """The faces of a stored picture."""

    width: int  # of the picture, in pixels
    height: int
    boxes: dict[FaceId, Box]


def known_images(
    connection: Connection, collection: Collection, hashes: Sequence[bytes]
) -> dict[bytes, KnownImage]:
    """Which of these contents are stored, by sha256."""
    found: dict[bytes, KnownImage] = {}
    rows = connection.execute(_KNOWN, {"collection": collection.id, "hashes": list(hashes)})
    for row in rows:
        before = found.get(row.sha256)
        persons = frozenset() if before is None else before.persons
        found[bytes(row.sha256)] = KnownImage(
            id=ImageId(row.id),
            path=row.path,
            member=row.member,
            persons=persons | set(row.persons),
        )
    return found


def known_refusals(
    connection: Connection, collection: Collection, hashes: Sequence[bytes]
) -> dict[bytes, str]:
    """Which of these contents were refused before, with the reason, by sha256."""
    rows = connection.execute(_REFUSED, {"collection": collection.id, "hashes": list(hashes)})
    return {bytes(row.sha256): row.reason for row in rows}


def forget_refusals(connection: Connection, collection: Collection) -> None:
    """Let every refused picture be tried again."""
    connection.execute(text("DELETE FROM refusal WHERE collection_id = :id"), {"id": collection.id})


def taken_external_ids(
    connection: Connection, ids: Sequence[str], *, collection: Collection
) -> set[str]:
    """Which of these ids faces of the collection bear."""
    rows = connection.execute(
        text(
            "SELECT external_id FROM face"
            " WHERE collection_id = :collection AND external_id = ANY(:ids)"
        ),
        {"collection": collection.id, "ids": list(ids)},
    )
    return set(rows.scalars())


def move_image(connection: Connection, image: ImageId, *, path: bytes, member: str | None) -> None:
    """Say where the content lies now."""
    connection.execute(
        text("UPDATE image SET path = :path, member = :member WHERE id = :id"),
        {"path": path, "member": member, "id": image},
    )


def known_faces(connection: Connection, images: Sequence[ImageId]) -> dict[ImageId, KnownFaces]:
    """The faces of stored pictures and where they lie."""
    found: dict[ImageId, KnownFaces] = {}
    for row in connection.execute(_FACES_OF, {"images": list(images)}):
        faces = found.setdefault(
            ImageId(row.image), KnownFaces(width=row.width, height=row.height, boxes={})
        )
        box = Box(**dict(zip(Box.__slots__, row.box, strict=True)))
        faces.boxes[FaceId(row.face)] = box
    return found


def fill_in(
    connection: Connection, stated: Mapping[FaceId, FaceFacts], *, collection: Collection
) -> None:
    """State of faces what was not known of them; what is known stays."""
    names = [facts.person for facts in stated.values() if facts.person]
    persons = persons_named(connection, names, collection=collection)
    rows = [
        {
            "face": face,
            "person": persons.get(facts.person or ""),
            "age": facts.age,
            "gender": facts.gender,
            "source": facts.source,
            "captured_at": json_value(facts.captured_at),
            "track": facts.track,
            "frame": facts.frame,
            "tags": json_value(facts.tags),
            "attributes": {name: json_value(value) for name, value in facts.attributes.items()},
        }
        for face, facts in stated.items()
    ]
    connection.execute(_FILL_IN, {"stated": json.dumps(rows)})
    add_captions(connection, _stated_captions(stated.items()), collection=collection)


def add_images(
    connection: Connection,
    images: Sequence[NewImage],
    *,
    collection: Collection,
    space: Space,
    text_space: Space | None = None,
) -> int:
    """Store pictures with their faces and vectors; give the number of faces that were new.

    A content that another writer stored meanwhile is left as it is.

    Args:
        connection: an open transaction.
        images: what was read.
        collection: whose.
        space: of the identity vectors.
        text_space: of the face-text vectors and of what made tags, where there are some.
    """
    if not images:
        return 0
    rows = connection.execute(
        _INSERT_IMAGES,
        {
            "collection": collection.id,
            "sha256": [image.sha256 for image in images],
            "path": [image.path for image in images],
            "member": [image.member for image in images],
            "bytes": [image.bytes for image in images],
            "width": [image.width for image in images],
            "height": [image.height for image in images],
            "format": [image.format for image in images],
            "assumed_utc": [image.captured_at_assumed_utc for image in images],
        },
    )
    ids = {bytes(row.sha256): ImageId(row.id) for row in rows}
    faces = [
        (ids[image.sha256], reading, facts)
        for image in images
        if image.sha256 in ids
        for reading, facts in image.faces
    ]
    _add_faces(connection, faces, collection=collection, space=space, text_space=text_space)
    return len(faces)


def add_refusals(
    connection: Connection, refusals: Sequence[NewRefusal], *, collection: Collection
) -> None:
    """Remember contents that cannot become faces, so that the next run need not decode them."""
    if refusals:
        connection.execute(
            _INSERT_REFUSALS,
            {
                "collection": collection.id,
                "sha256": [refusal.sha256 for refusal in refusals],
                "path": [refusal.path for refusal in refusals],
                "member": [refusal.member for refusal in refusals],
                "reason": [refusal.reason for refusal in refusals],
            },
        )


def persons_named(
    connection: Connection, names: Iterable[str], *, collection: Collection
) -> dict[str, PersonId]:
    """The persons of these names, made now where there are none.

    The name of a person that was merged into another means that one.
    """
    distinct = sorted(set(names))
    if not distinct:
        return {}
    wanted = {"collection": collection.id, "names": distinct}
    found = {row.name: PersonId(row.id) for row in connection.execute(_PERSONS, wanted)}
    if len(found) < len(distinct):
        # Another writer made one after this statement's snapshot was taken: now it is visible.
        found |= {row.name: PersonId(row.id) for row in connection.execute(_PERSONS, wanted)}
    return found


def _add_faces(
    connection: Connection,
    faces: Sequence[tuple[ImageId, FaceReading, FaceFacts]],
    *,
    collection: Collection,
    space: Space,
    text_space: Space | None,
) -> None:
    if not faces:
        return
    persons = persons_named(
        connection,
        (facts.person for _, _, facts in faces if facts.person),
        collection=collection,
    )
    ids = [FaceId(row[0]) for row in connection.execute(_FACE_IDS, {"count": len(faces)})]
    with copy(connection) as cursor:
        provider = "" if text_space is None else text_space.name
        _copy_faces(
            cursor, ids, faces, collection=collection, persons=persons, tag_provider=provider
        )
        readings = [reading for _, reading, _ in faces]
        _copy_vectors(cursor, ids, readings, space=space, text_space=text_space)
    stated = zip(ids, (facts for _, _, facts in faces), strict=True)
    add_captions(connection, _stated_captions(stated), collection=collection)


def _stated_captions(stated: Iterable[tuple[FaceId, FaceFacts]]) -> list[NewCaption]:
    return [NewCaption(face=face, text=said) for face, facts in stated for said in facts.captions]


def _copy_faces(
    cursor: DriverCursor,
    ids: Sequence[FaceId],
    faces: Sequence[tuple[ImageId, FaceReading, FaceFacts]],
    *,
    collection: Collection,
    persons: Mapping[str, PersonId],
    tag_provider: str,
) -> None:
    with cursor.copy(_COPY_FACES) as rows:
        for face, (image, reading, facts) in zip(ids, faces, strict=True):
            person = persons[facts.person] if facts.person else None
            rows.write_row(
                (
                    *(face, collection.id, image, person, facts.external_id),
                    *_measured(reading),
                    _stated_or_estimated("age", facts.age, reading),
                    _stated_or_estimated("gender", facts.gender, reading),
                    *_stated(facts),
                    joined_tags(facts.tags, reading.tags),
                    _as_json({**facts.attributes, **_extra(reading)}),
                    _provenance(reading, facts, tag_provider=tag_provider),
                )
            )


def _measured(reading: FaceReading) -> tuple[object, ...]:
    """The columns box to roll."""
    box, quality, pose = reading.detection.box, reading.quality, reading.pose
    return (
        [float(side) for side in (box.left, box.top, box.right, box.bottom)],
        reading.detection.landmarks.reshape(-1).tolist(),
        quality.total,
        quality.sharpness,
        quality.detector_score,
        box.side_px,
        pose.yaw,
        pose.pitch,
        pose.roll,
    )


def _stated_or_estimated(name: str, stated: Value, reading: FaceReading) -> Value:
    estimate = reading.estimates.get(name)
    return stated if stated is not None or estimate is None else estimate.value


def _stated(facts: FaceFacts) -> tuple[object, ...]:
    """The columns source to frame."""
    return (facts.source, facts.origin, facts.captured_at, facts.track, facts.frame)


def joined_tags(
    stated: Iterable[str] | None, given: Mapping[str, float] | None
) -> list[str] | None:
    """Tags that were stated, then those that a model gave; None: nobody looked.

    >>> joined_tags(("hat", "red"), {"glasses": 0.9, "hat": 0.7})
    ['hat', 'red', 'glasses']
    """
    if stated is None and given is None:
        return None
    return list(dict.fromkeys([*(stated or ()), *(given or ())]))


def _extra(reading: FaceReading) -> dict[str, Value]:
    """Estimates that have no typed column of their own."""
    return {
        name: estimate.value
        for name, estimate in reading.estimates.items()
        if name not in ("age", "gender")
    }


def _provenance(reading: FaceReading, facts: FaceFacts, *, tag_provider: str) -> str:
    claims: dict[str, object] = {
        name: {"provider": estimate.provider, "confidence": estimate.confidence}
        for name, estimate in reading.estimates.items()
    }
    if reading.tags is not None:
        # Of the tags that only the model gives: what was stated is nobody's guess.
        guessed = {tag: c for tag, c in reading.tags.items() if tag not in (facts.tags or ())}
        claims["tags"] = {"provider": tag_provider, "confidence": guessed}
    return json.dumps(claims)


def _as_json(attributes: Mapping[str, Value]) -> str:
    return json.dumps({name: json_value(value) for name, value in attributes.items()})


def json_value(value: Value) -> bool | int | float | str | list[str] | None:
    """How a declared attribute lies in jsonb: timestamps as ISO-8601 in UTC, tags as an array."""
    match value:
        case datetime():
            return value.isoformat(timespec="microseconds")
        case tuple():
            return list(value)
        case _:
            return value


def _copy_vectors(
    cursor: DriverCursor,
    ids: Sequence[FaceId],
    readings: Sequence[FaceReading],
    *,
    space: Space,
    text_space: Space | None,
) -> None:
    with cursor.copy(_COPY_VECTORS) as rows:
        rows.set_types(["int8", "int8", "bytea", "float4"])
        for face, reading in zip(ids, readings, strict=True):
            half = np.ascontiguousarray(reading.vector, dtype="<f2").tobytes()
            rows.write_row((face, space.id, half, reading.quality.vector_norm))
            if text_space is not None and reading.text_vector is not None:
                half = np.ascontiguousarray(reading.text_vector, dtype="<f2").tobytes()
                rows.write_row((face, text_space.id, half, None))
