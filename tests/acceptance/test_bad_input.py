"""Every kind of broken input: a clear refusal each, the rest goes on, nothing is half-written."""

import os
from pathlib import Path

import pytest

from tests import pictures
from tests.acceptance.conftest import Facedex

pytestmark = pytest.mark.weights


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A folder with one of each."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    person = pictures.astronaut()
    jpeg = pictures.encoded(person, "JPEG", quality=90)
    files: dict[str | bytes, bytes] = {
        "good.jpg": jpeg,
        "same-again.jpg": jpeg,
        "empty.jpg": b"",
        "text.jpg": b"this is no picture",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "bomb.png": pictures.bomb(),
        "cmyk.jpg": pictures.encoded(person.convert("CMYK"), "JPEG"),
        "sixteen.png": pictures.sixteen_bit(person),
        "palette.png": pictures.encoded(person.quantize(64), "PNG"),
        "animated.gif": pictures.animation(person, "GIF"),
        "animated.webp": pictures.animation(person, "WEBP"),
        "turned.jpg": pictures.rotated(person, 6),
        "no-face.png": pictures.encoded(person.crop((0, 250, 200, 500)).resize((64, 64)), "PNG"),
        "forty.png": pictures.encoded(pictures.crowd(40), "PNG"),
        "line\nbreak.jpg": pictures.encoded(person, "JPEG", quality=80),
        b"not-utf8-\xff.jpg": pictures.encoded(person, "JPEG", quality=70),
    }
    for name, content in files.items():
        (folder / os.fsdecode(name)).write_bytes(content)
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    return folder


def test_each_broken_picture_is_refused_with_its_reason_and_the_rest_goes_in(
    facedex: Facedex, zoo: Path
) -> None:
    ran = facedex("ingest", str(zoo), "--json")
    assert ran.status == 0, ran.err
    refused = {Path(one["path"]).name: one["reason"] for one in ran.json["refused"]}
    reasons = {
        "empty.jpg": "empty",
        "text.jpg": "not a picture",
        "truncated.jpg": "truncated",
        "bomb.png": "pixels",
        "no-face.png": "no face",
        "loop": "folder above",
        "nowhere.jpg": "",
    }
    assert set(refused) == set(reasons)
    for name, word in reasons.items():
        assert word in refused[name], (name, refused[name])
    assert ran.json["images"] == 10
    assert ran.json["known"] == 1  # same-again.jpg
    listed = facedex("list", "--json", "--limit", "500").json["faces"]
    by_image: dict[str, int] = {}
    for face in listed:
        name = Path(face["image"]).name
        by_image[name] = by_image.get(name, 0) + 1
    assert by_image.pop("forty.png") == 40
    assert len(by_image) == 9
    again = facedex("ingest", str(zoo), "--json").json
    assert (again["images"], again["known"], len(again["refused"])) == (0, 11, len(refused))
    check = facedex("check", "--json")
    assert check.status == 0
    assert check.json["store"] == check.json["index"] == len(listed)


def test_a_turned_picture_gives_the_same_face(facedex: Facedex, zoo: Path) -> None:
    facedex("ingest", str(zoo / "turned.jpg"), "--json")
    hits = facedex("search", "--image", str(zoo / "good.jpg"), "--json").json["hits"]
    assert hits[0]["similarity"] > 0.95


def test_a_manifest_naming_missing_files_refuses_those(facedex: Facedex, zoo: Path) -> None:
    manifest = zoo / "people.csv"
    manifest.write_text("path,person,year\ngood.jpg,Ann,2020\nmissing.jpg,Ben,2021\n")
    ran = facedex("ingest", "--metadata", str(manifest), "--json")
    assert ran.status == 0, ran.err
    assert ran.json["images"] == 1
    assert [Path(one["path"]).name for one in ran.json["refused"]] == ["missing.jpg"]
    hit = facedex("list", "--where", "year = 2020", "--json").json["faces"][0]
    assert hit["person"] == "Ann"


def test_a_probe_that_shows_no_face_is_wrong_usage_with_its_reason(
    facedex: Facedex, zoo: Path
) -> None:
    facedex("ingest", str(zoo / "good.jpg"))
    for name, reason in (
        ("text.jpg", "not a picture"),
        ("no-face.png", "no face found"),
        ("nowhere.jpg", "no such file"),
    ):
        ran = facedex("search", "--image", str(zoo / name))
        assert ran.status == 2, ran.err
        assert name in ran.err
        assert reason in ran.err


def test_one_picture_under_two_names_is_refused_with_both_paths(
    facedex: Facedex, zoo: Path
) -> None:
    manifest = zoo / "people.csv"
    manifest.write_text("path,person\ngood.jpg,Ann\nsame-again.jpg,Ben\nturned.jpg,Ann\n")
    ran = facedex("ingest", "--metadata", str(manifest), "--json")
    (refused,) = ran.json["refused"]
    assert Path(refused["path"]).name == "same-again.jpg"
    assert str(zoo / "good.jpg") in refused["reason"]
    assert "Ann" not in refused["reason"]
    assert "Ben" not in refused["reason"]
    assert facedex("count", "--where", "person = 'Ann'", "--json").json == {"count": 2}


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ("qality > 0.5", "quality"),  # the suggestion
        ("quality > 'high'", "number"),
        ("quality >", "end of the filter"),
        ("quality + 1 > 2", "+"),
        ("tags = 'a'", "tags"),
    ],
)
def test_a_wrong_filter_is_a_usage_error_that_helps(
    facedex: Facedex, where: str, word: str
) -> None:
    facedex("collection", "create", "default")
    ran = facedex("count", "--where", where)
    assert ran.status == 2
    assert word in ran.err
    assert "Traceback" not in ran.err


def test_a_path_that_is_not_there_is_said(facedex: Facedex, tmp_path: Path) -> None:
    ran = facedex("ingest", str(tmp_path / "nothing"), "--json")
    assert ran.status in (0, 2)
    assert "nothing" in ran.err + ran.out
    assert "Traceback" not in ran.err


def test_a_database_that_cannot_be_reached_is_status_3(facedex: Facedex) -> None:
    ran = facedex("--database-url", "postgresql://nobody:secret@127.0.0.1:1/none", "count")
    assert ran.status == 3
    assert "secret" not in ran.err + ran.out
    assert "Traceback" not in ran.err
