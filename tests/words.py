"""A small face-text model for tests: real files in a real folder, of which all is known.

Its network averages the picture over 8 x 8 fields, so features and tags have an oracle in NumPy.
"""

import struct
from pathlib import Path

import numpy as np

from retrieval.models.face_text.folder import About, ModelFolder, ModelKind, new_folder, read_folder
from retrieval.models.face_text.light import IMAGE_FILE, LightHeads
from retrieval.values import Floats, Pixels

SIDE_PX, FIELDS = 224, 8
FEATURES = 3 * FIELDS * FIELDS
TAGS = ("bright", "reddish")


def small_model(
    models: Path,
    *,
    space: str = "small@1",
    dimension: int = 32,
    commercial: bool = True,
    seed: int = 0,
) -> ModelFolder:
    """A light model below `models`."""
    about = About(
        kind=ModelKind.LIGHT,
        space=space,
        dimension=dimension,
        licence="none: made for tests" if commercial else "research only: made for tests",
        commercial=commercial,
    )
    with new_folder(models, about) as folder:
        (folder / IMAGE_FILE).write_bytes(averaging_network(SIDE_PX))
        small_heads(dimension, seed=seed).write(folder)
    return read_folder(models / space)


def small_heads(dimension: int, *, seed: int) -> LightHeads:
    """Random heads; the tags are given to pictures that are bright, and that are red."""
    random = np.random.default_rng(seed)

    def some(*shape: int, scale: float = 1.0) -> Floats:
        return random.normal(0, scale, shape).astype(np.float32)

    colours = np.repeat(np.eye(3, dtype=np.float32), FIELDS**2, axis=0) / FIELDS**2  # means
    bright = colours @ np.array([1, 1, 1], np.float32) / 3
    reddish = colours @ np.array([1, -0.5, -0.5], np.float32)
    return LightHeads(
        image_mean=np.full(FEATURES, 100, np.float32),
        image_scale=np.full(FEATURES, 50, np.float32),
        image_weights=some(FEATURES, dimension),
        image_bias=some(dimension),
        text_mean=some(512, scale=0.01),
        concepts=(),
        hidden_weights=np.zeros((512, 0), np.float32),
        hidden_bias=np.zeros(0, np.float32),
        heard_weights=np.zeros((0, 0), np.float32),
        heard_direct=np.zeros((512, 0), np.float32),
        heard_bias=np.zeros(0, np.float32),
        concept_weights=np.zeros((0, dimension), np.float32),
        text_weights=some(512, dimension),
        text_bias=some(dimension, scale=0.1),
        gap_faces=some(dimension, scale=0.02),
        gap_texts=some(dimension, scale=0.02),
        tags=TAGS,
        tag_weights=np.stack([bright, reddish], axis=1),
        tag_bias=np.array([0.0, 0.0], np.float32),
        tag_thresholds=np.array([0.5, 0.6], np.float32),
    )


def averages(portraits: Pixels) -> Floats:
    """What the network gives, (n, 192): the mean of each field of each colour."""
    n, side, fields = len(portraits), SIDE_PX // FIELDS, FIELDS
    shaped = portraits.astype(np.float64).reshape(n, fields, side, fields, side, 3)
    return shaped.mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(n, -1).astype(np.float32)


def averaging_network(side_px: int) -> bytes:
    """An ONNX file: portraits (n, 3, side, side) -> AveragePool -> Flatten -> (n, 192)."""
    field = side_px // FIELDS
    pool = _node("AveragePool", "portraits", "pooled", kernel_shape=field, strides=field)
    flat = _node("Flatten", "pooled", "features")
    graph = b"".join(
        (
            _bytes(1, pool),
            _bytes(1, flat),
            _bytes(2, b"averages"),
            _bytes(11, _tensor("portraits", ("n", 3, side_px, side_px))),
            _bytes(12, _tensor("features", ("n", FEATURES))),
        )
    )
    opset = _number(2, 17)
    return _number(1, 8) + _bytes(8, opset) + _bytes(7, graph)


# --- ONNX is protobuf: a field is its number and kind, then a number, or a length and bytes -------


def _node(kind: str, source: str, target: str, **pairs: int) -> bytes:
    attributes = b"".join(
        _bytes(5, _bytes(1, name.encode()) + _number(8, side) * 2 + _number(20, 7))
        for name, side in pairs.items()
    )
    named = _bytes(1, source.encode()) + _bytes(2, target.encode()) + _bytes(4, kind.encode())
    return named + attributes


def _tensor(name: str, shape: tuple[int | str, ...]) -> bytes:
    dimensions = b"".join(
        _bytes(1, _bytes(2, one.encode()) if isinstance(one, str) else _number(1, one))
        for one in shape
    )
    kind = _number(1, 1) + _bytes(2, dimensions)  # 1: float32
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, kind))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low = b""
    while value > 0x7F:
        low += struct.pack("B", value & 0x7F | 0x80)
        value >>= 7
    return low + struct.pack("B", value)
