"""What a face-text model says of faces, in the store: a second vector, tags, and who gave them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

from retrieval.store import collections as tenants
from retrieval.store.database import Store
from retrieval.store.faces import vector_of
from retrieval.store.images import FaceFacts, add_images, fill_in
from retrieval.store.looks import Lacking, _page
from retrieval.values import Collection, FaceId, FaceReading, ImageId, Space, SpaceId, unit_rows
from tests.people import SPACE, faces_of, picture

LOOKS = Space(
    id=SpaceId(0),
    name="looks@1",
    dimension=4,
    model_sha256="cd" * 32,
    licence="none",
    commercial=True,
)
VECTOR = unit_rows(np.array([1.0, 2.0, 3.0, 4.0]))[0]
MANY_IMAGES = text("""
    INSERT INTO image (collection_id, sha256, path, bytes, width, height, format,
                       captured_at_assumed_utc)
    SELECT :collection, sha256(convert_to(CAST(i AS text), 'UTF8')), 'x', 1, 1, 1, 'JPEG', false
    FROM generate_series(1, 20000) AS i
""")
A_FACE_EACH = text("""
    INSERT INTO face (collection_id, image_id, landmarks, origin)
    SELECT :collection, id, CAST(array_fill(0, ARRAY[10]) AS real[]), 'captured' FROM image
""")


def told(face: FaceReading, tags: dict[str, float] | None) -> FaceReading:
    return replace(face, text_vector=VECTOR, tags=tags)


def stored(
    store: Store, stated: Sequence[str] | None, given: dict[str, float] | None
) -> tuple[Collection, Space, FaceId]:
    """One face, with tags that were stated and tags that a model gave."""
    [(face, _)] = picture(1, [None]).faces
    facts = FaceFacts(tags=None if stated is None else tuple(stated))
    image = replace(picture(1, [None]), faces=[(told(face, given), facts)])
    with store.writing() as connection:
        collection = tenants.collection_or_new(connection, "gallery")
        space = tenants.space_or_new(connection, SPACE)
        looks = tenants.space_or_new(connection, LOOKS)
        tenants.search_in(connection, collection, space)
        tenants.set_text_space(connection, collection, looks)
        add_images(connection, [image], collection=collection, space=space, text_space=looks)
    [number] = faces_of(store, None)
    return collection, looks, number


def row(store: Store, face: FaceId) -> Any:
    with store.reading() as connection:
        return connection.execute(
            text("SELECT tags, provenance FROM face WHERE id = :id"), {"id": face}
        ).one()


def test_both_vectors_of_a_face_are_stored(store: Store) -> None:
    collection, looks, face = stored(store, None, None)
    with store.reading() as connection:
        found = vector_of(connection, face, collection=collection, space=looks)
        identity = tenants.space_of(connection, tenants.collection_named(connection, "gallery"))
        other = vector_of(connection, face, collection=collection, space=identity)
    np.testing.assert_allclose(found[0], VECTOR, atol=1e-3)
    np.testing.assert_allclose(other[0], picture(1, [None]).faces[0][0].vector, atol=1e-3)


@pytest.mark.parametrize(
    ("stated", "given", "tags"),
    [
        (None, None, None),
        (["red"], None, ["red"]),
        (None, {}, []),  # a model looked and saw nothing: NOT 'hat' = ANY(tags) is true
        (None, {"hat": 0.75}, ["hat"]),
        (["red", "hat"], {"glasses": 0.9, "hat": 0.75}, ["red", "hat", "glasses"]),
    ],
)
def test_stated_tags_and_given_ones_are_joined(
    store: Store, stated: list[str] | None, given: dict[str, float] | None, tags: list[str] | None
) -> None:
    found = row(store, stored(store, stated, given)[2])
    assert found.tags == tags
    guessed = {tag: chance for tag, chance in (given or {}).items() if tag not in (stated or ())}
    claim = {"provider": "looks@1", "confidence": guessed}
    assert found.provenance == ({} if given is None else {"tags": claim})


@pytest.mark.parametrize(
    ("stated", "given", "later", "tags"),
    [
        (None, {"hat": 0.75}, ["red"], ["red", "hat"]),
        (None, {"hat": 0.75}, ["hat"], ["hat"]),
        (None, {"hat": 0.75}, None, ["hat"]),
        (None, {}, ["blue"], ["blue"]),
        (["red"], {"hat": 0.75}, ["blue"], ["red", "hat"]),  # what was stated first stays
        (["red"], None, ["blue"], ["red"]),
        (None, None, ["blue"], ["blue"]),
        ([], None, ["blue"], []),
    ],
)
def test_tags_that_are_stated_later_stand_beside_given_ones(
    store: Store,
    stated: list[str] | None,
    given: dict[str, float] | None,
    later: list[str] | None,
    tags: list[str],
) -> None:
    collection, _, face = stored(store, stated, given)
    facts = FaceFacts(tags=None if later is None else tuple(later))
    for _ in range(2):
        with store.writing() as connection:
            fill_in(connection, {face: facts}, collection=collection)
        found = row(store, face)
        assert found.tags == tags
        if given is not None:
            assert found.provenance["tags"]["confidence"].keys() == set(given) - set(later or ())


@pytest.mark.parametrize("lacking", Lacking)
def test_a_page_of_pictures_to_look_at_is_read_by_index(store: Store, lacking: Lacking) -> None:
    with store.writing() as connection:
        collection = tenants.collection_or_new(connection, "many")
        looks = tenants.space_or_new(connection, LOOKS)
        of_it = {"collection": collection.id}
        connection.execute(MANY_IMAGES, of_it)
        connection.execute(A_FACE_EACH, of_it)
        connection.execute(text("ANALYZE image, face, vector"))
    page = _page(collection, looks, lacking, None, after=ImageId(10_000), count=100)
    with store.reading() as connection:
        compiled = page.compile(
            dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}
        )
        explained = text("EXPLAIN " + str(compiled).replace(":", "\\:"))
        plan = "\n".join(connection.scalars(explained))
        pictures = connection.execute(page).all()
    assert "Seq Scan on face" not in plan
    assert "Seq Scan on image" not in plan
    assert "Index Cond: (image_id > 10000)" in plan
    assert "Index Cond: (id > 10000)" in plan or "Index Cond: ((id > 10000)" in plan, plan
    assert len(pictures) == 100
