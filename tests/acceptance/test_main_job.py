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


def test_a_moved_picture_is_found_again_and_a_copied_one_needs_no_original(
    facedex: Facedex, tmp_path: Path, home: Path
) -> None:
    first, second = tmp_path / "first.jpg", tmp_path / "second.jpg"
    pictures.astronaut().save(first, quality=95)
    facedex("ingest", str(first))
    first.rename(second)
    assert facedex("ingest", str(second), "--json").json["known"] == 1
    assert facedex("list", "--json").json["faces"][0]["image"] == str(second)
    second.unlink()
    pictures.group().save(first, quality=95)
    facedex("ingest", str(first), "--copy", "-c", "copied")
    first.unlink()
    copy = Path(facedex("list", "-c", "copied", "--json").json["faces"][0]["image"])
    assert copy.is_relative_to(home / "originals")
    assert copy.read_bytes() == pictures.encoded(pictures.group(), "JPEG", quality=95)


def test_a_shard_brings_its_attributes(facedex: Facedex, tmp_path: Path) -> None:
    import io
    import tarfile

    shard = tmp_path / "00000.tar"
    sidecar = json.dumps({"album": "space", "year": 1999, "rating": 4.5}).encode()
    with tarfile.open(shard, "w") as archive:
        for name, content in (
            ("a.jpg", pictures.encoded(pictures.astronaut(), "JPEG", quality=90)),
            ("a.json", sidecar),
            ("b.jpg", b"broken"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    ran = facedex("ingest", str(shard), "--source", "shards", "--json")
    assert ran.status == 0, ran.err
    assert [one["path"] for one in ran.json["refused"]] == [f"{shard}!b.jpg"]
    where = "album = 'space' AND year = 1999 AND rating > 4 AND source = 'shards'"
    assert facedex("list", "--where", where, "--json").json["faces"][0]["image"] == f"{shard}!a.jpg"


def test_a_queued_ingest_is_done_by_the_worker(facedex: Facedex, tmp_path: Path) -> None:
    pictures.group().save(tmp_path / "group.jpg", quality=95)
    job = facedex("ingest", str(tmp_path / "group.jpg"), "--later", "--json").json["job"]
    assert facedex("worker", "--drain", "--json").status == 0
    (record,) = facedex("jobs", "--json").json["jobs"]
    assert (record["job"], record["state"]) == (job, "done")
    assert facedex("count", "--json").json == {"count": 6}


def test_commercial_use_refuses_research_weights_and_takes_sface(
    facedex: Facedex, tmp_path: Path
) -> None:
    pictures.astronaut().save(tmp_path / "one.jpg", quality=95)
    refused = facedex("--use", "commercial", "--models", "arcface", "ingest", str(tmp_path))
    assert refused.status == 2
    assert "commercially" in refused.err
    assert facedex("--use", "commercial", "ingest", str(tmp_path)).status == 0
    assert [space["name"] for space in facedex("space", "list", "--json").json["spaces"]] == [
        "sface@1"
    ]
    mixed = facedex("search", "--image", str(tmp_path / "one.jpg"))
    assert mixed.status == 2
    assert "sface@1" in mixed.err


def test_facts_that_come_later_fill_in_what_was_not_known(facedex: Facedex, tmp_path: Path) -> None:
    pictures.astronaut().save(tmp_path / "one.jpg", quality=95)
    pictures.group().save(tmp_path / "six.jpg", quality=95)
    assert facedex("ingest", str(tmp_path), "--json").json["images"] == 2
    manifest = tmp_path / "people.csv"
    manifest.write_text("path,person,year\none.jpg,Ann,2020\nsix.jpg,,2021\n")
    later = facedex("ingest", str(tmp_path), "--metadata", str(manifest), "--json").json
    assert (later["images"], later["known"]) == (0, 2)
    assert facedex("count", "--where", "year = 2021", "--json").json == {"count": 6}
    (ann,) = facedex("list", "--where", "person = 'Ann'", "--json").json["faces"]
    assert ann["attributes"]["year"] == 2020
    manifest.write_text("path,person,year\none.jpg,Ann,1999\n")
    facedex("ingest", "--metadata", str(manifest))
    assert facedex("count", "--where", "year = 1999", "--json").json == {"count": 0}
