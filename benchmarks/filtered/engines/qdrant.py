"""Qdrant, in this process (qdrant-edge): a graph with payload indexes; int8 codes as a second kind.

The payload indexes are there before the graph is built, which then gets extra links for each of
them: that is Qdrant's filterable HNSW. ACORN is a setting of the sweep.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, assert_never

import numpy as np
import qdrant_edge as q

from benchmarks.filtered.engines.plain import rows_of, simple_names
from benchmarks.filtered.engines.plain import as_number
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting
from retrieval.filters.literals import Literal
from retrieval.filters.tree import (
    And,
    Compare,
    Constant,
    Field,
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
from retrieval.values import FieldType
from benchmarks.filtered.engines import UnsupportedError

LINKS: Final = 16
BUILD_CANDIDATES: Final = 128
FULL_SCAN_KILOBYTES: Final = 10_000  # Qdrant's own: below, it scans the survivors
SWEEP: Final = (10, 16, 32, 64, 128, 256, 512, 1024)
ACORN_FROM: Final = 32
OVERSAMPLED: Final = (1.5, 4.0)
DONE: Final = "indexed"  # a file: the shard is whole
RANGES: Final = {
    Operator.LESS: "lt",
    Operator.AT_MOST: "lte",
    Operator.GREATER: "gt",
    Operator.AT_LEAST: "gte",
}


class Adapter:
    """A shard of Qdrant Edge."""

    def __init__(self, kind: str = "float") -> None:
        self._int8 = kind == "int8"
        self._shard: Any = None

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Insert, index the payload, then build the graph; or load the shard."""
        self._names = simple_names(data.fields)
        self._path = folder / "shard"
        config = self._config(data.vectors.shape[1])
        if not (folder / DONE).exists():
            self._path.mkdir(parents=True)
            shard = q.EdgeShard.create(str(self._path), config)
            self._fill(shard, data)
            shard.close()
            (folder / DONE).touch()
        self._shard = q.EdgeShard.load(str(self._path), config)

    def _config(self, dimension: int) -> q.EdgeConfig:
        codes = q.ScalarQuantizationConfig(type=q.ScalarType.Int8, quantile=0.99, always_ram=True)
        return q.EdgeConfig(
            vectors=q.EdgeVectorParams(size=dimension, distance=q.Distance.Dot),
            hnsw_config=q.HnswIndexConfig(
                m=LINKS,
                ef_construct=BUILD_CANDIDATES,
                full_scan_threshold=FULL_SCAN_KILOBYTES,
                max_indexing_threads=1,
            ),
            quantization_config=codes if self._int8 else None,
            optimizers=q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1000),
            max_search_threads=1,
        )

    def _fill(self, shard: Any, data: DataSet) -> None:
        for name, kind in data.fields.items():
            shard.update(q.UpdateOperation.create_field_index(self._names[name], _index(kind)))
        for start, batch in rows_of(data, self._names):
            vectors = data.vectors[start : start + len(batch)].tolist()
            points = [
                q.Point(row, vector, payload)
                for row, (vector, payload) in enumerate(zip(vectors, batch, strict=True), start)
            ]
            shard.update(q.UpdateOperation.upsert_points(points))
        shard.flush()
        while shard.optimize():
            pass
        shard.flush()

    def settings(self, cell: Cell) -> Sequence[Setting]:
        """Over ef, with ACORN beside it where filtered, re-scored where coded; exact at last."""
        sweep: list[Setting] = []
        for ef in SWEEP:
            plain: Setting = {"ef": ef}
            sweep += [{**plain, "over": o} for o in OVERSAMPLED] if self._int8 else [plain]
            if cell.where is not None and ef >= ACORN_FROM:
                sweep.append({**plain, "acorn": 1})
        return [*sweep, {"exact": 1}]

    def asked(self, ask: Ask) -> object:
        """Query and filter as Qdrant's objects."""
        written = None if ask.filter is None else self._filter(ask.filter)
        return q.Query.Nearest(ask.query.tolist()), written

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """Ask for ids only."""
        assert isinstance(asked, tuple)
        query, written = asked
        codes = None
        if "over" in setting:
            codes = q.QuantizationSearchParams(rescore=True, oversampling=float(setting["over"]))
        acorn = q.AcornSearchParams(enable=True) if "acorn" in setting else None
        params = q.SearchParams(
            hnsw_ef=int(setting["ef"]) if "ef" in setting else None,
            exact="exact" in setting,
            quantization=codes,
            acorn=acorn,
        )
        request = q.SearchRequest(
            query=query,
            limit=count,
            filter=written,
            params=params,
            with_vector=False,
            with_payload=False,
        )
        return np.array([point.id for point in self._shard.search(request)], np.int64)

    def close(self) -> None:
        """Close the shard."""
        if self._shard is not None:
            self._shard.close()

    def _filter(self, filter_: Filter) -> q.Filter:
        match filter_:
            case And(parts):
                return q.Filter(must=[self._filter(part) for part in parts])
            case Or(parts):
                return q.Filter(should=[self._filter(part) for part in parts])
            case _:
                return self._leaf(filter_)

    def _leaf(self, leaf: Leaf) -> q.Filter:
        match leaf:
            case Constant(value):
                nothing = q.HasIdCondition(set())
                return q.Filter(must_not=[nothing]) if value else q.Filter(must=[nothing])
            case IsNull(field, negated):
                return _known(self._names[field.name], known=negated)
            case Compare(field, operator, value):
                return _compared(self._names[field.name], field.type, operator, bound(value))
            case OneOf(field, values, negated):
                literals = [as_number(bound(value)) for value in values]
                return _one_of(self._names[field.name], field, literals, negated=negated)
            case Prefix(field, prefix, negated):
                match_ = q.MatchPrefix(str(bound(prefix)))
                return _signed(self._names[field.name], match_, negated=negated)
            case Has(field, tag, negated):
                match_ = q.MatchValue(str(bound(tag)))
                return _signed(self._names[field.name], match_, negated=negated)
            case _:
                assert_never(leaf)


def _index(kind: FieldType) -> Any:
    match kind:
        case FieldType.NUMBER:
            return q.FloatIndexParams()
        case FieldType.INTEGER | FieldType.TIMESTAMP:
            return q.IntegerIndexParams(lookup=True, range=True)
        case FieldType.BOOLEAN:
            return q.BoolIndexParams()
        case FieldType.TEXT:
            return q.KeywordIndexParams(prefix=True)
        case FieldType.TAGS:
            return q.KeywordIndexParams()
        case _:
            assert_never(kind)


def _known(key: str, *, known: bool) -> q.Filter:
    # NULL is an attribute that is not there.
    missing = [q.IsEmptyCondition(key)]
    return q.Filter(must_not=missing) if known else q.Filter(must=missing)


def _signed(key: str, match_: Any, *, negated: bool) -> q.Filter:
    condition = q.FieldCondition(key, match=match_)
    if not negated:
        return q.Filter(must=[condition])
    return q.Filter(must=[_known(key, known=True)], must_not=[condition])


def _compared(key: str, kind: FieldType, operator: Operator, value: Literal) -> q.Filter:
    literal = as_number(value)
    if operator in (Operator.EQUAL, Operator.UNEQUAL):
        negated = operator is Operator.UNEQUAL
        if kind is FieldType.NUMBER:
            range_ = q.RangeFloat(gte=float(literal), lte=float(literal))
            condition = q.FieldCondition(key, range=range_)
            if not negated:
                return q.Filter(must=[condition])
            return q.Filter(must=[_known(key, known=True)], must_not=[condition])
        return _signed(key, q.MatchValue(literal), negated=negated)
    if isinstance(literal, str):
        raise UnsupportedError("Qdrant has no order of texts")
    range_ = q.RangeFloat(**{RANGES[operator]: float(literal)})
    return q.Filter(must=[q.FieldCondition(key, range=range_)])


def _one_of(key: str, field: Field, literals: list[Literal], *, negated: bool) -> q.Filter:
    if not literals:
        nothing = q.Filter(must=[q.HasIdCondition(set())])
        return _known(key, known=True) if negated else nothing
    if field.type in (FieldType.NUMBER, FieldType.BOOLEAN):
        each = [_compared(key, field.type, Operator.EQUAL, one) for one in literals]
        if not negated:
            return q.Filter(should=each)
        return q.Filter(must=[_known(key, known=True)], must_not=each)
    return _signed(key, q.MatchAny(literals), negated=negated)
