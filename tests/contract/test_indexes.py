"""The facts that every way of searching rows keeps, each against an oracle in plain numpy."""

from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt
import pytest

from retrieval.index.exact import PADDING, FlatIndex, Hits, Mask, Rows, gather, scales_of, surviving
from retrieval.index.ivf import ListIndex, Lists, assigned, padded, trained_centroids
from retrieval.values import UnitRows, unit_rows
from tests.galleries import clustered_vectors

ROWS, DIMENSION, LISTS = 6_000, 32, 64
PROBED = {"exact": LISTS, "lists": 24}


@dataclass(frozen=True)
class Fixture:
    """Rows in lists, as a snapshot holds them, and the three ways to search them."""

    rows: Rows
    lists: Lists

    def search(self, kind: str, queries: UnitRows, *, count: int, survivors: Mask) -> list[Hits]:
        match kind:
            case "gather":
                return gather(self.rows, queries, count=count, survivors=survivors)
            case "flat":
                return FlatIndex(self.rows).nearest(queries, count=count, survivors=survivors)
            case _:
                index = ListIndex(self.rows, self.lists)
                probed = index.nearness(queries)[:, : PROBED[kind]]
                return index.nearest(queries, count=count, survivors=survivors, probed=probed)

    def truth(self, query: npt.NDArray[np.float32], survivors: Mask, count: int) -> list[int]:
        """Ids of the nearest survivors, by (similarity descending, id)."""
        vectors = self.rows.vectors[survivors].astype(np.float64)
        similarities = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        ids = self.rows.ids[survivors]
        return [int(i) for i in ids[np.lexsort((ids, -similarities))][:count]]


def indexed(vectors: npt.NDArray[np.float16], *, lists: int) -> Fixture:
    """Rows as a snapshot orders them, ids counted downwards so that they follow no order."""
    centroids = trained_centroids(vectors.astype(np.float32), lists=lists)
    numbers = assigned(vectors, centroids)
    sizes = np.bincount(numbers, minlength=lists)
    made = Lists(centroids, sizes)
    order = np.argsort(numbers, kind="stable")
    ids = np.full(made.offsets[-1], PADDING)
    stored = np.zeros((len(ids), vectors.shape[1]), "<f2")
    begins = np.cumsum(sizes) - sizes
    places = np.arange(len(order)) + (made.offsets[:-1] - begins)[numbers[order]]
    ids[places] = 10 * len(vectors) - order
    stored[places] = vectors[order]
    return Fixture(Rows(ids, scales_of(stored), stored), made)


VECTORS = clustered_vectors(ROWS, dimension=DIMENSION).astype("<f2")
STORED = indexed(VECTORS, lists=LISTS)
QUERIES = unit_rows(clustered_vectors(40, dimension=DIMENSION, seed=0)[::-1] + np.float32(0.01))
EVERYTHING = STORED.rows.usable
random = np.random.default_rng(5)
HALF, FEW = (EVERYTHING & (random.random(len(EVERYTHING)) < share) for share in (0.5, 0.002))
KINDS = ("gather", "flat", "exact", "lists")
EXACT_KINDS = ("gather", "flat", "exact")
Masks = pytest.mark.parametrize("survivors", [EVERYTHING, HALF, FEW], ids=["all", "half", "few"])


@pytest.mark.parametrize("kind", EXACT_KINDS)
@Masks
def test_exact_kinds_give_the_true_neighbours_in_order(kind: str, survivors: Mask) -> None:
    found = STORED.search(kind, QUERIES, count=10, survivors=survivors)
    for query, hits in zip(QUERIES, found, strict=True):
        assert hits.ids.tolist() == STORED.truth(query, survivors, 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("survivors", [EVERYTHING, HALF], ids=["all", "half"])
def test_95_percent_of_the_true_neighbours_are_found(kind: str, survivors: Mask) -> None:
    found = STORED.search(kind, QUERIES, count=10, survivors=survivors)
    shares = [
        len(set(hits.ids.tolist()) & set(STORED.truth(query, survivors, 10))) / 10
        for query, hits in zip(QUERIES, found, strict=True)
    ]
    assert fmean(shares) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
@Masks
def test_scores_are_true_rows_survive_and_no_face_comes_twice(kind: str, survivors: Mask) -> None:
    vector_of = dict(zip(STORED.rows.ids.tolist(), STORED.rows.vectors, strict=True))
    allowed = set(STORED.rows.ids[survivors].tolist())
    for query, hits in zip(
        QUERIES, STORED.search(kind, QUERIES, count=25, survivors=survivors), strict=True
    ):
        assert len(set(hits.ids.tolist())) == len(hits.ids)
        assert set(hits.ids.tolist()) <= allowed
        stored = np.array([vector_of[face] for face in hits.ids.tolist()], np.float64)
        true = stored.reshape(-1, DIMENSION) @ query.astype(np.float64)
        true /= np.linalg.norm(stored.reshape(-1, DIMENSION), axis=1)
        assert hits.similarities == pytest.approx(true, abs=1e-6)


@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_asking_for_more_than_there_is_gives_each_survivor_once(kind: str) -> None:
    [hits] = STORED.search(kind, UnitRows(QUERIES[:1]), count=500, survivors=FEW)
    assert sorted(hits.ids.tolist()) == sorted(STORED.rows.ids[FEW].tolist())


@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_nothing_is_found_where_nothing_survives(kind: str) -> None:
    none = np.zeros_like(EVERYTHING)
    assert [len(hits.ids) for hits in STORED.search(kind, QUERIES, count=3, survivors=none)] == (
        [0] * len(QUERIES)
    )


@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_equal_vectors_are_ordered_by_face_id_however_many_there_are(kind: str) -> None:
    vectors = np.repeat(VECTORS[:3], 500, axis=0)
    stored = indexed(vectors, lists=4)
    queries = unit_rows(VECTORS[:3])
    index = ListIndex(stored.rows, stored.lists)
    for place, query in enumerate(queries):
        wanted = stored.truth(query, stored.rows.usable, 20)
        if kind == "exact":
            # Lists promise no order among equals beyond what they fetch.
            probed = index.nearness(queries)
            hits = index.nearest(queries, count=20, survivors=stored.rows.usable, probed=probed)[
                place
            ]
            assert len(hits.ids) == 20
            assert hits.similarities == pytest.approx(np.ones(20), abs=1e-3)
        else:
            hits = stored.search(kind, queries, count=20, survivors=stored.rows.usable)[place]
            assert hits.ids.tolist() == wanted


@pytest.mark.parametrize("kind", ["gather", "flat"])
def test_vectors_that_are_no_unit_vectors_are_still_ranked_by_cosine(kind: str) -> None:
    lengths = np.random.default_rng(1).uniform(0.2, 3.0, (len(VECTORS), 1))
    stored = indexed((VECTORS * lengths).astype("<f2"), lists=8)
    for query, hits in zip(
        QUERIES, stored.search(kind, QUERIES, count=10, survivors=stored.rows.usable), strict=True
    ):
        assert hits.ids.tolist() == stored.truth(query, stored.rows.usable, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_point_nowhere_are_no_survivors(kind: str) -> None:
    vectors = VECTORS[:500].copy()
    vectors[7] = 0
    vectors[8] = np.nan
    rows = Rows(np.arange(500), scales_of(vectors), vectors)
    assert np.flatnonzero(~rows.usable).tolist() == [7, 8]
    stored = Fixture(rows, Lists(np.zeros((1, DIMENSION), np.float32), np.array([500])))
    for hits in stored.search(kind, QUERIES, count=500, survivors=rows.usable):
        assert sorted(hits.ids.tolist()) == [i for i in range(500) if i not in (7, 8)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hit_has_the_same_similarity_to_the_bit_in_every_company(kind: str) -> None:
    [alone] = gather(STORED.rows, UnitRows(QUERIES[:1]), count=10, survivors=EVERYTHING)
    together = STORED.search(kind, QUERIES, count=50, survivors=EVERYTHING)[0]
    known = dict(zip(together.ids.tolist(), together.similarities.tolist(), strict=True))
    shared = [face for face in alone.ids.tolist() if face in known]
    assert len(shared) >= 8
    similarity_of = dict(zip(alone.ids.tolist(), alone.similarities.tolist(), strict=True))
    assert [known[face] for face in shared] == [similarity_of[face] for face in shared]


def test_hits_that_faiss_should_not_have_given_are_dropped() -> None:
    survivors = np.array([True, False, True, False])
    assert surviving(np.array([3, -1, 2, 1, 0, -1]), survivors).tolist() == [2, 0]


def test_lists_begin_at_whole_words_of_a_bitmap() -> None:
    assert (STORED.lists.offsets % 64 == 0).all()
    assert np.diff(STORED.lists.offsets).tolist() == padded(STORED.lists.sizes).tolist()


def test_survivors_are_counted_by_list() -> None:
    index = ListIndex(STORED.rows, STORED.lists)
    begins, ends = STORED.lists.offsets[:-1], STORED.lists.offsets[1:]
    wanted = [int(HALF[begin:end].sum()) for begin, end in zip(begins, ends, strict=True)]
    assert index.survivors_by_list(HALF).tolist() == wanted
