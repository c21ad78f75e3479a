"""A face-text model of a collection's own: its pictures, attributes and captions become heads.

Pictures are looked at again by the frozen network (retrieval/models/face_text/base.py), and what
it gives is kept in a file below FACEDEX_HOME/training until the model is there: a run that was cut
off goes on where it stopped. A fifth of the people are left out of the lessons, and the report
tells how well words find their faces.
"""

import fcntl
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.backfill import NO_SPACE, MissingPicture, ReadPicture, contents_of, missing
from retrieval.align import CROP_SIDE_PX, portrait
from retrieval.captions.grammar import captions
from retrieval.captions.practice import practice
from retrieval.captions.vocabulary import ATTRIBUTES, attributes_of_row
from retrieval.errors import RefusedImageError, StoreConflictError, UsageError
from retrieval.evaluation.captions import CaptionsReport, auc, rank_captions
from retrieval.filters.tree import Filter
from retrieval.image import decode
from retrieval.limits import TAUGHT_FACES_MAX, within
from retrieval.models.face_text.base import FEATURES, identity_base
from retrieval.models.face_text.folder import About, ModelFolder, ModelKind, new_folder, read_folder
from retrieval.models.face_text.light import IMAGE_FILE, LightHeads, claims, network_input
from retrieval.models.face_text.sentences import SentenceEncoder
from retrieval.models.face_text.training import (
    DIMENSION,
    SENTENCES,
    Lessons,
    heard_sentences,
    train,
)
from retrieval.models.session import Device, Session
from retrieval.settings import Use
from retrieval.store.captions import Caption, captions_of
from retrieval.store.database import Store
from retrieval.store.faces import FaceRecord, face_records
from retrieval.store.looks import Lacking, LackingPicture, count_lacking, lacking_pictures
from retrieval.values import Collection, FaceId, Floats, HalfRows, ImageId

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

PAGE_PICTURES: Final = 1_000
LEFT_OUT: Final = 0.2  # of the people, for the report
ASKED_MAX: Final = 1_000  # faces of these people that captions are looked for among
PEOPLE_MIN: Final = 20  # among them
CAPTION_SHARE: Final = 0.45  # of the true attributes that a made-up caption of the report says
Progress = Callable[[str, int, int], None]  # what is done, how much of it, of all


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachingReport:
    """A trained model, and how it does on people that it was not taught."""

    model: ModelFolder
    faces: int  # that were learned from
    people: int
    stated: int  # captions among the lessons that came with the faces
    missing: tuple[MissingPicture, ...]
    captions: CaptionsReport | None  # faces left out; None: too few have a caption
    tags: Mapping[str, float | None]  # AUC of each attribute head on the people left out


class Teaching:
    """One training over the faces of a collection."""

    def __init__(
        self,
        store: Store,
        *,
        collection: Collection,
        use: Use,
        folder: Path,
        workers: int,
        progress: Progress,
    ) -> None:
        """Prepare.

        Args:
            store: where the faces are.
            collection: whose.
            use: what the model is for.
            folder: where features are kept between runs; erasing a person empties it.
            workers: threads that look at pictures.
            progress: called after each step.

        Raises:
            ModelUnavailableError: the extra `captions` is not installed.
            LicenceError: the use is commercial, and the network is not.
        """
        self._store = store
        self._collection = collection
        self._workers = workers
        self._progress = progress
        self._folder = folder
        self._base = identity_base(use)
        self._missing: list[MissingPicture] = []

    def run(self, space: str, *, models: Path, filter_: Filter | None, seed: int) -> TeachingReport:
        """Look, learn, write the model, and ask it.

        Args:
            space: NAME@VERSION of the new space.
            models: where models lie.
            filter_: faces to learn from; None: all.
            seed: of the division of people and the training.

        Raises:
            UsageError: too few faces have a caption or attributes, or the name is taken.
            StoreConflictError: another training of the collection runs, or somebody was erased.
            LimitExceededError: there are more than TAUGHT_FACES_MAX faces; say which.
        """
        kept = Kept(self._folder / hashlib.sha256(self._base.model).hexdigest()[:12])
        with closing(kept):
            try:
                report = self._taught(kept, space, models=models, filter_=filter_, seed=seed)
            except FileNotFoundError as cause:
                raise StoreConflictError(
                    "what was kept for the training was removed, as when a person is erased:"
                    " start it again"
                ) from cause
            kept.forget()
        return report

    def _taught(
        self, kept: "Kept", space: str, *, models: Path, filter_: Filter | None, seed: int
    ) -> TeachingReport:
        known = self._known(self._looked_at(kept, filter_), kept)
        encoder = SentenceEncoder(threads=1)
        held = _held(known.persons, seed=seed)
        lessons = _lessons(known.without(held), encoder, seed=seed, progress=self._progress)
        heads = train(lessons, seed=seed, progress=self._progress)
        weights = self._base.weights.provenance
        about = About(
            kind=ModelKind.LIGHT,
            space=space,
            dimension=DIMENSION,
            licence=f"heads trained here; {weights.licence}",
            commercial=weights.commercial,
        )
        with new_folder(models, about) as folder:
            (folder / IMAGE_FILE).write_bytes(self._base.model)
            heads.write(folder)
        return TeachingReport(
            model=read_folder(models / space),
            faces=int((~held).sum()),
            people=len(np.unique(known.persons[~held])),
            stated=sum(len(known.captions[row]) for row in np.flatnonzero(~held).tolist()),
            missing=tuple(self._missing),
            captions=_asked(known, held, heads, encoder, seed=seed),
            tags=_told_apart(known, held, heads),
        )

    def _looked_at(self, kept: "Kept", filter_: Filter | None) -> dict[FaceId, int]:
        """The row of features of each face; those that lack one are looked at now."""
        with self._store.reading() as connection:
            there = count_lacking(
                connection, collection=self._collection, space=NO_SPACE, lacking=Lacking.VECTOR,
                filter_=filter_,
            )  # fmt: skip
        within(TAUGHT_FACES_MAX, there.faces, what="the number of faces to learn from")
        rows = kept.rows()
        wanted: dict[FaceId, int] = {}
        session = Session(self._base.model, threads=1, device=Device.CPU)
        done = 0
        with ThreadPoolExecutor(self._workers) as pool:
            for page in self._pages(filter_):
                new = [one for one in page if not rows.keys() >= one.landmarks.keys()]
                for seen in _in_order(pool, session, contents_of(new), ahead=4 * self._workers):
                    if isinstance(seen, MissingPicture):
                        self._missing.append(seen)
                    else:
                        rows |= kept.add(seen)
                wanted |= {
                    face: rows[face] for one in page for face in one.landmarks if face in rows
                }
                done += len(page)
                self._progress("picture", done, max(done, there.pictures))
        return wanted

    def _pages(self, filter_: Filter | None) -> Iterator[list[LackingPicture]]:
        after = ImageId(0)
        while True:
            with self._store.reading() as connection:
                page = lacking_pictures(
                    connection,
                    collection=self._collection,
                    space=NO_SPACE,
                    lacking=Lacking.VECTOR,
                    filter_=filter_,
                    after=after,
                    count=PAGE_PICTURES,
                )
            if not page:
                return
            after = page[-1].image
            yield page

    def _known(self, rows: Mapping[FaceId, int], features: "Kept") -> "Known":
        """What the store says of these faces."""
        faces = sorted(rows)
        with self._store.reading() as connection:
            records = face_records(connection, faces, collection=self._collection)
            said = captions_of(connection, faces, collection=self._collection)
        kept = [face for face in faces if face in records]
        if not kept:
            raise UsageError("there are no faces with pictures to learn from")
        return _known(
            [records[face] for face in kept],
            [said.get(face, []) for face in kept],
            features.features()[[rows[face] for face in kept]],
        )


class Kept:
    """Features of faces on the disk: two files that grow together, in one process at a time."""

    def __init__(self, stem: Path) -> None:
        """Open what an earlier run left; what it had half written is cut off.

        Raises:
            StoreConflictError: another training of these faces is running.
        """
        stem.parent.mkdir(parents=True, exist_ok=True)
        self._faces, self._features = stem.with_suffix(".faces"), stem.with_suffix(".features")
        for path in (self._faces, self._features):
            path.touch()
        self._lock = self._faces.open("rb")  # held until it is closed
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            self._lock.close()
            raise StoreConflictError(
                "this collection is learned from at the moment: wait until that training ends"
            ) from cause
        whole = min(self._faces.stat().st_size // 8, self._features.stat().st_size // _ROW_BYTES)
        for path, size in ((self._faces, 8), (self._features, _ROW_BYTES)):
            with path.open("r+b") as file:
                file.truncate(whole * size)

    def rows(self) -> dict[FaceId, int]:
        """The row of each face."""
        faces = np.fromfile(self._faces, "<i8").tolist()
        return {FaceId(face): row for row, face in enumerate(faces)}

    def features(self) -> HalfRows:
        """All of them, (n, FEATURES), mapped."""
        count = self._faces.stat().st_size // 8
        return np.memmap(self._features, "<f2", "r", shape=(count, FEATURES))

    def add(self, seen: Mapping[FaceId, Floats]) -> dict[FaceId, int]:
        """Append; give their rows."""
        first = self._faces.stat().st_size // 8
        with self._features.open("ab") as file:
            file.write(np.stack(list(seen.values())).astype("<f2").tobytes())
        with self._faces.open("ab") as file:
            file.write(np.array(list(seen), "<i8").tobytes())
        return {face: first + place for place, face in enumerate(seen)}

    def close(self) -> None:
        """Let another training have them."""
        self._lock.close()

    def forget(self) -> None:
        """Remove them: they are as biometric as vectors, and the model is there."""
        for path in (self._faces, self._features):
            path.unlink(missing_ok=True)


_ROW_BYTES: Final = 2 * FEATURES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """What is known of faces that can be learned from."""

    features: HalfRows  # (n, f)
    persons: Ints  # (n,) one without a person is its own
    tags: tuple[str, ...]
    truth: Floats  # (n, t)
    captions: Sequence[Sequence[str]]  # of each, those that came with it

    def without(self, held: Flags) -> "Known":
        """Those that are not held out."""
        return Known(
            features=self.features[~held],
            persons=self.persons[~held],
            tags=self.tags,
            truth=self.truth[~held],
            captions=[self.captions[row] for row in np.flatnonzero(~held).tolist()],
        )


def _known(
    records: Sequence[FaceRecord], said: Sequence[Sequence[Caption]], features: HalfRows
) -> Known:
    # Tags may be what an earlier model guessed: nothing is learned from them.
    attributes = [
        attributes_of_row({k: v for k, v in record.attributes.items() if k != "tags"})
        for record in records
    ]
    tags = tuple(one.tag for one in ATTRIBUTES if any(one.tag in row for row in attributes))
    return Known(
        features=features,
        persons=np.array([record.person_id or -record.face for record in records], np.int64),
        tags=tags,
        truth=np.array(
            [[row.get(tag, np.nan) for tag in tags] for row in attributes], np.float32
        ).reshape(len(records), len(tags)),
        captions=[[caption.text for caption in some] for some in said],
    )


def _held(persons: Ints, *, seed: int) -> Flags:
    """Faces of the people that are left out of the lessons."""
    people = np.random.default_rng(seed).permutation(np.unique(persons))
    held: Flags = np.isin(persons, people[: round(LEFT_OUT * len(people))])
    return held


def _lessons(known: Known, encoder: SentenceEncoder, *, seed: int, progress: Progress) -> Lessons:
    stated = [caption for some in known.captions for caption in some]
    owners = np.repeat(np.arange(len(known.captions)), [len(some) for some in known.captions])
    sentences = practice(known.tags, known.truth, count=SENTENCES, seed=seed)
    return Lessons(
        features=known.features,
        persons=known.persons,
        tags=known.tags,
        truth=known.truth,
        stated=heard_sentences(stated, concepts=known.tags, encoder=encoder),
        owners=owners,
        made_up=heard_sentences(sentences, concepts=known.tags, encoder=encoder, progress=progress),
    )


def _asked(
    known: Known, held: Flags, heads: LightHeads, encoder: SentenceEncoder, *, seed: int
) -> CaptionsReport | None:
    """Captions of the people left out, each looked for among their faces."""
    rows, sentences = [], []
    for row in np.random.default_rng(seed).permutation(np.flatnonzero(held)).tolist():
        if caption := _caption(known, row):
            rows.append(row)
            sentences.append(caption)
        if len(rows) == ASKED_MAX:
            break
    if len(np.unique(known.persons[rows])) < PEOPLE_MIN:
        return None
    texts = heads.texts(encoder.encode(sentences), claims(sentences, heads.concepts))
    return rank_captions(
        heads.faces(known.features[rows].astype(np.float32)),
        texts,
        sentences=sentences,
        owners=np.arange(len(rows)),
        persons=known.persons[rows],
    )


def _caption(known: Known, row: int) -> str | None:
    """The first caption that came with a face, or one made of its attributes."""
    if known.captions[row]:
        return known.captions[row][0]
    true = {tag: True for tag, flag in zip(known.tags, known.truth[row], strict=True) if flag == 1}
    return captions(true, seed=row, share=CAPTION_SHARE)[0] if true else None


def _told_apart(known: Known, held: Flags, heads: LightHeads) -> dict[str, float | None]:
    """AUC of each attribute head on the people left out."""
    chances = heads.chances(known.features[held].astype(np.float32))
    found = {}
    for place, tag in enumerate(heads.tags):
        truth = known.truth[held, known.tags.index(tag)]
        told_of = ~np.isnan(truth)
        found[tag] = auc(chances[told_of, place], truth[told_of] == 1)
    return found


def _in_order(
    pool: ThreadPoolExecutor,
    session: Session,
    pictures: Iterator[ReadPicture | MissingPicture],
    *,
    ahead: int,
) -> Iterator[dict[FaceId, Floats] | MissingPicture]:
    """What the network gives for the faces of pictures, some of them looked at beforehand."""
    waiting: deque[Future[dict[FaceId, Floats] | MissingPicture]] = deque()
    for one in pictures:
        if isinstance(one, MissingPicture):
            yield one
            continue
        waiting.append(pool.submit(_seen, session, one))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _seen(session: Session, one: ReadPicture) -> dict[FaceId, Floats] | MissingPicture:
    try:
        pixels = decode(one.content).pixels
    except RefusedImageError as refusal:
        return missing(one.stored, str(refusal))
    return {
        face: session.run(network_input(portrait(pixels, landmarks)[None], CROP_SIDE_PX))[0][0]
        for face, landmarks in one.stored.landmarks.items()
    }
