"""A made-up collection with persons, and the database as text: what tests of persons share."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy import text

from retrieval.store import collections as tenants
from retrieval.store.database import Store
from retrieval.store.images import FaceFacts, NewImage, add_images
from retrieval.values import (
    Box,
    Collection,
    Detection,
    FaceId,
    FaceReading,
    Pose,
    Quality,
    Space,
    SpaceId,
    unit_rows,
)

SPACE = Space(
    id=SpaceId(0),
    name="test@1",
    dimension=8,
    model_sha256="ab" * 32,
    licence="none",
    commercial=True,
)
_TABLES = text("""
    SELECT relname FROM pg_class
    WHERE relkind = 'r' AND relnamespace = CAST('public' AS regnamespace)
""")
# What tells of operations; all else has to be as before once they are undone.
LOGS = {
    *("person_event", "person_event_name", "audit"),
    *("face_change", "person_change", "caption_change"),
}


def reading(seed: int, *, quality: float = 0.5) -> FaceReading:
    """A face that no model saw."""
    return FaceReading(
        detection=Detection(
            box=Box(left=1, top=2, right=31, bottom=42),
            landmarks=np.arange(10, dtype=np.float32).reshape(5, 2),
            score=0.75,
        ),
        pose=Pose(yaw=1, pitch=2, roll=3),
        quality=Quality(
            total=quality, size=1, sharpness=0.5, frontality=1, detector_score=0.75, vector_norm=20
        ),
        vector=unit_rows(np.random.default_rng(seed).standard_normal(8))[0],
        estimates={},
    )


def picture(number: int, names: Sequence[str | None]) -> NewImage:
    """A picture with a face of each of these persons; None: nobody's."""
    return NewImage(
        sha256=number.to_bytes(32, "big"),
        path=f"/pictures/{number}.jpg".encode(),
        member=None,
        bytes=1000,
        width=100,
        height=200,
        format="JPEG",
        captured_at_assumed_utc=False,
        faces=[
            (reading(100 * number + place), FaceFacts(person=name))
            for place, name in enumerate(names)
        ],
    )


def gallery(
    store: Store, pictures: Sequence[Sequence[str | None]], *, name: str = "gallery"
) -> Collection:
    """A collection of pictures, each given as the names of its faces."""
    with store.writing() as connection:
        collection = tenants.collection_or_new(connection, name)
        space = tenants.space_or_new(connection, SPACE)
        collection = tenants.search_in(connection, collection, space)
        images = [picture(number, names) for number, names in enumerate(pictures, start=1)]
        add_images(connection, images, collection=collection, space=space)
    return collection


def faces_of(store: Store, name: str | None) -> list[FaceId]:
    """The faces of the person of that name; None: those of nobody."""
    owned = (
        "SELECT face.id FROM face JOIN person ON person.id = person_id WHERE person.name = :name"
    )
    free = "SELECT id FROM face WHERE person_id IS NULL"
    with store.reading() as connection:
        rows = connection.scalars(text(free if name is None else owned), {"name": name})
        return sorted(FaceId(face) for face in rows)


def dump(store: Store, *, without: set[str] = LOGS) -> dict[str, list[str]]:
    """Every row of every table but those, as text."""
    with store.reading() as connection:
        tables = connection.scalars(_TABLES).all()
        return {
            table: sorted(connection.scalars(text(f'SELECT t::text FROM "{table}" t')))
            for table in tables
            if table not in without
        }
