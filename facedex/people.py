"""The persons of an open Facedex: what can be said of them, asked of them, and taken back.

Reached as `facedex.people`. Persons are meant by name or `#id`; the name and number of a person
that was merged into another mean that one. Each change is one transaction with one event.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.store import audit
from retrieval.store.database import Connection, Store, token
from retrieval.store.people import operations, reading
from retrieval.store.people.events import Event, events
from retrieval.store.people.operations import Done
from retrieval.store.people.reading import Person
from retrieval.store.people.undo import undo
from retrieval.values import Collection, FaceId, PersonId, Token

# Listing persons loads nothing of the write path.
if TYPE_CHECKING:
    from indexer.bulk.person import PersonExport
    from indexer.erasing import Erased


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A change that is committed."""

    event: int | None  # None: all was so before, and nothing changed
    person: PersonId | None  # of whom it was
    faces: int  # that changed
    token: Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A person with its faces and what was said of it."""

    person: Person
    faces: list[FaceId]
    rejected: list[FaceId]  # that are known not to be this person
    events: list[Event]  # the newest first


class People:
    """The persons of one collection."""

    def __init__(self, store: Store, *, home: Path, collection: Callable[[], Collection]) -> None:
        self._store = store
        self._home = home
        self._collection = collection

    # --- changes -----------------------------------------------------------------------------

    def create(self, name: str | None) -> Told:
        """Make a person without faces."""
        return self._told("create", lambda c, of: operations.create(c, name, collection=of))

    def assign(self, who: str, faces: Sequence[int]) -> Told:
        """Give faces to a person, made where there is none of that name."""
        ids = _ids(faces)
        return self._told("assign", lambda c, of: operations.assign(c, ids, who, collection=of))

    def reject(self, who: str, faces: Sequence[int]) -> Told:
        """Remember that these faces are not this person, and take them off it."""
        ids = _ids(faces)
        return self._told("reject", lambda c, of: operations.reject(c, ids, who, collection=of))

    def link(self, one: str, two: str) -> Told:
        """Remember that two persons are the same human, but stay two records."""
        return self._told("link", lambda c, of: operations.link_persons(c, one, two, collection=of))

    def unlink(self, one: str, two: str) -> Told:
        """Forget that two persons are the same human."""
        return self._told(
            "unlink", lambda c, of: operations.unlink_persons(c, one, two, collection=of)
        )

    def merge(self, who: str, *, into: str) -> Told:
        """Make two persons one; the name of `who` means `into` from now on."""
        return self._told("merge", lambda c, of: operations.merge(c, who, into, collection=of))

    def split(self, who: str, faces: Sequence[int], *, name: str | None) -> Told:
        """Make some faces of a person a new person."""
        ids = _ids(faces)
        return self._told(
            "split", lambda c, of: operations.split(c, ids, who, name=name, collection=of)
        )

    def rename(self, who: str, name: str) -> Told:
        """Give a person another name."""
        return self._told("rename", lambda c, of: operations.rename(c, who, name, collection=of))

    def undo(self, event: int) -> Told:
        """Take an event back; taking an undo back does it again.

        Raises:
            UndoRefusedError: something was built on it since; the message names what.
        """
        return self._told("undo", lambda c, of: undo(c, event, collection=of))

    def erase(self, who: str) -> "Erased":
        """Erase a person for good, with all that is held of it (indexer/erasing.py)."""
        from indexer.erasing import erase

        tenant = self._collection()
        with self._store.reading() as connection:
            person = reading.required(connection, who, collection=tenant)
        return erase(self._store, person, home=self._home, collection=tenant)

    # --- questions ---------------------------------------------------------------------------

    def list(self, *, after: int = 0, limit: int = 100) -> list[Person]:
        """At most `limit` persons with an id above `after`, by id."""
        tenant = self._collection()
        with self._store.reading() as connection:
            return reading.persons(connection, collection=tenant, after=after, limit=limit)

    def show(self, who: str) -> Shown:
        """What is known of a person."""
        tenant = self._collection()
        with self._store.reading() as connection:
            number = reading.required(connection, who, collection=tenant)
            person = reading.person(connection, number, collection=tenant)
            faces = reading.faces_of(connection, number)
            named = [number, *person.merged]
            return Shown(
                person=person,
                faces=faces,
                rejected=reading.rejected_of(connection, number),
                events=events(connection, collection=tenant, persons=named, faces=faces),
            )

    def events(self, who: str | None = None, *, limit: int = 100) -> "Sequence[Event]":
        """The last events of a person, or of all, the newest first."""
        tenant = self._collection()
        with self._store.reading() as connection:
            persons = None
            if who is not None:
                number = reading.required(connection, who, collection=tenant)
                person = reading.person(connection, number, collection=tenant)
                persons = [number, *person.merged]
            return events(connection, collection=tenant, persons=persons, limit=limit)

    def export(self, who: str, *, out: Path) -> "PersonExport":
        """Write all that is held of a person into a new folder."""
        from indexer.bulk.person import export_person

        tenant = self._collection()
        with self._store.reading() as connection:
            person = reading.required(connection, who, collection=tenant)
        report = export_person(self._store, person, folder=out, collection=tenant, home=self._home)
        with self._store.writing() as connection:
            audit.record(connection, "person export", tenant, faces=report.faces)
        return report

    def _told(self, action: str, act: Callable[[Connection, Collection], Done]) -> Told:
        tenant = self._collection()
        with self._store.writing() as connection:
            done = act(connection, tenant)
            audit.record(connection, f"person {action}", tenant, faces=done.faces)
            return Told(
                event=done.event, person=done.person, faces=done.faces, token=token(connection)
            )


def _ids(faces: Sequence[int]) -> list[FaceId]:
    return [FaceId(face) for face in faces]
