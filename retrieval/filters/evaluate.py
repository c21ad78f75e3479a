"""The rows of columns in memory that pass a filter.

Agrees with PostgreSQL row for row (tests/integration/test_filters_agree_with_postgresql.py).
Each leaf is first resolved to ranges of codes or to a tag, whose number of rows is known at once;
leaves on one column become one (BETWEEN is two comparisons). Then the rows are found:

* AND whose rarest part has few rows looks only at these, and tests the other parts row by row;
* everything else is bitmaps, each leaf one pass over a byte a row, joined four at a time.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import SnapshotUnusableError
from retrieval.filters.column import (
    Bounds,
    Column,
    ScalarColumn,
    TagsColumn,
    microseconds,
)
from retrieval.filters.columns import Columns
from retrieval.filters.kept import KeptSets
from retrieval.filters.literals import Literal
from retrieval.filters.rows import (
    RowNumbers,
    RowSet,
    first,
    intersection,
    read_only,
    scattered,
    sound,
    union,
    words_for,
)
from retrieval.filters.tree import (
    And,
    Compare,
    Constant,
    Field,
    Filter,
    Has,
    IsNull,
    OneOf,
    Operator,
    Or,
    Prefix,
    bound,
)
from retrieval.kernels import bits
from retrieval.values import FieldType

SORTED_ROWS_MAX: Final = 4_096  # more rows are put in order by a bitmap sooner than by a sort,
SORTED_SHARE: Final = 1_024  # unless one row in so many is: then clearing the bitmap costs more
SCATTER_SHARE: Final = (
    32  # one row in so many is found by setting single bits sooner than by a scan
)
PLACED_ONE_BY_ONE_MAX: Final = 16  # more numbers are looked up sooner by one call of numpy
ONE_RANGE: Final = 2  # bounds
POINTWISE_SHARE: Final = 64  # of one row in so many, single codes are read sooner than all
KEPT_ROWS_MIN: Final = 2**17  # a scan of fewer rows costs hardly more than to ask if it was kept


Join = Callable[[Bounds, Bounds], Bounds]
Listed = tuple[RowNumbers, bool]  # rows, each once, and whether they ascend
_COUNT: Final = attrgetter("count")


@dataclass(slots=True, eq=False)
class Ranges:
    """Rows whose code of one column lies in some ranges."""

    name: str
    column: ScalarColumn
    bounds: Bounds
    kept: KeptSets
    count: int  # exact

    def listed(self) -> Listed | None:
        """The rows by code, if the column has them so, and whether they ascend."""
        column, bounds = self.column, self.bounds
        if not len(column.order):
            return None
        start = column.starts.item
        if len(bounds) == ONE_RANGE:
            low, high = bounds
            return column.order[start(low) : start(high)], high - low == 1
        pieces = [column.order[start(low) : start(high)] for low, high in _pairs(bounds)]
        return read_only(np.concatenate([column.order[:0], *pieces])), False

    def keep(self, rows: RowNumbers) -> RowNumbers:
        """Those of the rows that are in the ranges."""
        kept = np.empty(len(rows), np.int32)
        if len(self.bounds) == ONE_RANGE:
            low, high = self.bounds
            count = bits.keep_in_range(rows, self.column.codes, low, high, kept)
        else:
            count = bits.keep_in_ranges(rows, self.column.codes, _array(self.bounds), kept)
        return first(kept, count)

    def found(self) -> RowSet:
        """All rows in the ranges."""
        count, size = self.count, self.column.rows
        if count == 0:
            return RowSet.none(size)
        if count == size:
            return RowSet.all(size)
        if count * SCATTER_SHARE <= size and (listed := self.listed()):
            return in_order(*listed, size=size)
        if size < KEPT_ROWS_MIN:
            return self._scanned()
        key = (self.name, self.bounds)
        rows = self.kept.get(key)
        if rows is None:
            rows = self._scanned()
            self.kept.offer(key, rows)
        return rows

    def _scanned(self) -> RowSet:
        column = self.column
        words = np.empty(words_for(column.rows), np.uint64)
        held = (column.scanned, column.firsts, column.starts, column.order)
        if len(self.bounds) == ONE_RANGE:
            low, high = self.bounds
            sound(bits.range_bits(*held, low, high, words))
        else:
            sound(bits.ranges_bits(*held, _array(self.bounds), words))
        return RowSet(column.rows, self.count, None, read_only(words))


@dataclass(slots=True, eq=False)
class Lacks:
    """Rows whose list of tags is known and does not hold one tag."""

    column: TagsColumn
    having: RowSet
    count: int  # at least as many as there are

    def listed(self) -> Listed | None:
        """Such rows are many."""
        return None

    def keep(self, rows: RowNumbers) -> RowNumbers:
        """Those of the rows that lack the tag."""
        kept = np.empty(len(rows), np.int32)
        known = first(kept, bits.keep_in_bits(rows, self.column.known, 1, kept))
        return self.having.drop(known)

    def found(self) -> RowSet:
        """All rows that lack the tag."""
        column = self.column
        return _without(RowSet.of_bitmap(column.known, size=column.rows), self.having)


# A part of a filter, resolved for some columns: rows that are known already, or how to find them.
Term = RowSet | Ranges | Lacks


def evaluate(filter_: Filter, columns: Columns) -> RowSet:
    """The rows for which the filter is TRUE.

    Raises:
        FilterError: a parameter is not bound.
        SnapshotUnusableError: the columns were made before one of the fields was declared, or
            they are damaged.
    """
    return _found(_term(filter_, columns))


def in_order(rows: RowNumbers, ascending: bool, *, size: int) -> RowSet:  # noqa: FBT001
    """The set of rows, each once, which may be in any order."""
    if not ascending:
        if len(rows) > max(SORTED_ROWS_MAX, size // SORTED_SHARE):
            return RowSet(size, len(rows), None, scattered(rows, size=size))
        rows = read_only(np.sort(rows))
    return RowSet(size, len(rows), rows, None)


def _term(filter_: Filter, columns: Columns) -> Term:
    if isinstance(filter_, And):
        return _all_of(_joined(filter_.parts, columns, join=_common), columns.rows)
    if isinstance(filter_, Or):
        return _any_of(_joined(filter_.parts, columns, join=_either))
    if isinstance(filter_, Constant):
        size = columns.rows
        return RowSet.all(size) if filter_.value else RowSet.none(size)
    column = _column(filter_.field, columns)
    if isinstance(column, TagsColumn):
        return _tags_leaf(filter_, column)
    return _ranges(filter_.field.name, column, _bounds(filter_, column), columns)


def _found(term: Term) -> RowSet:
    return term if isinstance(term, RowSet) else term.found()


def _joined(parts: tuple[Filter, ...], columns: Columns, *, join: Join) -> list[Term]:
    """The terms of the parts, those on one column made into one."""
    terms: list[Term] = []
    ranges: dict[str, Bounds] = {}
    for part in parts:
        if isinstance(part, (And, Or, Constant)):
            terms.append(_term(part, columns))
            continue
        column = _column(part.field, columns)
        if isinstance(column, TagsColumn):
            terms.append(_tags_leaf(part, column))
            continue
        name, bounds = part.field.name, _bounds(part, column)
        ranges[name] = join(ranges[name], bounds) if name in ranges else bounds
    for name, bounds in ranges.items():
        terms.append(_ranges(name, columns.by_name[name], bounds, columns))
    return terms


def _all_of(terms: list[Term], size: int) -> Term:
    if len(terms) == 1:
        return terms[0]
    terms.sort(key=_COUNT)
    rarest = terms[0]
    if rarest.count == 0:
        return RowSet.none(size)
    if rarest.count * POINTWISE_SHARE <= size and (listed := rarest.listed()):
        rows, ascending = listed
        for term in terms[1:]:
            rows = term.keep(rows)
        return in_order(rows, ascending, size=size)
    return intersection([_found(term) for term in terms])


def _any_of(terms: list[Term]) -> Term:
    return terms[0] if len(terms) == 1 else union([_found(term) for term in terms])


def _column(field: Field, columns: Columns) -> Column:
    if columns.fields.get(field.name) is not field.type:
        raise SnapshotUnusableError(
            f'the index has no column "{field.name}" of type {field.type} yet. '
            "Run `facedex index build`"
        )
    return columns.by_name[field.name]


def _ranges(name: str, column: Any, bounds: Bounds, columns: Columns) -> Ranges:
    return Ranges(name, column, bounds, columns.kept, column.count(bounds))


def _tags_leaf(leaf: Any, column: TagsColumn) -> Term:
    if isinstance(leaf, Has):
        rows = column.rows_with(str(bound(leaf.tag)))
        return Lacks(column, rows, column.rows - rows.count) if leaf.negated else rows
    if not isinstance(leaf, IsNull):
        raise TypeError(f"{type(leaf).__name__} does not apply to tags")
    known = RowSet.of_bitmap(column.known, size=column.rows)
    return known if leaf.negated else _without(RowSet.all(column.rows), known)


def _without(every: RowSet, some: RowSet) -> RowSet:
    """The rows of a bitmap without some of its rows."""
    words = read_only(np.bitwise_xor(every.bitmap(), some.bitmap()))
    return RowSet(every.size, every.count - some.count, None, words)


def _bounds(leaf: Any, column: ScalarColumn) -> Bounds:
    """The codes of the values for which a leaf is TRUE: NULL, the code 0, only where IS NULL."""
    if isinstance(leaf, Compare):
        return _compared(leaf, column)
    match leaf:
        case IsNull(_, negated):
            return _range(1, column.code_count) if negated else (0, 1)
        case OneOf(_, values, negated):
            found = _equal_to_any(column, [bound(value) for value in values])
        case Prefix(_, prefix, negated):
            found = _beginning_with(column, str(bound(prefix)))
        case _:
            raise TypeError(f"{type(leaf).__name__} applies to tags alone")
    return _others(found, column) if negated else found


def _compared(leaf: Compare, column: ScalarColumn) -> Bounds:
    """The codes of the values for which a comparison is TRUE."""
    value = leaf.value
    if type(value) is datetime:
        value = microseconds(value)
    elif type(value) is not float or column.type is not FieldType.NUMBER:
        value = _held(bound(value), column.type)
    place, there = column.place(value)
    low = place + 1
    high = low + there
    operator = leaf.operator  # compared by identity: a StrEnum's == costs more than a kernel's call
    if operator is Operator.EQUAL:
        return _range(low, high)
    if operator is Operator.AT_LEAST:
        return _range(low, column.code_count)
    if operator is Operator.AT_MOST:
        return _range(1, high)
    if operator is Operator.LESS:
        return _range(1, low)
    if operator is Operator.GREATER:
        return _range(high, column.code_count)
    return _others(_range(low, high), column)


def _beginning_with(column: ScalarColumn, prefix: str) -> Bounds:
    """The texts from the prefix up to the first text that is greater and does not begin with it."""
    beginning = prefix.encode()
    if not beginning:
        return _range(1, column.code_count)
    # The last byte of UTF-8 is never 255, so that one more is still a byte.
    end = beginning[:-1] + bytes([beginning[-1] + 1])
    words = column.words
    return _range(1 + words.place(beginning)[0], 1 + words.place(end)[0])


def _equal_to_any(column: ScalarColumn, values: list[Literal]) -> Bounds:
    held = [_held(value, column.type) for value in values]
    if column.type is FieldType.TEXT or len(held) <= PLACED_ONE_BY_ONE_MAX:
        codes = [place + 1 for place, there in map(column.place, held) if there]
    else:
        codes = column.codes_of(held)  # type: ignore[arg-type]  # no text
    return _merged((code, code + 1) for code in codes)


def _held(value: Literal, type_: FieldType) -> float | str:
    """A literal as the values of a column are held."""
    if type_ is FieldType.NUMBER:
        return float(value)  # type: ignore[arg-type]
    if isinstance(value, datetime):
        return microseconds(value)
    return int(value) if type_ is FieldType.BOOLEAN else value


def _range(low: int, high: int) -> Bounds:
    return (low, high) if low < high else ()


def _others(bounds: Bounds, column: ScalarColumn) -> Bounds:
    """All values that are not in some ranges of values."""
    ends = (1, *bounds, column.code_count)
    return _merged(_pairs(ends))


def _array(bounds: Bounds) -> npt.NDArray[np.int64]:
    return read_only(np.array(bounds, np.int64))


def _pairs(bounds: Bounds) -> Iterator[tuple[int, int]]:
    return zip(bounds[::2], bounds[1::2], strict=True)


def _merged(pairs: Iterable[tuple[int, int]]) -> Bounds:
    """The ranges in order, those that touch as one."""
    merged: list[int] = []
    for low, high in sorted(pairs):
        if low >= high:
            continue
        if merged and low <= merged[-1]:
            merged[-1] = max(merged[-1], high)
        else:
            merged += (low, high)
    return tuple(merged)


def _either(one: Bounds, other: Bounds) -> Bounds:
    return _merged([*_pairs(one), *_pairs(other)])


def _common(one: Bounds, other: Bounds) -> Bounds:
    """Where both have ranges."""
    if len(one) == len(other) == ONE_RANGE:
        return _range(max(one[0], other[0]), min(one[1], other[1]))
    pairs = ((max(a, c), min(b, d)) for a, b in _pairs(one) for c, d in _pairs(other))
    return _merged(pairs)
