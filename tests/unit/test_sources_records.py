"""insightface's .rec files, written here by the layout that dmlc and MXNet document."""

import struct
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.sources.listing import list_pictures
from indexer.sources.pictures import Picture, Refused, SourceOptions, read_bytes

MAGIC = struct.pack("<I", 0xCED7230A)
PLAIN = SourceOptions()


def chunk(kind: int, data: bytes) -> bytes:
    return MAGIC + struct.pack("<I", kind << 29 | len(data)) + data + bytes(-len(data) % 4)


def record(data: bytes) -> bytes:
    """As dmlc's RecordIOWriter does it: split at every aligned magic, which is left out."""
    pieces, begin = [], 0
    for at in range(0, len(data) - 3, 4):
        if data[at : at + 4] == MAGIC:
            pieces.append(data[begin:at])
            begin = at + 4
    pieces.append(data[begin:])
    if len(pieces) == 1:
        return chunk(0, data)
    kinds = [1, *[2] * (len(pieces) - 2), 3]
    return b"".join(chunk(kind, piece) for kind, piece in zip(kinds, pieces, strict=True))


def packed(number: int, label: float | list[float], picture: bytes) -> bytes:
    """As mxnet.recordio.pack does it, with a header of flag, label, id, id2."""
    if isinstance(label, list):
        head = struct.pack("<IfQQ", len(label), 0, number, 0)
        return record(head + struct.pack(f"<{len(label)}f", *label) + picture)
    return record(struct.pack("<IfQQ", 0, label, number, 0) + picture)


def jpeg(number: int) -> bytes:
    return b"\xff\xd8" + bytes([number]) * (50 + number)


def insightface() -> list[bytes]:
    """Record 0, five pictures of two identities, one header for each identity."""
    pictures = [packed(i, float(i // 4), jpeg(i)) for i in range(1, 6)]
    return [
        packed(0, [6.0, 8.0], b""),
        *pictures,
        packed(6, [1.0, 4.0], b""),
        packed(7, [4.0, 6.0], b""),
    ]


def listed(path: Path, data: bytes) -> list[Picture | Refused]:
    path.write_bytes(data)
    return list(list_pictures([path], options=PLAIN))


def seen(listing: Iterable[Picture | Refused]) -> list[tuple[str | None, str | None, bytes]]:
    pictures = [entry for entry in listing if isinstance(entry, Picture)]
    return [(p.member, p.facts.person, read_bytes(p)) for p in pictures]


def reasons(listing: Iterable[Picture | Refused]) -> list[str]:
    return [entry.reason for entry in listing if isinstance(entry, Refused)]


EXPECTED = [(str(i), str(i // 4), jpeg(i)) for i in range(1, 6)]


def test_every_picture_comes_with_its_label_as_person(tmp_path: Path) -> None:
    assert seen(listed(tmp_path / "train.rec", b"".join(insightface()))) == EXPECTED


def test_the_first_record_tells_the_count(tmp_path: Path) -> None:
    path = tmp_path / "train.rec"
    path.write_bytes(b"".join(insightface()))
    assert list_pictures([path], options=PLAIN).count() == 5
    path.write_bytes(b"".join(insightface()[1:]))
    assert list_pictures([path], options=PLAIN).count() is None


def test_a_second_label_beside_the_identity_changes_nothing(tmp_path: Path) -> None:
    data = packed(3, [12.0, 1.0], jpeg(3))
    assert seen(listed(tmp_path / "x.rec", data)) == [("3", "12", jpeg(3))]


def test_a_label_that_is_no_whole_number_names_nobody(tmp_path: Path) -> None:
    data = packed(1, 0.5, jpeg(1)) + packed(2, float("nan"), jpeg(2))
    assert [person for _, person, _ in seen(listed(tmp_path / "x.rec", data))] == [None, None]


@pytest.mark.parametrize("before", range(5))
def test_a_picture_that_holds_the_magic_is_put_together_again(tmp_path: Path, before: int) -> None:
    picture = b"x" * before + MAGIC + b"y" * 8 + MAGIC * 2 + b"z"
    data = packed(1, 7.0, picture) + packed(2, 8.0, jpeg(2))
    assert seen(listed(tmp_path / "x.rec", data)) == [("1", "7", picture), ("2", "8", jpeg(2))]


@given(st.lists(st.lists(st.sampled_from([MAGIC, b"abcd", b"e"]), min_size=1), min_size=1))
def test_any_bytes_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, pictures: list[list[bytes]]
) -> None:
    path = tmp_path_factory.mktemp("rec") / "x.rec"
    data = b"".join(packed(i, float(i), b"".join(parts)) for i, parts in enumerate(pictures))
    expected = [(str(i), str(i), b"".join(parts)) for i, parts in enumerate(pictures)]
    assert seen(listed(path, data)) == expected


@pytest.mark.parametrize("place", [0, 3, 4, 5, 6, 7])
def test_a_damaged_record_costs_itself_only(tmp_path: Path, place: int) -> None:
    records = [bytearray(r) for r in insightface()]
    records[3][place] ^= 0x21  # magic or length, a length that is too short or leads astray
    listing = listed(tmp_path / "x.rec", b"".join(records))
    begin = sum(map(len, records[:3]))
    assert reasons(listing) == [
        f"no whole record at byte {begin:,}; {len(records[3]):,} bytes were passed over"
    ]
    assert seen(listing) == [EXPECTED[0], EXPECTED[1], *EXPECTED[3:]]


def test_a_header_that_claims_more_labels_than_fit_is_refused(tmp_path: Path) -> None:
    data = bytearray(packed(1, 7.0, jpeg(1)))
    data[8] = 200
    listing = listed(tmp_path / "x.rec", bytes(data) + packed(2, 8.0, jpeg(2)))
    assert reasons(listing) == ["the record at byte 8 has a damaged header"]
    assert seen(listing) == [("2", "8", jpeg(2))]


def test_an_empty_picture_is_refused(tmp_path: Path) -> None:
    listing = listed(tmp_path / "x.rec", packed(1, 7.0, b""))
    assert listing == [Refused(path=tmp_path / "x.rec", member="1", reason="it is empty")]


@settings(deadline=None)
@given(cut=st.integers(1, sum(map(len, insightface())) - 1))
def test_of_a_file_that_was_cut_off_the_beginning_stands(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    records = insightface()
    listing = listed(tmp_path_factory.mktemp("cut") / "x.rec", b"".join(records)[:cut])
    # Without the zeros at its end, a record is whole.
    ends = [sum(map(len, records[: i + 1])) for i in range(len(records))]
    bare = [end - (-(24 + len(jpeg(i))) % 4 if 1 <= i <= 5 else 0) for i, end in enumerate(ends)]
    assert seen(listing) == [EXPECTED[i - 1] for i in range(1, 6) if bare[i] <= cut]
    whole = any(bare[i] <= cut <= ends[i] for i in range(len(records)))
    assert sum(isinstance(entry, Refused) for entry in listing) == (not whole)


def test_what_is_no_rec_is_refused_once(tmp_path: Path) -> None:
    listing = listed(tmp_path / "x.rec", b"nothing of the kind" * 1000)
    assert reasons(listing) == ["no whole record at byte 0; 19,000 bytes were passed over"]


def test_damage_longer_than_what_is_read_at_once_is_passed_over(tmp_path: Path) -> None:
    noise = b"\x01\x02\x03\x04" * (2**20 // 4) * 2
    for shift in (-8, -4, 0, 4):
        gap = noise[: 2**20 + shift]
        data = packed(1, 7.0, jpeg(2)) + gap + packed(2, 8.0, jpeg(2))
        assert seen(listed(tmp_path / "x.rec", data)) == [
            ("1", "7", jpeg(2)), ("2", "8", jpeg(2)),
        ]  # fmt: skip
