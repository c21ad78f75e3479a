"""Which face of a picture a person's name belongs to (DESIGN.md section 10)."""

from collections.abc import Sequence

import numpy as np

from retrieval.values import Box


def named_face(boxes: Sequence[Box], *, box: Box | None, width: int, height: int) -> int:
    """The place of the face that a picture's `person` names; the others stay unnamed.

    The only face; else the one that overlaps `box` most; else the largest central one. A picture
    with no face at that box names its largest central face.
    """
    if box is not None:
        overlaps = [overlap(one, box) for one in boxes]
        if max(overlaps) > 0:
            return int(np.argmax(overlaps))
    return int(np.argmax([_centrality(one, width=width, height=height) for one in boxes]))


def overlap(one: Box, two: Box) -> float:
    """Intersection over union of two boxes, 0 to 1.

    >>> overlap(Box(left=0, top=0, right=2, bottom=2), Box(left=1, top=0, right=3, bottom=2))
    0.3333333333333333
    """
    across = min(one.right, two.right) - max(one.left, two.left)
    down = min(one.bottom, two.bottom) - max(one.top, two.top)
    shared = max(across, 0.0) * max(down, 0.0)
    union = area(one) + area(two) - shared
    return shared / union if union > 0 else 0.0


def _centrality(box: Box, *, width: int, height: int) -> float:
    """Area in square pixels less a penalty for the squared distance from the middle."""
    # The penalty is InsightFace's rule for "the" face of an LFW picture: area - 2 * offset^2.
    across = (box.left + box.right - width) / 2
    down = (box.top + box.bottom - height) / 2
    return area(box) - 2.0 * (across * across + down * down)


def area(box: Box) -> float:
    """In square pixels; 0 for a box that is turned over."""
    return max(box.right - box.left, 0.0) * max(box.bottom - box.top, 0.0)
