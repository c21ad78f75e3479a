"""A run measures what it says, goes on after a failure, and does nothing twice."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.filtered.engines import UnsupportedError
from benchmarks.filtered.engines.messages import Block
from benchmarks.filtered.run import Measured, Plan, best_of, enough, measured, read, run
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting
from retrieval.errors import UsageError
from retrieval.values import unit_rows

ROWS, DIMENSION, QUERIES, TUNING = 400, 16, 20, 10
HERE = "tests.benchmarks.test_run_engines"


class Exact:
    """Searches every row that passes; a setting says which share of them it looks at."""

    def build(self, data: DataSet, *, folder: Path) -> None:
        self._vectors = np.array(data.vectors)
        self._shelves = data.table.column("shelf").to_numpy()
        (folder / "built").touch()

    def settings(self, _: Cell) -> Sequence[Setting]:
        return [{"share": share} for share in (0.5, 1.0)]

    def asked(self, ask: Ask) -> object:
        return ask

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        assert isinstance(asked, Ask)
        shelf = asked.parameters.get("shelf")
        passing = self._shelves == shelf if asked.where else np.ones(ROWS, bool)
        rows = np.flatnonzero(passing[: int(ROWS * float(setting["share"]))])
        return rows[np.argsort(-(self._vectors[rows] @ asked.query))[:count]]

    def close(self) -> None:
        pass


class Unfiltered(Exact):
    """Forgets the filter."""

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        assert isinstance(asked, Ask)
        return super().search(replace(asked, where=None), count=count, setting=setting)


class Dying(Exact):
    """Dies of the first filter."""

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        assert isinstance(asked, Ask)
        if asked.where:
            os.abort()
        return super().search(asked, count=count, setting=setting)


class Hanging(Exact):
    """Never builds."""

    def build(self, data: DataSet, *, folder: Path) -> None:  # noqa: ARG002
        time.sleep(3600)


class Wordless(Exact):
    """Reads no filters."""

    def asked(self, ask: Ask) -> object:
        if ask.where:
            raise UnsupportedError("no filters here")
        return ask


def data() -> DataSet:
    random = np.random.default_rng(0)
    vectors = unit_rows(random.standard_normal((ROWS + QUERIES + TUNING, DIMENSION)))
    table = pa.table({"shelf": random.integers(0, 4, ROWS + QUERIES + TUNING)})
    return DataSet(
        name="made up",
        vectors=vectors[:ROWS],
        table=table.slice(0, ROWS),
        queries=vectors[ROWS : ROWS + QUERIES],
        query_table=table.slice(ROWS, QUERIES),
        tuning=vectors[ROWS + QUERIES :],
        tuning_table=table.slice(ROWS + QUERIES),
    )


CELLS = (
    Cell(
        name="none", kind="none", share=1.0, correlation="none", where=None,
        parameters=({},) * QUERIES, tuning_parameters=({},) * TUNING,
    ),
    Cell(
        name="shelf", kind="equality", share=0.25, correlation="independent",
        where="shelf = :shelf", parameters=tuple({"shelf": n % 4} for n in range(QUERIES)),
        tuning_parameters=tuple({"shelf": n % 4} for n in range(TUNING)),
    ),
)  # fmt: skip


def plan(folder: Path, *engines: str, **more: Any) -> Plan:
    names = [f"{HERE}:{name}" for name in engines]
    numbers = {"rounds": 2, "queries": QUERIES, "tuning": TUNING, **more}
    return Plan(engines=names, work=folder / "work", out=folder / "out.jsonl", **numbers)


def told(lines: list[dict[str, Any]], what: str, engine: str) -> dict[str | None, dict[str, Any]]:
    name = f"{HERE}:{engine}"
    return {line["cell"]: line for line in lines if (line["what"], line["engine"]) == (what, name)}


def test_each_engine_is_reported_or_says_why_not(tmp_path: Path) -> None:
    names = ("Hanging", "Missing", "Exact", "Unfiltered", "Dying", "Wordless")
    lines = run(data(), CELLS, plan(tmp_path, *names, build_seconds_max=2.0))
    exact = told(lines, "report", "Exact")
    assert {cell: line["recall"] for cell, line in exact.items()} == {"none": 1.0, "shelf": 1.0}
    assert exact["shelf"]["setting"] == {"share": 1.0}
    assert exact["shelf"]["queries"] == QUERIES
    assert exact["shelf"]["violations"] == exact["shelf"]["short"] == 0
    assert exact["shelf"]["qps"] > 0 < exact["shelf"]["qps_cpu"]
    assert told(lines, "build", "Exact")[None]["private_bytes"] > 0

    unfiltered = told(lines, "report", "Unfiltered")
    assert unfiltered["none"]["violations"] == 0
    assert unfiltered["shelf"]["violations"] > QUERIES

    assert set(told(lines, "report", "Dying")) == {"none"}
    assert "SIGABRT" in told(lines, "failed", "Dying")["shelf"]["reason"]
    assert set(told(lines, "report", "Wordless")) == {"none"}
    assert told(lines, "unsupported", "Wordless")["shelf"]["reason"] == "no filters here"
    assert told(lines, "failed", "Hanging")[None]["reason"] == "build: no answer within 2 s"
    assert "Missing" in told(lines, "failed", "Missing")[None]["reason"]


def test_a_second_run_does_nothing_twice(tmp_path: Path) -> None:
    first = run(data(), CELLS, plan(tmp_path, "Exact", threads=2))
    assert told(first, "report", "Exact")["shelf"]["queries"] == QUERIES
    assert run(data(), CELLS, plan(tmp_path, "Exact", threads=2)) == first
    whole = (tmp_path / "out.jsonl").read_text().splitlines()
    kept = [line for line in whole if json.loads(line)["what"] != "report"]
    (tmp_path / "out.jsonl").write_text("\n".join(kept) + "\n")
    again = run(data(), CELLS, plan(tmp_path, "Exact", threads=2))
    assert [line["what"] for line in again] == [json.loads(line)["what"] for line in whole]


def test_an_engine_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="faiss-hnsw"):
        run(data(), CELLS, Plan(engines=["fais"], work=tmp_path, out=tmp_path / "out.jsonl"))


def _of(recall: float, rate: float) -> Measured:
    block = Block(found=[np.arange(3)], seconds=np.array([0.1]), elapsed=1.0, cpu_seconds=1 / rate)
    return measured([block], [recall], violations=0, short=0)


def test_the_fastest_setting_that_reaches_the_target_is_chosen() -> None:
    tried = [_of(0.5, 100), _of(0.95, 10), _of(0.99, 20), _of(0.94, 50)]
    assert best_of(tried, target=0.95) == 2
    assert best_of(tried[:1] + tried[3:], target=0.95) == 1


def test_a_few_settings_after_the_first_good_one_are_tried() -> None:
    tried = [_of(0.5, 100), _of(0.95, 10), _of(0.99, 20), _of(0.94, 50), _of(1.0, 1)]
    assert [enough(tried[:n], target=0.95) for n in range(1, 6)] == [False] * 4 + [True]


def test_rates_are_medians_over_rounds() -> None:
    blocks = [
        Block(found=[np.arange(1)] * 4, seconds=np.full(4, s), elapsed=4 * s, cpu_seconds=2 * s)
        for s in (0.1, 0.2, 1.0)
    ]
    result = measured(blocks, [1.0, 0.5], violations=1, short=2)
    assert result.qps == pytest.approx(5)
    assert result.qps_cpu == pytest.approx(10)
    assert result.p50_ms == pytest.approx(200)
    assert (result.recall, result.poor, result.queries) == (0.75, 0.5, 12)


def test_results_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"what": "build"}\n\n{"what": "sweep"}\n')
    assert [line["what"] for line in read(tmp_path / "x.jsonl")] == ["build", "sweep"]
