"""The exact answers: which rows pass, which of them are nearest, and what an answer is worth.

`passing` walks the filter's tree with pyarrow and shares nothing with `retrieval.filters.evaluate`:
an oracle that calls what it judges agrees with every mistake. `exact` scores every survivor in
float32, keeps all that rounding could have kept out, and orders these in float64: by similarity
descending, then by row. Answers are stored under a hash of set, filters and queries.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers
from retrieval.filters import Filter, bind
from retrieval.filters.literals import Literal
from retrieval.filters.parse import parse
from retrieval.filters.tree import (
    And,
    Compare,
    Constant,
    Has,
    IsNull,
    OneOf,
    Operator,
    Or,
    Prefix,
    bound,
)
from retrieval.values import Floats, UnitRows, Value

Mask = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

COUNT: Final = 100
TIE: Final = 1e-6  # similarities that differ by no more are the same
NO_ROW: Final = -1
ROUNDING: Final = 1e-5  # more than a float32 product of unit vectors is ever wrong
NARROW_SHARE: Final = 0.02  # below it, gathering the survivors is cheaper than a product with all
_QUERIES_A_BLOCK: Final = 32
_ROWS_A_BLOCK: Final = 65_536
_ROWS_PRINTED: Final = 2048  # of a set's rows are part of its identity
_COMPARISONS: Final = {
    Operator.EQUAL: pc.equal,
    Operator.UNEQUAL: pc.not_equal,
    Operator.LESS: pc.less,
    Operator.AT_MOST: pc.less_equal,
    Operator.GREATER: pc.greater,
    Operator.AT_LEAST: pc.greater_equal,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """The nearest rows of some questions, best first."""

    ids: Numbers  # (q, count) rows; NO_ROW where fewer pass
    similarities: Doubles  # (q, count); NaN where there is no row
    survivors: Numbers  # (q,) how many rows pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one answer is worth."""

    recall: float | None  # None: no row passes, so there was nothing to find
    violations: int  # rows given that do not pass, or do not exist


def asks(data: DataSet, cell: Cell) -> list[Ask]:
    """The cell's questions to report on, one for each query."""
    return _asks(data, cell, data.queries, cell.parameters)


def tuning_asks(data: DataSet, cell: Cell) -> list[Ask]:
    """The cell's questions to choose settings with."""
    return _asks(data, cell, data.tuning, cell.tuning_parameters)


def passing(filter_: Filter, data: DataSet | pa.Table) -> Mask:
    """The rows for which the filter is TRUE, (rows,) bool. Always the oracle of the harness.

    Raises:
        FilterError: a parameter is not bound.
    """
    table = data.table if isinstance(data, DataSet) else data
    match filter_:
        case And(parts):
            return _joined(np.logical_and, [passing(part, table) for part in parts])
        case Or(parts):
            return _joined(np.logical_or, [passing(part, table) for part in parts])
        case Constant(value):
            return np.full(table.num_rows, value)
        case _:
            return _passing_leaf(filter_, table.column(filter_.field.name))


def exact(
    data: DataSet, questions: Sequence[Ask], *, folder: Path | None, count: int = COUNT
) -> Truth:
    """The exact answers, read from `folder` where an earlier call left them there."""
    if folder is None:
        return computed(data, questions, count=count)
    path = folder / f"{key(data, questions, count=count)}.npz"
    if path.exists():
        with np.load(path) as stored:
            return Truth(**{part: stored[part] for part in Truth.__slots__})
    truth = computed(data, questions, count=count)
    folder.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".part.npz")
    np.savez(staged, **{part: getattr(truth, part) for part in Truth.__slots__})
    staged.replace(path)
    return truth


def key(data: DataSet, questions: Sequence[Ask], *, count: int) -> str:
    """A SHA-256 over the set, every bound filter and every query, in hex."""
    said = hashlib.sha256(_identity(data))
    for ask in questions:
        said.update(repr((ask.where, sorted(ask.parameters.items()))).encode())
        said.update(ask.query.tobytes())
    said.update(f"{count}".encode())
    return said.hexdigest()


def computed(data: DataSet, questions: Sequence[Ask], *, count: int = COUNT) -> Truth:
    """The exact answers, worked out now."""
    nearest = _Nearest(data.vectors, len(questions), count=count)
    survivors = np.zeros(len(questions), np.int64)
    wide: list[tuple[int, Mask]] = []
    for filter_, places in _by_filter(questions):
        mask = np.ones(len(data.vectors), np.bool_) if filter_ is None else passing(filter_, data)
        survivors[places] = mask.sum()
        queries = np.stack([questions[place].query for place in places])
        if survivors[places[0]] <= NARROW_SHARE * len(mask):
            nearest.among(np.flatnonzero(mask), queries, places)
        elif len(places) > 1:
            nearest.of_all(queries, places, [mask] * len(places))
        else:
            wide.append((places[0], mask))
            if len(wide) == _QUERIES_A_BLOCK:
                _answer_wide(nearest, questions, wide)
    _answer_wide(nearest, questions, wide)
    return nearest.truth(np.stack([ask.query for ask in questions]), survivors)


def scored(
    found: npt.NDArray[np.integer[Any]],
    *,
    ask: Ask,
    nearest: Doubles,
    data: DataSet,
    count: int,
) -> Score:
    """What `found`, the answer to one question for `count` rows, is worth.

    A row counts that passes and is as similar as the last true neighbour, or more: ties are equal.
    Places that the engine left empty (negative) and repeats count for nothing.

    `found` are row numbers in any order, and `nearest` the question's row of `Truth.similarities`.

    Raises:
        ValueError: the truth does not reach as far as `count`.
    """
    if count > len(nearest):
        raise ValueError(f"the truth holds {len(nearest)} neighbours, not {count}")
    if len(found) > count:
        raise ValueError(f"{len(found)} rows were given where {count} were asked for")
    given = np.unique(found)
    rows = given[(given >= 0) & (given < len(data.vectors))].astype(np.int64)
    outside = int((given >= len(data.vectors)).sum())
    if ask.filter is not None:
        passed = passing(ask.filter, data.table.take(pa.array(rows)))
        outside += int((~passed).sum())
        rows = rows[passed]
    true = nearest[:count][~np.isnan(nearest[:count])]
    if not len(true):
        return Score(recall=None, violations=outside)
    similarities = data.vectors[rows].astype(np.float64) @ ask.query.astype(np.float64)
    hits = int((similarities >= true[-1] - TIE).sum())
    return Score(recall=min(hits, len(true)) / len(true), violations=outside)


def recalls(
    found: Sequence[npt.NDArray[np.integer[Any]]],
    truth: Truth,
    *,
    data: DataSet,
    questions: Sequence[Ask],
    count: int,
) -> list[Score]:
    """The score of each answer."""
    return [
        scored(answer, ask=ask, nearest=nearest, data=data, count=count)
        for answer, ask, nearest in zip(found, questions, truth.similarities, strict=True)
    ]


class _Nearest:
    """Candidates of each question: every row that could be among its nearest."""

    def __init__(self, vectors: UnitRows, questions: int, *, count: int) -> None:
        self._vectors = vectors
        self._count = count
        self._rows: list[Numbers] = [np.empty(0, np.int64) for _ in range(questions)]
        self._scores: list[Floats] = [np.empty(0, np.float32) for _ in range(questions)]

    def among(self, rows: Numbers, queries: Floats, places: Sequence[int]) -> None:
        """Score some rows for the queries in these places."""
        for start in range(0, len(rows), _ROWS_A_BLOCK):
            block = rows[start : start + _ROWS_A_BLOCK]
            products = queries @ self._vectors[block].T
            for place, scores in zip(places, products, strict=True):
                self._keep(place, block, scores)

    def of_all(self, queries: Floats, places: Sequence[int], masks: Sequence[Mask]) -> None:
        """Score all rows, and keep of each question those that pass its mask."""
        for start in range(0, len(self._vectors), _ROWS_A_BLOCK):
            products = self._products(queries, start)
            for place, scores, mask in zip(places, products, masks, strict=True):
                passed = np.flatnonzero(mask[start : start + _ROWS_A_BLOCK])
                self._keep(place, start + passed, scores[passed])

    def truth(self, queries: Floats, survivors: Numbers) -> Truth:
        """Order the candidates by their similarity in float64."""
        shape = (len(queries), self._count)
        ids, similarities = np.full(shape, NO_ROW, np.int64), np.full(shape, np.nan)
        for place, rows in enumerate(self._rows):
            exactly = self._vectors[rows].astype(np.float64) @ queries[place].astype(np.float64)
            order = np.lexsort((rows, -exactly))[: self._count]
            ids[place, : len(order)] = rows[order]
            similarities[place, : len(order)] = exactly[order]
        return Truth(ids=ids, similarities=similarities, survivors=survivors)

    def _products(self, queries: Floats, start: int) -> Floats:
        block = self._vectors[start : start + _ROWS_A_BLOCK]
        parts = range(0, len(queries), _QUERIES_A_BLOCK)
        return np.concatenate([queries[p : p + _QUERIES_A_BLOCK] @ block.T for p in parts])

    def _keep(self, place: int, rows: Numbers, scores: Floats) -> None:
        """Drop what lies below the last place by more than rounding explains."""
        if len(self._rows[place]) >= self._count:
            able = scores >= self._last(self._scores[place]) - ROUNDING
            rows, scores = rows[able], scores[able]
        rows = np.concatenate((self._rows[place], rows))
        scores = np.concatenate((self._scores[place], scores))
        if len(rows) > self._count:
            able = scores >= self._last(scores) - ROUNDING
            rows, scores = rows[able], scores[able]
        self._rows[place], self._scores[place] = rows, scores

    def _last(self, scores: Floats) -> float:
        return float(np.partition(scores, -self._count)[-self._count])


def _answer_wide(nearest: _Nearest, questions: Sequence[Ask], wide: list[tuple[int, Mask]]) -> None:
    """Answer the questions that many rows pass, each by its own mask, and forget them."""
    if wide:
        queries = np.stack([questions[place].query for place, _ in wide])
        nearest.of_all(queries, [place for place, _ in wide], [mask for _, mask in wide])
        wide.clear()


def _by_filter(questions: Sequence[Ask]) -> Iterator[tuple[Filter | None, list[int]]]:
    """The places of the questions that share a filter, at most a block of them at a time."""
    places: dict[Filter | None, list[int]] = {}
    for place, ask in enumerate(questions):
        places.setdefault(ask.filter, []).append(place)
    for filter_, all_ in places.items():
        for start in range(0, len(all_), 8 * _QUERIES_A_BLOCK):
            yield filter_, all_[start : start + 8 * _QUERIES_A_BLOCK]


def _asks(
    data: DataSet, cell: Cell, queries: UnitRows, parameters: Sequence[Mapping[str, Value]]
) -> list[Ask]:
    template = None if cell.where is None else parse(cell.where, data.fields)
    return [
        Ask(
            query=query,
            where=cell.where,
            parameters=given,
            filter=None if template is None else bind(template, given),
        )
        for query, given in zip(queries, parameters, strict=True)
    ]


def _identity(data: DataSet) -> bytes:
    """Name, shape, and up to 2048 rows with their attributes, spread over the set."""
    rows = np.linspace(0, len(data.vectors) - 1, _ROWS_PRINTED).astype(np.int64)
    rows = np.unique(rows)
    said = hashlib.sha256(f"{data.name} {data.vectors.shape}".encode())
    said.update(np.ascontiguousarray(data.vectors[rows]).tobytes())
    sink = io.BytesIO()
    table = data.table.take(pa.array(rows)).combine_chunks()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    said.update(sink.getvalue())
    return said.digest()


def _passing_leaf(leaf: Compare | OneOf | IsNull | Prefix | Has, column: pa.ChunkedArray) -> Mask:
    match leaf:
        case Compare(_, operator, value):
            return _true(_COMPARISONS[operator](column, _scalar(bound(value), column.type)))
        case OneOf(_, values, negated):
            return _one_of(column, [bound(value) for value in values], negated=negated)
        case IsNull(_, negated):
            return _true(pc.is_valid(column) if negated else pc.is_null(column))
        case Prefix(_, prefix, negated):
            begins = pc.starts_with(column, str(bound(prefix)))
            return _true(pc.invert(begins) if negated else begins)
        case Has(_, tag, negated):
            return _has(column, str(bound(tag)), negated=negated)
        case _:
            assert_never(leaf)


def _joined(operation: np.ufunc, masks: Sequence[Mask]) -> Mask:
    joined: Mask = operation.reduce(masks)
    return joined


def _true(flags: pa.ChunkedArray) -> Mask:
    """NULL is not TRUE."""
    mask: Mask = pc.fill_null(flags, fill_value=False).to_numpy()
    return mask


def _scalar(value: Literal, type_: pa.DataType) -> pa.Scalar:
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return pa.scalar(value, type_)


def _one_of(column: pa.ChunkedArray, values: Sequence[Literal], *, negated: bool) -> Mask:
    known = _true(pc.is_valid(column))
    if pa.types.is_floating(column.type):
        # One by one: Arrow's hash tables tell -0.0 from 0.0, SQL does not.
        equal = np.zeros(len(column), np.bool_)
        for value in values:
            equal |= _true(pc.equal(column, _scalar(value, column.type)))
    else:
        sought = pa.array([_scalar(value, column.type).as_py() for value in values], column.type)
        equal = _true(pc.is_in(column, value_set=sought, skip_nulls=True))
    return known & ~equal if negated else equal


def _has(column: pa.ChunkedArray, tag: str, *, negated: bool) -> Mask:
    mask = np.zeros(len(column), np.bool_)
    parents = pc.list_parent_indices(column)
    with_it = pc.equal(pc.list_flatten(column), tag)
    mask[parents.filter(with_it).to_numpy()] = True
    return _true(pc.is_valid(column)) & ~mask if negated else mask
