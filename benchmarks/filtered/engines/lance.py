"""LanceDB: a graph over int8 codes, or whole vectors in inverted lists.

Filters run first (`prefilter`), over a scalar index for each field. `refine_factor` re-scores with
the whole vectors. The table is opened once; Python's part of a query is LanceDB's own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import lancedb  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.filtered.engines.lists import doubling, lists_for, with_exact
from benchmarks.filtered.engines.plain import as_number, counted, simple_names
from benchmarks.filtered.engines.sql import Dialect, condition, plain_literal
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting
from retrieval.values import FieldType

GRAPH: Final = "IVF_HNSW_SQ"
BUILD_CANDIDATES: Final = 150
LINKS: Final = 32
WIDTHS: Final = (16, 32, 64, 128, 256, 512, 1024)
REFINED: Final = (2, 8)
ROW: Final = "row"
DONE: Final = "indexed"  # a file: the table is whole
DISTINCT_IN_BITMAP_MAX: Final = 1000
DIALECT_PARTS: Final[dict[str, Any]] = {
    "has": lambda column, tag: f"array_has({column}, {tag})",
    "begins": lambda column, prefix: f"starts_with({column}, {plain_literal(prefix)})",
    "literal": lambda value: plain_literal(as_number(value)),
}


class Adapter:
    """A LanceDB table."""

    def __init__(self, kind: str = GRAPH) -> None:
        self._kind = kind
        self._table: Any = None

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Write the table and its indexes, or open it."""
        names = simple_names(data.fields)
        self._dialect = Dialect(name=names.__getitem__, **DIALECT_PARTS)
        self._lists = 1 if self._kind == GRAPH else lists_for(len(data.vectors))
        database = lancedb.connect(str(folder / "lance"))
        if not (folder / DONE).exists():
            self._write(database, data, names)
            (folder / DONE).touch()
        self._table = database.open_table("rows")

    def _write(self, database: Any, data: DataSet, names: dict[str, str]) -> None:
        rows, dimension = data.vectors.shape
        flat = pa.array(np.ascontiguousarray(data.vectors).reshape(-1))
        columns = counted(data.table, names)
        written = {
            ROW: pa.array(np.arange(rows)),
            "vector": pa.FixedSizeListArray.from_arrays(flat, dimension),
            **{name: columns.column(name) for name in names.values()},
        }
        table = database.create_table("rows", pa.table(written), mode="overwrite")
        graph = {"m": LINKS, "ef_construction": BUILD_CANDIDATES} if self._kind == GRAPH else {}
        # Rows are of unit length: the dot product orders them as the cosine does.
        table.create_index(
            metric="dot", num_partitions=self._lists, index_type=self._kind, replace=True, **graph
        )
        for name, kind in data.fields.items():
            table.create_scalar_index(
                names[name], index_type=_index(kind, columns.column(names[name]))
            )

    def settings(self, cell: Cell) -> Sequence[Setting]:
        """Over ef with re-scoring or over the lists, and exact where there is a filter."""
        sweep: list[Setting] = [{"nprobe": lists} for lists in doubling(1, self._lists)]
        if self._kind == GRAPH:
            sweep = [{"ef": ef, "refined": times} for ef in WIDTHS for times in REFINED]
        return with_exact(sweep, {"exact": 1}, cell)

    def asked(self, ask: Ask) -> object:
        """The filter as text."""
        written = None if ask.filter is None else condition(ask.filter, self._dialect)
        return ask.query, written

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """Ask for row numbers only."""
        assert isinstance(asked, tuple)
        query, written = asked
        search = self._table.search(query, vector_column_name="vector").distance_type("dot")
        if written is not None:
            search = search.where(written, prefilter=True)
        if "exact" in setting:
            search = search.bypass_vector_index()
        elif self._kind == GRAPH:
            times = int(setting["refined"])
            # What is refined has to fit into the width.
            search = search.nprobes(self._lists).ef(max(int(setting["ef"]), count * times))
            search = search.refine_factor(times)
        else:
            search = search.nprobes(int(setting["nprobe"]))
        found = search.select([ROW]).limit(count).to_arrow()
        return np.asarray(found.column(ROW).to_numpy(), np.int64)

    def close(self) -> None:
        """Let the table go."""
        self._table = None


def _index(kind: FieldType, column: pa.ChunkedArray) -> str:
    if kind is FieldType.TAGS:
        return "LABEL_LIST"
    few = kind is FieldType.BOOLEAN or (
        kind is FieldType.TEXT and pc.count_distinct(column).as_py() <= DISTINCT_IN_BITMAP_MAX
    )
    return "BITMAP" if few else "BTREE"
