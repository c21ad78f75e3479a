"""`facedex demo`."""

from pathlib import Path
from typing import Any

import click

from api.cli.faces import record_cells, record_values
from api.cli.output import Session, emit, note, table, with_json

COLLECTION = "demo"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@click.command(epilog="Example:  facedex demo   or   facedex demo ~/Pictures")
@click.argument("photos", required=False, type=click.Path(path_type=Path, exists=True))
@with_json
@click.pass_obj
def demo_command(session: Session, photos: Path | None, as_json: bool) -> None:
    """Show what Facedex does: on a picture that ships with it, or on your own folder."""
    from api.cli.progress import ingest_bar
    from api.demo import VARIANTS, VARIED_MAX, shipped_picture, show

    if photos is None:
        pictures, collection = [shipped_picture()], COLLECTION
    else:
        pictures, collection = _pictures(photos), f"{COLLECTION}-own"
    total = len(pictures) + min(len(pictures), VARIED_MAX) * len(VARIANTS)
    with session.facedex(collection=collection) as facedex:
        note(facedex.licence_notice())
        with ingest_bar(total) as progress:
            shown = show(facedex, pictures, progress=progress)
        searched: list[dict[str, Any]] = []
        text = [
            f"{shown.images} new pictures, {shown.faces} new faces, {shown.known} known pictures",
            f"{shown.refused} pictures refused",
            f"{shown.originals} faces to compare; the nearest in each variant is the same one for:",
            *(
                f"  {name}: {shown.matched[name]} of {shown.visible[name]}"
                for name in shown.matched
            ),
        ]
        if shown.best is not None:
            where = "variant IN ('cropped', 'mirrored') AND quality >= 0.2"
            found = facedex.search(facedex.probe_of_face(shown.best.face), where=where, count=4)
            searched = [
                {"similarity": hit.similarity, **record_values(hit.record)} for hit in found.hits[0]
            ]
            text += [
                f'facedex search -c {collection} --face {shown.best.face} -k 4 --where "{where}"',
                table(
                    [[f"{hit.similarity:.4f}", *record_cells(hit.record)] for hit in found.hits[0]],
                    header=["similarity", "face", "person", "quality", "picture"],
                ),
            ]
    emit(
        {
            "images": shown.images,
            "known": shown.known,
            "faces": shown.faces,
            "originals": shown.originals,
            "matched": shown.matched,
            "visible": shown.visible,
            "hits": searched,
        },
        as_json=as_json,
        text="\n".join(text),
    )


def _pictures(photos: Path) -> list[Path]:
    if photos.is_file():
        return [photos.resolve()]
    found = sorted(path for path in photos.resolve().rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise click.UsageError(f"no pictures in {photos}: {', '.join(SUFFIXES)}")
    return found
