"""Verify, identify and enroll from outside."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests import pictures
from tests.acceptance.conftest import Facedex

pytestmark = pytest.mark.weights


def saved(picture: Image.Image, path: Path) -> str:
    picture.save(path, quality=95)
    return str(path)


@pytest.fixture
def ann(tmp_path: Path) -> list[str]:
    """Pictures of one person that differ a little."""
    whole = pictures.astronaut()
    return [
        saved(whole, tmp_path / "whole.jpg"),
        saved(whole.crop((100, 0, 400, 320)), tmp_path / "cropped.jpg"),
        saved(whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT), tmp_path / "mirrored.jpg"),
    ]


@pytest.fixture
def other(tmp_path: Path) -> str:
    """Somebody else, out of the picture of six."""
    return saved(pictures.group().crop((670, 280, 920, 560)), tmp_path / "other.jpg")


def test_two_pictures_of_one_person_are_the_same_and_of_two_are_not(
    facedex: Facedex, ann: list[str], other: str
) -> None:
    # Nothing is stored yet: that takes no collection.
    same = facedex("verify", ann[0], ann[1], "--json")
    assert (same.status, same.json["verdict"], same.json["same"]) == (0, "same", True)
    assert same.json["similarity"] > same.json["threshold"]
    assert same.json["fmr_low"] <= 1e-5 <= same.json["fmr_high"]
    assert len(same.json["quality"]) == 2
    different = facedex("verify", ann[0], other, "--json")
    assert (different.status, different.json["same"]) == (1, False)
    stricter = facedex("verify", ann[0], ann[1], "--fmr", "1e-6", "--json").json
    assert stricter["threshold"] > same.json["threshold"]
    facedex("enroll", "Ann", ann[0])
    person = facedex("verify", ann[2], "--person", "Ann", "--json")
    assert (person.status, person.json["same"]) == (0, True)


def test_an_enrolled_person_is_identified_and_a_stranger_is_not(
    facedex: Facedex, ann: list[str], other: str
) -> None:
    enrolled = facedex("enroll", "Ann", *ann[:2], "--json")
    assert enrolled.status == 0, enrolled.err
    assert len(enrolled.json["faces"]) == 2
    assert enrolled.json["refused"] == []
    found = facedex("identify", ann[2], "--json").json
    assert found["verdict"] == "known"
    assert [one["name"] for one in found["candidates"]] == ["Ann"]
    assert found["candidates"][0]["person"] == enrolled.json["person"]
    assert found["gallery"] == 1
    assert found["fpir"] == pytest.approx(0.001, rel=0.01)
    stranger = facedex("identify", other, "--json").json
    assert (stranger["verdict"], stranger["candidates"]) == ("unknown", [])


def test_only_persons_with_a_face_that_passes_are_searched(
    facedex: Facedex, ann: list[str], other: str
) -> None:
    facedex("enroll", "Ann", ann[0])
    facedex("enroll", "Bob", other)
    facedex("update", "--where", "person = 'Bob'", "--set", "source=door")
    at_the_door = facedex("identify", ann[1], "--where", "source = 'door'", "--json").json
    assert (at_the_door["verdict"], at_the_door["gallery"]) == ("unknown", 1)
    anywhere = facedex("identify", ann[1], "--where", "quality >= 0", "--json").json
    assert (anywhere["verdict"], anywhere["gallery"]) == ("known", 2)


def test_a_picture_that_must_not_stand_for_a_person_is_refused_with_the_reason(
    facedex: Facedex, ann: list[str], other: str, tmp_path: Path
) -> None:
    facedex("enroll", "Ann", ann[0])
    small = pictures.astronaut().crop((100, 0, 400, 320)).resize((30, 32))
    blurred = saved(
        small.filter(ImageFilter.GaussianBlur(2)).resize((300, 320)), tmp_path / "blurred.jpg"
    )
    empty = saved(Image.new("RGB", (300, 300), "grey"), tmp_path / "empty.jpg")
    refused = facedex("enroll", "Bob", ann[1], empty, blurred, str(tmp_path / "none"), "--json")
    assert refused.status == 1
    reasons = {Path(one["path"]).name: one["reason"] for one in refused.json["refused"]}
    assert "looks like person #" in reasons["cropped.jpg"]
    assert "no face" in reasons["empty.jpg"]
    assert "quality" in reasons["blurred.jpg"] or "no face" in reasons["blurred.jpg"]
    assert "no such file" in reasons["none"]
    assert "Ann" not in refused.out + refused.err
    mixed = facedex("enroll", "Ann", ann[1], other, "--json")
    assert [Path(one["path"]).name for one in mixed.json["refused"]] == ["other.jpg"]
    assert "other pictures" in mixed.json["refused"][0]["reason"]
    assert len(mixed.json["faces"]) == 1


def test_a_poor_probe_gets_no_name_and_no_yes(
    facedex: Facedex, ann: list[str], tmp_path: Path
) -> None:
    facedex("enroll", "Ann", ann[0])
    noise = np.random.default_rng(0).integers(0, 80, (320, 300, 3), dtype=np.uint8)
    picture = pictures.astronaut().crop((100, 0, 400, 320)).resize((28, 30)).resize((300, 320))
    poor = saved(
        Image.fromarray(np.clip(np.asarray(picture) * 0.6 + noise, 0, 255).astype(np.uint8)),
        tmp_path / "poor.jpg",
    )
    found = facedex("identify", poor, "--json")
    assert found.status in (0, 2)
    if found.status == 0:
        assert found.json["verdict"] in ("insufficient_quality", "unknown")
        assert found.json["candidates"] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("verify", "one.jpg"), "name two"),
        (("identify",), "name one probe"),
        (("verify", "a.jpg", "b.jpg", "-c", "misspelt"), "no collection 'misspelt'"),
        (("identify", "a.jpg", "--fpir", "0"), "0<x<1"),
        (("verify", "a.jpg", "b.jpg", "--fmr", "2"), "0<x<1"),
    ],
)
def test_wrong_usage_is_told(facedex: Facedex, words: tuple[str, ...], told: str) -> None:
    ran = facedex(*words)
    assert ran.status == 2
    assert told in ran.err
