"""Each vector instruction does what a few lines of numpy do."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retrieval.kernels.compiled import kernel
from retrieval.kernels.lanes import (
    ROWS_AT_ONCE,
    bits_set,
    eight_bounds,
    fetch,
    half_as_double,
    half_as_float,
    half_product,
    half_sums,
    lowest,
    ones,
)

DIMENSIONS = [1, 3, 8, 16, 24, 31, 32, 33, 64, 100, 126, 384, 512, 768, 1024]
WORDS = [1, 2, 3, 2**63, 2**64 - 1, 2**63 + 1, 0xF0F0, 1 << 40]


@kernel
def call_ones(word):
    return ones(word)


@kernel
def call_lowest(word):
    return lowest(word)


@kernel
def call_half_product(rows, start, query, dimension):
    return half_product(rows, start, query, dimension)


@kernel
def call_half_sums(rows, start, wide, dimension):
    return half_sums(rows, start, wide, dimension)


@kernel
def call_half_as_double(bits):
    return half_as_double(bits)


@kernel
def call_half_as_float(bits):
    return half_as_float(bits)


@kernel
def call_bits_set(bytes_, start, wanted):
    return bits_set(bytes_, start, wanted)


@kernel
def call_fetch(array, place):
    fetch(array, place)
    return array[place]


def bits_of(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Half floats as kernels take them."""
    return values.astype(np.float16).view(np.uint16).reshape(-1)


def planes_of(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Numbers of four bits, a multiple of 512 of them, as (blocks, 4, 8) words in one row."""
    blocks = levels.reshape(-1, 512)
    planes = [np.packbits(blocks >> bit & 1, axis=1, bitorder="little") for bit in range(4)]
    return np.ascontiguousarray(np.stack(planes, axis=1)).view(np.uint64).reshape(-1)


def some_codes(rows: int, blocks: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Codes of rows in one row of words, and their bits."""
    bits = np.random.default_rng(rows).integers(0, 2, (rows, 512 * blocks), np.uint8)
    words = np.packbits(bits, axis=1, bitorder="little").view(np.uint64)
    return np.ascontiguousarray(words).reshape(-1), bits


@pytest.mark.parametrize("word", WORDS)
def test_bits_are_counted_and_the_lowest_is_found(word: int) -> None:
    assert call_ones(np.uint64(word)) == word.bit_count()
    assert call_lowest(np.uint64(word)) == (word & -word).bit_length() - 1
    assert call_ones(np.uint64(0)) == 0


def test_half_floats_are_widened_without_loss_all_of_them() -> None:
    every = np.arange(2**16).astype(np.uint16)
    values = every.view(np.float16)
    for bits, value in zip(every[::7], values[::7], strict=True):
        for found in (call_half_as_double(bits), call_half_as_float(bits)):
            assert found == value or (np.isnan(found) and np.isnan(value))


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("place", [0, 1, 5])
def test_half_product_is_the_inner_product(dimension: int, place: int) -> None:
    random = np.random.default_rng(dimension)
    rows = (random.standard_normal((7, dimension)) / np.sqrt(dimension)).astype(np.float16)
    query = random.standard_normal(dimension).astype(np.float32)
    query /= np.linalg.norm(query)
    found = call_half_product(bits_of(rows), place * dimension, query, dimension)
    assert found == pytest.approx(rows[place].astype(np.float32) @ query, abs=1e-5)


def summed_by_halves(values: npt.NDArray[np.float64], width: int) -> float:
    padded = np.append(values, np.zeros(width - len(values)))
    while width > 1:
        width //= 2
        padded = padded[:width] + padded[width : 2 * width]
    return float(padded[0])


@pytest.mark.parametrize("dimension", [d for d in DIMENSIONS if d % 8 == 0 and d > 8] + [40, 136])
def test_half_sums_add_by_halves_to_the_bit(dimension: int) -> None:
    random = np.random.default_rng(dimension)
    width = 1 << (dimension - 1).bit_length()
    rows = random.standard_normal((3, dimension)).astype(np.float16)
    wide = np.full(3 * width, np.nan)  # what lies in the room for sums must not matter
    wide[:width] = np.append(random.standard_normal(dimension), np.zeros(width - dimension))
    for place, row in enumerate(rows.astype(np.float64)):
        dot, squares = call_half_sums(bits_of(rows), place * dimension, wide, dimension)
        assert dot == summed_by_halves(row * wide[:dimension], width)
        assert squares == summed_by_halves(row * row, width)


def numbers_of(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """What four bits mean: -8 to 7."""
    return (levels.astype(np.int64) ^ 8) - 8


@kernel
def call_eight_bounds(coded, numbers, place, asked, worst, bounds):
    return eight_bounds(coded, numbers, place, asked, worst, bounds)


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_products_of_extremes(blocks: int) -> None:
    full, none = np.full(8 * blocks, 2**64 - 1, np.uint64), np.zeros(8 * blocks, np.uint64)
    codes, factors = np.append(full, none), bits_of(np.array([[1, 0], [1, 0]]))
    places = np.array([0, 1] * 4)
    for level in (0, 7, 8, 15):
        planes = planes_of(np.full(512 * blocks, level, np.uint8))
        bounds = np.empty(8, np.float32)
        asked = (planes, np.float32(1.0), np.float32(0.0))
        call_eight_bounds((codes, factors), places, 0, asked, np.float32(0.0), bounds)
        number = int(numbers_of(np.array([level], np.uint8))[0])
        assert bounds.tolist() == [number * 512 * blocks, 0] * 4


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_eight_bounds_are_those_of_each_row_and_say_which_are_no_worse(blocks: int) -> None:
    random = np.random.default_rng(blocks)
    levels = random.integers(0, 16, 512 * blocks, np.uint8)
    codes, bits = some_codes(40, blocks)
    halves = random.standard_normal((40, 2)).astype(np.float16)
    numbers = random.integers(0, 40, 24)
    step, lowered = np.float32(0.013), np.float32(-0.4)
    planes = planes_of(levels)
    products = bits.astype(np.int64) @ numbers_of(levels)
    wide = halves.astype(np.float32)
    for place in (0, 3, 16):
        rows = numbers[place : place + ROWS_AT_ONCE]
        expected = wide[rows, 0] * (step * products[rows].astype(np.float32) - lowered)
        expected += wide[rows, 1]
        bounds = np.empty(ROWS_AT_ONCE, np.float32)
        worst = np.float32(np.median(expected))
        passing = call_eight_bounds(
            (codes, bits_of(halves)), numbers, place, (planes, step, lowered), worst, bounds
        )
        assert bounds == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert passing == sum(1 << i for i in range(ROWS_AT_ONCE) if bounds[i] >= worst)
        # A row whose bound is equal to the worst may be ordered before it: it stays.
        equal = np.float32(bounds[2])
        asked = (planes, step, lowered)
        again = call_eight_bounds((codes, bits_of(halves)), numbers, place, asked, equal, bounds)
        assert again >> 2 & 1


@pytest.mark.parametrize("wanted", [1, 2, 4, 8, 0xFF])
def test_bits_set_tells_which_of_64_bytes_share_a_bit(wanted: int) -> None:
    bytes_ = np.random.default_rng(wanted).integers(0, 16, 192, np.uint8)
    for start in (0, 64, 77):
        found = int(call_bits_set(bytes_, start, wanted))
        shared = (bytes_[start : start + 64] & wanted) != 0
        assert [found >> i & 1 for i in range(64)] == shared.astype(int).tolist()


def test_fetching_leaves_the_array_as_it_is() -> None:
    array = np.arange(10)
    assert call_fetch(array, 3) == 3
