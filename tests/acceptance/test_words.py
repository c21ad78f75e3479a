"""Face-text spaces from the command line: given, filled, killed while being filled, refused."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from retrieval.store import embedded
from retrieval.store.database import Store, open_store
from tests.acceptance.conftest import Facedex
from tests.pictures import encoded, group
from tests.words import small_model

pytestmark = [pytest.mark.weights, pytest.mark.timeout(900)]
CROPS = 400  # aligned, so that reading them takes little
KILLS = 4


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "given", commercial=False).path


@pytest.fixture
def six(tmp_path: Path) -> Path:
    path = tmp_path / "six.jpg"
    path.write_bytes(encoded(group(), "JPEG", quality=90))
    return path


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Aligned crops, no two of them the same."""
    folder = tmp_path / "crops"
    folder.mkdir()
    random = np.random.default_rng(0)
    face = np.asarray(group().crop((400, 200, 512, 312)), np.int16)
    for number in range(CROPS):
        noise = random.integers(-20, 20, face.shape)
        file = io.BytesIO()
        Image.fromarray(np.clip(face + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
        (folder / f"{number:04}.png").write_bytes(file.getvalue())
    return folder


def test_a_space_is_added_filled_and_told(facedex: Facedex, model: Path, six: Path) -> None:
    facedex("ingest", str(six))
    added = facedex("space", "add", "small@1", "--model", str(model), "--json")
    assert added.status == 0, added.err
    assert (added.json["space"], added.json["before"]) == ("small@1", None)
    assert added.json["licence"] == "research only: made for tests"
    filled = facedex("space", "backfill", "--json", "--workers", "1")
    assert filled.status == 0, filled.err
    assert (filled.json["pictures"], filled.json["faces"], filled.json["missing"]) == (1, 6, [])
    assert "small@1: research only" in filled.err
    spaces = {one["name"]: one for one in facedex("space", "list", "--json").json["spaces"]}
    assert spaces["small@1"]["licence"] == "research only: made for tests"
    assert not spaces["small@1"]["commercial"]
    bright = facedex("count", "--where", "'bright' = ANY(tags)", "--json").json["count"]
    others = facedex("count", "--where", "NOT 'bright' = ANY(tags)", "--json").json["count"]
    assert bright + others == 6
    assert facedex("caption", "apply", "--json").json["faces"] == 0
    assert facedex("check", "--json").status == 0
    six.unlink()
    small_model(model.parent, space="small@2", seed=1)
    facedex("space", "add", "small@2", "--model", str(model.parent / "small@2"))
    again = facedex("space", "backfill", "--json")
    assert (again.status, again.json["faces"]) == (0, 0)
    assert [(one["faces"], one["reason"]) for one in again.json["missing"]] == [
        (6, "no such file or folder")
    ]


def test_what_is_wrong_is_said_with_status_2_or_3(
    facedex: Facedex, model: Path, tmp_path: Path
) -> None:
    other = facedex("space", "add", "looks@1", "--model", str(model))
    assert (other.status, "holds the model 'small@1'" in other.err) == (2, True), other.err
    none = facedex("space", "add", "small@1", "--model", str(tmp_path))
    assert (none.status, "no face-text model" in none.err) == (3, True), none.err
    licence = facedex("--use", "commercial", "space", "add", "small@1", "--model", str(model))
    assert (licence.status, "commercially" in licence.err) == (2, True), licence.err
    told = facedex("space", "add", "small@1", "--model", str(model), "--commercial")
    assert (told.status, "says itself" in told.err) == (2, True), told.err
    facedex("collection", "create", "default")
    nothing = facedex("caption", "apply")
    assert (nothing.status, "face-text" in nothing.err) == (2, True), nothing.err


def test_doctor_lists_models_and_says_which_are_refused_and_which_are_damaged(
    facedex: Facedex, home: Path, model: Path
) -> None:
    facedex("space", "add", "small@1", "--model", str(model))

    def told(*words: str) -> tuple[bool, str]:
        findings = facedex(*words, "doctor", "--json").json["findings"]
        [found] = [one for one in findings if one["what"] == "face-text model small@1"]
        return found["ok"], found["told"]

    assert told() == (True, "research only: made for tests")
    good, said = told("--use", "commercial")
    assert (good, "refused because FACEDEX_USE=commercial" in said) == (True, True)
    (home / "models" / "small@1" / "light.npz").write_bytes(b"other")
    good, said = told()
    assert (good, "damaged" in said) == (False, True)


def filled(store: Store) -> int:
    with store.reading() as connection:
        return connection.execute(
            text("SELECT count(*) FROM vector JOIN space ON id = space_id WHERE name = 'small@1'")
        ).scalar_one()


def test_a_backfill_that_is_killed_again_and_again_is_done_once(
    facedex: Facedex, home: Path, model: Path, crops: Path
) -> None:
    ingested = facedex("ingest", "--aligned", str(crops), "--json", timeout_s=600)
    assert ingested.json["faces"] == CROPS, ingested.err
    facedex("space", "add", "small@1", "--model", str(model))
    running = embedded.status(home)
    assert running is not None
    with open_store(running.address.url) as store:
        seen = []
        for _ in range(KILLS):
            backfill = subprocess.Popen(
                [
                    *(sys.executable, "-m", "facedex", "--home", str(home)),
                    *("space", "backfill", "--workers", "1"),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            before = filled(store)
            while filled(store) == before and backfill.poll() is None:
                time.sleep(0.02)
            os.kill(backfill.pid, signal.SIGKILL)
            backfill.wait()
            seen.append(filled(store))
        assert 0 < seen[0] < CROPS, "it was not killed in the middle"
        last = facedex("space", "backfill", "--json", timeout_s=600)
        assert last.status == 0, last.err
        assert last.json["faces"] <= CROPS - seen[0]
        assert filled(store) == CROPS
        with store.reading() as connection:
            rows = connection.execute(
                text("SELECT tags, provenance #>> '{tags,provider}' AS provider FROM face")
            ).all()
    assert {row.provider for row in rows} == {"small@1"}
    assert all(len(row.tags) == len(set(row.tags)) for row in rows)
    assert facedex("space", "backfill", "--json").json["faces"] == 0
    assert facedex("check", "--json").status == 0
