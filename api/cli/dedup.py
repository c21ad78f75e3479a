"""`facedex dedup`: what is there twice, marked and shown, never deleted."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from api.cli.output import (
    Session,
    emit,
    note,
    printable,
    table,
    with_collection,
    with_json,
    with_where,
)

if TYPE_CHECKING:
    from facedex.duplicates import Found, Told
    from facedex.handle import Facedex
    from indexer.backfill import MissingPicture

MISSING_SHOWN_MAX: Final = 5
RATE: Final = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command(
    epilog="""\b
Examples:
  facedex dedup --out duplicates/
  facedex dedup --out duplicates/ --prefer archive --prefer web --apply
  facedex search --image ann.jpg --where "NOT 'duplicate' = ANY(tags)"
  facedex dedup --level person --out persons/
  facedex dedup --level track --out frames/ --apply
  facedex dedup --list
  facedex dedup --undo 3
"""
)
@click.option("--level", type=click.Choice(["image", "face", "person", "track"]), default="image",
              show_default=True,
              help="Pictures, shots of a face, persons, or frames of a track.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="For groups.parquet, groups.csv and report.html.")  # fmt: skip
@click.option("--prefer", multiple=True, metavar="SOURCE",
              help="Keep copies from this source; the first one named first.")  # fmt: skip
@click.option("--fmr", type=RATE, help="With --level person: share of pairs of strangers that may"
              " be as alike [default: 0.05 pairs expected in all].")  # fmt: skip
@click.option("--apply", is_flag=True,
              help="Tag what is to be dropped as 'duplicate'; link persons.")  # fmt: skip
@click.option("--undo", type=click.IntRange(min=1), metavar="NUMBER",
              help="Take back what a run with --apply changed.")  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="Show the runs that changed something.")
@with_where()
@with_collection
@with_json
@click.pass_obj
def dedup_command(
    session: Session, /, collection: str | None, as_json: bool, **options: Any
) -> None:
    """Find what is there twice, and say which to keep.

    Pictures are compared by their pixels: copies that were encoded anew, resized, cropped,
    mirrored, made brighter or lettered are found. Of several, the one from the preferred source is
    kept, else that of higher quality, of more pixels, or the one that came first. Nothing is
    deleted.
    """
    undo, listing = options["undo"], options["listing"]
    if (options["out"] is not None) + (undo is not None) + listing != 1:
        raise click.UsageError("give one of --out FOLDER, --undo NUMBER and --list")
    if options["apply"] and options["out"] is None:
        raise click.UsageError("--apply goes with --out FOLDER")
    if options["fmr"] is not None and options["level"] != "person":
        raise click.UsageError("--fmr goes with --level person")
    if options["prefer"] and options["level"] == "track":
        raise click.UsageError("--prefer goes with pictures and faces: frames have one source")
    with session.facedex(collection=collection) as facedex:
        if listing:
            _list(facedex, as_json=as_json)
        elif undo is not None:
            _undo(facedex, undo, as_json=as_json)
        else:
            _find(facedex, options, as_json=as_json)


def _find(facedex: "Facedex", options: dict[str, Any], *, as_json: bool) -> None:
    from facedex.duplicates_report import write

    found = _found(facedex, options)
    report = write(found, options["out"])
    told = facedex.duplicates.mark(found) if options["apply"] else None
    note(_missing_text(found.missing))
    emit(
        {
            "groups": len(found.groups),
            "duplicates": len(found.duplicates),
            "report": report,
            "level": found.level.value,
            "images": len(found.pictured.pictures),
            "faces": len(found.pictured.faces),
            "without_image": found.without_original,
            "missing": [_missing(one) for one in found.missing],
            **({} if found.threshold is None else {"threshold": found.threshold.similarity}),
            **found.figures,
            **({} if told is None else _marked(told)),
        },
        as_json=as_json,
        text="\n".join(
            (
                f"{len(found.groups):,} groups, {len(found.duplicates):,} to drop: {report}",
                *(() if told is None else (_marked_text(told),)),
            )
        ),
    )


def _found(facedex: "Facedex", options: dict[str, Any]) -> "Found":
    from api.cli.progress import row_bar

    where, prefer = options["where"], options["prefer"]
    if options["level"] == "person":
        return facedex.duplicates.persons(where=where, fmr=options["fmr"])
    if options["level"] == "track":
        with row_bar("face") as progress:
            return facedex.curation.near_copies(where=where, progress=progress)
    with row_bar("picture") as progress:
        if options["level"] == "face":
            return facedex.duplicates.faces(where=where, prefer=prefer, progress=progress)
        return facedex.duplicates.images(where=where, prefer=prefer, progress=progress)


def _undo(facedex: "Facedex", number: int, *, as_json: bool) -> None:
    told = facedex.duplicates.undo(number)
    changed = f"{told.marked.faces:,} faces, {told.marked.links:,} links"
    emit(
        {
            "undone": told.marked.number,
            "unmarked": told.marked.faces,
            "unlinked": told.marked.links,
            "token": told.token,
        },
        as_json=as_json,
        text=f"run {number} was taken back before: nothing changed"
        if told.marked.number is None
        else f"run {number} is taken back: {changed}",
    )


def _list(facedex: "Facedex", *, as_json: bool) -> None:
    runs = facedex.duplicates.markings()
    emit(
        {
            "markings": [
                {
                    "marking": one.number,
                    "at": one.at,
                    "actor": one.actor,
                    "level": one.level,
                    "faces": one.faces,
                    "links": one.links,
                    "undone_at": one.undone_at,
                }
                for one in runs
            ]
        },
        as_json=as_json,
        text=table(
            [
                [
                    str(one.number),
                    f"{one.at:%Y-%m-%d %H:%M}",
                    one.actor,
                    one.level,
                    f"{one.faces:,}",
                    f"{one.links:,}",
                    "" if one.undone_at is None else f"{one.undone_at:%Y-%m-%d %H:%M}",
                ]
                for one in runs
            ],
            header=["run", "at", "by", "level", "faces", "links", "undone"],
        ),
    )


def _marked(told: "Told") -> dict[str, Any]:
    return {
        "marking": told.marked.number,
        "marked": told.marked.faces,
        "linked": told.marked.links,
        "token": told.token,
    }


def _marked_text(told: "Told") -> str:
    if told.marked.number is None:
        return "all were marked before: nothing changed"
    what = f"{told.marked.faces:,} faces tagged, {told.marked.links:,} links between persons"
    return f"{what}; `facedex dedup --undo {told.marked.number}` takes it back"


def _missing(one: "MissingPicture") -> dict[str, Any]:
    return {"path": one.path, "member": one.member, "reason": one.reason}


def _missing_text(missing: "tuple[MissingPicture, ...]") -> str | None:
    if not missing:
        return None
    lines = [
        f"  {printable(one.path)}{'!' + one.member if one.member else ''}: {one.reason}"
        for one in missing[:MISSING_SHOWN_MAX]
    ]
    if len(missing) > MISSING_SHOWN_MAX:
        lines.append(f"  and {len(missing) - MISSING_SHOWN_MAX:,} more (--json names all)")
    return "\n".join([f"{len(missing):,} originals could not be read:", *lines])
