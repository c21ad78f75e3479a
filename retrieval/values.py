"""The values that the stages pass to one another: frozen, typed, checked once at the door.

Vectors are rows of unit length in float32 inside and little-endian float16 at rest; only
similarity (the cosine) exists, distances are turned at the adapter that speaks them.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType

import numpy as np
import numpy.typing as npt

from retrieval.errors import UnusableVectorError
from retrieval.limits import VECTOR_LENGTH_MIN

CollectionId = NewType("CollectionId", int)
SpaceId = NewType("SpaceId", int)
ImageId = NewType("ImageId", int)
FaceId = NewType("FaceId", int)
PersonId = NewType("PersonId", int)
CaptionId = NewType("CaptionId", int)
Similarity = NewType("Similarity", float)  # cosine: -1 opposite, 1 the same
Cursor = NewType("Cursor", str)  # a pg_snapshot: what its holder has seen
Token = NewType("Token", int)  # the xid8 of a committed write

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]  # (height, width, 3) RGB
FaceIds = npt.NDArray[np.int64]
UnitRows = NewType("UnitRows", npt.NDArray[np.float32])  # (n, d), each row of length 1
HalfRows = npt.NDArray[np.float16]  # (n, d) little-endian, as the store and the index keep them

Value = bool | int | float | str | datetime | tuple[str, ...] | None  # one attribute of one face

ORIGINS: Final = ("captured", "generated", "restored")


class FieldType(StrEnum):
    """What a filterable field holds; the rules of DESIGN.md section 4 hang on it."""

    NUMBER = "number"  # float8, finite
    INTEGER = "integer"  # int8
    TEXT = "text"  # COLLATE "C", without NUL
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"  # timestamptz in UTC microseconds
    TAGS = "tags"  # text[] without NULL inside


class Tier(StrEnum):
    """What is promised for an answer (DESIGN.md section 6)."""

    EXACT = "exact"
    CERTIFIED = "certified"
    CALIBRATED = "calibrated"


def unit_rows(raw: npt.ArrayLike, *, dimension: int | None = None) -> UnitRows:
    """Copy `raw` to (n, d) float32 rows of length 1.

    Raises:
        UnusableVectorError: a row is NaN, infinite or near zero, or d is not `dimension`.
    """
    rows = np.array(raw, dtype=np.float64, ndmin=2)
    if dimension is not None and rows.shape[1] != dimension:
        raise UnusableVectorError(
            f"a vector has {rows.shape[1]} dimensions; the space has {dimension}"
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > VECTOR_LENGTH_MIN)
    if not usable.all():
        row = int(np.flatnonzero(~usable)[0])
        raise UnusableVectorError(f"vector {row} is NaN, infinite or of length zero")
    unit = np.ascontiguousarray(rows / lengths, dtype=np.float32)
    unit.setflags(write=False)
    return UnitRows(unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A face's place in its picture, in pixels of the upright picture."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def side_px(self) -> float:
        """The shorter side."""
        return min(self.right - self.left, self.bottom - self.top)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One face as a detector saw it."""

    box: Box
    landmarks: (
        Floats  # (5, 2) pixels: left eye, right eye, nose, left and right corner of the mouth
    )
    score: float  # 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where a head points, in degrees; 0, 0, 0 looks into the camera."""

    yaw: float  # positive: towards the picture's right
    pitch: float  # positive: up
    roll: float  # positive: clockwise in the picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How much a face can be trusted, each number from 0 to 1 but `vector_norm`."""

    total: float
    size: float
    sharpness: float
    frontality: float
    detector_score: float
    vector_norm: float  # length of the embedding before it was made a unit vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An attribute that a model claims: its value, who says so, how sure."""

    value: Value
    provider: str
    confidence: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceReading:
    """All that the models say of one face."""

    detection: Detection
    pose: Pose
    quality: Quality
    vector: Floats  # (d,) unit length
    estimates: dict[str, Estimate]  # attribute name -> estimate, e.g. age, gender
    text_vector: Floats | None = None  # (d,) unit length, in a face-text space
    tags: dict[str, float] | None = None  # tag -> chance of those given; None: no model looked


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """One embedding model at one version; vectors of two spaces are never compared."""

    id: SpaceId
    name: str  # arcface-mbf@1
    dimension: int
    model_sha256: str | None  # hex; None: the vectors came from outside
    licence: str
    commercial: bool

    @property
    def external(self) -> bool:
        """Whether no model here can make a vector of this space."""
        return self.model_sha256 is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A tenant: its own images, faces, persons and declared attributes."""

    id: CollectionId
    name: str
    space_id: SpaceId | None  # the space that is searched; None until the first faces arrive
    text_space_id: SpaceId | None  # the face-text space beside it; None: words find no faces
    demographics: bool  # whether age and gender are computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One answer of an index: which face, and how alike."""

    face: FaceId
    similarity: Similarity
