"""LFW, clean and degraded over a fixed grid, read as ingest reads it; each picture once.

What is kept of a picture is its raw vector and what quality is made of, in one file for every
fifty people, so that a run that was stopped goes on where it was.
"""

import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from retrieval.image import decode
from retrieval.models.choice import ModelChoice, load_models
from retrieval.models.reader import FaceReader
from retrieval.values import Box, FaceReading, Floats, Pixels

# Mild to severe. Side of the whole picture in px, of which a face takes about 37 % across; sigma
# of a Gaussian in px, the face being about 93 px across; share of the face's box under a rectangle
# of one colour, both drawn at random; quality of a JPEG as OpenCV writes it.
GRID: Final = {
    "down-sampling": (64.0, 44.0, 30.0, 20.0),
    "blur": (2.0, 4.0, 6.0, 8.0),
    "occlusion": (0.1, 0.25, 0.4, 0.6),
    "jpeg": (12.0, 6.0, 4.0, 3.0),
}
CLEAN: Final = "clean"
PROBE: Final = "probe"  # the first picture of a person, in each cell of the grid
ENROLLED: Final = "enrolled"  # half of a person's other pictures, each in one cell at random
TINY: Final = "22 x 28 px"  # the box of the first picture alone, at that size
TINY_PX: Final = (22, 28)
PICTURES_MIN: Final = 4
PICTURES_MAX: Final = 6
PEOPLE_AT_ONCE: Final = 50
SEED: Final = 7
ROW: Final = np.dtype(
    [
        ("person", np.int64),
        ("picture", np.int64),
        ("use", "U10"),
        ("kind", "U13"),
        ("level", np.float64),
        ("found", np.bool_),  # the rest is 0 where no face was
        ("size", np.float64),
        ("side_px", np.float64),
        ("sharpness", np.float64),
        ("frontality", np.float64),
        ("detector_score", np.float64),
        ("landmarks", np.float64, (5, 2)),
    ]
)
Rows = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What the models said of every picture."""

    rows: Rows  # (n,) of ROW
    raw: Floats  # (n, d), zeros where no face was found


def degraded(pixels: Pixels, *, kind: str, level: float, face: Box, seed: int) -> Pixels:
    """One picture in one cell of the grid."""
    match kind:
        case "down-sampling":
            side = round(level)
            return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA))
        case "blur":
            return np.asarray(cv2.GaussianBlur(pixels, (0, 0), level))
        case "occlusion":
            return _covered(pixels, share=level, face=face, seed=seed)
        case "jpeg":
            options = [cv2.IMWRITE_JPEG_QUALITY, round(level)]
            written = cv2.imencode(".jpg", pixels[:, :, ::-1], options)[1]
            return decode(written.tobytes()).pixels
        case _:
            raise ValueError(f"the grid has no '{kind}'")


def readings(archive: Path, *, models: str, people: int, cache: Path) -> Readings:
    """Read `people` people of LFW in every way, or take them from `cache`."""
    cache.mkdir(parents=True, exist_ok=True)
    parts = [
        cache / f"{models}-{SEED}-{begin:05d}.npz" for begin in range(0, people, PEOPLE_AT_ONCE)
    ]
    if not all(part.exists() for part in parts):
        reader = load_models(ModelChoice(name=models))
        pictures = _pictures(archive, people=people)
        for number, part in enumerate(parts):
            if not part.exists():
                begin = number * PEOPLE_AT_ONCE
                _read(pictures[begin : begin + PEOPLE_AT_ONCE], reader, first=begin, part=part)
    loaded = [np.load(part) for part in parts]
    return Readings(
        rows=np.concatenate([part["rows"] for part in loaded]),
        raw=np.concatenate([part["raw"] for part in loaded]),
    )


def _pictures(archive: Path, *, people: int) -> list[list[bytes]]:
    """The first pictures of people who have enough of them, in an order that `SEED` gives."""
    with tarfile.open(archive) as opened:
        names = defaultdict(list)
        for member in opened:
            if member.isfile() and member.name.endswith(".jpg"):
                names[member.name.split("/")[-2]].append(member)
        able = [one for _, one in sorted(names.items()) if len(one) >= PICTURES_MIN]
        chosen = [able[place] for place in np.random.default_rng(SEED).permutation(len(able))]
        wanted = [
            sorted(one, key=lambda member: member.name)[:PICTURES_MAX] for one in chosen[:people]
        ]
        contents = {
            member.name: _bytes(opened, member)
            for member in sorted((m for one in wanted for m in one), key=lambda m: m.offset)
        }
    return [[contents[member.name] for member in one] for one in wanted]


def _bytes(opened: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = opened.extractfile(member)
    if file is None:
        raise ValueError("the archive holds a picture without content")
    return file.read()


def _read(people: list[list[bytes]], reader: FaceReader, *, first: int, part: Path) -> None:
    rows, raw = [], []
    for person, pictures in enumerate(people, first):
        for row, vector in _of_person(person, pictures, reader):
            rows.append(row)
            raw.append(vector)
    staged = part.with_suffix(".staged.npz")
    np.savez(staged, rows=np.array(rows, ROW), raw=np.array(raw, np.float32))
    staged.replace(part)


def _of_person(
    person: int, pictures: list[bytes], reader: FaceReader
) -> Iterator[tuple[tuple[object, ...], Floats]]:
    random = np.random.default_rng([SEED, person])
    decoded = [decode(one).pixels for one in pictures]
    boxes = {}
    for place, pixels in enumerate(decoded):
        reading = central(reader.read(pixels), pixels)
        yield _row(reading, (person, place, CLEAN, CLEAN, 0.0), reader)
        if reading:
            boxes[place] = reading.detection.box
    if 0 in boxes:
        for kind, level in _cells():
            seen = degraded(
                decoded[0], kind=kind, level=level, face=boxes[0], seed=int(random.integers(2**31))
            )
            yield _row(central(reader.read(seen), seen), (person, 0, PROBE, kind, level), reader)
        tiny = _tiny(decoded[0], boxes[0])
        yield _row(central(reader.read(tiny), tiny), (person, 0, TINY, TINY, 0.0), reader)
    for place in _half([one for one in boxes if one], random):
        kind, level = _cells()[random.integers(len(_cells()))]
        seen = degraded(
            decoded[place],
            kind=kind,
            level=level,
            face=boxes[place],
            seed=int(random.integers(2**31)),
        )
        yield _row(central(reader.read(seen), seen), (person, place, ENROLLED, kind, level), reader)


def central(faces: list[FaceReading], pixels: Pixels) -> FaceReading | None:
    """The face next to the middle of its picture, which is whose LFW says; None of none."""
    height, width = pixels.shape[:2]

    def off(face: FaceReading) -> float:
        box = face.detection.box
        return abs((box.left + box.right) / width - 1) + abs((box.top + box.bottom) / height - 1)

    return min(faces, key=off, default=None)


def _row(
    reading: FaceReading | None, name: tuple[object, ...], reader: FaceReader
) -> tuple[tuple[object, ...], Floats]:
    if reading is None:
        return (*name, False, 0, 0, 0, 0, 0, 0), np.zeros(reader.space.dimension, np.float32)
    quality = reading.quality
    parts = (
        quality.size,
        reading.detection.box.side_px,
        quality.sharpness,
        quality.frontality,
        quality.detector_score,
        reading.detection.landmarks,
    )
    return (*name, True, *parts), reading.vector * np.float32(quality.vector_norm)


def _cells() -> list[tuple[str, float]]:
    return [(kind, level) for kind, levels in GRID.items() for level in levels]


def _half(places: list[int], random: np.random.Generator) -> list[int]:
    """Half of the places at random; of an odd number, the coin says which half."""
    some = len(places) // 2 + len(places) % 2 * int(random.integers(2))
    return [int(place) for place in random.permutation(places)[:some]]


def _tiny(pixels: Pixels, box: Box) -> Pixels:
    left, top, right, bottom = (round(side) for side in (box.left, box.top, box.right, box.bottom))
    face = pixels[top:bottom, left:right]
    return np.asarray(cv2.resize(face, TINY_PX, interpolation=cv2.INTER_AREA))


def _covered(pixels: Pixels, *, share: float, face: Box, seed: int) -> Pixels:
    random = np.random.default_rng(seed)
    scale = np.sqrt(share)
    width, height = (face.right - face.left) * scale, (face.bottom - face.top) * scale
    left = random.uniform(face.left, face.right - width)
    top = random.uniform(face.top, face.bottom - height)
    covered = pixels.copy()
    rectangle = np.s_[round(top) : round(top + height), round(left) : round(left + width)]
    covered[rectangle] = random.integers(0, 256, 3)
    return covered
