"""`facedex person`: what is said of persons, asked of them, and taken back."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli.output import Session, emit, table, with_collection, with_json

if TYPE_CHECKING:
    from facedex.people import Told
    from retrieval.store.people.events import Event
    from retrieval.store.people.reading import Person

FACES_SHOWN_MAX = 20
EVENTS_SHOWN_MAX = 10

with_who = click.argument("who", metavar="PERSON")
with_faces = click.argument("faces", metavar="FACE...", type=int, nargs=-1, required=True)


@click.group(
    epilog="""\b
PERSON is a name or a number: Ann, '#12'. FACE is a number, as `facedex list` shows it.
Examples:
  facedex person assign Ann 17 18 19
  facedex person merge Annie Ann && facedex person undo 4
"""
)
def person_command() -> None:
    """Name people, correct what was said of them, take it back."""


@person_command.command("list", epilog="Example:  facedex person list --after 1200 --json")
@with_collection
@click.option("--after", type=int, default=0, help="Begin above this number (the next page).")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@with_json
@click.pass_obj
def list_persons(
    session: Session, collection: str | None, after: int, limit: int, as_json: bool
) -> None:
    """List persons with their number of faces."""
    with session.facedex(collection=collection) as facedex:
        found = facedex.people.list(after=after, limit=limit)
    last = found[-1].id if len(found) == limit else None
    emit(
        {"persons": [_person(one) for one in found], "next_after": last},
        as_json=as_json,
        text=table([_cells(one) for one in found], header=["person", "faces", "name", "also"]),
    )


@person_command.command("show", epilog="Example:  facedex person show Ann")
@with_who
@with_collection
@with_json
@click.pass_obj
def show(session: Session, who: str, collection: str | None, as_json: bool) -> None:
    """Show a person: faces, rejected faces, links, events."""
    with session.facedex(collection=collection) as facedex:
        shown = facedex.people.show(who)
    person = shown.person
    emit(
        {
            **_person(person),
            "faces": shown.faces,
            "rejected": shown.rejected,
            "events": [_event(one) for one in shown.events],
        },
        as_json=as_json,
        text="\n".join(
            (
                table([_cells(person)], header=["person", "faces", "name", "also"]),
                f"faces     {_some(shown.faces)}",
                f"rejected  {_some(shown.rejected)}",
                f"links     {', '.join(f'#{one}' for one in person.links) or '-'}",
                _events(shown.events[:EVENTS_SHOWN_MAX]),
            )
        ),
    )


@person_command.command("create", epilog="Example:  facedex person create Ann")
@click.argument("name", required=False)
@with_collection
@with_json
@click.pass_obj
def create(session: Session, name: str | None, collection: str | None, as_json: bool) -> None:
    """Make a person without faces; without a name it is known by its number."""
    with session.facedex(collection=collection) as facedex:
        told = facedex.people.create(name)
    _emit(told, as_json=as_json, what=f"made person #{told.person}")


@person_command.command("assign", epilog="Example:  facedex person assign Ann 17 18 19")
@with_who
@with_faces
@with_collection
@with_json
@click.pass_obj
def assign(
    session: Session, who: str, faces: tuple[int, ...], collection: str | None, as_json: bool
) -> None:
    """Give faces to a person, made where there is none of that name."""
    with session.facedex(collection=collection) as facedex:
        told = facedex.people.assign(who, faces)
    _emit(told, as_json=as_json, what=f"{told.faces} faces given to person #{told.person}")


@person_command.command("reject", epilog="Example:  facedex person reject Ann 17")
@with_who
@with_faces
@with_collection
@with_json
@click.pass_obj
def reject(
    session: Session, who: str, faces: tuple[int, ...], collection: str | None, as_json: bool
) -> None:
    """Say that faces are not this person; take them off it, and remember that."""
    with session.facedex(collection=collection) as facedex:
        told = facedex.people.reject(who, faces)
    _emit(told, as_json=as_json, what=f"{told.faces} faces rejected for person #{told.person}")


@person_command.command("link", epilog="Example:  facedex person link Ann '#12'")
@with_who
@click.argument("other")
@with_collection
@with_json
@click.pass_obj
def link(session: Session, who: str, other: str, collection: str | None, as_json: bool) -> None:
    """Say that two persons are the same human, but keep two records."""
    with session.facedex(collection=collection) as facedex:
        told = facedex.people.link(who, other)
    _emit(told, as_json=as_json, what="linked")


@person_command.command("unlink", epilog="Example:  facedex person unlink Ann '#12'")
@with_who
@click.argument("other")
@with_collection
@with_json
@click.pass_obj
def unlink(session: Session, who: str, other: str, collection: str | None, as_json: bool) -> None:
    """Take a link back."""
    with session.facedex(collection=collection) as facedex:
        told = facedex.people.unlink(who, other)
    _emit(told, as_json=as_json, what="unlinked")


@person_command.command("merge", epilog="Example:  facedex person merge Annie Ann")
@with_who
@click.argument("into")
@with_collection
@with_json
@click.pass_obj
def merge(session: Session, who: str, into: str, collection: str | None, as_json: bool) -> None:
    """Make PERSON part of INTO; both names mean INTO from now on."""
    with session.facedex(collection=collection) as facedex:
        told = facedex.people.merge(who, into=into)
    _emit(told, as_json=as_json, what=f"merged into person #{told.person}")


@person_command.command("split", epilog="Example:  facedex person split Ann 17 18 --name Eve")
@with_who
@with_faces
@click.option("--name", metavar="NAME", help="Of the new person; without it, it has none.")
@with_collection
@with_json
@click.pass_obj
def split(
    session: Session, /, who: str, faces: tuple[int, ...], collection: str | None, **more: Any
) -> None:
    """Make some faces of a person a new person."""
    with session.facedex(collection=collection) as facedex:
        told = facedex.people.split(who, faces, name=more["name"])
    what = f"{told.faces} faces are person #{told.person} now"
    _emit(told, as_json=more["as_json"], what=what)


@person_command.command("rename", epilog="Example:  facedex person rename '#12' Ann")
@with_who
@click.argument("name")
@with_collection
@with_json
@click.pass_obj
def rename(session: Session, who: str, name: str, collection: str | None, as_json: bool) -> None:
    """Give a person another name."""
    with session.facedex(collection=collection) as facedex:
        told = facedex.people.rename(who, name)
    _emit(told, as_json=as_json, what=f"renamed person #{told.person}")


@person_command.command("undo", epilog="Example:  facedex person undo 17")
@click.argument("event", type=click.IntRange(min=1))
@with_collection
@with_json
@click.pass_obj
def undo(session: Session, event: int, collection: str | None, as_json: bool) -> None:
    """Take an event back exactly; taking an undo back does it again.

    Refused where something was built on it since: undo that first, as the message says.
    """
    with session.facedex(collection=collection) as facedex:
        told = facedex.people.undo(event)
    _emit(told, as_json=as_json, what=f"event {event} is taken back")


@person_command.command("events", epilog="Example:  facedex person events Ann --limit 5")
@click.argument("who", metavar="[PERSON]", required=False)
@with_collection
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@with_json
@click.pass_obj
def events(
    session: Session, who: str | None, collection: str | None, limit: int, as_json: bool
) -> None:
    """Show who changed what and when, the newest first."""
    with session.facedex(collection=collection) as facedex:
        found = facedex.people.events(who, limit=limit)
    emit({"events": [_event(one) for one in found]}, as_json=as_json, text=_events(found))


@person_command.command("export", epilog="Example:  facedex person export Ann --out ann/")
@with_who
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER",
              help="A new folder.")  # fmt: skip
@with_collection
@with_json
@click.pass_obj
def export(session: Session, who: str, out: Path, collection: str | None, as_json: bool) -> None:
    """Write all that is held of a person: facts as JSON, vectors as Parquet."""
    with session.facedex(collection=collection) as facedex:
        report = facedex.people.export(who, out=out)
    emit(
        {
            "files": report.files,
            "faces": report.faces,
            "vectors": report.vectors,
            "images": report.images,
            "events": report.events,
        },
        as_json=as_json,
        text=f"{report.faces} faces, {report.vectors} vectors, {report.images} images,"
        f" {report.events} events in {out}",
    )


@person_command.command("erase", epilog="Example:  facedex person erase Ann --yes")
@with_who
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_collection
@with_json
@click.pass_obj
def erase(session: Session, who: str, yes: bool, collection: str | None, as_json: bool) -> None:
    """Erase a person for ever: faces, vectors, names, events, kept pictures, old snapshots.

    Nothing brings it back: no undo, and no older backup. Pictures with others stay.
    """
    with session.facedex(collection=collection) as facedex:
        person = facedex.people.show(who).person
        if not yes:
            asked = f"Erase person #{person.id} with {person.faces} faces for ever?"
            click.confirm(asked, abort=True, err=True)
        gone = facedex.people.erase(f"#{person.id}")
    emit(
        {
            "erasure": gone.erasure,
            "persons": gone.persons,
            "faces": gone.faces,
            "images": gone.images,
            "token": gone.token,
        },
        as_json=as_json,
        text=f"erased person #{person.id} with {gone.faces} faces and {gone.images} images",
    )


def _emit(told: "Told", *, as_json: bool, what: str) -> None:
    undo_by = "nothing changed: all was so before"
    if told.event is not None:
        undo_by = f"{what}; `facedex person undo {told.event}` takes it back"
    emit(
        {"event": told.event, "person": told.person, "faces": told.faces, "token": told.token},
        as_json=as_json,
        text=undo_by,
    )


def _person(person: "Person") -> dict[str, Any]:
    return {
        "person": person.id,
        "name": person.name,
        "count": person.faces,
        "merged": person.merged,
        "aliases": person.aliases,
        "links": person.links,
        "created_at": person.created_at,
    }


def _cells(person: "Person") -> list[str]:
    return [
        f"#{person.id}",
        str(person.faces),
        person.name or "-",
        ", ".join(person.aliases) or "-",
    ]


def _event(event: "Event") -> dict[str, Any]:
    return {
        "event": event.id,
        "at": event.at,
        "author": event.actor,
        "kind": event.kind,
        "undoes": event.undoes,
        "persons": event.changes.named_persons(),
        "faces": event.changes.faces(),
    }


def _events(events: "Sequence[Event]") -> str:
    return table(
        [
            [
                str(event.id),
                f"{event.at:%Y-%m-%d %H:%M:%S}",
                event.actor,
                event.kind + (f" {event.undoes}" if event.undoes else ""),
                _some([f"#{person}" for person in event.changes.named_persons()]),
                _some(event.changes.faces()),
            ]
            for event in events
        ],
        header=["event", "at (UTC)", "author", "kind", "persons", "faces"],
    )


def _some(words: Sequence[object]) -> str:
    shown = ", ".join(map(str, words[:FACES_SHOWN_MAX])) or "-"
    return shown if len(words) <= FACES_SHOWN_MAX else f"{shown}, ... ({len(words)})"
