"""The exact kernels give, to the bit, what numpy in float64 gives; the heap is a sorted list."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.filters.rows import RowSet
from retrieval.index.exact import PADDING, Rows, cosines, first, frozen, scales_of
from retrieval.kernels.best import (
    before,
    best_of_bitmap,
    best_of_numbers,
    cosine,
    keep,
    resume,
    sort_heap,
    widen,
    widened,
)
from retrieval.kernels.compiled import kernel
from retrieval.values import unit_rows

DIMENSIONS = [1, 3, 8, 12, 16, 24, 64, 100, 126, 136, 384, 512, 768, 1024]
dimensions = pytest.mark.parametrize("dimension", DIMENSIONS)


@kernel
def all_cosines(query, halves, similarities):
    probe = widened(query)
    for row in range(len(similarities)):
        similarities[row] = cosine(halves, row * len(query), probe)


@kernel
def kept_of(similarities, faces, heap, filled):
    """What a heap keeps of rows that come in this order, best first."""
    resume(heap, filled)
    for place in range(len(faces)):
        filled = keep(heap[0], heap[1], filled, similarities[place], faces[place])
    sort_heap(heap, filled)
    return filled


@kernel
def is_before(one, face, other, other_face):
    return before(one, face, other, other_face)


def some_rows(rows: int, dimension: int, *, seed: int = 0) -> Rows:
    """Rows of many lengths, some of them equal, in an order of ids that is none."""
    random = np.random.default_rng(seed + dimension)
    vectors = random.standard_normal((rows, dimension)) * random.uniform(0.05, 20, (rows, 1))
    vectors[rows // 2 :: 7] = vectors[0]
    halves = vectors.astype("<f2")
    return Rows(random.permutation(10 * rows)[:rows], scales_of(halves), halves)


def a_query(dimension: int, *, seed: int = 1) -> npt.NDArray[np.float32]:
    return frozen(unit_rows(np.random.default_rng(seed).standard_normal((1, dimension)))[0])


@dimensions
def test_the_similarity_of_a_kernel_is_that_of_numpy_to_the_bit(dimension: int) -> None:
    rows, query = some_rows(300, dimension), a_query(dimension)
    found = np.empty(300)
    all_cosines(query, rows.table[0], found)
    assert found.tolist() == cosines(rows.vectors, query).tolist()
    wide = rows.vectors.astype(np.float64)
    true = wide @ query.astype(np.float64) / np.linalg.norm(wide, axis=1)
    assert found == pytest.approx(true / np.linalg.norm(query.astype(np.float64)), abs=1e-12)
    assert np.abs(found).max() <= 1.0


@dimensions
def test_similarities_of_a_row_with_itself_and_its_opposite_are_one(dimension: int) -> None:
    vectors = some_rows(50, dimension).vectors
    for row in vectors[:20]:
        query = frozen(row.astype(np.float32))
        found = np.empty(2)
        both = np.stack([row, -row]).view(np.uint16).reshape(-1)
        all_cosines(query, frozen(both), found)
        assert found == pytest.approx([1, -1], abs=1e-15)
        assert np.abs(found).max() <= 1.0


@dimensions
def test_the_best_of_numbers_and_of_a_bitmap_are_those_of_a_full_sort(dimension: int) -> None:
    rows, query = some_rows(500, dimension), a_query(dimension)
    random = np.random.default_rng(dimension)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = random.random(500) < share
        chosen = np.flatnonzero(mask)
        for count in (1, 2, 7, 500):
            truth = first(rows.ids[chosen], cosines(rows.vectors[chosen], query), count=count)
            for found in (
                answer(best_of_numbers, query, frozen(chosen.astype(np.int32)), rows, count),
                answer(best_of_numbers, query, frozen(chosen[::-1].astype(np.int32)), rows, count),
                answer(best_of_bitmap, query, RowSet.of_mask(mask).bitmap(), rows, count),
            ):
                assert found == (truth.ids.tolist(), truth.similarities.tolist())


def answer(way: Any, query: Any, which: Any, rows: Rows, count: int) -> Any:
    heap = (np.full(count, np.nan), np.full(count, -5))
    kept = way(query, which, rows.table, heap, 0)
    assert (heap[1][kept:] == -5).all()
    return heap[1][:kept].tolist(), heap[0][:kept].tolist()


def test_near_ties_are_decided_in_float64_and_not_by_the_quick_look() -> None:
    # Rows of half floats that differ in the last bit of one number: similarities a hair apart.
    row = np.full((1, 512), 0.04419, np.float16)
    vectors = np.repeat(row, 400, axis=0)
    flat = vectors.view(np.uint16)
    flat[np.arange(400), np.random.default_rng(0).integers(0, 512, 400)] += 1
    flat[np.arange(400), np.random.default_rng(1).integers(0, 512, 400)] -= 1
    rows = Rows(np.arange(400)[::-1].copy(), scales_of(vectors), vectors)
    query = a_query(512)
    similarities = cosines(vectors, query)
    assert np.ptp(similarities) < 1e-3
    truth = first(rows.ids, similarities, count=50)
    everything = frozen(np.arange(400, dtype=np.int32))
    found = answer(best_of_numbers, query, everything, rows, 50)
    assert found == (truth.ids.tolist(), truth.similarities.tolist())


@dimensions
def test_widened_rows_have_unit_length(dimension: int) -> None:
    rows = some_rows(40, dimension)
    numbers = frozen(np.array([3, 0, 39, 3], np.int32))
    wide = np.empty((4, dimension), np.float32)
    widen(numbers, rows.table, wide)
    expected = rows.vectors[numbers].astype(np.float32) * rows.scales[numbers, None]
    assert wide.tolist() == expected.tolist()
    assert np.linalg.norm(wide, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_padding_has_no_scale_and_is_never_usable() -> None:
    vectors = np.zeros((3, 8), "<f2")
    vectors[1] = 1
    rows = Rows(np.array([4, PADDING, 5]), scales_of(vectors), vectors)
    assert rows.usable.tolist() == [False, False, False]


# The heap

similarities = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), max_size=60)


def kept(
    rows: list[tuple[float, int]], heap: tuple[npt.NDArray[Any], npt.NDArray[Any]], filled: int
) -> int:
    scores = np.array([similarity for similarity, _ in rows], np.float64)
    faces = np.array([face for _, face in rows], np.int64)
    return int(kept_of(scores, faces, heap, filled))


def in_order(rows: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return sorted(rows, key=lambda row: (-row[0], row[1]))


@given(scores=similarities, size=st.integers(1, 40), seed=st.integers(0, 1000))
def test_the_heap_keeps_the_first_of_a_sorted_list(
    scores: list[float], size: int, seed: int
) -> None:
    faces = np.random.default_rng(seed).permutation(len(scores)).tolist()
    rows = list(zip(scores, faces, strict=True))
    heap = (np.empty(size), np.empty(size, np.int64))
    filled = kept(rows, heap, 0)
    assert filled == min(size, len(rows))
    assert (
        list(zip(*(part[:filled].tolist() for part in heap), strict=True))
        == (in_order(rows)[:size])
    )


@given(
    scores=similarities, cut=st.integers(0, 60), size=st.integers(1, 40), seed=st.integers(0, 1000)
)
def test_a_heap_that_an_earlier_search_filled_goes_on(
    scores: list[float], cut: int, size: int, seed: int
) -> None:
    faces = np.random.default_rng(seed).permutation(len(scores)).tolist()
    rows = list(zip(scores, faces, strict=True))
    heap = (np.empty(size), np.empty(size, np.int64))
    filled = kept(rows[cut:], heap, kept(rows[:cut], heap, 0))
    assert (
        list(zip(*(part[:filled].tolist() for part in heap), strict=True))
        == (in_order(rows)[:size])
    )


def test_equal_similarities_are_ordered_by_id() -> None:
    assert is_before(0.5, 9, 0.4, 1)
    assert is_before(0.5, 1, 0.5, 2)
    assert not is_before(0.5, 2, 0.5, 2)
    assert not is_before(-1.0, 1, 1.0, 2)
