"""Pictures for tests: what ships in packages, and everything that can be wrong with one."""

import importlib.util
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def package_file(package: str, inside: str) -> Path:
    """A file inside an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    assert found is not None, f"{package} is not installed"
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / inside


def group() -> Image.Image:
    """Six people."""
    return Image.open(package_file("insightface", "data/images/t1.jpg")).convert("RGB")


def astronaut() -> Image.Image:
    """One person."""
    return Image.open(package_file("skimage", "data/astronaut.png")).convert("RGB")


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The picture as a file of that kind."""
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


def bomb() -> bytes:
    """A small PNG file that claims 100 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (30_001 * 10), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def rotated(picture: Image.Image, orientation: int) -> bytes:
    """A JPEG whose pixels lie turned, with the EXIF entry that says so."""
    turned = picture.transpose(
        {
            3: Image.Transpose.ROTATE_180,
            6: Image.Transpose.ROTATE_90,
            8: Image.Transpose.ROTATE_270,
        }[orientation]
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(turned, "JPEG", exif=exif, quality=95)


def animation(picture: Image.Image, kind: str) -> bytes:
    """The picture as the first of three frames."""
    others = [Image.new("RGB", picture.size, colour) for colour in ("red", "blue")]
    return encoded(picture, kind, save_all=True, append_images=others, duration=100)


def crowd(faces: int) -> Image.Image:
    """A picture in which one face stands many times."""
    face = astronaut().crop((150, 0, 310, 200)).resize((128, 160))
    columns = 8
    canvas = Image.new("RGB", (columns * 140, -(-faces // columns) * 170), "grey")
    for number in range(faces):
        canvas.paste(face, (number % columns * 140 + 6, number // columns * 170 + 5))
    return canvas


def sixteen_bit(picture: Image.Image) -> bytes:
    """A greyscale PNG of 16 bits."""
    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")
