import pytest

from indexer.naming import named_face, overlap
from retrieval.values import Box


def _box(left: float, top: float, side: float) -> Box:
    return Box(left=left, top=top, right=left + side, bottom=top + side)


CORNER, MIDDLE, SMALL_MIDDLE = _box(0, 0, 60), _box(70, 70, 60), _box(95, 95, 10)


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
