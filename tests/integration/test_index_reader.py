"""What a reader sees, and when: tokens, changes of all kinds, groups, thresholds, differences."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from indexer.build import build, should_build
from indexer.check import check
from retrieval.errors import (
    LimitExceededError,
    TokenTimeoutError,
    UnknownNameError,
    UnusableVectorError,
    UsageError,
)
from retrieval.filters.parse import parse
from retrieval.index import lists
from retrieval.index.view import advance
from retrieval.plan import Strategy
from retrieval.reader import IndexStatus, Reader
from retrieval.search import Answer, Question, search
from retrieval.store.changes import changes_since
from retrieval.store.collections import declare
from retrieval.store.database import Store, token
from retrieval.values import Cursor, FieldType, Similarity, Tier, UnitRows, unit_rows
from tests.galleries import TestGallery, clustered_vectors, gallery, unit_vectors
from tests.ways import in_way

ROWS = 300
VECTORS = unit_vectors(ROWS)
QUERIES = unit_vectors(5, seed=42)


@pytest.fixture
def faces(store: Store) -> TestGallery:
    """A gallery of some hundred faces."""
    made = gallery(store)
    made.add(range(1, ROWS + 1), VECTORS, ages=[float(i % 90) for i in range(ROWS)])
    return made


def built(made: TestGallery, home: Path) -> None:
    build(made.holding, home=home)


def opened(made: TestGallery, home: Path) -> Reader:
    return Reader.open(made.holding, home=home)


def asked(index: Reader, made: TestGallery, where: str | None = None, **others: Any) -> Answer:
    filter_ = None if where is None else parse(where, made.fields())
    wanted: dict[str, Any] = {"vectors": QUERIES, "recall": "exact", **others}
    return index.search(Question(filter=filter_, **wanted))


def found(answer: Answer, query: int = 0) -> list[int]:
    return [hit.face for hit in answer.neighbours[query]]


# Freshness


@pytest.mark.parametrize("snapshot", ["snapshot", "store"])
def test_a_reader_that_waits_for_a_token_sees_that_write_and_its_undoing(
    faces: TestGallery, tmp_path: Path, snapshot: str
) -> None:
    if snapshot == "snapshot":
        built(faces, tmp_path)
    index = opened(faces, tmp_path)
    index.wait_for(faces.add([999], QUERIES[:1]), timeout_s=5)
    assert found(asked(index, faces))[0] == 999
    index.wait_for(faces.execute("DELETE FROM face WHERE id = 999"), timeout_s=5)
    assert 999 not in found(asked(index, faces))


def test_waiting_for_a_write_that_is_not_committed_ends_in_time_and_says_so(
    faces: TestGallery, tmp_path: Path
) -> None:
    index = opened(faces, tmp_path)
    with faces.store.writing() as connection:
        connection.execute(text("UPDATE face SET age = 3 WHERE id = 1"))
        pending = token(connection)
        began = time.perf_counter()
        with pytest.raises(TokenTimeoutError):
            index.wait_for(pending, timeout_s=0.2)
        assert 0.2 <= time.perf_counter() - began < 5
    index.wait_for(pending, timeout_s=5)
    assert asked(index, faces, "age = 3").survivors == 5


def test_a_change_of_attributes_patches_the_snapshot_and_never_makes_a_delta(
    faces: TestGallery, tmp_path: Path
) -> None:
    built(faces, tmp_path)
    index = opened(faces, tmp_path)
    faces.execute("UPDATE face SET age = 500 WHERE id <= 200")
    faces.execute("INSERT INTO person (collection_id, name) VALUES (1, 'Ada')")
    faces.execute("UPDATE face SET person_id = 1 WHERE id > 290")
    faces.execute("UPDATE person SET name = 'Eve'")
    index.refresh()
    status = index.status()
    assert (status.delta_rows, status.dead_rows, status.patched_rows) == (0, 0, 210)
    assert asked(index, faces, "age = 500").survivors == 200
    assert asked(index, faces, "person = 'Eve'").survivors == 10
    assert asked(index, faces, "person = 'Ada'").survivors == 0


def test_a_changed_vector_leaves_its_old_row_in_the_same_view(
    faces: TestGallery, tmp_path: Path
) -> None:
    built(faces, tmp_path)
    index = opened(faces, tmp_path)
    faces.execute(
        "UPDATE vector SET data = :data WHERE face_id = 7", data=QUERIES[0].astype("<f2").tobytes()
    )
    index.refresh()
    status = index.status()
    assert (status.delta_rows, status.dead_rows, status.rows) == (1, 1, ROWS)
    assert found(asked(index, faces, count=ROWS)).count(7) == 1
    assert found(asked(index, faces))[0] == 7


def test_applying_the_same_changes_twice_changes_nothing(
    faces: TestGallery, tmp_path: Path
) -> None:
    built(faces, tmp_path)
    before = opened(faces, tmp_path).view
    faces.execute("UPDATE face SET age = 500 WHERE id < 50")
    faces.execute("UPDATE vector SET data = data WHERE face_id BETWEEN 40 AND 60")
    faces.execute("DELETE FROM face WHERE id = 55")
    faces.add([999], QUERIES[:1])
    fields = faces.fields()
    changes = changes_since(
        faces.store,
        collection=faces.collection,
        space=faces.space,
        fields=fields,
        cursor=before.cursor,
    )
    question = Question(
        vectors=QUERIES, count=ROWS, recall="exact", filter=parse("age > 10", fields)
    )
    once = advance(before, changes, fields=fields)
    twice = advance(once, changes, fields=fields)
    assert search(twice, question).neighbours == search(once, question).neighbours
    assert search(before, question).neighbours != search(once, question).neighbours


def test_many_small_updates_leave_few_pieces(faces: TestGallery, tmp_path: Path) -> None:
    built(faces, tmp_path)
    index = opened(faces, tmp_path)
    for step in range(40):
        faces.add(range(1000 + 10 * step, 1010 + 10 * step), unit_vectors(10, seed=step))
        faces.execute("UPDATE face SET age = 7 WHERE id = :id", id=1 + step)
        index.refresh()
    assert (index.status().delta_rows, index.status().patched_rows) == (400, 40)
    assert len(index.view.chunks) <= 8
    assert len(index.view.patches) <= 8
    assert check(index).differences == ()


def test_an_attribute_declared_after_the_build_is_null_until_it_is_set(
    faces: TestGallery, tmp_path: Path
) -> None:
    built(faces, tmp_path)
    index = opened(faces, tmp_path)
    with faces.store.writing() as connection:
        declare(connection, faces.collection, {"later": FieldType.BOOLEAN})
    faces.execute("UPDATE face SET attributes = '{\"later\": true}' WHERE id <= 5")
    for reader in (index, opened(faces, tmp_path)):
        reader.refresh()
        assert asked(reader, faces, "later").survivors == 5
        assert asked(reader, faces, "later IS NULL").survivors == ROWS - 5


def test_an_attribute_declared_and_set_while_the_reader_looks_is_not_missed(
    faces: TestGallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(faces, tmp_path)
    pending = [True]

    def interrupted(*given: Any, **named: Any) -> Any:
        if pending.pop() if pending else False:
            with faces.store.writing() as connection:
                declare(connection, faces.collection, {"later": FieldType.BOOLEAN})
                connection.execute(text("UPDATE face SET attributes = '{\"later\": true}'"))
        return changes_since(*given, **named)

    monkeypatch.setattr("retrieval.store.changes.changes_since", interrupted)
    index.refresh()
    assert asked(index, faces, "later").survivors == ROWS


def test_a_reader_whose_log_was_pruned_opens_anew(faces: TestGallery, tmp_path: Path) -> None:
    index = opened(faces, tmp_path)
    faces.add([999], QUERIES[:1])
    faces.execute("DELETE FROM face_change")
    faces.execute("UPDATE collection SET log_begins = pg_snapshot_xmax(pg_current_snapshot())")
    index.refresh()
    assert found(asked(index, faces))[0] == 999


def test_readers_in_threads_see_whole_views_while_writers_write(
    faces: TestGallery, tmp_path: Path
) -> None:
    built(faces, tmp_path)
    index = opened(faces, tmp_path)
    ended = threading.Event()
    counts: set[int] = set()

    def look() -> None:
        while not ended.is_set():
            # Faces come and go by pairs, in one transaction each.
            counts.add(asked(index, faces, count=ROWS + 10).survivors % 2)

    looking = [threading.Thread(target=look) for _ in range(2)]
    for thread in looking:
        thread.start()
    for step in range(15):
        faces.add([1000 + 2 * step, 1001 + 2 * step], unit_vectors(2, seed=step))
        index.refresh()
        faces.execute("DELETE FROM face WHERE id IN (:a, :b)", a=1 + 2 * step, b=2 + 2 * step)
        index.refresh()
    ended.set()
    for thread in looking:
        thread.join()
    assert counts == {0}


def test_a_row_that_somebody_wrote_past_the_checks_stops_nobody(
    faces: TestGallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "LISTED_ROWS_MIN", 100)
    hostile = [np.full(8, number, "<f2").tobytes() for number in (0, np.nan, np.inf)]
    for bad in (b"\x00", *hostile):
        faces.execute("UPDATE vector SET data = :bad WHERE face_id = 3", bad=bad)
        assert sorted(found(asked(opened(faces, tmp_path), faces, count=ROWS))) == [
            i for i in range(1, ROWS + 1) if i != 3
        ]
        built(faces, tmp_path)
        assert len(found(asked(opened(faces, tmp_path), faces, count=ROWS))) == ROWS - 1


# Answers


def test_the_vectors_of_faces_are_those_of_the_store(faces: TestGallery, tmp_path: Path) -> None:
    built(faces, tmp_path)
    faces.add([999], QUERIES[:1])
    index = opened(faces, tmp_path)
    vectors = index.vectors_of(np.array([999, 17, 1]))
    stored = np.array([QUERIES[0], VECTORS[16], VECTORS[0]]).astype("<f2")
    assert vectors == pytest.approx(unit_rows(stored), abs=1e-7)
    assert found(asked(index, faces, vectors=UnitRows(vectors[1:2])))[0] == 17
    with pytest.raises(UnknownNameError, match="no face 998"):
        index.vectors_of(np.array([1, 998]))


@pytest.mark.parametrize(
    ("recall", "way"),
    [
        ("exact", Strategy.SCORE),
        ("exact", Strategy.MULTIPLY),
        (0.5, Strategy.SCAN),
        (0.5, Strategy.PROBE),
    ],
)
def test_grouping_by_person_keeps_the_best_face_of_each_and_faces_without_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recall: Any, way: Strategy
) -> None:
    monkeypatch.setattr(lists, "LISTED_ROWS_MIN", 100)
    monkeypatch.setattr("retrieval.search.plan", in_way(way))
    made = gallery(store)
    made.execute("INSERT INTO person (collection_id, name) VALUES (1, 'Ada'), (1, 'Eve')")
    made.add(range(1, ROWS + 1), VECTORS)
    # Ada has all but thirty faces: they fill what is fetched at first.
    made.execute("UPDATE face SET person_id = 1 WHERE id <= 270")
    built(made, tmp_path)
    made.execute("UPDATE face SET person_id = 2 WHERE id BETWEEN 200 AND 220")  # a patch
    made.add([400, 401], unit_vectors(2, seed=8))
    made.execute("UPDATE face SET person_id = 2 WHERE id = 400")  # in the delta
    index = opened(made, tmp_path)
    person = {i: 1 if i <= 270 else -i for i in range(1, ROWS + 1)}
    person |= dict.fromkeys(range(200, 221), 2) | {400: 2, 401: -401}
    everybody = found(asked(index, made, count=ROWS + 2))
    firsts = list({person[face]: face for face in reversed(everybody)}.values())
    wanted = sorted(firsts, key=everybody.index)
    for count in (3, 12, 100):
        answer = asked(index, made, count=count, group_by="person", recall=recall)
        persons = [person[face] for face in found(answer)]
        assert len(set(persons)) == len(persons) == min(count, 33)
        if answer.tier is Tier.EXACT:
            assert found(answer) == wanted[:count]


def test_the_lowest_similarity_asked_for_cuts_the_answer(
    faces: TestGallery, tmp_path: Path
) -> None:
    index = opened(faces, tmp_path)
    everything = asked(index, faces, count=50).neighbours[0]
    middle = everything[20].similarity
    cut = asked(index, faces, count=50, min_similarity=middle).neighbours[0]
    assert cut == everything[:21]
    assert asked(index, faces, min_similarity=Similarity(1.0)).neighbours == [[]] * 5


def test_scaling_a_query_changes_no_answer(faces: TestGallery, tmp_path: Path) -> None:
    index = opened(faces, tmp_path)
    scaled = unit_rows(QUERIES.astype(np.float64) * 37.0)
    assert found(asked(index, faces, vectors=scaled)) == found(asked(index, faces))


def test_lists_are_looked_into_until_the_answer_is_full(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "LISTED_ROWS_MIN", 100)
    made = gallery(store, dimension=32, space="clustered@1")
    vectors = clustered_vectors(600, clusters=16)
    made.add(range(1, 601), vectors)
    built(made, tmp_path)
    index = opened(made, tmp_path)
    monkeypatch.setattr("retrieval.search.plan", in_way(Strategy.PROBE))
    queries = UnitRows(vectors[:20])
    few = asked(index, made, vectors=queries, count=5, recall=0.5)
    many = asked(index, made, vectors=queries, count=500, recall=0.5)
    assert (few.plan.strategy, few.tier) == (Strategy.PROBE, Tier.CALIBRATED)
    assert 0 < few.work.lists < few.work.lists_held
    assert few.work.by_code < 20 * 600
    assert [hits[0].face for hits in few.neighbours] == list(range(1, 21))
    assert [len(hits) for hits in many.neighbours] == [500] * 20
    # A filter whose survivors are elsewhere leaves nothing in the list that is looked into first.
    nearest = found(few)[0]
    far = asked(index, made, f"face > {nearest + 100}", vectors=queries, count=400, recall=0.5)
    assert all(len(hits) == min(400, far.survivors) for hits in far.neighbours)


def test_many_queries_are_answered_like_each_alone(faces: TestGallery, tmp_path: Path) -> None:
    built(faces, tmp_path)
    index = opened(faces, tmp_path)
    many = UnitRows(unit_vectors(700, seed=3))
    together = asked(index, faces, vectors=many).neighbours
    for place in (0, 1, 511, 512, 699):
        alone = asked(index, faces, vectors=UnitRows(many[place : place + 1])).neighbours
        assert together[place] == alone[0]


def test_questions_that_mean_nothing_are_refused(faces: TestGallery, tmp_path: Path) -> None:
    index = opened(faces, tmp_path)
    with pytest.raises(UsageError, match="at least one neighbour"):
        asked(index, faces, count=0)
    with pytest.raises(LimitExceededError, match="neighbours asked for is 10,001"):
        asked(index, faces, count=10_001)
    with pytest.raises(UsageError, match="recall"):
        asked(index, faces, recall=1.5)
    with pytest.raises(UnusableVectorError, match="3 dimensions; the space has 8"):
        asked(index, faces, vectors=unit_vectors(1, dimension=3))


# Differences


def test_check_names_what_is_missing_what_is_a_ghost_and_what_is_stale(
    faces: TestGallery, tmp_path: Path
) -> None:
    built(faces, tmp_path)
    index = opened(faces, tmp_path)
    faces.execute("INSERT INTO person (collection_id, name) VALUES (1, 'Ada')")
    for table in ("face", "vector"):
        faces.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")  # past the change log
    faces.add([900, 901], QUERIES[:2])
    faces.execute("DELETE FROM face WHERE id = 5")
    faces.execute("UPDATE face SET age = NULL, tags = '{hat}' WHERE id = 6")
    faces.execute("UPDATE face SET person_id = 1, captured_at = now() WHERE id = 7")
    faces.execute("UPDATE face SET attributes = '{\"shelf\": \"a\"}', gender = 'x' WHERE id = 8")
    faces.execute("UPDATE vector SET data = data || '' WHERE face_id = 9")  # the same bytes
    faces.execute(
        "UPDATE vector SET data = :data WHERE face_id = 10",
        data=QUERIES[0].astype("<f2").tobytes(),
    )
    report = check(index)
    assert (report.store, report.index) == (ROWS + 1, ROWS)
    assert (report.missing, report.ghosts, report.stale) == (2, 1, 4)
    assert [(one.face, one.kind, one.fields) for one in report.differences] == [
        (5, "ghost", ()),
        (6, "stale", ("age", "tags")),
        (7, "stale", ("person", "person_id", "captured_at")),
        (8, "stale", ("gender", "shelf")),
        (10, "stale", ("vector",)),
        (900, "missing", ()),
        (901, "missing", ()),
    ]
    built(faces, tmp_path)
    index.refresh()
    assert check(index).differences == ()


def test_check_finds_no_difference_after_changes_that_the_reader_has_not_seen_yet(
    faces: TestGallery, tmp_path: Path
) -> None:
    built(faces, tmp_path)
    index = opened(faces, tmp_path)
    faces.execute("UPDATE face SET age = 500 WHERE id < 50")
    faces.add([999], QUERIES[:1])
    assert check(index).differences == ()


def test_an_index_is_built_anew_when_a_tenth_and_two_thousand_rows_changed() -> None:
    def status(*, spent: float = 0.0, last: float | None = None, **counts: int) -> IndexStatus:
        known = {"delta_rows": 0, "patched_rows": 0, "dead_rows": 0, **counts}
        snapshot_rows = known.pop("snapshot_rows", 10_000)
        return IndexStatus(
            snapshot="a",
            rows=snapshot_rows,
            snapshot_rows=snapshot_rows,
            delta_seconds=spent,
            build_seconds=last,
            cursor=Cursor("1:1:"),
            problems=(),
            **known,
        )

    assert not should_build(status())
    assert not should_build(status(delta_rows=1_999, snapshot_rows=0))
    assert should_build(status(delta_rows=2_000, snapshot_rows=0))
    assert not should_build(status(delta_rows=2_500, snapshot_rows=1_000_000))
    assert should_build(status(delta_rows=500, patched_rows=1_000, dead_rows=600))
    many = {"delta_rows": 2_500, "snapshot_rows": 1_000_000}
    assert should_build(status(**many, spent=30.1, last=30.0))
    assert not should_build(status(**many, spent=29.9, last=30.0))
    assert not should_build(status(delta_rows=100, spent=31.0, last=30.0))
