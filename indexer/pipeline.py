"""Pictures in, faces in the store: screened, read in other processes, written in batches.

What it promises: one content is one image however often it comes; a picture is in with all its
faces or not at all; whatever is killed, running it again brings in exactly the rest. It holds no
state of its own for that: the store knows which contents are in, and which were refused.

The order of work: list -> read bytes and hash (here) -> decode, detect, embed (child processes) ->
write (here). Batches in flight are bounded by number and by bytes.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from indexer.ahead import Batch, BatchesAhead
from indexer.declaring import Declarations
from indexer.embedding import ReadImage, UnreadImage, pool, read_images
from indexer.naming import named_face
from indexer.sources.pictures import Facts, Framing, Picture, Refused, read_bytes
from retrieval.errors import RefusedImageError, StoreConflictError, StoreUnavailableError
from retrieval.models.choice import ModelChoice
from retrieval.store.collections import declare
from retrieval.store.database import Connection, Store, token
from retrieval.store.images import (
    FaceFacts,
    KnownFaces,
    KnownImage,
    NewImage,
    NewRefusal,
    add_images,
    add_refusals,
    fill_in,
    known_faces,
    known_images,
    known_refusals,
    move_image,
    taken_external_ids,
)
from retrieval.values import Box, Collection, FaceId, ImageId, Space, Token

SCREENED_AT_ONCE: Final = 64  # pictures whose hashes are looked up in one statement
BATCH_PICTURES: Final = 32  # about half a second of work for a process
BATCH_BYTES: Final = 32 * 2**20  # large pictures make small batches
STORE_ATTEMPTS: Final = 5
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPicture:
    """One entry of the list of refused pictures."""

    path: Path
    member: str | None
    reason: str


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was done so far; `progress` callbacks get it after each step."""

    images: int = 0
    known: int = 0
    faces: int = 0
    refused: list[RefusedPicture] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """Pictures that are dealt with."""
        return self.images + self.known + len(self.refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """The outcome of one ingest."""

    images: int
    known: int
    faces: int
    refused: tuple[RefusedPicture, ...]
    left_out: tuple[str, ...]  # names in sidecars that cannot be attributes
    seconds: float
    token: Token


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """How pictures are read."""

    choice: ModelChoice
    framing: Framing
    workers: int
    keep: Callable[[bytes, Path], Path] | None  # copies an original; None: referenced in place


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenedPicture:
    """A picture whose content is new to the store."""

    picture: Picture
    sha256: bytes
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What the child processes do: find, embed and judge faces."""

    choice: ModelChoice
    framing: Framing

    def pool(self, workers: int) -> ProcessPoolExecutor:
        return pool(workers, choice=self.choice)

    def submit(
        self, pool: ProcessPoolExecutor, pictures: Sequence[ScreenedPicture]
    ) -> Future[list[ReadImage | UnreadImage]]:
        return pool.submit(read_images, [one.content for one in pictures], self.framing)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LaterFacts:
    """What is stated of a picture that is stored already."""

    image: ImageId
    box: Box | None
    owner: FaceFacts
    other: FaceFacts

    def by_face(self, known: KnownFaces) -> dict[FaceId, FaceFacts]:
        """What is stated of each of its faces."""
        boxes = list(known.boxes.values())
        named = named_face(boxes, box=self.box, width=known.width, height=known.height)
        return {
            face: self.owner if place == named else self.other
            for place, face in enumerate(known.boxes)
        }


class Ingest:
    """One run over one stream of pictures."""

    def __init__(
        self,
        store: Store,
        *,
        collection: Collection,
        space: Space,
        text_space: Space | None,
        options: IngestOptions,
        declarations: Declarations,
        revive: Callable[[], None],
        progress: Callable[[Tally], None],
    ) -> None:
        self._store = store
        self._collection = collection
        self._space = space
        self._text_space = text_space  # of the model that `options.choice` names, if it names one
        self._options = options
        self._declarations = declarations
        self._revive = revive  # brings an embedded server back
        self._progress = progress
        self._tally = Tally()
        self._seen: dict[bytes, Picture] = {}  # contents of this run
        self._repeats: list[ScreenedPicture] = []  # contents that came again in this run
        self._unreadable: dict[bytes, str] = {}  # contents of this run that were refused

    def run(self, pictures: Iterable[Picture | Refused]) -> IngestReport:
        """Bring all pictures in; a refused one is an entry of the report."""
        begun = time.perf_counter()
        reading = _Reading(choice=self._options.choice, framing=self._options.framing)
        ahead = BatchesAhead(reading, workers=self._options.workers)
        try:
            for batch in self._batches(pictures):
                while ahead.full:
                    self._write(*ahead.next_done())
                ahead.submit(batch)
            while ahead.busy:
                self._write(*ahead.next_done())
        finally:
            ahead.close()
        for one in self._repeats:
            self._meet_again(one)
        return IngestReport(
            images=self._tally.images,
            known=self._tally.known,
            faces=self._tally.faces,
            refused=tuple(self._tally.refused),
            left_out=tuple(sorted(self._declarations.left_out)),
            seconds=time.perf_counter() - begun,
            token=self._stored(token),
        )

    # --- before the models -------------------------------------------------------------------

    def _batches(self, pictures: Iterable[Picture | Refused]) -> Iterator[Batch[ScreenedPicture]]:
        waiting: list[ScreenedPicture] = []
        weight = 0
        for screened in self._screened(pictures):
            if waiting and weight + len(screened.content) > BATCH_BYTES:
                yield Batch(pictures=waiting)
                waiting, weight = [], 0
            waiting.append(screened)
            weight += len(screened.content)
            if len(waiting) == BATCH_PICTURES:
                yield Batch(pictures=waiting)
                waiting, weight = [], 0
        if waiting:
            yield Batch(pictures=waiting)

    def _screened(self, pictures: Iterable[Picture | Refused]) -> Iterator[ScreenedPicture]:
        """Pictures whose content is new."""
        for group in _groups(pictures):
            read = [one for entry in group if (one := self._read_one(entry)) is not None]
            yield from self._unknown(read)
            self._progress(self._tally)

    def _read_one(self, entry: Picture | Refused) -> ScreenedPicture | None:
        if isinstance(entry, Refused):
            self._refuse(entry.path, entry.member, entry.reason)
            return None
        try:
            content = read_bytes(entry)
        except RefusedImageError as refusal:
            self._refuse(entry.path, entry.member, str(refusal))
            return None
        digest = hashlib.sha256(content).digest()
        return ScreenedPicture(picture=entry, sha256=digest, content=content)

    def _unknown(self, read: Sequence[ScreenedPicture]) -> Iterator[ScreenedPicture]:
        hashes = [one.sha256 for one in read]
        stored = self._stored(lambda c: known_images(c, self._collection, hashes))
        refused = self._stored(lambda c: known_refusals(c, self._collection, hashes))
        met = [self._meet_stored(o, stored[o.sha256]) for o in read if o.sha256 in stored]
        self._fill_in([later for later in met if later is not None])
        for one in read:
            if one.sha256 in stored:
                continue
            if one.sha256 in refused:
                self._refuse(one.picture.path, one.picture.member, refused[one.sha256])
            elif one.sha256 in self._seen:
                self._repeats.append(_emptied(one))
            else:
                self._seen[one.sha256] = _emptied(one).picture
                yield one

    def _meet_stored(self, one: ScreenedPicture, known: KnownImage) -> _LaterFacts | None:
        """Count a known picture; give what is stated of it now."""
        picture = one.picture
        person = picture.facts.person
        if person and known.persons and person not in known.persons:
            self._refuse_conflict(picture, os.fsdecode(known.path))
            return None
        try:
            later = self._later_facts(picture.facts, known)
        except RefusedImageError as refusal:
            self._refuse(picture.path, picture.member, str(refusal))
            return None
        self._tally.known += 1
        if not os.path.exists(known.path):  # noqa: PTH110  # bytes that need not be text
            path = os.fsencode(self._kept(one))
            self._stored(lambda c: move_image(c, known.id, path=path, member=picture.member))
        return later

    def _fill_in(self, later: Sequence[_LaterFacts]) -> None:
        """State of known pictures' faces what was not known of them before."""
        if not later:
            return

        def write(connection: Connection) -> None:
            declare(connection, self._collection, self._declarations.new)
            faces = known_faces(connection, [one.image for one in later])
            stated: dict[FaceId, FaceFacts] = {}
            for one in later:
                if one.image in faces:
                    stated |= one.by_face(faces[one.image])
            fill_in(connection, stated, collection=self._collection)

        self._stored(write)
        self._declarations.new.clear()

    def _later_facts(self, facts: Facts, known: KnownImage) -> _LaterFacts | None:
        """What is stated of a known picture; None: nothing."""
        owner = self._owner_facts(facts, facts.captured_at)
        other = self._other_facts(facts, facts.captured_at)
        if owner == other == FaceFacts(origin=other.origin):
            return None
        return _LaterFacts(image=known.id, box=facts.box, owner=owner, other=other)

    def _meet_again(self, one: ScreenedPicture) -> None:
        first = self._seen[one.sha256]
        named = {one.picture.facts.person, first.facts.person} - {None}
        if one.sha256 in self._unreadable:
            reason = self._unreadable[one.sha256]
            self._refuse(one.picture.path, one.picture.member, reason)
        elif len(named) > 1:
            self._refuse_conflict(one.picture, str(first.path))
        else:
            self._tally.known += 1

    def _refuse_conflict(self, picture: Picture, other: str) -> None:
        self._refuse(
            picture.path,
            picture.member,
            f"the same picture as {other!r}, which was given another person's name",
        )

    # --- after the models --------------------------------------------------------------------

    def _write(
        self, batch: Batch[ScreenedPicture], outcomes: Sequence[ReadImage | UnreadImage]
    ) -> None:
        images: list[NewImage] = []
        refusals: list[NewRefusal] = []
        taken = self._taken_ids(batch)
        for one, outcome in zip(batch.pictures, outcomes, strict=True):
            read = self._fitted(one, outcome, taken=taken)
            if isinstance(read, UnreadImage):
                self._unreadable[one.sha256] = read.reason
                self._refuse(one.picture.path, one.picture.member, read.reason)
                refusals.append(_refusal(one, read))
            else:
                images.append(self._new_image(one, read))

        def write(connection: Connection) -> int:
            declare(connection, self._collection, self._declarations.new)
            add_refusals(connection, refusals, collection=self._collection)
            return add_images(
                connection,
                images,
                collection=self._collection,
                space=self._space,
                text_space=self._text_space,
            )

        self._tally.faces += self._stored(write)
        self._tally.images += len(images)
        self._declarations.new.clear()
        self._progress(self._tally)

    def _taken_ids(self, batch: Batch[ScreenedPicture]) -> set[str]:
        """External ids of the batch that faces in the store bear already."""
        asked = [one.picture.facts.external_id for one in batch.pictures]
        ids = [external_id for external_id in asked if external_id is not None]
        if not ids:
            return set()
        return self._stored(lambda c: taken_external_ids(c, ids, collection=self._collection))

    def _fitted(
        self, one: ScreenedPicture, outcome: ReadImage | UnreadImage, *, taken: set[str]
    ) -> ReadImage | UnreadImage:
        """The outcome, refused where the picture's facts do not fit; adds its id to `taken`."""
        facts = one.picture.facts
        if isinstance(outcome, UnreadImage):
            return outcome
        try:
            self._declarations.fitted(facts.attributes)
        except RefusedImageError as refusal:
            return UnreadImage(reason=str(refusal))
        if facts.external_id in taken:
            return UnreadImage(reason="its id is another face's")
        if facts.external_id is not None:
            taken.add(facts.external_id)
        return outcome

    def _new_image(self, one: ScreenedPicture, read: ReadImage) -> NewImage:
        facts = one.picture.facts
        boxes = [reading.detection.box for reading in read.faces]
        owner = named_face(boxes, box=facts.box, width=read.width, height=read.height)
        at = facts.captured_at or read.captured_at
        assumed = (
            facts.captured_at_assumed_utc if facts.captured_at else read.captured_at_assumed_utc
        )
        owner_facts, other_facts = self._owner_facts(facts, at), self._other_facts(facts, at)
        return NewImage(
            sha256=one.sha256,
            path=os.fsencode(self._kept(one)),
            member=one.picture.member,
            bytes=len(one.content),
            width=read.width,
            height=read.height,
            format=read.format,
            captured_at_assumed_utc=assumed,
            faces=[
                (reading, owner_facts if place == owner else other_facts)
                for place, reading in enumerate(read.faces)
            ],
        )

    def _owner_facts(self, facts: Facts, captured_at: datetime | None) -> FaceFacts:
        """What is stated of the face that the picture's facts are about."""
        return replace(
            self._other_facts(facts, captured_at),
            person=facts.person,
            external_id=facts.external_id,
            age=facts.age,
            gender=facts.gender,
            captions=facts.captions or (),
            attributes=self._declarations.fitted(facts.attributes),
        )

    def _other_facts(self, facts: Facts, captured_at: datetime | None) -> FaceFacts:
        """What is stated of every face: all that is about the picture.

        Attributes are about the picture, unless a box says which face they are about.
        """
        about_all = {} if facts.box else self._declarations.fitted(facts.attributes)
        return FaceFacts(
            source=facts.source,
            origin=facts.origin or "captured",
            captured_at=captured_at,
            track=facts.track,
            frame=facts.frame,
            tags=facts.tags,
            attributes=about_all,
        )

    def _kept(self, one: ScreenedPicture) -> Path:
        """Where the original will be found: in place, or its copy."""
        path = one.picture.path.absolute()
        return path if self._options.keep is None else self._options.keep(one.content, path)

    def _refuse(self, path: Path, member: str | None, reason: str) -> None:
        self._tally.refused.append(RefusedPicture(path=path, member=member, reason=reason))

    def _stored(self, action: Callable[[Connection], Result]) -> Result:
        """Run `action` in one transaction; asked again after a conflict or a server's death.

        Every action here is idempotent, so a commit whose answer was lost does no harm.
        """
        for attempt in range(1, STORE_ATTEMPTS + 1):
            try:
                with self._store.writing() as connection:
                    return action(connection)
            except (StoreUnavailableError, StoreConflictError):
                if attempt == STORE_ATTEMPTS:
                    raise
                time.sleep(0.2 * 2**attempt)
                self._revive()
        raise AssertionError


def _emptied(one: ScreenedPicture) -> ScreenedPicture:
    """The same without its bytes: they are not held for the length of a run."""
    return replace(one, content=b"", picture=replace(one.picture, content=None))


def _groups(pictures: Iterable[Picture | Refused]) -> Iterator[list[Picture | Refused]]:
    group: list[Picture | Refused] = []
    for picture in pictures:
        group.append(picture)
        if len(group) == SCREENED_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _refusal(one: ScreenedPicture, unread: UnreadImage) -> NewRefusal:
    return NewRefusal(
        sha256=one.sha256,
        path=os.fsencode(one.picture.path.absolute()),
        member=one.picture.member,
        reason=unread.reason,
    )
