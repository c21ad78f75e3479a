"""`facedex caption`: what a face-text model says of faces."""

import click

from api.cli.output import Session, note, with_collection, with_json, with_where, with_workers
from api.cli.space import emit_filled


@click.group(epilog="Example:  facedex caption apply -c album")
def caption_command() -> None:
    """Let a face-text model tell attributes of faces."""


@caption_command.command(
    "apply", epilog="""Then:  facedex search --where "'glasses' = ANY(tags)" ..."""
)
@with_collection
@with_where()
@with_workers
@with_json
@click.pass_obj
def apply(
    session: Session,
    collection: str | None,
    where: str | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Give tags to faces that the model of the face-text space has not tagged yet.

    Tags that were stated or set by hand stay; the guesses of an earlier model are replaced. Each
    tag keeps its provider and its chance.
    """
    from api.cli.progress import row_bar

    with session.facedex(collection=collection, workers=workers) as facedex:
        note(facedex.words.licence_notice())
        with row_bar("picture") as progress:
            filled = facedex.words.apply_tags(where=where, progress=progress)
    emit_filled(filled, as_json=as_json)
