"""Captions that come with pictures: beside them, in shards, in metadata; then, or later."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from sqlalchemy import text

from facedex.handle import Facedex, open_facedex
from retrieval.store.captions import Caption, captions_of, matching
from retrieval.values import FaceId
from tests import pictures

pytestmark = pytest.mark.weights


def captions(facedex: Facedex, where: str) -> list[list[str]]:
    """What is said of each face that passes, by face."""
    faces = [record.face for record in facedex.faces(where=where)]
    with facedex.store.reading() as connection:
        found = captions_of(connection, faces, collection=facedex.collection())
    assert all(one.provider == "stated" for said in found.values() for one in said)
    return [[one.text for one in found.get(face, list[Caption]())] for face in faces]


def found(facedex: Facedex, words: str) -> list[FaceId]:
    with facedex.store.reading() as connection:
        return matching(connection, words, collection=facedex.collection(), filter_=None, count=99)


def write_shard(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_captions_are_of_the_face_that_the_facts_are_about_and_may_come_later(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    pictures.astronaut().save(folder / "one.jpg", quality=95)
    pictures.group().save(folder / "six.jpg", quality=95)
    (folder / "one.txt").write_text("a woman in an orange suit\nsmiling widely\n")
    with open_facedex(home=tmp_path / "home", database_url=database_url) as facedex:
        assert facedex.ingest([folder]).refused == ()
        said = ["a woman in an orange suit", "smiling widely"]
        (one,) = facedex.faces(where="face = 1")
        assert captions(facedex, f"image_id = {_image(facedex, one.face)}") == [said]
        assert found(facedex, "orange suit") == [one.face]

        # A box says which of the six is meant.
        six = facedex.faces(where=f"image_id <> {_image(facedex, one.face)}")
        assert (len(six), found(facedex, "hat")) == (6, [])
        third = sorted(six, key=lambda record: record.box.left if record.box else 0)[2]
        assert third.box is not None
        box = f"{third.box.left},{third.box.top},{third.box.right},{third.box.bottom}"
        manifest = tmp_path / "more.csv"
        rows = f'pictures/six.jpg,"{box}",the third one\npictures/one.jpg,,an astronaut\n'
        manifest.write_text(f"path,box,caption\n{rows}")
        for _ in range(2):
            assert facedex.ingest([folder], metadata=str(manifest)).known == 2
        assert found(facedex, "third") == [third.face]
        assert captions(facedex, f"face = {third.face}") == [["the third one"]]
        # The manifest is right where both speak; what was known stays.
        assert captions(facedex, f"face = {one.face}") == [[*said, "an astronaut"]]


def test_a_shard_of_img2dataset_brings_its_captions(database_url: str, tmp_path: Path) -> None:
    astronaut = pictures.encoded(pictures.astronaut(), "JPEG", quality=90)
    says = {"key": "0", "url": "u", "status": "success", "caption": "Raumfahrerin, lächelt"}
    shard = write_shard(
        tmp_path / "00000.tar",
        {
            "0.jpg": astronaut,
            "0.json": json.dumps(says).encode(),
            "0.txt": "Raumfahrerin, lächelt".encode(),
        },
    )
    with open_facedex(home=tmp_path / "home", database_url=database_url) as facedex:
        assert facedex.ingest([shard]).refused == ()
        assert captions(facedex, "face > 0") == [["Raumfahrerin, lächelt"]]
        assert found(facedex, "LÄCHELT raumfahrerin") == [1]
        assert set(facedex.fields(facedex.collection())) >= {"key", "url"}
        assert "caption" not in facedex.fields(facedex.collection())


def _image(facedex: Facedex, face: FaceId) -> int:
    with facedex.store.reading() as connection:
        statement = text("SELECT image_id FROM face WHERE id = :face")
        return int(connection.execute(statement, {"face": face}).scalar_one())
