"""`facedex import` and `facedex export`."""

from pathlib import Path
from typing import Any

import click

from api.cli.output import Session, emit, note, with_collection, with_json, with_where

FORMATS = ["parquet", "npy", "clip-retrieval", "deepface", "immich", "faiss"]
REFUSED_SHOWN_MAX = 20


@click.command(
    epilog="""\b
Examples:
  facedex import faces.parquet --space arcface-mbf@1 -c gallery
  facedex import faces.parquet --space mine@1 --dry-run
  facedex import vectors.npy --from npy --space mine@1
"""
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--space", required=True, metavar="NAME", help="Which model the vectors are of.")
@click.option("--from", "from_", type=click.Choice(FORMATS), default="parquet", show_default=True)
@click.option("--attributes", type=click.Path(path_type=Path),
              help="With --from npy or faiss: a CSV or Parquet of the same rows.")  # fmt: skip
@click.option("--dimension", type=click.IntRange(min=1), help="Of binary vectors in a new space.")
@click.option("--model-sha256", metavar="HEX", help="Pins a new space to a model's weights.")
@click.option(
    "--allow-sensitive", is_flag=True, help="Take ethnicity, attractiveness, emotion too."
)
@click.option("--dry-run", is_flag=True, help="Report every problem; write nothing.")
@with_collection
@with_json
@click.pass_obj
def import_command(
    session: Session,
    /,
    file: Path,
    collection: str | None,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Bring in ready-made vectors and attributes, in committed chunks.

    FILE has a column `vector`; `id` is kept as external_id and makes a second import an update;
    image, box, landmarks, person, quality, captured_at, track, frame, caption and captions have
    their meaning; every other column becomes an attribute of that name and type.
    """
    from api.cli.progress import row_bar
    from indexer.bulk.formats import Format
    from indexer.bulk.importing import ImportRequest

    with session.facedex(collection=collection) as facedex, row_bar() as progress:
        request = ImportRequest(
            path=file,
            collection=facedex.settings.collection,
            space=options["space"],
            format=Format(options["from_"]),
            dimension=options["dimension"],
            model_sha256=options["model_sha256"],
            attributes=options["attributes"],
            allow_sensitive=options["allow_sensitive"],
        )
        carry_out = facedex.check_import if dry_run else facedex.import_file
        report = carry_out(request, progress=progress)
    for refused in report.refused[:REFUSED_SHOWN_MAX]:
        note(f"refused row {refused.row}: {refused.reason}")
    emit(
        {
            "rows": report.rows,
            "updated": report.updated,
            "known": report.known,
            "attributes": report.attributes,
            "refused": [{"row": one.row, "reason": one.reason} for one in report.refused],
            "refused_count": report.refused_count,
            "left_out": report.left_out,
            "space": report.space,
            "dry_run": dry_run,
            "seconds": round(report.seconds, 3),
            "token": report.token,
        },
        as_json=as_json,
        text=f"{report.rows} rows {'would be' if dry_run else 'are'} in space {report.space}"
        f" ({report.updated} updated, {report.known} known, {report.refused_count} refused),"
        f" {report.seconds:.1f} s",
    )


@click.command(epilog='Example:  facedex export good.parquet --where "quality >= 0.6"')
@click.argument("file", type=click.Path(path_type=Path))
@with_collection
@with_where()
@with_json
@click.pass_obj
def export_command(
    session: Session,
    file: Path,
    collection: str | None,
    where: str | None,
    as_json: bool,
) -> None:
    """Write vectors and attributes to Parquet, as `import` reads them."""
    with session.facedex(collection=collection) as facedex:
        report = facedex.export_file(file, where=where)
    emit(
        {"rows": report.rows, "space": report.space, "seconds": round(report.seconds, 3)},
        as_json=as_json,
        text=f"{report.rows} rows of space {report.space} in {file}",
    )
