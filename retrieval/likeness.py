"""Whether two pictures are one: what is kept of a picture to find its copies, and how two compare.

Kept are two hashes (of the lowest frequencies of a DCT: of the picture, and of its mirror image), a
small grey square of the whole picture, and one of each of its faces. Two squares are laid over each
other by a guess, from the landmarks of a face or from edge to edge, refined by ECC (Evangelidis and
Psarakis, 2008), and compared block by block. A block's correlation is indifferent to brightness and
contrast, and the share of blocks that agree to what was laid over a few of them. Another picture of
the same moment agrees where nothing moved, and nowhere else; so the share counts, not the mean.

docs/guides/duplicates.md says what the limits below find and mistake among 25,233 pictures.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from retrieval.align import CROP_SIDE_PX, portrait, similarity_transform
from retrieval.errors import RefusedImageError
from retrieval.image import decode
from retrieval.values import Floats, Pixels

SIDE_PX: Final = 128
FACE_SIDE_PX: Final = 48
FACE_MARGIN_PX: Final = 8  # of the aligned crop, cut off: hair and background move
HASH_BITS: Final = 64  # lowest frequencies, 8 rows of them
HASHED_PX: Final = 32
BLOCK_PX: Final = 16  # of a picture's square
FACE_BLOCK_PX: Final = 8  # of a face's
FLAT: Final = 2.0  # grey levels; blocks whose spread is below that in both agree
BLOCK_AGREES: Final = 0.8
SHARE_MIN: Final = 0.9  # of blocks
LETTERED_SHARE_MIN: Final = 0.75  # where the others agree as those of a lettered copy do:
LETTERED_MEDIAN_MIN: Final = 0.96
OVERLAP_MIN: Final = 0.9  # of the smaller picture: two cuts of one photograph have more to show
SHOT_OVERLAP_MIN: Final = 0.3  # of the smaller picture, around a face that both show
HOPELESS: Final = 0.3  # a guess whose blocks correlate less becomes no copy by being refined
SURE: Final = 0.95  # a guess as good as that needs no refining
BLUR_PX: Final = 1.0  # makes a copy of few pixels and its sharp original alike
STEPS: Final = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 1e-4)
FILTER_PX: Final = 5
SHOWN_PX: Final = 240
SHOWN_QUALITY: Final = 80
Matrix = npt.NDArray[np.float64]
INSIDE: Final = 255
_MIRRORED_ORDER: Final = [1, 0, 2, 4, 3]  # of landmarks: left and right change places


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Signature:
    """What is kept of a picture to find its copies."""

    hash: int  # 64 bits
    mirrored_hash: int
    grey: Pixels  # (SIDE_PX, SIDE_PX), the whole picture squeezed
    faces: Pixels  # (n, FACE_SIDE_PX, FACE_SIDE_PX), in the order of the landmarks given


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Placed:
    """Where a face lies in its picture."""

    landmarks: Floats  # (5, 2) pixels
    width: int  # of the picture
    height: int

    def squeeze(self) -> Matrix:
        """From the picture's pixels to those of its square, (3, 3)."""
        return np.diag([SIDE_PX / self.width, SIDE_PX / self.height, 1.0])


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Agreement:
    """How well one square fits on another."""

    share: float  # of blocks that agree
    median: float  # correlation of blocks
    overlap: float  # share of the smaller picture that was compared
    matrix: Matrix  # (2, 3) from the first square to the second

    @property
    def same_picture(self) -> bool:
        """Whether both are copies of one picture, or one is a part of the other."""
        return self._agree and self.overlap >= OVERLAP_MIN

    @property
    def same_shot(self) -> bool:
        """Whether both, laid over each other by a face, are parts of one photograph."""
        return self._agree and self.overlap >= SHOT_OVERLAP_MIN

    @property
    def _agree(self) -> bool:
        lettered = self.share >= LETTERED_SHARE_MIN and self.median >= LETTERED_MEDIAN_MIN
        return self.share >= SHARE_MIN or lettered

    @property
    def mirrored(self) -> bool:
        """Whether the second is the mirror image of the first."""
        return bool(np.linalg.det(self.matrix[:, :2]) < 0)

    @property
    def growth(self) -> float:
        """How much larger what both show is in the second: above 1, where that one is cropped."""
        return abs(float(np.linalg.det(self.matrix[:, :2])))


def signature(pixels: Pixels, landmarks: Floats) -> Signature:
    """What is kept of an upright picture and of its faces, (n, 5, 2) pixels."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    square = cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    faces = [_face(grey, points) for points in landmarks]
    return Signature(
        hash=_hash(square),
        mirrored_hash=_hash(square[:, ::-1]),
        grey=square,
        faces=np.stack(faces) if faces else np.empty((0, FACE_SIDE_PX, FACE_SIDE_PX), np.uint8),
    )


def whole(side_px: int, *, mirrored: bool) -> Matrix:
    """The guess that two squares show the same from edge to edge, (2, 3)."""
    if mirrored:
        return np.array([[-1.0, 0.0, side_px - 1.0], [0.0, 1.0, 0.0]])
    return np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def by_landmarks(one: Placed, other: Placed, *, mirrored: bool) -> Matrix:
    """The guess that two faces lie on each other: turned, scaled, shifted, and mirrored before.

    >>> face = np.array([[10, 10], [20, 10], [15, 15], [11, 20], [19, 20]], np.float32)
    >>> here = Placed(landmarks=face, width=64, height=64)
    >>> there = Placed(landmarks=2 * face + 6, width=128, height=128)
    >>> (by_landmarks(here, there, mirrored=False).round(6) + 0.0).tolist()
    [[1.0, 0.0, 6.0], [0.0, 1.0, 6.0]]
    """
    points, flip = one.landmarks.astype(np.float64), np.eye(3)
    if mirrored:
        edge = one.width - 1.0
        flip = np.array([[-1.0, 0.0, edge], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        points = (points * (-1, 1) + (edge, 0))[_MIRRORED_ORDER]
    x, y = points.T
    zeros, ones = np.zeros(5), np.ones(5)
    design = np.concatenate(
        [np.stack([x, -y, ones, zeros], axis=1), np.stack([y, x, zeros, ones], axis=1)]
    )
    wanted = other.landmarks.astype(np.float64).T.ravel()
    a, b, right, down = np.linalg.lstsq(design, wanted, rcond=None)[0]
    moved = np.array([[a, -b, right], [b, a, down], [0.0, 0.0, 1.0]])
    matrix: Matrix = (other.squeeze() @ moved @ flip @ np.linalg.inv(one.squeeze()))[:2]
    return matrix


def agreement(one: Pixels, other: Pixels, guess: Matrix, *, block_px: int = BLOCK_PX) -> Agreement:
    """Lay one grey square over another as guessed, refine, and compare the blocks.

    Args:
        one: (side, side) uint8.
        other: of the same shape.
        guess: (2, 3) from `one` to `other`.
        block_px: a divisor of the side.
    """
    smooth, under = (cv2.GaussianBlur(square, (0, 0), BLUR_PX) for square in (one, other))
    begun = _compared(smooth, under, guess, block_px)
    if begun.share >= SURE or begun.median < HOPELESS:
        return begun
    refined = _compared(smooth, under, _refined(smooth, under, guess), block_px)
    return refined if refined.share > begun.share else begun


def face_agreement(one: Pixels, other: Pixels, *, mirrored: bool) -> Agreement:
    """The same for the squares of two faces, which lie on each other already."""
    guess = whole(FACE_SIDE_PX, mirrored=mirrored)
    return agreement(one, other, guess, block_px=FACE_BLOCK_PX)


def shown(content: bytes, landmarks: Floats | None) -> bytes:
    """A small JPEG of a picture, or of the face in it, to be looked at.

    Raises:
        RefusedImageError: it is no picture any more.
    """
    pixels = decode(content).pixels
    if landmarks is not None:
        pixels = portrait(pixels, landmarks)
    factor = min(1.0, SHOWN_PX / max(pixels.shape[:2]))
    if factor < 1:
        pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, SHOWN_QUALITY)
    )
    return bytes(encoded)


def _hash(square: Pixels) -> int:
    """One bit for each of the lowest frequencies but the mean: is it above their median?"""
    small = cv2.resize(square, (HASHED_PX, HASHED_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:8, :9].ravel()[1 : HASH_BITS + 1]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def _face(grey: Pixels, landmarks: Floats) -> Pixels:
    """The middle of the aligned crop; black where the landmarks lie in one point."""
    scale = FACE_SIDE_PX / (CROP_SIDE_PX - 2 * FACE_MARGIN_PX)
    try:
        matrix = similarity_transform(landmarks)
    except RefusedImageError:
        return np.zeros((FACE_SIDE_PX, FACE_SIDE_PX), np.uint8)
    matrix[:, 2] -= FACE_MARGIN_PX
    matrix *= scale
    # A face of many pixels is shrunk by areas first, or the noise of single ones would stay.
    shrink = 2 * float(np.hypot(*matrix[0, :2]))
    if shrink < 1:
        grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        matrix[:, :2] /= shrink
    face: Pixels = cv2.warpAffine(
        grey,
        matrix,
        (FACE_SIDE_PX, FACE_SIDE_PX),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return face


def _refined(one: Pixels, other: Pixels, guess: Matrix) -> Matrix:
    """The affine map near the guess at which the two correlate best; the guess where none does."""
    try:
        backward = cv2.invertAffineTransform(guess).astype(np.float32)
        _, backward = cv2.findTransformECC(
            other, one, backward, cv2.MOTION_AFFINE, STEPS, None, FILTER_PX
        )
    except cv2.error:  # it did not converge
        return guess
    forward: Matrix = cv2.invertAffineTransform(backward.astype(np.float64))
    return forward


def _compared(one: Pixels, other: Pixels, matrix: Matrix, block_px: int) -> Agreement:
    size = other.shape[::-1]
    moved = cv2.warpAffine(one, matrix, size, flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.full_like(one, INSIDE), matrix, size, flags=cv2.INTER_LINEAR)
    covered = _blocks(inside, block_px).min(axis=1) == INSIDE
    smaller = min(1.0, abs(float(np.linalg.det(matrix[:, :2]))))
    overlap = float((inside == INSIDE).mean()) / max(smaller, 1e-9)
    if not covered.any():
        return Agreement(share=0.0, median=0.0, overlap=0.0, matrix=matrix)
    correlations = _correlations(
        *(_blocks(square, block_px)[covered].astype(np.float64) for square in (moved, other))
    )
    return Agreement(
        share=float((correlations >= BLOCK_AGREES).mean()),
        median=float(np.median(correlations)),
        overlap=min(overlap, 1.0),
        matrix=matrix,
    )


def _blocks(square: Pixels, block_px: int) -> Pixels:
    """(blocks, pixels of a block)."""
    rows = square.shape[0] // block_px
    cut = square.reshape(rows, block_px, rows, block_px).swapaxes(1, 2)
    return cut.reshape(rows * rows, block_px * block_px)


def _correlations(ones: Matrix, others: Matrix) -> Matrix:
    """Of each block, (blocks,); nearly 1 where both are flat."""
    ones, others = (of - of.mean(axis=1, keepdims=True) for of in (ones, others))
    floor = FLAT**2
    lengths = np.sqrt(((ones**2).mean(axis=1) + floor) * ((others**2).mean(axis=1) + floor))
    correlations: Matrix = ((ones * others).mean(axis=1) + floor) / lengths
    return correlations
