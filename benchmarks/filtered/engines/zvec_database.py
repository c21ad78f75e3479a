"""zvec: HNSW with inverted indexes on every field; RaBitQ codes in the graph as a second kind.

Its filters have no NOT (a negated LIKE is two ranges) and no escaped backslash; moments are
integers. It answers narrow filters by brute force over keys where its own ratio says so.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import zvec  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.filtered.engines import UnsupportedError, build_threads
from benchmarks.filtered.engines.lists import with_exact
from benchmarks.filtered.engines.plain import after, as_number, rows_of, simple_names
from benchmarks.filtered.engines.sql import Dialect, condition
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting
from retrieval.filters.literals import Literal
from retrieval.values import FieldType

LINKS: Final = 32
BUILD_CANDIDATES: Final = 200
SWEEP: Final = (10, 16, 24, 32, 48, 64, 128, 256, 512, 1024, 2048)
INDEXED: Final = "indexed"  # a file: the collection is whole
NEVER: Final = "(_ IS NULL AND _ IS NOT NULL)"
TYPES: Final = {
    FieldType.NUMBER: zvec.DataType.DOUBLE,
    FieldType.INTEGER: zvec.DataType.INT64,
    FieldType.TEXT: zvec.DataType.STRING,
    FieldType.BOOLEAN: zvec.DataType.BOOL,
    FieldType.TIMESTAMP: zvec.DataType.INT64,
    FieldType.TAGS: zvec.DataType.ARRAY_STRING,
}


def quoted(text: str) -> str:
    """A text in single quotes; a backslash cannot be written."""
    if "\\" in text:
        raise UnsupportedError("zvec's filters have no way to write a backslash")
    return "'" + text.replace("'", "\\'") + "'"


def literal(value: Literal) -> str:
    """A literal as zvec reads it."""
    plain = as_number(value)
    if isinstance(plain, str):
        return quoted(plain)
    return str(plain).lower() if isinstance(plain, bool) else repr(plain)


def begins(column: str, prefix: str) -> str:
    """LIKE where the prefix is plain, else a range."""
    if not prefix:
        return f"{column} IS NOT NULL"
    if set(prefix) & set("%_*?"):
        return f"({column} >= {quoted(prefix)} AND {column} < {quoted(after(prefix))})"
    return f"{column} LIKE {quoted(prefix + '%')}"


def begins_not(column: str, prefix: str) -> str:
    """The texts on both sides of those that begin so."""
    if not prefix:
        return f"({column} IS NULL AND {column} IS NOT NULL)"
    return f"({column} < {quoted(prefix)} OR {column} >= {quoted(after(prefix))})"


class Adapter:
    """A zvec collection."""

    def __init__(self, kind: str = "float") -> None:
        self._kind = kind
        self._collection: Any = None

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Insert the rows and build the indexes, or open the collection."""
        _begin()
        self._names = simple_names(data.fields)
        self._dialect = self._spoken()
        path = folder / "collection"
        if not (folder / INDEXED).exists():
            self._insert(data, path)
            (folder / INDEXED).touch()
        self._collection = zvec.open(str(path), zvec.CollectionOption(read_only=True))

    def _insert(self, data: DataSet, path: Path) -> None:
        fields = [
            zvec.FieldSchema(
                self._names[name],
                TYPES[kind],
                nullable=True,
                index_param=zvec.InvertIndexParam(enable_range_optimization=_ordered(kind)),
            )
            for name, kind in data.fields.items()
        ]
        dimension = data.vectors.shape[1]
        vector = zvec.VectorSchema(
            "vector", zvec.DataType.VECTOR_FP32, dimension, index_param=self._index()
        )
        schema = zvec.CollectionSchema("rows", fields=fields, vectors=[vector])
        collection = zvec.create_and_open(str(path), schema)
        for start, batch in rows_of(data, self._names):
            collection.insert(
                [
                    zvec.Doc(str(row), vectors={"vector": data.vectors[row]}, fields=attributes)
                    for row, attributes in enumerate(batch, start)
                ]
            )
        collection.optimize(zvec.OptimizeOption(concurrency=build_threads()))
        collection.flush()
        collection.close()

    def _index(self) -> Any:
        if self._kind == "rabitq":
            return zvec.HnswRabitqIndexParam(
                metric_type=zvec.MetricType.IP, m=LINKS, ef_construction=BUILD_CANDIDATES
            )
        return zvec.HnswIndexParam(
            metric_type=zvec.MetricType.IP, m=LINKS, ef_construction=BUILD_CANDIDATES
        )

    def settings(self, cell: Cell) -> Sequence[Setting]:
        """Over ef, and exact where there is a filter."""
        sweep: list[Setting] = [{"ef": ef} for ef in SWEEP]
        return with_exact(sweep, {"ef": SWEEP[-1], "linear": 1}, cell)

    def asked(self, ask: Ask) -> object:
        """The filter as text."""
        written = None if ask.filter is None else condition(ask.filter, self._dialect)
        return ask.query, written

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """Ask for ids only."""
        assert isinstance(asked, tuple)
        query, written = asked
        of_kind = zvec.HnswRabitqQueryParam if self._kind == "rabitq" else zvec.HnswQueryParam
        param = of_kind(ef=int(setting["ef"]), is_linear="linear" in setting)
        found = self._collection.query(
            zvec.Query("vector", vector=query, param=param),
            topk=count,
            filter=written,
            output_fields=[],
        )
        return np.array([int(doc.id) for doc in found], np.int64)

    def _spoken(self) -> Dialect:
        some = next(iter(self._names.values()), "c0")
        return Dialect(
            name=self._names.__getitem__,
            literal=literal,
            has=lambda column, tag: f"{column} CONTAIN_ANY ({tag})",
            begins=begins,
            unequal="!=",
            every=f"({some} IS NULL OR {some} IS NOT NULL)",
            none=NEVER.replace("_", some),
            lacks=lambda column, tag: f"{column} NOT CONTAIN_ANY ({tag})",
            begins_not=begins_not,
        )

    def close(self) -> None:
        """Close the collection."""
        if self._collection is not None:
            self._collection.close()


@functools.cache
def _begin() -> None:
    """Once in a process, which is all that zvec allows."""
    zvec.init(log_level=zvec.LogLevel.FATAL, query_threads=1, optimize_threads=build_threads())


def _ordered(kind: FieldType) -> bool:
    return kind not in (FieldType.BOOLEAN, FieldType.TAGS)
