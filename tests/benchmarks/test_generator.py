"""Made faces are as alike as a real model's, and their attributes make every share possible."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy.special import betainc

from benchmarks.filtered.data import generator, grid, stored
from benchmarks.filtered.values import DataSet
from retrieval.errors import UsageError
from retrieval.values import unit_rows

ROWS = 20_000
THRESHOLD = 0.4077  # of one false match in a million, ENGINE.md section 4


@pytest.fixture(scope="module")
def faces() -> DataSet:
    return generator.faces(ROWS, seed=3, queries=200, tuning=50)


def _pairs_of_one_person(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    persons = generator._persons(random, count)
    everyone = np.arange(count)
    one, other = (
        generator._embedded(generator._samples(random, persons, everyone)) for _ in range(2)
    )
    return np.einsum("ij,ij->i", one, other)


def test_the_share_of_true_pairs_above_the_threshold_is_that_of_buffalo_l():
    similarities = _pairs_of_one_person(20_000)
    assert (similarities > THRESHOLD).mean() == pytest.approx(0.9165, abs=0.006)


def test_one_pair_of_strangers_in_a_million_lies_above_the_threshold(faces: DataSet):
    # Uniform directions in 126 dimensions: half a regularised incomplete beta function.
    share = 0.5 * betainc((generator.LATENT - 1) / 2, 0.5, 1 - THRESHOLD**2)
    assert share == pytest.approx(1e-6, rel=0.05)
    strangers = faces.vectors[:1000] @ faces.vectors[1000:2000].T
    assert np.median(strangers) == pytest.approx(0, abs=0.003)
    assert np.percentile(strangers, 84.13) == pytest.approx(generator.LATENT**-0.5, rel=0.03)


def test_vectors_are_unit_and_survive_float16(faces: DataSet):
    assert np.linalg.norm(faces.vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(unit_rows(faces.vectors.astype(np.float16)) - faces.vectors).max() < 1e-6


def test_the_same_seed_gives_the_same_faces_and_another_seed_others():
    one, again = (generator.faces(300, seed=7, queries=10, tuning=10) for _ in range(2))
    other = generator.faces(300, seed=8, queries=10, tuning=10)
    assert np.array_equal(one.vectors, again.vectors)
    assert one.table.equals(again.table)
    assert np.array_equal(one.queries, again.queries)
    assert not np.array_equal(one.vectors, other.vectors)


def test_persons_have_1_to_39_faces_and_20_on_average():
    owners = generator._owners(generator.Population(rows=ROWS, seed=0))
    counts = np.bincount(owners)
    assert len(owners) == ROWS
    assert counts.min() >= 1
    assert counts.max() == 39
    assert counts.mean() == pytest.approx(20, rel=0.1)


def test_nine_of_ten_queries_show_a_person_who_has_rows_and_none_is_a_row(faces: DataSet):
    best = (faces.queries @ faces.vectors.T).max(axis=1)
    assert best.max() < 0.9999
    assert (best > THRESHOLD).mean() == pytest.approx(0.9, abs=0.06)


def test_a_population_without_strangers_is_asked_for_its_own_persons_only():
    population = generator.Population(rows=2000, seed=4, strangers=0.0)
    data = generator.faces_of(population, queries=100, tuning=1)
    assert ((data.queries @ data.vectors.T).max(axis=1) > 0.3).mean() > 0.97


def test_tuning_queries_are_others_than_those_reported_on(faces: DataSet):
    assert (faces.queries @ faces.tuning.T).max() < 0.9999


def test_a_neighbour_mostly_has_the_same_gender_and_a_similar_age_and_position(faces: DataSet):
    known = (faces.queries @ faces.vectors.T).max(axis=1) > 0.5
    near = faces.table.take(pa.array(grid.nearest_rows(faces.queries, faces.vectors)))
    same = pc.equal(near["gender"], faces.query_table["gender"]).to_numpy()
    years = np.abs(pc.subtract(near["age"], faces.query_table["age"]).to_numpy())
    away = np.abs(pc.subtract(near["position"], faces.query_table["position"]).to_numpy())
    assert same[known].mean() > 0.95
    assert np.median(years[known]) < 8
    assert np.median(away[known]) < 1e-4


def test_tags_have_the_frequencies_that_their_names_promise():
    table = generator.faces(50_000, seed=5, queries=0, tuning=0).table
    counts = {
        row["values"]: row["counts"]
        for row in pc.list_flatten(table["tags"]).value_counts().to_pylist()
    }
    for kind, share in generator.TAG_SHARES.items():
        found = sum(counts.get(generator.tag(kind, number), 0) for number in range(5))
        expected = 5 * share * table.num_rows * 0.98
        assert found == pytest.approx(expected, abs=4 * expected**0.5 + 1)


def test_text_values_are_equally_frequent_and_numbers_spread(faces: DataSet):
    regions = faces.table["region"].value_counts().field("counts").to_numpy()
    assert len(regions) == 100
    assert regions.mean() / ROWS == 0.01
    assert np.percentile(regions, 10) / ROWS > 0.006
    assert len(faces.table["source"].unique()) == 20
    assert len(faces.table["camera"].unique()) == 500
    assert faces.table["height_cm"].null_count / ROWS == pytest.approx(0.35, abs=0.02)
    assert np.percentile(faces.table["position"], [10, 50, 90]) == pytest.approx(
        [0.1, 0.5, 0.9], abs=0.08
    )


def test_a_population_on_disk_equals_the_one_in_memory(tmp_path: Path):
    population = generator.Population(rows=500, seed=2)
    generator.write(population, tmp_path)
    data = generator.faces(500, seed=2, queries=1, tuning=1)
    halves = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert halves.dtype == np.float16
    assert np.array_equal(unit_rows(halves), data.vectors)
    assert pq.read_table(tmp_path / "attributes.parquet").num_rows == 500


def test_a_stored_set_opens_as_it_was(tmp_path: Path):
    data = generator.faces(200, seed=2, queries=5, tuning=4)
    stored.save(data, tmp_path / "set")
    again = stored.opened(tmp_path / "set")
    assert np.array_equal(again.vectors, data.vectors)
    assert np.array_equal(again.tuning, data.tuning)
    assert again.table.equals(data.table)
    assert again.query_table.equals(data.query_table)
    with pytest.raises(UsageError, match="no whole data set"):
        stored.opened(tmp_path)


def test_positions_of_any_vectors_put_neighbours_side_by_side():
    random = np.random.default_rng(0)
    centres = unit_rows(random.standard_normal((50, 32)))
    mine = random.integers(0, 50, 2000)
    vectors = unit_rows(centres[mine] + 0.05 * random.standard_normal((2000, 32)))
    places = grid.positions(vectors, seed=0)
    assert sorted(places) == pytest.approx((np.arange(2000) + 0.5) / 2000)
    order = np.argsort(places)
    side_by_side = np.einsum("ij,ij->i", vectors[order[:-1]], vectors[order[1:]])
    assert np.median(side_by_side) > 0.9
