"""Codes, estimates, lists: each kernel against numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.filters.rows import RowSet
from retrieval.index.codes import Codes, Frame, encoded, frame_of, words_of
from retrieval.index.exact import Rows, cosines, first, frozen, scales_of
from retrieval.kernels.coded import (
    BATCH,
    LEAST,
    MOST,
    NEARNESS_STEPS,
    STEPS,
    WORST_STEPS,
    best_of_coded_numbers,
    best_of_codes,
    best_of_lists,
    coded_query,
    enough,
    largest,
    ranked,
    taken,
    turned,
)
from retrieval.kernels.compiled import kernel
from retrieval.kernels.fitting import ERROR_STEPS, estimated, nearness_steps, tally
from retrieval.values import unit_rows

DIMENSIONS = [8, 64, 100, 126, 384, 512, 768, 1024]
ROWS = 700
dimensions = pytest.mark.parametrize("dimension", DIMENSIONS)
Floats = npt.NDArray[np.float32]


@kernel
def call_coded_query(query, frame):
    return coded_query(query, frame)


@kernel
def call_taken(words, begin, end, numbers, count):
    return taken(words, begin, end, numbers, count)


@kernel
def call_ranked(query, frame, sizes, list_coded):
    return ranked(coded_query(query, frame), sizes, list_coded)


@kernel
def call_enough(at, counts, worst, chances, missed, count):
    return enough(at, counts[0], counts[1], worst, chances, missed, count)


class Twin:
    """Rows with their codes, and everything that kernels do with them done by numpy."""

    def __init__(self, dimension: int, *, seed: int = 0) -> None:
        random = np.random.default_rng(seed + dimension)
        centre = random.standard_normal(dimension)  # not 0: the mean must matter
        self.vectors = (random.standard_normal((ROWS, dimension)) + 0.5 * centre).astype("<f2")
        self.rows = Rows(random.permutation(ROWS), scales_of(self.vectors), self.vectors)
        units = unit_rows(self.vectors)
        self.frame = frame_of(units, seed=seed)
        self.codes = encoded(self.vectors, self.rows.scales, self.frame)
        self.rotation = np.eye(dimension, dtype=np.float32)
        turned(self.rotation, self.frame.signs, self.frame.places)
        self.query = frozen(unit_rows((random.standard_normal(dimension) + 0.5 * centre)[None])[0])
        self.dimension = dimension

    @property
    def bits(self) -> npt.NDArray[np.bool_]:
        words = self.codes.words.reshape(ROWS, -1)
        every = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
        assert not every[:, self.dimension :].any()
        return every[:, : self.dimension].astype(np.bool_)

    @property
    def factors(self) -> Floats:
        return self.codes.factors.view(np.float16).reshape(ROWS, 2).astype(np.float32)

    def numbers(self) -> tuple[Floats, float]:
        """The query as its four-bit numbers, and its length after it was moved."""
        moved = (self.query - self.frame.mean)[None].copy()
        turned(moved, self.frame.signs, self.frame.places)
        step = np.abs(moved[0]).max() / np.float32(STEPS)
        levels = np.clip(np.floor(moved[0] / step + np.float32(0.5)), LEAST, MOST)
        assert np.abs(levels * step - moved[0]).max() <= 0.501 * step
        return levels * step, float(np.linalg.norm(moved[0]))

    def estimates(self) -> npt.NDArray[np.float64]:
        numbers, _ = self.numbers()
        signs = np.where(self.bits, 1.0, -1.0)
        base = float(self.query @ self.frame.mean)
        return self.factors[:, 0] * (signs @ numbers) + self.factors[:, 1] + base

    def similarities(self) -> npt.NDArray[np.float64]:
        return cosines(self.vectors, self.query)


_twins: dict[int, Twin] = {}


def twin(dimension: int) -> Twin:
    if dimension not in _twins:
        _twins[dimension] = Twin(dimension)
    return _twins[dimension]


# The frame and the codes


@pytest.mark.parametrize("dimension", [1, 2, 7, 16, 31, 255, 256, 257, *DIMENSIONS])
def test_turning_is_a_rotation(dimension: int) -> None:
    frame = frame_of(np.empty((0, dimension), np.float32), seed=3)
    rotation = np.eye(dimension, dtype=np.float32)
    turned(rotation, frame.signs, frame.places)
    assert np.abs(rotation @ rotation.T - np.eye(dimension)).max() < 1e-5
    some = np.random.default_rng(0).standard_normal((5, dimension)).astype(np.float32)
    moved = some.copy()
    turned(moved, frame.signs, frame.places)
    assert moved == pytest.approx(some @ rotation, abs=1e-4)


@pytest.mark.parametrize("dimension", [64, 100, 384, 512, 768, 1024])
def test_turning_spreads_every_number_over_all(dimension: int) -> None:
    frame = frame_of(np.empty((0, dimension), np.float32), seed=3)
    rotation = np.eye(dimension, dtype=np.float32)
    turned(rotation, frame.signs, frame.places)
    assert np.abs(rotation).max() < 6.0 / np.sqrt(dimension)


def test_a_frame_is_the_same_for_the_same_seed_and_made_of_signs_and_permutations() -> None:
    sample = np.random.default_rng(0).standard_normal((50, 100)).astype(np.float32)
    one, same, other = (frame_of(sample, seed=seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one.arrays, same.arrays, strict=True))
    assert (one.places != other.places).any()
    assert one.mean == pytest.approx(sample.mean(axis=0), abs=1e-6)
    assert set(np.unique(one.signs)) == {-1.0, 1.0}
    assert (np.sort(one.places, axis=1) == np.arange(100)).all()


@dimensions
def test_codes_are_signs_and_factors_those_of_rabitq(dimension: int) -> None:
    made = twin(dimension)
    assert words_of(dimension) == 8 * -(-dimension // 512)
    moved = made.vectors.astype(np.float64) * made.rows.scales[:, None].astype(np.float64)
    moved -= made.frame.mean
    rotated = moved @ made.rotation.astype(np.float64)
    clear = np.abs(rotated) > 1e-5
    assert ((rotated > 0) == made.bits)[clear].all()
    squares, sums = (rotated**2).sum(axis=1), np.abs(rotated).sum(axis=1)
    assert made.factors[:, 0] == pytest.approx(squares / sums, rel=2e-3)
    assert made.factors[:, 1] == pytest.approx(moved @ made.frame.mean, abs=1e-3)


def test_rows_that_point_nowhere_get_codes_that_hurt_nobody() -> None:
    vectors = np.zeros((4, 16), "<f2")
    vectors[1], vectors[2], vectors[3] = np.nan, np.inf, 1
    frame = frame_of(np.zeros((0, 16), np.float32), seed=0)
    codes = encoded(vectors, scales_of(vectors), frame)
    assert np.isfinite(codes.factors.view(np.float16)).all()


# Estimates


@dimensions
def test_estimates_are_those_of_the_formula(dimension: int) -> None:
    made = twin(dimension)
    found = np.empty(ROWS, np.float32)
    length = estimated(made.query, made.frame.arrays, made.codes.arrays, found)
    _, expected_length = made.numbers()
    assert length == pytest.approx(expected_length, rel=1e-5)
    assert found == pytest.approx(made.estimates(), abs=2e-5)


@dimensions
def test_errors_of_estimates_are_smaller_than_a_length(dimension: int) -> None:
    made = twin(dimension)
    _, length = made.numbers()
    errors = (made.similarities() - made.estimates()) / (made.factors[:, 0] * length)
    assert abs(errors.mean()) < 0.25
    assert errors.std() < 1.0
    assert np.abs(errors).max() < 6.0


@dimensions
def test_a_query_that_is_the_mean_has_an_answer(dimension: int) -> None:
    mean = unit_rows(np.ones((1, dimension)))[0]
    frame = Frame(frozen(mean), *(frozen(part) for part in twin(dimension).frame.arrays[1:]))
    planes, step, _, base, length = call_coded_query(frozen(mean), frame.arrays)
    assert (length, base) == (0.0, pytest.approx(1.0, abs=1e-5))
    assert np.isfinite(step)
    assert len(planes) == 4 * words_of(dimension)


# Which rows


@given(
    seed=st.integers(0, 10_000),
    begin=st.integers(0, 700),
    length=st.integers(0, 700),
    there=st.sampled_from([0, 1, 63, BATCH - 64]),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)
def test_rows_are_taken_once_whatever_the_borders_of_a_list(
    seed: int, begin: int, length: int, there: int, share: float
) -> None:
    mask = np.random.default_rng(seed).random(1_408) < share
    words = RowSet.of_mask(mask).bitmap()
    end = min(begin + length, 1_408)
    found: list[int] = []
    place = begin
    while place < end:
        numbers = np.full(BATCH + 8, -1)
        count, after = call_taken(words, place, end, numbers, there)
        assert place < after <= end
        assert (numbers[:there] == -1).all()
        assert (numbers[count:] == -1).all()
        found += numbers[there:count].tolist()
        place = after
    assert found == [row for row in range(begin, end) if mask[row]]


def test_no_row_is_taken_where_a_whole_word_would_not_fit() -> None:
    numbers = np.full(BATCH + 8, -1)
    words = RowSet.of_mask(np.ones(128, np.bool_)).bitmap()
    assert call_taken(words, 0, 128, numbers, BATCH - 63) == (BATCH - 63, 0)
    assert call_taken(words, 0, 128, numbers, BATCH - 64) == (BATCH, 64)
    assert numbers[BATCH - 65 : BATCH + 1].tolist() == [-1, *range(64), -1]


# Searching by codes


def by_codes(
    made: Twin, mask: npt.NDArray[np.bool_], errors: float, count: int, *, way: Any
) -> tuple[list[int], npt.NDArray[np.float64], int, int]:
    which = (
        RowSet.of_mask(mask).bitmap()
        if way is best_of_codes
        else frozen(np.flatnonzero(mask).astype(np.int32))
    )
    heap = (np.full(count, np.nan), np.full(count, -1))
    kept, by_code, exactly = way(
        made.query, which, errors, made.frame.arrays, made.codes.arrays, made.rows.table, heap, 0
    )
    return heap[1][:kept].tolist(), heap[0][:kept], by_code, exactly


@dimensions
@pytest.mark.parametrize("way", [best_of_codes, best_of_coded_numbers])
def test_with_errors_allowed_for_the_answer_is_that_of_a_full_sort(
    dimension: int, way: Any
) -> None:
    made = twin(dimension)
    for share, count in ((1.0, 10), (0.5, 1), (0.02, 30), (0.0, 5), (1.0, ROWS)):
        mask = np.random.default_rng(count).random(ROWS) < share
        truth = first(made.rows.ids[mask], made.similarities()[mask], count=count)
        ids, similarities, by_code, exactly = by_codes(made, mask, 30.0, count, way=way)
        assert ids == truth.ids.tolist()
        assert similarities.tolist() == truth.similarities.tolist()
        assert by_code == np.count_nonzero(mask)
        assert exactly <= by_code


@dimensions
@pytest.mark.parametrize("way", [best_of_codes, best_of_coded_numbers])
@pytest.mark.parametrize("errors", [0.0, 1.0, 2.0])
def test_only_rows_whose_bound_is_too_low_are_missed(
    dimension: int, way: Any, errors: float
) -> None:
    made = twin(dimension)
    _, length = made.numbers()
    bounds = made.estimates() + errors * made.factors[:, 0] * length
    everything = np.ones(ROWS, np.bool_)
    truth = first(made.rows.ids, made.similarities(), count=20)
    ids, similarities, _, exactly = by_codes(made, everything, errors, 20, way=way)
    assert len(ids) == 20
    assert exactly >= 20
    row_of = {int(face): row for row, face in enumerate(made.rows.ids)}
    for face in set(truth.ids.tolist()) - set(ids):
        assert bounds[row_of[face]] < similarities[-1] + 1e-4
    scored = made.similarities()[[row_of[face] for face in ids]]
    assert similarities.tolist() == scored.tolist()


# Lists


class Listed:
    """The rows of a twin in lists of 64 rows and less, ranked by made-up centroids."""

    def __init__(self, made: Twin, *, lists: int = 11) -> None:
        self.offsets = frozen(np.minimum(np.arange(lists + 1) * 64, 704))
        means = [made.vectors[64 * i : 64 * i + 64].astype(np.float64).mean(0) for i in range(11)]
        self.centroids = unit_rows(np.stack(means))
        self.codes: Codes = encoded(self.centroids, np.ones(lists, np.float32), made.frame)
        near = np.empty(lists, np.float32)
        estimated(made.query, made.frame.arrays, self.codes.arrays, near)
        self.steps = np.clip(((1 - near) * 0.5 * NEARNESS_STEPS).astype(int), 0, NEARNESS_STEPS - 1)

    def sizes(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        padded = np.append(mask, np.zeros(704 - ROWS, np.bool_))
        return frozen(padded.reshape(11, 64).sum(axis=1))

    def search(
        self, made: Twin, mask: npt.NDArray[np.bool_], chances: Floats, missed: float, count: int
    ) -> tuple[list[int], int, int]:
        padded = np.append(mask, np.zeros(704 - ROWS, np.bool_))
        heap = (np.full(count, np.nan), np.full(count, -1))
        lists = (self.sizes(mask), self.offsets, *self.codes.arrays)
        kept, by_code, _, looked_into = best_of_lists(
            made.query, RowSet.of_mask(padded).bitmap(), 30.0, missed, lists, frozen(chances),
            made.frame.arrays, made.codes.arrays, made.rows.table, heap, 0,
        )  # fmt: skip
        return heap[1][:kept].tolist(), by_code, looked_into


@dimensions
def test_lists_are_ranked_by_the_nearness_of_their_centroids(dimension: int) -> None:
    made = twin(dimension)
    listed = Listed(made)
    mask = np.random.default_rng(1).random(ROWS) < 0.3
    mask[64:192] = False  # two lists without survivors
    sizes = listed.sizes(mask)
    order, ends, held = call_ranked(made.query, made.frame.arrays, sizes, listed.codes.arrays)
    assert sorted(order.tolist()) == np.flatnonzero(sizes).tolist()
    steps = listed.steps[order]
    assert (np.diff(steps) >= 0).all()
    expected = np.zeros(NEARNESS_STEPS, int)
    np.add.at(expected, listed.steps, sizes)
    assert held.tolist() == expected.tolist()
    through = np.searchsorted(steps, np.arange(NEARNESS_STEPS), side="right")
    assert ends[:NEARNESS_STEPS].tolist() == through.tolist()


@dimensions
def test_where_every_row_left_out_may_be_a_neighbour_all_lists_are_looked_into(
    dimension: int,
) -> None:
    made = twin(dimension)
    listed = Listed(made)
    chances = np.ones((WORST_STEPS, NEARNESS_STEPS), np.float32)
    for share in (1.0, 0.3, 0.02):
        mask = np.random.default_rng(2).random(ROWS) < share
        ids, by_code, looked_into = listed.search(made, mask, chances, 0.0, 10)
        truth = first(made.rows.ids[mask], made.similarities()[mask], count=10)
        assert ids == truth.ids.tolist()
        assert by_code == np.count_nonzero(mask)
        assert looked_into == np.count_nonzero(listed.sizes(mask))


@dimensions
def test_where_no_row_left_out_can_be_one_the_search_ends_once_it_is_full(dimension: int) -> None:
    made = twin(dimension)
    listed = Listed(made)
    chances = np.zeros((WORST_STEPS, NEARNESS_STEPS), np.float32)
    everything = np.ones(ROWS, np.bool_)
    ids, by_code, looked_into = listed.search(made, everything, chances, 0.05, 10)
    assert len(ids) == 10
    assert by_code < ROWS
    assert 1 <= looked_into < 11
    # As many as are asked for and survive are found all the same.
    ids, by_code, looked_into = listed.search(made, everything, chances, 0.05, ROWS)
    assert (len(ids), by_code, looked_into) == (ROWS, ROWS, 11)
    few = np.random.default_rng(3).random(ROWS) < 0.01
    ids, by_code, _ = listed.search(made, few, chances, 0.05, 10)
    assert len(ids) == min(10, np.count_nonzero(few))


@given(seed=st.integers(0, 10_000), missed=st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_the_rule_compares_what_is_left_with_what_was_seen(seed: int, missed: float) -> None:
    random = np.random.default_rng(seed)
    chances = np.sort(random.random((WORST_STEPS, NEARNESS_STEPS)) ** 8, axis=1)[:, ::-1]
    chances = np.ascontiguousarray(chances, np.float32)
    seen, held = random.integers(0, 5, (2, NEARNESS_STEPS)) * random.integers(0, 2)
    at, count = int(random.integers(0, NEARNESS_STEPS)), int(random.integers(1, 50))
    seen[at + 1 :] = 0
    held[:at] = 0
    worst = float(random.uniform(-1.1, 1.1))
    row = min(max(int((worst + 1) * 0.5 * WORST_STEPS), 0), WORST_STEPS - 1)
    known, left = float(seen @ chances[row]), float(held @ chances[row])
    allowed = missed * min(known, count)
    if abs(left - allowed) > 1e-4 or left == allowed == 0:
        found = call_enough(at, (seen, held), worst, frozen(chances), missed, count)
        assert found == (left <= allowed)


# What a build measures with


def test_steps_of_nearness_fall_from_one_to_minus_one() -> None:
    nearness = np.array([1.5, 1.0, 0.9999, 0.5, 0.0, -0.5, -1.0, -2.0], np.float32)
    steps = np.empty(8, np.int32)
    nearness_steps(nearness, steps)
    last = NEARNESS_STEPS - 1
    quarter = NEARNESS_STEPS // 4
    assert steps.tolist() == [0, 0, 0, quarter, 2 * quarter, 3 * quarter, last, last]


def test_rows_are_tallied_by_similarity_and_nearness_and_errors_by_size() -> None:
    random = np.random.default_rng(0)
    rows, length = 400, 0.7
    similarities = random.uniform(-1, 1, rows).astype(np.float32)
    estimates = random.uniform(-1, 1, rows).astype(np.float32)
    halves = random.uniform(0.01, 0.2, (rows, 2)).astype(np.float16)
    steps = random.integers(0, NEARNESS_STEPS, rows).astype(np.int32)
    usable = random.random(rows) < 0.8
    counts = (np.ones((WORST_STEPS, NEARNESS_STEPS), int), np.ones(ERROR_STEPS, int))
    factors = frozen(halves.view(np.uint16).reshape(-1))
    tally(similarities, estimates, factors, length, steps, usable, counts)
    near, errors = np.ones((WORST_STEPS, NEARNESS_STEPS), int), np.ones(ERROR_STEPS, int)
    for row, similarity in enumerate(similarities):
        if usable[row]:
            at = min(int((similarity + np.float32(1)) * np.float32(0.5 * WORST_STEPS)), WORST_STEPS)
            near[min(at, WORST_STEPS - 1), steps[row]] += 1
            error = (similarity - estimates[row]) / (float(halves[row, 0]) * length)
            errors[min(max(int(error * 128), 0), ERROR_STEPS - 1)] += 1
    assert counts[0].tolist() == near.tolist()
    assert counts[1].sum() == errors.sum()
    assert np.abs(np.cumsum(counts[1]) - np.cumsum(errors)).max() <= 2  # by rounding


@kernel
def call_largest(values, count, rank):
    return largest(values, count, rank)


@given(
    values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60),
    data=st.data(),
)
def test_largest_is_what_sorting_says(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    rank = data.draw(st.integers(1, count))
    found = call_largest(np.array(values, np.float32), count, rank)
    assert found == sorted(values[:count], reverse=True)[rank - 1]
