"""`facedex evaluate separability` and `facedex sample`: identities that are too alike, or not."""

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
    from facedex.separating import By, Separated

COSINE: Final = click.FloatRange(-1, 1)
RATE: Final = click.FloatRange(0, 1, min_open=True, max_open=True)
SHOWN_MAX: Final = 10


@click.command(
    epilog="""\b
Examples:
  facedex evaluate separability --fmr 1e-6 --out separability/
  facedex evaluate separability --by face --above 0.4 --where "origin = 'generated'"
"""
)
@click.option("--by", type=click.Choice(["person", "face"]), default="person", show_default=True,
              help="Templates of persons, or faces of different persons.")  # fmt: skip
@click.option("--above", type=COSINE, metavar="T", help="A cosine.")
@click.option("--fmr", type=RATE, metavar="R",
              help="Or share of pairs of strangers that reach it [default: 1e-5].")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="For pairs.parquet, histogram.parquet and figures.json; a run that was cut off"
              " goes on there.")  # fmt: skip
@with_where()
@with_collection
@with_json
@click.pass_obj
def separability_command(
    session: Session,
    /,
    collection: str | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """All pairs of identities at least so alike, exactly; how many strangers would make is beside.

    Identities that reach the threshold can't be told apart there: of generated ones each pair takes
    away one. Faces of one person, and records of persons that were linked, are no pair.
    """
    if options["above"] is not None and options["fmr"] is not None:
        raise click.UsageError("give one of --above and --fmr")
    from api.cli.progress import row_bar

    with session.facedex(collection=collection) as facedex, row_bar("stripe") as progress:
        found = facedex.curation.separability(folder=out, progress=progress, **options)
    if out is not None:
        from facedex.written import write_answer

        tables = {"pairs": found.pairs, "histogram": found.histogram}
        write_answer(out, tables, found.figures())
    most = found.pairs.slice(0, SHOWN_MAX).to_pylist()
    emit(
        {
            **found.figures(),
            "most_alike": most,
            "histogram": [one for one in found.histogram.to_pylist() if one["pairs"]],
        },
        as_json=as_json,
        text=_text(found, most),
    )


def _text(found: "Separated", most: list[dict[str, Any]]) -> str:
    figures = found.figures()
    expected = figures["pairs_expected"]
    among = "" if expected is None else f"; {expected:,.1f} expected of so many strangers"
    highest = figures["highest"]
    reached = f"{figures['pairs']:,} of {figures['pairs_compared']:,} pairs"
    lines = [
        f"{reached} reach {figures['threshold']:.4f}{among}",
        f"{figures['identities_involved']:,} of {figures['identities']:,} identities are in one",
        "" if highest is None else f"the most alike two: {highest:.4f}",
    ]
    if most:
        key = "person_id" if found.by == "person" else "face"
        rows = [
            [f"{one['similarity']:.4f}", *(_shown(one, key, side) for side in ("a", "b"))]
            for one in most
        ]
        lines += ["", table(rows, header=["similarity", "one", "other"])]
    return "\n".join(lines)


def _shown(pair: dict[str, Any], key: str, side: str) -> str:
    name = pair[f"person_{side}"]
    number = f"#{pair[f'{key}_{side}']}"
    return number if name is None else f"{number} {printable(name)}"


@click.command(
    epilog="""\b
Examples:
  facedex sample 10000 --max-cosine 0.4 --out chosen.parquet
  facedex sample 500 --max-cosine 0.3 --persons --best --where "quality >= 0.5" --out p.parquet
"""
)
@click.argument("count", type=click.IntRange(min=1), metavar="N")
@click.option("--max-cosine", "below", required=True, metavar="T",
              type=click.FloatRange(-1, 1, min_open=True), help="No two reach it.")  # fmt: skip
@click.option("--persons", is_flag=True, help="Persons by their templates, instead of faces.")
@click.option("--best", is_flag=True,
              help="Faces of highest quality first, or persons with most faces.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True,
              metavar="FILE.parquet")  # fmt: skip
@with_where()
@with_collection
@with_json
@click.pass_obj
def sample_command(
    session: Session,
    /,
    collection: str | None,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Choose at most N faces or persons, no two of them alike, taken in an order made of a seed.

    Where there are fewer, nothing that was left out could be added; another order may give a few
    more or less.
    """
    from facedex.separating import write_sample

    by: By = "person" if options.pop("persons") else "face"
    with session.facedex(collection=collection) as facedex:
        found = facedex.curation.sample(options.pop("count"), by=by, **options)
    write_sample(found, out)
    count, most = found.table.num_rows, options["below"]
    if found.exhausted:
        note(
            f"only {count:,} of {found.asked:,}: everything else is alike to one of these; another"
            " --seed may give a few more"
        )
    emit(
        {
            "sampled": count,
            "asked": found.asked,
            "among": found.among,
            "exhausted": found.exhausted,
            "max_cosine": most,
            "by": by,
            "out": out,
        },
        as_json=as_json,
        text=f"{count:,} of {found.among:,} {by}s, no two of which reach {most:g}: {out}",
    )
