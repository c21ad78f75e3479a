"""`facedex search`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli.faces import record_cells, record_values
from api.cli.output import Session, emit, table, with_collection, with_json, with_where

if TYPE_CHECKING:
    from facedex.handle import Facedex, Found
    from retrieval.values import UnitRows


class RecallType(click.ParamType[Any]):
    """A share such as 0.95, "certified" or "exact"."""

    name = "recall"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        """Give the share as a number, or the word."""
        if value in ("exact", "certified"):
            return str(value)
        try:
            share = float(value)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            self.fail(f"'{value}' is no share such as 0.95, nor certified, nor exact", param, ctx)
        return share


@click.command(
    epilog="""\b
Examples:
  facedex search --image ann.jpg
  facedex search --face 17 --where "captured_at >= '2024-01-01' AND quality >= 0.5" -k 20
  facedex search --vector probe.npy --recall exact --explain
"""
)
@click.option("--image", type=click.Path(path_type=Path), help="The largest face of this picture.")
@click.option("--face", type=int, help="A stored face.")
@click.option("--vector", type=click.Path(path_type=Path), help="A .npy file: (d,) or (n, d).")
@click.option("--queries", type=click.Path(path_type=Path), help="A Parquet file with `vector`.")
@with_collection
@with_where()
@click.option("-k", "count", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--recall", type=RecallType(), default="0.95", show_default=True,
              help="Share of the true neighbours, or certified, or exact.")  # fmt: skip
@click.option("--min-similarity", type=float, metavar="S", help="Leave out hits below this cosine.")
@click.option("--group-by", type=click.Choice(["person"]), help="The best face of each person.")
@click.option("--after", type=int, metavar="TOKEN", help="Wait until this write is visible.")
@click.option("--explain", is_flag=True, help="Show the plan, why, and the time of each step.")
@with_json
@click.pass_obj
def search_command(
    session: Session,
    /,
    collection: str | None,
    as_json: bool,
    explain: bool,
    **options: Any,
) -> None:
    """Find the faces that look like one."""
    probes = {name: options[name] for name in ("image", "face", "vector", "queries")}
    if sum(probe is not None for probe in probes.values()) != 1:
        raise click.UsageError("name exactly one probe: --image, --face, --vector or --queries")
    with session.facedex(collection=collection) as facedex:
        found = facedex.search(
            _probes(facedex, **probes),
            where=options["where"],
            count=options["count"],
            recall=options["recall"],
            min_similarity=options["min_similarity"],
            one_per_person=options["group_by"] == "person",
            after=options["after"],
        )
    from retrieval.explain import explained, text_of

    several = options["queries"] is not None or len(found.hits) != 1
    emit(
        _values(found, several=several),
        as_json=as_json,
        text="\n\n".join(
            [*map(_hit_table, found.hits), *([text_of(explained(found.answer))] if explain else [])]
        ),
    )


def _probes(
    facedex: "Facedex",
    *,
    image: Path | None,
    face: int | None,
    vector: Path | None,
    queries: Path | None,
) -> "UnitRows":
    if image is not None:
        return facedex.probe_of_picture(image)
    if face is not None:
        return facedex.probe_of_face(face)
    if vector is not None:
        return facedex.probes_of_array(vector)
    if queries is not None:
        return facedex.probes_of_table(queries)
    raise AssertionError


def _values(found: "Found", *, several: bool) -> dict[str, Any]:
    from retrieval.explain import explained

    answers = [
        [{"similarity": float(hit.similarity), **record_values(hit.record)} for hit in hits]
        for hits in found.hits
    ]
    answer = found.answer
    values: dict[str, Any] = {"queries": answers} if several else {"hits": answers[0]}
    values |= {
        "tier": str(answer.tier),
        "survivors": answer.survivors,
        "rows_scored": answer.rows_scored,
        "plan": explained(answer),
    }
    return values


def _hit_table(hits: Any) -> str:
    if not hits:
        return "no face passes"
    return table(
        [[f"{hit.similarity:.4f}", *record_cells(hit.record)] for hit in hits],
        header=["similarity", "face", "person", "quality", "picture"],
    )
