"""What the columns of a table become, and every problem at once."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from indexer.bulk.schema import Layout, layout
from retrieval.errors import SchemaMismatchError
from retrieval.fields import SENSITIVE, Fields
from retrieval.limits import ATTRIBUTES_MAX
from retrieval.values import FieldType

HALF = pa.list_(pa.float16(), 8)


def layout_of(
    columns: dict[str, pa.DataType],
    *,
    first_vector: pa.Scalar | None = None,
    dimension: int | None = None,
    declared: Fields | None = None,
    allowed: frozenset[str] = frozenset(),
) -> Layout:
    return layout(
        pa.schema(list(columns.items())),
        first_vector=first_vector,
        dimension=dimension,
        declared=declared or {},
        allowed=allowed,
    )


def problems_of(columns: dict[str, pa.DataType], **facts: Any) -> str:
    with pytest.raises(SchemaMismatchError) as refusal:
        layout_of(columns, **facts)
    return str(refusal.value)


def test_reserved_columns_have_their_meaning_and_the_others_become_attributes() -> None:
    found = layout_of(
        {
            "vector": HALF,
            "id": pa.int64(),
            "person": pa.dictionary(pa.int32(), pa.string()),
            "box": pa.list_(pa.float64()),
            "quality": pa.float32(),
            "captured_at": pa.timestamp("ns"),
            "camera": pa.uint16(),
            "score": pa.decimal128(9, 2),
            "hat": pa.bool_(),
            "city": pa.large_string(),
            "born": pa.date32(),
            "labels": pa.large_list(pa.string()),
        }
    )
    assert set(found.known) == {"id", "person", "quality", "captured_at"}
    assert found.points == ("box",)
    assert found.attributes == {
        "camera": FieldType.INTEGER,
        "score": FieldType.NUMBER,
        "hat": FieldType.BOOLEAN,
        "city": FieldType.TEXT,
        "born": FieldType.TIMESTAMP,
        "labels": FieldType.TAGS,
    }
    assert (found.vectors.dimension, found.vectors.number) == (8, np.dtype("<f2"))


def test_every_problem_is_named_at_once() -> None:
    told = problems_of(
        {
            "vector": pa.list_(pa.int8(), 8),
            "id": pa.float64(),
            "frame": pa.string(),
            "box": pa.string(),
            "path": pa.string(),
            "external_id": pa.string(),
            "face": pa.int64(),
            "1st": pa.string(),
            "nested": pa.struct([("a", pa.int64())]),
            "age_group": pa.string(),
        },
        declared={"age_group": FieldType.INTEGER},
    )
    for words in (
        "'vector' is fixed_size_list",
        "'id' is double; it must be text",
        "'frame' is string; it must be integer",
        "'box' is string; it must be a list of 4 numbers",
        "'path' is no attribute: rename it to 'image'",
        "'external_id' is no attribute: rename it to 'id'",
        "'face' is no attribute",
        "'1st' cannot name an attribute",
        "'nested' is struct<a: int64>, which no attribute can hold",
        "'age_group' is declared as integer, not text",
    ):
        assert words in told


def test_a_missing_vector_column_is_said_with_the_column_that_was_meant() -> None:
    assert "is it 'vectors'?" in problems_of({"vectors": HALF, "id": pa.string()})


def test_a_column_that_appears_twice_is_refused() -> None:
    schema = pa.schema([("vector", HALF), ("city", pa.string()), ("city", pa.string())])
    with pytest.raises(SchemaMismatchError, match="'city' appears twice"):
        layout(schema, first_vector=None, dimension=None, declared={}, allowed=frozenset())


def test_whole_numbers_fit_where_a_number_was_declared_but_not_the_other_way_round() -> None:
    columns = {"vector": HALF, "score": pa.int32()}
    found = layout_of(columns, declared={"score": FieldType.NUMBER})
    assert found.attributes == {"score": FieldType.NUMBER}
    columns = {"vector": HALF, "score": pa.float32()}
    assert "declared as integer" in problems_of(columns, declared={"score": FieldType.INTEGER})


def test_sensitive_columns_are_left_out_until_they_are_wanted() -> None:
    columns = {"vector": HALF, "race": pa.string(), "Emotion": pa.string(), "city": pa.string()}
    found = layout_of(columns)
    assert set(found.attributes) == {"city"}
    assert set(found.left_out) == {"race", "Emotion"}
    assert set(layout_of(columns, allowed=SENSITIVE).attributes) == {"race", "Emotion", "city"}


def test_a_column_of_nothing_but_nulls_is_left_out() -> None:
    found = layout_of({"vector": HALF, "unknown": pa.null(), "person": pa.null()})
    assert (found.attributes, dict(found.known)) == ({}, {})
    assert set(found.left_out) == {"unknown", "person"}


def test_there_is_a_most_number_of_attributes() -> None:
    many = {f"a{number}": pa.int8() for number in range(ATTRIBUTES_MAX)}
    layout_of({"vector": HALF, **many})
    assert "are the most" in problems_of(
        {"vector": HALF, **many}, declared={"another": FieldType.TEXT}
    )


@pytest.mark.parametrize(("bytes_per_number", "number"), [(2, "<f2"), (4, "<f4")])
def test_bytes_are_told_apart_by_the_dimension(bytes_per_number: int, number: str) -> None:
    first = pa.scalar(bytes(8 * bytes_per_number), pa.binary())
    for type_ in (pa.binary(), pa.large_binary(), pa.binary(8 * bytes_per_number)):
        found = layout_of({"vector": type_}, first_vector=first, dimension=8)
        assert (found.vectors.dimension, found.vectors.number) == (8, np.dtype(number))


def test_bytes_without_a_dimension_or_of_a_wrong_length_are_refused() -> None:
    first = pa.scalar(bytes(16), pa.binary())
    assert "say its dimension" in problems_of({"vector": pa.binary()}, first_vector=first)
    told = problems_of({"vector": pa.binary()}, first_vector=first, dimension=5)
    assert "10 (float16) or 20 (float32)" in told


def test_lists_of_another_dimension_than_the_space_are_refused() -> None:
    first = pa.scalar([1.0, 2.0], pa.list_(pa.float32()))
    for type_ in (pa.list_(pa.float32()), pa.list_(pa.float32(), 2)):
        told = problems_of({"vector": type_}, first_vector=first, dimension=8)
        assert "have 2 dimensions; 8 are needed" in told
    found = layout_of({"vector": pa.list_(pa.float32())}, first_vector=first)
    assert found.vectors.dimension == 2
    assert "no row holds a vector" in problems_of({"vector": pa.list_(pa.float32())})
    assert "1 to 4,096" in problems_of({"vector": pa.list_(pa.float16(), 5000)})
