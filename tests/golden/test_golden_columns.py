"""Columns of every format ever released open with the values they hold; broken ones are refused."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.errors import SnapshotUnusableError
from retrieval.filters.columns import INDEX_FILE, Columns
from retrieval.filters.evaluate import evaluate
from retrieval.filters.parse import parse
from retrieval.values import FieldType, Value

HERE = Path(__file__).parent
FORMAT_1 = HERE / "snapshot_v1" / "columns" / "0"
FORMAT_2 = HERE / "columns_v2"
FIELDS = {
    "age": FieldType.NUMBER,
    "frame": FieldType.INTEGER,
    "track": FieldType.TEXT,
    "smiling": FieldType.BOOLEAN,
    "captured_at": FieldType.TIMESTAMP,
    "tags": FieldType.TAGS,
}


def written() -> dict[str, list[Value]]:
    """What is in FORMAT_2, which `Columns.save` wrote once."""
    rows = range(300)
    day = datetime(2024, 2, 28, tzinfo=UTC)
    return {
        "age": [None if row % 7 == 0 else row / 4 for row in rows],
        "frame": [None if row % 5 == 0 else 2**62 + row * row for row in rows],
        "track": [None if row % 11 == 0 else "é" * (row % 3) + str(row % 40) for row in rows],
        "smiling": [None if row % 3 == 0 else row % 2 == 0 for row in rows],
        "captured_at": [day + timedelta(days=row % 4, microseconds=row % 2) for row in rows],
        "tags": [None if row % 13 == 0 else ("hat", "b", "hat")[: row % 4] for row in rows],
    }


def as_format_1_says(folder: Path) -> Iterator[tuple[str, list[Value]]]:
    """The values of a folder of format 1, read the slow way."""
    index = json.loads((folder / INDEX_FILE).read_text())
    for place, (name, kind) in enumerate(index["fields"]):

        def part(of: str, place: int = place) -> Any:
            return np.load(folder / f"{place}.{of}.npy").tolist()

        if kind == "number":
            yield name, [None if np.isnan(value) else value for value in part("values")]
        elif kind in ("integer", "timestamp"):
            pairs = zip(part("values"), part("known"), strict=True)
            values = [value if known else None for value, known in pairs]
            if kind == "timestamp":
                epoch = datetime(1970, 1, 1, tzinfo=UTC)
                values = [v if v is None else epoch + timedelta(microseconds=v) for v in values]
            yield name, values
        elif kind == "boolean":
            yield name, [None if code < 0 else code == 1 for code in part("codes")]
        else:
            text, ends = bytes(part("text")), part("ends")
            words = [text[a:b].decode() for a, b in pairwise(ends)]
            texts = [None if code < 0 else words[code] for code in part("codes")]
            if kind == "text":
                yield name, texts
            else:
                spans = zip(part("starts"), part("starts")[1:], part("known"), strict=False)
                yield name, [tuple(texts[a:b]) if known else None for a, b, known in spans]


def test_columns_of_format_1_hold_what_their_files_say() -> None:
    columns = Columns.open(FORMAT_1)
    expected = dict(as_format_1_says(FORMAT_1))
    assert list(columns.fields) == list(expected)
    for name, values in expected.items():
        assert columns.get(name, range(columns.rows)) == values, name
    found = evaluate(parse("age < 45 AND 'hat' = ANY(tags)", columns.fields), columns)
    ages, tags = expected["age"], expected["tags"]
    rows = [
        r for r in range(320) if ages[r] is not None and ages[r] < 45 and "hat" in (tags[r] or ())
    ]  # type: ignore[operator]
    assert found.row_numbers().tolist() == rows


def test_columns_of_format_2_hold_what_was_written() -> None:
    columns = Columns.open(FORMAT_2)
    assert dict(columns.fields) == FIELDS
    for name, values in written().items():
        assert columns.get(name, range(300)) == values, name
    ages = written()["age"]
    found = evaluate(parse("age BETWEEN 10 AND 20", FIELDS), columns)
    assert found.row_numbers().tolist() == [
        row for row in range(300) if isinstance(age := ages[row], float) and 10 <= age <= 20
    ]


@pytest.mark.parametrize("name", ["0.known.npy", "5.values.npy", "13.codes.npy", "19.starts.npy"])
def test_damaged_columns_of_format_1_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "columns"
    shutil.copytree(FORMAT_1, folder)
    whole = (folder / name).read_bytes()
    for damage in (b"", whole[:-1], b"\0" * len(whole)):
        (folder / name).write_bytes(damage)
        with pytest.raises(SnapshotUnusableError):
            Columns.open(folder)
    for array in (np.zeros(3, np.float16), np.zeros(()), np.zeros((320, 2))):
        np.save(folder / name, array)
        with pytest.raises(SnapshotUnusableError, match="damaged"):
            Columns.open(folder)
