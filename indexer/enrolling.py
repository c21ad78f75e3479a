"""Pictures of one person that somebody names, looked at before they are believed.

A picture is read like any other. What makes it fit to stand for a person, its quality and that it
looks like nobody else, is decided by the caller; here it is read, stored and given to the person.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.naming import area, named_face, overlap
from indexer.sources.pictures import Picture, read_bytes
from retrieval.errors import RefusedImageError
from retrieval.image import DecodedImage, decode
from retrieval.models.reader import FaceReader
from retrieval.store.database import Connection
from retrieval.store.images import FaceFacts, NewImage, add_images, known_faces, known_images
from retrieval.values import Box, Collection, FaceId, FaceReading, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """A picture with its faces, and the one that is meant."""

    path: Path
    content: bytes
    decoded: DecodedImage
    faces: list[FaceReading]
    owner: int  # place of the face that is meant

    @property
    def sha256(self) -> bytes:
        """Of the content."""
        return hashlib.sha256(self.content).digest()

    @property
    def face(self) -> FaceReading:
        """The face that is meant."""
        return self.faces[self.owner]


def read_portrait(
    path: Path, reader: FaceReader, *, region: Box | None = None, pick: int | None = None
) -> Portrait:
    """Read a picture of one person: the largest central face is meant where nothing is said.

    Args:
        path: the picture.
        reader: what sees its faces.
        region: the face whose box is most like this one is meant.
        pick: 1: the largest face is meant, 2: the next.

    Raises:
        RefusedImageError: it cannot be read, or shows no such face.
    """
    content = read_bytes(Picture(path=path.absolute()))
    decoded = decode(content)
    faces = reader.read(decoded.pixels)
    if not faces:
        raise RefusedImageError("no face found")
    boxes = [face.detection.box for face in faces]
    if region is not None and not any(overlap(box, region) > 0 for box in boxes):
        raise RefusedImageError(f"none of its {len(boxes)} faces is in that region")
    if pick is None:
        owner = named_face(boxes, box=region, width=decoded.width, height=decoded.height)
    else:
        owner = _picked(boxes, pick)
    return Portrait(path=path, content=content, decoded=decoded, faces=faces, owner=owner)


def _picked(boxes: Sequence[Box], pick: int) -> int:
    """The place of the `pick`-th largest."""
    if not 1 <= pick <= len(boxes):
        raise RefusedImageError(f"it shows {len(boxes)} faces, and face {pick} is asked for")
    by_size = sorted(range(len(boxes)), key=lambda place: -area(boxes[place]))
    return by_size[pick - 1]


def store_portraits(
    connection: Connection,
    portraits: Sequence[Portrait],
    *,
    collection: Collection,
    space: Space,
    text_space: Space | None,
) -> list[FaceId]:
    """Store what is new of the pictures; give the face that is meant in each."""
    # The same content twice is one picture.
    distinct = {portrait.sha256: portrait for portrait in portraits}
    new = [_new_image(sha256, portrait) for sha256, portrait in distinct.items()]
    add_images(connection, new, collection=collection, space=space, text_space=text_space)
    images = known_images(connection, collection, list(distinct))
    faces = known_faces(connection, [known.id for known in images.values()])
    meant = []
    for sha256, known in images.items():
        held, box = faces[known.id], distinct[sha256].face.detection.box
        place = named_face(list(held.boxes.values()), box=box, width=held.width, height=held.height)
        meant.append(list(held.boxes)[place])
    return meant


def _new_image(sha256: bytes, portrait: Portrait) -> NewImage:
    decoded = portrait.decoded
    return NewImage(
        sha256=sha256,
        path=os.fsencode(portrait.path.absolute()),
        member=None,
        bytes=len(portrait.content),
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        captured_at_assumed_utc=decoded.captured_at_assumed_utc,
        faces=[(face, FaceFacts(captured_at=decoded.captured_at)) for face in portrait.faces],
    )
