"""Data sets by name, as the command line takes them: made once, then opened from where they lie."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.filtered.data import formats, generator, stored
from benchmarks.filtered.values import DataSet
from retrieval.errors import UsageError

DATA_SETS: Final[tuple[tuple[str, str], ...]] = (
    ("faces:N", "N faces that the generator makes, 512 dimensions, with attributes"),
    ("text:DIR", "texts embedded by benchmarks.filtered.data.text, the folder `set`"),
    ("hdf5:FILE", "a file of ann-benchmarks"),
    ("fbin:ROWS,QUERIES[,TAGS,TAGS]", "big-ann: .fbin or .u8bin, and .spmat for its filters"),
    ("vdbb:DIR", "a folder of VectorDBBench: train*.parquet, test.parquet"),
    ("fvecs:ROWS,QUERIES[,JSONL,JSONL]", ".fvecs or .bvecs, with attributes as JSON lines"),
    ("collection:FILE", "a file of `facedex export`; some rows become the queries"),
)


def named(name: str, folder: Path, *, queries: int, tuning: int, seed: int) -> DataSet:
    """The set of that name, opened from `folder`, where it is put the first time."""
    if not (folder / stored.INDEX_FILE).exists():
        stored.save(_made(name, queries=queries, tuning=tuning, seed=seed), folder)
    return stored.opened(folder)


def _made(name: str, *, queries: int, tuning: int, seed: int) -> DataSet:
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
