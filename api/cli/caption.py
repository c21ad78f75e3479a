"""`facedex caption`: training a face-text model, and what it says of faces."""

from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import click

from api.cli.output import (
    Session,
    emit,
    note,
    table,
    with_collection,
    with_json,
    with_where,
    with_workers,
)
from api.cli.space import emit_filled

if TYPE_CHECKING:
    from indexer.teaching import TeachingReport

STAGES: Final = ("picture", "sentence", "lesson", "step")  # of a training


@click.group(
    epilog="""\b
Examples:
  facedex caption train looks -c album --use
  facedex caption apply -c album
"""
)
def caption_command() -> None:
    """Train a face-text model, and let it tell attributes of faces."""


@caption_command.command(
    "train", epilog="Then:  facedex space backfill, and facedex search --text ..."
)
@click.argument("name")
@with_collection
@with_where()
@with_workers
@click.option("--seed", type=int, default=0, show_default=True, help="Of people and training.")
@click.option("--use", is_flag=True, help="Make it the collection's face-text space, too.")
@with_json
@click.pass_obj
def train(
    session: Session,
    /,
    name: str,
    collection: str | None,
    where: str | None,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a face-text model on a collection's pictures, attributes and captions.

    Attributes are declared booleans or numbers (above zero is true) of names that CelebA or LFW
    use, such as Eyeglasses, and gender; at most 30,000 faces. A fifth of the people are left out;
    the figures are theirs: each caption is looked for among at most 1,000 faces. Needs the extra
    `captions`. Cut off, it goes on where it stopped when it is started again.
    """
    from api.cli.progress import row_bar

    with session.facedex(collection=collection, workers=workers) as facedex:
        note(facedex.licence_notice())
        with ExitStack() as stack:
            bars = {what: stack.enter_context(row_bar(what)) for what in STAGES}
            report = facedex.words.train(
                name,
                where=where,
                seed=options["seed"],
                progress=lambda what, done, of: bars[what](done, of),
            )
        space = report.model.space.name
        if options["use"]:
            facedex.words.add_space(space, report.model.path)
    figures = _figures(report)
    emit(
        {"space": space, "used": options["use"], **figures},
        as_json=as_json,
        text=table([[name, _shown(value)] for name, value in figures.items()], header=[space, ""]),
    )


def _figures(report: "TeachingReport") -> dict[str, Any]:
    """What is told of a training."""
    told = [area for area in report.tags.values() if area is not None]
    figures: dict[str, Any] = {
        "faces": report.faces,
        "people": report.people,
        "captions": report.stated,
        "missing": len(report.missing),
        "tags": len(report.tags),
        "tags_auc_median": median(told) if told else None,
    }
    if report.captions is not None:
        figures["asked_among"] = report.captions.faces
        for before, way in (
            ("", report.captions.text_to_face),
            ("back_", report.captions.face_to_text),
        ):
            for rank, share in way.recall_at.items():
                figures[f"{before}recall_at_{rank}"] = share.value
            figures[f"{before}median_rank"] = way.median_rank.value
            figures[f"{before}map"] = way.mean_average_precision.value
    return figures


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


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
