"""Builders that die: whatever moment they choose, a reader opens an index that is right."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import indexer.build
from indexer.build import build
from indexer.check import check
from retrieval.errors import StoreUnavailableError
from retrieval.index.snapshot import snapshots_folder
from retrieval.reader import Reader
from retrieval.store.database import Store
from retrieval.store.snapshots import published_snapshots
from tests.galleries import TestGallery, gallery, unit_vectors

ROWS = 300
KILLS = 5


def test_a_builder_that_lost_its_lock_does_not_publish(
    faces: TestGallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = built(faces, tmp_path)
    write = indexer.build._written

    def cut_off(*given: Any, **named: Any) -> Any:
        faces.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return write(*given, **named)

    monkeypatch.setattr(indexer.build, "_written", cut_off)
    with pytest.raises(StoreUnavailableError):
        built(faces, tmp_path)
    assert opened(faces, tmp_path).status().snapshot == first
    monkeypatch.undo()
    second = built(faces, tmp_path)
    assert opened(faces, tmp_path).status().snapshot == second


BUILDER = """
import resource, sys
from pathlib import Path
from typing import Any
from indexer.build import build
from retrieval.kernels.compiled import use_cache
from retrieval.store.collections import collection_named, space_of
from retrieval.store.database import open_store
from retrieval.store.holdings import Faces
use_cache(Path(sys.argv[5]))
url, home, bytes_max, builds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max))
with open_store(url) as store:
    with store.reading() as connection:
        collection = collection_named(connection, "gallery")
        space = space_of(connection, collection)
    for _ in range(builds):
        print(build(Faces(store, collection, space), home=home).snapshot, flush=True)
"""
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def faces(store: Store) -> TestGallery:
    """A gallery of some hundred faces."""
    made = gallery(store)
    made.add(range(1, ROWS + 1), unit_vectors(ROWS), ages=[float(i % 90) for i in range(ROWS)])
    return made


def built(made: TestGallery, home: Path) -> str:
    return build(made.holding, home=home).snapshot


def opened(made: TestGallery, home: Path) -> Reader:
    return Reader.open(made.holding, home=home)


def folder_of(made: TestGallery, home: Path) -> Path:
    return snapshots_folder(home, collection_id=made.collection.id, space=made.space.name)


def published(made: TestGallery) -> set[str]:
    with made.store.reading() as connection:
        found = published_snapshots(
            connection, collection=made.collection, space=made.space, kind="faces"
        )
    return {one.id for one in found}


Builder = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def builder(database_url: str, tmp_path: Path, compiled: Path) -> Builder:
    """Starts a process that builds."""

    def started(*, bytes_max: int, builds: int) -> "subprocess.Popen[str]":
        words = [database_url, str(tmp_path), str(bytes_max), str(builds), str(compiled)]
        return subprocess.Popen(
            [sys.executable, "-c", BUILDER, *words],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


def test_a_disk_that_takes_no_more_fails_the_build_and_leaves_the_snapshot_before(
    faces: TestGallery, tmp_path: Path, builder: Builder
) -> None:
    first = built(faces, tmp_path)
    with builder(bytes_max=3_000, builds=1) as process:
        _, errors = process.communicate()
    assert process.returncode == 1
    assert "BuildFailedError: the index could not be written" in errors
    assert opened(faces, tmp_path).status().snapshot == first
    assert [path.name for path in folder_of(faces, tmp_path).glob(".staging*")] == []


def assert_whole(index: Reader) -> None:
    """A snapshot is open, and what it holds is what the store holds."""
    assert index.status().snapshot is not None
    assert index.status().problems == ()
    report = check(index)
    assert (report.store, report.index, report.differences) == (ROWS, ROWS, ())


def test_a_builder_killed_at_any_moment_leaves_an_index_that_opens_and_is_right(
    faces: TestGallery, tmp_path: Path, builder: Builder
) -> None:
    built(faces, tmp_path)
    chance = random.Random(7)
    for _ in range(KILLS):
        with builder(bytes_max=2**40, builds=100) as process:
            assert process.stdout is not None
            process.stdout.readline()  # the imports are over, it builds one after the other
            time.sleep(chance.uniform(0.0, 0.4))
            process.send_signal(signal.SIGKILL)
        faces.execute("UPDATE face SET age = age + 1 WHERE id < 20")
        assert_whole(opened(faces, tmp_path))
    last = [built(faces, tmp_path) for _ in range(2)]
    folder = folder_of(faces, tmp_path)
    assert {path.name for path in folder.iterdir()} == {*last, "current"}
    assert published(faces) == set(last)
