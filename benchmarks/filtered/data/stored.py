"""A data set as a folder, so that each process of a run opens it and shares its pages.

Three arrays in float32 and three Parquet files. `save` is done when `set.json` is there.
"""

import json
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from benchmarks.filtered.data.making import as_fields
from benchmarks.filtered.values import DataSet
from retrieval.errors import UsageError
from retrieval.values import UnitRows

INDEX_FILE: Final = "set.json"
_VECTORS: Final = ("vectors", "queries", "tuning")
_TABLES: Final = ("table", "query_table", "tuning_table")


def save(data: DataSet, folder: Path) -> None:
    """Write the set into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in _VECTORS:
        np.save(folder / f"{part}.npy", getattr(data, part))
    for part in _TABLES:
        pq.write_table(getattr(data, part), folder / f"{part}.parquet")
    (folder / INDEX_FILE).write_text(json.dumps({"name": data.name}), encoding="utf-8")


def opened(folder: Path) -> DataSet:
    """The set that was saved; vectors are mapped, read-only.

    Raises:
        UsageError: no set was saved here.
    """
    try:
        name = str(json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))["name"])
        vectors = [np.load(folder / f"{part}.npy", mmap_mode="r") for part in _VECTORS]
        tables = [as_fields(pq.read_table(folder / f"{part}.parquet")) for part in _TABLES]
    except (OSError, ValueError, KeyError) as cause:
        raise UsageError(f"{folder} holds no whole data set ({cause})") from cause
    rows, queries, tuning = (UnitRows(np.asarray(array)) for array in vectors)
    return DataSet(
        name=name,
        vectors=rows,
        table=tables[0],
        queries=queries,
        query_table=tables[1],
        tuning=tuning,
        tuning_table=tables[2],
    )
