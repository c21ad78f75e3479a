"""SFace: 112 x 112 crops to 128 numbers, on onnxruntime.

Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", 2021;
Apache-2.0. Feeding: RGB, 0 to 255 as they are.

The packaged file names each weight twice, as the result of unpacking it from 8 bits and as an input
of the network; onnxruntime then wants to be given all weights with each picture. Its other inputs
are struck out in memory, which gives the file that OpenCV's own engine runs: same numbers to 4e-6.
"""

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np

from retrieval.align import CROP_SIDE_PX
from retrieval.models.ports import Provenance
from retrieval.models.session import Device, Session
from retrieval.quality import Recognisability
from retrieval.values import Floats, Pixels, Space

RECOGNISABLE: Final = Recognisability(  # fitted on LFW
    typical_norm=12.8,
    full_score=0.9,
    norm=12.57,
    size=5.29,
    score=8.99,
    sharpness=1.77,
    best=5.41,
)
_SIZE: Final = (CROP_SIDE_PX, CROP_SIDE_PX)
_PICTURE_INPUT: Final = b"data"
# Field numbers of onnx.proto.
_MODEL_GRAPH: Final = 7
_GRAPH_INPUT: Final = 11
_VALUE_NAME: Final = 1
_COUNTED: Final = 2  # how protobuf writes strings and messages: a length, then the bytes
_CONTINUED: Final = 0x80  # set in each byte of a number but its last


class SFace:
    """OpenCV's identity network."""

    def __init__(
        self, model: bytes, *, provenance: Provenance, space: Space, threads: int, device: Device
    ) -> None:
        self.provenance = provenance
        self.space = space
        self.recognisability = RECOGNISABLE
        self._session = Session(with_one_input(model), threads=threads, device=device)

    def embed(self, crops: Pixels) -> Floats:
        """Raw vectors (n, 128) of crops (see `FaceEmbedder`)."""
        vectors = np.empty((len(crops), self.space.dimension), np.float32)
        for place, crop in enumerate(crops):  # the network takes one at a time
            batch = cv2.dnn.blobFromImage(crop, 1.0, _SIZE)
            vectors[place] = self._session.run(batch)[0][0]
        return vectors


def with_one_input(model: bytes) -> bytes:
    """An ONNX file whose graph has no input but `data`."""
    graph = b""
    others = []
    for number, whole, body in _fields(model):
        if number == _MODEL_GRAPH:
            graph = body
        else:
            others.append(whole)
    kept = b"".join(
        whole
        for number, whole, body in _fields(graph)
        if number != _GRAPH_INPUT or _name(body) == _PICTURE_INPUT
    )
    key = _MODEL_GRAPH << 3 | _COUNTED
    return b"".join(others) + bytes([key]) + _as_varint(len(kept)) + kept


def _name(value: bytes) -> bytes:
    return next(body for number, _, body in _fields(value) if number == _VALUE_NAME)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each field of a protobuf message: its number, all its bytes, its content."""
    place = 0
    while place < len(message):
        begin = place
        key, place = _varint(message, place)
        match key & 7:
            case 0:  # a number
                content, place = place, _varint(message, place)[1]
            case 1:  # eight bytes
                content, place = place, place + 8
            case 5:  # four bytes
                content, place = place, place + 4
            case _:
                length, content = _varint(message, place)
                place = content + length
        yield key >> 3, message[begin:place], message[content:place]


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """The number at `place`, seven bits a byte, and where it ends."""
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 0x7F) << shift
        shift += 7
        place += 1
        if byte < _CONTINUED:
            return number, place


def _as_varint(number: int) -> bytes:
    written = bytearray()
    while number >= _CONTINUED:
        written.append(number & 0x7F | _CONTINUED)
        number >>= 7
    return bytes([*written, number])
