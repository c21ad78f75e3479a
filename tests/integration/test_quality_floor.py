"""The quality floor with the real weights: what shows no face any more lies below it."""

import functools

import cv2
import numpy as np
import pytest
import skimage.data

from retrieval.align import CROP_SIDE_PX
from retrieval.models.choice import ModelChoice, load_models
from retrieval.models.reader import FaceReader
from retrieval.quality import QUALITY_FLOOR
from retrieval.values import Pixels

pytestmark = pytest.mark.weights
BOTH = pytest.mark.parametrize("models", ["arcface", "sface"])


@functools.cache
def opened(models: str) -> FaceReader:
    return load_models(ModelChoice(name=models))


def astronaut() -> Pixels:
    """One person, the face 150 px wide; ships with scikit-image."""
    picture: Pixels = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    return picture


def quality_of(models: str, pixels: Pixels) -> float:
    """Of the one face of a picture."""
    (face,) = opened(models).read(pixels)
    return face.quality.total


def texture(name: str) -> Pixels:
    """A ready crop of a picture that ships with scikit-image and shows no face."""
    picture: Pixels = getattr(skimage.data, name)()
    middle = cv2.resize(picture[:200, -200:], (CROP_SIDE_PX, CROP_SIDE_PX))
    return np.dstack([middle] * 3) if middle.ndim == 2 else middle


@BOTH
def test_a_good_picture_lies_well_above_the_floor(models: str) -> None:
    assert quality_of(models, astronaut()) > QUALITY_FLOOR + 0.2


@BOTH
def test_a_face_of_few_pixels_lies_below_the_floor(models: str) -> None:
    qualities = [
        quality_of(models, cv2.resize(astronaut(), (side, side), interpolation=cv2.INTER_AREA))
        for side in (512, 96, 64, 40)
    ]
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[-1] < QUALITY_FLOOR


@BOTH
def test_a_blurred_face_lies_below_the_floor(models: str) -> None:
    qualities = [
        quality_of(models, cv2.GaussianBlur(astronaut(), (0, 0), sigma)) for sigma in (3, 6, 9)
    ]
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[-1] < QUALITY_FLOOR


@BOTH
@pytest.mark.parametrize("name", ["brick", "grass", "gravel", "coffee", "moon", "coins", "page"])
def test_a_crop_that_shows_no_face_lies_below_the_floor(models: str, name: str) -> None:
    # A ready crop has no detector to doubt it.
    (face,) = opened(models).read_aligned(texture(name))
    assert face.quality.total < QUALITY_FLOOR
