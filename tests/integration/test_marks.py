"""Marks on duplicates: given once, taken back exactly, and gone with the person they were on."""

from pathlib import Path

import pytest
from sqlalchemy import text

from facedex.handle import Facedex, open_facedex
from retrieval.errors import UnknownNameError
from retrieval.filters.parse import parse
from retrieval.store import marks
from retrieval.store.collections import fields_of
from retrieval.store.database import Store
from retrieval.store.faces import count_faces
from retrieval.store.marks import DUPLICATE, Marked
from retrieval.store.people import operations
from retrieval.store.people.reading import links_of, required
from retrieval.values import Collection, FaceId, ImageId
from tests.people import LOGS, dump, gallery

PICTURES = [["Ann"], ["Ann", None], ["Ben"], [None]]
UNMARKED = f"NOT '{DUPLICATE}' = ANY(tags)"


@pytest.fixture
def tenant(store: Store) -> Collection:
    """Five faces in four pictures; nobody said what tags they have, but of one."""
    made = gallery(store, PICTURES)
    with store.writing() as connection:
        connection.execute(text("UPDATE face SET tags = '{hat}' WHERE id = 2"))
    return made


def mark(store: Store, tenant: Collection, faces: list[int], *, considered: int = 5) -> Marked:
    with store.writing() as connection:
        return marks.mark_faces(
            connection,
            [FaceId(one) for one in faces],
            considered=[FaceId(one) for one in range(1, considered + 1)],
            level="face",
            collection=tenant,
        )


def undo(store: Store, tenant: Collection, number: int | None) -> Marked:
    assert number is not None
    with store.writing() as connection:
        return marks.undo_marking(connection, number, collection=tenant)


def tags(store: Store) -> dict[int, list[str] | None]:
    with store.reading() as connection:
        rows = connection.execute(text("SELECT id, tags FROM face ORDER BY id"))
        return {row.id: row.tags for row in rows}


def passing(store: Store, tenant: Collection, where: str) -> int:
    with store.reading() as connection:
        filter_ = parse(where, fields_of(connection, tenant))
        return count_faces(connection, collection=tenant, filter_=filter_)


def test_marked_faces_are_left_out_by_a_filter_and_back_after_an_undo(
    store: Store, tenant: Collection
) -> None:
    before = dump(store, without=LOGS | {"marking"})
    assert passing(store, tenant, UNMARKED) == 1  # of the others nobody knows the tags
    marked = mark(store, tenant, [2, 5])
    assert (marked.faces, marked.links) == (2, 0)
    assert tags(store) == {1: [], 2: ["hat", DUPLICATE], 3: [], 4: [], 5: [DUPLICATE]}
    assert passing(store, tenant, UNMARKED) == 3
    assert undo(store, tenant, marked.number).faces == 2
    assert dump(store, without=LOGS | {"marking"}) == before


def test_marking_and_undoing_twice_changes_nothing(store: Store, tenant: Collection) -> None:
    marked = mark(store, tenant, [2, 5])
    once = dump(store)
    assert mark(store, tenant, [5, 2]) == Marked(number=None, faces=0, links=0)
    assert dump(store) == once
    undo(store, tenant, marked.number)
    undone = dump(store)
    assert undo(store, tenant, marked.number) == Marked(number=None, faces=0, links=0)
    assert dump(store) == undone


def test_an_undo_takes_only_what_its_run_gave(store: Store, tenant: Collection) -> None:
    with store.writing() as connection:
        connection.execute(text("UPDATE face SET tags = '{duplicate}' WHERE id = 3"))  # by hand
    first = mark(store, tenant, [2, 3])
    second = mark(store, tenant, [2, 3, 4])
    assert (first.faces, second.faces) == (1, 1)
    undo(store, tenant, first.number)
    # The second run's marks are there, so filters still pass what has none.
    assert tags(store) == {1: [], 2: ["hat"], 3: [DUPLICATE], 4: [DUPLICATE], 5: []}
    undo(store, tenant, second.number)
    assert tags(store) == {1: None, 2: ["hat"], 3: [DUPLICATE], 4: None, 5: None}


def test_what_people_changed_since_stays(store: Store, tenant: Collection) -> None:
    marked = mark(store, tenant, [2, 5])
    with store.writing() as connection:
        connection.execute(text("UPDATE face SET tags = '{red}' WHERE id IN (1, 5)"))
        connection.execute(text("DELETE FROM face WHERE id = 4"))
    assert undo(store, tenant, marked.number).faces == 1
    assert tags(store) == {1: ["red"], 2: ["hat"], 3: None, 5: ["red"]}


def test_every_face_of_a_picture_is_meant(store: Store, tenant: Collection) -> None:
    with store.reading() as connection:
        assert marks.faces_shown(connection, [ImageId(2)], collection=tenant) == [2, 3]


def test_persons_are_linked_and_unlinked_with_events(store: Store, tenant: Collection) -> None:
    with store.writing() as connection:
        ann, ben = (required(connection, who, collection=tenant) for who in ("Ann", "Ben"))
        marked = marks.link_duplicates(connection, [(ann, ben)], level="person", collection=tenant)
        again = marks.link_duplicates(connection, [(ben, ann)], level="person", collection=tenant)
        assert (marked.links, again.number) == (1, None)
        assert links_of(connection, ann) == [ben]
        assert marks.settled_pairs(connection, collection=tenant) == {(ann, ben)}
    assert undo(store, tenant, marked.number).links == 1
    with store.writing() as connection:
        assert links_of(connection, ann) == []
        kinds = connection.scalars(text("SELECT kind FROM person_event ORDER BY id")).all()
        assert kinds[-2:] == ["link", "unlink"]


def test_a_link_that_people_took_back_is_not_taken_back_again(
    store: Store, tenant: Collection
) -> None:
    with store.writing() as connection:
        ann, ben = (required(connection, who, collection=tenant) for who in ("Ann", "Ben"))
        marked = marks.link_duplicates(connection, [(ann, ben)], level="person", collection=tenant)
        operations.unlink_persons(connection, "Ann", "Ben", collection=tenant)
    assert undo(store, tenant, marked.number).links == 0


def test_rejected_faces_settle_that_two_persons_are_two(store: Store, tenant: Collection) -> None:
    with store.writing() as connection:
        ann, ben = (required(connection, who, collection=tenant) for who in ("Ann", "Ben"))
        operations.reject(connection, [FaceId(4)], "Ann", collection=tenant)
        assert marks.settled_pairs(connection, collection=tenant) == {(ann, ben)}


def test_runs_are_listed_the_newest_first(store: Store, tenant: Collection) -> None:
    first, second = mark(store, tenant, [2]), mark(store, tenant, [2, 4])
    undo(store, tenant, first.number)
    with store.reading() as connection:
        listed = marks.markings(connection, collection=tenant)
    assert [(one.number, one.level, one.faces, one.links) for one in listed] == [
        (second.number, "face", 1, 0),
        (first.number, "face", 1, 0),
    ]
    assert [one.undone_at is None for one in listed] == [True, False]


def test_another_collections_run_is_unknown(store: Store, tenant: Collection) -> None:
    marked = mark(store, tenant, [2])
    other = gallery(store, [["Eve"]], name="other")
    with pytest.raises(UnknownNameError, match="`facedex dedup --list`"):
        undo(store, other, marked.number)


def test_an_erased_person_is_in_no_marking(tmp_path: Path, database_url: str) -> None:
    with open_facedex(home=tmp_path, database_url=database_url, collection="gallery") as opened:
        gallery(opened.store, PICTURES)
        tenant = opened.collection()
        mark(opened.store, tenant, [1, 4])
        with opened.store.writing() as connection:
            ann, ben = (required(connection, who, collection=tenant) for who in ("Ann", "Ben"))
            marks.link_duplicates(connection, [(ann, ben)], level="person", collection=tenant)
        opened.people.erase("Ann")
        check_erased(opened)


def check_erased(opened: Facedex) -> None:
    with opened.store.reading() as connection:
        rows = connection.execute(
            text("SELECT faces, opened, ones, twos FROM marking ORDER BY id")
        ).all()
    assert [tuple(row) for row in rows] == [([4], [3, 4, 5], [], []), ([], [], [], [])]
