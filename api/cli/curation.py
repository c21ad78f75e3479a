"""`facedex curate`, `labels`, `overlap` and `partition`: data sets compared, cut and cleaned."""

from pathlib import Path
from typing import Any, Final

import click

from api.cli.output import (
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
