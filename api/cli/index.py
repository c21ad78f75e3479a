"""`facedex index` and `facedex check`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from api.cli.output import Session, emit, table, with_collection, with_json

if TYPE_CHECKING:
    from facedex.handle import Facedex
    from indexer.check import CheckReport
    from retrieval.store.holdings import Kind

ANSWER_IS_NO = 1


@click.group(epilog="Example:  facedex index build && facedex index verify")
def index_command() -> None:
    """Build, show and verify the index."""


@index_command.command("build")
@with_collection
@with_json
@click.pass_obj
def build(session: Session, collection: str | None, as_json: bool) -> None:
    """Build snapshots of faces and of persons' templates, and publish them."""
    with session.facedex(collection=collection) as facedex:
        from retrieval.store.holdings import Kind

        report = facedex.build_index()
        persons = facedex.build_index(Kind.PERSONS)
    emit(
        {
            "snapshot": report.snapshot,
            "rows": report.rows,
            "persons": persons.rows,
            "lists": report.lists,
            "self_check": asdict(report.self_check),
            "seconds": round(report.seconds + persons.seconds, 3),
        },
        as_json=as_json,
        text=f"{report.rows} faces in {report.lists} lists and {persons.rows} persons, built in "
        f"{report.seconds + persons.seconds:.1f} s",
    )


@index_command.command("status")
@with_collection
@with_json
@click.pass_obj
def status(session: Session, collection: str | None, as_json: bool) -> None:
    """Show what readers see: the snapshots and what came after them."""
    with session.facedex(collection=collection) as facedex:
        from retrieval.store.holdings import Kind

        values = asdict(facedex.index_status())
        persons = asdict(facedex.index_status(Kind.PERSONS))
    rows = [[name, str(value), str(persons[name])] for name, value in values.items()]
    emit(
        values | {"persons": persons},
        as_json=as_json,
        text=table(rows, header=["", "faces", "persons"]),
    )


@index_command.command("verify")
@with_collection
@with_json
@click.pass_obj
def verify(session: Session, collection: str | None, as_json: bool) -> int:
    """Hash every file of the current snapshots."""
    with session.facedex(collection=collection) as facedex:
        from retrieval.store.holdings import Kind

        report, persons = facedex.verify_index(), facedex.verify_index(Kind.PERSONS)
    problems = [*report.problems, *persons.problems]
    fine = "nothing was built yet" if report.snapshot is None else "every file is as it was written"
    emit(
        {"ok": not problems, "snapshot": report.snapshot, "problems": problems},
        as_json=as_json,
        text="\n".join(problems) or fine,
    )
    return ANSWER_IS_NO if problems else 0


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
        from retrieval.store.holdings import Kind

        report, persons = (_checked(facedex, kind, repair=repair) for kind in Kind)
    values: dict[str, Any] = {
        "store": report.store,
        "index": report.index,
        "missing": report.missing,
        "ghosts": report.ghosts,
        "stale": report.stale,
        "differences": [asdict(difference) for difference in report.differences],
        "persons": asdict(persons),
    }
    different = [*report.differences, *persons.differences]
    emit(
        values,
        as_json=as_json,
        text=f"{report.store} faces in the store, {report.index} in the index: {report.missing}"
        f" missing, {report.ghosts} ghosts, {report.stale} stale; {persons.store} templates of "
        f"persons, {len(persons.differences)} of them not as their faces"
        + "".join(
            f"\n  face {one.face}: {one.kind} {', '.join(one.fields)}" for one in report.differences
        ),
    )
    return ANSWER_IS_NO if different else 0


def _checked(facedex: "Facedex", kind: "Kind", *, repair: bool) -> "CheckReport":
    report = facedex.check(kind)
    if repair and report.differences:
        facedex.build_index(kind)
        report = facedex.check(kind)
    return report
