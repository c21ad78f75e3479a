"""Promises hold for questions that are unlike rows, as sentences are among faces."""

from collections.abc import Iterator
from statistics import fmean

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.index import lists
from retrieval.index.fitting import COUNTED
from retrieval.library import Index
from retrieval.plan import Strategy
from retrieval.values import UnitRows, unit_rows
from tests.ways import in_way

ROWS, SAID, REST = 6_000, 12, 36  # dimensions that sentences speak of, and others
ASKED = 0.95


def sentences(said: np.ndarray, count: int, *, seed: int) -> UnitRows:
    """Half of what is so of some row, and nothing of the rest."""
    random = np.random.default_rng(seed)
    told = said[random.integers(0, ROWS, count)] * (random.random((count, SAID)) < 0.5)
    told += 0.2 * random.standard_normal(told.shape)
    return unit_rows(np.hstack([told, 0.1 * random.standard_normal((count, REST))]))


@pytest.fixture(scope="module")
def said() -> np.ndarray:
    drawn = np.random.default_rng(3).standard_normal((ROWS, SAID))
    return np.where(np.abs(drawn) < 0.8, 0.0, drawn)


@pytest.fixture(scope="module")
def faces(said: np.ndarray) -> UnitRows:
    """Rows of which most is the person's own, that no sentence speaks of."""
    random = np.random.default_rng(4)
    owners = random.standard_normal((ROWS // 20, REST))[random.integers(0, ROWS // 20, ROWS)]
    return unit_rows(np.hstack([said, owners + 0.5 * random.standard_normal((ROWS, REST))]))


@pytest.fixture(scope="module")
def indexes(said: np.ndarray, faces: UnitRows) -> Iterator[tuple[Index, Index]]:
    """One index that knows rows only, and one that was told of sentences."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "LISTED_ROWS_MIN", 3_000)
        attributes = {"u": np.random.default_rng(0).random(ROWS)}
        yield (
            Index.build(faces, attributes),
            Index.build(faces, attributes, questions=sentences(said, 1_200, seed=7)),
        )


def recall(
    index: Index, queries: UnitRows, where: str | None, monkeypatch: pytest.MonkeyPatch
) -> float:
    """The mean recall of searches by lists."""
    exact = [index.search(query, where=where, recall="exact") for query in queries]
    monkeypatch.setattr("retrieval.search.plan", in_way(Strategy.PROBE))
    found = [index.search(query, where=where, recall=ASKED) for query in queries]
    monkeypatch.undo()
    assert {one.answer.plan.strategy for one in found} == {Strategy.PROBE}
    return fmean(
        len(set(one.ids.tolist()) & set(true.ids.tolist())) / len(true.ids)
        for one, true in zip(found, exact, strict=True)
    )


@pytest.mark.parametrize("where", [None, "u < 0.5"])
def test_recall_is_what_was_promised_where_the_index_was_told_of_such_questions(
    indexes: tuple[Index, Index],
    said: np.ndarray,
    faces: UnitRows,
    where: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = sentences(said, 300, seed=99)
    of_rows, of_both = indexes
    assert recall(of_rows, asked, where, monkeypatch) < 0.8  # what measuring with rows misses
    assert recall(of_both, asked, where, monkeypatch) >= ASKED
    random = np.random.default_rng(5)
    like_rows = unit_rows(
        faces[random.choice(ROWS, 200, replace=False)]
        + 0.3 * random.standard_normal((200, SAID + REST)) / np.sqrt(SAID + REST)
    )
    assert recall(of_both, like_rows, where, monkeypatch) >= ASKED


def test_a_search_for_such_questions_leaves_out_less(indexes: tuple[Index, Index]) -> None:
    of_rows, of_both = (
        index.view.snapshot.coding.rule.promise_for(ASKED)
        for index in indexes
        if index.view.snapshot and index.view.snapshot.coding
    )
    assert of_rows is not None
    assert of_both is not None
    assert of_both.missed < of_rows.missed


def test_few_questions_are_not_measured_with(faces: UnitRows) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "LISTED_ROWS_MIN", 3_000)
        with pytest.raises(UsageError, match=str(COUNTED)):
            Index.build(faces, questions=faces[:COUNTED])
