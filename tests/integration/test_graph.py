"""The graph of nearest faces against a product of all with all."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.filtered.data.generator import faces
from retrieval.errors import UsageError
from retrieval.graph import making
from retrieval.graph.edges import edges_of, read_edges, write_edges
from retrieval.graph.making import Block, neighbours
from retrieval.index.exact import cosines
from retrieval.library import Index

COUNT = 10


@pytest.fixture(scope="module")
def data():
    return faces(30_000, seed=3, queries=1, tuning=1)


@pytest.fixture(scope="module")
def index(data):
    return Index.build(data.vectors, {"half": [row % 2 == 0 for row in range(len(data.vectors))]})


def joined(blocks) -> Block:
    blocks = list(blocks)
    return Block(*(np.concatenate([getattr(b, name) for b in blocks]) for name in Block.__slots__))


def true_neighbours(vectors, places, *, count, among=None):
    scores = vectors[places] @ vectors.T
    scores[np.arange(len(places)), places] = -2.0
    if among is not None:
        scores[:, ~among] = -2.0
    return np.argsort(-scores, axis=1, kind="stable")[:, :count], scores


def recall(found: Block, vectors, places, *, among=None) -> float:
    rows = np.argsort(found.ids)[np.searchsorted(np.sort(found.ids), places)]
    truth, scores = true_neighbours(vectors, places, count=COUNT, among=among)
    least = np.take_along_axis(scores, truth[:, -1:], axis=1)
    given = np.take_along_axis(scores, np.maximum(found.neighbours[rows], 0), axis=1)
    return float(((given >= least - 1e-6) & (found.neighbours[rows] >= 0)).mean())


@pytest.mark.parametrize("asked", [0.9, 0.97])
def test_a_graph_finds_the_share_of_neighbours_that_was_asked_for(index, data, asked):
    planned = making.plan(index.view, count=COUNT, recall=asked)
    assert planned.effort.nearness is not None  # it does not look at everything
    found = joined(making.made(planned, folder=None, progress=lambda *_: None))
    assert sorted(found.ids) == list(range(len(data.vectors)))
    assert recall(found, data.vectors, np.arange(0, 30_000, 40)) >= asked - 0.005


def test_similarities_are_those_of_a_search_best_first_and_a_face_is_no_neighbour_of_its_own(
    index, data
):
    found = joined(neighbours(index.view, count=COUNT))
    assert (np.diff(found.similarities, axis=1) <= 0).all()
    assert not (found.neighbours == found.ids[:, None]).any()
    for row in range(0, 30_000, 3_000):
        halves = data.vectors[found.neighbours[row]].astype("<f2")
        query = data.vectors[found.ids[row]].astype("<f2").astype(np.float32)
        query /= np.linalg.norm(query)
        assert found.similarities[row] == pytest.approx(cosines(halves, query), abs=1e-6)


def test_an_exact_graph_of_a_filtered_part_equals_the_product_of_all_with_all(index, data):
    half = np.arange(30_000) % 2 == 0
    found = joined(
        neighbours(index.view, count=COUNT, recall="exact", filter_=index.prepare("half").bind({}))
    )
    assert sorted(found.ids) == np.flatnonzero(half).tolist()
    places = np.arange(0, 30_000, 100)
    assert recall(found, data.vectors, places, among=half) == 1.0


def test_rows_that_came_after_the_snapshot_have_neighbours_and_are_some(data):
    index = Index.build(data.vectors[:2_000])
    index.add(data.vectors[2_000:2_400], ids=np.arange(2_000, 2_400))
    index.delete(np.arange(0, 100))
    found = joined(neighbours(index.view, count=COUNT))
    assert sorted(found.ids) == list(range(100, 2_400))
    among = np.arange(2_400) >= 100
    places = np.arange(100, 2_400, 7)
    assert recall(found, data.vectors[:2_400], places, among=among) == 1.0


def test_what_is_less_alike_than_the_floor_is_not_told_and_the_rest_is(index):
    floor = 0.4
    all_ = joined(neighbours(index.view, count=COUNT, recall=0.97))
    some = joined(neighbours(index.view, count=COUNT, recall=0.97, floor=floor))
    told = some.similarities[some.neighbours >= 0]
    assert told.min() >= floor
    assert len(told) >= 0.97 * int((all_.similarities >= floor).sum())
    assert (some.neighbours >= 0).sum(axis=1).min() == 0  # faces without anybody stay


def test_a_run_that_was_cut_off_goes_on_and_gives_the_same(index, tmp_path):
    whole = joined(neighbours(index.view, count=COUNT, recall=0.95))

    def cut_off(done: int, every: int) -> None:
        if done > every // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(neighbours(index.view, count=COUNT, recall=0.95, folder=tmp_path, progress=cut_off))
    steps: list[int] = []
    again = neighbours(
        index.view,
        count=COUNT,
        recall=0.95,
        folder=tmp_path,
        progress=lambda done, _: steps.append(done),
    )
    found = joined(again)
    for name in Block.__slots__:
        assert (getattr(found, name) == getattr(whole, name)).all(), name
    assert steps[0] > len(steps)  # lists that were done are not done again
    assert all(one < two for one, two in pairwise(steps))


def test_fewer_faces_than_neighbours_give_what_there_is(data):
    found = joined(neighbours(Index.build(data.vectors[:5]).view, count=COUNT))
    assert (found.neighbours >= 0).sum(axis=1).tolist() == [4] * 5
    alone = joined(neighbours(Index.build(data.vectors[:1]).view, count=COUNT))
    assert alone.neighbours.tolist() == [[-1] * COUNT]


def test_edges_are_read_as_they_were_written(index, tmp_path):
    blocks = list(neighbours(index.view, count=3, floor=0.3))
    count = write_edges(iter(blocks), tmp_path)
    read = list(read_edges(tmp_path))
    assert count == sum(len(part.faces) for part in read) > 0
    for block, part in zip(blocks, read, strict=True):
        for one, two in zip(edges_of(block), part, strict=True):
            assert (one == two).all()


def test_a_certified_graph_is_refused(index):
    with pytest.raises(UsageError, match="recall"):
        neighbours(index.view, count=COUNT, recall="certified")
