"""`facedex index` and `facedex check`."""

from dataclasses import asdict
from typing import Any

import click

from api.cli.output import Session, emit, table, with_collection, with_json

ANSWER_IS_NO = 1


@click.group(epilog="Example:  facedex index build && facedex index verify")
def index_command() -> None:
    """Build, show and verify the index."""


@index_command.command("build")
@with_collection
@with_json
@click.pass_obj
def build(session: Session, collection: str | None, as_json: bool) -> None:
    """Build a snapshot from the store and publish it."""
    with session.facedex(collection=collection) as facedex:
        report = facedex.build_index()
    emit(
        {
            "snapshot": report.snapshot,
            "rows": report.rows,
            "lists": report.lists,
            "self_check": asdict(report.self_check),
            "seconds": round(report.seconds, 3),
        },
        as_json=as_json,
        text=f"{report.rows} faces in {report.lists} lists, built in {report.seconds:.1f} s",
    )


@index_command.command("status")
@with_collection
@with_json
@click.pass_obj
def status(session: Session, collection: str | None, as_json: bool) -> None:
    """Show what readers see: the snapshot and what came after it."""
    with session.facedex(collection=collection) as facedex:
        values = asdict(facedex.index_status())
    emit(
        values,
        as_json=as_json,
        text=table([[name, str(value)] for name, value in values.items()], header=["", ""]).strip(),
    )


@index_command.command("verify")
@with_collection
@with_json
@click.pass_obj
def verify(session: Session, collection: str | None, as_json: bool) -> int:
    """Hash every file of the current snapshot."""
    with session.facedex(collection=collection) as facedex:
        report = facedex.verify_index()
    fine = "nothing was built yet" if report.snapshot is None else "every file is as it was written"
    emit(
        {"ok": not report.problems, "snapshot": report.snapshot, "problems": report.problems},
        as_json=as_json,
        text="\n".join(report.problems) or fine,
    )
    return ANSWER_IS_NO if report.problems else 0


@click.command(epilog="Example:  facedex check --repair")
@with_collection
@click.option("--repair", is_flag=True, help="Build the index anew where it differs.")
@with_json
@click.pass_obj
def check_command(
    session: Session,
    collection: str | None,
    repair: bool,
    as_json: bool,
) -> int:
    """Compare store and index, both ways, and name every difference."""
    with session.facedex(collection=collection) as facedex:
        report = facedex.check()
        if repair and report.differences:
            facedex.build_index()
            report = facedex.check()
    values: dict[str, Any] = {
        "store": report.store,
        "index": report.index,
        "missing": report.missing,
        "ghosts": report.ghosts,
        "stale": report.stale,
        "differences": [asdict(difference) for difference in report.differences],
    }
    emit(
        values,
        as_json=as_json,
        text=f"{report.store} faces in the store, {report.index} in the index: {report.missing}"
        f" missing, {report.ghosts} ghosts, {report.stale} stale"
        + "".join(
            f"\n  face {one.face}: {one.kind} {', '.join(one.fields)}" for one in report.differences
        ),
    )
    return ANSWER_IS_NO if report.differences else 0
