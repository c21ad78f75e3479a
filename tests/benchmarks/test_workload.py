"""Cells meet their share, and far is far: measured by the oracle, never by an engine."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.filtered import workload
from benchmarks.filtered.data import generator, making
from benchmarks.filtered.truth import Truth, asks, computed, tuning_asks
from benchmarks.filtered.values import Cell, DataSet
from retrieval.values import unit_rows

ROWS = 20_000
TEN = (
    "none",
    "50 %, independent",
    "50 %, the other gender",
    "10 %, age range",
    "10 %, source = s OR tag = t",
    "1 %, equality",
    "1 %, AND of three",
    "2 %, other gender, far age, time",
    "0.1 %, tag",
    "0.01 %, tag AND time",
)


@pytest.fixture(scope="module")
def faces() -> DataSet:
    return generator.faces(ROWS, seed=1, queries=40, tuning=10)


@pytest.fixture(scope="module")
def cells(faces: DataSet) -> dict[str, Cell]:
    made = workload.cells(faces)
    assert len({cell.name for cell in made}) == len(made)
    return {cell.name: cell for cell in made}


@pytest.fixture(scope="module")
def truths(faces: DataSet, cells: dict[str, Cell]) -> dict[str, Truth]:
    return {
        name: computed(faces, asks(faces, cell), count=10)
        for name, cell in cells.items()
        if cell.name in TEN or cell.name.startswith("grid")
    }


def _top(truth: Truth) -> float:
    return float(np.nanmean(truth.similarities))


def test_the_first_ten_are_those_of_the_table_that_peers_were_measured_by(cells: dict[str, Cell]):
    assert tuple(cells)[:10] == TEN


def test_every_query_of_both_kinds_binds(faces: DataSet, cells: dict[str, Cell]):
    for cell in cells.values():
        assert len(asks(faces, cell)) == len(faces.queries)
        assert len(tuning_asks(faces, cell)) == len(faces.tuning)


def test_cells_are_the_same_each_time(faces: DataSet, cells: dict[str, Cell]):
    assert workload.face_cells(faces) == tuple(cells.values())[:10]


@pytest.mark.parametrize("name", TEN)
def test_the_share_of_the_ten_is_met(name: str, cells: dict[str, Cell], truths: dict[str, Truth]):
    wanted = cells[name].share * ROWS
    found = truths[name].survivors.mean()
    assert found == pytest.approx(wanted, rel=0.2, abs=2)  # two rows of 20,000 are 0.01 %


def test_the_share_of_the_grid_is_met(cells: dict[str, Cell], truths: dict[str, Truth]):
    named = [name for name in cells if name.startswith("grid")]
    assert len(named) == 1 + 3 * 5  # 0.001 % of 20,000 rows is no row
    for name in named:
        wanted = round(cells[name].share * ROWS)
        survivors = truths[name].survivors
        assert survivors.min() >= wanted
        assert survivors.mean() <= 1.05 * wanted + 1


@pytest.mark.parametrize("share", ["50", "10", "1", "0.1", "0.01"])
def test_far_rows_are_less_like_the_query_than_any_rows_and_own_rows_more(
    share: str, truths: dict[str, Truth]
):
    own, anywhere, far = (
        _top(truths[f"grid {share} %, {where}"]) for where in ("own", "independent", "far")
    )
    assert far < anywhere - 0.05
    assert own > anywhere + 0.04


def test_the_other_gender_is_far(truths: dict[str, Truth]):
    assert _top(truths["50 %, the other gender"]) < _top(truths["50 %, independent"]) - 0.1


def test_all_kinds_are_there_and_the_correlation_told_is_the_one_measured(
    cells: dict[str, Cell],
):
    assert {cell.kind for cell in cells.values()} == {
        "none", "equality", "range", "set", "boolean", "null", "tag"
    }  # fmt: skip
    assert cells["equality, own gender"].correlation == "own"
    assert cells["set, 100 slots"].correlation == "independent"


def test_a_set_without_attributes_has_the_grid_and_kinds():
    random = np.random.default_rng(0)
    centres = random.standard_normal((40, 24))
    rows, asked = (
        unit_rows(centres[random.integers(0, 40, n)] + 0.5 * random.standard_normal((n, 24)))
        for n in (3000, 30)
    )
    data = making.with_own_queries("plain", rows, making.NO_COLUMNS, asked=asked)
    cells = {cell.name: cell for cell in workload.cells(data)}
    far = computed(data, asks(data, cells["grid 10 %, far"]), count=10)
    anywhere = computed(data, asks(data, cells["grid 10 %, independent"]), count=10)
    assert _top(far) < _top(anywhere) - 0.1
    assert "boolean, NOT and OR" in cells


def test_a_query_with_two_tags_asks_for_both():
    rows = unit_rows(np.eye(6) + 0.1)
    table = pa.table({"tags": [["a"], ["a", "b"], ["b"], ["a", "b", "c"], [], ["c"]]})
    asked = pa.table({"tags": [["a", "b"], ["c"], ["b"]]})
    data = making.with_own_queries(
        "tags", rows, table, asked=unit_rows(rows[:3]), asked_table=asked
    )
    cell = workload.tags_of_queries(data)
    assert computed(data, asks(data, cell)).survivors.tolist() == [2, 2]
    assert computed(data, tuning_asks(data, cell)).survivors.tolist() == [3]
    assert cell in workload.cells(data)


def test_a_timestamp_is_cut_to_ranges_too(faces: DataSet):
    times = workload.sorted_column(faces, "captured_at")
    low, high = times.around(faces.query_table["captured_at"][0].as_py(), 0.1)
    inside = [low <= when <= high for when in faces.table["captured_at"].to_pylist()]
    assert sum(inside) == pytest.approx(0.1 * ROWS, abs=2)
