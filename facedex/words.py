"""Words and faces: the face-text space of an open Facedex, and the model behind it.

Reached as `facedex.words`. Models lie in `FACEDEX_HOME/models`, one folder for each space; a
collection has at most one face-text space, beside the space of its identities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from retrieval.align import portrait
from retrieval.errors import (
    LicenceError,
    ModelUnavailableError,
    SpaceMismatchError,
    UnknownNameError,
    UsageError,
)
from retrieval.models.choice import ModelChoice, load_face_text_model
from retrieval.models.face_text.folder import (
    ModelFolder,
    folder_of,
    installed,
    models_of,
    next_version,
    read_folder,
    require_licence,
)
from retrieval.models.ports import FaceTextEncoder
from retrieval.models.reader import with_words
from retrieval.store import audit
from retrieval.store import collections as tenants
from retrieval.store.database import token
from retrieval.store.looks import Lacking
from retrieval.values import Collection, Pixels, Space, Token, UnitRows

if TYPE_CHECKING:
    from facedex.handle import Facedex
    from indexer.backfill import BackfillReport
    from indexer.enrolling import Portrait
    from indexer.teaching import TeachingReport

Progress = Callable[[int, int], None]  # done, of all
SAMPLE_FACES_MIN: Final = 50  # fewer have no middle: that of 50 random directions is off by .14


def _silent(_done: int, _of: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedSpace:
    """A face-text space that a collection has now."""

    space: Space
    before: Space | None  # the one that it took the place of
    token: Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What one run over stored pictures and captions did."""

    space: Space
    faces: "BackfillReport"
    captions: int
    token: Token


class Words:
    """The face-text space of the configured collection."""

    def __init__(self, facedex: "Facedex") -> None:
        self._facedex = facedex
        self._encoders: dict[ModelChoice, FaceTextEncoder] = {}

    @property
    def models(self) -> Path:
        """Where models lie."""
        return models_of(self._facedex.settings.home)

    # --- asking ------------------------------------------------------------------------------

    def space(self) -> Space:
        """The collection's face-text space, or UnknownNameError."""
        tenant = self._facedex.collection()
        with self._facedex.store.reading() as connection:
            return tenants.text_space_of(connection, tenant)

    def encoder(self) -> FaceTextEncoder:
        """The model of the collection's face-text space, opened once.

        Raises:
            UnknownNameError: the collection has no such space.
            ModelUnavailableError: its model does not lie in this home, or is damaged.
            LicenceError: the use is commercial and the model is for research only.
        """
        return self._opened(self._choice(self._facedex.collection(), self.space()))

    def probe_of_portrait(self, seen: "Portrait") -> UnitRows:
        """The face-text vector of the face that is meant in a picture, (1, d)."""
        pixels, landmarks = seen.decoded.pixels, seen.face.detection.landmarks
        return self.encoder().of_faces(portrait(pixels, landmarks)[None]).vectors

    def licence_notice(self) -> str | None:
        """What the owner of the model allows that reads new pictures; None: there is none."""
        try:
            tenant = self._facedex.collection()
        except UnknownNameError:  # pictures are about to make it
            return None
        space = self.storing(tenant)[1]
        return None if space is None else f"face-text model {space.name}: {space.licence}"

    # --- the space ---------------------------------------------------------------------------

    def add_space(self, name: str, source: Path) -> AddedSpace:
        """Give the collection a face-text space; its faces get vectors by `backfill`.

        Args:
            name: of the space, NAME@VERSION.
            source: the folder of its model; it is copied into the home.

        Raises:
            ModelUnavailableError: it is no such folder, or is damaged.
            LicenceError: the use is commercial and the model is for research only.
            UsageError: the folder's model has another name, or the name is another model's.
        """
        given = read_folder(source)
        if given.about.space != name:
            raise UsageError(f"{source} holds the model '{given.about.space}', not '{name}'")
        require_licence(given, self._facedex.settings.use)
        return self._add(installed(given, models=self.models))

    def add_open_clip(
        self, name: str, source: Path, *, licence: str | None, commercial: bool
    ) -> AddedSpace:
        """Give the collection the space of an open_clip model (its `local-dir:` schema).

        The gap between faces and sentences is learned from the collection's first pictures, and
        from its captions or sentences that are made up, where it has faces enough.

        Args:
            name: of the space, NAME@VERSION.
            source: the folder with its configuration and weights; it is copied into the home.
            licence: of the weights; None: nobody said.
            commercial: whether it allows commercial use.

        Raises:
            ModelUnavailableError: it is no such folder, or `facedex[captions]` is not installed.
            LicenceError: the use is commercial and the model is not said to be.
            UsageError: the name is another model's.
        """
        from retrieval.models.face_text.open_clip import about_local, wrapped

        if self._facedex.settings.use == "commercial" and not commercial:
            raise LicenceError(f"say --commercial where the licence of {source} allows that use")
        about = about_local(source, space=name, licence=licence, commercial=commercial)
        return self._add(wrapped(source, about, models=self.models, sample=self._sample))

    def _add(self, folder: ModelFolder) -> AddedSpace:
        facedex = self._facedex
        with facedex.store.writing() as connection:
            tenant = tenants.collection_or_new(connection, facedex.settings.collection)
            has = tenant.text_space_id is not None
            before = tenants.text_space_of(connection, tenant) if has else None
            space = tenants.space_or_new(connection, folder.space)
            tenants.set_text_space(connection, tenant, space)
            audit.record(connection, "space add", tenant)
            return AddedSpace(
                space=space, before=None if before == space else before, token=token(connection)
            )

    def backfill(self, *, progress: Progress = _silent) -> Filled:
        """Look at the faces that came before the space, and at captions; tags are given too."""
        return self._fill(Lacking.VECTOR, where=None, progress=progress)

    def apply_tags(self, *, where: str | None = None, progress: Progress = _silent) -> Filled:
        """Give tags to the faces to which this model gave none yet; those that pass the filter.

        Raises:
            UsageError: the model tells no tags.
        """
        encoder = self.encoder()
        if not len(encoder.thresholds):
            raise UsageError(
                f"the model {encoder.space.name} tells no tags: `facedex caption train` makes one"
            )
        return self._fill(Lacking.TAGS, where=where, progress=progress)

    def train(
        self,
        name: str,
        *,
        where: str | None = None,
        seed: int = 0,
        progress: "Callable[[str, int, int], None]" = lambda *_: None,
    ) -> "TeachingReport":
        """Train a face-text model on what the collection says of its faces.

        It lies in the home then, as the next version of its name; `add_space` lets it be used.

        Args:
            name: of the model, without a version.
            where: the faces to learn from; None: all with a picture.
            seed: of the division of people and the training.
            progress: called with "picture", "sentence", "lesson" (of what sentences say) or "step",
                how many are done, and of all.

        Raises:
            UsageError: too few faces have a caption or attributes, or the name is none.
            LimitExceededError: there are more than TAUGHT_FACES_MAX faces; say which with `where`.
            StoreConflictError: another training of the collection is running.
            ModelUnavailableError: the extra `captions` is not installed.
            LicenceError: the use is commercial and the network that is built on is not.
        """
        from indexer.erasing import training_folder
        from indexer.teaching import Teaching
        from retrieval.filters.parse import parse

        facedex = self._facedex
        tenant = facedex.collection()
        filter_ = None if where is None else parse(where, facedex.fields(tenant))
        space = next_version(self.models, name)  # before anything that takes long
        teaching = Teaching(
            facedex.store,
            collection=tenant,
            use=facedex.settings.use,
            folder=training_folder(facedex.settings.home, tenant.id),
            workers=facedex.workers,
            progress=progress,
        )
        report = teaching.run(space, models=self.models, filter_=filter_, seed=seed)
        with facedex.store.writing() as connection:
            audit.record(connection, "caption train", tenant, faces=report.faces)
        return report

    def fill_captions(self, collection: Collection, *, progress: Progress = _silent) -> int:
        """Give every caption its vector, where the collection's space has a model here."""
        from indexer.backfill import fill_captions

        facedex = self._facedex
        choice, space = self.storing(collection)
        if space is None:
            return 0
        return fill_captions(
            facedex.store,
            collection=collection,
            space=space,
            encoder=lambda: self._opened(choice),
            progress=progress,
        )

    # --- what writers of pictures need -------------------------------------------------------

    def storing(self, collection: Collection) -> tuple[ModelChoice, Space | None]:
        """The models that read pictures to be stored, and the face-text space among theirs.

        A space whose vectors came from outside has no model: then it is None, as without one.
        """
        facedex = self._facedex
        if collection.text_space_id is None:
            return facedex.model_choice(collection), None
        with facedex.store.reading() as connection:
            space = tenants.text_space_of(connection, collection)
        if space.external:
            return facedex.model_choice(collection), None
        return self._choice(collection, space), space

    def told(
        self, portraits: Sequence["Portrait"], collection: Collection
    ) -> tuple[list["Portrait"], Space | None]:
        """Pictures with what the collection's face-text model says of their faces, and its space.

        As they are, and None, where there is no model.
        """
        choice, space = self.storing(collection)
        if space is None or not portraits:
            return list(portraits), space
        encoder = self._opened(choice)
        return [_told(one, by=encoder) for one in portraits], space

    # --- inside ------------------------------------------------------------------------------

    def _sample(self) -> tuple[Pixels, list[str]] | None:
        """Portraits and sentences of the collection; None: it has too few faces."""
        from indexer.backfill import sample_portraits, sample_texts

        tenant = self._facedex.collection_if_any()
        if tenant is None:
            return None
        portraits = sample_portraits(self._facedex.store, collection=tenant)
        texts = sample_texts(self._facedex.store, collection=tenant)
        return (portraits, texts) if len(portraits) >= SAMPLE_FACES_MIN else None

    def _choice(self, collection: Collection, space: Space) -> ModelChoice:
        """The models of a collection with that of its face-text space, which is checked."""
        folder = folder_of(self.models, space.name)
        if space.external or not folder.is_dir():
            raise ModelUnavailableError(
                f"the model of the space '{space.name}' does not lie in {self.models}: give it with"
                f" `facedex space add {space.name} --model FOLDER`"
            )
        found = read_folder(folder)
        if found.sha256 != space.model_sha256:
            raise SpaceMismatchError(
                f"{folder} holds another model than the one of the space '{space.name}'"
            )
        require_licence(found, self._facedex.settings.use)
        return replace(self._facedex.model_choice(collection), face_text=folder)

    def _opened(self, choice: ModelChoice) -> FaceTextEncoder:
        if choice not in self._encoders:
            self._encoders[choice] = load_face_text_model(choice)
        return self._encoders[choice]

    def _fill(self, lacking: Lacking, *, where: str | None, progress: Progress) -> Filled:
        from indexer.backfill import Backfill
        from retrieval.filters.parse import parse

        facedex = self._facedex
        tenant, space = facedex.collection(), self.space()
        choice = self._choice(tenant, space)
        filter_ = None if where is None else parse(where, facedex.fields(tenant))
        report = Backfill(
            facedex.store,
            collection=tenant,
            space=space,
            choice=choice,
            workers=facedex.workers,
            progress=progress,
        ).run(lacking, filter_=filter_)
        captions = self.fill_captions(tenant)
        with facedex.store.writing() as connection:
            audit.record(connection, f"fill {lacking}", tenant, faces=report.faces)
            written = token(connection)
        facedex.maintain_index(tenant)
        return Filled(space=space, faces=report, captions=captions, token=written)


def _told(seen: "Portrait", *, by: FaceTextEncoder) -> "Portrait":
    pixels = seen.decoded.pixels
    portraits = np.stack([portrait(pixels, face.detection.landmarks) for face in seen.faces])
    return replace(seen, faces=with_words(seen.faces, portraits, by=by))
