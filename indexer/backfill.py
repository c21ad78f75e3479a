"""Stored pictures looked at again: a face-text model fills its space for faces that came before it.

Nothing is detected: faces lie where the store says. What is left to do is asked of the store, and a
batch of pictures is one transaction, so a run that was cut off goes on where it stopped, and
doing it twice changes nothing. A picture that is gone, or is another one now, is reported, and the
others go on. Captions get their vectors in the same way, without pictures.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np

from indexer.ahead import Batch, BatchesAhead
from indexer.embedding import LookedAt, StoredPicture, UnreadImage, look_again, looking_pool
from indexer.sources.pictures import Picture, Refused, read_bytes
from indexer.sources.records import is_rec, list_records
from indexer.sources.tars import list_tar
from retrieval.align import PORTRAIT_SIDE_PX, portrait
from retrieval.captions.practice import made_sentences
from retrieval.errors import RefusedImageError
from retrieval.filters.tree import Filter
from retrieval.image import decode
from retrieval.models.choice import ModelChoice
from retrieval.models.ports import FaceTextEncoder
from retrieval.store.captions import (
    add_caption_vectors,
    captions_without_vector,
    count_captions_without_vector,
)
from retrieval.store.database import Store
from retrieval.store.looks import (
    Lacking,
    LackingPicture,
    Look,
    add_looks,
    count_lacking,
    lacking_pictures,
)
from retrieval.values import CaptionId, Collection, ImageId, Pixels, Space, SpaceId

PAGE_PICTURES: Final = 1_000  # asked for at once; an archive is listed once a page
BATCH_PICTURES: Final = 32  # as in an ingest
BATCH_BYTES: Final = 32 * 2**20
CAPTIONS_AT_ONCE: Final = 256  # a third of a second of the encoder
SAMPLE_PICTURES: Final = 256  # their faces' middle is known to a sixteenth of their spread
SAMPLE_TEXTS: Final = 1_000
PORTRAIT_SHAPE: Final = (PORTRAIT_SIDE_PX, PORTRAIT_SIDE_PX, 3)
# In which nothing has a vector: what a model has yet to be tried on.
NO_SPACE: Final = Space(
    id=SpaceId(0), name="", dimension=1, model_sha256=None, licence="", commercial=False
)
Progress = Callable[[int, int], None]  # done, of all


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPicture:
    """A stored picture that could not be looked at again."""

    path: Path
    member: str | None
    faces: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillReport:
    """The outcome of one run."""

    pictures: int
    faces: int
    missing: tuple[MissingPicture, ...]
    unseen: int  # faces that came without a picture: their vectors have to be imported
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPicture:
    """A picture whose bytes are at hand."""

    stored: LackingPicture
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looking:
    """What the child processes do."""

    choice: ModelChoice

    def pool(self, workers: int) -> ProcessPoolExecutor:
        return looking_pool(workers, choice=self.choice)

    def submit(
        self, pool: ProcessPoolExecutor, pictures: Sequence[ReadPicture]
    ) -> Future[list[LookedAt | UnreadImage]]:
        given = [
            StoredPicture(
                content=one.content, landmarks=np.stack(list(one.stored.landmarks.values()))
            )
            for one in pictures
        ]
        return pool.submit(look_again, given)


class Backfill:
    """One run over the faces of a collection that lack something of a face-text model."""

    def __init__(
        self,
        store: Store,
        *,
        collection: Collection,
        space: Space,
        choice: ModelChoice,
        workers: int,
        progress: Progress,
    ) -> None:
        self._store = store
        self._collection = collection
        self._space = space
        self._choice = choice  # names the model of the space
        self._workers = workers
        self._progress = progress
        self._pictures = self._faces = 0
        self._missing: list[MissingPicture] = []

    def run(self, lacking: Lacking, *, filter_: Filter | None) -> BackfillReport:
        """Look at every face that lacks it and passes the filter."""
        begun = time.perf_counter()
        with self._store.reading() as connection:
            lack = count_lacking(
                connection,
                collection=self._collection,
                space=self._space,
                lacking=lacking,
                filter_=filter_,
            )
        ahead = BatchesAhead(_Looking(choice=self._choice), workers=self._workers)
        try:
            for batch in _batches(self._read(lacking, filter_)):
                while ahead.full:
                    self._write(*ahead.next_done(), of=lack.pictures)
                ahead.submit(batch)
            while ahead.busy:
                self._write(*ahead.next_done(), of=lack.pictures)
        finally:
            ahead.close()
        return BackfillReport(
            pictures=self._pictures,
            faces=self._faces,
            missing=tuple(self._missing),
            unseen=lack.unseen,
            seconds=time.perf_counter() - begun,
        )

    def _read(self, lacking: Lacking, filter_: Filter | None) -> Iterator[ReadPicture]:
        """The pictures that can be read; the others become entries of the report."""
        after = ImageId(0)
        while True:
            with self._store.reading() as connection:
                page = lacking_pictures(
                    connection,
                    collection=self._collection,
                    space=self._space,
                    lacking=lacking,
                    filter_=filter_,
                    after=after,
                    count=PAGE_PICTURES,
                )
            if not page:
                return
            after = page[-1].image
            for one in contents_of(page):
                if isinstance(one, MissingPicture):
                    self._missing.append(one)
                else:
                    yield one

    def _write(
        self, batch: Batch[ReadPicture], outcomes: Sequence[LookedAt | UnreadImage], *, of: int
    ) -> None:
        looks: list[Look] = []
        for one, outcome in zip(batch.pictures, outcomes, strict=True):
            if isinstance(outcome, UnreadImage):
                self._missing.append(missing(one.stored, outcome.reason))
                continue
            self._pictures += 1
            looks += [
                Look(face=face, vector=vector, tags=tags)
                for face, vector, tags in zip(
                    one.stored.landmarks, outcome.vectors, outcome.tags, strict=True
                )
            ]
        with self._store.writing() as connection:
            add_looks(connection, looks, space=self._space)
        self._faces += len(looks)
        self._progress(self._pictures + len(self._missing), of)


def fill_captions(
    store: Store,
    *,
    collection: Collection,
    space: Space,
    encoder: Callable[[], FaceTextEncoder],
    progress: Progress,
) -> int:
    """Give every caption its vector in the space; give the number of those that had none.

    Args:
        store: where captions lie.
        collection: whose.
        space: the collection's face-text space.
        encoder: opens its model; not called where no caption lacks a vector.
        progress: called with captions done and captions in all.
    """
    with store.reading() as connection:
        total = count_captions_without_vector(connection, collection=collection, space=space)
    done, after = 0, CaptionId(0)
    while True:
        with store.reading() as connection:
            captions = captions_without_vector(
                connection, collection=collection, space=space, after=after, count=CAPTIONS_AT_ONCE
            )
        if not captions:
            return done
        vectors = encoder().of_texts([caption.text for caption in captions])
        ids = [caption.id for caption in captions]
        with store.writing() as connection:
            add_caption_vectors(connection, ids, vectors, space=space)
        done, after = done + len(captions), ids[-1]
        progress(done, max(total, done))


def sample_portraits(store: Store, *, collection: Collection) -> Pixels:
    """Portraits of faces of the collection's first pictures, (n, 224, 224, 3)."""
    found: list[Pixels] = []
    for one in contents_of(_all_pictures(store, collection)):
        if isinstance(one, ReadPicture):
            with suppress(RefusedImageError):
                pixels = decode(one.content).pixels
                found += [portrait(pixels, points) for points in one.stored.landmarks.values()]
    return np.stack(found) if found else np.empty((0, *PORTRAIT_SHAPE), np.uint8)


def sample_texts(store: Store, *, collection: Collection) -> list[str]:
    """Captions of the collection, or made-up sentences where it has too few."""
    with store.reading() as connection:
        captions = captions_without_vector(
            connection,
            collection=collection,
            space=NO_SPACE,
            after=CaptionId(0),
            count=SAMPLE_TEXTS,
        )
    if len(captions) >= SAMPLE_PICTURES:
        return [caption.text for caption in captions]
    return made_sentences(SAMPLE_PICTURES)


def _all_pictures(store: Store, collection: Collection) -> list[LackingPicture]:
    with store.reading() as connection:
        return lacking_pictures(
            connection,
            collection=collection,
            space=NO_SPACE,
            lacking=Lacking.VECTOR,
            filter_=None,
            after=ImageId(0),
            count=SAMPLE_PICTURES,
        )


def contents_of(pictures: Iterable[LackingPicture]) -> Iterator[ReadPicture | MissingPicture]:
    """The bytes of stored pictures; one whose content is not what was stored is missing."""
    for place, group in groupby(pictures, key=lambda one: (one.path, one.member is None)):
        path, is_file = Path(os.fsdecode(place[0])), place[1]
        if is_file:
            for one in group:
                yield _content(one, Picture(path=path))
        else:
            yield from _in_archive(path, list(group))


def _in_archive(
    path: Path, wanted: Sequence[LackingPicture]
) -> Iterator[ReadPicture | MissingPicture]:
    """The bytes of some pictures of one archive, which is listed once."""
    # A name may stand for several pictures of an archive: the content decides.
    by_name: dict[str | None, list[LackingPicture]] = {}
    for one in wanted:
        by_name.setdefault(one.member, []).append(one)
    reason = "it is not in the archive any more"
    for entry in _listed(path):
        if isinstance(entry, Refused):
            reason = entry.reason if entry.member is None else reason
            continue
        for one in list(by_name.get(entry.member, ())):
            found = _content(one, entry)
            if isinstance(found, ReadPicture):
                by_name[entry.member].remove(one)
                yield found
    for left in by_name.values():
        yield from (missing(one, reason) for one in left)


def _listed(path: Path) -> Iterator[Picture | Refused]:
    return list_records(path) if is_rec(path.name) else list_tar(path, left_out=frozenset())


def _content(stored: LackingPicture, picture: Picture) -> ReadPicture | MissingPicture:
    try:
        content = read_bytes(picture)
    except RefusedImageError as refusal:
        return missing(stored, str(refusal))
    if hashlib.sha256(content).digest() != stored.sha256:
        return missing(stored, "another picture lies there now")
    return ReadPicture(stored=stored, content=content)


def missing(stored: LackingPicture, reason: str) -> MissingPicture:
    """The entry of a report for a picture that could not be looked at."""
    path = Path(os.fsdecode(stored.path))
    faces = len(stored.landmarks)
    return MissingPicture(path=path, member=stored.member, faces=faces, reason=reason)


def _batches(pictures: Iterable[ReadPicture]) -> Iterator[Batch[ReadPicture]]:
    waiting: list[ReadPicture] = []
    weight = 0
    for one in pictures:
        if waiting and (weight + len(one.content) > BATCH_BYTES or len(waiting) == BATCH_PICTURES):
            yield Batch(pictures=waiting)
            waiting, weight = [], 0
        waiting.append(one)
        weight += len(one.content)
    if waiting:
        yield Batch(pictures=waiting)
