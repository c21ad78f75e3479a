"""The facts that every way of searching rows keeps, each against an oracle in plain numpy."""

from statistics import fmean

import numpy as np
import pytest

from retrieval.index.exact import Mask, cosines
from retrieval.values import unit_rows
from tests.engines import EXACT_WAYS, WAYS, Engine, engine
from tests.galleries import clustered_vectors

ROWS, DIMENSION, LISTS = 6_000, 32, 64
VECTORS = clustered_vectors(ROWS, dimension=DIMENSION).astype("<f2")
QUERIES = unit_rows(clustered_vectors(40, dimension=DIMENSION, seed=0)[::-1] + np.float32(0.01))
every_way = pytest.mark.parametrize("way", WAYS)
exact_ways = pytest.mark.parametrize("way", EXACT_WAYS)
shares = pytest.mark.parametrize("share", [1.0, 0.5, 0.002])


@pytest.fixture(scope="module")
def stored() -> Engine:
    """Six thousand rows in 64 lists."""
    return engine(VECTORS, lists=LISTS)


def passing(made: Engine, share: float) -> Mask:
    """Some of the rows that can be found."""
    random = np.random.default_rng(5)
    mask: Mask = made.rows.usable & (random.random(len(made.rows.ids)) < share)
    return mask


@exact_ways
@shares
def test_exact_ways_give_the_true_neighbours_in_order(
    stored: Engine, way: str, share: float
) -> None:
    survivors = passing(stored, share)
    for query in QUERIES:
        hits = stored.search(way, query, count=10, survivors=survivors)
        assert hits.ids.tolist() == stored.truth(query, survivors, 10)


@every_way
@shares
def test_95_percent_of_the_true_neighbours_are_found(
    stored: Engine, way: str, share: float
) -> None:
    survivors = passing(stored, share)
    found = [
        len(
            set(stored.search(way, query, count=10, survivors=survivors).ids.tolist())
            & set(stored.truth(query, survivors, 10))
        )
        for query in QUERIES
    ]
    assert fmean(found) >= 0.95 * 10


@every_way
@shares
def test_scores_are_true_to_the_bit_rows_survive_and_no_face_comes_twice(
    stored: Engine, way: str, share: float
) -> None:
    survivors = passing(stored, share)
    row_of = {int(face): row for row, face in enumerate(stored.rows.ids) if survivors[row]}
    for query in QUERIES:
        hits = stored.search(way, query, count=25, survivors=survivors)
        faces = hits.ids.tolist()
        assert len(set(faces)) == len(faces) == min(25, len(row_of))
        assert set(faces) <= row_of.keys()
        vectors = stored.rows.vectors[[row_of[face] for face in faces]]
        assert hits.similarities.tolist() == cosines(vectors, query).tolist()
        wide, asked = vectors.astype(np.float64), query.astype(np.float64)
        true = wide @ asked / np.linalg.norm(wide, axis=1) / np.linalg.norm(asked)
        assert hits.similarities == pytest.approx(true, abs=1e-12)
        order = list(zip(-hits.similarities, faces, strict=True))
        assert order == sorted(order)


@every_way
def test_asking_for_more_than_there_is_gives_each_survivor_once(stored: Engine, way: str) -> None:
    few = passing(stored, 0.002)
    hits = stored.search(way, QUERIES[0], count=500, survivors=few)
    assert sorted(hits.ids.tolist()) == sorted(stored.rows.ids[few].tolist())


@every_way
def test_nothing_is_found_where_nothing_survives(stored: Engine, way: str) -> None:
    none = np.zeros_like(stored.rows.usable)
    assert len(stored.search(way, QUERIES[0], count=3, survivors=none).ids) == 0


@every_way
def test_a_filter_that_keeps_only_what_is_far_still_fills_the_answer(
    stored: Engine, way: str
) -> None:
    for query in QUERIES[:10]:
        far = stored.rows.usable & (stored.rows.vectors.astype(np.float32) @ query < -0.2)
        hits = stored.search(way, query, count=10, survivors=far)
        assert len(hits.ids) == 10
        assert set(hits.ids.tolist()) <= set(stored.rows.ids[far].tolist())


@exact_ways
def test_equal_vectors_are_ordered_by_face_id_however_many_there_are(way: str) -> None:
    vectors = np.repeat(VECTORS[:3], 700, axis=0)
    made = engine(vectors, lists=4)
    for query in unit_rows(VECTORS[:3]):
        hits = made.search(way, query, count=20, survivors=made.rows.usable)
        assert hits.ids.tolist() == made.truth(query, made.rows.usable, 20)
        assert hits.similarities == pytest.approx(np.ones(20), abs=1e-6)


@exact_ways
def test_vectors_that_are_no_unit_vectors_are_still_ranked_by_cosine(way: str) -> None:
    lengths = np.random.default_rng(1).uniform(0.2, 3.0, (2_000, 1))
    made = engine(VECTORS[:2_000] * lengths, lists=8)
    for query in QUERIES:
        hits = made.search(way, query, count=10, survivors=made.rows.usable)
        assert hits.ids.tolist() == made.truth(query, made.rows.usable, 10)


@every_way
def test_rows_that_point_nowhere_are_no_survivors(way: str) -> None:
    vectors = VECTORS[:500].copy()
    vectors[7] = 0
    vectors[8] = np.nan
    vectors[9] = np.inf
    made = engine(vectors, lists=1)
    lost = set(made.rows.ids[~made.rows.usable].tolist()) - {-1}
    assert lost == {5000 - 7, 5000 - 8, 5000 - 9}
    for query in QUERIES[:5]:
        hits = made.search(way, query, count=600, survivors=made.rows.usable)
        assert len(hits.ids) == 497
        assert lost.isdisjoint(hits.ids.tolist())
        assert np.isfinite(hits.similarities).all()


@every_way
def test_what_an_earlier_search_left_in_the_heap_counts(stored: Engine, way: str) -> None:
    if way == "gather":
        pytest.skip("it has no heap")
    half = np.arange(len(stored.rows.ids)) % 2 == 0
    first, second = stored.rows.usable & half, stored.rows.usable & ~half
    for query in QUERIES[:10]:
        for count in (1, 2, 10, 11):
            heap = (np.empty(count), np.empty(count, np.int64))
            kept = WAYS[way](stored, query, first, heap, 0)
            kept = WAYS[way](stored, query, second, heap, kept)
            assert kept == count
            order = list(zip(-heap[0], heap[1].tolist(), strict=True))
            assert order == sorted(order)
            if way in EXACT_WAYS:
                assert heap[1].tolist() == stored.truth(query, stored.rows.usable, count)


@every_way
def test_a_search_writes_into_nothing_but_its_heap(stored: Engine, way: str) -> None:
    survivors = passing(stored, 0.5)
    query = QUERIES[0].copy()
    before = (stored.rows.vectors.tobytes(), stored.parts.codes.words.tobytes())
    one = stored.search(way, query, count=10, survivors=survivors)
    again = stored.search(way, query, count=10, survivors=survivors)
    assert one.ids.tolist() == again.ids.tolist()
    assert one.similarities.tolist() == again.similarities.tolist()
    assert before == (stored.rows.vectors.tobytes(), stored.parts.codes.words.tobytes())
    assert query.tobytes() == QUERIES[0].tobytes()


def test_lists_begin_at_whole_words_of_a_bitmap(stored: Engine) -> None:
    lists = stored.parts.lists
    assert (lists.offsets % 64 == 0).all()
    assert np.diff(lists.offsets).tolist() == (-(-lists.sizes // 64) * 64).tolist()
    assert (lists.words * 64 == lists.offsets).all()


def test_looking_into_the_nearest_lists_only_leaves_most_rows_alone(stored: Engine) -> None:
    promise = stored.rule.promise_for(0.8)
    assert promise is not None
    words = np.packbits(stored.rows.usable, bitorder="little").view(np.uint64)
    sizes = stored.parts.lists.sizes
    sizes.setflags(write=False)
    words.setflags(write=False)
    seen = [
        stored.parts.by_lists(query, words, sizes, stored.rule, promise.missed).seen
        for query in QUERIES
    ]
    assert fmean(seen) < 0.6 * ROWS
