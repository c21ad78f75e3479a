"""Searches that tell the best face of each track, by every way there is, against brute force."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.build import build
from retrieval.errors import UsageError
from retrieval.explain import explained, text_of
from retrieval.index import lists
from retrieval.library import Index
from retrieval.plan import Strategy
from retrieval.reader import Reader
from retrieval.search import Question
from retrieval.store.database import Store
from retrieval.values import Similarity, UnitRows
from tests.galleries import clustered_vectors, gallery, unit_vectors
from tests.ways import WAYS, in_way

ROWS, DIMENSION = 400, 24
VECTORS = clustered_vectors(ROWS + 40, dimension=DIMENSION, clusters=12)
QUERIES = clustered_vectors(8, dimension=DIMENSION, clusters=12, seed=3)


def track(row: int) -> str | None:
    """Few long tracks, many short ones, and rows in none."""
    if row % 7 == 0:
        return None
    return f"long {row % 3}" if row % 2 else f"short {row // 5}"


def columns(rows: range) -> dict[str, list[Any]]:
    return {
        "track": [track(row) for row in rows],
        "person_id": [None if row % 4 == 0 else row % 11 - 5 for row in rows],
        "age": [float(row % 60) for row in rows],
    }


@contextmanager
def gone_by(way: Strategy) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "LISTED_ROWS_MIN", 100)
        patch.setattr("retrieval.search.plan", in_way(way))
        yield


@pytest.fixture(scope="module")
def index() -> Index:
    """Tracks whose rows lie in a snapshot, came later, moved on, or are gone."""
    with gone_by(Strategy.SCORE):
        made = Index.build(VECTORS[:ROWS], columns(range(ROWS)))
    made.add(VECTORS[ROWS:], columns(range(ROWS, ROWS + 40)), ids=range(ROWS, ROWS + 40))
    made.add(VECTORS[:9], columns(range(1, 10)), ids=range(9))  # in other tracks now
    made.delete(range(100, 130))
    return made


def group(row: int, by: str) -> Any:
    told = row + 1 if row < 9 else row
    return columns(range(told, told + 1))["track" if by == "track" else "person_id"][0]


def firsts(found: Any, by: str) -> list[int]:
    """The first row of each group, and the rows without one, from a full exact answer."""
    seen: set[Any] = set()
    kept = []
    for row in found.ids.tolist():
        mine = group(row, by)
        if mine is None or mine not in seen:
            kept.append(row)
        seen.add(mine)
    return kept


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    query=st.integers(0, len(QUERIES) - 1),
    count=st.integers(1, 120),
    way=st.sampled_from(WAYS),
    by=st.sampled_from(["track", "person"]),
    asked=st.tuples(
        st.sampled_from([None, "age < 30", "track IS NOT NULL", "age = 17"]),
        st.none() | st.floats(-0.3, 0.8),
    ),
)
def test_the_best_row_of_each_group_is_told_whatever_way_is_gone(
    index: Index, query: int, count: int, way: Strategy, by: Any, asked: tuple[str | None, Any]
) -> None:
    where, least = asked
    everybody = index.search(QUERIES[query], where=where, count=1000, recall="exact")
    similarity = dict(zip(everybody.ids.tolist(), everybody.similarities.tolist(), strict=True))
    wanted = [row for row in firsts(everybody, by) if least is None or similarity[row] >= least]
    with gone_by(way):
        found = index.search(
            QUERIES[query], where=where, count=count, recall="exact", group_by=by,
            min_similarity=least,
        )  # fmt: skip
    assert found.ids.tolist() == wanted[:count]
    assert found.similarities.tolist() == [similarity[row] for row in wanted[:count]]


def test_many_queries_are_grouped_each_for_itself(index: Index) -> None:
    together = index.search_many(QUERIES, count=30, recall="exact", group_by="track")
    alone = [index.search(q, count=30, recall="exact", group_by="track") for q in QUERIES]
    assert [one.ids.tolist() for one in together] == [one.ids.tolist() for one in alone]


def test_an_index_without_tracks_says_so() -> None:
    without = Index.build(VECTORS[:50], {"age": [1.0] * 50})
    with pytest.raises(UsageError, match="'track', which is no field"):
        without.search(QUERIES[0], group_by="track")


def test_an_answer_says_what_it_is_grouped_by(index: Index) -> None:
    answer = index.search(QUERIES[0], group_by="track").answer
    plan = explained(answer)
    assert plan["group_by"] == "track"
    told = text_of(plan).splitlines()
    assert told[-1] == (
        "grouped by track: the best face of each; a face without a track stands alone"
    )
    assert "group_by" not in explained(index.search(QUERIES[0]).answer)


@pytest.mark.parametrize("recall", ["exact", 0.5])
def test_tracks_of_stored_faces_hold_wherever_they_were_changed(
    store: Store, tmp_path: Path, recall: Any
) -> None:
    made = gallery(store)
    vectors = unit_vectors(120, seed=2)
    made.add(range(1, 101), vectors[:100])
    made.execute("UPDATE face SET track = 'a' WHERE id <= 40")
    build(made.holding, home=tmp_path)
    made.execute("UPDATE face SET track = 'b' WHERE id BETWEEN 30 AND 50")  # patches
    made.add(range(101, 121), vectors[100:])
    made.execute("UPDATE face SET track = 'a' WHERE id > 110")  # in the delta
    tracks = dict.fromkeys([*range(1, 30), *range(111, 121)], "a")
    tracks |= dict.fromkeys(range(30, 51), "b")
    index = Reader.open(made.holding, home=tmp_path)
    query = UnitRows(vectors[:1])
    [everybody] = index.search(Question(vectors=query, count=200, recall="exact")).neighbours
    seen: dict[object, int] = {}
    for hit in everybody:
        seen.setdefault(tracks.get(hit.face, -hit.face), hit.face)
    question = Question(
        vectors=query, count=100, recall=recall, group_by="track", min_similarity=Similarity(-1.0)
    )
    [grouped] = index.search(question).neighbours
    assert [hit.face for hit in grouped] == list(seen.values())
