"""Protected lists from outside: members are found, and nobody else sees a difference."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from facedex.handle import open_facedex
from tests import pictures
from tests.acceptance.conftest import Ran, run

pytestmark = pytest.mark.weights

ON = ("protected", "on", "--purpose", "find forgeries", "--basis", "consent")
# Times, and the numbers of transactions.
PASSING = {"token", "seconds", "at", "created_at", "timings", "microseconds"}


def saved(picture: Image.Image, path: Path) -> str:
    picture.save(path, quality=95)
    return str(path)


@pytest.fixture
def authentic(tmp_path: Path) -> list[str]:
    """Pictures of the member."""
    whole = pictures.astronaut()
    (tmp_path / "authentic").mkdir()
    return [
        saved(whole.crop((60, 0, 440, 400)), tmp_path / "authentic" / "one.jpg"),
        saved(whole.crop((100, 0, 400, 320)), tmp_path / "authentic" / "two.jpg"),
    ]


@pytest.fixture
def strangers(tmp_path: Path) -> str:
    """A folder with six people."""
    (tmp_path / "first").mkdir()
    saved(pictures.group(), tmp_path / "first" / "group.jpg")
    return str(tmp_path / "first")


@pytest.fixture
def uploads(tmp_path: Path) -> str:
    """A folder with the member, another way round, and with a stranger."""
    (tmp_path / "uploads").mkdir()
    mirrored = pictures.astronaut().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    saved(mirrored.crop((50, 0, 480, 420)), tmp_path / "uploads" / "member.jpg")
    saved(pictures.group().crop((670, 280, 920, 560)), tmp_path / "uploads" / "stranger.jpg")
    return str(tmp_path / "uploads")


def at(home: Path) -> Callable[..., Ran]:
    return lambda *words: run(home, *words)


def faces_of(facedex: Callable[..., Ran], name: str) -> list[int]:
    listed = facedex("list", "--limit", "1000", "--json").json["faces"]
    return [one["face"] for one in listed if Path(one["image"]).name == name]


def test_a_member_is_found_at_ingest_with_the_closest_pictures_first(
    home: Path, authentic: list[str], strangers: str, uploads: str
) -> None:
    facedex = at(home)
    facedex("ingest", strangers)
    assert facedex(*ON).status == 0
    added = facedex("protected", "add", "Ann", *authentic, "--json")
    assert added.status == 0, added.err
    assert (added.json["pictures"], added.json["compared"], added.json["alerts"]) == (2, 6, 0)
    assert facedex("ingest", uploads).status == 0
    told = facedex("protected", "alerts", "--new", "--json")
    [alert] = told.json["alerts"]
    assert [alert["face"]] == faces_of(facedex, "member.jpg")
    assert alert["person"] == added.json["person"]
    assert alert["similarity"] >= alert["threshold"] > 0.2
    assert {near["path"] for near in alert["closest"]} == set(authentic)
    verified = {
        path: facedex("verify", f"{uploads}/member.jpg", path, "--json").json["similarity"]
        for path in authentic
    }
    for near in alert["closest"]:
        assert near["similarity"] == pytest.approx(verified[near["path"]], abs=2e-3)
    similarities = [near["similarity"] for near in alert["closest"]]
    assert similarities == sorted(similarities, reverse=True)
    assert "Ann" not in told.out
    assert facedex("protected", "alerts", "--seen", str(alert["alert"])).status == 0
    assert facedex("protected", "alerts", "--new", "--json").json["alerts"] == []
    assert facedex("protected", "off", "--yes").status == 0
    assert facedex("protected", "alerts").status == 2


def test_a_member_is_found_by_the_worker_and_in_what_is_enrolled(
    home: Path, authentic: list[str], strangers: str, uploads: str, tmp_path: Path
) -> None:
    facedex = at(home)
    facedex("ingest", strangers)
    facedex(*ON)
    facedex("protected", "add", "Ann", *authentic)
    facedex("ingest", uploads, "--later")
    assert facedex("worker", "--drain").status == 0
    # What `alerts` says is of what was matched before it: otherwise `compared` would not be 0.
    assert facedex("protected", "match", "--json").json == {"compared": 0, "alerts": 0}
    assert len(facedex("protected", "alerts", "--json").json["alerts"]) == 1
    other = saved(pictures.astronaut().filter(ImageFilter.SHARPEN), tmp_path / "other.jpg")
    assert facedex("enroll", "Eve", other).status == 0
    assert facedex("protected", "match", "--json").json == {"compared": 0, "alerts": 0}
    assert len(facedex("protected", "alerts", "--json").json["alerts"]) == 2


def test_pictures_that_must_not_stand_for_a_member_are_refused_with_the_reason(
    home: Path, authentic: list[str], strangers: str, uploads: str, tmp_path: Path
) -> None:
    facedex = at(home)
    assert facedex(*ON).status == 2  # nothing is there that could be matched
    facedex("ingest", strangers)
    assert facedex("protected", "add", "Ann", *authentic).status == 2  # it is off
    facedex(*ON)
    small = pictures.astronaut().crop((100, 0, 400, 320)).resize((30, 32))
    blurred = saved(
        small.filter(ImageFilter.GaussianBlur(2)).resize((300, 320)), tmp_path / "blurred.jpg"
    )
    empty = saved(Image.new("RGB", (300, 300), "grey"), tmp_path / "empty.jpg")
    stranger = f"{uploads}/stranger.jpg"
    added = facedex("protected", "add", "Ann", authentic[0], empty, blurred, "--json")
    reasons = {Path(one["path"]).name: one["reason"] for one in added.json["refused"]}
    assert (added.status, added.json["pictures"]) == (0, 1)
    assert "no face" in reasons["empty.jpg"]
    assert "quality" in reasons["blurred.jpg"] or "no face" in reasons["blurred.jpg"]
    unlike = facedex("protected", "add", "Ann", stranger, "--json")
    assert unlike.status == 1
    assert "other pictures" in unlike.json["refused"][0]["reason"]
    taken = facedex("protected", "add", "Bob", authentic[1], "--json")
    assert taken.status == 1
    assert f"looks like #{added.json['person']}" in taken.json["refused"][0]["reason"]
    assert [one["name"] for one in facedex("protected", "list", "--json").json["persons"]] == [
        "Ann"
    ]


@pytest.mark.data
def test_of_ten_people_on_the_list_nearly_every_new_picture_raises_an_alert(
    home: Path, lfw_small: Path
) -> None:
    folders = sorted(lfw_small.iterdir())
    listed, others = folders[:100:10], folders[1:100:10]
    given = {folder: sorted(folder.iterdir())[:3] for folder in listed}
    planted = [path for folder in listed for path in sorted(folder.iterdir())[3:]]
    strange = [path for folder in others for path in sorted(folder.iterdir())]
    with open_facedex(home=home, workers=1) as facedex:
        facedex.ingest(strange[:1])
        facedex.protected.on(purpose="test", basis="a public data set")
        persons = {
            facedex.protected.add(folder.name, paths).person: folder
            for folder, paths in given.items()
        }
        facedex.ingest([*planted, *strange])
        images = {
            one.face: Path(os.fsdecode(one.image or b"")) for one in facedex.faces(limit=1_000)
        }
        alerts = facedex.protected.alerts(limit=1_000)
    found = {
        images[one.face]
        for one in alerts
        if one.face is not None and images[one.face].parent == persons[one.person]
    }
    assert len(found & set(planted)) >= 0.97 * len(planted)
    # A member may stand in the background of a stranger's picture.
    assert len(alerts) - len(found) <= 0.03 * len(strange)
    for one in alerts:
        authentic = {str(path).encode() for path in given[persons[one.person]]}
        assert set(one.paths) == authentic


def lasting(value: Any) -> Any:
    """The same without what passes: times, and numbers of transactions."""
    match value:
        case dict():
            return {name: lasting(one) for name, one in value.items() if name not in PASSING}
        case list():
            return list(map(lasting, value))
        case _:
            return value


def told(ran: Ran) -> tuple[int, Any, str]:
    """Status, what was printed, and what was said beside it."""
    said = re.sub(r"[\d.]+ ?(s|ms|images/s)\b", "-", ran.err)
    try:
        return ran.status, lasting(json.loads(ran.out)), said
    except ValueError:
        return ran.status, re.sub(r"in [\d.]+ s", "in - s", ran.out), said


@pytest.mark.timeout(400)
def test_what_everybody_sees_is_the_same_with_and_without_a_member(
    new_home: Callable[[], Path],
    authentic: list[str],
    strangers: str,
    uploads: str,
    tmp_path: Path,
) -> None:
    member, stranger = f"{uploads}/member.jpg", f"{uploads}/stranger.jpg"
    out = tmp_path / "out.parquet"
    asked = (
        ("ingest", uploads, "--json"),
        ("enroll", "Bob", stranger, "--json"),
        ("identify", member, "--json"),
        ("identify", member),
        ("identify", stranger, "--json"),
        ("verify", member, authentic[0], "--json"),
        ("verify", member, "--person", "Ann"),
        ("search", "--face", "1", "--json"),
        ("list", "--json"),
        ("count", "--json"),
        ("count", "--where", "protected = 1"),
        ("collection", "list", "--json"),
        ("count", "-c", "protected"),
        ("space", "list", "--json"),
        ("person", "list", "--json"),
        ("person", "show", "Bob", "--json"),
        ("person", "show", "Ann"),
        ("person", "events", "--json"),
        ("check", "--json"),
        ("jobs", "--json"),
        ("export", str(out), "--json"),
    )
    answers = {}
    for listed in (True, False):
        facedex = at(new_home())
        facedex("ingest", strangers)
        if listed:
            facedex(*ON)
            facedex("protected", "add", "Ann", *authentic)
        answers[listed] = [told(facedex(*words)) for words in asked]
        answers[listed].append((0, out.read_bytes(), ""))
        if listed:
            assert facedex("protected", "alerts", "--json").json["alerts"]
    for words, one, two in zip((*asked, "file"), answers[True], answers[False], strict=True):
        assert one == two, words
    assert answers[True][2][1]["verdict"] == "unknown"
