"""`facedex bench`: Facedex and its rivals on one machine, under filters.

The harness lies in `benchmarks/`, beside the package and not in it: run this from a checkout.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from api.cli.output import emit, table, with_json
from retrieval.errors import UsageError

if TYPE_CHECKING:
    from benchmarks.filtered.values import Cell, DataSet

DEFAULT_ENGINES: Final = "facedex,faiss-flat,faiss-ivf,faiss-hnsw,faiss-rabitq"
DEFAULT_QUERIES: Final = 200
DEFAULT_TUNING: Final = 100


@click.group(epilog="Example:  facedex bench run --data faces:20000 --work /tmp/bench")
def bench_command() -> None:
    """Compare engines for filtered search, Facedex among them, on this machine."""


@bench_command.command("run")
@click.option(
    "--data", metavar="NAME", default="faces:20000", show_default=True, help="See `datasets`."
)
@click.option(
    "--engines",
    metavar="NAMES",
    default=DEFAULT_ENGINES,
    show_default=True,
    help="Separated by commas; `all` for every one; package.module:Class for your own.",
)
@click.option(
    "--cells",
    metavar="NAME",
    multiple=True,
    default=("engine",),
    show_default=True,
    help="engine (the ten for faces), grid, kinds, all, or a part of a filter's name. Repeatable.",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--queries", type=click.IntRange(1), default=DEFAULT_QUERIES, show_default=True)
@click.option("--tuning", type=click.IntRange(1), default=DEFAULT_TUNING, show_default=True)
@click.option("-k", "--count", type=click.IntRange(1, 100), default=10, show_default=True)
@click.option(
    "--recall", type=click.FloatRange(0, 1), default=0.95, show_default=True, help="To reach."
)
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="That ask at once."
)
@click.option(
    "--build-threads", type=click.IntRange(1), default=1, show_default=True, help="Of each build."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of generated faces.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("results.jsonl"),
    show_default=True,
    help="JSON lines; what is there already is not measured again.",
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for data and builds, which are kept.",
)
@click.option("--resume/--fresh", default=True, help="Go on with, or forget, results and builds.")
@with_json
def run(data: str, engines: str, cells: tuple[str, ...], work: Path, **options: Any) -> None:
    """Build, tune and ask; write one JSON line for each result."""
    with harness():
        from benchmarks.filtered import report
        from benchmarks.filtered.data.named import named
        from benchmarks.filtered.run import Plan
        from benchmarks.filtered.run import run as carry_out

        as_json, resume = options.pop("as_json"), options.pop("resume")
        numbers = {name: options[name] for name in ("queries", "tuning", "seed")}
        folder = work / "data" / _file_name(f"{data} {sorted(numbers.items())}")
        chosen = named(data, folder, **numbers)
        plan = Plan(
            engines=_engine_names(engines), work=work, stored=folder, fresh=not resume, **options
        )
        lines = carry_out(chosen, _cells(chosen, cells), plan)
    emit({"out": plan.out, "results": lines}, as_json=as_json, text=report.table(lines))


@bench_command.command("plot")
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@with_json
def plot(results: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Draw recall against rate: PNG files and one HTML page."""
    if not results:
        raise UsageError("name at least one file of results")
    with harness():
        from benchmarks.filtered import report
        from benchmarks.filtered.run import read

        lines = [line for path in results for line in read(path)]
        written = report.plot(lines, out)
    emit({"files": written}, as_json=as_json, text="\n".join(map(str, written)))


@bench_command.command("datasets")
@with_json
def datasets(as_json: bool) -> None:
    """List what `--data` can name."""
    with harness():
        from benchmarks.filtered.data.named import DATA_SETS

    emit(
        {"datasets": [{"name": name, "what": what} for name, what in DATA_SETS]},
        as_json=as_json,
        text=table([list(one) for one in DATA_SETS], header=["NAME", "WHAT"]),
    )


@contextmanager
def harness() -> Iterator[None]:
    """Say what to do where the harness, or a library it draws or reads with, is missing."""
    try:
        yield
    except ModuleNotFoundError as cause:
        advice = (
            "the harness lies in benchmarks/: run this from a checkout"
            if (cause.name or "").startswith("benchmarks")
            else f"{cause.name} is missing: pip install 'facedex[bench]'"
        )
        raise UsageError(advice) from cause


def _engine_names(named: str) -> list[str]:
    from benchmarks.filtered.engines import ENGINES, entry

    names = list(ENGINES) if named == "all" else [name.strip() for name in named.split(",")]
    for name in names:
        entry(name)
    return names


def _cells(data: "DataSet", named: Sequence[str]) -> list["Cell"]:
    """The cells of the groups and names given, each once."""
    from benchmarks.filtered import workload

    groups: dict[str, Callable[[], Sequence[Cell]]] = {
        "engine": lambda: workload.face_cells(data),
        "grid": lambda: workload.grid(data),
        "kinds": lambda: workload.kinds(data),
        "all": lambda: workload.cells(data),
    }
    chosen: dict[str, Cell] = {}
    for name in named:
        found = groups[name]() if name in groups else _cells_like(workload.cells(data), name)
        chosen |= {cell.name: cell for cell in found}
    return list(chosen.values())


def _cells_like(cells: Sequence["Cell"], part: str) -> list["Cell"]:
    found = [cell for cell in cells if part in cell.name]
    if not found:
        raise UsageError(
            f"no filter has '{part}' in its name; there are: "
            + "; ".join(cell.name for cell in cells)
        )
    return found


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
