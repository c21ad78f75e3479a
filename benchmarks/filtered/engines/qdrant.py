"""Qdrant, in this process (qdrant-edge): a graph with payload indexes; int8 codes as a second kind.

The payload indexes are there before the graph is built, which then gets extra links for each of
them: that is Qdrant's filterable HNSW. ACORN is a setting of the sweep.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, assert_never

import numpy as np
import qdrant_edge as q  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.filtered.engines import UnsupportedError, build_threads
from benchmarks.filtered.engines.lists import with_exact
from benchmarks.filtered.engines.plain import Plain, as_number, rows_of, simple_names
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting
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
                max_indexing_threads=build_threads(),
            ),
            quantization_config=codes if self._int8 else None,
            optimizers=q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1000),
            max_search_threads=1,
        )

    def _fill(self, shard: Any, data: DataSet) -> None:
        for name, kind in data.fields.items():
            shard.update(q.UpdateOperation.create_field_index(self._names[name], _index(kind)))
        # NULL is an attribute that is not there; but an empty list is not there either, for Qdrant.
        lists = [self._names[n] for n, kind in data.fields.items() if kind is FieldType.TAGS]
        null_lists = dict.fromkeys(lists)
        for start, batch in rows_of(data, self._names):
            vectors = data.vectors[start : start + len(batch)].tolist()
            points = [
                q.Point(row, vector, {**null_lists, **payload})
                for row, (vector, payload) in enumerate(zip(vectors, batch, strict=True), start)
            ]
            shard.update(q.UpdateOperation.upsert_points(points))
        shard.flush()
        while shard.optimize():
            pass
        shard.flush()

    def settings(self, cell: Cell) -> Sequence[Setting]:
        """Over ef, with ACORN beside it where filtered, re-scored where coded, and exact."""
        sweep: list[Setting] = []
        for ef in SWEEP:
            plain: Setting = {"ef": ef}
            sweep += [{**plain, "over": o} for o in OVERSAMPLED] if self._int8 else [plain]
            if cell.where is not None and ef >= ACORN_FROM:
                sweep.append({**plain, "acorn": 1})
        return with_exact(sweep, {"exact": 1}, cell)

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

    def _named(self, field: Field) -> Field:
        """The field under its name in the shard."""
        return Field(self._names[field.name], field.type)

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
                return _known(self._named(field), known=negated)
            case Compare(field, operator, value):
                return _compared(self._named(field), operator, as_number(bound(value)))
            case OneOf(field, values, negated):
                literals = [as_number(bound(value)) for value in values]
                return _one_of(self._named(field), literals, negated=negated)
            case Prefix(field, prefix, negated):
                return _matched(
                    self._named(field), q.MatchPrefix(str(bound(prefix))), negated=negated
                )
            case Has(field, tag, negated):
                return _matched(self._named(field), q.MatchValue(str(bound(tag))), negated=negated)
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


def _known(field: Field, *, known: bool) -> q.Filter:
    empty = q.IsNullCondition if field.type is FieldType.TAGS else q.IsEmptyCondition
    missing = [empty(field.name)]
    return q.Filter(must_not=missing) if known else q.Filter(must=missing)


def _signed(field: Field, conditions: list[Any], *, negated: bool) -> q.Filter:
    """One of the conditions, or none of them and not NULL."""
    if not negated:
        return q.Filter(should=conditions)
    return q.Filter(must=[_known(field, known=True)], must_not=conditions)


def _matched(field: Field, match_: Any, *, negated: bool) -> q.Filter:
    return _signed(field, [q.FieldCondition(field.name, match=match_)], negated=negated)


def _compared(field: Field, operator: Operator, value: Plain) -> q.Filter:
    if operator in (Operator.EQUAL, Operator.UNEQUAL):
        return _signed(field, [_equal(field, value)], negated=operator is Operator.UNEQUAL)
    if isinstance(value, str):
        raise UnsupportedError("Qdrant has no order of texts")
    range_ = q.RangeFloat(**{RANGES[operator]: float(value)})
    return q.Filter(must=[q.FieldCondition(field.name, range=range_)])


def _equal(field: Field, value: Plain) -> Any:
    if field.type is FieldType.NUMBER:
        return q.FieldCondition(field.name, range=q.RangeFloat(gte=value, lte=value))
    # A plain True is taken for the integer 1, which equals no boolean there.
    sought = np.bool_(value) if isinstance(value, bool) else value
    return q.FieldCondition(field.name, match=q.MatchValue(sought))


def _one_of(field: Field, literals: list[Plain], *, negated: bool) -> q.Filter:
    if not literals:
        nothing = q.Filter(must=[q.HasIdCondition(set())])
        return _known(field, known=True) if negated else nothing
    if field.type in (FieldType.NUMBER, FieldType.BOOLEAN):
        return _signed(field, [_equal(field, one) for one in literals], negated=negated)
    return _matched(field, q.MatchAny(literals), negated=negated)
