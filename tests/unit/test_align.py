"""Alignment against scikit-image's SimilarityTransform, which InsightFace uses, and its laws."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from retrieval.align import (
    CROP_SIDE_PX,
    PORTRAIT_SIDE_PX,
    TEMPLATE,
    align,
    portrait,
    similarity_transform,
)
from retrieval.errors import RefusedImageError
from retrieval.values import Floats

RANDOM = np.random.default_rng(0)


def some_landmarks(seed: int) -> Floats:
    random = np.random.default_rng(seed)
    angle, scale = random.uniform(-3, 3), random.uniform(0.1, 20)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    jitter = random.normal(0, 4, TEMPLATE.shape)
    points = (TEMPLATE + jitter) @ turn.T + random.uniform(-500, 500, 2)
    return points.astype(np.float32)


def matrix_of_scikit_image(landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    template = TEMPLATE.astype(landmarks.dtype)
    return np.asarray(SimilarityTransform.from_estimate(landmarks, template).params[:2], np.float64)


@pytest.mark.parametrize("seed", range(20))
def test_the_matrix_is_that_of_scikit_image(seed: int) -> None:
    landmarks = some_landmarks(seed)
    expected = matrix_of_scikit_image(landmarks.astype(np.float64))
    np.testing.assert_allclose(similarity_transform(landmarks), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_crop_is_that_of_insightface(seed: int) -> None:
    picture = RANDOM.integers(0, 256, (600, 800, 3), np.uint8)
    landmarks = (some_landmarks(seed) / 10 + 200).astype(np.float32)
    matrix = matrix_of_scikit_image(landmarks)
    expected = cv2.warpAffine(picture, matrix, (CROP_SIDE_PX, CROP_SIDE_PX), borderValue=0.0)
    differing = (align(picture, landmarks) != expected).any(axis=2)
    assert differing.mean() < 0.01  # InsightFace calculates the matrix in float32


def test_a_crop_that_is_aligned_already_stays_as_it_is() -> None:
    crop = RANDOM.integers(0, 256, (CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8)
    np.testing.assert_array_equal(align(crop, TEMPLATE), crop)


@given(angle=st.floats(-3.1, 3.1), scale=st.floats(0.05, 50), shift=st.floats(-1e4, 1e4))
def test_turning_scaling_and_shifting_the_picture_changes_nothing(
    angle: float, scale: float, shift: float
) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = TEMPLATE.astype(np.float64) @ turn.T + shift
    matrix = similarity_transform(points)  # type: ignore[arg-type]
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-4)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    mirrored = TEMPLATE * np.array([-1, 1], np.float32)
    assert np.linalg.det(similarity_transform(mirrored)[:, :2]) > 0


def test_beyond_the_picture_the_crop_is_black() -> None:
    white = np.full((112, 112, 3), 255, np.uint8)
    crop = align(white, TEMPLATE + 56)
    assert (crop[:55, :55] == 255).all()
    assert (crop[57:] == 0).all()
    assert (crop[:, 57:] == 0).all()


def test_landmarks_in_one_point_are_refused() -> None:
    with pytest.raises(RefusedImageError, match="one point"):
        align(np.zeros((50, 50, 3), np.uint8), np.full((5, 2), 20, np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_the_middle_of_a_portrait_is_the_crop(seed: int) -> None:
    picture = RANDOM.integers(0, 256, (600, 800, 3), np.uint8)
    landmarks = (some_landmarks(seed) / 10 + 300).astype(np.float32)
    cut = portrait(picture, landmarks)
    assert cut.shape == (PORTRAIT_SIDE_PX, PORTRAIT_SIDE_PX, 3)
    middle = cut[56:-56, 56:-56].astype(int)
    # OpenCV rounds places to 1/32 pixel, which a shift may tip over.
    assert np.abs(middle - align(picture, landmarks)).mean() < 1.0


def test_beyond_the_picture_a_portrait_goes_on_with_its_edge() -> None:
    crop = RANDOM.integers(0, 256, (CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8)
    expected = np.pad(crop, ((56, 56), (56, 56), (0, 0)), mode="edge")
    np.testing.assert_array_equal(portrait(crop, TEMPLATE), expected)
