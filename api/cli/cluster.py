"""`facedex cluster`: who is the same person, proposed, to be looked at and taken back."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from api.cli.output import Session, emit, table, with_collection, with_json, with_where
from api.cli.progress import stage_bar

if TYPE_CHECKING:
    from facedex.clustering import Clustered

DOUBTS_SHOWN_MAX: Final = 10
METHODS: Final = ("templates", "components", "hdbscan", "leiden")


@click.command(
    epilog="""\b
Examples:
  facedex cluster
  facedex cluster --where "source = 'album'" --out groups/ --dry-run
  facedex cluster --new
  facedex person merge '#12' '#31' && facedex cluster
  facedex person undo 4
"""
)
@with_where()
@click.option("--new", "only_new", is_flag=True,
              help="Only faces that came since: they join persons, or each other.")  # fmt: skip
@click.option("--method", type=click.Choice(METHODS), default="templates", show_default=True,
              help="Another way of grouping, by a library.")  # fmt: skip
@click.option("--threshold", type=click.FloatRange(-1, 1),
              help="Similarity for --method [default: 1 of 100,000 strangers has it].")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="For clusters.parquet and doubtful.parquet.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Propose nothing; show what it would be.")
@with_collection
@with_json
@click.pass_obj
def cluster_command(
    session: Session, /, collection: str | None, as_json: bool, **options: Any
) -> None:
    """Group faces into persons.

    Groups become persons without a name, in one event that `facedex person undo` takes back. What
    people said stands: faces that came with a person, persons with a name, and whoever was
    assigned, rejected, merged or split. Two faces of one picture are not one person. How alike
    faces must be comes from the calibration of the space, and from the collection itself.

    Run again, it groups anew what nobody touched, and groups keep their persons. The pairs told
    last nearly were one: merge them or leave them.
    """
    method, threshold, only_new = options["method"], options["threshold"], options["only_new"]
    if only_new and method != "templates":
        raise click.UsageError("--new goes with the default method")
    if threshold is not None and method == "templates":
        raise click.UsageError("--threshold goes with another --method: the default finds its own")
    from facedex.clustering import write_clusters
    from retrieval.clusters.methods import Method

    common = {"where": options["where"], "write": not options["dry_run"]}
    with session.facedex(collection=collection) as facedex, stage_bar() as progress:
        if only_new:
            found = facedex.clustering.attach(**common, progress=progress)
        else:
            found = facedex.clustering.cluster(
                **common, method=Method(method), threshold=threshold, progress=progress
            )
        if not options["dry_run"]:
            facedex.maintain_index(facedex.collection())
    if options["out"] is not None:
        write_clusters(found, options["out"])
    emit(_told(found), as_json=as_json, text=_text(found))


def _told(found: "Clustered") -> dict[str, Any]:
    return {
        "persons": found.count,
        "faces": found.assigned,
        "unassigned": len(found.faces) - found.assigned,
        "events": list(found.events),
        "doubtful": [
            {
                "one": doubt.one,
                "other": doubt.other,
                "one_person": doubt.one_person,
                "other_person": doubt.other_person,
                "similarity": doubt.similarity,
            }
            for doubt in found.doubts[:DOUBTS_SHOWN_MAX]
        ],
        "token": found.token,
    }


def _text(found: "Clustered") -> str:
    alone = len(found.faces) - found.assigned
    lines = [f"{found.count:,} persons have {found.assigned:,} faces; {alone:,} faces are nobody's"]
    if found.events:
        events = " ".join(str(one) for one in reversed(found.events))
        lines.append(f"take it back: facedex person undo {events}")
    if found.doubts:
        lines.append("nearly one, to be looked at first:")
        lines.append(
            table(
                [
                    [
                        f"{doubt.similarity:.3f}",
                        *(_who(face, person) for face, person in _ends(doubt)),
                    ]
                    for doubt in found.doubts[:DOUBTS_SHOWN_MAX]
                ],
                header=["similarity", "one", "other"],
            )
        )
    return "\n".join(lines)


def _ends(doubt: Any) -> tuple[tuple[int, int | None], ...]:
    return (doubt.one, doubt.one_person), (doubt.other, doubt.other_person)


def _who(face: int, person: int | None) -> str:
    return f"face {face}" if person is None else f"person #{person} (face {face})"
