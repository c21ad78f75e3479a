"""Readers with a face-text model beside the others: the same faces, and what it says of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.align import portrait
from retrieval.errors import LicenceError
from retrieval.models.choice import ModelChoice, load_models
from retrieval.models.face_text.opening import load_face_text
from retrieval.models.reader import FaceReader
from retrieval.models.session import Device
from retrieval.values import FaceReading, Pixels
from tests.pictures import astronaut, group
from tests.words import small_model

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models")).path


@pytest.fixture(scope="module")
def reader(folder: Path) -> FaceReader:
    return load_models(ModelChoice(face_text=folder))


@pytest.fixture(scope="module")
def plain() -> FaceReader:
    return load_models(ModelChoice())


PICTURES: list[Callable[[], Pixels]] = [
    lambda: np.asarray(group()),
    lambda: np.asarray(astronaut()),
    lambda: np.zeros((300, 300, 3), np.uint8),
]


@pytest.mark.parametrize("picture", PICTURES, ids=["six", "one", "none"])
def test_each_face_has_the_vector_of_its_own_portrait(
    reader: FaceReader, folder: Path, picture: Callable[[], Pixels]
) -> None:
    pixels = picture()
    encoder = load_face_text(folder, use="research", threads=1, device=Device.CPU)
    for face in reader.read(pixels):
        said = encoder.of_faces(portrait(pixels, face.detection.landmarks)[None])
        np.testing.assert_allclose(face.text_vector, said.vectors[0], atol=1e-6)
        chances = dict(zip(said.tags, said.chances[0], strict=True))
        above = {"bright": 0.5, "reddish": 0.6}
        assert face.tags == {
            tag: pytest.approx(chance, abs=1e-4)
            for tag, chance in chances.items()
            if chance >= above[tag]
        }


def without_words(face: FaceReading) -> tuple[object, ...]:
    plain = replace(face, text_vector=None, tags=None)
    return (plain.detection.box, plain.quality, plain.vector.tobytes())


def test_all_else_is_as_without_the_model(reader: FaceReader, plain: FaceReader) -> None:
    pixels = np.asarray(group())
    with_, without = reader.read(pixels), plain.read(pixels)
    assert len(with_) == 6
    assert [without_words(face) for face in with_] == [without_words(face) for face in without]
    assert {(face.text_vector is None, face.tags is None) for face in without} == {(True, True)}


def test_faces_of_several_pictures_keep_their_own(reader: FaceReader) -> None:
    pictures = [picture() for picture in PICTURES]
    together = reader.finish([reader.find(pixels) for pixels in pictures])
    alone = [reader.read(pixels) for pixels in pictures]
    assert [len(faces) for faces in together] == [6, len(alone[1]), 0]
    for one, other in zip(together, alone, strict=True):
        for face, same in zip(one, other, strict=True):
            np.testing.assert_allclose(face.text_vector, same.text_vector, atol=1e-6)


def test_an_aligned_crop_is_read_with_its_edge_going_on(reader: FaceReader) -> None:
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    [face] = reader.read_aligned(crop)
    assert face.text_vector is not None
    assert face.text_vector.shape == (32,)


def test_the_weights_that_run_name_the_face_text_model(reader: FaceReader) -> None:
    names = [weights.name for weights in reader.weights]
    assert names[2:] == ["small@1", "weights.npz", "sp.model"]


def test_commerce_is_refused_a_face_text_model_for_research(tmp_path: Path) -> None:
    path = small_model(tmp_path, commercial=False).path
    with pytest.raises(LicenceError, match=r"small@1"):
        load_models(ModelChoice(use="commercial", face_text=path))
