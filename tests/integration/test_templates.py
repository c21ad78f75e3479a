"""Templates as an index holds them: always those of the faces that persons have now."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from indexer.build import build
from indexer.check import check
from retrieval.people.template import templates
from retrieval.reader import Reader
from retrieval.search import Question
from retrieval.store.collections import drop_collection
from retrieval.store.database import Store
from retrieval.store.holdings import PERSON_FIELDS, Persons
from retrieval.values import FaceIds, UnitRows, unit_rows
from tests.galleries import TestGallery, gallery, unit_vectors

FACES, PERSONS = 200, 30


@pytest.fixture
def faces(store: Store) -> TestGallery:
    """A gallery whose faces belong to persons, but for every seventh."""
    made = gallery(store)
    made.add(range(1, FACES + 1), unit_vectors(FACES))
    for number in range(PERSONS):
        made.execute(
            "INSERT INTO person (collection_id, name) VALUES (:c, :name)",
            c=made.collection.id,
            name=f"P{number}",
        )
    made.execute(
        "UPDATE face SET quality = (id % 10) / 10.0, person_id = "
        f"(SELECT min(id) FROM person) + id % {PERSONS} WHERE id % 7 <> 0"
    )
    return made


def persons_of(made: TestGallery) -> Persons:
    return Persons(made.store, made.collection, made.space)


def truth(made: TestGallery) -> dict[int, bytes]:
    """The template of every person, worked out from the rows of the store."""
    with made.store.reading() as connection:
        rows = connection.execute(
            text(
                "SELECT person_id, quality, data FROM face JOIN vector ON face_id = face.id"
                " WHERE person_id IS NOT NULL AND origin = 'captured' ORDER BY person_id, face.id"
            )
        ).all()
    if not rows:
        return {}
    vectors = np.stack([np.frombuffer(row.data, "<f2") for row in rows])
    quality = np.array([np.nan if row.quality is None else row.quality for row in rows])
    persons, made_of = templates(vectors, quality, np.array([row.person_id for row in rows]))
    return {
        int(one): row.astype("<f2").tobytes() for one, row in zip(persons, made_of, strict=True)
    }


def held(index: Reader) -> dict[int, bytes]:
    """The template of every person, as the index has it."""
    ids: FaceIds = np.concatenate([part.ids for part in index.view.parts()])
    vectors, there = index.view.vectors_of(ids)
    assert there.all()
    return {int(one): row.tobytes() for one, row in zip(ids, vectors, strict=True)}


@pytest.mark.parametrize("batch_rows", [1, 7, 10_000])
def test_all_templates_are_read_whatever_the_batches(faces: TestGallery, batch_rows: int) -> None:
    with persons_of(faces).everything(PERSON_FIELDS, batch_rows=batch_rows) as everything:
        tables = [batch.to_pydict() for batch in everything.batches]
    found = {
        person: vector
        for table in tables
        for person, vector in zip(table["face"], table["vector"], strict=True)
    }
    assert everything.rows == len(found) == PERSONS
    assert found == truth(faces)


def test_the_number_of_faces_is_told(faces: TestGallery) -> None:
    with persons_of(faces).everything(PERSON_FIELDS, batch_rows=100) as everything:
        counts = [n for batch in everything.batches for n in batch.column("faces").to_pylist()]
    assert sum(counts) == FACES - FACES // 7


CHANGES = (
    "UPDATE face SET person_id = (SELECT id FROM person OFFSET {n} LIMIT 1) WHERE id = {face}",
    "UPDATE face SET person_id = NULL WHERE id = {face}",
    "UPDATE face SET quality = 0.{n} WHERE id = {face}",
    "UPDATE face SET origin = 'generated' WHERE id = {face}",
    "UPDATE face SET origin = 'captured' WHERE id % 5 = {n} % 5",
    "UPDATE vector SET data = (SELECT data FROM vector WHERE face_id = {face}) WHERE face_id = {n}",
    "DELETE FROM face WHERE id = {face}",
    "DELETE FROM vector WHERE face_id = {face}",
    "DELETE FROM person WHERE id = (SELECT id FROM person ORDER BY id OFFSET {n} LIMIT 1)",
    "UPDATE face SET age = {n} WHERE id = {face}",
    """INSERT INTO face (id, collection_id, person_id)
    SELECT (SELECT max(id) + 1 FROM face), min(collection_id), max(id) FROM person""",
)


@pytest.mark.parametrize("built", [False, True])
def test_an_index_of_persons_follows_every_change(
    faces: TestGallery, tmp_path: Path, *, built: bool
) -> None:
    if built:
        assert build(persons_of(faces), home=tmp_path).rows == PERSONS
    index = Reader.open(persons_of(faces), home=tmp_path)
    chance = random.Random(3)
    assert held(index) == truth(faces)
    for _ in range(60):
        statement = chance.choice(CHANGES)
        faces.execute(statement.format(face=chance.randint(1, FACES), n=chance.randint(1, 9)))
        index.refresh()
        assert held(index) == truth(faces), statement
    assert check(index).differences == ()


def test_what_does_not_touch_a_template_is_not_logged(faces: TestGallery) -> None:
    faces.execute("DELETE FROM person_change")
    faces.execute("UPDATE face SET age = 30, tags = '{a}'")
    faces.execute("UPDATE person SET name = name || 'x'")
    with faces.store.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM person_change")) == 0


def test_a_write_past_the_triggers_of_ordinary_sessions_is_logged(faces: TestGallery) -> None:
    faces.execute("DELETE FROM person_change")
    with faces.store.writing() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE face SET person_id = NULL WHERE id = 1"))
    with faces.store.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM person_change")) == 1


def test_the_log_of_persons_is_pruned_with_that_of_faces_and_goes_with_the_collection(
    faces: TestGallery, tmp_path: Path
) -> None:
    def logged() -> int:
        with faces.store.reading() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM person_change")))

    assert logged() > 0
    for _ in range(2):  # the watermark of the first is kept with the snapshot before
        build(persons_of(faces), home=tmp_path)
        build(faces.holding, home=tmp_path)
    assert logged() == 0
    index = Reader.open(persons_of(faces), home=tmp_path)
    faces.execute("UPDATE face SET person_id = NULL WHERE id = 1")
    index.refresh()
    assert held(index) == truth(faces)
    with faces.store.writing() as connection:
        drop_collection(connection, faces.collection)
    assert logged() == 0


def test_a_person_is_found_by_its_template(faces: TestGallery, tmp_path: Path) -> None:
    index = Reader.open(persons_of(faces), home=tmp_path)
    person, vector = next(iter(truth(faces).items()))
    probe = UnitRows(unit_rows(np.frombuffer(vector, "<f2")))
    answer = index.search(Question(vectors=probe, count=3, recall="certified"))
    assert int(answer.hits[0].ids[0]) == person
    assert float(answer.hits[0].similarities[0]) == pytest.approx(1.0, abs=1e-6)


def test_snapshots_of_faces_and_of_persons_lie_apart(faces: TestGallery, tmp_path: Path) -> None:
    of_persons, of_faces = (build(one, home=tmp_path) for one in (persons_of(faces), faces.holding))
    assert of_persons.folder.parent != of_faces.folder.parent
    readers: list[Any] = [
        Reader.open(one, home=tmp_path) for one in (persons_of(faces), faces.holding)
    ]
    assert [one.status().snapshot for one in readers] == [of_persons.snapshot, of_faces.snapshot]
    assert [one.status().rows for one in readers] == [PERSONS, FACES]
