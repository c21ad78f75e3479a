"""Chroma, in this process: a graph, and metadata in SQLite.

Chroma has no NULL: a boolean beside each field says whether it is there. It compares no texts by
order or beginning. The
width of the search is part of the collection, and is read when a client opens it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, assert_never

import chromadb  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np
from chromadb.api.shared_system_client import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    SharedSystemClient,
)
from chromadb.config import Settings  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.filtered.engines import UnsupportedError
from benchmarks.filtered.engines.plain import Plain, as_number, rows_of, simple_names
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting
from retrieval.filters.tree import (
    And,
    Compare,
    Constant,
    Filter,
    Has,
    IsNull,
    Leaf,
    OneOf,
    Operator,
    Or,
    Prefix,
    bound,
)

Where = Mapping[str, Any]

LINKS: Final = 32
BUILD_CANDIDATES: Final = 100
SWEEP: Final = (10, 16, 32, 64, 128, 256, 512, 1024)
DONE: Final = "indexed"  # a file: the collection is whole
ROW: Final = "row"
EVERY: Final[Where] = {ROW: {"$gte": 0}}
NONE: Final[Where] = {ROW: {"$lt": 0}}
COMPARISONS: Final = {
    Operator.EQUAL: "$eq",
    Operator.UNEQUAL: "$ne",
    Operator.LESS: "$lt",
    Operator.AT_MOST: "$lte",
    Operator.GREATER: "$gt",
    Operator.AT_LEAST: "$gte",
}


class Adapter:
    """A Chroma collection."""

    def __init__(self) -> None:
        self._collection: Any = None
        self._ef = 0

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Add the rows, or open the collection."""
        self._names = simple_names(data.fields)
        self._path = str(folder / "chroma")
        client = _client(self._path)
        if (folder / DONE).exists():
            self._collection = client.get_collection("rows", embedding_function=None)
            return
        graph = {
            "space": "ip",
            "max_neighbors": LINKS,
            "ef_construction": BUILD_CANDIDATES,
            "ef_search": SWEEP[0],
            "num_threads": 1,  # it is kept, for searches as for the build
        }
        self._collection = client.create_collection(
            "rows", embedding_function=None, configuration={"hnsw": graph}
        )
        for start, batch in rows_of(data, self._names):
            self._collection.add(
                ids=[str(row) for row in range(start, start + len(batch))],
                embeddings=data.vectors[start : start + len(batch)],
                metadatas=[self._written(row, one) for row, one in enumerate(batch, start)],
            )
        (folder / DONE).touch()

    def _written(self, row: int, attributes: Mapping[str, Any]) -> dict[str, Any]:
        there = {_there(name): name in attributes for name in self._names.values()}
        # An empty list cannot be stored; what it has is right all the same.
        return {ROW: row, **there, **{k: v for k, v in attributes.items() if v != []}}

    def settings(self, cell: Cell) -> Sequence[Setting]:  # noqa: ARG002
        """Over ef."""
        return [{"ef": ef} for ef in SWEEP]

    def asked(self, ask: Ask) -> object:
        """The filter as Chroma's dict."""
        written = None if ask.filter is None else self._where(ask.filter)
        return ask.query[None], written

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """Ask for ids only."""
        assert isinstance(asked, tuple)
        query, written = asked
        if self._ef != setting["ef"]:
            self._widen(int(setting["ef"]))
        found = self._collection.query(
            query_embeddings=query, n_results=count, where=written, include=[]
        )
        return np.array(found["ids"][0], np.int64)

    def _widen(self, ef: int) -> None:
        """Set the width of the search, which only a client that opens the collection anew takes."""
        self._collection.modify(configuration={"hnsw": {"ef_search": ef}})
        SharedSystemClient.clear_system_cache()
        self._collection = _client(self._path).get_collection("rows", embedding_function=None)
        self._ef = ef

    def close(self) -> None:
        """Let the collection go."""
        self._collection = None

    def _where(self, filter_: Filter) -> Where:
        match filter_:
            case And(parts):
                return {"$and": [self._where(part) for part in parts]}
            case Or(parts):
                return {"$or": [self._where(part) for part in parts]}
            case _:
                return self._leaf(filter_)

    def _leaf(self, leaf: Leaf) -> Where:
        match leaf:
            case Constant(value):
                return EVERY if value else NONE
            case IsNull(field, negated):
                return {_there(self._names[field.name]): negated}
            case Compare(field, operator, value):
                return _compared(self._names[field.name], operator, as_number(bound(value)))
            case OneOf(field, values, negated):
                literals = [as_number(bound(value)) for value in values]
                return _one_of(self._names[field.name], literals, negated=negated)
            case Prefix():
                raise UnsupportedError("Chroma compares no beginnings of texts")
            case Has(field, tag, negated):
                name, sign = self._names[field.name], "$not_contains" if negated else "$contains"
                has = {name: {sign: str(bound(tag))}}
                return {"$and": [{_there(name): True}, has]} if negated else has
            case _:
                assert_never(leaf)


def _client(path: str) -> Any:
    return chromadb.PersistentClient(path, settings=Settings(anonymized_telemetry=False))


def _there(name: str) -> str:
    return f"{name}_there"


def _compared(name: str, operator: Operator, value: Plain) -> Where:
    equality = operator in (Operator.EQUAL, Operator.UNEQUAL)
    if isinstance(value, str) and not equality:
        raise UnsupportedError("Chroma has no order of texts")
    written = {name: {COMPARISONS[operator]: value}}
    if operator is Operator.UNEQUAL:
        return {"$and": [{_there(name): True}, written]}
    return written


def _one_of(name: str, literals: list[Plain], *, negated: bool) -> Where:
    if not literals:
        return {_there(name): True} if negated else NONE
    if negated:
        return {"$and": [{_there(name): True}, {name: {"$nin": literals}}]}
    return {name: {"$in": literals}}
