"""The main job from outside: pictures in, the right faces out, filters obeyed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests import pictures
from tests.acceptance.conftest import Facedex

pytestmark = pytest.mark.weights


def test_the_demo_finds_six_people_and_their_variants_and_then_has_nothing_to_do(
    facedex: Facedex,
) -> None:
    first = facedex("demo", "--json")
    assert first.status == 0, first.err
    assert first.json["originals"] == 6
    assert first.json["matched"] == {"reencoded": 6, "cropped": 6, "mirrored": 6}
    assert all(
        hit["attributes"]["variant"] in ("cropped", "mirrored") for hit in first.json["hits"]
    )
    again = facedex("demo", "--json").json
    assert (again["images"], again["known"], again["faces"]) == (0, 4, 0)
    assert again["matched"] == first.json["matched"]


def test_the_demo_works_on_ones_own_folder(facedex: Facedex, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    pictures.astronaut().save(photos / "one.jpg", quality=95)
    ran = facedex("demo", str(photos), "--json")
    assert ran.status == 0, ran.err
    assert ran.json["originals"] >= 1
    assert ran.json["matched"] == ran.json["visible"]


@pytest.mark.data
def test_the_right_person_comes_first_and_no_hit_violates_the_filter(
    facedex: Facedex, tmp_path: Path, lfw_small: Path
) -> None:
    people = sorted(path for path in lfw_small.iterdir() if path.is_dir())[:12]
    gallery, probes = tmp_path / "gallery", []
    for person in people:
        shutil.copytree(person, gallery / person.name)
        held_out = max((gallery / person.name).iterdir())
        probes.append((person.name, shutil.move(held_out, tmp_path / held_out.name)))
    rows = [
        f"{path.relative_to(gallery)},{number % 3},{path.parent.name}"
        for number, path in enumerate(sorted(gallery.rglob("*.jpg")))
    ]
    manifest = gallery / "facts.csv"
    manifest.write_text("\n".join(["path,third,person", *rows]))
    ran = facedex("ingest", str(gallery), "--metadata", str(manifest), "--json")
    assert ran.status == 0, ran.err
    assert ran.json["images"] == 12 * 9
    for name, probe in probes[:4]:
        where = "third = 1 AND quality >= 0.1"
        found = facedex("search", "--image", str(probe), "--where", where, "--json").json
        assert found["hits"][0]["person"] == name
        assert all(hit["attributes"]["third"] == 1 for hit in found["hits"])
        assert found["survivors"] == facedex("count", "--where", where, "--json").json["count"]


@pytest.mark.data
def test_aligned_crops_equal_direct_embedding(
    facedex: Facedex, tmp_path: Path, lfw_small: Path
) -> None:
    from PIL import Image

    from retrieval.align import align
    from retrieval.image import decode
    from retrieval.models.choice import ModelChoice, load_models

    reader = load_models(ModelChoice())
    crops = tmp_path / "crops"
    crops.mkdir()
    expected = {}
    for path in sorted(lfw_small.rglob("*.jpg"))[:8]:
        pixels = decode(path.read_bytes()).pixels
        reading = reader.read(pixels)[0]
        Image.fromarray(align(pixels, reading.detection.landmarks)).save(crops / f"{path.stem}.png")
        expected[path.stem] = reading.vector
    ran = facedex("ingest", "--aligned", str(crops), "--json")
    assert (ran.json["images"], ran.json["faces"]) == (8, 8)
    out = tmp_path / "out.parquet"
    assert facedex("export", str(out), "--json").json["rows"] == 8
    import pyarrow.parquet as pq

    table = pq.read_table(out)
    for image, vector in zip(table["image"].to_pylist(), table["vector"].to_pylist(), strict=True):
        assert float(np.asarray(vector, float) @ expected[Path(image).stem]) >= 0.9999


def test_another_process_reads_a_write_by_its_token(facedex: Facedex, tmp_path: Path) -> None:
    pictures.group().save(tmp_path / "group.jpg", quality=95)
    facedex("ingest", str(tmp_path / "group.jpg"), "--json")
    token = facedex("update", "--where", "quality >= 0", "--set", "source=seen", "--json").json[
        "token"
    ]
    face = facedex("list", "--json").json["faces"][0]["face"]
    found = facedex(
        "search", "--face", str(face), "--where", "source = 'seen'", "--after", str(token), "--json"
    ).json
    assert len(found["hits"]) == 6
    deleted = facedex("delete", "--where", f"face = {face}", "--json").json
    assert deleted["deleted"] == 1
    assert facedex("search", "--face", str(face)).status == 2
    assert facedex("count", "--json").json == {"count": 5}


def test_every_result_is_one_json_object(facedex: Facedex) -> None:
    for words in (
        ["init"],
        ["collection", "list"],
        ["collection", "create", "x"],
        ["collection", "attributes", "x", "year=integer"],
        ["space", "list"],
        ["list", "-c", "x"],
        ["count", "-c", "x"],
        ["config", "show"],
        ["doctor"],
        ["jobs"],
        ["upgrade"],
        ["stop"],
    ):
        ran = facedex(*words, "--json")
        assert ran.status == 0, (words, ran.err)
        assert isinstance(json.loads(ran.out), dict), words
