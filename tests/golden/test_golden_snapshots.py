"""Snapshots of every format version ever released open and answer; broken ones are refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.errors import SnapshotUnusableError
from retrieval.filters.parse import parse
from retrieval.index.snapshot import (
    FORMAT,
    FORMATS_READ,
    SMALL_FILE_BYTES,
    Gallery,
    open_snapshot,
    read_manifest,
    stamped,
    verify,
    write_manifest,
)
from retrieval.index.view import view_of_snapshot
from retrieval.plan import Recall
from retrieval.search import Question, search
from retrieval.store.snapshots import PublishedSnapshot
from retrieval.values import Tier, unit_rows

HERE = Path(__file__).parent
SNAPSHOTS = sorted(path for path in HERE.glob("snapshot_v*") if path.is_dir())
NEWEST = SNAPSHOTS[-1]


def gallery_of(folder: Path) -> Gallery:
    """What the database that built it would say."""
    manifest = read_manifest(folder)
    published = PublishedSnapshot(id=manifest.id, watermark=manifest.watermark, rows=manifest.rows)
    return Gallery(
        system_identifier=manifest.system_identifier,
        collection_id=manifest.collection_id,
        space=manifest.space,
        dimension=manifest.dimension,
        published=(published,),
    )


@pytest.mark.parametrize("folder", SNAPSHOTS, ids=lambda path: path.name)
def test_an_old_snapshot_opens_and_gives_the_answers_it_gave(folder: Path) -> None:
    notes = json.loads(folder.with_suffix(".json").read_text())
    snapshot = open_snapshot(folder, gallery_of(folder))
    fields = snapshot.manifest.fields
    view = view_of_snapshot(snapshot, fields=fields)
    for answer in notes["answers"]:
        where: str | None = answer["where"]
        question = Question(
            vectors=unit_rows(notes["queries"]),
            count=5,
            recall="exact",
            filter=None if where is None else parse(where, fields),
        )
        found = search(view, question).neighbours
        assert [[[hit.face, hit.similarity] for hit in hits] for hits in found] == answer["hits"]
        assert search(view, question).survivors > 5
    assert verify(folder) == []


@pytest.mark.parametrize("folder", SNAPSHOTS, ids=lambda path: path.name)
@pytest.mark.parametrize("recall", [0.5, 0.99, "certified"])
def test_every_recall_may_be_asked_of_an_old_snapshot(folder: Path, recall: Recall) -> None:
    notes = json.loads(folder.with_suffix(".json").read_text())
    snapshot = open_snapshot(folder, gallery_of(folder))
    view = view_of_snapshot(snapshot, fields=snapshot.manifest.fields)
    exact = Question(vectors=unit_rows(notes["queries"]), count=5, recall="exact")
    answer = search(view, replace(exact, recall=recall))
    true = {hit.face: hit.similarity for hit in search(view, exact).neighbours[0]}
    assert [len(hits) for hits in answer.neighbours] == [5, 5, 5]
    assert answer.neighbours[0][0] == search(view, exact).neighbours[0][0]
    for hit in answer.neighbours[0]:
        assert hit.similarity == true.get(hit.face, hit.similarity)
    if folder.name == "snapshot_v1":
        assert snapshot.coding is None
        assert answer.tier is Tier.EXACT
    if answer.tier is Tier.EXACT or recall == "certified":
        assert answer.neighbours == search(view, exact).neighbours


def test_the_newest_format_is_the_one_that_is_written() -> None:
    assert f"snapshot_v{FORMAT}" == NEWEST.name
    assert [f"snapshot_v{version}" for version in FORMATS_READ] == [one.name for one in SNAPSHOTS]


def truncate_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:100])


def change_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"rows": 200', '"rows": 201'))


def age_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))


def swap_two_ids(folder: Path) -> None:
    path = folder / "ids.npy"
    content = bytearray(path.read_bytes())
    content[128:136], content[136:144] = content[136:144], content[128:136]
    path.write_bytes(content)


def empty_vectors(folder: Path) -> None:
    (folder / "vectors.npy").write_bytes(b"")


def remove_columns(folder: Path) -> None:
    shutil.rmtree(folder / "columns")


def flip(name: str) -> Callable[[Path], None]:
    def flipped(folder: Path) -> None:
        path = folder / name
        content = bytearray(path.read_bytes())
        assert len(content) <= SMALL_FILE_BYTES
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)

    return flipped


def truncate(name: str) -> Callable[[Path], None]:
    def truncated(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-8])

    return truncated


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


CODING = (
    "codes.npy", "factors.npy", "chances.npy", "mean.npy", "signs.npy", "places.npy",
    "list_codes.npy", "list_factors.npy", "centroids.npy", "sizes.npy",
)  # fmt: skip


@pytest.mark.parametrize(
    "break_it",
    [
        truncate_manifest,
        change_manifest,
        age_manifest,
        swap_two_ids,
        empty_vectors,
        remove_columns,
        *(damage(name) for name in CODING for damage in (flip, truncate, lose)),
    ],
)
def test_a_broken_snapshot_is_refused_in_one_sentence_that_names_it(
    tmp_path: Path, break_it: Callable[[Path], None]
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(NEWEST, folder)
    known: Any = gallery_of(folder)
    break_it(folder)
    with pytest.raises(SnapshotUnusableError, match=str(folder)) as refusal:
        open_snapshot(folder, known)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", CODING)
def test_a_file_of_another_shape_is_refused_even_where_its_hash_is_right(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "misshaped"
    shutil.copytree(NEWEST, folder)
    known, manifest = gallery_of(folder), read_manifest(folder)
    for array in (np.zeros(3, np.float32), np.zeros((2, 2), np.uint8), np.zeros((), np.int64)):
        np.save(folder / name, array)
        [fresh] = stamped(folder, [folder / name])
        files = tuple(fresh if stamp.path == name else stamp for stamp in manifest.files)
        write_manifest(folder, replace(manifest, files=files))
        with pytest.raises(SnapshotUnusableError, match=f"cannot be mapped: {name} holds"):
            open_snapshot(folder, known)
