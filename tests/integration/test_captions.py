"""Sentences about faces: stored, found by words and by vector, and gone with their face."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import text

from indexer.build import build
from indexer.check import check
from retrieval.errors import UnknownNameError, UnusableVectorError, UsageError
from retrieval.filters.parse import parse
from retrieval.reader import Reader
from retrieval.search import Question
from retrieval.store.captions import (
    Caption,
    NewCaption,
    add_caption_vectors,
    add_captions,
    caption_records,
    captions_of,
    captions_without_vector,
    count_captions_without_vector,
    matching,
)
from retrieval.store.collections import (
    collection_named,
    drop_collection,
    set_text_space,
    space_or_new,
    text_space_of,
)
from retrieval.store.database import Store
from retrieval.store.faces import delete_faces
from retrieval.store.holdings import Captions, Faces, Kind, holding_of, kinds_of
from retrieval.values import CaptionId, Collection, FaceId, Space, SpaceId, UnitRows, unit_rows
from tests.galleries import TestGallery, gallery, unit_vectors

DIMENSION = 8
FACES = 120
WORDS = ("beard", "hat", "smiling", "glasses", "Brille", "lächelt", "chapeau", "one", "two")
Database = psycopg.Connection[Any]


def text_space(store: Store, name: str = "words@1") -> Space:
    wanted = Space(
        id=SpaceId(0),
        name=name,
        dimension=DIMENSION,
        model_sha256=None,
        licence="none",
        commercial=True,
    )
    with store.writing() as connection:
        return space_or_new(connection, wanted)


def add(made: TestGallery, *captions: tuple[int, str]) -> list[CaptionId]:
    new = [NewCaption(face=FaceId(face), text=said) for face, said in captions]
    with made.store.writing() as connection:
        return add_captions(connection, new, collection=made.collection)


def found(made: TestGallery, words: str, where_: str | None = None, count: int = 999) -> list[int]:
    filter_ = None if where_ is None else parse(where_, made.fields())
    with made.store.reading() as connection:
        return [
            *matching(connection, words, collection=made.collection, filter_=filter_, count=count)
        ]


@pytest.fixture
def faces(store: Store) -> TestGallery:
    """A gallery whose odd faces have looks and which has a face-text space."""
    made = gallery(store)
    ages = [float(face % 50) if face % 4 else None for face in range(1, FACES + 1)]
    shelves = [f'{{"shelf": "{"ab"[face % 2]}"}}' for face in range(1, FACES + 1)]
    made.add(range(1, FACES + 1), unit_vectors(FACES), ages=ages, attributes=shelves)
    words = text_space(store)
    with store.writing() as connection:
        collection = set_text_space(connection, made.collection, words)
    return TestGallery(store, collection, made.space)


@pytest.fixture
def sql(database_url: str) -> Iterator[Database]:
    """Somebody's psql: every statement a transaction of its own."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def words_space(made: TestGallery) -> Space:
    with made.store.reading() as connection:
        return text_space_of(connection, made.collection)


def test_a_collection_has_at_most_one_face_text_space_and_says_what_to_do_without(
    store: Store,
) -> None:
    made, words = gallery(store), text_space(store)
    with store.writing() as connection:
        with pytest.raises(UnknownNameError, match=r"no face-text space.*`facedex space add"):
            text_space_of(connection, made.collection)
        with pytest.raises(UsageError, match="'test@1' is the space of identities"):
            set_text_space(connection, made.collection, made.space)
        changed = set_text_space(connection, made.collection, words)
        assert changed == collection_named(connection, "gallery")
        assert text_space_of(connection, changed) == words
        assert (changed.space_id, changed.text_space_id) == (made.space.id, words.id)
        assert set_text_space(connection, changed, None) == made.collection


def test_kinds_of_index_choose_their_space(faces: TestGallery) -> None:
    assert kinds_of(faces.collection) == tuple(Kind)
    spaces = {kind: holding_of(faces.store, faces.collection, kind) for kind in Kind}
    assert {kind: (one.kind, one.space.name) for kind, one in spaces.items()} == {
        Kind.FACES: (Kind.FACES, "test@1"),
        Kind.PERSONS: (Kind.PERSONS, "test@1"),
        Kind.LOOKS: (Kind.LOOKS, "words@1"),
        Kind.CAPTIONS: (Kind.CAPTIONS, "words@1"),
    }
    without = gallery(faces.store, name="other").collection
    assert kinds_of(without) == (Kind.FACES, Kind.PERSONS)
    with pytest.raises(UnknownNameError, match="no face-text space"):
        holding_of(faces.store, without, Kind.LOOKS)


# The store


def test_a_sentence_is_stored_once_for_a_face_and_keeps_its_number(faces: TestGallery) -> None:
    first = add(faces, (2, "a hat"), (1, "a hat"), (2, "glasses"))
    again = add(faces, (2, "glasses"), (3, "a hat"), (2, "a hat"), (3, "a hat"))
    assert again == [first[2], again[1], first[0], again[1]]
    assert len({*first, *again}) == 4
    with faces.store.reading() as connection:
        by_face = captions_of(connection, map(FaceId, (1, 2, 9)), collection=faces.collection)
        records = caption_records(connection, [first[1], again[1]], collection=faces.collection)
    said = {face: [one.text for one in captions] for face, captions in by_face.items()}
    assert said == {1: ["a hat"], 2: ["a hat", "glasses"]}
    assert records == {
        first[1]: Caption(id=first[1], face=FaceId(1), text="a hat", provider="stated"),
        again[1]: Caption(id=again[1], face=FaceId(3), text="a hat", provider="stated"),
    }


def test_writers_of_the_same_captions_in_any_order_do_not_stop_one_another(
    faces: TestGallery,
) -> None:
    captions = [
        (face, f"{word} {turn}") for turn in range(6) for face in (1, 2, 3) for word in WORDS
    ]

    def write(seed: int) -> list[CaptionId]:
        mixed = random.Random(seed).sample(captions, len(captions))
        ids = [one for part in range(6) for one in add(faces, *mixed[27 * part : 27 * part + 27])]
        return [ids[mixed.index(one)] for one in captions]

    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(write, range(4)))
    assert all(one == told[0] for one in told)
    assert len(set(told[0])) == len(captions)


def test_captions_may_be_as_long_as_any_text(faces: TestGallery) -> None:
    long = " ".join(f"word{n}" for n in range(1_000))
    assert add(faces, (1, long), (1, long + "!")) == add(faces, (1, long), (1, long + "!"))


def test_a_face_of_another_collection_gets_no_caption_and_nothing_is_stored(
    faces: TestGallery,
) -> None:
    other = gallery(faces.store, name="other")
    other.add([500], unit_vectors(1))
    with pytest.raises(UnknownNameError, match="not in collection 'gallery'"):
        add(faces, (1, "a hat"), (500, "a hat"))
    assert found(faces, "hat") == found(other, "hat") == []


def test_captions_without_a_vector_are_told_until_they_have_one(faces: TestGallery) -> None:
    ids = add(faces, *((face, f"number {face}") for face in range(1, 8)))
    space, other = words_space(faces), text_space(faces.store, "words@2")
    vectors = unit_vectors(3, seed=1)
    with faces.store.writing() as connection:
        add_caption_vectors(connection, ids[1:4], vectors, space=space)
        # One that is gone meanwhile is left out; a second time the same changes nothing.
        gone = CaptionId(10**6)
        add_caption_vectors(connection, [gone, ids[1]], unit_rows(vectors[[2, 0]]), space=space)
        with pytest.raises(UnusableVectorError, match="8 dimensions in 'words@1'"):
            add_caption_vectors(connection, ids[:2], unit_vectors(2, dimension=4), space=space)
    lacking = [ids[0], *ids[4:]]
    with faces.store.reading() as connection:

        def told(space: Space, after: int, count: int) -> list[CaptionId]:
            return [
                one.id
                for one in captions_without_vector(
                    connection,
                    collection=faces.collection,
                    space=space,
                    after=CaptionId(after),
                    count=count,
                )
            ]

        assert told(space, 0, 99) == sorted(lacking)
        assert told(space, min(lacking), 2) == sorted(lacking)[1:3]
        assert told(other, 0, 99) == sorted(ids)
        lacks = [
            count_captions_without_vector(connection, collection=faces.collection, space=one)
            for one in (space, other)
        ]
        kept = connection.execute(text("SELECT caption_id, data FROM caption_vector")).all()
    assert lacks == [4, 7]
    assert {row.caption_id: row.data for row in kept} == {
        number: row.astype("<f2").tobytes() for number, row in zip(ids[1:4], vectors, strict=True)
    }


# Words


def sentences(chance: random.Random) -> list[tuple[int, str]]:
    return [
        (chance.randint(1, FACES), " ".join(chance.choices(WORDS, k=chance.randint(1, 5))))
        for _ in range(150)
    ]


def expected(said: list[tuple[int, str]], wanted: list[str], unwanted: list[str]) -> list[set[int]]:
    """Faces with a sentence that has all, or any, of the words, and none of the unwanted ones."""
    held = [(face, set(sentence.split())) for face, sentence in said]
    fine = [(face, words) for face, words in held if not words & set(unwanted)]
    return [
        {face for face, words in fine if words >= set(wanted)},
        {face for face, words in fine if words & set(wanted)},
    ]


def test_words_find_the_faces_whose_captions_hold_them_under_random_filters(
    faces: TestGallery,
) -> None:
    chance = random.Random(1)
    said = sentences(chance)
    add(faces, *said)
    filters = {
        None: lambda _: True,
        "age < 25": lambda face: face % 4 and face % 50 < 25,
        "age IS NULL OR shelf = 'a'": lambda face: not face % 4 or not face % 2,
        "NOT (age >= 10 AND shelf = 'b') AND face <> 7": (
            lambda face: (
                not (face % 4 and face % 50 >= 10 and face % 2)
                and (face % 4 or not face % 2)
                and face != 7
            )
        ),
        "person = 'nobody'": lambda _: False,
    }
    hits = 0
    for _ in range(60):
        wanted = chance.sample(WORDS, chance.randint(1, 3))
        unwanted = chance.sample(sorted(set(WORDS) - set(wanted)), chance.randint(0, 1))
        asked = " ".join([*(word.upper() for word in wanted), *(f"-{word}" for word in unwanted)])
        where_ = chance.choice(list(filters))
        of_all, of_any = (
            {face for face in some if filters[where_](face)}
            for some in expected(said, wanted, unwanted)
        )
        answer = found(faces, asked, where_)
        assert (set(answer), len(answer)) == (of_any, len(of_any)), (asked, where_)
        assert set(answer[: len(of_all)]) == of_all, (asked, where_)
        hits += len(of_all)
        for fewer in {1, len(of_all) // 2 + 1, len(of_any) // 2 + 1}:
            assert found(faces, asked, where_, count=fewer) == answer[:fewer]
    assert hits > 100


def test_a_face_ranks_by_its_best_caption_and_equal_ranks_by_face(faces: TestGallery) -> None:
    add(
        faces,
        *((face, "a man with a beard and under it a hat") for face in (9, 4)),
        *((face, "hat beard") for face in (8, 3)),
        (4, "nothing of it"),
        (5, "a plain hat"),
    )
    assert found(faces, "hat beard") == [3, 8, 4, 9, 5]
    assert found(faces, '"beard hat"') == []
    assert found(faces, '"hat beard" plain') == [3, 5, 8]
    assert found(faces, "hat beard -man") == [3, 8, 5]
    add(faces, (9, "hat beard"))
    assert found(faces, "hat or beard") == [3, 8, 9, 4, 5]


def test_endings_and_small_words_of_english_do_not_matter(faces: TestGallery) -> None:
    add(faces, (1, "She smiles and wears hats"), (2, "ein Mann mit Brille"))
    assert found(faces, "a smiling face with the hat") == [1]
    assert found(faces, "mit Brille") == [2]


def test_words_of_another_collection_are_not_found(faces: TestGallery) -> None:
    other = gallery(faces.store, name="other")
    other.add([500], unit_vectors(1))
    add(other, (500, "a hat"))
    add(faces, (1, "a hat"))
    assert (found(faces, "hat"), found(other, "hat")) == ([1], [500])


def test_words_that_cannot_be_asked_for_find_nothing(faces: TestGallery) -> None:
    add(faces, (1, "a hat"))
    for words in ("", "!?", "' OR 1=1 --", "\\", "☂", "%", "the of", "-hat", '"', "-", "\0", '-"'):
        assert found(faces, words) == []


def test_full_text_search_reads_the_index(faces: TestGallery, sql: Database) -> None:
    sql.execute(
        "INSERT INTO caption (collection_id, face_id, text, provider)"
        " SELECT 1, 1 + n %% %s, 'number ' || n || ' in words', 'made' FROM"
        " generate_series(1, 20000) AS n",
        (FACES,),
    )
    sql.execute("ANALYZE caption")
    plan = sql.execute(
        "EXPLAIN SELECT face_id FROM caption"
        " WHERE document @@ websearch_to_tsquery('english', 'number 777')"
    ).fetchall()
    assert "caption_document" in str(plan)
    assert found(faces, "number 777", count=1) == [1 + 777 % FACES]


# The log and the index


def captions_held(index: Reader) -> dict[int, tuple[bytes, int, float | None, str | None]]:
    """Vector, face, age and person of each caption, as the index has them."""
    rows = {}
    for part in index.view.parts():
        vectors, there = index.view.vectors_of(part.ids)
        assert there.all()
        columns = [
            part.columns.arrow(name, part.numbers).to_pylist() for name in ("face", "age", "person")
        ]
        for place, caption in enumerate(part.ids.tolist()):
            assert caption not in rows, "a caption twice"
            face, age, person = (column[place] for column in columns)
            rows[caption] = (vectors[place].tobytes(), face, age, person)
    return rows


def captions_stored(
    store: Store, space: Space
) -> dict[int, tuple[bytes, int, float | None, str | None]]:
    with store.reading() as connection:
        rows = connection.execute(
            text(
                "SELECT caption.id, data, face.id AS face, age, name FROM caption"
                " JOIN caption_vector ON caption_id = caption.id AND space_id = :space"
                " JOIN face ON face.id = face_id LEFT JOIN person ON person.id = person_id"
                " WHERE caption.collection_id = 1"
            ),
            {"space": space.id},
        ).all()
    return {row.id: (row.data, row.face, row.age, row.name) for row in rows}


@pytest.fixture
def told(faces: TestGallery) -> TestGallery:
    """The faces with two captions each, whose vectors are in the face-text space."""
    ids = add(faces, *((face, f"{face} {word}") for face in range(1, FACES + 1) for word in "ab"))
    with faces.store.writing() as connection:
        vectors = unit_vectors(len(ids), seed=5)
        add_caption_vectors(connection, ids, vectors, space=words_space(faces))
    for name in ("Ann", "Ben"):
        faces.execute("INSERT INTO person (collection_id, name) VALUES (1, :name)", name=name)
    faces.execute("UPDATE face SET person_id = 1 + id % 2 WHERE id % 3 = 0")
    return faces


def holding(made: TestGallery) -> Captions:
    return Captions(made.store, made.collection, words_space(made))


CHANGES = (
    "UPDATE face SET age = {n} WHERE id = {face}",
    "UPDATE face SET person_id = NULL WHERE id = {face}",
    "UPDATE person SET name = 'N{n}' || id",
    "UPDATE caption SET provider = 'other' WHERE face_id = {face}",
    "UPDATE caption_vector SET data = decode(repeat('003c', 8), 'hex') WHERE caption_id = {face}",
    "DELETE FROM caption WHERE id = {face}",
    "DELETE FROM caption_vector WHERE caption_id % 11 = {n}",
    "DELETE FROM face WHERE id = {face}",
    "DELETE FROM vector WHERE face_id = {face}",  # of identities: captions stay
    """SET LOCAL session_replication_role = replica;
    DELETE FROM caption_vector WHERE caption_id = {face}""",
    "SET LOCAL session_replication_role = replica; UPDATE face SET age = {n} WHERE id = {face}",
    """INSERT INTO caption (collection_id, face_id, text, provider)
    SELECT 1, id, 'new {n} {face}', 'made' FROM face WHERE id = {face} ON CONFLICT DO NOTHING""",
    """INSERT INTO caption_vector (caption_id, space_id, data)
    SELECT id, {space}, decode(repeat('00bc', 8), 'hex') FROM caption WHERE id % 7 = {n}
    ON CONFLICT DO NOTHING""",
    """INSERT INTO caption_vector (caption_id, space_id, data)
    SELECT id, 1, decode(repeat('0000', 8), 'hex') FROM caption WHERE id % 13 = {n}
    ON CONFLICT DO NOTHING""",  # of a space that nobody asked for
    """WITH gone AS (DELETE FROM caption WHERE face_id = {face} RETURNING face_id, text)
    INSERT INTO caption (collection_id, face_id, text, provider)
    SELECT 1, face_id, text || '!', 'made' FROM gone""",
)


@pytest.mark.parametrize("built", [False, True])
def test_an_index_of_captions_follows_every_change(
    told: TestGallery, tmp_path: Path, *, built: bool
) -> None:
    space = words_space(told)
    if built:
        assert build(holding(told), home=tmp_path).rows == 2 * FACES
    index = Reader.open(holding(told), home=tmp_path)
    chance = random.Random(7)
    assert captions_held(index) == captions_stored(told.store, space)
    for _ in range(80):
        statement = chance.choice(CHANGES)
        told.execute(
            statement.format(face=chance.randint(1, FACES), n=chance.randint(0, 9), space=space.id)
        )
        index.refresh()
        assert captions_held(index) == captions_stored(told.store, space), statement
    assert check(index).differences == ()
    assert captions_held(index)


def test_captions_that_come_by_copy_are_seen(
    told: TestGallery, tmp_path: Path, sql: Database
) -> None:
    index = Reader.open(holding(told), home=tmp_path)
    into = "COPY {} FROM STDIN (FORMAT BINARY)"
    with sql.cursor() as cursor:
        with cursor.copy(
            into.format("caption (id, collection_id, face_id, text, provider)")
        ) as rows:
            rows.set_types(["int8", "int8", "int8", "text", "text"])
            rows.write_row((9_000, 1, 5, "copied", "made"))
        with cursor.copy(into.format("caption_vector (caption_id, space_id, data)")) as rows:
            rows.set_types(["int8", "int8", "bytea"])
            rows.write_row((9_000, words_space(told).id, np.ones(DIMENSION, "<f2").tobytes()))
    index.refresh()
    assert 9_000 in captions_held(index)
    assert captions_held(index) == captions_stored(told.store, words_space(told))


def test_a_search_among_captions_takes_filters_of_their_faces(
    told: TestGallery, tmp_path: Path
) -> None:
    build(holding(told), home=tmp_path)
    told.execute("UPDATE face SET age = 99 WHERE id = 8")
    index = Reader.open(holding(told), home=tmp_path)
    fields = index.holding.fields()
    stored = captions_stored(told.store, words_space(told))
    probe = unit_vectors(1, seed=9)
    similarities = {
        caption: float(np.frombuffer(row[0], "<f2").astype(np.float64) @ probe[0].astype(np.float64)
                       / np.linalg.norm(np.frombuffer(row[0], "<f2").astype(np.float64)))
        for caption, row in stored.items()
    }  # fmt: skip
    for where_, passes in (
        (
            "age > 30 AND shelf = 'a'",
            lambda _, face: face == 8 or (face % 4 and face % 50 > 30 and not face % 2),
        ),
        ("face BETWEEN 10 AND 20", lambda _, face: 10 <= face <= 20),
        (
            "caption = 17 OR person = 'Ben'",
            lambda caption, face: caption == 17 or (not face % 3 and face % 2),
        ),
    ):
        passing = [caption for caption, row in stored.items() if passes(caption, row[1])]
        truth = sorted(passing, key=lambda one: (-similarities[one], one))[:5]
        answer = index.search(
            Question(vectors=probe, count=5, filter=parse(where_, fields), recall="exact")
        )
        assert answer.survivors == len(passing) > 5
        assert answer.hits[0].ids.tolist() == truth
        assert answer.hits[0].similarities.tolist() == pytest.approx(
            [similarities[one] for one in truth], abs=1e-6
        )


def test_looks_and_captions_are_indexed_beside_faces(told: TestGallery, tmp_path: Path) -> None:
    space = words_space(told)
    halves = unit_vectors(3, seed=2).astype("<f2")
    for face, row in zip((4, 5, 6), halves, strict=True):
        told.execute(
            "INSERT INTO vector (face_id, space_id, data) VALUES (:f, :s, :d)",
            f=face, s=space.id, d=row.tobytes(),
        )  # fmt: skip
    holdings = {kind: holding_of(told.store, told.collection, kind) for kind in Kind}
    built = {kind: build(one, home=tmp_path) for kind, one in holdings.items()}
    assert {kind: one.rows for kind, one in built.items()} == {
        Kind.FACES: FACES, Kind.PERSONS: 2, Kind.LOOKS: 3, Kind.CAPTIONS: 2 * FACES
    }  # fmt: skip
    assert len({one.folder.parent for one in built.values()}) == len(Kind)
    readers = {kind: Reader.open(one, home=tmp_path) for kind, one in holdings.items()}
    assert {kind: one.status().snapshot for kind, one in readers.items()} == {
        kind: one.snapshot for kind, one in built.items()
    }
    assert all(check(one).differences == () for one in readers.values())
    probe = UnitRows(unit_rows(halves[:1]))
    answer = readers[Kind.LOOKS].search(Question(vectors=probe, count=1, recall="exact"))
    assert answer.hits[0].ids.tolist() == [4]


def test_the_log_of_captions_is_pruned_and_goes_with_the_collection(
    told: TestGallery, tmp_path: Path
) -> None:
    def counted(table: str) -> int:
        with told.store.reading() as connection:
            return int(connection.scalar(text(f"SELECT count(*) FROM {table}")))

    tables = ("caption", "caption_vector", "caption_change")
    assert all(counted(table) > 0 for table in tables)
    for _ in range(2):  # the watermark of the first is kept with the snapshot before
        build(holding(told), home=tmp_path)
    assert counted("caption_change") == 0
    index = Reader.open(holding(told), home=tmp_path)
    told.execute("DELETE FROM caption WHERE id = 1")
    index.refresh()
    assert captions_held(index) == captions_stored(told.store, words_space(told))
    with told.store.writing() as connection:
        drop_collection(connection, told.collection)
    assert [counted(table) for table in tables] == [0, 0, 0]


def test_deleting_faces_deletes_their_captions_and_the_index_follows(
    told: TestGallery, tmp_path: Path
) -> None:
    index = Reader.open(holding(told), home=tmp_path)
    filter_ = parse("face <= 100", told.fields())
    with told.store.writing() as connection:
        assert delete_faces(connection, collection=told.collection, filter_=filter_) == 100
    index.refresh()
    left = captions_stored(told.store, words_space(told))
    assert {row[1] for row in left.values()} == set(range(101, FACES + 1))
    assert captions_held(index) == left


def test_a_caption_of_a_face_elsewhere_is_shown_nowhere(told: TestGallery, tmp_path: Path) -> None:
    """Somebody wrote it past the checks: it says it is of a collection that its face is not in."""
    other = gallery(told.store, name="other").collection
    space = words_space(told)
    told.execute(
        "INSERT INTO caption (id, collection_id, face_id, text, provider)"
        " VALUES (9000, :other, 1, 'stray', 'made')",
        other=other.id,
    )
    told.execute(
        "INSERT INTO caption_vector (caption_id, space_id, data)"
        " SELECT 9000, :space, data FROM caption_vector WHERE caption_id = 1",
        space=space.id,
    )
    shown: list[Collection] = [told.collection, other]
    for collection in shown:
        index = Reader.open(Captions(told.store, collection, space), home=tmp_path)
        assert 9_000 not in captions_held(index)
        with told.store.reading() as connection:
            stray = matching(connection, "stray", collection=collection, filter_=None, count=9)
        assert stray == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE caption SET id = 9000 WHERE id = 1",
        "UPDATE caption SET collection_id = 2 WHERE id = 1",
        "UPDATE caption SET face_id = 2 WHERE id = 1",
        "UPDATE caption SET text = 'other' WHERE id = 1",
        "UPDATE caption_vector SET caption_id = 2 WHERE caption_id = 1",
        "UPDATE caption_vector SET space_id = 1 WHERE caption_id = 1",
        "TRUNCATE caption CASCADE",
        "TRUNCATE caption_vector",
    ],
)
def test_a_caption_is_never_changed_into_another_nor_hidden_from_the_log(
    told: TestGallery, sql: Database, statement: str
) -> None:
    gallery(told.store, name="other")
    with pytest.raises(psycopg.errors.RaiseException, match=r"keeps its ids|would hide"):
        sql.execute(statement)  # type: ignore[call-overload]


def test_faces_in_the_face_text_space_are_a_holding(told: TestGallery) -> None:
    looks = holding_of(told.store, told.collection, Kind.LOOKS)
    assert looks == Faces(told.store, told.collection, words_space(told), Kind.LOOKS)
