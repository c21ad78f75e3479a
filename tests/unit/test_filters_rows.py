"""Sets of rows: the laws that hold whichever way they are held, and which ones are kept."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import retrieval.filters.evaluate as evaluating
from retrieval.errors import SnapshotUnusableError
from retrieval.fields import Fields
from retrieval.filters.columns import ARROW_TYPES, Columns
from retrieval.filters.evaluate import evaluate
from retrieval.filters.kept import KeptSets
from retrieval.filters.parse import parse
from retrieval.filters.rows import RowSet, intersection, read_only, union
from retrieval.filters.tree import negate
from retrieval.values import FieldType

Mask = npt.NDArray[np.bool_]
MASKS = st.integers(0, 300).flatmap(
    lambda size: st.lists(
        st.lists(st.booleans(), min_size=size, max_size=size), min_size=1, max_size=6
    )
)


def columns_of(rows: dict[str, list[Any]], fields: Fields) -> Columns:
    made = {name: pa.array(rows[name], ARROW_TYPES[type_]) for name, type_ in fields.items()}
    return Columns.from_arrow(pa.table(made), fields)


def both_ways(mask: Mask) -> list[RowSet]:
    return [RowSet.of_mask(mask), RowSet.of_numbers(np.flatnonzero(mask), size=len(mask))]


def assert_is(rows: RowSet, mask: Mask) -> None:
    assert rows.mask().tolist() == mask.tolist()
    assert rows.row_numbers().tolist() == np.flatnonzero(mask).tolist()
    assert rows.bitmap().tolist() == RowSet.of_mask(mask).bitmap().tolist()
    assert (rows.size, rows.count) == (len(mask), int(mask.sum()))


@settings(deadline=None)  # the first examples compile the kernels
@given(lists=MASKS, ways=st.lists(st.integers(0, 1), min_size=6, max_size=6))
def test_sets_join_like_masks(lists: list[list[bool]], ways: list[int]) -> None:
    masks = [np.array(one, np.bool_) for one in lists]
    sets = [both_ways(mask)[way] for mask, way in zip(masks, ways, strict=False)]
    for mask, rows in zip(masks, sets, strict=True):
        assert_is(rows, mask)
    assert_is(intersection(sets), np.logical_and.reduce(masks))
    assert_is(union(sets), np.logical_or.reduce(masks))
    other = sets[-1].bitmap()
    assert_is(sets[0].intersection(other), masks[0] & masks[-1])
    assert_is(sets[0].union(other), masks[0] | masks[-1])


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65])
def test_all_and_none_have_no_bits_behind_the_last_row(size: int) -> None:
    assert_is(RowSet.all(size), np.ones(size, np.bool_))
    assert_is(RowSet.none(size), np.zeros(size, np.bool_))


def test_rows_are_counted_by_list_whichever_way_they_are_held() -> None:
    mask = np.random.default_rng(1).random(640) < 0.1
    offsets = read_only(np.array([0, 3, 3, 10], np.int64))
    expected = [int(mask[:192].sum()), 0, int(mask[192:].sum())]
    assert [rows.counts_per_block(offsets).tolist() for rows in both_ways(mask)] == [expected] * 2


def test_what_the_caller_gave_stays_as_it_was() -> None:
    numbers, words = np.array([1, 2], np.int32), np.array([6], np.uint64)
    rows = RowSet.of_numbers(numbers, size=64)
    assert not RowSet.of_bitmap(words, size=64).bitmap().flags.writeable
    numbers[0] = 0
    words[0] = 0
    assert rows.row_numbers().tolist() == [1, 2]


ROWS = 3_000
FIELDS = {
    "age": FieldType.NUMBER,
    "frame": FieldType.INTEGER,
    "track": FieldType.TEXT,
    "smiling": FieldType.BOOLEAN,
    "tags": FieldType.TAGS,
}
LEAVES = [
    "age < 20", "age >= 2990", "age = 7", "age <> 7", "age IN (1, 2, 3, 5000)", "age IS NULL",
    "frame = 3", "frame NOT IN (3, 4)", "frame BETWEEN 100 AND 200", "track LIKE 't1%'",
    "track > 't5'", "smiling", "smiling IS NULL", "'rare' = ANY(tags)", "'hat' = ANY(tags)",
    "'none' = ANY(tags)", "tags IS NULL", "TRUE", "FALSE",
]  # fmt: skip


@pytest.fixture(scope="module")
def columns() -> Columns:
    randomness = np.random.default_rng(5)

    def with_nulls(values: list[Any]) -> list[Any]:
        return [None if lost else v for v, lost in zip(values, some(), strict=True)]

    def some() -> list[bool]:
        return (randomness.random(ROWS) < 0.2).tolist()

    tags = [["hat"] * (row % 3) + ["rare"] * (row % 500 == 0) for row in range(ROWS)]
    values: dict[str, list[Any]] = {
        "age": [float(value) for value in randomness.permutation(ROWS)],
        "frame": randomness.integers(0, 300, ROWS).tolist(),
        "track": [f"t{value}" for value in randomness.integers(0, 40, ROWS)],
        "smiling": some(),
        "tags": tags,
    }
    return columns_of({name: with_nulls(held) for name, held in values.items()}, FIELDS)


WAYS: list[dict[str, int]] = [
    {},
    {"SCATTER_SHARE": 1, "POINTWISE_SHARE": 1},
    {"SCATTER_SHARE": 2**40, "POINTWISE_SHARE": 2**40, "KEPT_ROWS_MIN": 0},
]


@pytest.mark.parametrize("way", WAYS, ids=["as it is", "by numbers", "by bitmaps"])
def test_filters_join_like_sets_and_not_never_passes_null(
    columns: Columns, way: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in way.items():
        monkeypatch.setattr(evaluating, name, value)
    leaves = [parse(written, FIELDS) for written in LEAVES]
    masks = [evaluate(leaf, columns).mask() for leaf in leaves]
    for one, mask in zip(LEAVES, masks, strict=True):
        no = evaluate(negate(parse(one, FIELDS)), columns).mask()
        assert not (no & mask).any()
        field = next((name for name in FIELDS if name in one), None)
        if field and "NULL" not in one:
            known = evaluate(parse(f"{field} IS NOT NULL", FIELDS), columns).mask()
            assert ((no | mask) == known).all(), one
        for other, second in zip(LEAVES, masks, strict=True):
            assert_is(evaluate(parse(f"{one} AND {other}", FIELDS), columns), mask & second)
            assert_is(evaluate(parse(f"{one} OR {other}", FIELDS), columns), mask | second)
            three = parse(f"{one} AND NOT 'hat' = ANY(tags) AND {other}", FIELDS)
            without_hats = evaluate(parse("NOT 'hat' = ANY(tags)", FIELDS), columns).mask()
            assert_is(evaluate(three, columns), mask & without_hats & second)


def test_few_rows_stay_numbers(columns: Columns) -> None:
    for written in ("'rare' = ANY(tags)", "age = 7", "age < 20", "age < 20 AND frame > 5"):
        assert evaluate(parse(written, FIELDS), columns).numbers is not None
    assert evaluate(parse("age > 20", FIELDS), columns).words is not None


def test_rows_that_do_not_exist_are_told_and_not_followed() -> None:
    columns = columns_of({"age": [float(row) for row in range(300)]}, {"age": FieldType.NUMBER})
    column: Any = columns.by_name["age"]
    object.__setattr__(column, "order", read_only(np.full(300, 2**30, np.int32)))
    for written in ("age < 150.5", "age < 3 OR age > 290"):
        with pytest.raises(SnapshotUnusableError, match="rows that do not exist"):
            evaluate(parse(written, {"age": FieldType.NUMBER}), columns).bitmap()


def test_what_was_asked_for_twice_is_kept_and_the_oldest_goes_first() -> None:
    rows = [RowSet.of_mask(np.ones(64 * 10, np.bool_)) for _ in range(3)]
    kept = KeptSets(bytes_max=170)
    for place, one in enumerate(rows):
        kept.offer(("a", (place,)), one)
        assert kept.get(("a", (place,))) is None
        kept.offer(("a", (place,)), one)
        kept.get(("a", (0,)))
    assert kept.get(("a", (0,))) is rows[0]
    assert kept.get(("a", (1,))) is None
    assert kept.get(("a", (2,))) is rows[2]
    assert kept.nbytes == 160


def test_what_is_larger_than_all_that_may_be_kept_is_not_kept() -> None:
    kept = KeptSets(bytes_max=79)
    for _ in range(3):
        kept.offer(("a", (1,)), RowSet.of_mask(np.ones(64 * 10, np.bool_)))
    assert kept.nbytes == 0


def test_several_threads_find_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "KEPT_ROWS_MIN", 0)
    numbers = np.random.default_rng(1).random(5_000)
    fields = {"age": FieldType.NUMBER}
    columns = Columns.from_arrow(pa.table({"age": numbers}), fields)
    object.__setattr__(columns, "kept", KeptSets(bytes_max=5_000))

    def wrong(place: int) -> bool:
        low = (place % 13) / 20
        found = evaluate(parse(f"age > {low}", fields), columns).mask()
        return bool((found != (numbers > low)).any())

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(wrong, range(400)))
