"""Snapshots of every format version ever released open and answer; broken ones are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrieval.errors import SnapshotUnusableError
from retrieval.filters.parse import parse
from retrieval.index.snapshot import Gallery, open_snapshot, read_manifest, verify
from retrieval.index.view import view_of_snapshot
from retrieval.search import Question, search
from retrieval.store.snapshots import PublishedSnapshot
from retrieval.values import unit_rows

HERE = Path(__file__).parent
SNAPSHOTS = sorted(path for path in HERE.glob("snapshot_v*") if path.is_dir())


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


@pytest.mark.parametrize(
    "break_it",
    [
        truncate_manifest,
        change_manifest,
        age_manifest,
        swap_two_ids,
        empty_vectors,
        remove_columns,
    ],
)
def test_a_broken_snapshot_is_refused_in_one_sentence_that_names_it(
    tmp_path: Path, break_it: Callable[[Path], None]
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(SNAPSHOTS[-1], folder)
    known: Any = gallery_of(folder)
    break_it(folder)
    with pytest.raises(SnapshotUnusableError, match=str(folder)) as refusal:
        open_snapshot(folder, known)
    assert "\n" not in str(refusal.value)
