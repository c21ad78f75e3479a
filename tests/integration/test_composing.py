"""Composed answers against brute force: every face scored in both indexes, by plain numpy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import composing
from retrieval.composing import Part, compose, fused, spread, weights
from retrieval.filters.parse import parse
from retrieval.index import lists
from retrieval.index.exact import cosines
from retrieval.library import Index
from retrieval.search import Question
from retrieval.values import Similarity, Tier, UnitRows, unit_rows
from tests.galleries import clustered_vectors

FACES = 700
DIMENSIONS = (24, 16)
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Two indexes of overlapping faces with a history, and what holds of every face."""

    indexes: tuple[Index, Index]
    columns: dict[str, npt.NDArray[Any]]  # of faces 0 to FACES - 1
    vectors: tuple[npt.NDArray[Any], npt.NDArray[Any]]  # (FACES, d) as stored
    there: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]

    def similarities(self, queries: tuple[UnitRows, UnitRows]) -> tuple[Doubles, Doubles]:
        one, other = (
            cosines(vectors, query[0]) for vectors, query in zip(self.vectors, queries, strict=True)
        )
        return one, other


def made(seed: int) -> Pair:
    """Indexes that lack some faces each, with equal pictures, later additions and deletions."""
    random = np.random.default_rng(seed)
    columns = {
        "shelf": random.integers(0, 4, FACES),
        "weight": random.random(FACES),
        "person_id": random.integers(0, FACES // 6, FACES),
    }
    table = {
        "shelf": columns["shelf"].tolist(),
        "weight": columns["weight"].tolist(),
        "person_id": [
            int(one) if one % 5 else None for one in columns["person_id"]
        ],  # one of five is nobody's
    }
    indexes, stored, there = [], [], []
    for dimension in DIMENSIONS:
        vectors = clustered_vectors(FACES, dimension=dimension, clusters=9, seed=seed).copy()
        vectors[1::3] = vectors[1]  # a third are equal pictures
        held = random.random(FACES) > 0.1
        ids = np.flatnonzero(held)
        first, later = ids[: 2 * len(ids) // 3], ids[2 * len(ids) // 3 :]

        def part(rows: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
            return {name: [column[row] for row in rows] for name, column in table.items()}

        index = Index.build(vectors[first], part(first), ids=first)
        index.add(vectors[later], part(later), ids=later)
        moved = first[::11]
        vectors[moved] = vectors[(moved + 5) % FACES]
        index.add(vectors[moved], part(moved), ids=moved)
        gone = random.choice(ids, 40, replace=False)
        index.delete(gone)
        held[gone] = False
        found, known = index.view.vectors_of(np.arange(FACES))
        assert (known == held).all()
        found[~held] = 1
        indexes.append(index)
        stored.append(found)
        there.append(held)
    return Pair((indexes[0], indexes[1]), columns, (stored[0], stored[1]), (there[0], there[1]))


@pytest.fixture(scope="module", params=[3, 4])
def pair(request: pytest.FixtureRequest) -> Pair:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "LISTED_ROWS_MIN", 100)
        return made(request.param)


@pytest.fixture
def several_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for few at first, and score everything only where nothing else is left."""
    monkeypatch.setattr(composing, "FIRST", 1)
    monkeypatch.setattr(composing, "FIRST_MIN", 1)
    monkeypatch.setattr(composing, "GROWTH", 2)
    monkeypatch.setattr(composing, "SCANNED_SHARE", 1)


FILTERS = {
    None: lambda columns: columns["shelf"] >= 0,
    "shelf = 2": lambda columns: columns["shelf"] == 2,
    "weight < 0.05": lambda columns: columns["weight"] < 0.05,
    "shelf IN (0, 1) AND weight >= 0.4": lambda columns: (
        (columns["shelf"] < 2) & (columns["weight"] >= 0.4)
    ),
    "weight > 2": lambda columns: columns["weight"] > 2,
}


def brute(
    pair: Pair,
    queries: tuple[UnitRows, UnitRows],
    shares: tuple[float, float],
    where: str | None,
    least: float | None,
    *,
    grouped: bool,
) -> list[tuple[int, float]]:
    """Every face that passes and has both vectors, best first."""
    one, other = pair.similarities(queries)
    means = shares[0] * one + shares[1] * other
    passing = FILTERS[where](pair.columns) & pair.there[0] & pair.there[1]
    order = [int(face) for face in np.lexsort((np.arange(FACES), -means)) if passing[face]]
    if grouped:
        owners = pair.columns["person_id"]
        seen: set[int] = set()
        kept = []
        for face in order:
            owner = int(owners[face])
            if owner % 5 == 0 or owner not in seen:
                kept.append(face)
            seen.add(owner)
        order = kept
    return [(face, float(means[face])) for face in order if least is None or means[face] >= least]


@dataclass(frozen=True)
class Asking:
    """A random question."""

    seed: int
    share: float
    count: int
    where: str | None
    recall: Any
    least: float | None
    grouped: bool

    def queries(self) -> tuple[UnitRows, UnitRows]:
        random = np.random.default_rng(self.seed)
        one, other = (unit_rows(random.standard_normal(size)) for size in DIMENSIONS)
        return one, other


@pytest.mark.usefixtures("several_rounds")
@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    asking=st.builds(
        Asking,
        seed=st.integers(0, 2**32),
        share=st.floats(0.01, 0.99),
        count=st.integers(1, 40),
        where=st.sampled_from(list(FILTERS)),
        recall=st.sampled_from(["exact", "certified"]),
        least=st.none() | st.floats(-0.5, 0.9),
        grouped=st.booleans(),
    )
)
def test_the_threshold_algorithm_equals_brute_force_to_the_bit(pair: Pair, asking: Asking) -> None:
    queries, where = asking.queries(), asking.where
    shares = (1.0 - asking.share, asking.share)
    question = Question(
        vectors=queries[0],
        count=asking.count,
        filter=None if where is None else parse(where, pair.indexes[0].fields),
        recall=asking.recall,
        min_similarity=None if asking.least is None else Similarity(asking.least),
        group_by="person" if asking.grouped else None,
    )
    found = compose(
        [
            Part(view=index.view, vector=query, weight=weight)
            for index, query, weight in zip(pair.indexes, queries, shares, strict=True)
        ],
        question,
    )
    told = list(zip(found.hits.ids.tolist(), found.hits.similarities.tolist(), strict=True))
    best = brute(pair, queries, shares, where, asking.least, grouped=asking.grouped)
    assert told == best[: asking.count]
    for column, mine in zip(found.similarities, pair.similarities(queries), strict=True):
        assert column.tolist() == mine[found.hits.ids].tolist()


@pytest.mark.usefixtures("several_rounds")
def test_few_rounds_are_enough_where_both_vectors_agree(pair: Pair) -> None:
    face = int(np.flatnonzero(pair.there[0] & pair.there[1])[0])
    queries = [unit_rows(vectors[face]) for vectors in pair.vectors]
    found = compose(
        [
            Part(view=index.view, vector=query, weight=0.5)
            for index, query in zip(pair.indexes, queries, strict=True)
        ],
        Question(vectors=queries[0], count=1, recall="certified"),
    )
    assert found.hits.ids.tolist() == [face]
    assert not found.scanned
    assert found.rounds <= 2
    assert found.candidates < FACES / 10


def test_a_face_without_one_of_the_vectors_is_no_hit(pair: Pair) -> None:
    only_one = np.flatnonzero(pair.there[0] & ~pair.there[1])
    query = unit_rows(pair.vectors[0][only_one[0]])
    found = compose(
        [
            Part(view=pair.indexes[0].view, vector=query, weight=0.99),
            Part(view=pair.indexes[1].view, vector=unit_rows(np.ones(DIMENSIONS[1])), weight=0.01),
        ],
        Question(vectors=query, count=FACES, recall="exact"),
    )
    assert set(found.hits.ids.tolist()) == set(
        np.flatnonzero(pair.there[0] & pair.there[1]).tolist()
    )
    assert found.tier is Tier.EXACT


@given(
    rankings=st.lists(st.lists(st.integers(0, 30), unique=True), min_size=0, max_size=4),
    count=st.integers(1, 40),
)
@settings(deadline=None, derandomize=True)
def test_fusion_orders_by_the_sum_of_reciprocal_ranks(
    rankings: list[list[int]], count: int
) -> None:
    sums: dict[int, float] = {}
    for ranking in rankings:
        for rank, face in enumerate(ranking, start=1):
            sums[face] = sums.get(face, 0.0) + 1 / (60 + rank)
    best = sorted(sums, key=lambda face: (-sums[face], face))[:count]
    found = fused([np.array(ranking, np.int64) for ranking in rankings], count=count)
    assert found.ids.tolist() == best
    assert found.similarities.tolist() == [sums[face] for face in best]


def test_weights_share_out_what_tells_faces_apart() -> None:
    face, words = weights(0.25, (0.06, 0.2))
    assert face + words == 1.0
    assert words * 0.2 / (face * 0.06) == pytest.approx(0.25 / 0.75)
    assert weights(0.0, (0.06, 0.2)) == (1.0, 0.0)
    assert weights(1.0, (0.06, 0.2)) == (0.0, 1.0)


def test_the_spread_is_that_of_unlike_faces() -> None:
    random = np.random.default_rng(5)
    strangers = random.standard_normal((4000, 64))
    owners = np.repeat(random.standard_normal((200, 64)), 20, axis=0)
    people = owners + 0.5 * strangers
    for vectors in (strangers, people):  # a person's own pictures count little
        assert spread(Index.build(vectors).view) == pytest.approx(1 / np.sqrt(64), rel=0.05)
    few = Index.build(strangers[:20])
    assert spread(few.view) == composing.USUAL_SPREAD
