"""A face of any size and tilt to the 112 x 112 crop that the identity networks were trained on.

The similarity transform (turn, scale, shift; no shear, no mirror) that brings the five landmarks
closest to ArcFace's template in the least-squares sense: Umeyama, "Least-squares estimation of
transformation parameters between two point patterns", 1991. It is InsightFace's `norm_crop`, for
vectors are only comparable when their crops were made alike. (Theirs calculates in float32, ours
in float64: a few pixels in a thousand differ by rounding.)
"""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from retrieval.errors import RefusedImageError
from retrieval.values import Floats, Pixels

CROP_SIDE_PX: Final = 112
PORTRAIT_MARGIN_PX: Final = 56
PORTRAIT_SIDE_PX: Final = CROP_SIDE_PX + 2 * PORTRAIT_MARGIN_PX
# Where ArcFace wants the eyes (left in the picture first), the nose and the corners of the mouth.
TEMPLATE: Final[Floats] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float32,
)
TEMPLATE.setflags(write=False)
_SPREAD_MIN: Final = 1e-6  # square pixels; landmarks closer together than this give no direction


def align(pixels: Pixels, landmarks: Floats) -> Pixels:
    """Cut one face out of a picture, upright and (112, 112, 3); black where the picture ends.

    Args:
        pixels: (h, w, 3) uint8 RGB.
        landmarks: (5, 2) pixels, in the order of `Detection.landmarks`.

    Raises:
        RefusedImageError: the landmarks lie in one point.
    """
    crop: Pixels = cv2.warpAffine(
        pixels,
        similarity_transform(landmarks),
        (CROP_SIDE_PX, CROP_SIDE_PX),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0.0,
    )
    return crop


def portrait(pixels: Pixels, landmarks: Floats) -> Pixels:
    """Cut one face out of a picture with hair, ears and neck, upright and (224, 224, 3).

    Its middle 112 x 112 pixels are the crop of `align`, at the same scale; where the picture ends,
    its edge goes on. Arguments and errors are those of `align`.
    """
    matrix = similarity_transform(landmarks)
    matrix[:, 2] += PORTRAIT_MARGIN_PX
    cut: Pixels = cv2.warpAffine(
        pixels,
        matrix,
        (PORTRAIT_SIDE_PX, PORTRAIT_SIDE_PX),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cut


def similarity_transform(landmarks: Floats) -> npt.NDArray[np.float64]:
    """The matrix, (2, 3), that brings landmarks (5, 2) onto the template.

    >>> similarity_transform(2 * TEMPLATE + 10).round(6).tolist()
    [[0.5, 0.0, -5.0], [-0.0, 0.5, -5.0]]
    """
    source = landmarks.astype(np.float64)
    target = TEMPLATE.astype(np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_centred, target_centred = source - source_mean, target - target_mean
    spread = source_centred.var(axis=0).sum()
    if not spread > _SPREAD_MIN:
        raise RefusedImageError("the landmarks of a face lie in one point")
    left, sizes, right = np.linalg.svd(target_centred.T @ source_centred / len(source))
    # A mirrored pattern would be matched best by a mirror: the sign forbids it.
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    turn = left @ np.diag(signs) @ right
    scaled = (sizes @ signs) / spread * turn
    return np.hstack([scaled, (target_mean - scaled @ source_mean)[:, None]])
