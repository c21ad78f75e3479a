"""How far a face can be trusted: pose from its landmarks, and quality from what was seen of it.

Quality is the chance that the face is recognised, against clean pictures of the same person at the
threshold of FMR 1e-4, as log-odds fitted for a model:

    log-odds = best + norm * ln(length of the raw vector / its typical length)
             + size * ln(side / 14 px, at most 1) + score * (detector score, at most its full one)
             + sharpness * how far the sharpness is from that of clean crops
    total    = 1 / (1 + exp(-log-odds / 3))

so that 0.5 is as likely missed as recognised, and the third keeps apart what is better than that.
The length leads (Meng et al., "MagFace", 2021), the others add what it does not see: faces of few
pixels, and edges that compression draws. docs/guides/quality.md has the figures, ADR 12 what was
tried besides. A model without a fit gets what is seen in the picture alone, which says little:

    total = (size * sharpness * frontality * detector score) ** (1/4)
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.values import Detection, Floats, Pixels, Pose, Quality

# A mean face, the distance of the eyes being 1: right, down, away from the camera. Measured on the
# landmarks of 3,900 LFW faces. The nose stands out by what makes two signs of a turned head agree:
# how close the eyes come, and how far the nose moves.
_FACE: Final = np.array(
    [[-0.5, 0, 0], [0.5, 0, 0], [0, 0.56, -0.6], [-0.42, 1.047, 0], [0.42, 1.047, 0]]
)
_FACE_SOLVED: Final = np.linalg.pinv(_FACE - _FACE.mean(axis=0))  # (3, 5)

# As likely missed as recognised: a probe below it is not asked about, a face below it not enrolled.
# Two faces below it match each other far more often than the threshold says.
QUALITY_FLOOR: Final = 0.5
FULL_SIDE_PX: Final = 64.0  # shrinking LFW's faces to this width costs nothing, to 32 px 5 %
_SMALL_SIDE_PX: Final = 14.0  # above it the length of the vector tells what few pixels cost
_SHARPNESS_HALF: Final = 0.015  # LFW's median is 0.06; blurred by 1.5 px it is 0.013
_SHARPNESS_CLEAN: Final = 0.7  # below it is blur, above it noise and the blocks of compression
_LOG_ODDS_SCALE: Final = 3.0
_TINY: Final = 1e-6  # the logarithm of nothing is not a number
_GREY: Final = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognisability:
    """What the log-odds of being recognised are made of, for one identity network.

    Fitted by `python -m benchmarks.quality --fit`, with the detector that comes with the network.
    """

    typical_norm: float  # of the raw vector of a good crop
    full_score: float  # a detector score above it says no more
    norm: float
    size: float
    score: float
    sharpness: float
    best: float  # the log-odds of a crop that is typical and leaves nothing to wish for

    def total(
        self, *, vector_norm: float, size: float, detector_score: float, sharpness: float
    ) -> float:
        """Quality from 0 to 1 of parts as `Quality` has them; 0.5 where the odds are even."""
        length, few, score, off = evidence(
            vector_norm=vector_norm / self.typical_norm,
            size=size,
            detector_score=detector_score - self.full_score,
            sharpness=sharpness,
        )
        log_odds = self.norm * length + self.size * few + self.score * score + self.sharpness * off
        return 1.0 / (1.0 + math.exp(-(self.best + log_odds) / _LOG_ODDS_SCALE))


def evidence(
    *, vector_norm: float, size: float, detector_score: float, sharpness: float
) -> tuple[float, float, float, float]:
    """What the log-odds weigh; all but the first, which has no best, are 0 at their best.

    Args:
        vector_norm: in parts of the typical one.
        size: as `Quality` has it.
        detector_score: above (positive) or below the full one.
        sharpness: as `Quality` has it.
    """
    return (
        math.log(max(vector_norm, _TINY)),
        math.log(min(max(size * FULL_SIDE_PX / _SMALL_SIDE_PX, _TINY), 1.0)),
        min(detector_score, 0.0),
        -abs(sharpness - _SHARPNESS_CLEAN),
    )


def pose_of(landmarks: Floats) -> Pose:
    """Where a head points, from its landmarks (5, 2); good to some 5 degrees.

    The rotation of a mean face that comes closest to the landmarks, seen by a distant camera: the
    first step of DeMenthon and Davis, "Model-based object pose in 25 lines of code", 1995. Turning
    the picture changes the roll and nothing else; mirroring it, the signs of yaw and roll.
    """
    shape = landmarks.astype(np.float64)
    scaled = (_FACE_SOLVED @ (shape - shape.mean(axis=0))).T
    left, _, right = np.linalg.svd(scaled, full_matrices=False)
    # The picture's axes as the head sees them, its own being right, down, away from the camera.
    across, down = left @ right
    away = np.cross(across, down)
    return Pose(
        yaw=float(np.degrees(np.arcsin(np.clip(away[0], -1, 1)))),
        pitch=float(np.degrees(np.arctan2(-away[1], away[2]))),
        roll=float(np.degrees(np.arctan2(down[0], across[0]))),
    )


def judged(
    detection: Detection,
    *,
    crop: Pixels,
    pose: Pose,
    vector_norm: float,
    recognisability: Recognisability | None,
) -> Quality:
    """What one face is worth.

    Args:
        detection: in pixels of the picture that the face came from.
        crop: (112, 112, 3), aligned.
        pose: of the same face.
        vector_norm: length of the raw vector.
        recognisability: of the network that gave the vector; None where none was fitted.
    """
    size = min(1.0, detection.box.side_px / FULL_SIDE_PX)
    sharpness = _sharpness(crop)
    frontality = _frontality(pose)
    if recognisability is None:
        total = (size * sharpness * frontality * detection.score) ** 0.25
    else:
        total = recognisability.total(
            vector_norm=vector_norm,
            size=size,
            detector_score=detection.score,
            sharpness=sharpness,
        )
    return Quality(
        total=total,
        size=size,
        sharpness=sharpness,
        frontality=frontality,
        detector_score=detection.score,
        vector_norm=vector_norm,
    )


def _frontality(pose: Pose) -> float:
    """The cosine of the angle between the face and the camera's axis; 0 from behind."""
    return float(max(0.0, np.cos(np.radians(pose.yaw)) * np.cos(np.radians(pose.pitch))))


def _sharpness(crop: Pixels) -> float:
    """Variance of the Laplacian in parts of the variance of the grey values, brought to 0..1.

    In parts, because a dark picture is not blurred. Noise and compression look sharp.
    """
    grey = crop.astype(np.float32) @ _GREY
    middle = grey[1:-1, 1:-1]
    edges: npt.NDArray[np.float32] = (
        grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    )
    ratio = float(edges.var()) / max(float(grey.var()), 1.0)
    return ratio / (ratio + _SHARPNESS_HALF)
