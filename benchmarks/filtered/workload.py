"""Filters on three axes: kind, share of the rows, and where the rows that pass lie.

    face_cells          the ten of ENGINE.md section 1, for generated faces
    grid                shares from 100 to 0.001 % x independent, own neighbourhood, far: any set
    kinds               equality, range, set, boolean mix, NULL, tags, of the columns there are;
                        share and correlation are measured over 32 queries
    tags_of_queries     the AND of each query's own tags: big-ann's filter track

A cell is one template; each query binds its own values. Ranges are taken between the values of
rows, so that the share is met exactly whatever the distribution; only ANDs of columns rest on
their independence. Own is a band of `position` around the query's own. Far is that band, of all
that begin at 16,384 evenly spaced rows, whose mean is least like the query.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.filtered.data.generator import TAGS_OF_A_SHARE, tag
from benchmarks.filtered.data.grid import POSITION, SLOT
from benchmarks.filtered.truth import asks, computed, passing
from benchmarks.filtered.values import Cell, DataSet, Numbers
from retrieval.filters.tree import pattern_of
from retrieval.values import FieldType, Floats, UnitRows, Value

Parameters = Mapping[str, Value]
Row = Mapping[str, Any]  # the attributes of one query, as pyarrow tells them
Bound = Callable[[Row, np.random.Generator], Parameters]  # for one query
Binding = Callable[[UnitRows, pa.Table, np.random.Generator], Sequence[Parameters]]  # for all
_Array = npt.NDArray[Any]

SHARES: Final = (1.0, 0.5, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
FACE_FIELDS: Final = frozenset({"gender", "age", "source", "tags", "captured_at", "region", SLOT})
BANDS_MAX: Final = 16_384
FEW_VALUES_MAX: Final = 1000  # of a column that is asked for equality
SEVERAL_VALUES: Final = 8  # fewer are no set to choose three from
COLUMNS_A_KIND_MAX: Final = 2
SET_VALUES: Final = 100  # of the large IN
NEAR_ROWS: Final = 10  # make a neighbourhood
LEANING: Final = 1.5  # times as many or as few pass near the query: no longer independent
CHANCE_ROWS: Final = 3
_QUERIES_MEASURED: Final = 32
_BLOCK_ROWS: Final = 16_384
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ORDERED: Final = (FieldType.NUMBER, FieldType.INTEGER, FieldType.TIMESTAMP)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sorted:
    """The values of one column in order, without NULL, as ranges are cut from them."""

    values: _Array
    rows: int  # NULL included
    type: FieldType

    def around(self, value: Value, share: float) -> tuple[Value, Value]:
        """First and last value of the share of the rows that lies around this value."""
        count = self._count(share)
        place = int(np.searchsorted(self.values, _held(value)))
        return self.slice(min(max(place - count // 2, 0), len(self.values) - count), count)

    def far_from(self, value: Value, share: float) -> tuple[Value, Value]:
        """First and last value of the share of the rows at the other end."""
        count = self._count(share)
        place = int(np.searchsorted(self.values, _held(value)))
        return self.slice(len(self.values) - count if 2 * place < len(self.values) else 0, count)

    def anywhere(self, random: np.random.Generator, share: float) -> tuple[Value, Value]:
        """First and last value of some share of the rows."""
        count = self._count(share)
        start = int(random.integers(0, len(self.values) - count + 1))
        # From the first row of that value, since the range takes in all of them anyway.
        return self.slice(int(np.searchsorted(self.values, self.values[start])), count)

    def slice(self, start: int, count: int) -> tuple[Value, Value]:
        """The values of the first and the last of `count` rows."""
        return self._value(start), self._value(start + count - 1)

    def _count(self, share: float) -> int:
        return min(max(round(share * self.rows), 1), len(self.values))

    def _value(self, place: int) -> Value:
        held: int | float = self.values[place].item()
        return _EPOCH + held * _MICROSECOND if self.type is FieldType.TIMESTAMP else held


def cells(data: DataSet, *, shares: Sequence[float] = SHARES) -> tuple[Cell, ...]:
    """All cells that the set's columns allow; no two have the same name."""
    made = list(face_cells(data)) if set(data.table.column_names) >= FACE_FIELDS else []
    made += [*grid(data, shares=shares), *kinds(data)]
    if all(_tags_asked(data)):
        made.append(tags_of_queries(data))
    return tuple(made)


def face_cells(data: DataSet) -> tuple[Cell, ...]:
    """The ten cells of ENGINE.md section 1, by its names."""
    age, time = sorted_column(data, "age"), sorted_column(data, "captured_at")
    slot = sorted_column(data, SLOT)

    def of(name: str, kind: str, correlation: str, where: str, binding: Binding) -> Cell:
        share = float(name.split(" %", maxsplit=1)[0]) / 100
        return _cell(data, name, kind, share, correlation, (where, binding))

    return (
        _everything(data),
        of(
            "50 %, independent", "range", "independent", f"{SLOT} BETWEEN :low AND :high",
            _each(lambda _, random: _range(slot.anywhere(random, 0.5))),
        ),
        of(
            "50 %, the other gender", "equality", "far", "gender = :gender",
            _each(lambda face, _: {"gender": _other(face["gender"])}),
        ),
        of(
            "10 %, age range", "range", "own", "age BETWEEN :low AND :high",
            _each(lambda face, _: _range(age.around(face["age"], 0.1))),
        ),
        of(
            "10 %, source = s OR tag = t", "boolean", "independent",
            "source = :source OR :tag = ANY(tags)",
            _each(
                lambda face, random: {"source": face["source"], "tag": _some_tag(random, "common")}
            ),
        ),
        of(
            "1 %, equality", "equality", "own", "region = :region",
            _each(lambda face, _: {"region": face["region"]}),
        ),
        of(
            "1 %, AND of three", "boolean", "own",
            "gender = :gender AND age BETWEEN :low AND :high AND captured_at BETWEEN :from AND :to",
            _each(
                lambda face, random: {
                    "gender": face["gender"],
                    **_range(age.around(face["age"], 0.2)),
                    **_span(time.anywhere(random, 0.1)),
                }
            ),
        ),
        of(
            "2 %, other gender, far age, time", "boolean", "far",
            "gender = :gender AND age BETWEEN :low AND :high AND captured_at BETWEEN :from AND :to",
            _each(
                lambda face, random: {
                    "gender": _other(face["gender"]),
                    **_range(age.far_from(face["age"], 0.2)),
                    **_span(time.anywhere(random, 0.2)),
                }
            ),
        ),
        of(
            "0.1 %, tag", "tag", "independent", ":tag = ANY(tags)",
            _each(lambda _, random: {"tag": _some_tag(random, "rare")}),
        ),
        of(
            "0.01 %, tag AND time", "boolean", "independent",
            ":tag = ANY(tags) AND captured_at BETWEEN :from AND :to",
            _each(
                lambda _, random: {
                    "tag": _some_tag(random, "rare"), **_span(time.anywhere(random, 0.1))
                }
            ),
        ),
    )  # fmt: skip


def grid(data: DataSet, *, shares: Sequence[float] = SHARES) -> tuple[Cell, ...]:
    """Share x correlation, for any set with `slot` and `position`; less than a row is left out."""
    slot, bands = sorted_column(data, SLOT), _bands(data)
    made = []
    for share in shares:
        name = f"grid {100 * share:.6g} %"
        if share == 1:
            part = (f"{SLOT} >= :low", _each(lambda _, __: {"low": 0}))
            made.append(_cell(data, f"{name}, every row", "range", 1.0, "independent", part))
        elif share * len(data.vectors) >= 1:
            made += _three(data, name, share, slot=slot, bands=bands)
    return tuple(made)


def _three(
    data: DataSet, name: str, share: float, *, slot: Sorted, bands: "_Bands"
) -> Iterator[Cell]:
    """One share of the rows: anywhere, about the query, and far from it."""
    bindings = {
        "independent": (SLOT, _each(lambda _, random: _range(slot.anywhere(random, share)))),
        "own": (
            POSITION,
            _each(lambda row, _: _range(bands.positions.around(row[POSITION], share))),
        ),
        "far": (POSITION, bands.far(share)),
    }
    for correlation, (column, binding) in bindings.items():
        part = (f"{column} BETWEEN :low AND :high", binding)
        yield _cell(data, f"{name}, {correlation}", "range", share, correlation, part)


def kinds(data: DataSet) -> tuple[Cell, ...]:
    """Filters of every kind on the columns that the set has; each share is measured."""
    parts = [*_equalities(data), *_ranges(data), *_sets(data), *_nulls(data), *_tags(data)]
    made = [*parts, _boolean_mix(data)]
    near = _neighbourhoods(data)
    return tuple(
        _measured(data, _cell(data, name, kind, 0.0, "none", (where, binding)), near=near)
        for name, kind, where, binding in made
    )


def tags_of_queries(data: DataSet) -> Cell:
    """Rows that have all tags of the query. Queries with fewer than the most repeat their first."""
    most = max(len(tags or ()) for tags in _tags_asked(data))
    where = " AND ".join(f":tag_{number} = ANY(tags)" for number in range(most))

    def bound(row: Row, _: np.random.Generator) -> Parameters:
        padded = [*row["tags"], *[row["tags"][0]] * (most - len(row["tags"]))]
        return {f"tag_{number}": value for number, value in enumerate(padded)}

    name = "tags, all of the query's"
    cell = _cell(data, name, "tag", 0.0, "none", (where, _each(bound)))
    return _measured(data, cell, near=_neighbourhoods(data))


def sorted_column(data: DataSet, name: str) -> Sorted:
    """The values of one column in order."""
    column = data.table.column(name).drop_null()
    type_ = data.fields[name]
    if type_ is FieldType.TIMESTAMP:
        column = column.cast(pa.int64())
    values = np.sort(column.to_numpy())
    return Sorted(values=values, rows=data.table.num_rows, type=type_)


_Named = tuple[str, str, str, Binding]  # name, kind, where, binding


def _equalities(data: DataSet) -> Iterator[_Named]:
    for name in _few_valued(data)[:COLUMNS_A_KIND_MAX]:
        own = _own(data, name)
        where = f'"{name}" = :value'
        yield f"equality, own {name}", "equality", where, _each(own)


def _ranges(data: DataSet) -> Iterator[_Named]:
    for name in _ordered(data)[:COLUMNS_A_KIND_MAX]:
        near = _near(data, name, 0.05)
        yield f"range, near own {name}", "range", f'"{name}" BETWEEN :low AND :high', near
    for name in _many_texts(data)[:1]:
        own = _each(_beginning(name))
        yield f"prefix, own {name}", "range", f'"{name}" LIKE :pattern', own


def _sets(data: DataSet) -> Iterator[_Named]:
    several = [name for name in _few_valued(data) if _distinct(data, name) > SEVERAL_VALUES]
    for name in several[:COLUMNS_A_KIND_MAX]:
        some = _each(_own_and_two(data, name))
        yield f"set, own {name} or two", "set", f'"{name}" IN (:a, :b, :c)', some
        yield f"set, none of {name}", "set", f'"{name}" NOT IN (:a, :b, :c)', some
    slots = sorted_column(data, SLOT).values
    names = [f"s{number}" for number in range(min(SET_VALUES, len(slots)))]
    where = f"{SLOT} IN ({', '.join(f':{name}' for name in names)})"

    def some_slots(_: Row, random: np.random.Generator) -> Parameters:
        return dict(zip(names, random.choice(slots, len(names)).tolist(), strict=True))

    yield f"set, {len(names)} slots", "set", where, _each(some_slots)


def _nulls(data: DataSet) -> Iterator[_Named]:
    slot = sorted_column(data, SLOT)
    nullable = [n for n in data.table.column_names if data.table.column(n).null_count]
    some = _each(lambda _, random: _range(slot.anywhere(random, 0.01)))
    nothing = _each(lambda _, __: {})
    for name in nullable[:COLUMNS_A_KIND_MAX]:
        yield f"null, no {name}", "null", f'"{name}" IS NULL', nothing
        where = f'"{name}" IS NOT NULL AND {SLOT} BETWEEN :low AND :high'
        yield f"null, {name} known, 1 % of the slots", "null", where, some


def _tags(data: DataSet) -> Iterator[_Named]:
    for name in (n for n, t in data.fields.items() if t is FieldType.TAGS):
        words = pc.list_flatten(data.table.column(name))
        if len(words):
            own = _each(_own_tag(name, common=_most_common(words)))
            yield f"tag, one of own {name}", "tag", f':tag = ANY("{name}")', own
            yield f"tag, without one of own {name}", "tag", f'NOT :tag = ANY("{name}")', own


def _boolean_mix(data: DataSet) -> _Named:
    """NOT, OR and AND over the first column of few values, or over slots where there is none."""
    slot, position = sorted_column(data, SLOT), sorted_column(data, POSITION)
    name = next(iter(_few_valued(data)), SLOT)
    own = _own(data, name)

    def bound(row: Row, random: np.random.Generator) -> Parameters:
        return {
            **own(row, random),
            "until": slot.anywhere(random, 0.9)[0],
            **_range(position.around(row[POSITION], 0.05)),
            **_span(slot.anywhere(random, 0.5)),
        }

    where = (
        f'NOT ("{name}" = :value OR {SLOT} > :until)'
        f" OR ({POSITION} BETWEEN :low AND :high AND NOT {SLOT} BETWEEN :from AND :to)"
    )
    return "boolean, NOT and OR", "boolean", where, _each(bound)


def _own(data: DataSet, name: str) -> Bound:
    common = _most_common(data.table.column(name))
    return lambda row, _: {"value": common if row[name] is None else row[name]}


def _near(data: DataSet, name: str, share: float) -> Binding:
    """A range about the query's own value, or about the middle one where it has none."""
    column = sorted_column(data, name)
    middle, _ = column.slice(len(column.values) // 2, 1)
    return _each(
        lambda row, _: _range(column.around(middle if row[name] is None else row[name], share))
    )


def _beginning(name: str) -> Bound:
    return lambda row, _: {"pattern": pattern_of((row[name] or "a")[:2])}


def _own_and_two(data: DataSet, name: str) -> Bound:
    values = pc.unique(data.table.column(name).drop_null()).to_pylist()
    own = _own(data, name)

    def bound(row: Row, random: np.random.Generator) -> Parameters:
        one, other = (values[place] for place in random.integers(0, len(values), 2))
        return {"a": own(row, random)["value"], "b": one, "c": other}

    return bound


def _own_tag(name: str, *, common: Value) -> Bound:
    def bound(row: Row, random: np.random.Generator) -> Parameters:
        tags = row[name] or [common]
        return {"tag": tags[int(random.integers(0, len(tags)))]}

    return bound


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Bands:
    """The rows in the order of `position`, with sums of vectors over equal stretches of it."""

    data: DataSet
    order: Numbers
    positions: Sorted
    stride: int
    sums: Floats  # (stretches, d)

    def far(self, share: float) -> Binding:
        """For each query the band whose mean is least like it."""
        count = max(round(share * len(self.order)), 1)
        starts, means = self._means(count)

        def bound(queries: UnitRows, _: pa.Table, __: np.random.Generator) -> Sequence[Parameters]:
            least = np.concatenate(
                [
                    (queries[s : s + 128] @ means.T).argmin(axis=1)
                    for s in range(0, len(queries), 128)
                ]
            )
            return [_range(self.positions.slice(int(starts[band]), count)) for band in least]

        return bound

    def _means(self, count: int) -> tuple[Numbers, Floats]:
        """Where bands of `count` rows may start, and the mean vector of each."""
        starts = np.arange(0, len(self.order) - count + 1, self.stride)
        if count < 4 * self.stride:
            rows = self.order[starts[:, None] + np.arange(count)]
            return starts, np.stack([self.data.vectors[some].mean(axis=0) for some in rows])
        stretches = count // self.stride
        running = np.zeros((len(self.sums) + 1, self.sums.shape[1]))
        np.cumsum(self.sums, axis=0, out=running[1:])
        ends = np.minimum(np.arange(len(starts)) + stretches, len(self.sums))
        sums = running[ends] - running[: len(starts)]
        return starts, (sums / count).astype(np.float32)


def _bands(data: DataSet) -> _Bands:
    positions = data.table.column(POSITION).to_numpy()
    order = np.argsort(positions, kind="stable")
    stride = max(1, len(order) // BANDS_MAX)
    step = stride * max(1, _BLOCK_ROWS // stride)
    sums = [
        np.add.reduceat(rows, np.arange(0, len(rows), stride), axis=0)
        for rows in (data.vectors[order[s : s + step]] for s in range(0, len(order), step))
    ]
    return _Bands(
        data=data,
        order=order,
        positions=sorted_column(data, POSITION),
        stride=stride,
        sums=np.concatenate(sums),
    )


def _cell(
    data: DataSet,
    name: str,
    kind: str,
    share: float,
    correlation: str,
    part: tuple[str, Binding],
) -> Cell:
    """A cell; each name has random numbers of its own, so that cells can be made one by one."""
    where, binding = part
    seed = zlib.crc32(name.encode())
    asked = binding(data.queries, data.query_table, np.random.default_rng([seed, 0]))
    tuned = binding(data.tuning, data.tuning_table, np.random.default_rng([seed, 1]))
    return Cell(
        name=name,
        kind=kind,
        share=share,
        correlation=correlation,
        where=where,
        parameters=tuple(asked),
        tuning_parameters=tuple(tuned),
    )


def _everything(data: DataSet) -> Cell:
    return Cell(
        name="none",
        kind="none",
        share=1.0,
        correlation="none",
        where=None,
        parameters=({},) * len(data.queries),
        tuning_parameters=({},) * len(data.tuning),
    )


def _neighbourhoods(data: DataSet) -> Numbers:
    """(q, 10) rows nearest to each of the first 32 queries, whatever passes."""
    every = asks(data, _everything(data))[:_QUERIES_MEASURED]
    return computed(data, every, count=min(NEAR_ROWS, len(data.vectors))).ids


def _measured(data: DataSet, cell: Cell, *, near: Numbers) -> Cell:
    """The cell with the share that passes, and whether more or less of those near the query do."""
    filters = [ask.filter for ask in asks(data, cell)[: len(near)]]
    masks = [passing(filter_, data) for filter_ in filters if filter_ is not None]
    share = float(np.mean([mask.mean() for mask in masks]))
    passed = sum(int(mask[rows].sum()) for mask, rows in zip(masks, near, strict=True))
    return replace(cell, share=share, correlation=_leaning(passed, expected=share * near.size))


def _leaning(passed: int, *, expected: float) -> str:
    """Where the rows that pass lie; a few of them more or less are chance."""
    if passed > LEANING * expected + CHANCE_ROWS:
        return "own"
    return "far" if LEANING * passed + CHANCE_ROWS < expected else "independent"


def _each(bound: Bound) -> Binding:
    """A binding that looks at one query's attributes at a time."""

    def all_bound(
        _: UnitRows, table: pa.Table, random: np.random.Generator
    ) -> Sequence[Parameters]:
        return [bound(row, random) for row in table.to_pylist()]

    return all_bound


def _range(ends: tuple[Value, Value]) -> Parameters:
    return {"low": ends[0], "high": ends[1]}


def _span(ends: tuple[Value, Value]) -> Parameters:
    return {"from": ends[0], "to": ends[1]}


def _other(gender: str) -> str:
    return "male" if gender == "female" else "female"


def _some_tag(random: np.random.Generator, kind: str) -> str:
    return tag(kind, int(random.integers(0, TAGS_OF_A_SHARE)))


def _tags_asked(data: DataSet) -> list[list[str] | None]:
    """The tags of each query of both kinds; one None where the set has no such column."""
    if data.fields.get("tags") is not FieldType.TAGS:
        return [None]
    tables = (data.query_table, data.tuning_table)
    return [tags for table in tables for tags in table.column("tags").to_pylist()]


def _few_valued(data: DataSet) -> list[str]:
    """Columns to be asked for one value, those of text first."""
    able = (FieldType.TEXT, FieldType.INTEGER)
    names = [n for n, t in data.fields.items() if t in able and n != SLOT]
    few = [n for n in names if 1 < _distinct(data, n) <= FEW_VALUES_MAX]
    return sorted(few, key=lambda name: data.fields[name] is not FieldType.TEXT)


def _many_texts(data: DataSet) -> list[str]:
    texts = [n for n, t in data.fields.items() if t is FieldType.TEXT]
    return [name for name in texts if _distinct(data, name) > FEW_VALUES_MAX]


def _ordered(data: DataSet) -> list[str]:
    """Columns to cut ranges from, those of the harness itself left out."""
    names = [n for n, t in data.fields.items() if t in _ORDERED and n not in (SLOT, POSITION)]
    return [name for name in names if _distinct(data, name) > 1]


def _distinct(data: DataSet, name: str) -> int:
    return int(pc.count_distinct(data.table.column(name)).as_py())


def _most_common(column: pa.ChunkedArray) -> Value:
    counts = column.drop_null().value_counts()
    value: Value = counts.field("values")[int(np.argmax(counts.field("counts")))].as_py()
    return value


def _held(value: Value) -> Any:
    """A value as a sorted column holds it."""
    return (value - _EPOCH) // _MICROSECOND if isinstance(value, datetime) else value
