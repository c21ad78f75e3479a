"""What is encoded for COPY is what PostgreSQL then holds, for every type and every odd value."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.bulk import arrow_copy

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
HARD_TEXT = TEXT | st.sampled_from(
    ['"', "\\", "\\u0041", "\x01", "\n\r\t", "\x7f\u2028", "😀", "{}"]
)
INT8 = st.integers(-(2**63), 2**63 - 1)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TIME = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
TAGS = st.lists(HARD_TEXT, max_size=4)
on_one_connection = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url) as opened:
        yield opened


def came_back(
    connection: psycopg.Connection[Any], columns: dict[str, arrow_copy.Fields]
) -> list[tuple[Any, ...]]:
    """Copy columns, named by their types, into a table and read it."""
    names = [f"c{number} {type_}" for number, type_ in enumerate(columns)]
    connection.execute(f"CREATE TEMPORARY TABLE t (n bigserial, {', '.join(names)})")
    told = ", ".join(f"c{number}" for number in range(len(columns)))
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY t ({told}) FROM STDIN (FORMAT binary)") as sink:
            for piece in arrow_copy.stream(arrow_copy.rows(len(columns), columns.values())):
                sink.write(piece)
        rows = cursor.execute(f"SELECT {told} FROM t ORDER BY n", binary=True).fetchall()
    connection.rollback()
    return rows


def column(values: st.SearchStrategy[Any], type_: pa.DataType) -> st.SearchStrategy[pa.Array]:
    """Arrays with and without NULLs, sliced or not."""
    listed = st.lists(values | st.none(), min_size=3, max_size=12)
    return st.tuples(listed, st.integers(0, 2)).map(lambda t: pa.array(t[0], type_)[t[1] :])


@on_one_connection
@given(data=st.data())
def test_each_type_comes_back_as_it_went_in(
    connection: psycopg.Connection[Any], data: st.DataObject
) -> None:
    def check(
        sql: str, values: pa.Array, encode: Callable[[pa.Array], arrow_copy.Fields], want: list[Any]
    ) -> None:
        assert [row[0] for row in came_back(connection, {sql: encode(values)})] == want

    ints = data.draw(column(INT8, pa.int64()))
    check("bigint", ints, arrow_copy.int8, ints.to_pylist())
    numbers = data.draw(column(NUMBER, pa.float64()))
    check("double precision", numbers, arrow_copy.float8, numbers.to_pylist())
    singles = data.draw(column(st.floats(-9, 9, width=32), pa.float32()))
    check("real", singles, arrow_copy.float4, singles.to_pylist())
    texts = data.draw(column(HARD_TEXT, pa.string()))
    check("text", texts, arrow_copy.text, texts.to_pylist())
    times = data.draw(column(TIME, pa.timestamp("us")))
    want = [None if t is None else t.replace(tzinfo=UTC) for t in times.to_pylist()]
    check("timestamptz", times, arrow_copy.timestamptz, want)
    tags = data.draw(column(TAGS, pa.list_(pa.string())))
    check("text[]", tags, arrow_copy.text_lists, tags.to_pylist())


@on_one_connection
@given(data=st.data())
def test_attributes_come_back_from_jsonb_and_null_leaves_its_key_out(
    connection: psycopg.Connection[Any], data: st.DataObject
) -> None:
    rows = data.draw(st.integers(1, 8))

    def drawn(values: st.SearchStrategy[Any], type_: pa.DataType) -> pa.Array:
        several = st.lists(values | st.none(), min_size=rows, max_size=rows)
        return pa.array(data.draw(several), type_)

    columns = {
        'a "quoted" näme': drawn(HARD_TEXT, pa.string()),
        "n": drawn(NUMBER, pa.float64()),
        "i": drawn(INT8, pa.int64()),
        "b": drawn(st.booleans(), pa.bool_()),
        "t": drawn(TIME, pa.timestamp("us")),
        "l": drawn(TAGS, pa.list_(pa.string())),
    }
    found = came_back(connection, {"jsonb": arrow_copy.jsonb(columns, rows=rows)})
    want = [
        {name: _in_json(values[row].as_py()) for name, values in columns.items()}
        for row in range(rows)
    ]
    for (row,) in found:
        if "n" in row:  # 4e16 is written 40000000000000000, which json reads as a whole number
            row["n"] = float(row["n"])
    assert [row[0] for row in found] == [
        {name: value for name, value in row.items() if value is not None} for row in want
    ]


def _in_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).isoformat(timespec="microseconds")
    return value


def test_a_row_of_many_columns_keeps_their_order(connection: psycopg.Connection[Any]) -> None:
    points = pa.FixedSizeListArray.from_arrays(
        pa.array(np.arange(12, dtype=np.float32)), 4, mask=pa.array([False, True, False])
    )
    halves = np.arange(6, dtype="<f2").reshape(3, 2)
    found = came_back(
        connection,
        {
            "bigint": arrow_copy.int8(pa.array([1, 2, 3])),
            "int8": arrow_copy.int8_constant(-7),
            "real[]": arrow_copy.float4_lists(points),
            "bytea": arrow_copy.bytea_rows(halves),
            "jsonb": arrow_copy.jsonb({}, rows=3),
            "jsonb  ": arrow_copy.jsonb_texts(pa.array(['{"a": [1]}', None, "{}"])),
        },
    )
    assert found == [
        (1, -7, [0, 1, 2, 3], halves[0].tobytes(), {}, {"a": [1]}),
        (2, -7, None, halves[1].tobytes(), {}, None),
        (3, -7, [8, 9, 10, 11], halves[2].tobytes(), {}, {}),
    ]


def test_no_rows_are_a_whole_stream_too(connection: psycopg.Connection[Any]) -> None:
    assert came_back(connection, {"text": arrow_copy.text(pa.array([], pa.string()))}) == []
