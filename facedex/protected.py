"""Protected lists: who is to be noticed in whatever comes in. What `Facedex.protected` gives.

Off until somebody says what for and on which basis. The persons of a list are no persons of the
collection, their pictures no images of it, and no question about the collection sees them.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from facedex.recognition import RefusedPortrait, alike, require_quality
from indexer.protecting import Matched, follow
from retrieval.errors import RefusedImageError
from retrieval.index.exact import cosines
from retrieval.people.calibration import Calibration, Threshold
from retrieval.store import collections as tenants
from retrieval.store.calibrations import calibration_of
from retrieval.store.database import Connection
from retrieval.store.protected import alerts as kept
from retrieval.store.protected import gallery as members
from retrieval.store.protected import lists
from retrieval.store.protected.alerts import Alert
from retrieval.store.protected.gallery import Gallery, Member, NewPicture, ProtectedId
from retrieval.store.protected.lists import ProtectedList
from retrieval.values import Collection, Space, UnitRows, unit_rows

if TYPE_CHECKING:
    from facedex.handle import Facedex
    from indexer.enrolling import Portrait

FPIR: Final = 1e-3  # share of strangers' faces that may raise an alert


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A list and everybody on it."""

    list: ProtectedList
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of the pictures of one person, and what they were found in."""

    person: ProtectedId | None  # None: every picture was refused
    pictures: int
    refused: tuple[RefusedPortrait, ...]
    matched: Matched  # among the faces that were there already


class Protected:
    """The protected list of the configured collection.

    Every method raises UsageError where the database role may not work with lists, and
    UnknownNameError where there is no list.
    """

    def __init__(self, facedex: "Facedex") -> None:
        self._facedex = facedex
        self._store = facedex.store

    def on(self, *, purpose: str, basis: str, fpir: float = FPIR) -> None:
        """Begin a list, or say anew what it is for.

        Args:
            purpose: what it is for, in words that an auditor understands.
            basis: what allows it: a consent, a contract, a law.
            fpir: share of faces of strangers that may raise an alert, at most 0.01.

        Raises:
            CalibrationMissingError: no threshold is known for the collection's vectors.
            UsageError: purpose or basis is empty; the collection holds no face yet.
        """
        tenant = self._facedex.collection()
        with self._store.writing() as connection:
            lists.require_right(connection)
            space = tenants.space_of(connection, tenant)
            calibration_of(connection, collection=tenant, space=space)
            lists.switch_on(connection, purpose=purpose, basis=basis, fpir=fpir, collection=tenant)
            lists.record(connection, "on", tenant)

    def off(self) -> None:
        """Delete the list: its persons, their pictures, every alert."""
        with self._store.writing() as connection:
            tenant = self._required(connection)
            lists.switch_off(connection, tenant)
            lists.record(connection, "off", tenant)

    def show(self) -> Watched:
        """What the list is for, and who is on it."""
        with self._store.writing() as connection:  # looking is recorded
            tenant = self._required(connection)
            lists.record(connection, "show", tenant)
            return Watched(
                list=lists.required(connection, tenant),
                members=tuple(members.members(connection, collection=tenant)),
            )

    def add(self, name: str, pictures: Sequence[str | Path]) -> Added:
        """Put a person on the list, or add authentic pictures; match the faces that are there.

        A picture is refused that `enroll` would refuse: unreadable, no face, below the quality
        floor, like another person on the list, or unlike the person's other pictures.
        """
        with self._store.reading() as connection:
            tenant = self._required(connection)
            space = tenants.space_of(connection, tenant)
        accepted, refused = self._judged(name, pictures, tenant, space)
        if not accepted:
            nothing = Matched(faces=0, alerts=0)
            return Added(person=None, pictures=0, refused=tuple(refused), matched=nothing)
        new = [_picture(portrait) for portrait in accepted]
        with self._store.writing() as connection:
            lists.start_anew(connection, tenant)
            person = members.add_pictures(connection, new, name, collection=tenant, space=space)
            lists.record(connection, "add", tenant, person=person, pictures=len(new))
        return Added(
            person=person,
            pictures=len(new),
            refused=tuple(refused),
            matched=follow(self._store, tenant),
        )

    def remove(self, who: str) -> ProtectedId:
        """Take a person off the list, for good: its pictures and its alerts go with it."""
        with self._store.writing() as connection:
            tenant = self._required(connection)
            person = members.required(connection, who, collection=tenant)
            members.remove(connection, person)
            lists.note_persons_left(connection, tenant)
            lists.record(connection, "remove", tenant, person=person)
        return person

    def match(self) -> Matched:
        """Match the faces that were not matched yet, as every ingest does at its end."""
        with self._store.reading() as connection:
            tenant = self._required(connection)
        return follow(self._store, tenant)

    def alerts(self, *, unseen: bool = False, after: int = 0, limit: int = 100) -> list[Alert]:
        """At most `limit` alerts with a number above `after`, those of the latest faces included.

        Args:
            unseen: only those that nobody has marked as seen.
            after: a number; 0: from the first.
            limit: of the answer.
        """
        self.match()
        with self._store.writing() as connection:
            tenant = self._required(connection)
            found = kept.alerts(
                connection, collection=tenant, unseen=unseen, after=after, limit=limit
            )
            lists.record(connection, "alerts", tenant, alerts=len(found))
        return found

    def seen(self, alert: int) -> None:
        """Mark an alert as seen; who was first and when is kept."""
        with self._store.writing() as connection:
            tenant = self._required(connection)
            kept.note_seen(connection, alert, collection=tenant)
            lists.record(connection, "seen", tenant, alert=alert)

    # --- inside ------------------------------------------------------------------------------

    def _required(self, connection: Connection) -> Collection:
        """The collection, which has a list that we may look into."""
        tenant = tenants.collection_named(connection, self._facedex.settings.collection)
        lists.required(connection, tenant)
        return tenant

    def _judged(
        self, name: str, pictures: Sequence[str | Path], tenant: Collection, space: Space
    ) -> tuple[list["Portrait"], list[RefusedPortrait]]:
        """The pictures that may stand for the person, and the others with the reason."""
        from indexer.enrolling import read_portrait

        with self._store.reading() as connection:
            watched = lists.required(connection, tenant)
            person = members.found(connection, name, collection=tenant)
            gallery = members.read_gallery(connection, collection=tenant, space=space)
            calibration = calibration_of(connection, collection=tenant, space=space)
        reader = self._facedex.reader_of(tenant)
        conflict = _conflict(calibration, watched, gallery)
        accepted: list[Portrait] = []
        refused: list[RefusedPortrait] = []
        for path in map(Path, pictures):
            try:
                portrait = read_portrait(path, reader)
                require_quality(portrait)
                _require_nobody_else(portrait, gallery, person, threshold=conflict)
            except RefusedImageError as refusal:
                refused.append(RefusedPortrait(path=path, reason=str(refusal)))
            else:
                accepted.append(portrait)
        template = None if person is None else _template(gallery, person)
        alike_, others = alike(accepted, template, calibration=calibration)
        return alike_, [*refused, *others]


def _conflict(calibration: Calibration, watched: ProtectedList, gallery: Gallery) -> Threshold:
    return calibration.for_fpir(watched.fpir, gallery=max(len(gallery.persons), 1))


def _require_nobody_else(
    portrait: "Portrait", gallery: Gallery, person: ProtectedId | None, *, threshold: Threshold
) -> None:
    similarities = cosines(gallery.templates, portrait.face.vector)
    reached = gallery.persons[similarities >= threshold.similarity]
    for other in reached[reached != person]:
        raise RefusedImageError(
            f"it looks like #{other} of the protected list: if both are one human, use that "
            "person's name or number"
        )


def _template(gallery: Gallery, person: ProtectedId) -> UnitRows | None:
    at = np.flatnonzero(gallery.persons == person)
    return unit_rows(gallery.templates[at]) if len(at) else None


def _picture(portrait: "Portrait") -> NewPicture:
    return NewPicture(
        sha256=portrait.sha256,
        path=os.fsencode(portrait.path.absolute()),
        quality=portrait.face.quality.total,
        vector=portrait.face.vector,
    )
