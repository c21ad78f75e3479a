"""Labelled faces: those of the filter that have a person and a vector, each with what it is of."""

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.filters.parse import parse
from retrieval.store.database import Store
from retrieval.store.labelled import Labelled, checked_group, read_labelled
from tests.galleries import TestGallery, gallery, unit_vectors

FACES = 60
VECTORS = unit_vectors(FACES)


@pytest.fixture
def faces(store: Store) -> TestGallery:
    """Face n belongs to person n % 7 but for every fifth; some have a picture, quality, shelf."""
    made = gallery(store)
    shelves = [f'{{"shelf": "{"ab"[n % 2]}"}}' if n % 3 else "{}" for n in range(FACES)]
    made.add(range(FACES), VECTORS, attributes=shelves)
    for number in range(7):
        made.execute(
            "INSERT INTO person (collection_id, name) VALUES (:c, :name)",
            c=made.collection.id,
            name=None if number == 6 else f"P{number}",
        )
    made.execute(
        "UPDATE face SET person_id = (SELECT min(id) FROM person) + id % 7,"
        " quality = CASE WHEN id % 4 > 0 THEN id / 100.0 END WHERE id % 5 > 0"
    )
    for number, path, member in ((1, b"/a/one.jpg", None), (2, b"/a/\xff.tar", "b/two.jpg")):
        made.execute(
            "WITH added AS (INSERT INTO image (collection_id, sha256, path, member, bytes, width,"
            " height, format) VALUES (:c, :sha, :path, :member, 1, 1, 1, 'JPEG') RETURNING id)"
            " UPDATE face SET image_id = added.id FROM added WHERE face.id = :face",
            c=made.collection.id,
            sha=bytes([number] * 32),
            path=path,
            member=member,
            face=number,
        )
    return made


def read(faces: TestGallery, *, where: str | None = None, by: str | None = None) -> Labelled:
    fields = faces.fields()
    return read_labelled(
        faces.store,
        collection=faces.collection,
        space=faces.space,
        filter_=None if where is None else parse(where, fields),
        group=None if by is None else checked_group(by, fields),
    )


def test_each_face_of_a_person_comes_once_by_person_with_what_it_is_of(faces: TestGallery) -> None:
    found = read(faces, by="shelf")
    truth = sorted((n % 7, n) for n in range(FACES) if n % 5)
    assert found.faces.tolist() == [face for _, face in truth]
    first = found.persons.min()
    assert (found.persons - first).tolist() == [person for person, _ in truth]
    for row, (_, face) in enumerate(truth):
        assert found.vectors[row] == pytest.approx(VECTORS[face], abs=1e-3)
        known = face % 4 > 0
        assert np.isnan(found.quality[row]) == (not known)
        assert not known or found.quality[row] == pytest.approx(face / 100)
        assert found.groups[row] == ("ab"[face % 2] if face % 3 else None)
    assert np.linalg.norm(found.vectors, axis=1) == pytest.approx(1, abs=1e-6)
    images = dict(zip(found.faces.tolist(), found.images, strict=True))
    assert (images[1], images[2], images[3]) == ("/a/one.jpg", "/a/\\xff.tar!b/two.jpg", None)


def test_only_faces_that_pass_the_filter_come(faces: TestGallery) -> None:
    found = read(faces, where="shelf = 'a' AND quality >= 0.2")
    truth = {n for n in range(20, FACES) if n % 5 and n % 4 and n % 3 and n % 2 == 0}
    assert set(found.faces.tolist()) == truth
    assert set(found.groups) == {None}
    assert len(read(faces, where="quality > 2")) == 0


def test_vectors_of_another_space_or_collection_do_not_come(faces: TestGallery) -> None:
    other = gallery(faces.store, name="other", space="other@1")
    assert len(read(other)) == 0
    faces.execute(
        "WITH gone AS (DELETE FROM vector WHERE face_id = 1 RETURNING data)"
        " INSERT INTO vector (face_id, space_id, data) SELECT 1, :other, data FROM gone",
        other=other.space.id,
    )
    assert 1 not in read(faces).faces


@pytest.mark.parametrize(
    ("by", "told"),
    [
        ("shelff", "no field is called 'shelff'; did you mean 'shelf'"),
        ("person", "'person' says who somebody is"),
        ("weight", "'weight' holds number: group by text, integer or boolean"),
    ],
)
def test_a_field_that_makes_no_groups_is_an_error(faces: TestGallery, by: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        checked_group(by, faces.fields())
