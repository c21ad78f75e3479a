"""Pictures to face readings: find, align, embed, judge.

Finding has to deal with scale. The detectors see faces of some 10 to 400 pixels, so a picture is
brought to a longest side between LEAST_PX and MOST_PX. When that shows nothing, the face may fill
the whole picture, which is then looked at small, and small with a margin around it; or it may be
small in a large picture, which is then looked at larger.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from retrieval.align import CROP_SIDE_PX, PORTRAIT_SIDE_PX, TEMPLATE, align, portrait
from retrieval.errors import RefusedImageError
from retrieval.limits import FACES_PER_IMAGE_MAX
from retrieval.models.ports import (
    AttributeEstimator,
    FaceDetector,
    FaceEmbedder,
    FaceTextEncoder,
    Provenance,
)
from retrieval.quality import Recognisability, judged, pose_of
from retrieval.values import Box, Detection, Estimate, FaceReading, Floats, Pixels, Space, unit_rows

LEAST_PX: Final = 320  # thumbnails are enlarged: at 32 x 32 px 149 of 198 faces were missed
MOST_PX: Final = 640
_ALIGNED: Final = (CROP_SIDE_PX, CROP_SIDE_PX, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One way to hold a picture before the detector."""

    side_px: int  # the longest side of what the detector gets
    margin: float  # added on each side, in parts of the longest side


_CLOSE_LOOKS: Final = (_Look(side_px=192, margin=0.0), _Look(side_px=128, margin=0.25))
_WIDE_PX: Final = 1_280


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFaces:
    """The faces of one picture, largest first, before their vectors are known."""

    detections: tuple[Detection, ...]
    crops: Pixels  # (n, 112, 112, 3)
    portraits: Pixels  # (n, 224, 224, 3); none where no face-text model asks for them
    estimates: tuple[dict[str, Estimate], ...]


class FaceReader:
    """The models that read faces, put in a row. Several threads may use it at once."""

    def __init__(
        self,
        *,
        detector: FaceDetector,
        embedder: FaceEmbedder,
        estimator: AttributeEstimator | None,
        face_text: FaceTextEncoder | None = None,
    ) -> None:
        self._detector = detector
        self._embedder = embedder
        self._estimator = estimator
        self._face_text = face_text

    @property
    def space(self) -> Space:
        """The space of the vectors; the id is 0, for the store gives ids."""
        return self._embedder.space

    @property
    def weights(self) -> tuple[Provenance, ...]:
        """Everything that runs here, for showing its licences."""
        estimator = self._estimator.provenance if self._estimator else ()
        face_text = self._face_text.provenance if self._face_text else ()
        return (self._detector.provenance, self._embedder.provenance, *estimator, *face_text)

    def read(self, pixels: Pixels) -> list[FaceReading]:
        """All faces of a picture, largest first; none is an empty list.

        Args:
            pixels: (h, w, 3) uint8 RGB, upright.

        Raises:
            RefusedImageError: more than FACES_PER_IMAGE_MAX faces were found.
        """
        return self.finish([self.find(pixels)])[0]

    def read_aligned(self, pixels: Pixels) -> list[FaceReading]:
        """The one face of a ready crop (112, 112, 3): nothing is detected, nothing moved.

        Raises:
            RefusedImageError: it has another size.
        """
        return self.finish([self.take_aligned(pixels)])[0]

    def find(self, pixels: Pixels) -> FoundFaces:
        """The first half of `read`: detect, align, estimate attributes."""
        height, width = pixels.shape[:2]
        detections = [_within(one, height=height, width=width) for one in self._detect(pixels)]
        detections = [one for one in detections if one.box.side_px > 0]
        if len(detections) > FACES_PER_IMAGE_MAX:
            raise RefusedImageError(
                f"it has {len(detections):,} faces; at most {FACES_PER_IMAGE_MAX:,} are read"
            )
        detections.sort(key=lambda one: -_area(one.box))
        return self._prepared(pixels, detections)

    def take_aligned(self, pixels: Pixels) -> FoundFaces:
        """The first half of `read_aligned`."""
        if pixels.shape != _ALIGNED:
            height, width = pixels.shape[:2]
            raise RefusedImageError(
                f"it has {width} x {height} pixels; an aligned crop has {CROP_SIDE_PX} x"
                f" {CROP_SIDE_PX}: leave --aligned out to have faces found"
            )
        whole = Box(left=0.0, top=0.0, right=float(CROP_SIDE_PX), bottom=float(CROP_SIDE_PX))
        # Who hands in an aligned crop vouches for the face in it.
        face = Detection(box=whole, landmarks=TEMPLATE, score=1.0)
        return self._prepared(pixels, [face])

    def finish(self, found: Sequence[FoundFaces]) -> list[list[FaceReading]]:
        """The second half: embed the faces of several pictures together, and judge each."""
        raw = self._embedder.embed(np.concatenate([_NO_CROPS, *(one.crops for one in found)]))
        readings = []
        begin = 0
        for one in found:
            end = begin + len(one.detections)
            readings.append(_readings(one, raw[begin:end], by=self._embedder.recognisability))
            begin = end
        return readings if self._face_text is None else _told(readings, found, by=self._face_text)

    def _detect(self, pixels: Pixels) -> list[Detection]:
        for look in _looks(max(pixels.shape[:2])):
            found = self._look(pixels, look)
            if found:
                return found
        return []

    def _look(self, pixels: Pixels, look: _Look) -> list[Detection]:
        longest = max(pixels.shape[:2])
        shown = _scaled(pixels, look.side_px / (longest * (1 + 2 * look.margin)))
        # The sides of what is shown are whole pixels, so the two scales differ a little.
        scale = np.divide(shown.shape[1::-1], pixels.shape[1::-1])
        edge = round(max(shown.shape[:2]) * look.margin)
        if edge:
            shown = cv2.copyMakeBorder(shown, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
        return [_moved(one, edge=edge, scale=scale) for one in self._detector.detect(shown)]

    def _prepared(self, pixels: Pixels, detections: list[Detection]) -> FoundFaces:
        crops = [align(pixels, one.landmarks) for one in detections]
        estimator = self._estimator
        return FoundFaces(
            detections=tuple(detections),
            crops=np.stack(crops) if crops else _NO_CROPS,
            portraits=self._portraits(pixels, detections),
            estimates=tuple(
                estimator.estimate(pixels, one.landmarks) if estimator else {} for one in detections
            ),
        )

    def _portraits(self, pixels: Pixels, detections: list[Detection]) -> Pixels:
        if self._face_text is None or not detections:
            return _NO_PORTRAITS
        return np.stack([portrait(pixels, one.landmarks) for one in detections])


_NO_CROPS: Final[Pixels] = np.empty((0, *_ALIGNED), np.uint8)
_NO_PORTRAITS: Final[Pixels] = np.empty((0, PORTRAIT_SIDE_PX, PORTRAIT_SIDE_PX, 3), np.uint8)


def _looks(longest_px: int) -> Iterator[_Look]:
    yield _Look(side_px=min(max(longest_px, LEAST_PX), MOST_PX), margin=0.0)
    yield from _CLOSE_LOOKS
    if longest_px > MOST_PX:
        yield _Look(side_px=min(longest_px, _WIDE_PX), margin=0.0)


def _scaled(pixels: Pixels, scale: float) -> Pixels:
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    if (height, width) == pixels.shape[:2]:
        return pixels
    # Averaging keeps small faces of a large picture; taking every fifth pixel does not.
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled: Pixels = cv2.resize(pixels, (width, height), interpolation=how)
    return scaled


def _moved(seen: Detection, *, edge: int, scale: npt.NDArray[np.float64]) -> Detection:
    """A detection in the coordinates of the picture that was scaled and got an edge."""
    box = seen.box
    landmarks: Floats = ((seen.landmarks - edge) / scale).astype(np.float32)
    landmarks.setflags(write=False)
    return Detection(
        box=Box(
            left=float((box.left - edge) / scale[0]),
            top=float((box.top - edge) / scale[1]),
            right=float((box.right - edge) / scale[0]),
            bottom=float((box.bottom - edge) / scale[1]),
        ),
        landmarks=landmarks,
        score=seen.score,
    )


def _within(seen: Detection, *, height: int, width: int) -> Detection:
    """A detection whose box ends where the picture ends."""
    box = seen.box
    inside = Box(
        left=min(max(box.left, 0.0), width),
        top=min(max(box.top, 0.0), height),
        right=min(max(box.right, 0.0), width),
        bottom=min(max(box.bottom, 0.0), height),
    )
    return Detection(box=inside, landmarks=seen.landmarks, score=seen.score)


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


def _readings(found: FoundFaces, raw: Floats, *, by: Recognisability | None) -> list[FaceReading]:
    units = unit_rows(raw) if len(raw) else raw
    norms = np.linalg.norm(raw, axis=1)
    readings = []
    for place, detection in enumerate(found.detections):
        pose = pose_of(detection.landmarks)
        quality = judged(
            detection,
            crop=found.crops[place],
            pose=pose,
            vector_norm=float(norms[place]),
            recognisability=by,
        )
        readings.append(
            FaceReading(
                detection=detection,
                pose=pose,
                quality=quality,
                vector=units[place],
                estimates=found.estimates[place],
            )
        )
    return readings


def tags_given(chances: Floats, *, by: FaceTextEncoder, tags: Sequence[str]) -> dict[str, float]:
    """The tags whose chance (tags,) reaches their threshold, with it."""
    given = np.flatnonzero(chances >= by.thresholds)
    return {tags[int(place)]: round(float(chances[place]), 4) for place in given}


def with_words(
    faces: Sequence[FaceReading], portraits: Pixels, *, by: FaceTextEncoder
) -> list[FaceReading]:
    """The faces with what a face-text model says of their portraits (n, 224, 224, 3)."""
    said = by.of_faces(portraits)
    return [
        replace(
            face,
            text_vector=vector,
            tags=tags_given(chances, by=by, tags=said.tags) if said.tags else None,
        )
        for face, vector, chances in zip(faces, said.vectors, said.chances, strict=True)
    ]


def _told(
    readings: list[list[FaceReading]], found: Sequence[FoundFaces], *, by: FaceTextEncoder
) -> list[list[FaceReading]]:
    """The faces of several pictures with what a face-text model says of them."""
    portraits = np.concatenate([_NO_PORTRAITS, *(one.portraits for one in found)])
    told = iter(with_words(list(chain.from_iterable(readings)), portraits, by=by))
    return [list(islice(told, len(of_one))) for of_one in readings]
