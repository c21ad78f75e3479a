"""The oracle against a plainer one: loops over rows, and float64 products of everything."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.filtered import truth as oracle
from benchmarks.filtered.data import making
from benchmarks.filtered.values import Cell, DataSet
from retrieval.errors import FilterError
from retrieval.filters import bind
from retrieval.filters.columns import ARROW_TYPES, field_types
from retrieval.filters.parse import parse
from retrieval.values import FieldType, unit_rows

DAY = datetime(2024, 5, 31, tzinfo=UTC)
TABLE = pa.table(
    {
        "n": pa.array([1.5, -0.0, None, 7.0, 7.5]),
        "i": pa.array([1, 2, None, 4, 2**60]),
        "t": pa.array(["a", "ab", None, "b", "é"]),
        "b": pa.array([True, False, None, True, False]),
        "d": pa.array(
            [DAY, None, DAY.replace(year=2020), DAY, DAY], ARROW_TYPES[FieldType.TIMESTAMP]
        ),
        "g": pa.array([["x"], [], None, ["x", "y", "x"], ["y"]]),
    }
)
Test = Callable[[dict[str, Any]], bool]
FILTERS: list[tuple[str, Test]] = [
    ("n = 0", lambda r: r["n"] == 0),
    ("n IN (0, 7.5)", lambda r: r["n"] in (0, 7.5)),
    ("n NOT IN (0, 7.5)", lambda r: r["n"] is not None and r["n"] not in (0, 7.5)),
    ("n <> 7", lambda r: r["n"] not in (None, 7)),
    ("NOT n < 7", lambda r: r["n"] is not None and r["n"] >= 7),
    ("i BETWEEN 2 AND 4", lambda r: r["i"] in (2, 4)),
    ("i IN ()", lambda _: False),
    ("i NOT IN (1, 2)", lambda r: r["i"] in (4, 2**60)),
    ("i > 1152921504606846975", lambda r: r["i"] == 2**60),
    ("t >= 'ab'", lambda r: r["t"] in ("ab", "b", "é")),
    ("t LIKE 'a%'", lambda r: r["t"] in ("a", "ab")),
    ("t NOT LIKE 'a%'", lambda r: r["t"] in ("b", "é")),
    ("t IN ('é', 'q')", lambda r: r["t"] == "é"),
    ("t IS NULL", lambda r: r["t"] is None),
    ("t IS NOT NULL", lambda r: r["t"] is not None),
    ("b", lambda r: r["b"] is True),
    ("NOT b", lambda r: r["b"] is False),
    ("d = TIMESTAMPTZ '2024-05-31 02:00:00+02:00'", lambda r: r["d"] == DAY),
    ("d < DATE '2024-01-01'", lambda r: r["d"] == DAY.replace(year=2020)),
    ("'x' = ANY(g)", lambda r: "x" in (r["g"] or [])),
    ("NOT 'x' = ANY(g)", lambda r: r["g"] is not None and "x" not in r["g"]),
    ("TRUE", lambda _: True),
    (
        "NOT (n = 7 OR 'y' = ANY(g)) AND (t = 'a' OR b)",
        lambda r: r["n"] not in (None, 7) and r["g"] is not None and "y" not in r["g"]
        and (r["t"] == "a" or r["b"] is True),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("where", "test"), FILTERS, ids=[where for where, _ in FILTERS])
@pytest.mark.parametrize("chunks", [1, 2])
def test_rows_that_pass_are_those_of_a_loop(where: str, test: Test, chunks: int):
    table = TABLE if chunks == 1 else pa.concat_tables([TABLE.slice(0, 3), TABLE.slice(3)])
    found = oracle.passing(parse(where, field_types(table)), table)
    assert found.tolist() == [test(row) for row in TABLE.to_pylist()]


def test_a_parameter_without_a_value_is_an_error():
    with pytest.raises(FilterError, match="no value yet"):
        oracle.passing(parse("n = :x", field_types(TABLE)), TABLE)


@pytest.fixture(scope="module")
def data() -> DataSet:
    random = np.random.default_rng(0)
    rows = random.standard_normal((3000, 16))
    rows[100:160] = rows[100]  # sixty equal rows
    asked = random.standard_normal((30, 16))
    asked[0] = rows[100] + 0.01
    table = pa.table({"group": pa.array(random.integers(0, 40, 3000))})
    return making.with_own_queries("some", unit_rows(rows), table, asked=unit_rows(asked))


def _cell(data: DataSet, where: str | None, *parameters: dict[str, Any]) -> Cell:
    given = [parameters[place % len(parameters)] for place in range(len(data.queries))]
    tuned = [parameters[place % len(parameters)] for place in range(len(data.tuning))]
    return Cell(
        name="cell", kind="range", share=0.5, correlation="none", where=where,
        parameters=tuple(given), tuning_parameters=tuple(tuned),
    )  # fmt: skip


CELLS = [
    (None, [{}]),
    ("TRUE", [{}]),
    ('"group" < :g', [{"g": 20}, {"g": 30}, {"g": 0}, {"g": 31}, {"g": 20}]),
    ('"group" = :g', [{"g": g} for g in range(41)]),
]  # fmt: skip


@pytest.mark.parametrize(("where", "parameters"), CELLS)
@pytest.mark.parametrize("count", [3, 100])
def test_neighbours_are_those_of_a_float64_product(
    data: DataSet, where: str | None, parameters: list[dict[str, Any]], count: int
):
    cell = _cell(data, where, *parameters)
    found = oracle.computed(data, oracle.asks(data, cell), count=count)
    products = data.queries.astype(np.float64) @ data.vectors.astype(np.float64).T
    for place, given in enumerate(cell.parameters):
        passed = np.arange(3000)
        if where is not None:
            filter_ = bind(parse(where, data.fields), given)
            passed = np.flatnonzero(oracle.passing(filter_, data))
        order = passed[np.lexsort((passed, -products[place, passed].round(14)))][:count]
        assert found.survivors[place] == len(passed)
        kept = len(order)
        assert found.similarities[place, :kept] == pytest.approx(products[place, order], abs=1e-12)
        assert (found.ids[place, kept:] == oracle.NO_ROW).all()
        assert np.isnan(found.similarities[place, kept:]).all()
        if place:  # the first query has sixty neighbours that are equal
            assert found.ids[place, :kept].tolist() == order.tolist()


def test_equal_rows_are_told_in_the_order_of_their_numbers(data: DataSet):
    found = oracle.computed(data, oracle.asks(data, _cell(data, None, {})), count=10)
    assert found.ids[0].tolist() == list(range(100, 110))


def test_a_second_call_reads_what_the_first_left(data: DataSet, tmp_path: Path):
    questions = oracle.asks(data, _cell(data, '"group" < :g', {"g": 20}))
    first = oracle.exact(data, questions, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    np.savez(file, **{part: getattr(first, part) + 1 for part in oracle.Truth.__slots__})
    again = oracle.exact(data, questions, folder=tmp_path)
    assert np.array_equal(again.ids, first.ids + 1)


def test_the_key_tells_sets_filters_and_queries_apart(data: DataSet):
    questions = oracle.asks(data, _cell(data, '"group" < :g', {"g": 20}))
    others = oracle.asks(data, _cell(data, '"group" < :g', {"g": 21}))
    tuned = oracle.tuning_asks(data, _cell(data, '"group" < :g', {"g": 20}))
    changed = replace(data, table=data.table.set_column(0, "group", [pa.array([0] * 3000)]))
    keys = {
        oracle.key(data, questions, count=10),
        oracle.key(data, questions, count=11),
        oracle.key(data, others, count=10),
        oracle.key(data, tuned, count=10),
        oracle.key(changed, questions, count=10),
        oracle.key(replace(data, name="other"), questions, count=10),
    }
    assert len(keys) == 6
    assert oracle.key(data, list(questions), count=10) in keys


def _scored(
    data: DataSet, found: list[int], *, count: int, where: str | None = None
) -> oracle.Score:
    questions = oracle.asks(data, _cell(data, where, {}))
    nearest = oracle.computed(data, questions[:1], count=100).similarities[0]
    return oracle.scored(
        np.array(found, np.int64), ask=questions[0], nearest=nearest, data=data, count=count
    )


def test_equal_rows_may_stand_for_one_another(data: DataSet):
    assert _scored(data, [150, 151, 152, 153], count=4).recall == 1
    assert _scored(data, [150, 150, 152, -1], count=4).recall == 0.5
    assert _scored(data, [], count=4).recall == 0


def test_rows_that_do_not_pass_are_violations_and_count_for_nothing(data: DataSet):
    group = data.table["group"].to_pylist()
    inside = [row for row in range(100, 160) if group[row] < 20]
    outside = [row for row in range(100, 160) if group[row] >= 20]
    score = _scored(data, [*inside[:3], outside[0], 3000], count=5, where='"group" < 20')
    assert score == oracle.Score(recall=0.6, violations=2)


def test_where_no_row_passes_there_is_no_recall(data: DataSet):
    assert _scored(data, [5], count=5, where='"group" < 0') == oracle.Score(
        recall=None, violations=1
    )


def test_more_rows_than_were_asked_for_are_refused(data: DataSet):
    with pytest.raises(ValueError, match="3 rows were given where 2"):
        _scored(data, [1, 2, 3], count=2)


def test_the_true_answers_of_all_questions_score_full(data: DataSet):
    questions = oracle.asks(data, _cell(data, '"group" = :g', {"g": 3}, {"g": 9}))
    truth = oracle.computed(data, questions, count=10)
    scores = oracle.recalls(truth.ids, truth, data=data, questions=questions, count=10)
    assert scores == [oracle.Score(recall=1.0, violations=0)] * len(questions)
