"""Snapshots on disk: published whole, refused when damaged, never missed by a reader."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from indexer.build import BuildReport, build
from indexer.check import verify_current
from retrieval.errors import BuildFailedError, SnapshotUnusableError, StoreConflictError
from retrieval.index import lists, making
from retrieval.index import snapshot as snapshots
from retrieval.index.snapshot import (
    Gallery,
    open_snapshot,
    read_manifest,
    snapshots_folder,
    verify,
)
from retrieval.reader import Reader
from retrieval.search import Question
from retrieval.store.database import Store
from retrieval.store.snapshots import PublishedSnapshot, published_snapshots, sole_builder
from retrieval.values import Neighbour
from tests.galleries import TestGallery, clustered_vectors, gallery, unit_vectors

ROWS = 300
QUERIES = unit_vectors(5, seed=42)


@pytest.fixture
def faces(store: Store) -> TestGallery:
    """A gallery of some hundred faces."""
    made = gallery(store)
    made.add(range(1, ROWS + 1), unit_vectors(ROWS), ages=[float(i % 90) for i in range(ROWS)])
    return made


def built(made: TestGallery, home: Path) -> BuildReport:
    return build(made.holding, home=home)


def opened(made: TestGallery, home: Path) -> Reader:
    return Reader.open(made.holding, home=home)


def folder_of(made: TestGallery, home: Path) -> Path:
    return snapshots_folder(home, collection_id=made.collection.id, space=made.space.name)


def expected(made: TestGallery) -> Gallery:
    with made.store.reading() as connection:
        published = published_snapshots(
            connection, collection=made.collection, space=made.space, kind="faces"
        )
    return Gallery(
        system_identifier=made.store.system_identifier(),
        collection_id=made.collection.id,
        space=made.space.name,
        dimension=made.space.dimension,
        published=published,
    )


def exact(index: Reader) -> list[list[Neighbour]]:
    question = Question(vectors=QUERIES, count=20, recall="exact")
    return index.search(question).neighbours


# What is published


def test_answers_are_the_same_bits_from_the_store_from_a_snapshot_and_from_both(
    faces: TestGallery, tmp_path: Path
) -> None:
    from_store = exact(opened(faces, tmp_path))
    built(faces, tmp_path)
    from_snapshot = opened(faces, tmp_path)
    assert from_snapshot.status().delta_rows == 0
    assert exact(from_snapshot) == from_store
    # The same vectors written again move half of the faces into the delta.
    faces.execute("UPDATE vector SET data = data WHERE face_id % 2 = 0")
    from_snapshot.refresh()
    assert from_snapshot.status().delta_rows == ROWS // 2
    assert exact(from_snapshot) == from_store
    assert exact(opened(faces, tmp_path)) == from_store


def test_removing_all_snapshots_and_building_anew_changes_no_answer(
    faces: TestGallery, tmp_path: Path
) -> None:
    built(faces, tmp_path)
    before = exact(opened(faces, tmp_path))
    shutil.rmtree(tmp_path / "snapshots")
    built(faces, tmp_path)
    index = opened(faces, tmp_path)
    assert index.status().snapshot is not None
    assert exact(index) == before


def test_the_report_and_the_manifest_say_what_was_measured(
    faces: TestGallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "LISTED_ROWS_MIN", ROWS)
    report = built(faces, tmp_path)
    assert (report.rows, report.lists) == (ROWS, lists.list_count(ROWS))
    check = report.self_check
    assert (check.recall, check.filtered_recall) == (1.0, 1.0)  # so few are all scanned
    manifest = read_manifest(report.folder)
    measured = manifest.measured
    assert measured is not None
    assert (manifest.lists, manifest.self_check) == (report.lists, check)
    assert [tail.chance for tail in measured.tails] == sorted(
        (tail.chance for tail in measured.tails), reverse=True
    )
    errors = [tail.errors for tail in measured.tails]
    assert errors == sorted(errors)
    assert measured.pairs == 128 * (ROWS - 1)  # each query without itself
    assert measured.promises == ()  # too few rows for a filter to be tried
    costs = measured.costs
    assert min(costs.question, costs.row_by_code, costs.row_exactly, costs.list_ranked) > 0


def test_promises_are_measured_where_there_are_rows_enough(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "LISTED_ROWS_MIN", 3_000)
    made = gallery(store, dimension=32)
    made.add(range(1, 3_001), clustered_vectors(3_000, dimension=32))
    report = built(made, tmp_path)
    measured = read_manifest(report.folder).measured
    assert measured is not None
    assert [one.missed for one in measured.promises] == sorted(
        (one.missed for one in measured.promises), reverse=True
    )
    recalls = [one.recall for one in measured.promises]
    assert recalls == sorted(recalls)
    assert 0.5 < recalls[0] < recalls[-1] <= 1.0
    assert measured.costs.seen
    assert all(0 < seen <= 1 for _, seen in measured.costs.seen)


def test_an_empty_gallery_can_be_built_searched_and_grown(store: Store, tmp_path: Path) -> None:
    made = gallery(store)
    assert built(made, tmp_path).rows == 0
    index = opened(made, tmp_path)
    assert exact(index) == [[]] * len(QUERIES)
    made.add([1, 2], unit_vectors(2))
    index.refresh()
    assert {hit.face for hit in exact(index)[0]} == {1, 2}


def test_the_snapshot_before_is_kept_older_ones_go_and_the_log_is_pruned(
    faces: TestGallery, tmp_path: Path
) -> None:
    reports = []
    for _ in range(4):
        faces.execute("UPDATE face SET age = 1 WHERE id = 1")
        reports.append(built(faces, tmp_path))
    kept = {report.snapshot for report in reports[-2:]}
    folder = folder_of(faces, tmp_path)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == kept | {"current"}
    assert {one.id for one in expected(faces).published} == kept
    assert (folder / "current").readlink().name == reports[-1].snapshot
    with faces.store.reading() as connection:
        left = connection.scalar(text("SELECT count(*) FROM face_change"))
    assert left == 1  # between the two that are kept


def test_a_snapshot_that_a_reader_holds_is_removed_only_after_it_let_go(
    faces: TestGallery, tmp_path: Path
) -> None:
    first = built(faces, tmp_path)
    index = opened(faces, tmp_path)
    answers = exact(index)
    for _ in range(3):
        built(faces, tmp_path)
    assert first.folder.is_dir()
    assert exact(index) == answers
    index.refresh()
    built(faces, tmp_path)
    assert not first.folder.exists()


def test_a_reader_moves_to_the_new_snapshot_at_its_next_refresh(
    faces: TestGallery, tmp_path: Path
) -> None:
    index = opened(faces, tmp_path)
    assert index.status().snapshot is None
    for _ in range(2):
        report = built(faces, tmp_path)
        index.refresh()
        assert index.status().snapshot == report.snapshot
        assert index.status().delta_rows == 0


def test_a_space_may_be_named_anything(store: Store, tmp_path: Path) -> None:
    for name in ("../up", "a/b", "..", ".", "Größe @1", "%2E"):
        made = gallery(store, name="names", space=name)
        folder = folder_of(made, tmp_path)
        assert folder.resolve().parent == tmp_path / "snapshots" / str(made.collection.id)


# What is refused


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def remove(path: Path) -> None:
    path.unlink()


FILES = ("manifest.json", "ids.npy", "order.npy", "scales.npy", "vectors.npy", "centroids.npy",
         "sizes.npy", "codes.npy", "factors.npy", "chances.npy", "mean.npy", "signs.npy",
         "places.npy", "list_codes.npy", "list_factors.npy", "columns/0/columns.json",
         "columns/0/0.values.npy")  # fmt: skip


@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_a_damaged_file_is_refused_and_the_reader_goes_on_with_the_snapshot_before(
    faces: TestGallery, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    before = built(faces, tmp_path)
    report = built(faces, tmp_path)
    whole = tmp_path / "whole"
    shutil.copytree(report.folder, whole)
    answers = exact(opened(faces, tmp_path))
    for name in FILES:
        shutil.rmtree(report.folder)
        shutil.copytree(whole, report.folder)
        damage(report.folder / name)
        with pytest.raises(SnapshotUnusableError, match=report.snapshot):
            open_snapshot(report.folder, expected(faces))
        index = opened(faces, tmp_path)
        assert index.status().snapshot == before.snapshot
        assert [report.snapshot in problem for problem in index.status().problems] == [True]
        assert exact(index) == answers


def test_when_no_snapshot_can_be_used_the_store_is_searched(
    faces: TestGallery, tmp_path: Path
) -> None:
    answers = exact(opened(faces, tmp_path))
    for _ in range(2):
        truncate(built(faces, tmp_path).folder / "vectors.npy")
    index = opened(faces, tmp_path)
    assert index.status().snapshot is None
    assert len(index.status().problems) == 2
    assert exact(index) == answers
    faces.add([ROWS + 1], QUERIES[:1])
    index.refresh()
    assert exact(index)[0][0].face == ROWS + 1


def test_a_running_reader_stays_with_its_snapshot_when_the_new_one_is_damaged(
    faces: TestGallery, tmp_path: Path
) -> None:
    first = built(faces, tmp_path)
    index = opened(faces, tmp_path)
    truncate(built(faces, tmp_path).folder / "ids.npy")
    faces.add([ROWS + 1], QUERIES[:1])
    index.refresh()
    assert index.status().snapshot == first.snapshot
    assert exact(index)[0][0].face == ROWS + 1


def test_an_unknown_format_version_is_refused_by_its_number(
    faces: TestGallery, tmp_path: Path
) -> None:
    path = built(faces, tmp_path).folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(
        SnapshotUnusableError, match="format version 99; this program reads 1 and 2"
    ):
        open_snapshot(path.parent, expected(faces))


def test_a_snapshot_of_another_database_collection_or_space_is_refused(
    faces: TestGallery, tmp_path: Path
) -> None:
    folder = built(faces, tmp_path).folder
    ours = expected(faces)
    held = ours.published[0]
    moved = PublishedSnapshot(id=held.id, watermark=type(held.watermark)("1:1:"), rows=held.rows)
    for foreign, reason in (
        ({"system_identifier": "1"}, "another database"),
        ({"collection_id": 77}, "another collection"),
        ({"space": "other@1"}, "another collection or space"),
        ({"dimension": 9}, "another collection or space"),
        ({"published": ()}, "does not know"),
        ({"published": (moved,)}, "does not know"),
    ):
        own = {name: getattr(ours, name) for name in Gallery.__slots__}
        with pytest.raises(SnapshotUnusableError, match=reason):
            open_snapshot(folder, Gallery(**(own | foreign)))


def test_a_flipped_byte_in_a_large_file_opens_and_is_found_by_verify(
    faces: TestGallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SMALL_FILE_BYTES", 0)
    report = built(faces, tmp_path)
    assert verify(report.folder) == []
    flip(report.folder / "vectors.npy")
    open_snapshot(report.folder, expected(faces))
    found = verify_current(faces.holding, home=tmp_path)
    assert found.snapshot == report.snapshot
    assert found.problems == (f"{report.folder / 'vectors.npy'} is not as it was written",)


def test_a_field_that_changed_its_type_makes_the_reader_ask_the_store(
    faces: TestGallery, tmp_path: Path
) -> None:
    built(faces, tmp_path)
    faces.execute("UPDATE attribute SET type = 'number' WHERE name = 'shelf'")
    index = opened(faces, tmp_path)
    assert index.status().snapshot is None
    assert "shelf changed" in index.status().problems[0]


# Builders


def test_a_second_builder_is_told_that_there_is_one(faces: TestGallery, tmp_path: Path) -> None:
    with (
        sole_builder(faces.store, collection=faces.collection),
        pytest.raises(StoreConflictError, match="another process is building"),
    ):
        built(faces, tmp_path)
    assert built(faces, tmp_path).rows == ROWS


def test_a_snapshot_that_does_not_find_its_own_faces_is_not_published(
    faces: TestGallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = built(faces, tmp_path)
    write = making._write_vectors

    def turned_round(folder: Path, *others: Any) -> Any:
        scales = write(folder, *others)
        np.save(folder / "vectors.npy", -np.load(folder / "vectors.npy"))
        return scales

    monkeypatch.setattr(making, "_write_vectors", turned_round)
    with pytest.raises(BuildFailedError, match="did not find stored faces"):
        built(faces, tmp_path)
    index = opened(faces, tmp_path)
    assert index.status().snapshot == first.snapshot
    assert [path.name for path in folder_of(faces, tmp_path).glob(".staging*")] == []
