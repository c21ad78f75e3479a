"""What it costs to find the rows that pass a filter, and to hold the columns that tell.

Rows are random; ten attributes of all kinds. `cold` finds every leaf anew, `kept` has asked before.
One thread; times are the least and the median, in microseconds, Python included.

    python -m benchmarks.filter_columns --rows 200000
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.filters.columns import ARROW_TYPES, Columns
from retrieval.filters.evaluate import evaluate
from retrieval.filters.kept import KeptSets
from retrieval.filters.parse import parse
from retrieval.filters.prepared import Prepared
from retrieval.values import FieldType, Value

FIELDS = {
    "face": FieldType.INTEGER,
    "external_id": FieldType.TEXT,
    "age": FieldType.NUMBER,
    "quality": FieldType.NUMBER,
    "gender": FieldType.TEXT,
    "source": FieldType.TEXT,
    "captured_at": FieldType.TIMESTAMP,
    "slot": FieldType.INTEGER,
    "smiling": FieldType.BOOLEAN,
    "tags": FieldType.TAGS,
}
FILTERS = [
    "gender = 'female'",
    "source = 'camera 60'",
    "age BETWEEN 20 AND 30",
    "quality >= 0.99",
    "captured_at >= '2022-01-01'",
    "slot = 5",
    "slot <> 5",
    "slot IN (1, 2, 3, 50, 60, 70, 80, 90)",
    "'tag 500' = ANY(tags)",
    "NOT 'tag 0' = ANY(tags)",
    "'tag 500' = ANY(tags) AND age BETWEEN 20 AND 30",
    "slot = 5 AND captured_at >= '2022-01-01'",
    "slot = 5 OR 'tag 500' = ANY(tags)",
    "smiling OR age > 40 AND NOT source = 'camera 1'",
    "age BETWEEN 9 AND 60 AND gender = 'female' AND captured_at >= '2022-01-01' AND quality >= 0.3",
]
BOUND: list[tuple[str, dict[str, Value]]] = [
    (":tag = ANY(tags)", {"tag": "tag 500"}),
    ("age BETWEEN :low AND :high", {"low": 20.0, "high": 30.0}),
    ("slot = :s AND captured_at >= :t", {"s": 5, "t": datetime(2022, 1, 1, tzinfo=UTC)}),
]


def texts(codes: Any, beginning: str) -> pa.Array:
    """One text for each of the codes, which are below 2,000,000."""
    words = [f"{beginning}{code}" for code in range(int(codes.max()) + 1)]
    return pa.DictionaryArray.from_arrays(pa.array(codes), words).cast(pa.string())


def random_table(rows: int) -> pa.Table:
    """The attributes of so many faces."""
    randomness = np.random.default_rng(1)
    numbers = randomness.integers(0, 4, rows)
    total = int(numbers.sum())
    tags = np.where(randomness.random(total) < 0.3, 0, randomness.integers(1, 1_000, total))
    ends = np.append(0, np.cumsum(numbers)).astype(np.int32)
    ages = randomness.integers(0, 900, rows) / 10
    made = {
        "face": pa.array(np.arange(rows)),
        "external_id": texts(randomness.integers(0, max(rows // 10, 1), rows), "é"),
        "age": pa.array(ages, mask=randomness.random(rows) < 0.05),
        "quality": pa.array(randomness.random(rows, dtype=np.float32).astype(np.float64)),
        "gender": texts(randomness.integers(0, 2, rows), "fe"),
        "source": texts(np.minimum(randomness.geometric(0.05, rows) - 1, 199), "camera "),
        "captured_at": pa.array(1_600_000_000_000_000 + randomness.integers(0, 10**14, rows)),
        "slot": pa.array(randomness.integers(0, 1_000, rows)),
        "smiling": pa.array(randomness.random(rows) < 0.3),
        "tags": pa.ListArray.from_arrays(pa.array(ends), texts(tags, "tag ")),
    }
    made["gender"] = pc.replace_substring(made["gender"], "fe0", "female")
    return pa.table({name: made[name].cast(ARROW_TYPES[kind]) for name, kind in FIELDS.items()})


def microseconds(act: Callable[[], object], *, seconds: float = 0.3) -> tuple[float, float]:
    """The least and the median time of many calls."""
    taken = []
    act()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 5:
        begin = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begin)
    return round(min(taken) * 1e6, 1), round(median(taken) * 1e6, 1)


def main() -> None:
    """Measure, and print one JSON line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    table = random_table(rows)
    begin = time.perf_counter()
    columns = Columns.from_arrow(table, FIELDS)
    built = time.perf_counter() - begin
    held = (getattr(one, part).nbytes for one in columns.by_name.values() for part in one.PARTS)
    machine = platform.processor() or platform.machine()
    print(
        json.dumps(
            {"rows": rows, "build_s": round(built, 2), "bytes": sum(held), "machine": machine}
        )
    )
    forgetful = replace(columns, kept=KeptSets(bytes_max=0))
    for written in FILTERS:
        filter_ = parse(written, FIELDS)
        figures = {
            "filter": written,
            "rows": evaluate(filter_, columns).count,
            "cold": microseconds(lambda f=filter_: evaluate(f, forgetful)),
            "kept": microseconds(lambda f=filter_: evaluate(f, columns)),
        }
        print(json.dumps(figures))
    for written, values in BOUND:
        prepared = Prepared(parse(written, FIELDS))
        figures = {
            "prepared": written,
            "bind": microseconds(lambda p=prepared, v=values: p.bind(v)),
            "bind and evaluate": microseconds(
                lambda p=prepared, v=values: evaluate(p.bind(v), forgetful)
            ),
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
