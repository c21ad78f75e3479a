"""Altered copies of pictures, as they come about on their way through the web; each seeded.

Six kinds: encoded anew (JPEG quality 30 to 95), resized (0.3 to 2 times), cropped (5 to 20 % of
either side), mirrored, brightness (0.6 to 1.5 times), and a line of text laid over.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

GOOD_QUALITY: Final = 92  # of a copy whose encoding is not the point
Change = Callable[[Image.Image, np.random.Generator], tuple[Image.Image, int]]


def _encoded(picture: Image.Image, random: np.random.Generator) -> tuple[Image.Image, int]:
    return picture, int(random.integers(30, 96))


def _resized(picture: Image.Image, random: np.random.Generator) -> tuple[Image.Image, int]:
    factor = random.uniform(0.3, 2.0)
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS), GOOD_QUALITY


def _cropped(picture: Image.Image, random: np.random.Generator) -> tuple[Image.Image, int]:
    cut = random.uniform(0.05, 0.20, 2) * picture.size
    left, top = cut * random.uniform(0, 1, 2)
    right, bottom = picture.size - cut + (left, top)
    box = tuple(round(edge) for edge in (left, top, right, bottom))
    return picture.crop(box), GOOD_QUALITY  # type: ignore[arg-type]


def _mirrored(picture: Image.Image, random: np.random.Generator) -> tuple[Image.Image, int]:  # noqa: ARG001
    return ImageOps.mirror(picture), GOOD_QUALITY


def _brightened(picture: Image.Image, random: np.random.Generator) -> tuple[Image.Image, int]:
    factor = random.uniform(0.6, 0.85) if random.random() < 0.5 else random.uniform(1.15, 1.5)
    return ImageEnhance.Brightness(picture).enhance(factor), GOOD_QUALITY


def _lettered(picture: Image.Image, random: np.random.Generator) -> tuple[Image.Image, int]:
    """A white line with a black edge, half to nearly all of the width, anywhere."""
    lettered = picture.copy()
    draw = ImageDraw.Draw(lettered)
    text = "".join(random.choice(list("ABCDEFGHIKLMNOPRSTUVW 0123456789"), 16))
    wanted = random.uniform(0.5, 0.95) * picture.width
    size = wanted / draw.textlength(text, font=ImageFont.load_default(10)) * 10
    font = ImageFont.load_default(size)
    left = random.uniform(0, picture.width - draw.textlength(text, font=font))
    top = random.uniform(0, picture.height - 1.3 * size)
    draw.text((left, top), text, font=font, fill="white", stroke_width=1, stroke_fill="black")
    return lettered, GOOD_QUALITY


KINDS: Final[Mapping[str, Change]] = {
    "encoded": _encoded,
    "resized": _resized,
    "cropped": _cropped,
    "mirrored": _mirrored,
    "brightness": _brightened,
    "text": _lettered,
}


def plant(pictures: Sequence[Path], folder: Path, *, each: int, seed: int) -> dict[Path, Path]:
    """Write `each` copies of each kind below `folder`/kind, no picture copied twice.

    Gives the original of each copy. What lies there already is not written again.
    """
    if each * len(KINDS) > len(pictures):
        raise ValueError(f"{len(pictures)} pictures are too few for {len(KINDS)} times {each}")
    order = np.random.default_rng(seed).permutation(len(pictures))
    planted: dict[Path, Path] = {}
    for number, (kind, change) in enumerate(KINDS.items()):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for place in order[number * each : (number + 1) * each]:
            copy = folder / kind / f"{pictures[place].stem}.jpg"
            planted[copy] = pictures[place]
            if not copy.exists():
                random = np.random.default_rng([seed, number, int(place)])
                with Image.open(pictures[place]) as opened:
                    changed, quality = change(opened.convert("RGB"), random)
                changed.save(copy, quality=quality)
    return planted
