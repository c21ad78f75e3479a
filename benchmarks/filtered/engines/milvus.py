"""Milvus Lite, by its own Python interface in this process: no server and no gRPC in the way.

HNSW with inverted indexes on scalar fields; arrays can have none there. Its NOT forgets NULL, its
LIKE has no escapes (a range of texts serves), moments are integers.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
from milvus_lite import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    CollectionSchema,
    DataType,
    FieldSchema,
    MilvusLite,
)

from benchmarks.filtered.engines import build_threads
from benchmarks.filtered.engines.plain import after, as_number, rows_of, simple_names
from benchmarks.filtered.engines.sql import Dialect, condition
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting
from retrieval.filters.literals import Literal
from retrieval.values import FieldType

LINKS: Final = 32
BUILD_CANDIDATES: Final = 100
SWEEP: Final = (10, 16, 32, 64, 128, 256, 512, 1024, 2048)
TEXT_BYTES_MAX: Final = 65_535
TAGS_MAX: Final = 4096
ROW: Final = "row"
DONE: Final = "indexed"  # a file: the collection is whole
TYPES: Final = {
    FieldType.NUMBER: DataType.DOUBLE,
    FieldType.INTEGER: DataType.INT64,
    FieldType.TEXT: DataType.VARCHAR,
    FieldType.BOOLEAN: DataType.BOOL,
    FieldType.TIMESTAMP: DataType.INT64,
    FieldType.TAGS: DataType.ARRAY,
}


def literal(value: Literal) -> str:
    """A literal as Milvus reads it."""
    plain = as_number(value)
    if isinstance(plain, str):
        return json.dumps(plain, ensure_ascii=False)
    return str(plain).lower() if isinstance(plain, bool) else repr(plain)


def begins(column: str, prefix: str) -> str:
    """LIKE where the prefix is plain, else a range."""
    if not prefix:
        return f"{column} IS NOT NULL"
    if set(prefix) & set("%_\\"):
        return f"({column} >= {literal(prefix)} and {column} < {literal(after(prefix))})"
    return f"{column} like {literal(prefix + '%')}"


class Adapter:
    """A Milvus Lite collection."""

    def __init__(self) -> None:
        self._database: Any = None

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Insert the rows and build the indexes, or load the collection."""
        faiss.omp_set_num_threads(build_threads())  # Milvus Lite builds its graphs with FAISS
        self._names = simple_names(data.fields)
        self._dialect = self._spoken()
        self._database = MilvusLite(str(folder / "milvus"))
        if not (folder / DONE).exists():
            self._insert(data)
            (folder / DONE).touch()
        faiss.omp_set_num_threads(1)
        self._collection = self._database.get_collection("rows")
        self._collection.load()

    def _insert(self, data: DataSet) -> None:
        dimension = data.vectors.shape[1]
        fields = [
            FieldSchema(name=ROW, dtype=DataType.INT64, is_primary=True),
            FieldSchema(name="vector", dtype=DataType.FLOAT_VECTOR, dim=dimension),
            *(_field(self._names[name], kind) for name, kind in data.fields.items()),
        ]
        collection = self._database.create_collection("rows", CollectionSchema(fields=fields))
        for start, batch in rows_of(data, self._names):
            collection.insert(
                [
                    {
                        **dict.fromkeys(self._names.values()),
                        **attributes,
                        ROW: row,
                        "vector": data.vectors[row].tolist(),
                    }
                    for row, attributes in enumerate(batch, start)
                ]
            )
        collection.flush()
        graph = {"M": LINKS, "efConstruction": BUILD_CANDIDATES}
        collection.create_index(
            "vector", {"index_type": "HNSW", "metric_type": "IP", "params": graph}
        )
        for name, kind in data.fields.items():
            if kind is not FieldType.TAGS:
                inverted = {"index_type": "INVERTED", "metric_type": "", "params": {}}
                collection.create_index(self._names[name], inverted)
        collection.load()

    def settings(self, cell: Cell) -> Sequence[Setting]:  # noqa: ARG002
        """Over ef."""
        return [{"ef": ef} for ef in SWEEP]

    def asked(self, ask: Ask) -> object:
        """The filter as text."""
        written = None if ask.filter is None else condition(ask.filter, self._dialect)
        return [ask.query.tolist()], written

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """Ask for ids only."""
        assert isinstance(asked, tuple)
        query, written = asked
        (found,) = self._collection.search(
            query,
            top_k=count,
            metric_type="IP",
            expr=written,
            output_fields=[],
            anns_field="vector",
            search_params={"ef": int(setting["ef"])},
        )
        return np.array([hit["id"] for hit in found], np.int64)

    def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()

    def _spoken(self) -> Dialect:
        return Dialect(
            name=self._names.__getitem__,
            literal=literal,
            has=lambda column, tag: f"array_contains({column}, {tag})",
            begins=begins,
            equal="==",
            unequal="!=",
            every=f"{ROW} >= 0",
            none=f"{ROW} < 0",
            not_null_first=True,
            in_="{} in [{}]",
            not_in="{} not in [{}]",
        )


def _field(name: str, kind: FieldType) -> FieldSchema:
    if kind is FieldType.TAGS:
        return FieldSchema(
            name=name,
            dtype=DataType.ARRAY,
            element_type=DataType.VARCHAR,
            max_capacity=TAGS_MAX,
            max_length=TEXT_BYTES_MAX,
            nullable=True,
        )
    length = TEXT_BYTES_MAX if kind is FieldType.TEXT else None
    return FieldSchema(name=name, dtype=TYPES[kind], max_length=length, nullable=True)
