"""The JSON form of a filter: the same tree, for programs that ask over HTTP.

A leaf names a field, an operation and, where there is one, a value; the operations are SQL's:

    {"field": "age", "op": ">=", "value": 20}           =  <>  !=  <  <=  >  >=
    {"field": "age", "op": "between", "value": [20, 30]}
    {"field": "gender", "op": "in", "value": ["f", "m"]}
    {"field": "track", "op": "like", "value": "cam1%"}
    {"field": "tags", "op": "has", "value": "glasses"}  `'glasses' = ANY(tags)`
    {"field": "age", "op": "is null"}

"not" goes before the words (not between, not in, not like, not has; is not null). Leaves are put
together as {"and": [...]}, {"or": [...]}, {"not": ...}; true and false are filters too. A value may
be {"parameter": "low"}; timestamps are ISO 8601 text.
"""

from datetime import datetime
from typing import Any, Final, assert_never

from retrieval.errors import FilterError, LimitExceededError
from retrieval.fields import Fields
from retrieval.filters.literals import Given, Literal
from retrieval.filters.names import no_such_field, shown
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
    Parameter,
    Prefix,
    all_of,
    any_of,
    between,
    compare,
    has,
    is_null,
    like,
    negate,
    one_of,
    parameter,
    pattern_of,
)
from retrieval.limits import FILTER_DEPTH_MAX, FILTER_LEAVES_MAX, within

_OPERATORS: Final = {**{o.value: o for o in Operator}, "!=": Operator.UNEQUAL}
_NEGATIONS: Final = {
    "not between": "between",
    "not in": "in",
    "not like": "like",
    "not has": "has",
    "is not null": "is null",
}
_KNOWN: Final = (*_OPERATORS, "is null", "in", "between", "like", "has")
_VALUES: Final = {"in": "a list", "between": "a list of two values"}  # others take one value
_ENDS: Final = 2  # of a range


def from_json(written: Any, fields: Fields) -> Filter:
    """The filter that a JSON value (as `json.loads` gives it) means over these fields.

    Raises:
        FilterError: it is no such filter; the message names the path of what is wrong.
    """
    try:
        return _Reader(fields).filter(written, path="$", depth=0)
    except LimitExceededError as cause:
        raise FilterError(str(cause)) from None


def to_json(filter_: Filter) -> Any:
    """The JSON form of a filter; reading it gives an equal filter."""
    match filter_:
        case And(parts):
            return {"and": [to_json(part) for part in parts]}
        case Or(parts):
            return {"or": [to_json(part) for part in parts]}
        case _:
            return _leaf_to_json(filter_)


class _Reader:
    """One reading of one JSON value; it counts the leaves."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._leaves = 0
        self._negated = False  # whether an odd number of "not" stands around what is read now

    def filter(self, written: Any, *, path: str, depth: int) -> Filter:
        """The filter that stands at this path."""
        within(FILTER_DEPTH_MAX, depth, what="the nesting of a filter")
        match written:
            case {"and": list(parts)} if len(written) == 1:
                read = self._all(parts, path=f"{path}.and", depth=depth + 1)
                return any_of(read) if self._negated else all_of(read)
            case {"or": list(parts)} if len(written) == 1:
                read = self._all(parts, path=f"{path}.or", depth=depth + 1)
                return all_of(read) if self._negated else any_of(read)
            case {"not": part} if len(written) == 1:
                self._negated = not self._negated
                inner = self.filter(part, path=f"{path}.not", depth=depth + 1)
                self._negated = not self._negated
                return inner
            case _:
                leaf = self._leaf(written, path=path)
                return negate(leaf) if self._negated else leaf

    def _all(self, parts: list[Any], *, path: str, depth: int) -> list[Filter]:
        return [
            self.filter(part, path=f"{path}[{place}]", depth=depth)
            for place, part in enumerate(parts)
        ]

    def _leaf(self, written: Any, *, path: str) -> Filter:
        match written:
            case bool():
                self._count(1)
                return Constant(written)
            case {"field": str(), "op": str()} if written.keys() <= {"field", "op", "value"}:
                return self._operation(written, path=path)
            case _:
                raise FilterError(
                    f'{path}: expected {{"and": […]}}, {{"or": […]}}, {{"not": …}}, true, false '
                    'or {"field": …, "op": …, "value": …}'
                )

    def _operation(self, written: dict[str, Any], *, path: str) -> Filter:
        name, word = written["field"], written["op"].lower()
        if name not in self._fields:
            raise FilterError(f"{path}.field: {no_such_field(name, self._fields)}")
        field, plain = Field(name, self._fields[name]), _NEGATIONS.get(word, word)
        if plain not in _KNOWN:
            known = ", ".join([*_KNOWN, *_NEGATIONS])
            raise FilterError(f'{path}.op: "{shown(word)}" is none of: {known}')
        try:
            leaf = _leaf(field, plain, self._operands(written, plain))
        except FilterError as error:
            raise FilterError(f"{path}: {error}") from None
        return negate(leaf) if plain != word else leaf

    def _operands(self, written: dict[str, Any], operation: str) -> list[Given | Parameter]:
        """The values of a leaf, each counted as one."""
        if ("value" in written) != (operation != "is null"):
            raise FilterError('"is null" takes no "value", every other "op" takes one')
        value = written.get("value")
        if (operation in _VALUES) != isinstance(value, list):
            raise FilterError(f'"{operation}" takes {_VALUES.get(operation, "one value")}')
        values = value if isinstance(value, list) else [value] if "value" in written else []
        self._count(max(1, len(values)))
        return [_given(one) for one in values]

    def _count(self, leaves: int) -> None:
        self._leaves += leaves
        within(FILTER_LEAVES_MAX, self._leaves, what="the number of leaves of a filter")


def _given(value: Any) -> Given | Parameter:
    match value:
        case bool() | int() | float() | str():
            return value
        case {"parameter": str(name)} if len(value) == 1:
            return parameter(name)
        case None:
            raise FilterError("nothing equals null: use is null")
        case _:
            raise FilterError('a value is a number, text, true, false or {"parameter": name}')


def _leaf(field: Field, operation: str, values: list[Given | Parameter]) -> Filter:
    match operation:
        case "is null":
            return is_null(field)
        case "in":
            return one_of(field, values)
        case "between":
            if len(values) != _ENDS:
                raise FilterError(f'"between" takes {_VALUES["between"]}')
            return between(field, *values)
        case "like":
            return like(field, values[0])
        case "has":
            return has(field, values[0])
        case _:
            return compare(field, _OPERATORS[operation], values[0])


def _leaf_to_json(leaf: Leaf) -> Any:
    match leaf:
        case Constant(value):
            return value
        case Compare(field, operator, value):
            return _written(field, operator.value, value=_value(value))
        case OneOf(field, values, negated):
            return _written(field, "not in" if negated else "in", value=[*map(_value, values)])
        case IsNull(field, negated):
            return _written(field, "is not null" if negated else "is null")
        case Prefix(field, prefix, negated):
            pattern = pattern_of(prefix) if isinstance(prefix, str) else prefix
            return _written(field, "not like" if negated else "like", value=_value(pattern))
        case Has(field, tag, negated):
            return _written(field, "not has" if negated else "has", value=_value(tag))
        case _:
            assert_never(leaf)


def _written(field: Field, operation: str, **value: Any) -> dict[str, Any]:
    return {"field": field.name, "op": operation, **value}


def _value(value: Literal | Parameter) -> Any:
    match value:
        case Parameter(name):
            return {"parameter": name}
        case datetime():
            return value.isoformat()
        case _:
            return value
