"""Answers as files: tables as Parquet and CSV, figures as JSON; the same answer, the same bytes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from indexer.bulk.files import whole
from retrieval.errors import UsageError

FIGURES: Final = "figures.json"


def write_answer(
    folder: Path,
    tables: Mapping[str, pa.Table],
    figures: Mapping[str, Any],
    *,
    as_csv: Sequence[str] = (),
) -> None:
    """Write NAME.parquet for each table, NAME.csv for some, and figures.json.

    Raises:
        UsageError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise UsageError(f"{folder} cannot be made: {cause.strerror}") from cause
    for name, table in tables.items():
        with whole(folder / f"{name}.parquet") as staged:
            pq.write_table(table, staged)
        if name in as_csv:
            with whole(folder / f"{name}.csv") as staged:
                pc.write_csv(table, staged)
    with whole(folder / FIGURES) as staged:
        staged.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
