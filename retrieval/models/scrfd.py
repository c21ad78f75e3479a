"""SCRFD: boxes and five landmarks, on onnxruntime.

Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", 2021. The network
gives, for strides of 8, 16 and 32 pixels and two anchors a place, a score, the distances to the
sides of the box and the offsets of the landmarks. What is decoded here is decoded as InsightFace
does it; its package is not imported, for that takes a second and brings four libraries along.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np

from retrieval.errors import ModelUnavailableError
from retrieval.models.ports import Provenance
from retrieval.models.session import Device, Session
from retrieval.values import Box, Detection, Floats, Pixels

# InsightFace's default. The main face of 1,580 LFW pictures never scores below 0.58; of 62 other
# finds that score 0.5 to 0.6, 24 have vectors like those of faces: cut off, or in the background.
SCORE_MIN: Final = 0.5
OVERLAP_MAX: Final = 0.4  # InsightFace's default
STRIDES: Final = (8, 16, 32)
ANCHORS: Final = 2
OUTPUTS: Final = 9  # scores, boxes, landmarks, each for three strides
_GRIDS_KEPT: Final = 128  # pictures come in few shapes once they are padded to multiples of 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidates:
    """Anchors that fired: n scores, boxes (n, 4), landmarks (n, 5, 2), in pixels."""

    scores: Floats
    boxes: Floats
    landmarks: Floats


class Scrfd:
    """Any SCRFD with landmarks: det_500m, det_10g, scrfd_10g_bnkps, ..."""

    def __init__(
        self, model: bytes, *, provenance: Provenance, threads: int, device: Device
    ) -> None:
        self.provenance = provenance
        self._session = Session(model, threads=threads, device=device)

    def detect(self, pixels: Pixels) -> list[Detection]:
        """The faces of one picture (see `FaceDetector`)."""
        height, width = (_padded(side) for side in pixels.shape[:2])
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
        batch = cv2.dnn.blobFromImage(canvas, 1 / 128, (width, height), (127.5, 127.5, 127.5))
        outputs = self._session.run(batch)
        if len(outputs) != OUTPUTS:
            raise ModelUnavailableError(
                f"{self.provenance.name} is no SCRFD with landmarks: it has {len(outputs)} outputs"
            )
        found = _decoded(outputs, height=height, width=width)
        return [_detection(found, place) for place in _kept(found)]


def _padded(side_px: int) -> int:
    return -(-side_px // STRIDES[-1]) * STRIDES[-1]


def _decoded(outputs: list[Floats], *, height: int, width: int) -> _Candidates:
    levels = []
    for level, stride in enumerate(STRIDES):
        scores = outputs[level].reshape(-1)
        fired = np.flatnonzero(scores >= SCORE_MIN)
        centres = _centres(height // stride, width // stride, stride)[fired]
        sides = outputs[level + 3].reshape(-1, 4)[fired] * stride
        points = outputs[level + 6].reshape(-1, 5, 2)[fired] * stride
        levels.append(
            _Candidates(
                scores=scores[fired],
                boxes=np.hstack([centres - sides[:, :2], centres + sides[:, 2:]]),
                landmarks=centres[:, None] + points,
            )
        )
    return _Candidates(
        scores=np.concatenate([one.scores for one in levels]),
        boxes=np.concatenate([one.boxes for one in levels]),
        landmarks=np.concatenate([one.landmarks for one in levels]),
    )


@lru_cache(maxsize=_GRIDS_KEPT)
def _centres(rows: int, columns: int, stride: int) -> Floats:
    """Where the anchors sit, (rows * columns * ANCHORS, 2) pixels."""
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    centres = np.repeat(grid * stride, ANCHORS, axis=0).astype(np.float32)
    centres.setflags(write=False)
    return centres


def _kept(found: _Candidates) -> list[int]:
    """The places of the candidates that stand for one face each, best score first."""
    corners, areas = found.boxes, np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    waiting = np.argsort(-found.scores, kind="stable")
    kept = []
    while waiting.size:
        best, rest = waiting[0], waiting[1:]
        kept.append(int(best))
        low = np.maximum(corners[best, :2], corners[rest, :2])
        high = np.minimum(corners[best, 2:], corners[rest, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        waiting = rest[shared <= OVERLAP_MAX * (areas[best] + areas[rest] - shared)]
    return kept


def _detection(found: _Candidates, place: int) -> Detection:
    left, top, right, bottom = (float(side) for side in found.boxes[place])
    landmarks = found.landmarks[place].copy()
    landmarks.setflags(write=False)
    return Detection(
        box=Box(left=left, top=top, right=right, bottom=bottom),
        landmarks=landmarks,
        score=float(found.scores[place]),
    )
