import numpy as np
import pytest

from indexer.naming import named_face, overlap
from retrieval.values import Box, Detection, FaceReading, Pose, Quality


def _reading(left: float, top: float, side: float) -> FaceReading:
    return FaceReading(
        detection=Detection(
            box=Box(left=left, top=top, right=left + side, bottom=top + side),
            landmarks=np.zeros((5, 2), np.float32),
            score=0.9,
        ),
        pose=Pose(yaw=0, pitch=0, roll=0),
        quality=Quality(
            total=1, size=1, sharpness=1, frontality=1, detector_score=1, vector_norm=1
        ),
        vector=np.ones(1, np.float32),
        estimates={},
    )


CORNER, MIDDLE, SMALL_MIDDLE = _reading(0, 0, 60), _reading(70, 70, 60), _reading(95, 95, 10)


def test_the_only_face_is_named() -> None:
    assert named_face([CORNER], box=None, width=200, height=200) == 0


def test_among_several_the_largest_central_face_is_named() -> None:
    assert named_face([CORNER, SMALL_MIDDLE, MIDDLE], box=None, width=200, height=200) == 2


def test_a_box_names_the_face_that_it_covers() -> None:
    box = Box(left=5, top=5, right=55, bottom=55)
    assert named_face([MIDDLE, CORNER], box=box, width=200, height=200) == 1


def test_a_box_without_a_face_leaves_the_largest_central_one() -> None:
    box = Box(left=180, top=180, right=199, bottom=199)
    assert named_face([CORNER, MIDDLE], box=box, width=200, height=200) == 1


@pytest.mark.parametrize(
    ("two", "share"),
    [((0, 0, 2, 2), 1.0), ((2, 2, 3, 3), 0.0), ((1, 0, 3, 2), 1 / 3), ((3, 3, 1, 1), 0.0)],
)
def test_overlap_is_intersection_over_union(two: tuple[float, ...], share: float) -> None:
    left, top, right, bottom = two
    other = Box(left=left, top=top, right=right, bottom=bottom)
    assert overlap(Box(left=0, top=0, right=2, bottom=2), other) == pytest.approx(share)
