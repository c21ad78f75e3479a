"""Copies of a picture agree with it, whatever was done to them; other pictures do not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks.planted import KINDS
from retrieval.likeness import (
    FACE_SIDE_PX,
    SHOWN_PX,
    SIDE_PX,
    Placed,
    agreement,
    by_landmarks,
    face_agreement,
    shown,
    signature,
    whole,
)
from tests.pictures import astronaut, encoded, group

NO_FACES = np.empty((0, 5, 2), np.float32)
# Eyes, nose and corners of the mouth of the astronaut.
FACE = np.array([[204, 107], [249, 107], [229, 133], [207, 156], [246, 155]], np.float32)


def square(picture: Image.Image):
    return signature(np.asarray(picture.convert("RGB")), NO_FACES)


def changed(picture: Image.Image, kind: str, seed: int) -> Image.Image:
    """An altered copy, as it would be read again."""
    copy, quality = KINDS[kind](picture, np.random.default_rng(seed))
    return Image.open(io.BytesIO(encoded(copy, "JPEG", quality=quality)))


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"cropped"}))
@pytest.mark.parametrize("picture", [astronaut(), group()], ids=["astronaut", "group"])
def test_a_copy_from_edge_to_edge_agrees_and_has_a_close_hash(
    kind: str, picture: Image.Image
) -> None:
    original = square(picture)
    for seed in range(4):
        copy = square(changed(picture, kind, seed))
        mirrored = kind == "mirrored"
        found = agreement(original.grey, copy.grey, whole(SIDE_PX, mirrored=mirrored))
        assert found.same_picture, (seed, found)
        assert found.mirrored is mirrored
        assert found.growth == pytest.approx(1, abs=0.03)
        turned = original.mirrored_hash if mirrored else original.hash
        assert (turned ^ copy.hash).bit_count() <= 8


@pytest.mark.parametrize("mirror", [False, True])
def test_a_crop_is_found_by_the_landmarks_of_its_face(*, mirror: bool) -> None:
    picture = astronaut()
    original = square(picture)
    left, top, right, bottom = 60, 20, 490, 460
    crop = picture.crop((left, top, right, bottom))
    points = FACE - (left, top)
    if mirror:
        crop = ImageOps.mirror(crop)
        points = (points * (-1, 1) + (right - left - 1, 0))[[1, 0, 2, 4, 3]]
    one = Placed(landmarks=FACE, width=512, height=512)
    other = Placed(landmarks=points.astype(np.float32), width=right - left, height=bottom - top)
    guess = by_landmarks(one, other, mirrored=mirror)
    found = agreement(original.grey, square(crop).grey, guess)
    assert found.same_picture
    assert found.mirrored is mirror
    assert found.overlap > 0.97
    assert 1 / found.growth == pytest.approx(430 * 440 / 512**2, rel=0.02)
    assert not agreement(
        original.grey, square(crop).grey, whole(SIDE_PX, mirrored=mirror)
    ).same_picture


def test_the_next_picture_of_a_still_scene_is_no_copy() -> None:
    """The scene stays and the person moves: half of all blocks agree perfectly, and more."""
    scene = np.asarray(astronaut()).copy()
    moved = scene.copy()
    moved[60:440, 130:380] = scene[40:420, 160:410]
    found = agreement(
        square(Image.fromarray(scene)).grey,
        square(Image.fromarray(moved)).grey,
        whole(SIDE_PX, mirrored=False),
    )
    assert not found.same_picture
    assert found.share > 0.4


def test_parts_of_one_photograph_are_one_shot_and_not_one_picture() -> None:
    picture = astronaut()
    parts = [picture.crop((0, 0, 330, 330)), picture.crop((120, 20, 512, 412))]
    placed = [
        Placed(landmarks=FACE, width=330, height=330),
        Placed(landmarks=(FACE - (120, 20)).astype(np.float32), width=392, height=392),
    ]
    found = agreement(*(square(part).grey for part in parts), by_landmarks(*placed, mirrored=False))
    assert found.same_shot
    assert found.overlap == pytest.approx(210 * 310 / 330**2, rel=0.05)
    assert not found.same_picture


def test_a_face_is_its_own_shot_and_its_mirror_image_too() -> None:
    pixels = np.asarray(astronaut())
    large = np.asarray(astronaut().resize((1536, 1536)))
    [face] = signature(pixels, FACE[None]).faces
    [again] = signature(large, 3 * FACE[None]).faces
    assert face.shape == (FACE_SIDE_PX, FACE_SIDE_PX)
    assert face_agreement(face, again, mirrored=False).share == 1.0
    turned = face_agreement(face, np.ascontiguousarray(face[:, ::-1]), mirrored=True)
    assert (turned.share, turned.mirrored) == (1.0, True)
    assert face_agreement(face, face[::-1], mirrored=False).share < 0.3


def test_landmarks_in_one_point_give_a_black_face_and_no_error() -> None:
    kept = signature(np.asarray(astronaut()), np.full((1, 5, 2), 9, np.float32))
    assert not kept.faces.any()


def test_a_flat_picture_agrees_with_itself_brighter() -> None:
    dark, bright = (square(Image.new("RGB", (64, 48), (v, v, v))).grey for v in (40, 200))
    assert agreement(dark, bright, whole(SIDE_PX, mirrored=False)).share == 1.0


def test_what_is_shown_is_small() -> None:
    content = encoded(astronaut(), "PNG")
    for picture in (shown(content, None), shown(content, FACE)):
        assert picture.startswith(b"\xff\xd8")
        assert max(Image.open(io.BytesIO(picture)).size) <= SHOWN_PX
