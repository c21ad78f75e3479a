"""Columns in memory and on disk, and the bits that an index reads."""

import json
import operator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest

from retrieval.errors import FilterError, SchemaMismatchError, SnapshotUnusableError
from retrieval.fields import Fields
from retrieval.filters.column import ScalarColumn
from retrieval.filters.columns import ARROW_TYPES, INDEX_FILE, Columns
from retrieval.filters.evaluate import evaluate
from retrieval.filters.parse import parse
from retrieval.filters.rows import RowSet
from retrieval.values import FieldType, Value

FIELDS: Fields = {
    "age": FieldType.NUMBER,
    "frame": FieldType.INTEGER,
    "../é\n/NUL": FieldType.TEXT,
    "smiling": FieldType.BOOLEAN,
    "captured_at": FieldType.TIMESTAMP,
    "tags": FieldType.TAGS,
}
MAY = datetime(2024, 5, 31, 1, 2, 3, 4, UTC)
ROWS: dict[str, list[Value]] = {
    "age": [20.5, None, 0.0, -1e300, None],
    "frame": [2**63 - 1, None, 0, -(2**63), None],
    "../é\n/NUL": ["b", "", "é", None, None],
    "smiling": [True, False, None, True, None],
    "captured_at": [MAY, None, datetime(1, 1, 1, tzinfo=UTC), MAY.replace(year=9999), None],
    "tags": [("b", "a", "b"), (), None, ("é",), None],  # the last row pads
}


def table(rows: dict[str, list[Any]], fields: Fields) -> pa.Table:
    return pa.table({name: pa.array(rows[name], ARROW_TYPES[t]) for name, t in fields.items()})


def columns_of(rows: dict[str, list[Any]], fields: Fields) -> Columns:
    return Columns.from_arrow(table(rows, fields), fields)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    columns_of(ROWS, FIELDS).save(tmp_path)
    return tmp_path


def everything(columns: Columns) -> dict[str, list[Value]]:
    return {name: columns.get(name, range(columns.rows)) for name in columns.fields}


def test_values_come_back_from_memory_and_from_disk(tmp_path: Path) -> None:
    columns = columns_of(ROWS, FIELDS)
    files = columns.save(tmp_path)
    assert everything(columns) == ROWS
    assert everything(Columns.open(tmp_path)) == ROWS
    assert dict(Columns.open(tmp_path).fields) == dict(FIELDS)
    assert sorted(files) == sorted(tmp_path.iterdir())


def test_columns_without_rows_can_be_saved_and_opened(tmp_path: Path) -> None:
    columns_of({name: [] for name in FIELDS}, FIELDS).save(tmp_path)
    opened = Columns.open(tmp_path)
    for written in ("age > 1", "'a' = ANY(tags)", "smiling", "age IS NULL"):
        assert evaluate(parse(written, FIELDS), opened).mask().tolist() == []


def test_mapped_columns_cannot_be_written(saved: Path) -> None:
    column = Columns.open(saved).by_name["frame"]
    assert isinstance(column, ScalarColumn)
    with pytest.raises(ValueError, match="read-only"):
        column.values[0] = 1


def test_evaluating_leaves_the_columns_as_they_were(saved: Path) -> None:
    for columns in (columns_of(ROWS, FIELDS), Columns.open(saved)):
        for written in ("frame IS NOT NULL AND age > 0", "tags IS NOT NULL OR smiling", "TRUE"):
            evaluate(parse(written, FIELDS), columns).mask()[:] = False
        assert everything(columns) == ROWS
        assert evaluate(parse("frame IS NOT NULL", FIELDS), columns).count == 3


def damaged_files() -> list[str]:
    return [
        "0.values.npy", "0.order.npy", "1.codes.npy", "2.ends.npy", "2.values.npy", "3.codes.npy",
        "3.buckets.npy", "4.starts.npy", "4.firsts.npy", "5.known.npy", "5.starts.npy",
        "5.tag_starts.npy", "5.tag_rows.npy", "5.frequent.npy", "5.counts.npy", "5.bitmaps.npy",
        INDEX_FILE,
    ]  # fmt: skip


@pytest.mark.parametrize("name", damaged_files())
def test_missing_short_empty_and_foreign_files_are_refused(saved: Path, name: str) -> None:
    path = saved / name
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(SnapshotUnusableError):
        Columns.open(saved)
    for damage in (b"", whole[:10], whole[:-1], b"\0" * len(whole)):
        path.write_bytes(damage)
        with pytest.raises(SnapshotUnusableError):
            Columns.open(saved)
    if name.endswith(".npy"):
        for array in (
            np.zeros(3, np.float16),
            np.zeros(()),
            np.zeros((5, 2)),
            np.zeros(7, np.int64),
        ):
            np.save(path, array)
            with pytest.raises(SnapshotUnusableError, match="damaged"):
                Columns.open(saved)


@pytest.mark.parametrize(
    "change", [{"format": 9}, {"rows": 4}, {"rows": None}, {"fields": [["a", "b"]]}]
)
def test_an_index_that_does_not_fit_is_refused(saved: Path, change: dict[str, Any]) -> None:
    index = json.loads((saved / INDEX_FILE).read_text())
    (saved / INDEX_FILE).write_text(json.dumps(index | change))
    with pytest.raises(SnapshotUnusableError):
        Columns.open(saved)


def test_every_problem_of_a_table_is_listed() -> None:
    wrong = pa.table(
        {
            "age": [1.0, float("nan")],
            "frame": pa.array([1, 2], pa.int32()),
            "tags": pa.array([["a", None], []], pa.list_(pa.string())),
        }
    )
    with pytest.raises(SchemaMismatchError) as raised:
        Columns.from_arrow(wrong, FIELDS)
    for words in ('"age" holds NaN', '"frame" is int32', '"smiling" is missing', "NULL inside"):
        assert words in str(raised.value)


def test_tables_in_chunks_give_the_same_columns() -> None:
    whole = table(ROWS, FIELDS)
    chunks = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 0), whole.slice(2)])
    assert everything(Columns.from_arrow(chunks, FIELDS)) == ROWS
    assert everything(Columns.from_arrow(whole.slice(1, 3), FIELDS)) == {
        name: values[1:4] for name, values in ROWS.items()
    }


@pytest.mark.parametrize("count", [1, 31, 32, 254, 255, 256, 257, 65_534, 65_535, 65_536])
def test_texts_compare_alike_however_wide_their_codes_are(count: int) -> None:
    fields = {"track": FieldType.TEXT}
    texts = [f"{number:06}" for number in range(count)]
    columns = columns_of({"track": [*texts, None]}, fields)
    for sign, expected in (
        ("<", operator.lt),
        (">=", operator.ge),
        ("<>", operator.ne),
        ("=", operator.eq),
    ):
        for pivot in ("000000", texts[-1], texts[count // 2], "x", ""):
            found = evaluate(parse(f"track {sign} '{pivot}'", fields), columns).mask()
            assert found.tolist() == [*(expected(text, pivot) for text in texts), False]


@pytest.mark.parametrize("count", [1, 2, 64, 199])
def test_long_lists_find_what_short_ones_find(count: int) -> None:
    fields = {"age": FieldType.NUMBER, "frame": FieldType.INTEGER, "track": FieldType.TEXT}
    numbers = list(range(200))
    rows: dict[str, list[Any]] = {
        "age": [*map(float, numbers), -0.0, None],
        "frame": [*numbers, 0, None],
        "track": [*map(str, numbers), "0", None],
    }
    columns = columns_of(rows, fields)
    inside = [number < count for number in numbers]
    listed = ", ".join(map(str, numbers[:count])).replace("0,", "-0.0,", 1)
    for field, values in (("age", listed), ("frame", listed)):
        assert evaluate(parse(f"{field} IN ({values})", fields), columns).mask().tolist() == [
            *inside, True, False,
        ]  # fmt: skip
        assert evaluate(parse(f"{field} NOT IN ({values})", fields), columns).mask().tolist() == [
            *(not i for i in inside), False, False,
        ]  # fmt: skip
    texts = ", ".join(f"'{number}'" for number in numbers[:count])
    assert evaluate(parse(f"track IN ({texts})", fields), columns).mask().tolist() == [
        *inside,
        True,
        False,
    ]


def test_bits_lie_as_faiss_reads_them() -> None:
    mask = np.random.default_rng(1).random(1_003) < 0.3
    bits = RowSet.of_mask(mask).bitmap().copy()
    selector = faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(bits.view(np.uint8)))
    assert [selector.is_member(row) for row in range(len(mask))] == mask.tolist()


def test_a_filter_with_open_parameters_is_not_evaluated() -> None:
    with pytest.raises(FilterError, match=":low has no value"):
        evaluate(parse("age > :low", FIELDS), columns_of(ROWS, FIELDS))


def test_a_field_that_was_declared_after_the_columns_were_made_is_told() -> None:
    with pytest.raises(SnapshotUnusableError, match='no column "new" of type number'):
        evaluate(parse("new > 1", {"new": FieldType.NUMBER}), columns_of(ROWS, FIELDS))
