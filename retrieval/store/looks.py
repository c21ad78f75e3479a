"""Faces that a face-text model has not looked at yet, and what it says once it has.

Which faces those are is asked of the faces themselves, so work that was cut off goes on where it
stopped, whoever did the rest. Writing is idempotent: a vector that is there stays, and tags of a
model that gave some already are left as they are.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, assert_never

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, exists, func, select, text
from sqlalchemy.dialects.postgresql import aggregate_order_by

from retrieval.filters.tree import Filter
from retrieval.store.tables import face, image, vector
from retrieval.store.where import FACES_WITH_PERSONS, where
from retrieval.values import Collection, FaceId, Floats, ImageId, Space

# Rows are locked by face, like everywhere: two writers of the same faces never deadlock.
_ADD_VECTORS: Final = text("""
    INSERT INTO vector (face_id, space_id, data)
    SELECT face.id, :space, told.data
    FROM unnest(CAST(:faces AS bigint[]), CAST(:vectors AS bytea[])) AS told (id, data)
        JOIN face USING (id)
    ORDER BY face.id
    FOR KEY SHARE OF face  -- one that is deleted meanwhile is left out
    ON CONFLICT (face_id, space_id) DO NOTHING
""")
# What an earlier model guessed goes, what was stated stays.
_GIVE_TAGS: Final = text("""
    WITH kept AS (
        SELECT face.id, told.given, ARRAY(
            SELECT tag FROM unnest(face.tags) AS tag
            WHERE NOT coalesce((face.provenance #> '{tags,confidence}') ? tag, false)
        ) AS stated
        FROM jsonb_to_recordset(CAST(:told AS jsonb)) AS told (face bigint, given jsonb)
            JOIN face ON face.id = told.face
        WHERE face.provenance #>> '{tags,provider}' IS DISTINCT FROM :provider
        ORDER BY face.id
        FOR UPDATE OF face
    )
    UPDATE face SET
        tags = kept.stated || ARRAY(SELECT jsonb_object_keys(kept.given - kept.stated)),
        provenance = face.provenance || jsonb_build_object('tags', jsonb_build_object(
            'provider', CAST(:provider AS text), 'confidence', kept.given - kept.stated))
    FROM kept
    WHERE face.id = kept.id
""")


class Lacking(StrEnum):
    """What a face may lack of a face-text model."""

    VECTOR = "vector"
    TAGS = "tags"


@dataclass(frozen=True, slots=True, kw_only=True)
class LackingPicture:
    """A stored picture with the faces that were not looked at."""

    image: ImageId
    path: bytes
    member: str | None
    sha256: bytes
    landmarks: Mapping[FaceId, Floats]  # (5, 2) pixels of the upright picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a face-text model says of one face."""

    face: FaceId
    vector: Floats  # (d,) unit length
    tags: Mapping[str, float] | None  # given tags with their chances; None: the model tells none


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """How much there is to do."""

    pictures: int
    faces: int  # in these pictures
    unseen: int  # faces that lack it too, but came without a picture or landmarks


def count_lacking(
    connection: Connection,
    *,
    collection: Collection,
    space: Space,
    lacking: Lacking,
    filter_: Filter | None,
) -> Lack:
    """How many pictures and faces `lacking_pictures` would give."""
    seen = _seen()
    row = connection.execute(
        select(
            func.count(face.c.image_id.distinct()).filter(seen).label("pictures"),
            func.count().filter(seen).label("faces"),
            func.count().filter(~seen).label("unseen"),
        )
        .select_from(FACES_WITH_PERSONS)
        .where(*_conditions(collection, space, lacking, filter_))
    ).one()
    return Lack(pictures=row.pictures, faces=row.faces, unseen=row.unseen)


def lacking_pictures(
    connection: Connection,
    *,
    collection: Collection,
    space: Space,
    lacking: Lacking,
    filter_: Filter | None,
    after: ImageId,
    count: int,
) -> list[LackingPicture]:
    """At most `count` pictures with a number above `after` that have faces to look at."""
    page = _page(collection, space, lacking, filter_, after=after, count=count)
    return [_picture(row) for row in connection.execute(page)]


def add_looks(connection: Connection, looks: Sequence[Look], *, space: Space) -> None:
    """Store vectors where there are none, and tags where this model gave none yet.

    Faces that were deleted meanwhile are left out.
    """
    tagged = [{"face": one.face, "given": one.tags} for one in looks if one.tags is not None]
    if tagged:
        given = {"told": json.dumps(tagged, default=dict), "provider": space.name}
        connection.execute(_GIVE_TAGS, given)
    if looks:
        halves = [np.ascontiguousarray(one.vector, dtype="<f2").tobytes() for one in looks]
        faces = [one.face for one in looks]
        connection.execute(_ADD_VECTORS, {"space": space.id, "faces": faces, "vectors": halves})


def _page(
    collection: Collection,
    space: Space,
    lacking: Lacking,
    filter_: Filter | None,
    *,
    after: ImageId,
    count: int,
) -> Select[Any]:
    in_order = aggregate_order_by(face.c.id, face.c.id)
    return (
        select(
            image.c.id,
            image.c.path,
            image.c.member,
            image.c.sha256,
            func.array_agg(in_order).label("faces"),
            func.array_agg(aggregate_order_by(face.c.landmarks, face.c.id)).label("landmarks"),
        )
        .select_from(FACES_WITH_PERSONS.join(image, image.c.id == face.c.image_id))
        .where(*_conditions(collection, space, lacking, filter_), _seen())
        # Said of both, so that neither of their indexes is read from its beginning.
        .where(face.c.image_id > after, image.c.id > after)
        .group_by(image.c.id)
        .order_by(image.c.id)
        .limit(count)
    )


def _conditions(
    collection: Collection, space: Space, lacking: Lacking, filter_: Filter | None
) -> list[ColumnElement[bool]]:
    conditions = [face.c.collection_id == collection.id, _lacks(space, lacking)]
    if filter_ is not None:
        conditions.append(where(filter_))
    return conditions


def _lacks(space: Space, lacking: Lacking) -> ColumnElement[bool]:
    match lacking:
        case Lacking.VECTOR:
            held = (vector.c.face_id == face.c.id) & (vector.c.space_id == space.id)
            return ~exists(select(vector.c.face_id).where(held))
        case Lacking.TAGS:
            provider = face.c.provenance["tags"]["provider"].astext
            other: ColumnElement[bool] = provider.is_distinct_from(space.name)
            return other
        case _:
            assert_never(lacking)


def _seen() -> ColumnElement[bool]:
    """Whether a face can be looked at again."""
    return face.c.image_id.is_not(None) & face.c.landmarks.is_not(None)


def _picture(row: Any) -> LackingPicture:
    points = np.array(row.landmarks, np.float32).reshape(-1, 5, 2)
    return LackingPicture(
        image=ImageId(row.id),
        path=bytes(row.path),
        member=row.member,
        sha256=bytes(row.sha256),
        landmarks={FaceId(one): place for one, place in zip(row.faces, points, strict=True)},
    )
