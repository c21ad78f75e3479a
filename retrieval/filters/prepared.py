"""A filter whose parameters are bound again and again, faster than `tree.bind` does it.

What `bind` finds out of a filter each time, the names of its parameters and the leaves that hold
them, is found once. A value of the very type that its field has needs no more than its range
looked at; every other value goes the way of `tree.bind`, whose results and errors these are.
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeGuard

from retrieval.filters.literals import INT8_MAX, INT8_MIN, Literal
from retrieval.filters.tree import (
    And,
    Compare,
    Filter,
    Has,
    Leaf,
    Operator,
    Or,
    Parameter,
    bind,
    bind_leaf,
    parameters,
)
from retrieval.limits import TEXT_BYTES_MAX
from retrieval.values import FieldType, Value

Binder = Callable[[Mapping[str, Value]], Filter]


class Prepared:
    """A filter with parameters, ready to be bound.

    >>> from retrieval.filters.parse import parse
    >>> young = Prepared(parse("age < :limit", {"age": FieldType.NUMBER}))
    >>> young.bind({"limit": 30.0}) == parse("age < 30", {"age": FieldType.NUMBER})
    True
    """

    __slots__ = ("_bound", "filter", "names")

    def __init__(self, filter_: Filter) -> None:
        self.filter: Final = filter_
        self.names: Final = parameters(filter_)
        self._bound: Final = _binder(filter_)

    def bind(self, values: Mapping[str, Value]) -> Filter:
        """The filter with each parameter replaced by its value.

        Raises:
            FilterError: a value is missing, superfluous, NULL or of another type than its field.
        """
        if self.names != values.keys():
            return bind(self.filter, values)  # raises, and says why
        return self._bound(values)


def _binder(filter_: Filter) -> Binder:
    if not parameters(filter_):
        return lambda _: filter_
    match filter_:
        case And(parts):
            binders = [_binder(part) for part in parts]
            # No leaf becomes an And or Or when it is bound: nothing has to be flattened.
            return lambda values: And(tuple([binder(values) for binder in binders]))
        case Or(parts):
            binders = [_binder(part) for part in parts]
            return lambda values: Or(tuple([binder(values) for binder in binders]))
        case Compare(_, _, Parameter(name)):
            return _comparison(filter_, name)
        case Has(_, Parameter(name), _):
            return _tag(filter_, name)
        case _:
            return _any_leaf(filter_)


def _any_leaf(leaf: Leaf) -> Binder:
    return lambda values: bind_leaf(leaf, values)


def _comparison(leaf: Compare, name: str) -> Binder:
    """A binder for the leaf's type, which takes the values that may stay as they are."""
    field, operator = leaf.field, leaf.operator
    if field.type is FieldType.NUMBER:
        return _number(leaf, name)
    plain = _PLAIN[field.type]

    def bound(values: Mapping[str, Value]) -> Filter:
        value = values[name]
        return Compare(field, operator, value) if plain(value) else bind_leaf(leaf, values)

    return _any_leaf(leaf) if operator is Operator.UNEQUAL else bound


def _number(leaf: Compare, name: str) -> Binder:
    field, operator = leaf.field, leaf.operator

    def bound(values: Mapping[str, Value]) -> Filter:
        value = values[name]
        if type(value) is float and math.isfinite(value):
            return Compare(field, operator, value + 0.0)  # -0.0 becomes 0.0, its equal
        return bind_leaf(leaf, values)

    return bound


def _tag(leaf: Has, name: str) -> Binder:
    field, negated = leaf.field, leaf.negated

    def tag(values: Mapping[str, Value]) -> Filter:
        value = values[name]
        if _is_text(value):
            return Has(field, value, negated)
        return bind_leaf(leaf, values)

    return tag


def _is_text(value: Value) -> TypeGuard[str]:
    if type(value) is not str or len(value) > TEXT_BYTES_MAX:
        return False
    return value.isascii() and "\0" not in value


def _is_integer(value: Value) -> TypeGuard[int]:
    return type(value) is int and INT8_MIN <= value <= INT8_MAX


def _is_timestamp(value: Value) -> TypeGuard[datetime]:
    return type(value) is datetime and value.tzinfo is UTC


def _is_boolean(value: Value) -> TypeGuard[bool]:
    return type(value) is bool


_PLAIN: Final[Mapping[FieldType, Callable[[Value], TypeGuard[Literal]]]] = {
    FieldType.INTEGER: _is_integer,
    FieldType.TEXT: _is_text,
    FieldType.TIMESTAMP: _is_timestamp,
    FieldType.BOOLEAN: _is_boolean,
}
