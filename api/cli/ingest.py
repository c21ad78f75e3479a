"""`facedex ingest`."""

from pathlib import Path
from typing import Any

import click

from api.cli.output import (
    Session,
    emit,
    note,
    printable,
    with_collection,
    with_json,
    with_workers,
)

REFUSED_SHOWN_MAX = 20


@click.command(
    epilog="""\b
Examples:
  facedex ingest photos/
  facedex ingest 'photos/**/*.jpg' --metadata people.csv
  facedex ingest lfw/ --person-from folder -c lfw
  facedex ingest shards/*.tar --source web
  facedex ingest --aligned ms1m/train.rec --source ms1m
"""
)
@click.argument("paths", nargs=-1, metavar="PATH...")
@with_collection
@click.option(
    "--metadata", type=click.Path(path_type=Path), help="CSV or Parquet: column `path`, facts."
)
@click.option("--person-from", type=click.Choice(["folder"]), help="Where names come from.")
@click.option("--frames", is_flag=True, help="Folders are tracks, file names carry frame numbers.")
@click.option("--aligned", is_flag=True, help="Pictures are ready 112x112 crops: no detection.")
@click.option("--source", metavar="NAME", help="Where the pictures come from.")
@click.option(
    "--origin",
    type=click.Choice(["captured", "generated", "restored"]),
    default="captured",
    show_default=True,
    help="How the pictures came to be; only captured ones build templates.",
)
@click.option("--copy", is_flag=True, help="Copy originals below FACEDEX_HOME.")
@with_workers
@click.option(
    "--allow-sensitive", is_flag=True, help="Take ethnicity, attractiveness, emotion too."
)
@click.option("--retry-refused", is_flag=True, help="Try again what was refused before.")
@click.option("--later", is_flag=True, help="Queue it for `facedex worker` instead.")
@with_json
@click.pass_obj
def ingest_command(
    session: Session,
    /,
    paths: tuple[str, ...],
    collection: str | None,
    metadata: Path | None,
    person_from: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the faces in pictures and store them.

    PATH is a picture, a folder, a glob, a tar shard (webdataset, img2dataset) or an insightface
    .rec file. Originals stay where they are. The same picture twice is one image, and a run that
    was cut off goes on where it stopped.
    """
    from api.cli.progress import ingest_bar
    from indexer.jobs import IngestRequest
    from indexer.sources.pictures import Framing

    if not paths and metadata is None:
        raise click.UsageError("name pictures, folders, archives, or a --metadata file")
    request = IngestRequest(
        paths=[str(path) for path in paths],
        metadata=None if metadata is None else str(metadata),
        person_from_folder=person_from == "folder",
        frames=bool(options["frames"]),
        framing=Framing.ALIGNED if options["aligned"] else Framing.SCENE,
        source=options["source"],
        origin=str(options["origin"]),
        copy_originals=bool(options["copy"]),
        allow_sensitive=bool(options["allow_sensitive"]),
        retry_refused=bool(options["retry_refused"]),
    )
    with session.facedex(workers=options["workers"], collection=collection) as facedex:
        if options["later"]:
            job = facedex.queue_ingest(request)
            emit({"job": job}, as_json=as_json, text=f"queued as job {job}; run `facedex worker`")
            return
        note(facedex.licence_notice())
        note(facedex.words.licence_notice())
        listing = facedex.listing(request)
        for notice in listing.notices:
            note(notice)
        with ingest_bar(listing.count()) as progress:
            report = facedex.run_ingest(request, progress=progress)
    if report.left_out:
        note(f"left out, since these names cannot be attributes: {', '.join(report.left_out)}")
    for refused in report.refused[:REFUSED_SHOWN_MAX]:
        note(f"refused {printable(refused.path)}: {refused.reason}")
    if len(report.refused) > REFUSED_SHOWN_MAX:
        note(f"... and {len(report.refused) - REFUSED_SHOWN_MAX} more; --json lists them all")
    emit(
        {
            "images": report.images,
            "known": report.known,
            "faces": report.faces,
            "refused": [
                {
                    "path": printable(refused.path)
                    + (f"!{refused.member}" if refused.member else ""),
                    "reason": refused.reason,
                }
                for refused in report.refused
            ],
            "left_out": report.left_out,
            "seconds": round(report.seconds, 3),
            "token": report.token,
        },
        as_json=as_json,
        text=f"{report.images} new images with {report.faces} faces, {report.known} known,"
        f" {len(report.refused)} refused, in {report.seconds:.1f} s",
    )
