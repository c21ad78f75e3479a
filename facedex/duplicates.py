"""Duplicates in an open Facedex: copies of pictures, of shots of a face, and persons that are one.

Reached as `facedex.duplicates`. Finding writes nothing but what is kept of originals below the home
(indexer/likening.py); `mark` gives duplicates a tag, or links persons, and `undo` takes that back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from facedex.comparing import (
    NEIGHBOURS,
    SIMILARITY_MIN,
    Comparing,
    FaceLikeness,
    Near,
    PictureLikeness,
    near_pairs,
    seen,
)
from indexer.backfill import MissingPicture
from indexer.erasing import likeness_folder
from indexer.likening import signatures_of
from retrieval.curation.duplicates import Decision, Level, Star, Worth, stars
from retrieval.filters.parse import parse
from retrieval.filters.tree import Filter
from retrieval.graph.making import neighbours
from retrieval.index.exact import cosines
from retrieval.index.view import View
from retrieval.people.calibration import Threshold
from retrieval.store import audit, marks
from retrieval.store.database import token
from retrieval.store.looks import LackingPicture
from retrieval.store.marks import Marked, Marking
from retrieval.store.pictured import NOWHERE, Pictured, PicturedFaces, Pictures, read_pictured
from retrieval.values import Collection, FaceId, ImageId, PersonId, Token

if TYPE_CHECKING:
    from facedex.handle import Facedex

Progress = Callable[[int, int], None]  # done, of all
RECALL: Final = 0.99  # of the neighbours among which candidates are
CROPPED: Final = 1.05  # times as large: less is what registering errs by
PERSON_NEIGHBOURS: Final = 32
FALSE_PAIRS: Final = 0.05  # expected among all pairs of persons where nobody asks for a rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of a group."""

    decision: Decision
    reason: str
    picture: int | None = None  # its place among `Found.pictured.pictures`
    face: int | None = None  # its place among the faces
    person: PersonId | None = None
    name: str | None = None  # of the person


@dataclass(frozen=True, kw_only=True)
class Found:
    """Groups of duplicates; in each the one to keep comes first."""

    level: Level
    collection: Collection
    pictured: Pictured
    groups: tuple[tuple[Member, ...], ...]
    missing: tuple[MissingPicture, ...]  # originals that could not be read
    threshold: Threshold | None = None  # of persons
    figures: Mapping[str, float] = field(default_factory=dict)  # that only this level has

    @property
    def duplicates(self) -> list[Member]:
        """Those that are to be dropped."""
        return [one for group in self.groups for one in group if one.decision is Decision.DROP]

    @cached_property
    def stored(self) -> list[LackingPicture]:
        """The pictures, as originals are asked for."""
        return stored_pictures(self.pictured)

    @property
    def without_original(self) -> int:
        """Faces that came as vectors."""
        return int((self.pictured.faces.places == NOWHERE).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What marking or undoing changed, once it is committed."""

    marked: Marked
    token: Token


class Duplicates:
    """Duplicates in the configured collection."""

    def __init__(self, facedex: "Facedex") -> None:
        self._facedex = facedex

    def images(
        self,
        *,
        where: str | None = None,
        prefer: Sequence[str] = (),
        progress: Progress = lambda *_: None,
    ) -> Found:
        """Pictures that are copies of one: encoded anew, resized, cropped, mirrored, lettered.

        Args:
            where: only pictures with a face that passes.
            prefer: sources, the best first: copies from these are kept.
            progress: called with originals read, and all that are to be read.
        """
        tenant, filter_ = self._place(where)
        pictured, missing, comparing, near = self._compared(tenant, filter_, progress)
        worths = picture_worths(pictured)
        best = sorted(range(len(worths)), key=lambda at: worths[at].rank(prefer), reverse=True)
        found = stars(best, comparing.picture_candidates(near), comparing.pictures)
        return Found(
            level=Level.IMAGE,
            collection=tenant,
            pictured=pictured,
            groups=tuple(_picture_group(star, pictured) for star in found),
            missing=missing,
        )

    def faces(
        self,
        *,
        where: str | None = None,
        prefer: Sequence[str] = (),
        progress: Progress = lambda *_: None,
    ) -> Found:
        """Faces that are one shot: in copies of a picture, or in parts of one.

        Arguments are those of `images`. Imported faces are compared by their vectors alone.
        """
        tenant, filter_ = self._place(where)
        pictured, missing, comparing, near = self._compared(tenant, filter_, progress)
        worths = face_worths(pictured)
        best = sorted(range(len(worths)), key=lambda at: worths[at].rank(prefer), reverse=True)
        found = stars(best, comparing.face_candidates(near), comparing.faces)
        return Found(
            level=Level.FACE,
            collection=tenant,
            pictured=pictured,
            groups=tuple(_face_group(star, pictured) for star in found),
            missing=missing,
        )

    def persons(self, *, where: str | None = None, fmr: float | None = None) -> Found:
        """Persons whose templates are as alike as strangers' seldom are.

        Those that are linked are left out, and those of which people said that they are two.

        Args:
            where: only persons with a face that passes.
            fmr: share of pairs of strangers that may be as alike; None: so that 0.05 such pairs are
                expected among all pairs.

        Raises:
            CalibrationMissingError: nothing tells how alike strangers are.
        """
        tenant, filter_ = self._place(where)
        pictured = read_pictured(self._facedex.store, collection=tenant, filter_=filter_)
        view = self._facedex.recognition.persons().view
        counts = _faces_of_persons(pictured.faces)
        pairs = max(len(counts) * (len(counts) - 1) / 2, 1.0)
        threshold = self._facedex.recognition.calibration().for_fmr_of_templates(
            min(FALSE_PAIRS / pairs, 0.5) if fmr is None else fmr
        )
        with self._facedex.store.reading() as connection:
            settled = marks.settled_pairs(connection, collection=tenant)

        def compare(one: int, other: int) -> float | None:
            if (min(one, other), max(one, other)) in settled:
                return None
            vectors, there = view.vectors_of(np.array([one, other]))
            similarity = float(cosines(vectors[:1], vectors[1].astype(np.float32))[0])
            return similarity if there.all() and similarity >= threshold.similarity else None

        ids = np.array(sorted(counts), np.int64)
        blocks = neighbours(
            view, count=PERSON_NEIGHBOURS, recall="exact", floor=float(threshold.similarity)
        )
        near = near_pairs(blocks, ids)
        alike = zip(ids[near.ones].tolist(), ids[near.others].tolist(), strict=True)
        best = sorted(counts, key=lambda person: (-counts[person], person))
        found = stars(best, alike, compare)
        names = self._facedex.recognition.names_of(
            [PersonId(one) for star in found for one in (star.kept, *dict(star.dropped))]
        )
        return Found(
            level=Level.PERSON,
            collection=tenant,
            pictured=pictured,
            groups=tuple(_person_group(star, counts, names, threshold) for star in found),
            missing=(),
            threshold=threshold,
        )

    def mark(self, found: Found) -> Told:
        """Give what is to be dropped the tag `duplicate`, or link persons; nothing is deleted."""
        tenant = found.collection
        faces = [FaceId(one) for one in found.pictured.faces.ids.tolist()]
        with self._facedex.store.writing() as connection:
            if found.level is Level.PERSON:
                marked = marks.link_duplicates(
                    connection, _linked(found), level=found.level, collection=tenant
                )
            else:
                chosen = _dropped_faces(found)
                if found.level is Level.IMAGE:
                    images = _dropped_images(found)
                    chosen = marks.faces_shown(connection, images, collection=tenant)
                marked = marks.mark_faces(
                    connection, chosen, considered=faces, level=found.level, collection=tenant
                )
            audit.record(connection, "dedup", tenant, faces=marked.faces, links=marked.links)
            return Told(marked=marked, token=token(connection))

    def undo(self, number: int) -> Told:
        """Take back what a run of `mark` changed; doing it twice changes nothing."""
        tenant = self._facedex.collection()
        with self._facedex.store.writing() as connection:
            marked = marks.undo_marking(connection, number, collection=tenant)
            audit.record(connection, "dedup undo", tenant, faces=marked.faces, links=marked.links)
            return Told(marked=marked, token=token(connection))

    def markings(self) -> list[Marking]:
        """The runs that marked something, the newest first."""
        tenant = self._facedex.collection()
        with self._facedex.store.reading() as connection:
            return marks.markings(connection, collection=tenant)

    # --- inside ------------------------------------------------------------------------------

    def _place(self, where: str | None) -> tuple[Collection, Filter | None]:
        tenant = self._facedex.collection()
        return tenant, None if where is None else parse(where, self._facedex.fields(tenant))

    def _compared(
        self, tenant: Collection, filter_: Filter | None, progress: Progress
    ) -> tuple[Pictured, tuple[MissingPicture, ...], Comparing, Near]:
        """Everything read, with the pairs of faces that are alike as vectors."""
        pictured = read_pictured(self._facedex.store, collection=tenant, filter_=filter_)
        kept = signatures_of(
            stored_pictures(pictured),
            folder=likeness_folder(self._facedex.settings.home, tenant.id),
            threads=self._facedex.workers,
            progress=progress,
        )
        view = self._view(tenant)
        blocks = neighbours(
            view, count=NEIGHBOURS, recall=RECALL, filter_=filter_, floor=SIMILARITY_MIN
        )
        near = near_pairs(blocks, pictured.faces.ids)
        return pictured, kept.missing, Comparing(pictured, kept, view), near

    def _view(self, tenant: Collection) -> View:
        index = self._facedex.index(tenant)
        index.refresh()
        return index.view


def stored_pictures(pictured: Pictured) -> list[LackingPicture]:
    """The pictures with the faces in them, as originals are asked for."""
    pictures, faces = pictured.pictures, pictured.faces
    landmarks: list[dict[FaceId, np.ndarray]] = [{} for _ in range(len(pictures))]
    for row in seen(faces).tolist():
        landmarks[faces.places[row]][FaceId(int(faces.ids[row]))] = faces.landmarks[row]
    return [
        LackingPicture(
            image=ImageId(int(pictures.ids[at])),
            path=pictures.paths[at],
            member=pictures.members[at],
            sha256=pictures.hashes[at],
            landmarks=landmarks[at],
        )
        for at in range(len(pictures))
    ]


def picture_worths(pictured: Pictured) -> list[Worth]:
    """What decides between copies: of each picture, by its best face."""
    pictures, faces = pictured.pictures, pictured.faces
    quality: list[float | None] = [None] * len(pictures)
    sources: list[str | None] = [None] * len(pictures)
    for place, of, source in zip(
        faces.places.tolist(), faces.quality.tolist(), faces.sources, strict=True
    ):
        if place != NOWHERE:
            best = quality[place]
            if best is None or of > best:
                quality[place] = None if np.isnan(of) else of
            sources[place] = sources[place] or source
    return [
        Worth(
            number=int(pictures.ids[at]),
            source=sources[at],
            quality=quality[at],
            pixels=int(pictures.widths[at] * pictures.heights[at]),
        )
        for at in range(len(pictures))
    ]


def face_worths(pictured: Pictured) -> list[Worth]:
    """The same of each face; its pixels are those of the face."""
    faces = pictured.faces
    return [
        Worth(
            number=int(faces.ids[at]),
            source=faces.sources[at],
            quality=None if np.isnan(faces.quality[at]) else float(faces.quality[at]),
            pixels=0 if np.isnan(faces.sizes[at]) else round(faces.sizes[at] ** 2),
        )
        for at in range(len(faces))
    ]


def _faces_of_persons(faces: PicturedFaces) -> dict[int, int]:
    """How many faces each person has."""
    counts: dict[int, int] = {}
    for person in faces.persons:
        if person is not None:
            counts[person] = counts.get(person, 0) + 1
    return counts


def _picture_group(star: Star[PictureLikeness], pictured: Pictured) -> tuple[Member, ...]:
    pictures = pictured.pictures
    return (
        Member(
            decision=Decision.KEEP,
            reason=f"the best of {len(star.dropped) + 1}: {_size(pictures, star.kept)}",
            picture=star.kept,
        ),
        *(
            Member(
                decision=Decision.DROP,
                reason=_how_pictures_are_like(pictures, star.kept, at, how),
                picture=at,
            )
            for at, how in star.dropped
        ),
    )


def _how_pictures_are_like(
    pictures: Pictures, kept: int, dropped: int, how: PictureLikeness
) -> str:
    parts = [f"a copy of image {pictures.ids[kept]}"]
    if how.mirrored:
        parts.append("mirrored")
    if how.growth > CROPPED:
        parts.append(f"cropped to {1 / how.growth:.0%}")
    if how.growth < 1 / CROPPED:
        parts.append("with more around it")
    if _size(pictures, kept) != _size(pictures, dropped):
        parts.append(f"{_size(pictures, dropped)} instead of {_size(pictures, kept)}")
    return f"{', '.join(parts)}; {how.share:.0%} of its blocks agree"


def _size(pictures: Pictures, at: int) -> str:
    return f"{pictures.widths[at]} x {pictures.heights[at]} pixels"


def _face_group(star: Star[FaceLikeness], pictured: Pictured) -> tuple[Member, ...]:
    faces = pictured.faces

    def member(at: int, decision: Decision, reason: str) -> Member:
        place = int(faces.places[at])
        return Member(
            decision=decision,
            reason=reason,
            picture=None if place == NOWHERE else place,
            face=at,
        )

    best = f"the best of {len(star.dropped) + 1}"
    return (
        member(star.kept, Decision.KEEP, best),
        *(
            member(at, Decision.DROP, _how_faces_are_like(int(faces.ids[star.kept]), how))
            for at, how in star.dropped
        ),
    )


def _how_faces_are_like(kept: int, how: FaceLikeness) -> str:
    told = f"the same shot as face {kept}{', mirrored' if how.mirrored else ''}"
    alike = f"vectors alike to {how.similarity:.3f}"
    if how.share is None:
        return f"{told}, by vectors alone, as there is no original; {alike}"
    return f"{told}; {alike}, {how.share:.0%} of its blocks agree"


def _person_group(
    star: Star[float],
    counts: dict[int, int],
    names: dict[PersonId, str | None],
    threshold: Threshold,
) -> tuple[Member, ...]:
    def member(person: int, decision: Decision, reason: str) -> Member:
        number = PersonId(person)
        return Member(decision=decision, reason=reason, person=number, name=names.get(number))

    asked = f"threshold {threshold.similarity:.3f} at FMR {threshold.asked:.2g}"
    return (
        member(star.kept, Decision.KEEP, f"has the most faces: {counts[star.kept]}"),
        *(
            member(
                person,
                Decision.DROP,
                f"the same as person #{star.kept}: templates alike to {similarity:.3f}, {asked};"
                f" {_faces(counts[person])}",
            )
            for person, similarity in star.dropped
        ),
    )


def _faces(count: int) -> str:
    return "1 face" if count == 1 else f"{count:,} faces"


def _dropped_images(found: Found) -> list[ImageId]:
    ids = found.pictured.pictures.ids
    return [ImageId(int(ids[one.picture])) for one in found.duplicates if one.picture is not None]


def _dropped_faces(found: Found) -> list[FaceId]:
    ids = found.pictured.faces.ids
    return [FaceId(int(ids[one.face])) for one in found.duplicates if one.face is not None]


def _linked(found: Found) -> list[tuple[PersonId, PersonId]]:
    return [
        (group[0].person, one.person)
        for group in found.groups
        for one in group[1:]
        if group[0].person is not None and one.person is not None
    ]
