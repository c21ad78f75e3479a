"""`facedex protected`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli.output import Session, emit, printable, table, with_collection, with_json

if TYPE_CHECKING:
    from facedex.protected import Added
    from indexer.protecting import Matched
    from retrieval.store.protected.alerts import Alert

NO = 1  # exit status where every picture was refused


@click.group(
    epilog="""\b
Example:
  facedex protected on --purpose "find forgeries of our staff" --basis "consent of 2026-05-02"
  facedex protected add "Ann Smith" ann-1.jpg ann-2.jpg
  facedex protected alerts --new
"""
)
def protected_command() -> None:
    """Notice persons in whatever comes in, out of the sight of everybody else.

    Off by default. No other command sees the list, its pictures or its alerts.
    """


@protected_command.command(
    "on", epilog='Example:  facedex protected on --purpose "find forgeries" --basis "consent"'
)
@click.option("--purpose", required=True, metavar="TEXT", help="What the list is for.")
@click.option("--basis", required=True, metavar="TEXT",
              help="What allows it: a consent, a contract, a law.")  # fmt: skip
@click.option("--fpir", type=click.FloatRange(0, 0.01, min_open=True), default=1e-3,
              show_default=True, help="Share of strangers that may raise an alert.")  # fmt: skip
@with_collection
@with_json
@click.pass_obj
def switch_on(session: Session, /, collection: str | None, as_json: bool, **options: Any) -> None:
    """Begin a list, or say anew what it is for."""
    with session.facedex(collection=collection) as facedex:
        facedex.protected.on(**options)
    emit({"on": True, **options}, as_json=as_json, text="the protected list is on")


@protected_command.command("off", epilog="Example:  facedex protected off --yes")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_collection
@with_json
@click.pass_obj
def switch_off(session: Session, yes: bool, collection: str | None, as_json: bool) -> None:
    """Delete the list: its persons, their pictures, every alert."""
    with session.facedex(collection=collection) as facedex:
        persons = len(facedex.protected.show().members)
        if not yes:
            asked = f"Delete the list of {persons} persons with every alert for ever?"
            click.confirm(asked, abort=True, err=True)
        facedex.protected.off()
    emit({"on": False, "persons": persons}, as_json=as_json, text="the protected list is gone")


@protected_command.command("add", epilog="Example:  facedex protected add Ann ann-1.jpg ann-2.jpg")
@click.argument("name", metavar="NAME|#ID")
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@with_collection
@with_json
@click.pass_obj
@click.pass_context
def add(
    context: click.Context,
    session: Session,
    /,
    collection: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Put a person on the list by authentic pictures, and look for it among all faces.

    The largest central face of each picture is meant. Pictures of poor quality, and those that
    look like another person on the list, are refused with the reason.
    """
    with session.facedex(collection=collection) as facedex:
        done = facedex.protected.add(options["name"], options["pictures"])
    emit(_added(done), as_json=as_json, text=_added_text(done))
    if done.person is None:
        context.exit(NO)


@protected_command.command("remove", epilog="Example:  facedex protected remove Ann")
@click.argument("who", metavar="NAME|#ID")
@with_collection
@with_json
@click.pass_obj
def remove(session: Session, who: str, collection: str | None, as_json: bool) -> None:
    """Take a person off the list; its pictures and alerts go with it."""
    with session.facedex(collection=collection) as facedex:
        person = facedex.protected.remove(who)
    emit({"person": person}, as_json=as_json, text=f"#{person} is off the list")


@protected_command.command("list", epilog="Example:  facedex protected list --json")
@with_collection
@with_json
@click.pass_obj
def show(session: Session, collection: str | None, as_json: bool) -> None:
    """Show what the list is for and who is on it."""
    with session.facedex(collection=collection) as facedex:
        found = facedex.protected.show()
    rows = [[f"#{one.id}", str(one.pictures), str(one.alerts), one.name] for one in found.members]
    emit(
        {
            "purpose": found.list.purpose,
            "basis": found.list.basis,
            "fpir": found.list.fpir,
            "persons": [
                {
                    "person": one.id,
                    "name": one.name,
                    "pictures": one.pictures,
                    "alerts": one.alerts,
                    "created_at": one.created_at,
                }
                for one in found.members
            ],
        },
        as_json=as_json,
        text=f"purpose  {found.list.purpose}\nbasis    {found.list.basis}\n"
        f"FPIR     {found.list.fpir:g}\n"
        + table(rows, header=["person", "pictures", "alerts", "name"]),
    )


@protected_command.command(
    "alerts",
    epilog="""\b
Examples:
  facedex protected alerts --new --json
  facedex protected alerts --seen 17
""",
)
@click.option("--new", "unseen", is_flag=True, help="Only those that nobody marked as seen.")
@click.option("--seen", type=click.IntRange(min=1), metavar="ALERT", help="Mark one as seen.")
@click.option("--after", type=int, default=0, help="Begin above this number (the next page).")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@with_collection
@with_json
@click.pass_obj
def alerts(session: Session, /, collection: str | None, as_json: bool, **options: Any) -> None:
    """Show the faces that look like somebody on the list, with the closest authentic pictures."""
    seen, limit = options["seen"], options["limit"]
    with session.facedex(collection=collection) as facedex:
        if seen is not None:
            facedex.protected.seen(seen)
            emit({"alert": seen, "seen": True}, as_json=as_json, text=f"alert {seen} is seen")
            return
        found = facedex.protected.alerts(
            unseen=options["unseen"], after=options["after"], limit=limit
        )
    emit(
        {
            "alerts": [_alert(one) for one in found],
            "next_after": found[-1].id if len(found) == limit else None,
        },
        as_json=as_json,
        text=table(
            [_cells(one) for one in found],
            header=["alert", "at (UTC)", "person", "face", "similarity", "seen", "closest"],
        ),
    )


@protected_command.command("match", epilog="Example:  facedex protected match")
@with_collection
@with_json
@click.pass_obj
def match(session: Session, collection: str | None, as_json: bool) -> None:
    """Compare the faces that were not compared yet: those that came in by SQL, for instance."""
    with session.facedex(collection=collection) as facedex:
        done = facedex.protected.match()
    emit(_matched(done), as_json=as_json, text=_matched_text(done))


def _matched(done: "Matched") -> dict[str, Any]:
    return {"compared": done.faces, "alerts": done.alerts}


def _matched_text(done: "Matched") -> str:
    return f"{done.faces:,} faces compared, {done.alerts:,} new alerts"


def _added(done: "Added") -> dict[str, Any]:
    return {
        "person": done.person,
        "pictures": done.pictures,
        "refused": [{"path": one.path, "reason": one.reason} for one in done.refused],
        **_matched(done.matched),
    }


def _added_text(done: "Added") -> str:
    refused = [f"refused {printable(one.path)}: {one.reason}" for one in done.refused]
    told = (
        "nobody was put on the list"
        if done.person is None
        else f"{done.pictures} pictures of #{done.person}; {_matched_text(done.matched)}"
    )
    return "\n".join([*refused, told])


def _alert(alert: "Alert") -> dict[str, Any]:
    return {
        "alert": alert.id,
        "at": alert.at,
        "person": alert.person,
        "face": alert.face,
        "similarity": float(alert.similarity),
        "threshold": float(alert.threshold),
        "insufficient_quality": alert.poor,
        "closest": [
            {"picture": near.picture, "similarity": float(near.similarity), "path": path}
            for near, path in zip(alert.closest, alert.paths, strict=True)
        ],
        "seen_at": alert.seen_at,
        "seen_by": alert.seen_by,
    }


def _cells(alert: "Alert") -> list[str]:
    return [
        str(alert.id),
        f"{alert.at:%Y-%m-%d %H:%M:%S}",
        f"#{alert.person}",
        "deleted" if alert.face is None else str(alert.face),
        f"{alert.similarity:.3f}" + (" (poor)" if alert.poor else ""),
        "-" if alert.seen_at is None else alert.seen_by or "-",
        ", ".join(printable(path) for path in alert.paths),
    ]
