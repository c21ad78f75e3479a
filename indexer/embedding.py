"""The processes that turn bytes into faces: decode, detect, align, embed, judge; or look again.

A process opens its models once. While the models work on one picture, a thread decodes the next:
Pillow, OpenCV and onnxruntime let go of the interpreter lock. The processes are spawned, not forked
(onnxruntime's threads do not survive a fork), and end when the process that owns them ends, even by
kill -9.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import wait

import numpy as np

from indexer.sources.pictures import Framing
from retrieval.align import portrait
from retrieval.errors import FacedexError, RefusedImageError
from retrieval.image import DecodedImage, decode
from retrieval.models.choice import ModelChoice, load_face_text_model, load_models
from retrieval.models.ports import FaceTextEncoder
from retrieval.models.reader import FaceReader, tags_given
from retrieval.values import FaceReading, Floats, Pixels, UnitRows

DECODED_AHEAD = 2  # pictures; a 64-megapixel one takes 192 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadImage:
    """What one picture turned out to be."""

    width: int
    height: int
    format: str
    captured_at: datetime | None
    captured_at_assumed_utc: bool
    faces: tuple[FaceReading, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadImage:
    """Why one picture cannot become faces."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPicture:
    """A picture that was read before."""

    content: bytes
    landmarks: Floats  # (n, 5, 2) of its faces, in pixels of the upright picture


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAt:
    """What a face-text model says of the faces of one picture."""

    vectors: UnitRows  # (n, d)
    tags: tuple[dict[str, float] | None, ...]  # given tags with their chances; None: none are told


# What a child process holds: its models, or why they cannot be opened.
_reader: FaceReader | FacedexError | None = None
_encoder: FaceTextEncoder | FacedexError | None = None


def pool(workers: int, *, choice: ModelChoice) -> ProcessPoolExecutor:
    """Processes that are ready for `read_images`."""
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(choice,),
    )


def read_images(contents: Sequence[bytes], framing: Framing) -> list[ReadImage | UnreadImage]:
    """The faces of each picture; runs in a process of `pool`.

    Raises:
        FacedexError: the models cannot be opened.
    """
    if _reader is None:
        raise RuntimeError("this process was not started by pool()")
    if isinstance(_reader, FacedexError):
        raise _reader
    return [_read(_reader, decoded, framing) for decoded in _decoded_ahead(contents)]


def looking_pool(workers: int, *, choice: ModelChoice) -> ProcessPoolExecutor:
    """Processes that are ready for `look_again`; the choice names a face-text model."""
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_looking,
        initargs=(choice,),
    )


def look_again(pictures: Sequence[StoredPicture]) -> list[LookedAt | UnreadImage]:
    """What the face-text model says of known faces; runs in a process of `looking_pool`.

    Raises:
        FacedexError: the model cannot be opened.
    """
    if _encoder is None:
        raise RuntimeError("this process was not started by looking_pool()")
    if isinstance(_encoder, FacedexError):
        raise _encoder
    decoded = _decoded_ahead([picture.content for picture in pictures])
    return [
        _looked_at(_encoder, one, picture.landmarks)
        for one, picture in zip(decoded, pictures, strict=True)
    ]


def _start_looking(choice: ModelChoice) -> None:
    global _encoder  # noqa: PLW0603  # the one state of a child process
    _become_child()
    try:
        _encoder = load_face_text_model(choice)
    except FacedexError as problem:
        _encoder = problem


def _looked_at(
    encoder: FaceTextEncoder, decoded: DecodedImage | UnreadImage, landmarks: Floats
) -> LookedAt | UnreadImage:
    if isinstance(decoded, UnreadImage):
        return decoded
    try:
        portraits = np.stack([portrait(decoded.pixels, points) for points in landmarks])
        said = encoder.of_faces(portraits)
    except RefusedImageError as refusal:
        return UnreadImage(reason=str(refusal))
    tags = tuple(
        tags_given(chances, by=encoder, tags=said.tags) if said.tags else None
        for chances in said.chances
    )
    return LookedAt(vectors=said.vectors, tags=tags)


def _become_child() -> None:
    # Ctrl-C reaches every process of a terminal; the owner decides what becomes of its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _start(choice: ModelChoice) -> None:
    global _reader  # noqa: PLW0603  # the one state of a child process
    _become_child()
    try:
        _reader = load_models(choice)
    except FacedexError as problem:
        # An exception here would look like a death, and be tried again.
        _reader = problem


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _decoded_ahead(contents: Sequence[bytes]) -> Iterator[DecodedImage | UnreadImage]:
    with ThreadPoolExecutor(1) as thread:
        waiting = [thread.submit(_decoded, content) for content in contents[:DECODED_AHEAD]]
        for place in range(len(contents)):
            yield waiting.pop(0).result()
            if place + DECODED_AHEAD < len(contents):
                waiting.append(thread.submit(_decoded, contents[place + DECODED_AHEAD]))


def _decoded(content: bytes) -> DecodedImage | UnreadImage:
    try:
        return decode(content)
    except RefusedImageError as refusal:
        return UnreadImage(reason=str(refusal))


def _read(
    reader: FaceReader, decoded: DecodedImage | UnreadImage, framing: Framing
) -> ReadImage | UnreadImage:
    if isinstance(decoded, UnreadImage):
        return decoded
    try:
        faces = _faces(reader, decoded.pixels, framing)
    except RefusedImageError as refusal:
        return UnreadImage(reason=str(refusal))
    except Exception as problem:  # noqa: BLE001  # one bad picture must not take the batch along
        return UnreadImage(reason=f"the models failed on it ({type(problem).__name__})")
    if not faces:
        return UnreadImage(reason="no face found")
    return ReadImage(
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        captured_at=decoded.captured_at,
        captured_at_assumed_utc=decoded.captured_at_assumed_utc,
        faces=tuple(faces),
    )


def _faces(reader: FaceReader, pixels: Pixels, framing: Framing) -> list[FaceReading]:
    match framing:
        case Framing.SCENE:
            return reader.read(pixels)
        case Framing.ALIGNED:
            return reader.read_aligned(pixels)
