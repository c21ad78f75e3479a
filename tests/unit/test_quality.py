"""Pose and quality: laws on a synthetic head, and that quality falls as a crop gets worse."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.quality import _FACE, QUALITY_FLOOR, Recognisability, judged, pose_of
from retrieval.values import Box, Detection, Floats, Pixels, Pose, Quality

FITTED = Recognisability(
    typical_norm=24.0, full_score=0.8, norm=10.0, size=3.0, score=6.0, sharpness=2.0, best=6.0
)
FRONTAL = Pose(yaw=0.0, pitch=0.0, roll=0.0)
angles = st.floats(-60, 60)


def seen_from(pose: Pose) -> Floats:
    """The landmarks of the mean face, turned and photographed from afar, in pixels."""
    yaw, pitch, roll = np.radians([-pose.yaw, -pose.pitch, pose.roll])
    nod = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    shake = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    tilt = [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    turned = _FACE @ (np.array(tilt) @ np.array(shake) @ np.array(nod)).T
    return np.asarray(turned[:, :2] * 40 + [300, 200], np.float32)


@given(yaw=angles, pitch=angles, roll=st.floats(-170, 170))
def test_the_pose_of_a_turned_head_is_found(yaw: float, pitch: float, roll: float) -> None:
    pose = pose_of(seen_from(Pose(yaw=yaw, pitch=pitch, roll=roll)))
    assert [pose.yaw, pose.pitch, pose.roll] == pytest.approx([yaw, pitch, roll], abs=0.05)


def test_the_signs_are_those_of_the_picture() -> None:
    nose = seen_from(Pose(yaw=30.0, pitch=0.0, roll=0.0))[2]
    assert nose[0] > seen_from(FRONTAL)[2][0]  # the nose moves to the picture's right
    nose = seen_from(Pose(yaw=0.0, pitch=20.0, roll=0.0))[2]
    assert nose[1] < seen_from(FRONTAL)[2][1]  # up
    left_eye, right_eye, *_ = seen_from(Pose(yaw=0.0, pitch=0.0, roll=20.0))
    assert right_eye[1] > left_eye[1]  # clockwise


@given(jitter=st.lists(st.floats(-6, 6), min_size=10, max_size=10))
def test_mirroring_the_picture_turns_the_signs_of_yaw_and_roll(jitter: list[float]) -> None:
    landmarks = seen_from(FRONTAL) + np.array(jitter, np.float32).reshape(5, 2)
    mirrored = (landmarks * np.array([-1, 1], np.float32))[[1, 0, 2, 4, 3]]
    one, two = pose_of(landmarks), pose_of(mirrored)
    assert [two.yaw, two.pitch, two.roll] == pytest.approx(
        [-one.yaw, one.pitch, -one.roll], abs=0.1
    )


def picture() -> Pixels:
    """Something with detail at every scale."""
    random = np.random.default_rng(0)
    layers = [
        cv2.resize(random.integers(0, 256, (side, side, 3), np.uint8), (112, 112))
        for side in (4, 8, 16, 32, 64, 112)
    ]
    mixed = np.mean(layers, axis=0)
    return np.asarray(np.clip((mixed - mixed.mean()) * 3 + 128, 0, 255), np.uint8)


def quality(
    crop: Pixels | None = None,
    *,
    side_px: float = 100.0,
    pose: Pose = FRONTAL,
    score: float = 0.9,
    norm: float = 24.0,
    by: Recognisability | None = FITTED,
) -> Quality:
    face = Detection(
        box=Box(left=0.0, top=0.0, right=side_px, bottom=side_px * 1.3),
        landmarks=seen_from(pose),
        score=score,
    )
    return judged(
        face,
        crop=picture() if crop is None else crop,
        pose=pose,
        vector_norm=norm,
        recognisability=by,
    )


def falls(qualities: list[Quality], part: str) -> bool:
    parts = [getattr(one, part) for one in qualities]
    totals = [one.total for one in qualities]
    return sorted(parts, reverse=True) == parts and sorted(set(totals), reverse=True) == totals


def blurred() -> list[Pixels]:
    """As sharp as crops are, and worse and worse."""
    return [cv2.GaussianBlur(picture(), (0, 0), sigma) for sigma in (1.5, 2, 2.5, 3)]


@pytest.mark.parametrize("by", [FITTED, None])
def test_blur_lowers_sharpness_and_total(by: Recognisability | None) -> None:
    assert falls([quality(crop, by=by) for crop in blurred()], "sharpness")


def test_edges_that_no_lens_draws_lower_the_total() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    natural, harsh = quality(blurred()[0]), quality(noise)
    assert harsh.sharpness > natural.sharpness
    assert harsh.total < natural.total


def test_darkness_is_not_blur() -> None:
    dark = (picture() * 0.4).astype(np.uint8)
    assert quality(dark).sharpness == pytest.approx(quality().sharpness, rel=0.1)


def test_turning_away_lowers_frontality_and_the_total_of_what_is_seen_alone() -> None:
    poses = [Pose(yaw=float(yaw), pitch=0.0, roll=0.0) for yaw in (0, 15, 30, 60, 85)]
    assert falls([quality(pose=pose, by=None) for pose in poses], "frontality")
    poses = [Pose(yaw=0.0, pitch=float(pitch), roll=0.0) for pitch in (0, -15, -30, -60)]
    assert falls([quality(pose=pose, by=None) for pose in poses], "frontality")


def test_tilt_in_the_picture_costs_nothing() -> None:
    assert quality(pose=Pose(yaw=0.0, pitch=0.0, roll=70.0)).total == quality().total


def test_few_pixels_lower_size_and_total() -> None:
    assert falls([quality(side_px=side) for side in (13, 10, 7, 4)], "size")
    assert falls([quality(side_px=side, by=None) for side in (64, 48, 32, 16, 4)], "size")


def test_a_detector_in_doubt_lowers_the_total_and_a_sure_one_does_not_raise_it() -> None:
    assert falls([quality(score=score) for score in (0.8, 0.7, 0.6, 0.5)], "detector_score")
    assert quality(score=0.95).total == quality(score=0.8).total


def test_a_short_vector_lowers_the_total() -> None:
    assert falls([quality(norm=norm) for norm in (30, 24, 21, 18, 15, 6)], "vector_norm")


def test_total_is_the_third_of_the_log_odds_of_being_recognised() -> None:
    seen = quality(side_px=10.0, score=0.7, norm=20.0)
    log_odds = (
        6.0
        + 10.0 * np.log(20 / 24)
        + 3.0 * np.log(10 / 14)
        - 6.0 * 0.1
        - 2.0 * abs(seen.sharpness - 0.7)
    )
    assert np.log(seen.total / (1 - seen.total)) == pytest.approx(log_odds / 3)


def test_even_odds_are_the_floor() -> None:
    seen = quality()
    even = 24.0 * np.exp((2.0 * abs(seen.sharpness - 0.7) - 6.0) / 10.0)
    assert quality(norm=even).total == pytest.approx(QUALITY_FLOOR)


def test_without_a_fit_the_total_is_the_mean_of_what_is_seen() -> None:
    seen = quality(side_px=32.0, pose=Pose(yaw=60.0, pitch=0.0, roll=0.0), score=0.8, by=None)
    assert seen.total == pytest.approx((0.5 * seen.sharpness * 0.5 * 0.8) ** 0.25)


@given(
    side_px=st.floats(1, 5_000),
    yaw=st.floats(-180, 180),
    score=st.floats(0, 1),
    norm=st.floats(0, 1e3),
    by=st.sampled_from([FITTED, None]),
)
def test_every_part_lies_between_0_and_1(
    side_px: float, yaw: float, score: float, norm: float, by: Recognisability | None
) -> None:
    pose = Pose(yaw=yaw, pitch=0.0, roll=0.0)
    found = quality(side_px=side_px, pose=pose, score=score, norm=norm, by=by)
    parts = (found.total, found.size, found.sharpness, found.frontality, found.detector_score)
    assert all(0.0 <= part <= 1.0 for part in parts)
    assert found.vector_norm == norm


def test_a_blank_crop_has_no_sharpness() -> None:
    assert quality(np.zeros((112, 112, 3), np.uint8)).sharpness == 0.0
