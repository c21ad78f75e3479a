"""Whatever happens to a gallery, searching the index is searching the store.

Hypothesis makes up histories of writes, builds and refreshes; after each refresh the reader, one
that is opened anew, and PostgreSQL with numpy must agree: ids, order, similarities, counts.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from indexer.build import build
from indexer.check import check
from retrieval.filters.parse import parse
from retrieval.index import lists
from retrieval.plan import Plan, Recall, Statistics
from retrieval.reader import Reader
from retrieval.search import Answer, Question
from retrieval.store.collections import declare
from retrieval.store.database import Store
from retrieval.values import FieldType, Tier
from tests.galleries import TestGallery, answers_of_store, gallery, unit_vectors
from tests.ways import WAYS, in_way

FACES = 60
FILTERS = (
    None,
    "age < 40",
    "age >= 40 OR age IS NULL",
    "person = 'Ada' AND NOT 'hat' = ANY(tags)",
    "person IS NULL",
    "shelf IN ('a', 'b') AND weight BETWEEN 1 AND 3",
    "shelf IS NULL OR face < 20",
    "age = -1",
)
QUERIES = unit_vectors(3, seed=99)
# Of an odd number, so that each meets every way in turn.
ASKED = ((5, "exact"), (5, 0.5), (5, "certified"), (500, "exact"), (20, 0.9))
_numbers = itertools.count()


@dataclass
class History:
    """A gallery, its reader, and a source of chance."""

    gallery: TestGallery
    home: Path
    random: np.random.Generator
    index: Reader = field(init=False)

    def __post_init__(self) -> None:
        self.index = self.opened()

    def opened(self) -> Reader:
        return Reader.open(self.gallery.holding, home=self.home)

    def some(self) -> dict[str, object]:
        """Parameters of a statement on some faces: ids from 1 to FACES, whether there or not."""
        size = int(self.random.integers(1, FACES // 2))
        return {
            "c": self.gallery.collection.id,
            "s": self.gallery.space.id,
            "ids": [int(i) + self.first for i in self.random.choice(FACES, size, replace=False)],
        }

    @property
    def first(self) -> int:
        """Galleries share a table of faces: each uses ids of its own."""
        return self.gallery.collection.id * 1000


def insert(history: History) -> None:
    chosen = history.some()["ids"]
    with history.gallery.store.reading() as connection:
        there = set(connection.scalars(text("SELECT id FROM face")))
    faces = [face for face in chosen if face not in there]  # type: ignore[attr-defined]
    # Some faces are the same picture: equal similarities must be ordered by face.
    fewer = unit_vectors(len(faces) // 2 + 1, seed=int(history.random.integers(1 << 30)))
    vectors = fewer[history.random.integers(0, len(fewer), len(faces))]
    history.gallery.add(
        faces,
        vectors,
        ages=[None if r < 0.2 else float(100 * r) for r in history.random.random(len(faces))],
        tags=[
            None if r < 0.2 else ["hat"] if r < 0.5 else []
            for r in history.random.random(len(faces))
        ],
        attributes=[
            json.dumps({"shelf": "abc"[int(3 * r)], "weight": round(5 * r, 2)} if r > 0.2 else {})
            for r in history.random.random(len(faces))
        ],
    )


def update_ages(history: History) -> None:
    statement = "UPDATE face SET age = 100 * random() WHERE collection_id = :c AND id = ANY(:ids)"
    history.gallery.execute(statement, **history.some())


def assign(history: History) -> None:
    history.gallery.execute(
        "WITH one AS (INSERT INTO person (collection_id, name) VALUES (:c, 'Ada')"
        " ON CONFLICT (collection_id, name) DO UPDATE SET name = 'Ada' RETURNING id)"
        " UPDATE face SET person_id = one.id FROM one"
        " WHERE face.collection_id = :c AND face.id = ANY(:ids)",
        **history.some(),
    )


def rename(history: History) -> None:
    history.gallery.execute(
        "UPDATE person SET name = CASE name WHEN 'Ada' THEN 'Eve' ELSE 'Ada' END"
        " WHERE collection_id = :c",
        c=history.gallery.collection.id,
    )


def forget_persons(history: History) -> None:
    history.gallery.execute(
        "DELETE FROM person WHERE collection_id = :c", c=history.gallery.collection.id
    )


def delete(history: History) -> None:
    history.gallery.execute(
        "DELETE FROM face WHERE collection_id = :c AND id = ANY(:ids)", **history.some()
    )


def delete_vectors(history: History) -> None:
    history.gallery.execute(
        "DELETE FROM vector WHERE space_id = :s AND face_id = ANY(:ids)", **history.some()
    )


def change_vectors(history: History) -> None:
    other = unit_vectors(1, seed=int(history.random.integers(1 << 30)))[0]
    history.gallery.execute(
        "UPDATE vector SET data = :data WHERE space_id = :s AND face_id = ANY(:ids)",
        data=other.astype("<f2").tobytes(),
        **history.some(),
    )


def change_both(history: History) -> None:
    some = history.some()
    with history.gallery.store.writing() as connection:
        connection.execute(
            text("UPDATE face SET age = 7 WHERE collection_id = :c AND id = ANY(:ids)"), some
        )
        connection.execute(
            text(
                "UPDATE vector SET data = (SELECT data FROM vector WHERE space_id = :s LIMIT 1)"
                " WHERE space_id = :s AND face_id = ANY(:ids)"
            ),
            some,
        )


def declare_later(history: History) -> None:
    with history.gallery.store.writing() as connection:
        declare(connection, history.gallery.collection, {"later": FieldType.INTEGER})
    history.gallery.execute(
        "UPDATE face SET attributes = attributes || '{\"later\": 3}'"
        " WHERE collection_id = :c AND id = ANY(:ids)",
        **history.some(),
    )


def rebuild(history: History) -> None:
    build(history.gallery.holding, home=history.home)


def refresh(history: History) -> None:
    history.index.refresh()
    agree(history, history.index)


def reopen(history: History) -> None:
    history.index = history.opened()
    agree(history, history.index)


Event = Callable[[History], None]
EVENTS: tuple[Event, ...] = (
    insert, insert, update_ages, assign, rename, forget_persons, delete, delete_vectors,
    change_vectors, change_both, declare_later, rebuild, rebuild, refresh, refresh, reopen,
)  # fmt: skip


def agree(history: History, index: Reader) -> None:
    fields = history.gallery.fields()
    later = ("later = 3", "later IS NULL") if "later" in fields else ()
    for filter_ in (*FILTERS, *later):
        parsed = None if filter_ is None else parse(filter_, fields)
        truths = answers_of_store(history.gallery, QUERIES, where_=filter_)
        for count, recall in ASKED:
            question = Question(
                vectors=QUERIES,
                count=count,
                filter=parsed,
                recall=recall,  # type: ignore[arg-type]
            )
            answer = index.search(question)
            for place, truth in enumerate(truths):
                compare(answer, place, *truth, count=count)


def compare(
    answer: Answer,
    place: int,
    faces: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    similarities: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    *,
    count: int,
) -> None:
    found = [hit.face for hit in answer.neighbours[place]]
    told = [hit.similarity for hit in answer.neighbours[place]]
    assert answer.survivors == len(faces)
    assert len(found) == min(count, len(faces))
    assert len(set(found)) == len(found)
    true = dict(zip(faces.tolist(), similarities.tolist(), strict=True))
    assert set(found) <= set(true)
    assert told == pytest.approx([true[face] for face in found], abs=1e-12)
    assert sorted(zip([-s for s in told], found, strict=True)) == list(
        zip([-s for s in told], found, strict=True)
    )
    if answer.tier is Tier.EXACT:
        assert found == faces[:count].tolist()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists also for a few dozen faces, and every way in turn, so that all are walked here."""
    monkeypatch.setattr(lists, "LISTED_ROWS_MIN", 9)
    turns = itertools.cycle([in_way(way) for way in WAYS])

    def planner(count: int, *, recall: Recall, statistics: Statistics) -> Plan:
        return next(turns)(count, recall=recall, statistics=statistics)

    monkeypatch.setattr("retrieval.search.plan", planner)


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),  # shrinking would replay histories for minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    events=st.lists(st.sampled_from(EVENTS), min_size=6, max_size=14),
    seed=st.integers(0, 2**16),
)
@pytest.mark.usefixtures("small")
def test_every_history_of_a_gallery_leaves_the_index_equal_to_the_store(
    events: list[Event], seed: int, store: Store, tmp_path: Path
) -> None:
    made = gallery(store, name=f"history-{next(_numbers)}")
    history = History(made, tmp_path, np.random.default_rng(seed))
    insert(history)
    for event in events:
        event(history)
    refresh(history)
    report = check(history.index)
    assert (report.differences, report.store) == ((), report.index)
    followed = history.index.search(Question(vectors=QUERIES, count=500, recall="exact"))
    reopen(history)
    opened = history.index.search(Question(vectors=QUERIES, count=500, recall="exact"))
    assert opened.neighbours == followed.neighbours
