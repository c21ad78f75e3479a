"""`facedex space`: the spaces of vectors, and the face-text space of a collection."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli.output import (
    Session,
    emit,
    note,
    printable,
    table,
    with_collection,
    with_json,
    with_workers,
)

if TYPE_CHECKING:
    from facedex.words import Filled

OPEN_CLIP = "open_clip:"
MISSING_SHOWN_MAX = 20


@click.group(epilog="Example:  facedex space add looks@1 --model looks/ -c album")
def space_command() -> None:
    """List embedding spaces with their licences; let sentences find faces."""


@space_command.command("list")
@with_json
@click.pass_obj
def list_spaces(session: Session, as_json: bool) -> None:
    """List the spaces that the store knows."""
    with session.facedex() as facedex:
        found = facedex.spaces()
    emit(
        {
            "spaces": [
                {
                    "name": one.name,
                    "dimension": one.dimension,
                    "model_sha256": one.model_sha256,
                    "licence": one.licence,
                    "commercial": one.commercial,
                }
                for one in found
            ]
        },
        as_json=as_json,
        text=table(
            [[one.name, str(one.dimension), one.licence] for one in found],
            header=["space", "dimension", "licence"],
        ),
    )


@space_command.command("add")
@click.argument("name", metavar="NAME@VERSION")
@click.option(
    "--model",
    required=True,
    metavar="FOLDER|open_clip:FOLDER",
    help="A folder that `caption train` made, or one of open_clip (its local-dir: schema).",
)
@click.option("--licence", metavar="TEXT", help="Of an open_clip model [default: unknown].")
@click.option("--commercial", is_flag=True, help="That licence allows commercial use.")
@with_collection
@with_json
@click.pass_obj
def add_space(
    session: Session,
    /,
    name: str,
    model: str,
    collection: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Give a collection a face-text space: sentences find faces in it.

    Pictures that come later are read into it; `space backfill` adds those that are there. The
    model is copied below FACEDEX_HOME. A space that the collection had before keeps its vectors.
    """
    with session.facedex(collection=collection) as facedex:
        words = facedex.words
        if model.startswith(OPEN_CLIP):
            folder = Path(model.removeprefix(OPEN_CLIP))
            added = words.add_open_clip(name, folder, **options)
        elif any(options.values()):
            raise click.UsageError("a folder of Facedex says itself what its licence is")
        else:
            added = words.add_space(name, Path(model))
    space = added.space
    before = "" if added.before is None else f" in the place of '{added.before.name}'"
    emit(
        {
            "space": space.name,
            "before": None if added.before is None else added.before.name,
            "dimension": space.dimension,
            "licence": space.licence,
            "commercial": space.commercial,
            "token": added.token,
        },
        as_json=as_json,
        text=f"face-text space '{space.name}'{before}: {space.dimension} dimensions,"
        f" {space.licence}; `facedex space backfill` reads the pictures that are there",
    )


@space_command.command("backfill")
@with_collection
@with_workers
@with_json
@click.pass_obj
def backfill(session: Session, collection: str | None, workers: int | None, as_json: bool) -> None:
    """Read stored pictures and captions into the face-text space.

    Faces are found where the store says they are. A run that was cut off goes on where it stopped.
    """
    from api.cli.progress import row_bar

    with session.facedex(collection=collection, workers=workers) as facedex:
        note(facedex.words.licence_notice())
        with row_bar("picture") as progress:
            filled = facedex.words.backfill(progress=progress)
    emit_filled(filled, as_json=as_json)


def emit_filled(filled: "Filled", *, as_json: bool) -> None:
    """Print what a run over stored pictures did."""
    report = filled.faces
    for missing in report.missing[:MISSING_SHOWN_MAX]:
        note(f"not read {_told(missing)}: {missing.reason}")
    if len(report.missing) > MISSING_SHOWN_MAX:
        note(f"... and {len(report.missing) - MISSING_SHOWN_MAX} more; --json lists them all")
    if report.unseen:
        note(f"{report.unseen} faces came without a picture: import their vectors")
    values: dict[str, Any] = {
        "space": filled.space.name,
        "pictures": report.pictures,
        "faces": report.faces,
        "captions": filled.captions,
        "missing": [
            {"path": _told(one), "faces": one.faces, "reason": one.reason} for one in report.missing
        ],
        "unseen": report.unseen,
        "seconds": round(report.seconds, 3),
        "token": filled.token,
    }
    emit(
        values,
        as_json=as_json,
        text=f"{report.faces} faces of {report.pictures} pictures and {filled.captions} captions in"
        f" space {filled.space.name}, {len(report.missing)} pictures not read,"
        f" {report.seconds:.1f} s",
    )


def _told(missing: Any) -> str:
    return printable(missing.path) + (f"!{missing.member}" if missing.member else "")
