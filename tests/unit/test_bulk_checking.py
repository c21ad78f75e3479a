"""Rows that may enter the store, and those that may not."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from indexer.bulk.checking import CheckedRows, checked
from indexer.bulk.schema import layout
from retrieval.limits import NAME_BYTES_MAX, TAGS_MAX, TEXT_BYTES_MAX

VECTOR = [1.0, 0.0]


def checked_columns(
    columns: dict[str, pa.Array], *, vectors: pa.Array | None = None, dimension: int | None = None
) -> CheckedRows:
    rows = len(next(iter(columns.values()))) if columns else len(vectors)
    lists = pa.array([VECTOR] * rows, pa.list_(pa.float32(), 2)) if vectors is None else vectors
    batch = pa.record_batch({"vector": lists, **columns})
    usable = lists.drop_null()
    plan = layout(
        batch.schema,
        first_vector=usable[0] if len(usable) else None,
        dimension=dimension,
        declared={},
        allowed=frozenset(),
    )
    return checked(batch, plan, first_row=100)


def refusals(found: CheckedRows) -> dict[int, str]:
    return {refusal.row - 100: refusal.reason for refusal in found.refused}


def test_rows_of_every_kind_of_bad_vector_are_refused_with_their_reason() -> None:
    rows = [[3, 4], [np.nan, 1], [np.inf, 1], [0, 0], None, [1], [1, 2, 3], [0, 1]]
    found = checked_columns({}, vectors=pa.array(rows, pa.list_(pa.float32())))
    assert refusals(found) == {
        1: "the vector holds NaN or infinity",
        2: "the vector holds NaN or infinity",
        3: "the vector has length zero",
        4: "there is no vector",
        5: "the vector has not 2 numbers",
        6: "the vector has not 2 numbers",
    }
    assert found.vectors.tolist() == [[np.float16(0.6), np.float16(0.8)], [0, 1]]
    assert found.norms.to_pylist() == [5.0, None]


@pytest.mark.parametrize("number", ["<f2", "<f4"])
def test_bytes_and_lists_of_the_same_numbers_give_the_same_vectors(number: str) -> None:
    raw = np.array([[3, 4, 0], [0, 2, 0], [1, 1, 1]], dtype=number)
    flat = pa.array(raw.reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(flat, 3)
    bytes_ = pa.array([row.tobytes() for row in raw])
    want = (raw / np.linalg.norm(raw.astype(np.float64), axis=1, keepdims=True)).astype("<f2")
    for vectors in (
        lists,
        lists.cast(pa.list_(lists.type.value_type)),
        bytes_,
        bytes_.cast(pa.large_binary()),
        bytes_.cast(pa.binary(raw[0].nbytes)),
    ):
        found = checked_columns({}, vectors=vectors, dimension=3)
        assert (found.vectors == want).all()
        sliced = checked_columns({}, vectors=vectors[1:], dimension=3)
        assert (sliced.vectors == want[1:]).all()


def test_bytes_of_another_length_are_refused() -> None:
    vectors = pa.array([np.ones(2, "<f2").tobytes(), b"123", b""])
    found = checked_columns({}, vectors=vectors, dimension=2)
    assert refusals(found) == {1: "the vector has not 2 numbers", 2: "the vector has not 2 numbers"}


@given(arrays.arrays(np.float32, (5, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_a_vector_is_stored_as_a_unit_vector_and_stored_again_does_not_change(
    raw: np.ndarray,
) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(raw.reshape(-1)), 7)
    once = checked_columns({}, vectors=lists)
    lengths = np.linalg.norm(raw.astype(np.float64), axis=1)
    assert len(once) == int((lengths > 1e-6).sum())
    want = raw.astype(np.float64)[lengths > 1e-6] / lengths[lengths > 1e-6, None]
    assert np.abs(once.vectors - want).max(initial=0) < 1.5e-3
    halves = pa.FixedSizeListArray.from_arrays(pa.array(once.vectors.reshape(-1)), 7)
    twice = checked_columns({}, vectors=halves)
    assert twice.vectors.tobytes() == once.vectors.tobytes()
    assert twice.norms.null_count == len(once)


def test_a_given_length_wins_over_the_measured_one() -> None:
    vectors = pa.array([[3.0, 4.0]] * 2, pa.list_(pa.float64()))
    found = checked_columns({"vector_norm": pa.array([2.5, None])}, vectors=vectors)
    assert found.norms.to_pylist() == [2.5, None]


def test_bad_text_refuses_its_row_only() -> None:
    offsets = np.array([0, 2, 4, 7, 10], np.int32)
    data = b"ok" + b"a\xff" + "é\0".encode() + b"end"
    texts = pa.Array.from_buffers(pa.string(), 4, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    long = pa.array(["x" * TEXT_BYTES_MAX, "x", "x", "x" * (TEXT_BYTES_MAX + 1)])
    found = checked_columns({"remark": texts, "more": long})
    assert refusals(found) == {
        1: "'remark' is not UTF-8",
        2: "'remark' holds a NUL character",
        3: "'more' is longer than 8,192 bytes",
    }
    assert found.columns["remark"].to_pylist() == ["ok"]


def test_surrogates_are_no_utf8() -> None:
    data = pa.py_buffer(b"\xed\xa0\x80")
    offsets = pa.py_buffer(np.array([0, 3], np.int32))
    texts = pa.Array.from_buffers(pa.string(), 1, [None, offsets, data])
    assert refusals(checked_columns({"remark": texts})) == {0: "'remark' is not UTF-8"}


def test_empty_text_stays_empty_beside_broken_text() -> None:
    offsets = pa.py_buffer(np.array([0, 0, 1], np.int32))
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xff")])
    assert checked_columns({"remark": texts}).columns["remark"].to_pylist() == [""]


def test_ids_and_names_may_be_numbers_or_dictionaries_and_have_a_length() -> None:
    found = checked_columns(
        {
            "id": pa.array([7, 8, None]),
            "person": pa.array(["ann", "b" * (NAME_BYTES_MAX + 1), None]).dictionary_encode(),
        }
    )
    assert refusals(found) == {1: "'person' is longer than 2,000 bytes"}
    assert found.columns["id"].to_pylist() == ["7", None]
    assert found.columns["person"].to_pylist() == ["ann", None]


def test_nan_is_null_and_infinity_refuses_the_row() -> None:
    found = checked_columns({"score": pa.array([1.5, float("nan"), float("inf"), None, -0.5])})
    assert refusals(found) == {2: "'score' is infinite"}
    assert found.columns["score"].to_pylist() == [1.5, None, None, -0.5]


def test_whole_numbers_beyond_int64_refuse_the_row() -> None:
    found = checked_columns({"hash": pa.array([1, 2**63], pa.uint64())})
    assert refusals(found) == {1: "'hash' is above 9223372036854775807"}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_every_unit_become_microseconds(unit: str) -> None:
    when = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    for zone in (None, "UTC", "Asia/Tokyo"):
        times = pa.array([when.replace(tzinfo=None) if zone is None else when, None],
                         pa.timestamp(unit, zone))  # fmt: skip
        found = checked_columns({"seen": times}).columns["seen"]
        assert found.type == pa.timestamp("us")
        assert found.to_pylist() == [when.replace(tzinfo=None), None]


def test_days_are_their_first_moment_and_far_times_are_refused() -> None:
    days = pa.array([datetime(1999, 12, 31, tzinfo=UTC).date()])
    for type_ in (pa.date32(), pa.date64()):
        found = checked_columns({"seen": days.cast(type_)}).columns["seen"].to_pylist()
        assert found == [datetime(1999, 12, 31)]  # noqa: DTZ001
    far = pa.array([253_402_300_800, -62_135_596_801, 253_402_300_799], pa.timestamp("s"))
    refused = refusals(checked_columns({"seen": far}))
    assert refused == dict.fromkeys((0, 1), "'seen' is not between year 1 and 9999")


def test_tags_with_null_or_nul_or_too_many_refuse_their_row() -> None:
    rows = [["a"], ["a", None], None, [], ["\0"], ["x"] * (TAGS_MAX + 1), ["é", "é"]]
    for type_ in (pa.list_(pa.string()), pa.large_list(pa.large_string())):
        found = checked_columns({"labels": pa.array(rows, type_)})
        assert refusals(found) == {
            1: "'labels' holds NULL",
            4: "'labels' holds a NUL character",
            5: "'labels' has over 1000 tags",
        }
        assert found.columns["labels"].to_pylist() == [["a"], None, [], ["é", "é"]]


def test_boxes_and_landmarks_may_be_nested_and_must_be_complete_and_finite() -> None:
    boxes = [[1, 2, 3, 4], None, [1, 2, 3], [1, 2, 3, np.nan], [1, 2, 3, None], [1e300, 0, 0, 0]]
    found = checked_columns({"box": pa.array(boxes, pa.list_(pa.float64()))})
    assert set(refusals(found)) == {2, 3, 4, 5}
    assert found.columns["box"].to_pylist() == [[1, 2, 3, 4], None]
    points = [[[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]], None, [[1, 2]] * 4, [[1, 2, 3]] * 5]
    found = checked_columns({"landmarks": pa.array(points, pa.list_(pa.list_(pa.float32())))})
    assert set(refusals(found)) == {2, 3}
    assert found.columns["landmarks"].to_pylist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], None]


def test_an_origin_is_one_of_three_and_captured_where_nothing_is_said() -> None:
    found = checked_columns({"origin": pa.array(["generated", None, "drawn"])})
    assert refusals(found) == {2: "'origin' is none of captured, generated, restored"}
    assert found.columns["origin"].to_pylist() == ["generated", "captured"]


def test_provenance_must_be_as_it_is_exported() -> None:
    age, hat = '{"provider": "é", "confidence": 0.5}', '{"provider": "m", "confidence": null}'
    tags = '{"provider": "looks@1", "confidence": {"hat": 0.75}}'
    good = f'{{"age": {age}, "hat": {hat}, "tags": {tags}}}'
    bad = ["[]", "{", '{"age": 1}', '{"a": {"provider": "x", "confidence": NaN}}',
           '{"a": {"provider": "\\u0000", "confidence": 1}}',
           '{"a": {"provider": "\\ud800", "confidence": 1}}',
           '{"a": {"provider": "x", "confidence": "1"}}',
           '{"tags": {"provider": "x", "confidence": {"hat": NaN}}}']  # fmt: skip
    found = checked_columns({"provenance": pa.array([good, None, *bad])})
    assert set(refusals(found)) == set(range(2, 2 + len(bad)))
    assert found.columns["provenance"].to_pylist() == [good, None]


def test_a_row_with_many_faults_is_refused_once_for_the_first() -> None:
    vectors = pa.array([[np.nan, 1.0]], pa.list_(pa.float32()))
    found = checked_columns({"remark": pa.array(["\0"])}, vectors=vectors)
    assert refusals(found) == {0: "the vector holds NaN or infinity"}
