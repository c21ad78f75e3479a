"""kill -9 at twenty random moments of one ingest: nothing lost, nothing doubled, nothing stale."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from retrieval.store import embedded
from tests.acceptance.conftest import Facedex

KILLS = 20
PICTURES = 1_200  # more than are read while the killing lasts

pytestmark = [pytest.mark.weights, pytest.mark.data, pytest.mark.timeout(400)]


def start_ingest(home: Path, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "facedex", "--home", str(home)),
            *("ingest", str(folder), "--workers", "1", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def victim(kind: str, home: Path, ingest: subprocess.Popen[bytes]) -> int | None:
    """The process to kill: the worker itself, one that embeds, or PostgreSQL's postmaster."""
    if kind == "worker":
        return ingest.pid
    if kind == "postgresql":
        running = embedded.status(home)
        return None if running is None else running.address.pid
    children = [
        child
        for child in psutil.Process(ingest.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]
    return random.choice(children).pid if children else None


def test_whatever_is_killed_every_picture_is_in_exactly_once(
    facedex: Facedex, home: Path, lfw_small: Path, tmp_path: Path
) -> None:
    random.seed(20)
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = sorted(lfw_small.rglob("*.jpg"))[:PICTURES]
    for path in paths:
        (folder / path.name).symlink_to(path)
    facedex("init")
    killed = dict.fromkeys(("worker", "embedder", "postgresql"), 0)
    ingest = start_ingest(home, folder)
    while sum(killed.values()) < KILLS:
        time.sleep(random.uniform(0.1, 1.2))
        if ingest.poll() is not None:
            assert ingest.returncode != 0, f"it was done after {sum(killed.values())} kills"
            ingest.communicate()
            ingest = start_ingest(home, folder)
            continue
        kind = min(killed, key=lambda one: (killed[one], random.random()))
        try:
            pid = victim(kind, home, ingest)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                killed[kind] += 1
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    try:
        ingest.communicate(timeout=120)
    finally:
        ingest.kill()
    assert facedex("ingest", str(folder), "--json").status == 0
    last = facedex("ingest", str(folder), "--json").json
    assert (last["images"], last["known"], last["refused"]) == (0, PICTURES, [])
    assert_in_exactly_once(facedex, paths=paths, tmp_path=tmp_path)


def assert_in_exactly_once(facedex: Facedex, *, paths: list[Path], tmp_path: Path) -> None:
    checked = facedex("check", "--json")
    assert checked.status == 0, checked.out
    faces = facedex("list", "--limit", "10000", "--json").json["faces"]
    assert {Path(face["image"]).name for face in faces} == {path.name for path in paths}
    places = [(face["image"], tuple(face["box"])) for face in faces]
    assert len(places) == len(set(places))
    out = tmp_path / "out.parquet"
    facedex("export", str(out))
    table = pq.read_table(out)
    rows = np.array(table["vector"].to_pylist(), np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    probe = faces[len(faces) // 2]["face"]
    hits = facedex("search", "--face", str(probe), "--recall", "exact", "-k", "20", "--json").json[
        "hits"
    ]
    ids = [face["face"] for face in faces]
    similarities = rows @ rows[ids.index(probe)]
    best = sorted(zip(-similarities, ids, strict=True))[:20]
    assert [hit["face"] for hit in hits] == [face for _, face in best]
    assert [hit["similarity"] for hit in hits] == pytest.approx([-s for s, _ in best], abs=1e-6)
