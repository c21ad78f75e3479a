"""What is kept of originals: read once, whole after a torn write, of archives as of files."""

import hashlib
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.likening import NOT_READ, RECORD, Signatures, signatures_of
from retrieval.likeness import signature
from retrieval.store.looks import LackingPicture
from retrieval.values import FaceId, ImageId
from tests.pictures import astronaut, encoded, group

FACE = np.array([[204, 107], [249, 107], [229, 133], [207, 156], [246, 155]], np.float32)


@pytest.fixture
def contents() -> list[bytes]:
    pictures = [astronaut(), group(), astronaut().crop((100, 0, 400, 300))]
    return [encoded(one, "PNG") for one in pictures]


def stored(path: Path, content: bytes, *, member: str | None = None, faces: int = 1):
    return LackingPicture(
        image=ImageId(1),
        path=os.fsencode(path),
        member=member,
        sha256=hashlib.sha256(content).digest(),
        landmarks={FaceId(number): FACE + number for number in range(faces)},
    )


def in_files(folder: Path, contents: Sequence[bytes]) -> list[LackingPicture]:
    made = []
    for number, content in enumerate(contents):
        (folder / f"{number}.png").write_bytes(content)
        made.append(stored(folder / f"{number}.png", content, faces=number))
    return made


class Kept:
    """Asks for signatures, and counts what was read for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, pictures: Sequence[LackingPicture]) -> tuple[Signatures, int]:
        read = []
        found = signatures_of(
            pictures, folder=self.folder, threads=2, progress=lambda done, _: read.append(done)
        )
        return found, len(read)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "kept")


def check(found: Signatures, contents: Sequence[bytes]) -> None:
    """They are what `signature` says of each picture."""
    for number, content in enumerate(contents):
        pixels = np.asarray(Image.open(io.BytesIO(content)))
        points = np.array([FACE + face for face in range(number)]).reshape(-1, 5, 2)
        expected = signature(pixels, points.astype(np.float32))
        record = found.records[number]
        assert found.hashes[record] == expected.hash
        assert found.mirrored_hashes[record] == expected.mirrored_hash
        np.testing.assert_array_equal(found.greys[record], expected.grey)
        first = found.first_faces[record]
        np.testing.assert_array_equal(found.faces[first : first + number], expected.faces)


def test_originals_are_read_once_and_may_be_gone_afterwards(
    kept: Kept, tmp_path: Path, contents: list[bytes]
) -> None:
    pictures = in_files(tmp_path, contents)
    found, read = kept.of(pictures)
    assert read == 3
    check(found, contents)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    again, read = kept.of(pictures)
    assert (read, again.missing) == (0, ())
    check(again, contents)


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(
    kept: Kept, tmp_path: Path, contents: list[bytes]
) -> None:
    pictures = in_files(tmp_path, contents)
    kept.of(pictures)
    for name, size in (("pictures.bin", 2 * RECORD.itemsize + 100), ("faces.bin", None)):
        with (kept.folder / name).open("ab") as file:
            file.truncate(size) if size else file.write(b"torn")
    found, read = kept.of(pictures)
    assert read == 1
    check(found, contents)
    assert kept.of(pictures)[1] == 0


def test_pictures_in_an_archive_are_read_like_files(
    kept: Kept, tmp_path: Path, contents: list[bytes]
) -> None:
    archive = tmp_path / "all.tar"
    files = in_files(tmp_path, contents)
    with tarfile.open(archive, "w") as tar:
        for number in (2, 0, 1):
            tar.add(tmp_path / f"{number}.png", arcname=f"in/{number}.png")
    pictures = [
        stored(archive, content, member=f"in/{number}.png", faces=number)
        for number, content in enumerate(contents)
    ]
    found, read = kept.of(pictures)
    assert (read, found.missing) == (3, ())
    check(found, contents)
    assert kept.of(files)[1] == 0  # the same contents


def test_what_is_gone_or_changed_is_told_and_the_rest_goes_on(
    kept: Kept, tmp_path: Path, contents: list[bytes]
) -> None:
    pictures = in_files(tmp_path, contents)
    (tmp_path / "0.png").unlink()
    (tmp_path / "2.png").write_bytes(contents[0])
    found, read = kept.of(pictures)
    assert read == 3
    assert [(one.path.name, one.reason) for one in found.missing] == [
        ("0.png", "no such file or folder"),
        ("2.png", "another picture lies there now"),
    ]
    assert (found.records == NOT_READ).tolist() == [True, False, True]
    (tmp_path / "0.png").write_bytes(contents[0])
    again, read = kept.of(pictures)
    assert (read, [one.path.name for one in again.missing]) == (2, ["2.png"])


def test_a_face_that_lies_elsewhere_now_is_looked_at_again(
    kept: Kept, tmp_path: Path, contents: list[bytes]
) -> None:
    (tmp_path / "0.png").write_bytes(contents[0])
    before, _ = kept.of([stored(tmp_path / "0.png", contents[0])])
    found, read = kept.of([stored(tmp_path / "0.png", contents[0], faces=2)])
    assert read == 1
    assert found.first_faces[found.records[0]] == 1
    np.testing.assert_array_equal(found.faces[1], before.faces[0])
