"""Each kernel of rows and bits does what a few lines of numpy do."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retrieval.filters.rows import read_only, words_for
from retrieval.kernels import bits

SIZES = [0, 1, 63, 64, 65, 127, 200, 1_000]
WIDTHS = [np.uint8, np.uint16, np.uint32]


def bitmap(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """The oracle of all bitmaps here."""
    words = np.zeros(words_for(len(mask)) * 8, np.uint8)
    packed = np.packbits(mask, bitorder="little")
    words[: len(packed)] = packed
    return read_only(words.view(np.uint64))


def rows_of(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    return read_only(np.flatnonzero(mask).astype(np.int32))


def some(size: int, seed: int, share: float = 0.3) -> npt.NDArray[np.bool_]:
    return np.random.default_rng(seed).random(size) < share


class Coded:
    """Rows with codes, and all that a column has beside them."""

    def __init__(self, size: int, codes: int, *, buckets: int) -> None:
        randomness = np.random.default_rng(size + codes)
        width = np.min_scalar_type(codes - 1)
        self.codes = read_only(randomness.integers(0, codes, size).astype(width))
        counts = np.bincount(self.codes, minlength=codes)
        self.starts = read_only(np.append(0, np.cumsum(counts)).astype(np.int32))
        self.order = read_only(np.argsort(self.codes, kind="stable").astype(np.int32))
        self.firsts = read_only(np.unique(np.linspace(0, codes, buckets + 1).astype(np.int64)))
        bucket_of = np.repeat(np.arange(len(self.firsts) - 1), np.diff(self.firsts))
        self.buckets = read_only(bucket_of[self.codes].astype(np.uint8))

    def arrays(self) -> tuple[Any, ...]:
        return self.buckets, self.firsts, self.starts, self.order

    def within(self, *bounds: int) -> npt.NDArray[np.bool_]:
        mask = np.zeros(len(self.codes), np.bool_)
        for low, high in zip(bounds[::2], bounds[1::2], strict=True):
            mask |= (self.codes >= low) & (self.codes < high)
        return mask


CODED = [(2, 2), (40, 40), (256, 256), (300, 7), (300, 255), (70_000, 200)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("codes", "buckets"), CODED)
def test_ranges_of_codes_are_found_as_bits(size: int, codes: int, buckets: int) -> None:
    coded = Coded(size, codes, buckets=buckets)
    randomness = np.random.default_rng(1)
    ends = [np.sort(randomness.integers(0, codes + 1, 2)).tolist() for _ in range(20)]
    for low, high in [*ends, [0, 1], [1, codes], [codes - 1, codes], [0, 0]]:
        words = np.full(words_for(size), 7, np.uint64)
        count = bits.range_bits(*coded.arrays(), low, high, words)
        expected = coded.within(low, high)
        assert words.tolist() == bitmap(expected).tolist(), (low, high)
        assert count == expected.sum()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("codes", "buckets"), CODED[1:])
def test_several_ranges_of_codes_are_found_as_bits(size: int, codes: int, buckets: int) -> None:
    coded = Coded(size, codes, buckets=buckets)
    for seed in range(20):
        chosen = np.random.default_rng(seed).choice(codes, 2 * (seed % 5), replace=False)
        bounds = np.sort(chosen).astype(np.int64)
        words = np.full(words_for(size), 7, np.uint64)
        count = bits.ranges_bits(*coded.arrays(), read_only(bounds), words)
        expected = coded.within(*bounds.tolist())
        assert words.tolist() == bitmap(expected).tolist(), bounds
        assert count == expected.sum()
        kept = np.empty(size, np.int32)
        count = bits.keep_in_ranges(rows_of(np.ones(size, np.bool_)), coded.codes, bounds, kept)
        assert kept[:count].tolist() == np.flatnonzero(expected).tolist()


@pytest.mark.parametrize("codes", [5, 256, 257, 65_536, 65_537])
def test_rows_in_any_order_are_kept_by_their_code(codes: int) -> None:
    coded = Coded(500, codes, buckets=5)
    rows = read_only(np.random.default_rng(2).permutation(500)[:300].astype(np.int32))
    for low, high in ((0, 1), (1, codes), (codes // 3, codes // 2), (2, 2)):
        kept = np.empty(len(rows), np.int32)
        count = bits.keep_in_range(rows, coded.codes, low, high, kept)
        assert kept[:count].tolist() == rows[coded.within(low, high)[rows]].tolist()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wanted", [0, 1])
def test_rows_are_kept_by_other_rows(size: int, wanted: int) -> None:
    rows, others = some(size, 1), some(size, 2)
    expected = np.flatnonzero(rows & (others if wanted else ~others)).tolist()
    kept = np.empty(size, np.int32)
    count = bits.keep_in_bits(rows_of(rows), bitmap(others), wanted, kept)
    assert kept[:count].tolist() == expected
    count = bits.keep_in_rows(rows_of(rows), rows_of(others), wanted, kept)
    assert kept[:count].tolist() == expected


@pytest.mark.parametrize("size", SIZES)
def test_bits_and_numbers_are_the_same_rows(size: int) -> None:
    for share in (0.0, 0.01, 0.5, 1.0):
        mask = some(size, 3, share)
        words = np.zeros(words_for(size), np.uint64)
        assert bits.set_bits(rows_of(mask), size, words) == mask.sum()
        assert words.tolist() == bitmap(mask).tolist()
        assert bits.count_bits(bitmap(mask)) == mask.sum()
        rows = np.empty(mask.sum(), np.int32)
        assert bits.numbers_of(bitmap(mask), rows) == len(rows)
        assert rows.tolist() == np.flatnonzero(mask).tolist()


def test_no_more_numbers_are_written_than_there_is_room_for() -> None:
    rows = np.zeros(4, np.int32)
    assert bits.numbers_of(bitmap(np.ones(200, np.bool_)), rows[:3]) == 3
    assert rows.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("size", SIZES)
def test_sets_are_joined(size: int) -> None:
    masks = [some(size, seed, 0.6) for seed in range(4)]
    words = np.empty(words_for(size), np.uint64)
    for kernel, expected in (
        (bits.and_words, np.logical_and.reduce(masks)),
        (bits.or_words, np.logical_or.reduce(masks)),
    ):
        assert kernel(*map(bitmap, masks), words) == expected.sum()
        assert words.tolist() == bitmap(expected).tolist()
    both = np.empty(2 * size, np.int32)
    count = bits.merge_rows(rows_of(masks[0]), rows_of(masks[1]), both)
    assert both[:count].tolist() == np.flatnonzero(masks[0] | masks[1]).tolist()


def test_rows_are_counted_by_block() -> None:
    mask = some(64 * 40, 4)
    offsets = read_only(np.array([0, 0, 1, 7, 7, 39, 40, 40], np.int64))
    expected = [int(mask[64 * a : 64 * b].sum()) for a, b in pairwise(offsets)]
    for kernel, rows in ((bits.bits_per_block, bitmap(mask)), (bits.rows_per_block, rows_of(mask))):
        counts = np.empty(len(expected), np.int64)
        kernel(rows, offsets, counts)
        assert counts.tolist() == expected


@pytest.mark.parametrize("type_", [np.float32, np.float64, np.int32, np.int64])
def test_the_place_of_a_number_is_found(type_: Any) -> None:
    for size in (0, 1, 2, 100):
        values = read_only(np.arange(0, 3 * size, 3).astype(type_))
        for value in (-1, 0, 1, 3, 3 * size - 3, 3 * size, 150):
            given = float(value) if type_ in (np.float32, np.float64) else value
            expected = 2 * int(np.searchsorted(values, given)) + int(given in values.tolist())
            assert bits.place_of(values, given) == expected


def test_the_place_of_a_text_is_found() -> None:
    words = sorted({b"", b"a", b"ab", b"abc", b"b", "é".encode(), "\U0001f600".encode(), b"ba"})
    ends = read_only(np.append(0, np.cumsum([len(word) for word in words])).astype(np.int64))
    text = read_only(np.frombuffer(b"".join(words), np.uint8).copy())
    for word in [*words, b"aa", b"abcd", b"c", b"\xff", b"A"]:
        expected = 2 * sum(other < word for other in words) + (word in words)
        assert bits.place_of_word(ends, text, np.frombuffer(word, np.uint8)) == expected


@pytest.mark.parametrize("row", [-1, 100, 2**31 - 1])
def test_rows_that_do_not_exist_are_refused(row: int) -> None:
    rows = read_only(np.array([5, row], np.int32))
    words, kept = np.zeros(2, np.uint64), np.empty(2, np.int32)
    codes = read_only(np.zeros(100, np.uint8))
    bounds = read_only(np.array([0, 1], np.int64))
    assert bits.set_bits(rows, 100, words) == bits.DAMAGED
    assert bits.keep_in_range(rows, codes, 0, 1, kept) == bits.DAMAGED
    assert bits.keep_in_ranges(rows, codes, bounds, kept) == bits.DAMAGED
    if row != 100:  # within the words
        assert bits.keep_in_bits(rows, words, 1, kept) == bits.DAMAGED
    coded = Coded(100, 300, buckets=3)
    for low, high in ((0, 150), (150, 299), (10, 11)):
        order = read_only(np.full(100, row, np.int32))
        held = (coded.buckets, coded.firsts, read_only(np.arange(301, dtype=np.int32) // 3), order)
        assert bits.range_bits(*held, low, high + 3, words) == bits.DAMAGED
