"""Tar shards: webdataset, img2dataset, plain; compressed, damaged, cut off."""

import io
import json
import logging
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.sources.listing import list_pictures
from indexer.sources.pictures import Facts, Picture, Refused, SourceOptions, Span, read_bytes
from retrieval.limits import IMAGE_BYTES_MAX, SIDECAR_BYTES_MAX
from retrieval.values import Box

PLAIN = SourceOptions()
CAPTURED = Facts(origin="captured")


Mode = Literal["w", "w:gz", "w:bz2", "w:xz"]
MODES: dict[str, Mode] = {
    "tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz",
}  # fmt: skip


def write_tar(path: Path, members: dict[str, bytes], *, mode: Mode = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def listed(path: Path, *, options: SourceOptions = PLAIN) -> list[Picture | Refused]:
    return list(list_pictures([path], options=options))


def pictures(path: Path, *, options: SourceOptions = PLAIN) -> list[Picture]:
    """What is listed; nothing may be refused."""
    listing = listed(path, options=options)
    assert refused(listing) == []
    return [entry for entry in listing if isinstance(entry, Picture)]


def contents(listing: Iterable[Picture | Refused]) -> dict[str | None, bytes]:
    return {e.member: read_bytes(e) for e in listing if isinstance(e, Picture)}


def refused(listing: Iterable[Picture | Refused]) -> list[tuple[str | None, str]]:
    return [(e.member, e.reason) for e in listing if isinstance(e, Refused)]


@pytest.mark.parametrize("suffix", MODES)
def test_a_plain_tar_gives_its_pictures_in_its_order(tmp_path: Path, suffix: str) -> None:
    members = {"b/2.jpg": b"two" * 500, "b/1.PNG": b"one", "read.me": b"-", "é" * 80 + ".jpg": b"e"}
    listing = pictures(write_tar(tmp_path / f"shard.{suffix}", members, mode=MODES[suffix]))
    assert list(contents(listing).items()) == [m for m in members.items() if m[0] != "read.me"]
    assert {type(entry.content) for entry in listing} == {Span if suffix == "tar" else bytes}


def test_a_tar_inside_a_folder_is_passed_over_and_a_glob_opens_it(tmp_path: Path) -> None:
    write_tar(tmp_path / "1.tar", {"a.jpg": b"a"})
    assert list(list_pictures([tmp_path], options=PLAIN)) == []
    assert contents(list_pictures([f"{tmp_path}/*.tar"], options=PLAIN)) == {"a.jpg": b"a"}


def test_webdataset_sidecars_become_facts_and_attributes(tmp_path: Path) -> None:
    says = {
        "person": "p-17", "origin": "generated", "captured_at": "2024-05-31", "frame": 3,
        "box": [1, 2, 3.5, 4], "tags": ["hat", "smile"], "age": 31, "id": 9, "source": "film",
        "width": 640, "score": 0.5, "night": True, "note": "", "words": ["x", "y"], "none": None,
    }  # fmt: skip
    shard = write_tar(
        tmp_path / "0.tar",
        {
            "x/001.jpg": b"one", "x/001.json": json.dumps(says).encode(), "x/001.txt": b"a man\n",
            "x/002.txt": b"no json", "x/002.seg.png": b"mask", "x/002.jpg": b"two",
            "y/002.jpg": b"three",
        },
    )  # fmt: skip
    one, mask, two, three = pictures(shard)
    assert one.facts.captured_at is not None
    assert one.facts.captured_at.isoformat() == "2024-05-31T00:00:00+00:00"
    assert one.facts == Facts(
        person="p-17", origin="generated", captured_at=one.facts.captured_at,
        captured_at_assumed_utc=True, frame=3, box=Box(left=1, top=2, right=3.5, bottom=4),
        tags=("hat", "smile"), age=31.0, external_id="9", source="film",
        attributes={
            "width": 640, "score": 0.5, "night": True, "note": "", "words": ("x", "y"),
        },
        captions=("a man",),
    )  # fmt: skip
    captioned = Facts(origin="captured", captions=("no json",))
    assert (mask.facts, two.facts, three.facts) == (captioned, captioned, CAPTURED)
    assert contents(listed(shard))["x/002.seg.png"] == b"mask"


def test_img2dataset_gives_what_was_downloaded(tmp_path: Path) -> None:
    common = {"key": "0", "url": "https://example.org/0", "error_message": None, "exif": "{}"}
    good = {**common, "status": "success", "caption": "two people", "width": 512, "sha256": "ab"}
    bad = {**common, "status": "failed_to_resize"}
    shard = write_tar(
        tmp_path / "00000.tar",
        {
            "0.jpg": b"0", "0.json": json.dumps(good).encode(), "0.txt": b"two people",
            "1.jpg": b"1", "1.json": json.dumps(bad).encode(),
            "2.json": json.dumps(bad).encode(),
        },
    )  # fmt: skip
    (picture,) = pictures(shard)
    assert picture.member == "0.jpg"
    assert picture.facts.attributes == {
        "key": "0", "url": "https://example.org/0", "width": 512, "sha256": "ab",
    }  # fmt: skip
    assert picture.facts.captions == ("two people",)


def test_keys_that_fit_no_attribute_are_left_out_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    says = json.dumps({"Emotion": "sad", "deep": {"a": 1}, "quality": 1, "1st": 2, "big": 2**70})
    members = {f"{i}.{suffix}": says.encode() for i in range(3) for suffix in ["jpg", "json"]}
    shard = write_tar(tmp_path / "0.tar", members)
    with caplog.at_level(logging.WARNING):
        assert [picture.facts for picture in pictures(shard)] == [CAPTURED] * 3
    assert caplog.messages == [
        f"{shard}: these keys became no attributes: 1st, Emotion, big, deep, quality"
    ]
    (first, *_) = pictures(shard, options=SourceOptions(allow_sensitive=True))
    assert first.facts.attributes == {"Emotion": "sad"}


def test_sidecars_without_a_picture_beside_them_are_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = write_tar(tmp_path / "0.tar", {"1.json": b"{}", "a.jpg": b"a", "1.jpg": b"1"})
    with caplog.at_level(logging.WARNING):
        assert len(listed(shard)) == 2
    assert caplog.messages == [f"{shard}: 1 sidecars have no picture beside them"]


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        (b"{", "the .json beside it is damaged"),
        (b"[" * 100_000, "the .json beside it is damaged"),
        (b"[1]", "the .json beside it holds no object"),
        (b'{"person": "\xe9"}', "the .json beside it is not UTF-8"),
        (b'{"person": ["a"]}', "the key 'person' holds no text"),
        (b'{"person": "\\ud800"}', "the key 'person' holds text that is no valid Unicode"),
        (
            b'{"origin": "painted"}',
            "the key 'origin' holds another word than captured, generated, restored",
        ),
        (b'{"frame": 1.5}', "the key 'frame' holds no whole number"),
        (b'{"age": true}', "the key 'age' holds no finite number"),
        (b'{"box": [0, 0, 5]}', "the key 'box' holds no box: four numbers left,top,right,bottom"),
        (b" " * (SIDECAR_BYTES_MAX + 1), "the .json beside it has more than 1,048,576 bytes"),
    ],
)  # fmt: skip
def test_a_wrong_sidecar_costs_its_own_pictures_only(
    tmp_path: Path, sidecar: bytes, reason: str
) -> None:
    members = {"1.jpg": b"1", "1.json": sidecar, "2.jpg": b"2"}
    listing = listed(write_tar(tmp_path / "0.tar", members))
    assert refused(listing) == [("1.jpg", reason)]
    assert contents(listing) == {"2.jpg": b"2"}


def test_a_picture_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "0.tar.gz"
    write_tar(path, {"huge.jpg": bytes(IMAGE_BYTES_MAX + 1), "b.jpg": b"b"}, mode="w:gz")
    listing = listed(path)
    assert refused(listing) == [
        ("huge.jpg", "its size in bytes is 67,108,865; at most 67,108,864 is allowed")
    ]
    assert contents(listing) == {"b.jpg": b"b"}


def test_links_and_folders_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.jpg": b"a"})
    with tarfile.open(path, "a") as archive:
        for kind in [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]:
            info = tarfile.TarInfo(f"{kind!r}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert contents(listed(path)) == {"a.jpg": b"a"}


def test_many_pictures_that_share_a_name_are_all_listed(tmp_path: Path) -> None:
    members = {f"clip.{i:06}.jpg": b"%d" % i for i in range(100)}
    assert contents(listed(write_tar(tmp_path / "0.tar", members))) == members


def test_members_give_persons_tracks_and_frames(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "lfw.tar", {"./lfw/Ann/a_0001.jpg": b"1", "top_2.jpg": b"2"})
    options = SourceOptions(person_from_folder=True, frames=True)
    facts = [picture.facts for picture in pictures(shard, options=options)]
    assert [(f.person, f.track, f.frame) for f in facts] == [
        ("Ann", "lfw/Ann", 1), (None, "lfw.tar", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"no tar at all", b"\x1f\x8bno gzip", bytes(100)])
def test_what_is_no_tar_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    ((member, reason),) = refused(listed(tmp_path / "x.tar"))
    assert member is None
    assert reason.startswith("the archive cannot be read further: ")


def test_a_folder_named_like_a_tar_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.tar").mkdir()
    (tmp_path / "x.tar/a.jpg").write_bytes(b"a")
    assert contents(listed(tmp_path / "x.tar")) == {None: b"a"}


MEMBERS = {f"{i:02}.jpg": bytes([i]) * 700 for i in range(20)}


@settings(deadline=None, max_examples=60)
@given(data=st.data(), mode=st.sampled_from(["w", "w:gz"]))
def test_of_a_tar_that_was_cut_off_the_beginning_stands(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, mode: Mode
) -> None:
    path = tmp_path_factory.mktemp("cut") / "0.tar"
    whole = write_tar(path, MEMBERS, mode=mode).read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:cut])
    listing = listed(path)
    read = contents(listing)
    # A cut behind the end mark, in padding or a checksum of gzip, costs nothing.
    assert len(refused(listing)) == 1 or (not refused(listing) and len(read) == len(MEMBERS))
    assert list(read.items()) == list(MEMBERS.items())[: len(read)]
    if mode == "w":
        assert len(read) == min((cut + 1024 - 700) // (512 + 1024), len(MEMBERS))
        assert len(refused(listing)) == (cut < 20 * (512 + 1024) + 512)


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", MEMBERS)
    data = bytearray(path.read_bytes())
    data[1536 * 5 + 150] ^= 0xFF  # in the checksum of the sixth header
    path.write_bytes(data)
    listing = listed(path)
    assert list(contents(listing)) == list(MEMBERS)[:5]
    assert refused(listing) == [
        (None, "the archive cannot be read further: it is damaged or cut off")
    ]
