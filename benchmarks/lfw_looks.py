"""The light face-text model of `facedex caption train`, trained on LFW's pictures by name.

What `python -m benchmarks.captions lfw` trains where no other trainer is named. Features of all
pictures are made once and kept in its --work folder.
"""

import tarfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from tqdm import tqdm

from indexer.naming import named_face
from retrieval.align import portrait
from retrieval.captions.practice import practice
from retrieval.captions.vocabulary import ATTRIBUTES
from retrieval.image import decode
from retrieval.models.choice import ModelChoice, load_models
from retrieval.models.face_text.base import FEATURES, identity_base
from retrieval.models.face_text.light import LightHeads, claims, network_input
from retrieval.models.face_text.sentences import SentenceEncoder
from retrieval.models.face_text.training import SENTENCES, Lessons, heard_sentences, train
from retrieval.models.ports import FaceTextReading
from retrieval.models.session import Device, Session
from retrieval.values import Floats, HalfRows, UnitRows

ARCHIVE: Final = Path("lfw") / "lfw_deepfunneled.tar.gz"


class Looks:
    """A trained model over features that are kept."""

    def __init__(
        self, heads: LightHeads, features: HalfRows, rows: dict[str, int], encoder: SentenceEncoder
    ) -> None:
        self._heads = heads
        self._features = features
        self._rows = rows
        self._encoder = encoder

    def of_faces(self, images: Sequence[str]) -> FaceTextReading:
        """Vectors, tags and chances of pictures."""
        features = self._features[[self._rows[image] for image in images]].astype(np.float32)
        return FaceTextReading(
            vectors=self._heads.faces(features),
            tags=self._heads.tags,
            chances=self._heads.chances(features),
        )

    def of_texts(self, texts: Sequence[str]) -> UnitRows:
        """Vectors of sentences."""
        return self._heads.texts(self._encoder.encode(texts), claims(texts, self._heads.concepts))


class Trainer:
    """Trains on some pictures of LFW."""

    def __init__(self, work: Path, truth_of: Callable[[Path], dict[str, dict[str, bool]]]) -> None:
        self._work = work
        self._truth_of = truth_of

    def __call__(self, data: Path, images: Sequence[str]) -> Looks:
        """A model that knows these pictures and their attributes."""
        features, rows = self._kept(data)
        truth = self._truth_of(data)
        tags = tuple(one.tag for one in ATTRIBUTES if one.tag in truth[images[0]])
        known: Floats = np.array(
            [[truth[image].get(tag, np.nan) for tag in tags] for image in images], np.float32
        )
        people = np.unique([image.partition("/")[0] for image in images], return_inverse=True)[1]
        sentences = practice(tags, known, count=SENTENCES, seed=0)
        lessons = Lessons(
            features=features[[rows[image] for image in images]],
            persons=people,
            tags=tags,
            truth=known,
            stated=heard_sentences([], concepts=tags, encoder=self._encoder),
            owners=np.empty(0, np.int64),
            made_up=heard_sentences(sentences, concepts=tags, encoder=self._encoder),
        )
        heads = train(lessons)
        return Looks(heads, features, rows, self._encoder)

    @cached_property
    def _encoder(self) -> SentenceEncoder:
        return SentenceEncoder(threads=1)

    def _kept(self, data: Path) -> tuple[HalfRows, dict[str, int]]:
        """Features (n, f) of all pictures, and the row of each."""
        place, names = self._work / "features.npy", self._work / "images.txt"
        if not names.exists():
            self._work.mkdir(parents=True, exist_ok=True)
            names.write_text("\n".join(_features(data / ARCHIVE, place)), "utf-8")
        images = names.read_text("utf-8").split("\n")
        return np.load(place, mmap_mode="r"), {image: row for row, image in enumerate(images)}


def _features(archive: Path, place: Path) -> list[str]:
    """Write features of the face that each picture is of; give the pictures' names."""
    reader = load_models(ModelChoice())
    base = Session(identity_base("research").model, threads=1, device=Device.CPU)
    images: list[str] = []
    raw = place.with_suffix(".raw")
    with tarfile.open(archive, "r|gz") as pictures, raw.open("wb") as file:
        for member in tqdm(pictures, desc="pictures", unit="picture", disable=None):
            if (
                not member.name.endswith(".jpg")
                or (content := pictures.extractfile(member)) is None
            ):
                continue
            pixels = decode(content.read()).pixels
            found = reader.find(pixels).detections
            boxes = [one.box for one in found]
            owner = named_face(boxes, box=None, width=pixels.shape[1], height=pixels.shape[0])
            if owner is None:
                continue
            shown = portrait(pixels, found[owner].landmarks)[None]
            features = base.run(network_input(shown, base.input_shape[2]))[0]
            file.write(features.astype("<f2").tobytes())
            images.append("/".join(PurePosixPath(member.name).parts[-2:]))
    rows = np.memmap(raw, "<f2", "r", shape=(len(images), FEATURES))
    np.save(place, rows)
    raw.unlink()
    return images
