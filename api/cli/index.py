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
    """Build snapshots of faces and of persons' templates, and publish them.

    A collection with a face-text space has two more: of its faces there (looks), and of captions.
    """
    with session.facedex(collection=collection) as facedex:
        kinds = facedex.index_kinds()
        built = {kind: facedex.build_index(kind) for kind in kinds}
    report = built.pop(kinds[0])
    seconds = report.seconds + sum(one.seconds for one in built.values())
    told = "".join(f" and {one.rows} {kind}" for kind, one in built.items())
    emit(
        {
            "snapshot": report.snapshot,
            "rows": report.rows,
            **{kind: one.rows for kind, one in built.items()},
            "lists": report.lists,
            "self_check": asdict(report.self_check),
            "seconds": round(seconds, 3),
        },
        as_json=as_json,
        text=f"{report.rows} faces in {report.lists} lists{told}, built in {seconds:.1f} s",
    )


@index_command.command("status")
@with_collection
@with_json
@click.pass_obj
def status(session: Session, collection: str | None, as_json: bool) -> None:
    """Show what readers see: the snapshots and what came after them."""
    with session.facedex(collection=collection) as facedex:
        known = {kind: asdict(facedex.index_status(kind)) for kind in facedex.index_kinds()}
    faces, *others = known
    rows = [[name, *(str(one[name]) for one in known.values())] for name in known[faces]]
    emit(
        known[faces] | {kind: known[kind] for kind in others},
        as_json=as_json,
        text=table(rows, header=["", *known]),
    )


@index_command.command("verify")
@with_collection
@with_json
@click.pass_obj
def verify(session: Session, collection: str | None, as_json: bool) -> int:
    """Hash every file of the current snapshots."""
    with session.facedex(collection=collection) as facedex:
        report, *others = (facedex.verify_index(kind) for kind in facedex.index_kinds())
    problems = [problem for one in (report, *others) for problem in one.problems]
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
        kinds = facedex.index_kinds()
        checked = {kind: _checked(facedex, kind, repair=repair) for kind in kinds}
    report = checked.pop(kinds[0])
    values: dict[str, Any] = {
        "store": report.store,
        "index": report.index,
        "missing": report.missing,
        "ghosts": report.ghosts,
        "stale": report.stale,
        "differences": [asdict(difference) for difference in report.differences],
        **{kind: asdict(one) for kind, one in checked.items()},
    }
    rest = "".join(
        f"; {one.store} {kind}, {len(one.differences)} of them not as in the store"
        for kind, one in checked.items()
    )
    emit(
        values,
        as_json=as_json,
        text=f"{report.store} faces in the store, {report.index} in the index: {report.missing}"
        f" missing, {report.ghosts} ghosts, {report.stale} stale{rest}"
        + "".join(
            f"\n  face {one.face}: {one.kind} {', '.join(one.fields)}" for one in report.differences
        ),
    )
    all_reports = (report, *checked.values())
    return ANSWER_IS_NO if any(one.differences for one in all_reports) else 0


def _checked(facedex: "Facedex", kind: "Kind", *, repair: bool) -> "CheckReport":
    report = facedex.check(kind)
    if repair and report.differences:
        facedex.build_index(kind)
        report = facedex.check(kind)
    return report
