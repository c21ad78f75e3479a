"""Storing pictures with their faces, and listing, updating, deleting them."""

import hashlib
import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from retrieval.errors import (
    SchemaMismatchError,
    SpaceMismatchError,
    UnknownNameError,
    UsageError,
)
from retrieval.fields import Fields
from retrieval.filters.parse import parse
from retrieval.store import collections as tenants
from retrieval.store.database import Store
from retrieval.store.faces import (
    count_faces,
    delete_faces,
    face_records,
    list_faces,
    parsed_value,
    update_faces,
    vector_of,
)
from retrieval.store.images import (
    FaceFacts,
    NewImage,
    NewRefusal,
    add_images,
    add_refusals,
    fill_in,
    known_faces,
    known_images,
    known_refusals,
    persons_named,
)
from retrieval.values import (
    Box,
    Collection,
    FaceId,
    FieldType,
    Space,
    SpaceId,
)
from tests.people import SPACE, reading

WHEN = datetime(2024, 5, 31, 12, tzinfo=UTC)


def picture(number: int, *facts: FaceFacts) -> NewImage:
    return NewImage(
        sha256=hashlib.sha256(str(number).encode()).digest(),
        path=f"/pictures/{number}\n\udcff.jpg".encode("utf-8", "surrogateescape"),
        member=None,
        bytes=1000,
        width=100,
        height=200,
        format="JPEG",
        captured_at_assumed_utc=False,
        faces=[
            (reading(seed, quality=seed / 10), fact)
            for seed, fact in enumerate(facts, start=10 * number)
        ],
    )


@pytest.fixture
def gallery(store: Store) -> tuple[Collection, Space]:
    with store.writing() as connection:
        collection = tenants.create_collection(connection, "gallery", demographics=False)
        space = tenants.space_or_new(connection, SPACE)
        collection = tenants.search_in(connection, collection, space)
        tenants.declare(
            connection, collection, {"year": FieldType.INTEGER, "Eye Colour": FieldType.TEXT}
        )
        add_images(
            connection,
            [
                picture(0, FaceFacts(person="Ann", attributes={"year": 2020}, tags=("a", "b"))),
                picture(1, FaceFacts(person="Ben", captured_at=WHEN), FaceFacts(source="web")),
            ],
            collection=collection,
            space=space,
        )
    return collection, space


def fields_of(store: Store, collection: Collection) -> Fields:
    with store.reading() as connection:
        return tenants.fields_of(connection, collection)


def persons_where(store: Store, collection: Collection, where: str) -> list[str | None]:
    filter_ = parse(where, fields_of(store, collection))
    with store.reading() as connection:
        records = list_faces(
            connection, collection=collection, filter_=filter_, after=FaceId(0), limit=100
        )
        assert count_faces(connection, collection=collection, filter_=filter_) == len(records)
    return [record.person for record in records]


def test_a_face_comes_back_with_all_that_was_stored(
    store: Store, gallery: tuple[Collection, Space]
) -> None:
    collection, space = gallery
    with store.reading() as connection:
        ann, ben, _ = list_faces(
            connection, collection=collection, filter_=None, after=FaceId(0), limit=9
        )
        vector = vector_of(connection, ann.face, collection=collection, space=space)
        again = face_records(connection, [ben.face, FaceId(10**9)], collection=collection)
    assert (ann.person, ben.person) == ("Ann", "Ben")
    assert ann.box == Box(left=1, top=2, right=31, bottom=42)
    assert ann.image == "/pictures/0\n\udcff.jpg".encode("utf-8", "surrogateescape")
    assert ann.attributes["year"] == 2020
    assert ann.attributes["tags"] == ["a", "b"]
    assert (ann.attributes["yaw"], ann.attributes["size_px"]) == (1, 30)
    assert ben.attributes["captured_at"] == WHEN
    assert vector[0] == pytest.approx(reading(0).vector, abs=1e-3)
    assert again == {ben.face: ben}


def test_the_same_content_from_two_writers_at_once_is_one_image(
    store: Store, gallery: tuple[Collection, Space]
) -> None:
    collection, space = gallery
    ready = threading.Barrier(4)
    added: list[int] = []

    def write() -> None:
        ready.wait()
        with store.writing() as connection:
            pictures = [picture(number, FaceFacts(person="New")) for number in range(50)]
            added.append(add_images(connection, pictures, collection=collection, space=space))

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sum(added) == 48  # pictures 0 and 1 were there
    with store.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM image")) == 50
        assert count_faces(connection, collection=collection, filter_=None) == 51
        assert connection.scalar(text("SELECT count(*) FROM person WHERE name = 'New'")) == 1


def test_known_contents_and_refusals_are_found_again(
    store: Store, gallery: tuple[Collection, Space]
) -> None:
    collection, _ = gallery
    hashes = [picture(number).sha256 for number in range(3)]
    refusal = NewRefusal(sha256=hashes[2], path=b"/x", member=None, reason="it is empty")
    with store.writing() as connection:
        for _ in range(2):
            add_refusals(connection, [refusal], collection=collection)
        known = known_images(connection, collection, hashes)
        refused = known_refusals(connection, collection, hashes)
    assert set(known) == set(hashes[:2])
    assert known[hashes[1]].persons == {"Ben"}
    assert refused == {hashes[2]: "it is empty"}


def test_updates_set_typed_columns_and_declared_attributes_and_clear_them(
    store: Store, gallery: tuple[Collection, Space]
) -> None:
    collection, _ = gallery
    fields = fields_of(store, collection)

    def update(changes: dict[str, str], where: str) -> int:
        values = {name: parsed_value(name, written, fields) for name, written in changes.items()}
        with store.writing() as connection:
            return update_faces(
                connection,
                values,
                collection=collection,
                filter_=parse(where, fields),
                fields=fields,
            )

    assert update({"Eye Colour": "blue", "year": "", "tags": "c, d"}, "person = 'Ann'") == 1
    assert persons_where(store, collection, "\"Eye Colour\" = 'blue' AND year IS NULL") == ["Ann"]
    assert persons_where(store, collection, "'d' = ANY(tags)") == ["Ann"]
    assert update({"person": "Cleo", "captured_at": "2023-01-01"}, "source = 'web'") == 1
    assert persons_where(store, collection, "captured_at < '2024-01-01'") == ["Cleo"]
    assert update({"person": ""}, "person = 'Cleo'") == 1
    assert persons_where(store, collection, "person IS NULL") == [None]
    for changes, word in (
        ({"quality": "1"}, "measured"),
        ({"yeer": "1"}, "did you mean 'year'"),
        ({"year": "soon"}, "'year' is integer"),
        ({"origin": "drawn"}, "captured, generated, restored"),
    ):
        with pytest.raises(UsageError, match=word):
            update(changes, "face > 0")


def test_deleting_the_last_face_of_an_image_deletes_the_image(
    store: Store, gallery: tuple[Collection, Space]
) -> None:
    collection, space = gallery
    fields = fields_of(store, collection)
    with store.writing() as connection:
        filter_ = parse("person = 'Ann' OR source = 'web'", fields)
        assert delete_faces(connection, collection=collection, filter_=filter_) == 2
    with store.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM image")) == 1
        assert connection.scalar(text("SELECT count(*) FROM vector")) == 1
    with store.writing() as connection:  # what was deleted may come again
        ann = picture(0, FaceFacts(person="Ann"))
        assert add_images(connection, [ann], collection=collection, space=space) == 1
    assert persons_where(store, collection, "person = 'Ann'") == ["Ann"]


def test_dropping_a_collection_leaves_nothing(
    store: Store, gallery: tuple[Collection, Space]
) -> None:
    with store.writing() as connection:
        tenants.drop_collection(connection, gallery[0])
    with store.reading() as connection:
        for table in ("collection", "image", "face", "vector", "person", "attribute"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0, table


def test_names_are_checked(store: Store, gallery: tuple[Collection, Space]) -> None:
    collection, _ = gallery
    with store.writing() as connection:
        with pytest.raises(UnknownNameError, match="there are: gallery"):
            tenants.collection_named(connection, "galery")
        with pytest.raises(SchemaMismatchError, match="'year' is declared as integer, not text"):
            tenants.declare(connection, collection, {"year": FieldType.TEXT})
        with pytest.raises(UsageError, match="field of every face"):
            tenants.declare(connection, collection, {"quality": FieldType.NUMBER})
        other = Space(
            id=SpaceId(0),
            name="test@1",
            dimension=8,
            model_sha256="cd" * 32,
            licence="none",
            commercial=True,
        )
        with pytest.raises(SpaceMismatchError, match="another model"):
            tenants.space_or_new(connection, other)
        assert persons_named(connection, [], collection=collection) == {}
    with pytest.raises(UsageError, match="cannot name a collection"), store.writing() as connection:
        tenants.create_collection(connection, "a b", demographics=False)
    with pytest.raises(UsageError, match="already"), store.writing() as connection:
        tenants.create_collection(connection, "gallery", demographics=False)


def test_what_comes_later_fills_gaps_once_and_overwrites_nothing(
    store: Store, gallery: tuple[Collection, Space]
) -> None:
    collection, _ = gallery
    with store.reading() as connection:
        records = list_faces(
            connection, collection=collection, filter_=None, after=FaceId(0), limit=9
        )
    facts = FaceFacts(person="Cleo", source="late", captured_at=WHEN, attributes={"year": 1999})

    def changes() -> int:
        with store.writing() as connection:
            fill_in(connection, {r.face: facts for r in records}, collection=collection)
        with store.reading() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM face_change")) or 0)

    once, twice = changes(), changes()
    assert once == twice
    assert persons_where(store, collection, "source = 'late'") == ["Ann", "Ben"]
    assert persons_where(store, collection, "person = 'Cleo' AND source = 'web'") == ["Cleo"]
    assert persons_where(store, collection, "year = 2020") == ["Ann"]
    assert persons_where(store, collection, "year = 1999") == ["Ben", "Cleo"]
    with store.reading() as connection:
        images = list(connection.scalars(text("SELECT id FROM image ORDER BY id")))
        faces = known_faces(connection, images)
    assert [len(faces[image].boxes) for image in images] == [1, 2]
    assert (faces[images[0]].width, faces[images[0]].height) == (100, 200)
