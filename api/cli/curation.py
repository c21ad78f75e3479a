"""`facedex curate`, `labels`, `overlap` and `partition`: data sets compared, cut and cleaned."""

from pathlib import Path
from typing import Any, Final

import click

from api.cli.output import (
    Command,
    Session,
    emit,
    printable,
    table,
    with_collection,
    with_json,
    with_where,
)

Figures = dict[str, Any]
OUT: Final = click.Path(file_okay=False, path_type=Path)
RATE: Final = click.FloatRange(0, 1, min_open=True, max_open=True)


def with_likeness(command: Command) -> Command:
    """Add how alike two identities have to be."""
    fpir = click.option("--fpir", type=RATE, help="Share of identities that may be taken for"
                        " somebody else [default: 0.001].")  # fmt: skip
    above = click.option("--above", type=click.FloatRange(0, 1, min_open=True),
                         help="A cosine, instead of --fpir.")  # fmt: skip
    return fpir(above(command))


@click.command(
    epilog="""\b
Examples:
  facedex curate rules.toml --out chosen/
  facedex curate rules.toml --where "source = 'web'" --json
"""
)
@click.argument("rules", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=OUT, metavar="FOLDER",
              help="For kept.parquet, dropped.parquet and figures.json.")  # fmt: skip
@with_where()
@with_collection
@with_json
@click.pass_obj
def curate_command(
    session: Session,
    /,
    rules: Path,
    out: Path | None,
    where: str | None,
    collection: str | None,
    as_json: bool,
) -> None:
    """Let declared rules choose the faces of a data set.

    RULES is a TOML file. Its rules are carried out in their order, and a face goes by the first
    one that it fails. Nothing in the collection changes. docs/guides/curation.md has every rule.
    """
    written = _text_of(rules)
    with session.facedex(collection=collection) as facedex:
        found = facedex.curation.curate(written, where=where)
    figures = found.figures()
    _write(out, {"kept": found.kept, "dropped": found.dropped}, figures)
    emit(figures, as_json=as_json, text=_curated_text(figures, out))


def _curated_text(figures: Figures, out: Path | None) -> str:
    rows = [
        [printable(one["rule"]), *(f"{one[name]:,}" for name in ("input", "dropped", "left"))]
        for one in figures["rules"]
    ]
    told = (
        f"{figures['kept']:,} of {figures['input']:,} faces stay, in "
        f"{figures['images_kept']:,} pictures, of {figures['persons_kept']:,} persons"
    )
    return f"{table(rows, header=['rule', 'in', 'dropped', 'left'])}\n{told}{_where_to(out)}"


@click.command(
    epilog="""\b
Examples:
  facedex partition --parts train=.8,val=.1,test=.1 --seed 1 --out parts/
  facedex partition --parts train=.9,test=.1 --balance gender --attribute part
  facedex count --where "part = 'train'"
"""
)
@click.option("--parts", metavar="NAME=SHARE,...", default="train=.8,val=.1,test=.1",
              show_default=True, help="Shares that add up to 1.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--balance", metavar="FIELD", help="Whose values get the same shares, too.")
@click.option("--unlabelled", type=click.Choice(["drop", "cluster-alone"]), default="drop",
              show_default=True, help="Faces without a person: left out, or each an identity that"
              " may be alike to others.")  # fmt: skip
@with_likeness
@click.option("--attribute", metavar="NAME",
              help="Write the part of each face into this text attribute.")  # fmt: skip
@click.option("--out", type=OUT, metavar="FOLDER", help="For parts.parquet and figures.json.")
@with_where()
@with_collection
@with_json
@click.pass_obj
def partition_command(
    session: Session, /, collection: str | None, as_json: bool, **options: Any
) -> None:
    """Cut a collection into parts so that no identity is in two of them.

    Persons stay together that are linked, so alike that they may be one, or seen in one picture.
    """
    from api.cli.progress import row_bar
    from retrieval.curation.partition import read_parts

    out, attribute = options.pop("out"), options.pop("attribute")
    shares = read_parts(options.pop("parts"))
    with session.facedex(collection=collection) as facedex:
        with row_bar("stripe") as progress:
            found = facedex.curation.partition(shares, progress=progress, **options)
        figures = found.figures()
        if attribute is not None:
            changed, written = facedex.curation.keep_parts(found, attribute)
            figures |= {"changed": changed, "token": written}
    _write(out, {"parts": found.table}, found.figures())
    emit(figures, as_json=as_json, text=_partition_text(figures, out))


def _partition_text(figures: Figures, out: Path | None) -> str:
    rows = [
        [
            one["part"],
            *(f"{one[name]:,}" for name in ("faces", "persons", "groups")),
            f"{one['share']:.4f}",
            f"{one['faces_off']:+,.0f}",
        ]
        for one in figures["parts"]
    ]
    told = (
        f"{figures['groups']:,} groups that stay together, the largest of"
        f" {figures['largest_group']:,} faces; {figures['pairs_alike']:,} pairs of identities are"
        f" alike ({figures['threshold']:.3f} or more)"
    )
    header = ["part", "faces", "persons", "groups", "share", "off"]
    return f"{table(rows, header=header)}\n{told}{_where_to(out)}"


@click.command(
    epilog="""\b
Examples:
  facedex labels --out labels/
  facedex labels --where "source = 'web'" --compare gender --compare tags --json
"""
)
@click.option("--fpir", type=RATE, help="Share of faces that may be taken for another person's by"
              " chance [default: 0.001].")  # fmt: skip
@click.option("--fmr", type=RATE, default=1e-3, show_default=True, help="A face is unlike its"
              " person where more strangers than this share are as alike.")  # fmt: skip
@click.option("--compare", "compared", metavar="FIELD", multiple=True,
              default=("person", "gender", "age"), show_default=True,
              help="What copies of one shot must agree in. Repeatable.")  # fmt: skip
@click.option("--out", type=OUT, metavar="FOLDER",
              help="For labels.parquet, labels.csv and figures.json.")  # fmt: skip
@with_where()
@with_collection
@with_json
@click.pass_obj
def labels_command(
    session: Session, /, collection: str | None, as_json: bool, **options: Any
) -> None:
    """List the labels that may be wrong, the surest first.

    Faces unlike the rest of their person, with whose they may be; persons that are one; copies of
    one shot of which two things are said. Nothing in the collection changes: `facedex person`
    acts on what you find to be so.
    """
    from api.cli.progress import row_bar

    out = options.pop("out")
    with session.facedex(collection=collection) as facedex, row_bar("stripe") as progress:
        found = facedex.curation.labels(progress=progress, **options)
    figures = found.figures()
    _write(out, {"labels": found.table}, figures, as_csv=("labels",))
    emit(figures, as_json=as_json, text=_labels_text(figures, out))


def _labels_text(figures: Figures, out: Path | None) -> str:
    said = {
        "mislabelled": "faces are like another person than their own",
        "unlike": "faces are unlike the rest of their person",
        "same_person": "pairs of persons may be one",
        "conflict": "contradictions between copies of one shot",
        "poor": "faces are too poor to say",
    }
    rows = [[f"{figures[kind]:,}", told] for kind, told in said.items()]
    of = f"of {figures['faces']:,} faces of {figures['persons']:,} persons"
    return f"{table(rows, header=['', of])}{'' if out is None else chr(10) + printable(out)}"


@click.command(
    epilog="""\b
Examples:
  facedex overlap train test --out shared/
  facedex overlap train test --fpir 1e-4 --json
"""
)
@click.argument("one", metavar="COLLECTION")
@click.argument("other", metavar="COLLECTION")
@with_likeness
@click.option("--out", type=OUT, metavar="FOLDER", help="For identities.parquet, names.parquet,"
              " pictures.parquet and figures.json.")  # fmt: skip
@with_json
@click.pass_obj
def overlap_command(
    session: Session,
    /,
    one: str,
    other: str,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what two collections share: identities, pictures, names.

    Persons are compared by their templates, and faces of nobody one by one. Names that both have
    are told with what their faces say.
    """
    from api.cli.progress import row_bar

    with session.facedex(collection=one) as facedex, row_bar() as progress:
        found = facedex.curation.overlap(one, other, progress=progress, **options)
    figures = found.figures()
    tables = {"identities": found.identities, "names": found.names, "pictures": found.pictures}
    _write(out, tables, figures)
    emit(figures, as_json=as_json, text=_overlap_text(figures, out))


def _overlap_text(figures: Figures, out: Path | None) -> str:
    lines = [
        (
            f"{figures['persons_shared_a']:,} of {figures['persons_a']:,} persons of A, and"
            f" {figures['persons_shared_b']:,} of {figures['persons_b']:,} of B are in the other"
        ),
        (
            f"{figures['faces_shared_a']:,} of {figures['faces_without_person_a']:,} faces"
            f" of nobody in A, and {figures['faces_shared_b']:,} of"
            f" {figures['faces_without_person_b']:,} in B are"
        ),
        f"{figures['pictures_shared']:,} pictures are the same",
        (
            f"{figures['names_shared']:,} names are shared;"
            f" {figures['names_shared_faces_unlike']:,} of them by faces that are unlike"
        ),
        f"{figures['alike_under_other_names']:,} pairs of persons are alike under other names",
    ]
    for one in figures["compared"]:
        chance = one["expected_false"]
        by_chance = "unknown" if chance is None else f"{chance:.2g}"
        lines.append(
            f"{one['kind']}: {one['pairs']:,} pairs at {one['threshold']:.3f} or more,"
            f" {by_chance} expected by chance"
        )
    return "\n".join(lines) + ("" if out is None else f"\n{printable(out)}")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as cause:
        raise click.UsageError(f"{path} is no text in UTF-8") from cause


def _write(
    out: Path | None, tables: dict[str, Any], figures: Figures, *, as_csv: tuple[str, ...] = ()
) -> None:
    from facedex.written import write_answer

    if out is not None:
        write_answer(out, tables, figures, as_csv=as_csv)


def _where_to(out: Path | None) -> str:
    return "" if out is None else f": {printable(out)}"
