"""What the reader of faces needs from a model; each network has an adapter that gives it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from retrieval.quality import Recognisability
from retrieval.values import Detection, Estimate, Floats, Pixels, Space, UnitRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Which file of weights a model runs, and what its owner allows."""

    name: str
    sha256: str  # hex
    licence: str
    commercial: bool


class FaceDetector(Protocol):
    """Finds faces in a picture at the scale at which it comes."""

    @property
    def provenance(self) -> Provenance:
        """The weights behind it."""
        ...

    def detect(self, pixels: Pixels) -> list[Detection]:
        """The faces of one picture, best score first, none twice; boxes may leave the picture.

        Args:
            pixels: (h, w, 3) RGB of any size. The caller scales: networks see faces of about 10 to
                400 pixels.
        """
        ...


class FaceEmbedder(Protocol):
    """Turns aligned crops into identity vectors."""

    @property
    def provenance(self) -> Provenance:
        """The weights behind it."""
        ...

    @property
    def space(self) -> Space:
        """The space of its vectors; the id is 0, for the store gives ids."""
        ...

    @property
    def recognisability(self) -> Recognisability | None:
        """What tells whether a face will be recognised; None where nothing was fitted."""
        ...

    def embed(self, crops: Pixels) -> Floats:
        """Vectors (n, d) as the network gives them, not of unit length.

        Args:
            crops: (n, 112, 112, 3) RGB as `align` makes them; n may be 0.
        """
        ...


class AttributeEstimator(Protocol):
    """Claims attributes of faces."""

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """The weights behind it."""
        ...

    def estimate(self, pixels: Pixels, landmarks: Floats) -> dict[str, Estimate]:
        """Attribute name -> estimate for the face at landmarks (5, 2) of a picture."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceTextReading:
    """What a face-text model says of faces."""

    vectors: UnitRows  # (n, d)
    tags: tuple[str, ...]  # the attributes that its heads tell; may be none
    chances: Floats  # (n, tags), 0 to 1


class FaceTextEncoder(Protocol):
    """Puts faces and sentences into one space. Several threads may use it at once."""

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """The weights behind it, and what they were made of."""
        ...

    @property
    def space(self) -> Space:
        """The space of its vectors; the id is 0, for the store gives ids."""
        ...

    @property
    def thresholds(self) -> Floats:
        """The chance from which on a tag is given, (tags,)."""
        ...

    def of_faces(self, portraits: Pixels) -> FaceTextReading:
        """Vectors and tags of faces, without the gap between faces and sentences.

        Args:
            portraits: (n, 224, 224, 3) RGB as `portrait` makes them; n may be 0.
        """
        ...

    def of_texts(self, texts: Sequence[str]) -> UnitRows:
        """Vectors (n, d) of sentences, without that gap; n may be 0."""
        ...
