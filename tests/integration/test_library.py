"""The engine as a library: what it takes, what it refuses, and that changes are seen at once."""

import doctest
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

import retrieval.library
from retrieval.errors import (
    FacedexError,
    FilterError,
    LimitExceededError,
    SchemaMismatchError,
    SnapshotUnusableError,
    UnusableVectorError,
    UsageError,
)
from retrieval.index import lists
from retrieval.library import Found, Index
from retrieval.plan import Recall, Strategy
from retrieval.values import FieldType
from tests.galleries import clustered_vectors
from tests.ways import WAYS, in_way

ROWS, DIMENSION = 600, 24
VECTORS = clustered_vectors(ROWS, dimension=DIMENSION, clusters=20)
QUERIES = clustered_vectors(20, dimension=DIMENSION, clusters=20, seed=5)
MAY = datetime(2024, 5, 1, tzinfo=UTC)
WHERE = "age < 40 AND 'hat' = ANY(tags) OR shelf = 'b' AND good"
RECALLS: tuple[Recall, ...] = (0.8, 0.95, "certified", "exact")
TYPES = {
    "age": FieldType.NUMBER,
    "frame": FieldType.INTEGER,
    "shelf": FieldType.TEXT,
    "good": FieldType.BOOLEAN,
    "tags": FieldType.TAGS,
    "seen": FieldType.TIMESTAMP,
}


def attributes(rows: range | list[int] = range(ROWS)) -> dict[str, list[Any]]:
    """What is known of rows; some of it is not."""
    return {
        "age": [None if row % 7 == 0 else float(row % 90) for row in rows],
        "frame": [row * row for row in rows],
        "shelf": [None if row % 5 == 0 else "abc"[row % 3] for row in rows],
        "good": [None if row % 11 == 0 else row % 2 == 0 for row in rows],
        "tags": [None if row % 13 == 0 else ["hat", "Ü"][: row % 3] for row in rows],
        "seen": [MAY + timedelta(days=row) for row in rows],
    }


def passing(rows: range | list[int] = range(ROWS)) -> list[int]:
    """The rows that pass WHERE, in Python."""
    held = attributes(rows)
    return [
        row
        for place, row in enumerate(rows)
        if ((age := held["age"][place]) is not None and age < 40 and row % 13 and row % 3 > 0)
        or (held["shelf"][place] == "b" and held["good"][place] is True)
    ]


def truth(
    vectors: npt.NDArray[Any], ids: list[int], query: npt.NDArray[Any], count: int
) -> list[int]:
    stored = vectors.astype(np.float16).astype(np.float64)
    similarities = stored @ query.astype(np.float64) / np.linalg.norm(stored, axis=1)
    order = np.lexsort((ids, -similarities.round(10)))[:count]
    return [ids[place] for place in order]


def told(found: Found) -> tuple[list[int], list[float]]:
    return found.ids.tolist(), found.similarities.tolist()


@pytest.fixture(scope="module")
def index() -> Index:
    """Six hundred vectors with attributes, which no test changes."""
    return Index.build(VECTORS, attributes())


# Building


def test_the_example_of_the_module_is_true() -> None:
    results = doctest.testmod(retrieval.library)
    assert results.attempted > 0
    assert results.failed == 0


def test_answers_are_those_of_brute_force(index: Index) -> None:
    wanted = passing()
    assert len(index) == ROWS
    for query in QUERIES:
        found = index.search(query, recall="exact", count=7)
        assert found.ids.tolist() == truth(VECTORS, list(range(ROWS)), query, 7)
        few = index.search(query, where=WHERE, recall="exact", count=7)
        assert few.ids.tolist() == truth(VECTORS[wanted], wanted, query, 7)
        assert few.answer.survivors == len(wanted)


@pytest.mark.parametrize(
    "make_table",
    [
        lambda columns: columns,
        pa.table,
        lambda columns: {
            name: pa.array(values, pa.timestamp("us", "UTC") if name == "seen" else None)
            for name, values in columns.items()
        },
        lambda columns: pa.table(columns).set_column(
            2, "shelf", pa.array(columns["shelf"]).dictionary_encode()
        ),
        lambda columns: pa.table(columns).set_column(
            4, "tags", pa.array(columns["tags"], pa.large_list(pa.large_string()))
        ),
        lambda columns: pa.table(columns).set_column(
            1, "frame", pa.array(columns["frame"], pa.int32())
        ),
    ],
    ids=["lists", "table", "arrow arrays", "dictionary", "large lists", "int32"],
)
def test_attributes_may_come_as_lists_arrays_and_tables(
    index: Index, make_table: Callable[[dict[str, Any]], Any]
) -> None:
    other = Index.build(VECTORS, make_table(attributes()))
    assert dict(other.fields) == TYPES
    for where in (WHERE, "frame < 900", "seen < '2024-06-01'", "tags IS NULL"):
        one, same = (one.search(QUERIES[0], where=where, recall="exact") for one in (index, other))
        assert told(one) == told(same)
        assert one.answer.survivors == same.answer.survivors > 0


def test_numpy_arrays_are_attributes_as_well() -> None:
    columns = {"n": np.arange(ROWS), "x": np.arange(ROWS) / 2, "b": np.arange(ROWS) % 2 == 0}
    other = Index.build(VECTORS, columns)
    assert list(other.fields.values()) == [FieldType.INTEGER, FieldType.NUMBER, FieldType.BOOLEAN]
    assert other.search(QUERIES[0], where="n < 100 AND x >= 10 AND b").answer.survivors == 40


def test_float16_rows_of_any_length_are_taken_as_they_come_and_found_by_cosine() -> None:
    lengths = np.geomspace(1e-3, 1e3, ROWS)[:, None]
    given = (VECTORS * lengths).astype(np.float16)
    index = Index.build(given)
    for query in QUERIES:
        expected = truth(given, list(range(ROWS)), query, 5)
        assert index.search(query, count=5, recall="exact").ids.tolist() == expected
    nearest = index.search(VECTORS[7], count=1, recall="exact")
    given[:] = 0  # the index keeps what it was built from
    again = index.search(VECTORS[7], count=1, recall="exact")
    assert again.similarities.tolist() == nearest.similarities.tolist()


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_float16_row_that_points_nowhere_is_refused(bad: float) -> None:
    given = VECTORS.astype(np.float16)
    given[3] = bad
    with pytest.raises(UnusableVectorError):
        Index.build(given)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, list])
def test_vectors_may_be_of_any_float_type_and_any_length(index: Index, dtype: Any) -> None:
    scaled = VECTORS.astype(np.float64) * np.linspace(0.1, 9, ROWS)[:, None]
    given = scaled.tolist() if dtype is list else scaled.astype(dtype)
    other = Index.build(given, attributes())
    for query in QUERIES:
        one, same = (one.search(query, recall="exact", count=20) for one in (index, other))
        assert same.similarities == pytest.approx(one.similarities, abs=2e-3)
        # A query of another length and type asks the same.
        again = index.search((7 * query.astype(np.float64)).tolist(), recall="exact", count=20)
        assert again.ids.tolist() == one.ids.tolist()


def test_ids_are_those_of_the_caller_in_any_order() -> None:
    ids = np.random.default_rng(0).permutation(10**12 + np.arange(ROWS))
    other = Index.build(VECTORS, attributes(), ids=ids)
    for query in QUERIES:
        found = other.search(query, recall="exact", count=5)
        assert found.ids.tolist() == truth(VECTORS, ids.tolist(), query, 5)


def test_what_the_caller_gave_is_not_written_to_and_may_be_changed_later() -> None:
    given, query = VECTORS.copy(), QUERIES[0].copy()
    other = Index.build(given)
    before = told(other.search(query, recall="exact"))
    assert given.tobytes() == VECTORS.tobytes()
    given[:] = 1
    assert told(other.search(query, recall="exact")) == before
    query += 1  # still the caller's to write


# Asking


def test_a_prepared_filter_is_bound_again_and_again(index: Index) -> None:
    young = index.prepare("age < :limit AND shelf = :shelf")
    for limit in (10.0, 30.0, 80.0):
        for shelf in "abc":
            prepared = index.search(
                QUERIES[0], where=young, parameters={"limit": limit, "shelf": shelf}
            )
            written = index.search(QUERIES[0], where=f"age < {limit} AND shelf = '{shelf}'")
            assert told(prepared) == told(written)
            assert prepared.answer.survivors == written.answer.survivors > 0


@pytest.mark.parametrize("recall", RECALLS)
@pytest.mark.parametrize("where", [None, WHERE, "frame < 100", "age = -1"])
def test_many_queries_are_answered_like_each_alone(
    index: Index, recall: Recall, where: str | None
) -> None:
    together = index.search_many(QUERIES, where=where, recall=recall, count=8)
    alone = [index.search(query, where=where, recall=recall, count=8) for query in QUERIES]
    if all(one.answer.tier == "exact" for one in (*together, *alone)):
        assert [told(one) for one in together] == [told(one) for one in alone]
    assert [len(one.ids) for one in together] == [len(one.ids) for one in alone]
    assert index.search_many(np.empty((0, DIMENSION)), where=where, recall=recall) == []


@pytest.mark.parametrize(
    ("way", "where"),
    [*((way, None) for way in WAYS), *((way, "age < 30") for way in WAYS[:3])],
)
def test_a_least_similarity_gives_the_head_of_the_answer_without_one(
    monkeypatch: pytest.MonkeyPatch, way: Strategy, where: str | None
) -> None:
    index = Index.build(VECTORS, attributes())
    index.add(VECTORS[:40] + 0.01, attributes(range(40)), ids=np.arange(40) + 10**6)
    monkeypatch.setattr("retrieval.search.plan", in_way(way))
    recall: Recall = 0.95 if way is Strategy.PROBE else "certified"
    for query in VECTORS[:30]:
        whole = index.search(query, where=where, count=20, recall=recall)
        for least in (-1.0, float(whole.similarities[3]), float(whole.similarities[-1]), 1.01):
            found = index.search(query, where=where, count=20, recall=recall, min_similarity=least)
            head = int(np.count_nonzero(whole.similarities >= least))
            assert found.ids.tolist() == whole.ids[:head].tolist()
            assert found.similarities.tolist() == whole.similarities[:head].tolist()


def test_more_than_there_are_gives_all_of_them_and_none_of_none(index: Index) -> None:
    for recall in RECALLS:
        everything = index.search(QUERIES[0], count=ROWS + 50, recall=recall)
        assert sorted(everything.ids.tolist()) == list(range(ROWS))
        nothing = index.search(QUERIES[0], where="age = -1", recall=recall)
        assert (told(nothing), nothing.answer.survivors) == (([], []), 0)


# Few rows


@pytest.mark.parametrize("recall", RECALLS)
def test_an_empty_index_finds_nothing_until_something_is_added(recall: Recall) -> None:
    empty = Index.build(np.empty((0, 8)), {"age": pa.array([], pa.float64())})
    assert len(empty) == 0
    assert told(empty.search(np.ones(8), recall=recall)) == ([], [])
    assert [told(one) for one in empty.search_many(np.ones((3, 8)))] == [([], [])] * 3
    assert told(empty.search(np.ones(8), where="age < 3", recall=recall)) == ([], [])
    empty.add(np.eye(8)[:2], {"age": [1.0, 5.0]}, ids=[7, 3])
    assert empty.search(np.eye(8)[1], recall=recall).ids.tolist() == [3, 7]
    assert empty.search(np.eye(8)[1], where="age < 3", recall=recall).ids.tolist() == [7]
    empty.delete([3, 7])
    assert told(empty.search(np.ones(8), recall=recall)) == ([], [])


@pytest.mark.parametrize("recall", RECALLS)
def test_one_row_is_found_from_everywhere(recall: Recall) -> None:
    one = Index.build([[3.0, 4.0]], {"age": [1]}, ids=[9])
    found = one.search([4.0, 3.0], recall=recall, count=5)
    assert found.ids.tolist() == [9]
    assert found.similarities == pytest.approx([0.96], abs=1e-3)
    assert one.search([-3.0, -4.0], recall=recall).similarities == pytest.approx([-1.0], abs=1e-3)
    assert told(one.search([1.0, 0.0], where="age = 2", recall=recall)) == ([], [])


# Changing


def test_additions_replacements_and_deletions_are_seen_at_once_as_if_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "LISTED_ROWS_MIN", 300)
    random = np.random.default_rng(3)
    changed = Index.build(VECTORS, attributes())
    held = {row: (VECTORS[row], row) for row in range(ROWS)}  # id: vector, row of its attributes
    for step in range(25):
        if step % 3 == 2:
            gone = random.choice(900, 30, replace=False)
            changed.delete(gone)
            for face in gone.tolist():
                held.pop(face, None)
        else:
            ids = random.choice(900, 20, replace=False).tolist()
            rows = random.integers(0, ROWS, 20).tolist()
            changed.add(VECTORS[rows], attributes(rows), ids=ids)
            held |= {face: (VECTORS[row], row) for face, row in zip(ids, rows, strict=True)}
        if step == 15:
            changed.merge()
        assert len(changed) == len(held)
    faces = list(held)
    rebuilt = Index.build(
        np.stack([vector for vector, _ in held.values()]),
        attributes([row for _, row in held.values()]),
        ids=faces,
    )
    changed.save(tmp_path / "saved")
    loaded = Index.load(tmp_path / "saved")
    assert len(loaded) == len(rebuilt) == len(changed)
    for query in QUERIES:
        for where in (None, WHERE, "frame < 900", "age IS NULL"):
            answers = [
                told(one.search(query, where=where, recall="exact", count=30))
                for one in (rebuilt, changed, loaded)
            ]
            assert answers[1] == answers[0]
            assert answers[2] == answers[0]
            certified = changed.search(query, where=where, recall="certified", count=30)
            assert told(certified) == answers[0]
    changed.merge()
    assert told(changed.search(QUERIES[0], recall="exact")) == told(
        rebuilt.search(QUERIES[0], recall="exact")
    )


def test_attributes_that_are_not_told_are_null() -> None:
    made = Index.build(VECTORS[:50], attributes(range(50)))
    made.add(VECTORS[50:52], ids=[50, 51])
    made.add(VECTORS[52:53], {"age": [3.5]}, ids=[52])
    assert made.search(QUERIES[0], where="shelf IS NULL AND frame IS NULL").answer.survivors == 3
    assert made.search(QUERIES[0], where="age = 3.5").ids.tolist() == [52]


def test_what_was_deleted_or_never_there_may_be_deleted_again() -> None:
    made = Index.build(VECTORS[:50])
    for _ in range(2):
        made.delete([3, 10**15])
        assert len(made) == 49
    made.delete([])
    made.delete(4)
    assert len(made) == 48


def test_a_saved_index_gives_the_same_answers_and_is_not_written_over(
    index: Index, tmp_path: Path
) -> None:
    index.save(tmp_path / "one")
    loaded = Index.load(tmp_path / "one")
    built = Index.build(VECTORS, attributes(), folder=tmp_path / "two")
    reopened = Index.load(tmp_path / "two")
    for query in QUERIES[:5]:
        for recall in RECALLS:
            wanted = told(index.search(query, where=WHERE, recall=recall))
            for one in (loaded, built, reopened):
                if recall in {"exact", "certified"}:
                    assert told(one.search(query, where=WHERE, recall=recall)) == wanted
    with pytest.raises(UsageError, match="holds an index already"):
        Index.build(VECTORS, folder=tmp_path / "two")
    with pytest.raises(SnapshotUnusableError, match="cannot be read"):
        Index.load(tmp_path / "three")


def test_saving_over_an_index_is_refused_whatever_was_changed(tmp_path: Path) -> None:
    made = Index.build(VECTORS[:50])
    made.save(tmp_path / "saved")
    with pytest.raises(UsageError, match="holds an index already"):
        made.save(tmp_path / "saved")
    made.delete([1])
    with pytest.raises(UsageError, match="holds an index already"):
        made.save(tmp_path / "saved")


# Bad input


GOOD = np.ones((1, DIMENSION))
BAD: dict[str, tuple[type[FacedexError], str, Callable[[Index], object]]] = {
    "build NaN": (UnusableVectorError, "vector", lambda _: Index.build([[1.0, np.nan]])),
    "build inf": (UnusableVectorError, "vector", lambda _: Index.build([[1.0, np.inf]])),
    "build zero": (UnusableVectorError, "vector", lambda _: Index.build([[1.0, 0], [0.0, 0]])),
    "build float32 NaN": (
        UnusableVectorError, "vector", lambda _: Index.build(np.full((3, 4), np.nan, np.float32))
    ),
    "build float32 inf": (
        UnusableVectorError, "vector", lambda _: Index.build(np.full((3, 4), np.inf, np.float32))
    ),
    "build float32 zero": (
        UnusableVectorError, "vector", lambda _: Index.build(np.zeros((3, 4), np.float32))
    ),
    "build one vector": (UnusableVectorError, "shape", lambda _: Index.build(np.ones(4))),
    "build cube": (UnusableVectorError, "shape", lambda _: Index.build(np.ones((2, 2, 2)))),
    "build too few attributes": (
        SchemaMismatchError, "5 vectors and 3", lambda _: Index.build(VECTORS[:5], {"a": [1, 2, 3]})
    ),
    "build unknown type": (
        SchemaMismatchError, '"a" is binary', lambda _: Index.build(GOOD, {"a": [b"x"]})
    ),
    "build ids repeat": (
        UsageError, "each is there once", lambda _: Index.build(VECTORS[:2], ids=[1, 1])
    ),
    "build ids below 0": (UsageError, "not below 0", lambda _: Index.build(GOOD, ids=[-1])),
    "build ids float": (UsageError, "integers", lambda _: Index.build(GOOD, ids=[1.5])),
    "build too few ids": (UsageError, "integers", lambda _: Index.build(VECTORS[:2], ids=[1])),
    "build NaN attribute": (
        SchemaMismatchError, "NaN", lambda _: Index.build(GOOD, {"a": np.array([np.nan])})
    ),
    "build NULL tag": (
        SchemaMismatchError, "NULL", lambda _: Index.build(GOOD, {"a": [["x", None]]})
    ),
    "add NaN": (UnusableVectorError, "vector", lambda i: i.add(GOOD * np.nan, ids=[1])),
    "add zero": (UnusableVectorError, "vector", lambda i: i.add(GOOD * 0, ids=[1])),
    "add dimension": (UnusableVectorError, "dimension", lambda i: i.add(np.ones((1, 3)), ids=[1])),
    "add ids repeat": (UsageError, "once", lambda i: i.add(VECTORS[:2], ids=[5, 5])),
    "add too few ids": (UsageError, "integers", lambda i: i.add(VECTORS[:2], ids=[5])),
    "add unknown attribute": (
        SchemaMismatchError, "of this index", lambda i: i.add(GOOD, {"new": [1]}, ids=[1])
    ),
    "add wrong type": (
        SchemaMismatchError, "type", lambda i: i.add(GOOD, {"age": ["old"]}, ids=[1])
    ),
    "add NaN attribute": (
        SchemaMismatchError, "NaN", lambda i: i.add(GOOD, {"age": np.array([np.nan])}, ids=[1])
    ),
    "delete float": (UsageError, "integers", lambda i: i.delete([1.5])),
    "query NaN": (UnusableVectorError, "vector", lambda i: i.search(GOOD[0] * np.nan)),
    "query zero": (UnusableVectorError, "vector", lambda i: i.search(GOOD[0] * 0)),
    "query dimension": (UnusableVectorError, "3 dimensions", lambda i: i.search(np.ones(3))),
    "query rows": (UnusableVectorError, "one vector", lambda i: i.search(GOOD)),
    "queries dimension": (
        UnusableVectorError, "3 dimensions", lambda i: i.search_many(np.ones((2, 3)))
    ),
    "unknown field": (FilterError, "nose", lambda i: i.search(GOOD[0], where="nose > 3")),
    "no filter": (FilterError, "end of the filter", lambda i: i.search(GOOD[0], where="age >")),
    "unbound": (FilterError, "x", lambda i: i.search(GOOD[0], where="age > :x")),
    "unknown parameter": (
        FilterError, "y", lambda i: i.search(GOOD[0], where="age > 1", parameters={"y": 1})
    ),
    "count 0": (UsageError, "at least one", lambda i: i.search(GOOD[0], count=0)),
    "count too large": (LimitExceededError, "10,001", lambda i: i.search(GOOD[0], count=10_001)),
    "recall 0": (UsageError, "recall", lambda i: i.search(GOOD[0], recall=0.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words_and_changes_nothing(name: str) -> None:
    error, words, act = BAD[name]
    made = Index.build(VECTORS[:20], attributes(range(20)))
    before = told(made.search(QUERIES[0], recall="exact"))
    with pytest.raises(error, match=words) as refusal:
        act(made)
    assert str(refusal.value)
    assert told(made.search(QUERIES[0], recall="exact")) == before
    assert len(made) == 20


@pytest.mark.parametrize(
    "columns", [{"age": [None]}, {"age": [30]}, {"tags": [None]}, {"tags": [[]]}], ids=str
)
def test_values_that_fit_the_field_are_taken_whatever_type_they_came_in(
    columns: dict[str, list[Any]],
) -> None:
    made = Index.build(VECTORS[:20], attributes(range(20)))
    made.add(GOOD, columns, ids=[99])
    assert len(made) == 21


# Threads


class Watched:
    """An index that one thread changes, and what the others may find in it."""

    def __init__(self) -> None:
        self.index = Index.build(VECTORS, {"n": list(range(ROWS))})
        self.stored = dict(enumerate(VECTORS.astype(np.float16).astype(np.float64)))
        self.gone: set[int] = set()
        self.ended = threading.Event()
        self.problems: list[str] = []
        self.asked = [0] * 4

    def look(self, number: int) -> None:
        random = np.random.default_rng(number)
        while not self.ended.is_set() and not self.problems:
            query = QUERIES[random.integers(len(QUERIES))]
            recall = RECALLS[random.integers(len(RECALLS))]
            self.ask(query, recall, low=int(random.integers(0, 2 * ROWS)))
            self.asked[number] += 1

    def ask(self, query: npt.NDArray[np.float32], recall: Recall, *, low: int) -> None:
        gone = set(self.gone)  # before the search: what goes meanwhile may be found or not
        found = self.index.search(query, where=f"n >= {low}", recall=recall, count=20)
        faces = found.ids.tolist()
        rows = np.array([self.stored[face] for face in faces]).reshape(-1, DIMENSION)
        true = rows @ query.astype(np.float64) / np.linalg.norm(rows, axis=1)
        facts = {
            "none was deleted": not gone & set(faces),
            "all pass": min(faces, default=low) >= low,
            "as many as there are": len(faces) == min(20, found.answer.survivors),
            "whole rows": bool(np.allclose(found.similarities, true, atol=1e-6)),
        }
        self.problems += [fact for fact, holds in facts.items() if not holds]

    def change(self, step: int) -> None:
        ids = list(range(ROWS + 10 * step, ROWS + 10 * step + 10))
        rows = VECTORS[np.random.default_rng(step).permutation(ROWS)[:10]]
        self.stored |= zip(ids, rows.astype(np.float16).astype(np.float64), strict=True)
        self.index.add(rows, {"n": ids}, ids=ids)
        leaving = [7 * step, ROWS + 10 * step + 3]
        self.index.delete(leaving)
        self.gone.update(leaving)


def test_threads_that_search_while_one_changes_see_whole_rows_and_nothing_deleted() -> None:
    watched = Watched()
    looking = [threading.Thread(target=watched.look, args=[number]) for number in range(4)]
    for thread in looking:
        thread.start()
    try:
        for step in range(40):
            watched.change(step)
            if step == 20:
                watched.index.merge()
    finally:
        watched.ended.set()
        for thread in looking:
            thread.join()
    assert watched.problems == []
    assert min(watched.asked) > 5
    assert len(watched.index) == ROWS + 400 - 80
