"""Face-text models in their folders: written, refused, opened, and what they make of faces."""

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import LicenceError, LimitExceededError, ModelUnavailableError, UsageError
from retrieval.models.face_text.folder import (
    About,
    ModelKind,
    installed,
    model_folders,
    new_folder,
    next_version,
    read_folder,
)
from retrieval.models.face_text.light import LightEncoder
from retrieval.models.face_text.opening import load_face_text
from retrieval.models.face_text.sentences import SentenceEncoder
from retrieval.models.ports import FaceTextEncoder
from retrieval.models.session import Device
from retrieval.values import Floats, Pixels, UnitRows
from tests.words import FEATURES, TAGS, averages, averaging_network, small_heads, small_model

pytestmark = pytest.mark.weights
ABOUT = About(kind=ModelKind.LIGHT, space="some@1", dimension=4, licence="none", commercial=True)


def opened(path: Path) -> FaceTextEncoder:
    return load_face_text(path, use="research", threads=1, device=Device.CPU)


def portraits(count: int, *, seed: int = 0) -> Pixels:
    """Noise of random brightness and colour."""
    random = np.random.default_rng(seed)
    colours = random.uniform(0, 255, (count, 1, 1, 3))
    noise = random.normal(0, 20, (count, 224, 224, 3))
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def unit(rows: Floats) -> Floats:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- what a light model gives ---------------------------------------------------------------------


def test_vectors_and_chances_of_faces_are_those_of_the_formula(tmp_path: Path) -> None:
    pictures, heads = portraits(5), small_heads(32, seed=0)
    reading = opened(small_model(tmp_path).path).of_faces(pictures)
    v = (averages(pictures) - 100) / 50
    expected = unit(unit(v @ heads.image_weights + heads.image_bias) - heads.gap_faces)
    np.testing.assert_allclose(reading.vectors, expected, atol=1e-4)
    chances = 1 / (1 + np.exp(-(v @ heads.tag_weights)))
    np.testing.assert_allclose(reading.chances, chances, atol=1e-4)
    assert reading.tags == TAGS


def test_vectors_of_sentences_are_those_of_the_formula(tmp_path: Path) -> None:
    texts, heads = ["a man with glasses", "eine Frau mit Hut", ""], small_heads(32, seed=0)
    found = opened(small_model(tmp_path).path).of_texts(texts)
    sentences = SentenceEncoder(threads=1).encode(texts)
    raw = (sentences - heads.text_mean) @ heads.text_weights + heads.text_bias
    np.testing.assert_allclose(found, unit(unit(raw) - heads.gap_texts), atol=1e-5)


def test_no_faces_and_no_sentences_give_no_rows(tmp_path: Path) -> None:
    encoder = opened(small_model(tmp_path).path)
    reading = encoder.of_faces(portraits(0))
    assert reading.vectors.shape == (0, 32)
    assert reading.chances.shape == (0, 2)
    assert encoder.of_texts([]).shape == (0, 32)


def test_a_network_with_a_smaller_input_sees_smaller_portraits(tmp_path: Path) -> None:
    with new_folder(tmp_path, ABOUT) as folder:
        (folder / "image.onnx").write_bytes(averaging_network(112))
        small_heads(4, seed=0).write(folder)
    encoder = opened(tmp_path / "some@1")
    assert isinstance(encoder, LightEncoder)
    features = encoder.features(portraits(3))
    assert features.shape == (3, FEATURES)
    np.testing.assert_allclose(features, averages(portraits(3)), atol=0.6)  # rounded in between


# --- the sentence encoder -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentences() -> SentenceEncoder:
    return SentenceEncoder(threads=1)


@pytest.mark.parametrize(
    ("language", "translated"),
    [
        ("German", ["Eine Frau mit Brille lächelt.", "Ein Mann mit Bart trägt einen Hut."]),
        ("French", ["Une femme avec des lunettes sourit.", "Un homme barbu porte un chapeau."]),
    ],
)
def test_a_sentence_is_nearest_to_its_translation(
    sentences: SentenceEncoder, language: str, translated: list[str]
) -> None:
    english = ["A woman with glasses is smiling.", "A man with a beard wears a hat."]
    scores = sentences.encode(english) @ sentences.encode(translated).T
    assert scores.argmax(axis=1).tolist() == [0, 1], language


def test_a_sentence_has_one_vector_in_whatever_company(sentences: SentenceEncoder) -> None:
    texts = [f"a person who is {age} years old" for age in range(40)]
    alone: UnitRows = sentences.encode(texts[7:8])
    np.testing.assert_allclose(sentences.encode(texts)[7], alone[0], atol=1e-6)


def test_half_a_surrogate_pair_is_no_error(sentences: SentenceEncoder) -> None:
    assert np.isfinite(sentences.encode(["smiling \ud83d"])).all()


def test_a_sentence_without_end_is_refused(sentences: SentenceEncoder) -> None:
    with pytest.raises(LimitExceededError, match="sentence"):
        sentences.encode(["very " * 10_000])


# --- folders --------------------------------------------------------------------------------------


def test_the_space_of_a_folder_says_what_was_written(tmp_path: Path) -> None:
    folder = small_model(tmp_path, dimension=16, commercial=False)
    assert opened(folder.path).space == folder.space
    assert (folder.space.name, folder.space.dimension) == ("small@1", 16)
    assert (folder.space.commercial, folder.space.licence) == (
        False,
        "research only: made for tests",
    )
    assert folder.space.model_sha256 == folder.sha256


def test_equal_models_have_equal_hashes_and_others_have_not(tmp_path: Path) -> None:
    one, same = small_model(tmp_path / "a"), small_model(tmp_path / "b")
    other = small_model(tmp_path / "c", seed=1)
    assert one.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize("name", ["image.onnx", "light.npz"])
def test_a_flipped_byte_is_refused_with_the_name_of_its_file(tmp_path: Path, name: str) -> None:
    path = small_model(tmp_path).path
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(ModelUnavailableError, match=f"{name}.*damaged"):
        opened(path)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = small_model(tmp_path).path
    (path / "image.onnx").unlink()
    with pytest.raises(ModelUnavailableError, match=r"image\.onnx"):
        opened(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("kind", "magic"),
        ("dimension", 0),
        ("space", "../../etc@1"),
        ("files", {"../light.npz": "0" * 64}),
        ("files", None),
    ],
)
def test_a_description_that_cannot_be_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = small_model(tmp_path).path
    described = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps({**described, field: value}))
    with pytest.raises(ModelUnavailableError):
        read_folder(path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="no face-text model"):
        read_folder(tmp_path)


def test_heads_that_do_not_fit_the_space_are_refused(tmp_path: Path) -> None:
    with new_folder(tmp_path, ABOUT) as folder:
        (folder / "image.onnx").write_bytes(b"")
        small_heads(8, seed=0).write(folder)
    with pytest.raises(ModelUnavailableError, match=r"image_weights.*\(192, 4\)"):
        opened(tmp_path / "some@1")


def test_commerce_is_refused_a_model_that_is_for_research(tmp_path: Path) -> None:
    path = small_model(tmp_path, commercial=False).path
    with pytest.raises(LicenceError, match=r"small@1.*research only"):
        load_face_text(path, use="commercial", threads=1, device=Device.CPU)
    free = small_model(tmp_path, space="free@1").path
    assert load_face_text(free, use="commercial", threads=1, device=Device.CPU).space.commercial


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with new_folder(tmp_path, ABOUT) as folder:
            (folder / "light.npz").write_bytes(b"half of it")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_keeps_its_model(tmp_path: Path) -> None:
    before = small_model(tmp_path).sha256
    assert small_model(tmp_path).sha256 == before  # the same again is no conflict
    with pytest.raises(UsageError, match="another version"):
        small_model(tmp_path, seed=1)
    assert read_folder(tmp_path / "small@1").sha256 == before
    assert [path.name for path in tmp_path.iterdir()] == ["small@1"]


@pytest.mark.parametrize("name", ["looks", "looks@0", "../looks@1", "a b@1", "looks@1/x", ""])
def test_a_name_without_a_version_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="NAME@VERSION"):
        small_model(tmp_path, space=name)


def test_versions_go_up_by_number(tmp_path: Path) -> None:
    assert next_version(tmp_path, "looks") == "looks@1"
    for version in (2, 10):
        (tmp_path / f"looks@{version}").mkdir()
    assert next_version(tmp_path, "looks") == "looks@11"
    assert next_version(tmp_path, "other") == "other@1"


def test_a_model_from_elsewhere_is_copied_with_its_hash(tmp_path: Path) -> None:
    source = small_model(tmp_path / "elsewhere")
    copied = installed(source, models=tmp_path / "models")
    assert copied.sha256 == source.sha256
    assert copied.path == tmp_path / "models" / "small@1"
    assert model_folders(tmp_path / "models") == [copied.path]
    assert installed(copied, models=tmp_path / "models") == copied
    assert opened(copied.path).space == source.space


def test_a_damaged_model_from_elsewhere_is_not_copied(tmp_path: Path) -> None:
    source = small_model(tmp_path / "elsewhere")
    (source.path / "light.npz").write_bytes(b"other")
    with pytest.raises(ModelUnavailableError, match="damaged"):
        installed(source, models=tmp_path / "models")
    assert model_folders(tmp_path / "models") == []
