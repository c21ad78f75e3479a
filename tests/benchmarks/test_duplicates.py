"""Planted copies are the same ones each time, and pairs are counted as they should be."""

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.duplicates import pair, read_own, scored, split
from benchmarks.planted import KINDS, plant
from tests.pictures import astronaut

ORIGIN = {
    "planted0/encoded/a.jpg": "lfw/A/a.jpg",
    "planted0/encoded/b.jpg": "lfw/B/b.jpg",
    "planted0/text/c.jpg": "lfw/C/c.jpg",
}


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    (tmp_path / "originals").mkdir()
    paths = [tmp_path / "originals" / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        astronaut().crop((number, 0, 200 + number, 250)).save(path)
    return paths


def test_each_picture_is_copied_once_and_always_alike(pictures: list[Path], tmp_path: Path) -> None:
    first = plant(pictures, tmp_path / "one", each=2, seed=5)
    again = plant(pictures, tmp_path / "two", each=2, seed=5)
    assert sorted(first.values()) == sorted(pictures)
    assert {copy.parent.name for copy in first} == set(KINDS)
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
    sizes = {}
    for copy in first:
        with Image.open(copy) as opened:
            sizes[copy.parent.name] = opened.size
    assert sizes["mirrored"] == sizes["text"] == (200, 250)
    assert 0.8 <= sizes["cropped"][0] / 200 <= 0.95
    other = plant(pictures, tmp_path / "three", each=2, seed=6)
    assert list(other.values()) != list(first.values())


def test_too_few_pictures_are_an_error(pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few"):
        plant(pictures, tmp_path, each=3, seed=0)


def test_recall_counts_what_is_stored_and_precision_what_is_explained(tmp_path: Path) -> None:
    found = {
        pair("planted0/encoded/a.jpg", "lfw/A/a.jpg"),
        pair("lfw/A/a.jpg", "lfw/D/d.jpg"),  # copies of LFW's own
        pair("planted0/encoded/a.jpg", "lfw/D/d.jpg"),  # and so is this
        pair("lfw/A/a.jpg", "lfw/C/c.jpg"),  # is none
    }
    stored = {*ORIGIN, *ORIGIN.values()} - {"planted0/text/c.jpg"}
    line = scored(found, ORIGIN, {("a.jpg", "d.jpg")}, stored=stored, work=tmp_path)
    assert line["recall"]["planted0"]["encoded"] == 0.5
    assert line["missed"] == {"planted0/encoded": 1}
    assert (line["pairs"], line["precision"], line["refused"]) == (4, 0.75, 1)
    assert (tmp_path / "unexplained.csv").read_text().split() == ["lfw/A/a.jpg,lfw/C/c.jpg"]


def test_copies_of_one_original_explain_each_other() -> None:
    origin = {"planted0/text/a.jpg": "lfw/A/a.jpg", "planted1/text/a.jpg": "lfw/A/a.jpg"}
    explained, unexplained = split([tuple(origin)], origin, set())
    assert (len(explained), unexplained) == (1, [])


def test_own_copies_are_two_names_a_line(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("b.jpg a.jpg seen\n\nc.jpg d.jpg\n")
    assert read_own(tmp_path / "own.txt") == {("a.jpg", "b.jpg"), ("c.jpg", "d.jpg")}
