"""DuckDB: exact over the rows that pass, by a scan of the columns; attributes in columns.

Its vss extension has to be downloaded, so there is no graph here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import duckdb  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np
import pyarrow as pa

from benchmarks.filtered.engines.plain import as_number, counted, simple_names
from benchmarks.filtered.engines.sql import Dialect, condition, plain_literal
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting

DONE: Final = "indexed"  # a file: the table is whole
ROW: Final = "row_number"
DIALECT_PARTS: Final[dict[str, Any]] = {
    "has": lambda column, tag: f"list_contains({column}, {tag})",
    "begins": lambda column, prefix: f"starts_with({column}, {plain_literal(prefix)})",
    "literal": lambda value: plain_literal(as_number(value)),
}


class Adapter:
    """A DuckDB table."""

    def __init__(self) -> None:
        self._connection: Any = None

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Write the table, or open it."""
        names = simple_names(data.fields)
        self._dialect = Dialect(name=names.__getitem__, **DIALECT_PARTS)
        self._dimension = data.vectors.shape[1]
        self._connection = duckdb.connect(str(folder / "rows.duckdb"), config={"threads": 1})
        if not (folder / DONE).exists():
            self._write(data, names)
            (folder / DONE).touch()

    def _write(self, data: DataSet, names: dict[str, str]) -> None:
        rows, dimension = data.vectors.shape
        flat = pa.array(np.ascontiguousarray(data.vectors).reshape(-1))
        columns = counted(data.table, names)
        table = pa.table(
            {
                ROW: pa.array(np.arange(rows)),
                "vector": pa.FixedSizeListArray.from_arrays(flat, dimension),
                **{name: columns.column(name) for name in names.values()},
            }
        )
        self._connection.register("given", table)
        self._connection.execute("CREATE OR REPLACE TABLE rows AS SELECT * FROM given")
        self._connection.unregister("given")
        self._connection.execute("CHECKPOINT")

    def settings(self, cell: Cell) -> Sequence[Setting]:  # noqa: ARG002
        """None: it is exact."""
        return [{}]

    def asked(self, ask: Ask) -> object:
        """The statement and the vector."""
        written = "" if ask.filter is None else f"WHERE {condition(ask.filter, self._dialect)}"
        statement = (
            f"SELECT {ROW} FROM rows {written}"  # noqa: S608 - our own words
            f" ORDER BY array_inner_product(vector, ?::FLOAT[{self._dimension}]) DESC LIMIT ?"
        )
        return statement, ask.query.tolist()

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:  # noqa: ARG002
        """Ask for row numbers only, on a cursor of this thread's."""
        assert isinstance(asked, tuple)
        statement, vector = asked
        found = self._connection.cursor().execute(statement, [vector, count]).fetchnumpy()
        return np.asarray(found[ROW], np.int64)

    def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            self._connection.close()
