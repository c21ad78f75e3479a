"""Face-text models that need no torch: an ONNX network, a frozen sentence encoder, linear heads.

    portrait -> image.onnx -> features x (f,)     v = (x - image_mean) / image_scale
                                                  face: v @ image_weights + image_bias
                                                  tags: sigmoid(v @ tag_weights + tag_bias)
    sentence -> encoder -> s (512,)               u = s - text_mean
                                                  text: c @ concept_weights + u @ text_weights
                                                        + text_bias

Between sentences and faces stand concepts, the attributes that were taught: c says of each, from
-1 to 1, whether the sentence claims it. Half of c is what a small network hears in the encoder's
vector, in any of its languages, and half what the words say (captions/reading.py), in English. The
few hundred thousand numbers of that network are learned from made-up sentences without pictures:
faces are too few to learn a language from.

Either vector is made of unit length, its kind's mean (gap_faces, gap_texts) is subtracted, and it
is made of unit length again (gap.py). image.onnx has one input, (n, 3, side, side) float32, RGB
from 0 to 255 (whatever it subtracts or divides by is part of it), and gives (n, f) first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from retrieval.captions.grammar import attributes_of
from retrieval.errors import ModelUnavailableError
from retrieval.models import catalogue
from retrieval.models.face_text.arrays import (
    logistic,
    read_arrays,
    require_shapes,
    write_arrays,
)
from retrieval.models.face_text.folder import ModelFolder
from retrieval.models.face_text.gap import corrected
from retrieval.models.face_text.sentences import DIMENSION, SentenceEncoder
from retrieval.models.ports import FaceTextReading
from retrieval.models.session import Device, Session
from retrieval.values import Floats, Pixels, UnitRows, unit_rows

HEADS_FILE: Final = "light.npz"
IMAGE_FILE: Final = "image.onnx"
# A processor gains nothing from batches, a GPU needs them.
PORTRAITS_AT_ONCE: Final = {Device.CPU: 1, Device.CUDA: 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class LightHeads:
    """All that was trained, float32: f features, d dimensions of the space, a tags."""

    image_mean: Floats  # (f,)
    image_scale: Floats  # (f,) above 0
    image_weights: Floats  # (f, d)
    image_bias: Floats  # (d,)
    text_mean: Floats  # (512,)
    concepts: tuple[str, ...]  # t tags, none where captions alone were taught
    hidden_weights: Floats  # (512, h)
    hidden_bias: Floats  # (h,)
    heard_weights: Floats  # (h, t)
    heard_direct: Floats  # (512, t)
    heard_bias: Floats  # (t,)
    concept_weights: Floats  # (t, d)
    text_weights: Floats  # (512, d)
    text_bias: Floats  # (d,)
    gap_faces: Floats  # (d,) mean of unit vectors of faces
    gap_texts: Floats  # (d,) mean of unit vectors of sentences
    tags: tuple[str, ...]  # a names, may be none
    tag_weights: Floats  # (f, a)
    tag_bias: Floats  # (a,)
    tag_thresholds: Floats  # (a,) chance from which on the tag is given

    def faces(self, features: Floats) -> UnitRows:
        """Vectors (n, d) of features (n, f)."""
        raw = self._standardised(features) @ self.image_weights + self.image_bias
        return corrected(unit_rows(raw), self.gap_faces)

    def chances(self, features: Floats) -> Floats:
        """The chance of each tag, (n, a), of features (n, f)."""
        raw = self._standardised(features) @ self.tag_weights + self.tag_bias
        return logistic(raw)

    def texts(self, sentences: Floats, said: Floats) -> UnitRows:
        """Vectors (n, d) of sentences.

        Args:
            sentences: (n, 512) as the encoder gives them.
            said: (n, t) what their words say of the concepts (`claims`).
        """
        seen = sentences - self.text_mean
        claimed = (self.heard(sentences) + said) / 2
        raw = claimed @ self.concept_weights + seen @ self.text_weights + self.text_bias
        return corrected(unit_rows(raw), self.gap_texts)

    def heard(self, sentences: Floats) -> Floats:
        """What is heard of the concepts, (n, t), in sentences as the encoder gives them."""
        seen = sentences - self.text_mean
        hidden = seen @ self.hidden_weights + self.hidden_bias
        hidden *= hidden > 0
        heard = hidden @ self.heard_weights + seen @ self.heard_direct + self.heard_bias
        return heard.astype(np.float32)

    def write(self, folder: Path) -> None:
        """Write them into the folder of a model."""
        write_arrays(self, folder / HEADS_FILE)

    def _standardised(self, features: Floats) -> Floats:
        standardised: Floats = (features - self.image_mean) / self.image_scale
        return standardised


class LightEncoder:
    """A light model that was opened. Several threads may use it at once."""

    def __init__(self, folder: ModelFolder, *, threads: int, device: Device) -> None:
        """Open the network and the heads; the sentence encoder waits for the first sentence.

        Raises:
            ModelUnavailableError: a file is missing, damaged, or does not fit the others.
            DeviceUnavailableError: the GPU was asked for and is not there.
        """
        self.space = folder.space
        self._folder = folder
        self._threads = threads
        self._heads = read_heads(folder)
        self._at_once = PORTRAITS_AT_ONCE[device]
        self._session = Session(folder.read(IMAGE_FILE), threads=threads, device=device)
        self._side_px = _side_px(self._session)
        self.thresholds = self._heads.tag_thresholds
        self.provenance = (
            folder.provenance,
            *(catalogue.provenance_of(known) for known in catalogue.SENTENCES),
        )

    def of_faces(self, portraits: Pixels) -> FaceTextReading:
        """Vectors and tags of portraits (see `FaceTextEncoder`)."""
        heads = self._heads
        if not len(portraits):
            return FaceTextReading(
                vectors=UnitRows(np.empty((0, self.space.dimension), np.float32)),
                tags=heads.tags,
                chances=np.empty((0, len(heads.tags)), np.float32),
            )
        features = self.features(portraits)
        return FaceTextReading(
            vectors=heads.faces(features), tags=heads.tags, chances=heads.chances(features)
        )

    def features(self, portraits: Pixels) -> Floats:
        """What the network makes of portraits, (n, f)."""
        found = [
            self._session.run(
                network_input(portraits[first : first + self._at_once], self._side_px)
            )
            for first in range(0, len(portraits), self._at_once)
        ]
        features = np.concatenate([outputs[0] for outputs in found])
        expected = (len(portraits), len(self._heads.image_mean))
        if features.shape != expected:
            raise ModelUnavailableError(
                f"{IMAGE_FILE} of {self.space.name} gives {features.shape}, its heads take"
                f" {expected}"
            )
        return features

    def of_texts(self, texts: Sequence[str]) -> UnitRows:
        """Vectors of sentences (see `FaceTextEncoder`)."""
        if not texts:
            return UnitRows(np.empty((0, self.space.dimension), np.float32))
        said = claims(texts, self._heads.concepts)
        return self._heads.texts(self._sentences.encode(texts), said)

    @cached_property
    def _sentences(self) -> SentenceEncoder:
        # Those who only read pictures do without it: 1.5 s and 140 MB a process.
        return SentenceEncoder(threads=self._threads)


def claims(texts: Sequence[str], concepts: Sequence[str]) -> Floats:
    """What the words of sentences say of concepts, (n, t): 1 that it is so, -1 that it is not."""
    said = np.zeros((len(texts), len(concepts)), np.float32)
    places = {concept: place for place, concept in enumerate(concepts)}
    for row, text in enumerate(texts):
        for tag, truth in attributes_of(text).items():
            if tag in places:
                said[row, places[tag]] = 1.0 if truth else -1.0
    return said


def network_input(portraits: Pixels, side_px: int) -> Floats:
    """Portraits (n, s, s, 3) as a network takes them: (n, 3, side, side), RGB from 0 to 255."""
    if side_px != portraits.shape[1]:
        size = (side_px, side_px)
        portraits = np.stack(
            [cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in portraits]
        )
    return np.ascontiguousarray(portraits.transpose(0, 3, 1, 2), dtype=np.float32)


def read_heads(folder: ModelFolder) -> LightHeads:
    """The heads of a light model.

    Raises:
        ModelUnavailableError: the file is missing, damaged, or its arrays do not fit together.
    """
    arrays = read_arrays(folder, HEADS_FILE, [field.name for field in fields(LightHeads)])
    heads = LightHeads(**arrays)
    tags, concepts, hidden = heads.tags, heads.concepts, len(heads.hidden_bias)
    features, dimension = len(heads.image_mean), folder.about.dimension
    shapes = {
        "image_scale": (features,),
        "image_weights": (features, dimension),
        "image_bias": (dimension,),
        "text_mean": (DIMENSION,),
        "hidden_weights": (DIMENSION, hidden),
        "hidden_bias": (hidden,),
        "heard_weights": (hidden, len(concepts)),
        "heard_direct": (DIMENSION, len(concepts)),
        "heard_bias": (len(concepts),),
        "concept_weights": (len(concepts), dimension),
        "text_weights": (DIMENSION, dimension),
        "text_bias": (dimension,),
        "gap_faces": (dimension,),
        "gap_texts": (dimension,),
        "tag_weights": (features, len(tags)),
        "tag_bias": (len(tags),),
        "tag_thresholds": (len(tags),),
    }
    require_shapes(heads, shapes, folder=folder, file=HEADS_FILE)
    return heads


def _side_px(session: Session) -> int:
    """The side of the network's square input."""
    match session.input_shape:
        case [_, 3, int(height), int(width)] if height == width:
            return height
        case shape:
            raise ModelUnavailableError(f"{IMAGE_FILE} takes {shape}, not (n, 3, side, side)")
