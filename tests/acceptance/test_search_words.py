"""Searching by words, regions of pictures and captions, from the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from api.cli.output import Session
from api.cli.search import search_command
from facedex.handle import Facedex as Opened
from facedex.handle import open_facedex
from retrieval.errors import UsageError
from retrieval.store.captions import NewCaption, add_captions
from retrieval.values import Box
from tests.acceptance.conftest import Facedex
from tests.pictures import encoded, group
from tests.words import small_model

pytestmark = [pytest.mark.weights, pytest.mark.timeout(900)]
SAYINGS = ("a man with a beard", "a smiling woman with earrings", "somebody in a hat")


@pytest.fixture
def six(tmp_path: Path) -> Path:
    """A picture of six people."""
    path = tmp_path / "six.jpg"
    path.write_bytes(encoded(group(), "JPEG", quality=95))
    return path


@pytest.fixture
def opened(home: Path, tmp_path: Path, six: Path) -> Iterator[Opened]:
    """Six stored faces with a look each, and three captions."""
    with open_facedex(home=home, workers=1) as opened:
        opened.words.add_space("small@1", small_model(tmp_path / "given").path)
        opened.ingest([six])
        faces = [record.face for record in opened.faces()]
        with opened.store.writing() as connection:
            new = [
                NewCaption(face=face, text=saying)
                for face, saying in zip(faces, SAYINGS, strict=False)
            ]
            add_captions(connection, new, collection=opened.collection())
        opened.words.fill_captions(opened.collection())
        yield opened


def test_a_region_or_a_place_by_size_picks_each_of_six_faces(opened: Opened, six: Path) -> None:
    records = opened.faces()
    assert len(records) == 6
    by_size = sorted(records, key=lambda one: -_area(one.box))
    for place, record in enumerate(by_size, start=1):
        assert record.box is not None
        around = Box(
            left=record.box.left - 20,
            top=record.box.top - 10,
            right=record.box.right + 5,
            bottom=record.box.bottom + 25,
        )
        inside = Box(
            left=record.box.left + 0.3 * (record.box.right - record.box.left),
            top=record.box.top + 0.3 * (record.box.bottom - record.box.top),
            right=record.box.right,
            bottom=record.box.bottom,
        )
        probes = [opened.probes.of_picture(six, region=region) for region in (around, inside)]
        probes.append(opened.probes.of_picture(six, pick=place))
        for probe in probes:
            first = opened.search(probe, count=2).hits[0]
            assert first[0].record.face == record.face
            assert first[0].similarity == pytest.approx(1.0, abs=1e-3)
            assert first[1].similarity is not None
            assert first[1].similarity < 0.5
    with pytest.raises(UsageError, match="region"):
        opened.probes.of_picture(six, region=Box(left=0, top=0, right=5, bottom=5))
    with pytest.raises(UsageError, match="6 faces"):
        opened.probes.of_picture(six, pick=7)


def _area(box: Box | None) -> float:
    assert box is not None
    return (box.right - box.left) * (box.bottom - box.top)


def test_the_command_line_asks_by_faces_words_and_captions(
    opened: Opened, facedex: Facedex, six: Path
) -> None:
    largest = max(opened.faces(), key=lambda one: _area(one.box))
    assert largest.box is not None
    region = ",".join(
        f"{side:.1f}"
        for side in (largest.box.left, largest.box.top, largest.box.right, largest.box.bottom)
    )
    both = facedex(
        *("search", "--image", str(six), "--region", region, "--text", "a smiling woman"),
        *("--not-text", "a hat", "--weight", "0.2", "--where", "quality >= 0", "--json"),
    )
    assert both.status == 0, both.err
    hits = both.json["hits"]
    assert hits[0]["face"] == largest.face
    assert len(hits) == 6
    for hit in hits:
        assert hit.keys() >= {"face", "external_id", "similarity", "image", "person", "attributes"}
        assert hit["similarities"].keys() == {"identity", "text"}
        shares = both.json["plan"]["weights"]
        parts = hit["similarities"]
        assert hit["similarity"] == shares[0] * parts["identity"] + shares[1] * parts["text"]
    assert both.json["tier"] == "exact"
    assert both.json["survivors"] == 6
    worded = facedex("search", "--words", "earrings or beard", "--json").json
    assert [one["similarity"] for one in worded["hits"]] == [None, None]
    told = facedex("search", "--image", str(six), "--text", "earrings", "--words", "hat",
                   "--explain")  # fmt: skip
    assert told.status == 0, told.err
    assert "full-text search: 1 faces" in told.out
    assert "compose" in told.out
    captions = facedex("search", "--image", str(six), "--pick", "1", "--captions", "--json").json
    assert sorted(one["text"] for one in captions["hits"]) == sorted(SAYINGS)
    said = facedex("search", "--text", SAYINGS[1], "--captions", "-k", "1", "--json").json["hits"]
    assert said[0]["text"] == SAYINGS[1]
    assert said[0]["similarity"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one probe"),
        (["--face", "1", "--image", "x.jpg"], "name one probe"),
        (["--text", "smiling", "--pick", "1"], "--pick names a face"),
        (["--image", "x", "--pick", "1", "--region", "0,0,1,1"], "names a face"),
        (["--image", "x", "--region", "5,0,1,1"], "left"),
        (["--image", "x", "--region", "1,2,3"], "four numbers"),
        (["--vector", "x.npy", "--captions"], "captions are found by"),
        (["--words", "hat", "--captions"], "captions are found by"),
        (["--text", "smiling", "--weight", "2"], "2"),
    ],
)
def test_what_cannot_be_asked_is_said_with_status_2(words: list[str], message: str) -> None:
    ran = CliRunner().invoke(search_command, words, obj=Session(options={}))
    assert ran.exit_code == 2, ran.output
    assert message in ran.output


@pytest.mark.usefixtures("opened")
def test_flagged_words_are_told_and_asked_all_the_same(home: Path, facedex: Facedex) -> None:
    (home / "facedex.toml").write_text('trait_words_policy = "flag"\n')
    ran = facedex("search", "--text", "a trustworthy man", "--json", folder=home)
    assert ran.status == 0, ran.err
    assert ran.json["flagged"] == ["trustworthy"]
    assert "'trustworthy'" in ran.err
    assert len(ran.json["hits"]) == 6
