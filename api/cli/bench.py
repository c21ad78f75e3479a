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
DATA_SETS: Final[tuple[tuple[str, str], ...]] = (
    ("faces:N", "N faces that the generator makes, 512 dimensions, with attributes"),
    ("text:DIR", "texts embedded by benchmarks.filtered.data.text, the folder `set`"),
    ("hdf5:FILE", "a file of ann-benchmarks"),
    ("fbin:ROWS,QUERIES[,TAGS,TAGS]", "big-ann: .fbin or .u8bin, and .spmat for its filters"),
    ("vdbb:DIR", "a folder of VectorDBBench: train*.parquet, test.parquet"),
    ("fvecs:ROWS,QUERIES[,JSONL,JSONL]", ".fvecs or .bvecs, with attributes as JSON lines"),
    ("collection:FILE", "a file of `facedex export`; some rows become the queries"),
)


@click.group(epilog="Example:  facedex bench run --data faces:20000 --work /tmp/bench")
def bench_command() -> None:
    """Measure Facedex against other engines."""


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
        from benchmarks.filtered.run import Plan
        from benchmarks.filtered.run import run as carry_out

        as_json, resume = options.pop("as_json"), options.pop("resume")
        numbers = {name: options[name] for name in ("queries", "tuning", "seed")}
        folder = work / "data" / _file_name(f"{data} {sorted(numbers.items())}")
        chosen = _data_set(data, folder, **numbers)
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


def _data_set(name: str, folder: Path, *, queries: int, tuning: int, seed: int) -> "DataSet":
    """The set of that name, opened from `folder`, where it is put the first time."""
    from benchmarks.filtered.data import stored

    if not (folder / stored.INDEX_FILE).exists():
        stored.save(_made(name, queries=queries, tuning=tuning, seed=seed), folder)
    return stored.opened(folder)


def _made(name: str, *, queries: int, tuning: int, seed: int) -> "DataSet":
    from benchmarks.filtered.data import formats, generator, stored

    kind, _, rest = name.partition(":")
    files = [Path(part) for part in rest.split(",")]
    held = {"queries": queries, "tuning": tuning, "seed": seed}
    makers: dict[str, Callable[[], DataSet]] = {
        "faces": lambda: generator.faces(_number(rest), **held),
        "text": lambda: stored.opened(files[0]),
        "hdf5": lambda: formats.ann_benchmarks(files[0]),
        "fbin": lambda: formats.big_ann(*_two(files), **_optional(files, "row_tags", "query_tags")),
        "vdbb": lambda: formats.vector_db_bench(files[0]),
        "fvecs": lambda: formats.plain_vectors(
            *_two(files), **_optional(files, "attributes", "query_attributes")
        ),
        "collection": lambda: formats.own_collection(files[0], **held),
    }
    if kind not in makers or not rest:
        known = ", ".join(known for known, _ in DATA_SETS)
        raise UsageError(f"there is no data set '{name}'; there are: {known}")
    return makers[kind]()


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


def _number(written: str) -> int:
    if not written.isdecimal() or int(written) == 0:
        raise UsageError(f"'{written}' is no number of faces")
    return int(written)


def _two(files: list[Path]) -> list[Path]:
    if len(files) not in (2, 4):
        raise UsageError("name the file of rows and the file of queries, with a comma between")
    return files[:2]


def _optional(files: list[Path], *names: str) -> dict[str, Any]:
    return dict(zip(names, files[2:], strict=False))


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
