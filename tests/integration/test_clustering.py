"""Grouping a collection: persons are proposed, and what people said outlives every run."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from facedex.clustering import CLUSTERS, DOUBTS, write_clusters
from facedex.handle import Facedex, open_facedex
from indexer.bulk.importing import ImportRequest
from retrieval.clusters.methods import Method
from retrieval.errors import UsageError
from retrieval.evaluation.clustering import figures
from retrieval.people.calibration import Calibration, Tail
from retrieval.store import collections as tenants
from retrieval.store.calibrations import keep_calibration
from retrieval.values import unit_rows

DIMENSION, PERSONS, EACH = 64, 40, 12
STRANGERS = stats.beta((DIMENSION - 1) / 2, (DIMENSION - 1) / 2, loc=-1, scale=2)


def calibration() -> Calibration:
    at = np.linspace(0.2, 0.9, 200)
    rates = STRANGERS.sf(at)
    tail = Tail(similarities=at, rates=rates, lows=rates, highs=rates, trials=10**9, size=1)
    return Calibration(
        space="made@1", model_sha256=None, data="numbers", comparisons=tail, searches=tail
    )


def crowd(count: int, *, seed: int):
    """Vectors of so many faces a person, in random order, and whose they are."""
    centres = unit_rows(np.random.default_rng(1).standard_normal((PERSONS, DIMENSION)))
    random = np.random.default_rng(seed)
    owners = random.permutation(np.repeat(np.arange(PERSONS), count))
    noise = 0.9 / np.sqrt(DIMENSION) * random.standard_normal((len(owners), DIMENSION))
    return unit_rows(centres[owners] + noise), owners


def imported(facedex: Facedex, folder: Path, vectors, ids) -> None:
    flat = pa.array(vectors.astype(np.float32).reshape(-1))
    table = pa.table({"vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSION), "id": ids})
    pq.write_table(table, folder / "faces.parquet")
    facedex.import_file(
        ImportRequest(path=folder / "faces.parquet", collection="default", space="made@1")
    )


@pytest.fixture
def facedex(home: Path, database_url: str, tmp_path: Path) -> Iterator[Facedex]:
    """480 faces of 40 people whom nobody has named."""
    vectors, _ = crowd(EACH, seed=2)
    with open_facedex(home=home, database_url=database_url) as opened:
        imported(opened, tmp_path, vectors, [f"{row}" for row in range(len(vectors))])
        tenant = opened.collection()
        with opened.store.writing() as connection:
            space = tenants.space_of(connection, tenant)
            keep_calibration(connection, calibration(), collection=tenant, space=space)
        yield opened


def truth(facedex: Facedex, owners) -> dict[int, int]:
    return {
        record.face: int(owners[int(record.external_id)]) for record in facedex.faces(limit=10_000)
    }


def owners_in_store(facedex: Facedex) -> dict[int, int | None]:
    return {record.face: record.person_id for record in facedex.faces(limit=10_000)}


def agreement(facedex: Facedex, found, owners) -> float:
    real = truth(facedex, owners)
    persons = np.array([real[face] for face in found.faces.tolist()])
    return figures(persons, found.persons).bcubed_f


def test_persons_are_proposed_and_one_undo_takes_them_back(facedex):
    found = facedex.clustering.cluster()
    assert agreement(facedex, found, crowd(EACH, seed=2)[1]) > 0.98
    stored = owners_in_store(facedex)
    assert [stored[face] for face in found.faces.tolist()] == [
        None if person < 0 else person for person in found.persons.tolist()
    ]
    assert found.count == len(facedex.people.list(limit=1_000))
    assert found.assigned + sum(owner is None for owner in stored.values()) == len(stored)
    [event] = found.events
    facedex.people.undo(event)
    assert set(owners_in_store(facedex).values()) == {None}
    assert facedex.people.list() == []


def test_a_dry_run_changes_nothing(facedex):
    found = facedex.clustering.cluster(write=False)
    assert found.count >= PERSONS - 2
    assert set(owners_in_store(facedex).values()) == {None}
    assert found.events == ()


def test_a_second_run_changes_nothing_and_keeps_every_person(facedex):
    first = facedex.clustering.cluster()
    second = facedex.clustering.cluster()
    assert (first.persons == second.persons).all()
    assert second.events == ()


def test_what_people_said_outlives_a_full_run(facedex):
    found = facedex.clustering.cluster()
    sizes = {one.id: one.faces for one in facedex.people.list(limit=1_000)}
    one, two, three, four = sorted(sizes, key=lambda number: -sizes[number])[:4]
    faces = {
        person: [f for f, p in owners_in_store(facedex).items() if p == person]
        for person in (one, two, three, four)
    }
    facedex.people.rename(f"#{one}", "Ann")
    facedex.people.merge(f"#{two}", into=f"#{one}")
    facedex.people.split(f"#{three}", faces[three][:3], name="Bea")
    facedex.people.reject(f"#{four}", faces[four][:2])
    again = facedex.clustering.cluster()
    after = owners_in_store(facedex)
    assert {after[face] for face in faces[one] + faces[two]} == {one}  # merged, though two people
    bea = next(p.id for p in facedex.people.list(limit=1_000) if p.name == "Bea")
    assert [after[face] for face in faces[three]] == [bea] * 3 + [three] * (len(faces[three]) - 3)
    assert all(after[face] != four for face in faces[four][:2])  # rejected
    assert [after[face] for face in faces[four][2:]] == [four] * (len(faces[four]) - 2)
    untouched = ~np.isin(found.persons, [one, two, three, four])
    assert (again.persons[untouched] == found.persons[untouched]).all()


def test_two_faces_of_one_picture_are_not_one_person(facedex):
    _, owners = crowd(EACH, seed=2)
    tenant = facedex.collection()
    with facedex.store.writing() as connection:
        pairs = [np.flatnonzero(owners == owner)[:2] for owner in range(PERSONS)]
        for number, pair in enumerate(pairs):
            connection.exec_driver_sql(
                "WITH made AS (INSERT INTO image (collection_id, sha256, path, bytes, width,"
                " height, format) VALUES (%s, %s, 'x', 1, 1, 1, 'JPEG') RETURNING id)"
                " UPDATE face SET image_id = (SELECT id FROM made)"
                " WHERE collection_id = %s AND external_id = ANY(%s)",
                (tenant.id, number.to_bytes(32, "big"), tenant.id, [f"{row}" for row in pair]),
            )
    facedex.clustering.cluster()
    by_id = {record.external_id: record.person_id for record in facedex.faces(limit=1_000)}
    both = [(by_id[f"{one}"], by_id[f"{two}"]) for one, two in pairs]
    assert all(one is None or one != two for one, two in both)
    assert sum(one is not None or two is not None for one, two in both) >= PERSONS - 2


def test_faces_that_come_later_join_as_in_a_full_run(facedex, tmp_path):
    facedex.clustering.cluster()
    before = owners_in_store(facedex)
    vectors, owners = crowd(2, seed=9)
    imported(facedex, tmp_path, vectors, [f"{480 + row}" for row in range(len(vectors))])
    later = facedex.clustering.attach()
    after = owners_in_store(facedex)
    assert {face: after[face] for face in before if before[face]} == {
        face: person for face, person in before.items() if person
    }
    everybody = np.concatenate([crowd(EACH, seed=2)[1], owners])
    assert agreement(facedex, later, everybody) > 0.97
    full = facedex.clustering.cluster(write=False)
    assert figures(full.persons, later.persons).ari > 0.97


def test_faces_cannot_join_before_anybody_was_grouped(facedex):
    with pytest.raises(UsageError, match="facedex cluster"):
        facedex.clustering.attach()


def test_only_faces_that_pass_a_filter_are_grouped(facedex):
    some = facedex.faces(limit=200)
    where = f"face <= {some[-1].face}"
    found = facedex.clustering.cluster(where=where)
    assert found.faces.tolist() == [record.face for record in some]
    assert all(
        owner is None for face, owner in owners_in_store(facedex).items() if face > some[-1].face
    )


@pytest.mark.parametrize(("method", "least"), [(Method.COMPONENTS, 0.7), (Method.HDBSCAN, 0.5)])
def test_libraries_group_too(facedex, method, least):
    found = facedex.clustering.cluster(method=method, threshold=0.55)
    assert agreement(facedex, found, crowd(EACH, seed=2)[1]) > least


def test_the_community_library_groups_too(facedex):
    pytest.importorskip("igraph")
    found = facedex.clustering.cluster(method=Method.LEIDEN, threshold=0.5)
    assert agreement(facedex, found, crowd(EACH, seed=2)[1]) > 0.9


def test_groups_and_doubtful_pairs_are_written_as_parquet(facedex, tmp_path):
    found = facedex.clustering.cluster(write=False)
    write_clusters(found, tmp_path / "out")
    clusters = pq.read_table(tmp_path / "out" / CLUSTERS)
    assert clusters["face"].to_pylist() == found.faces.tolist()
    assert clusters["person"].null_count == len(found.faces) - found.assigned
    doubts = pq.read_table(tmp_path / "out" / DOUBTS)
    assert doubts["similarity"].to_pylist() == [one.similarity for one in found.doubts]
