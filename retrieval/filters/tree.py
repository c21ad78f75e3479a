"""What a filter is: one immutable tree of values in negation normal form.

NOT exists only inside the leaves, and a leaf stands for the rows where it is TRUE: a row whose
field is NULL passes neither `age < 5` nor its negation `age >= 5`. So AND and OR are plain
operations on sets of rows, and `negate` turns every leaf into the one that PostgreSQL's
three-valued logic makes of NOT. BETWEEN is two comparisons; IN () is false for every value, and
NULL for NULL, which is also what a comparison turns into that no integer can pass.

The functions below are the door: they check literals against the field's type and give the
normal form. Build leaves with them, not with the classes.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, assert_never

from retrieval.errors import FilterError
from retrieval.filters.literals import (
    DESCRIPTIONS,
    INT8_MAX,
    INT8_MIN,
    Given,
    Literal,
    checked_text,
    literal,
)
from retrieval.values import FieldType, Value


class Operator(StrEnum):
    """How a field is compared with a literal on its right."""

    EQUAL = "="
    UNEQUAL = "<>"
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="

    @property
    def opposite(self) -> "Operator":
        """What holds of two values when this does not."""
        return _OPPOSITES[self]

    @property
    def mirrored(self) -> "Operator":
        """The same comparison with its sides exchanged."""
        return _MIRRORED.get(self, self)


_OPPOSITES: Final = {
    Operator.EQUAL: Operator.UNEQUAL,
    Operator.UNEQUAL: Operator.EQUAL,
    Operator.LESS: Operator.AT_LEAST,
    Operator.AT_MOST: Operator.GREATER,
    Operator.GREATER: Operator.AT_MOST,
    Operator.AT_LEAST: Operator.LESS,
}
_MIRRORED: Final = {
    Operator.LESS: Operator.GREATER,
    Operator.AT_MOST: Operator.AT_LEAST,
    Operator.GREATER: Operator.LESS,
    Operator.AT_LEAST: Operator.AT_MOST,
}
_PARAMETER_NAME: Final = re.compile(r"[^\W\d]\w*")
_PATTERN: Final = re.compile(r"((?:[^\\%_]|\\.)*)%", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Field:
    """A field with its type, so that a filter can be compiled without asking the collection."""

    name: str
    type: FieldType


@dataclass(frozen=True, slots=True)
class Parameter:
    """A literal that is bound later: `:low`."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """Every row, or none."""

    value: bool


@dataclass(frozen=True, slots=True)
class Compare:
    """`field operator literal`. A BOOLEAN is only EQUAL to a literal."""

    field: Field
    operator: Operator
    value: Literal | Parameter


@dataclass(frozen=True, slots=True)
class OneOf:
    """`field IN (values)`, which may be empty, or NOT IN."""

    field: Field
    values: tuple[Literal | Parameter, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class IsNull:
    """`field IS NULL`, or IS NOT NULL."""

    field: Field
    negated: bool


@dataclass(frozen=True, slots=True)
class Prefix:
    """`field LIKE 'prefix%'`, or NOT LIKE. A Parameter stands for the pattern, not the prefix."""

    field: Field
    prefix: str | Parameter
    negated: bool


@dataclass(frozen=True, slots=True)
class Has:
    """`'tag' = ANY(field)`, or NOT."""

    field: Field
    tag: str | Parameter
    negated: bool


@dataclass(frozen=True, slots=True)
class And:
    """Rows that pass each part: two or more, none of them an And."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Rows that pass one of the parts: two or more, none of them an Or."""

    parts: tuple["Filter", ...]


Leaf = Constant | Compare | OneOf | IsNull | Prefix | Has
Filter = And | Or | Leaf

TRUE: Final = Constant(value=True)
FALSE: Final = Constant(value=False)


def all_of(parts: Iterable[Filter]) -> Filter:
    """Rows that pass all; every row if there are none."""
    flat: list[Filter] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, And) else (part,))
    return And(tuple(flat)) if len(flat) > 1 else flat[0] if flat else TRUE


def any_of(parts: Iterable[Filter]) -> Filter:
    """Rows that pass at least one; no row if there are none."""
    flat: list[Filter] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Or) else (part,))
    return Or(tuple(flat)) if len(flat) > 1 else flat[0] if flat else FALSE


def compare(field: Field, operator: Operator, value: Given | Parameter) -> Filter:
    """`field operator value`, or FilterError where their types do not compare."""
    if field.type is FieldType.TAGS:
        raise FilterError(f"the field \"{field.name}\" is a list of tags: write 'x' = ANY(…)")
    if field.type is FieldType.BOOLEAN and operator not in (Operator.EQUAL, Operator.UNEQUAL):
        raise FilterError(f'the field "{field.name}" is true or false and has no order')
    if isinstance(value, Parameter):
        return Compare(field, operator, value)
    checked = literal(value, field.type, name=field.name)
    if isinstance(checked, Decimal):
        return _compare_with_no_int8(field, operator, checked)
    if isinstance(checked, bool) and operator is Operator.UNEQUAL:
        return Compare(field, Operator.EQUAL, not checked)
    return Compare(field, operator, checked)


def between(field: Field, low: Given | Parameter, high: Given | Parameter) -> Filter:
    """`field BETWEEN low AND high`, both ends included."""
    ends = ((Operator.AT_LEAST, low), (Operator.AT_MOST, high))
    return all_of([compare(field, operator, end) for operator, end in ends])


def one_of(field: Field, values: Iterable[Given | Parameter]) -> Filter:
    """`field IN (values)`; a value that the field cannot hold equals none of its values."""
    if field.type is FieldType.TAGS:
        raise FilterError(f"the field \"{field.name}\" is a list of tags: write 'x' = ANY(…)")
    checked = [
        value if isinstance(value, Parameter) else literal(value, field.type, name=field.name)
        for value in values
    ]
    # Each value once, in the order written; only an INTEGER field leaves Decimals here.
    kept = dict.fromkeys(value for value in checked if not isinstance(value, Decimal))
    return OneOf(field, tuple(kept), negated=False)


def is_null(field: Field) -> Filter:
    """`field IS NULL`."""
    return IsNull(field, negated=False)


def like(field: Field, pattern: Given | Parameter) -> Filter:
    r"""`field LIKE pattern`: a literal beginning (with `\%`, `\_`, `\\`) and one `%` at the end."""
    if field.type is not FieldType.TEXT:
        raise FilterError(f'the field "{field.name}" is {DESCRIPTIONS[field.type]}, not text')
    if isinstance(pattern, Parameter):
        return Prefix(field, pattern, negated=False)
    if not isinstance(pattern, str):
        raise FilterError("LIKE takes a text pattern")
    beginning = _PATTERN.fullmatch(checked_text(pattern))
    if not beginning:
        raise FilterError(
            r"LIKE knows a beginning and one % at its end; other %, _ and \ are written \%, \_, \\"
        )
    return Prefix(field, re.sub(r"\\(.)", r"\1", beginning[1], flags=re.DOTALL), negated=False)


def pattern_of(prefix: str) -> str:
    r"""The LIKE pattern of texts that begin so.

    >>> print(pattern_of("100%_"))
    100\%\_%
    """
    return re.sub(r"([\\%_])", r"\\\1", prefix) + "%"


def has(field: Field, tag: Given | Parameter) -> Filter:
    """`tag = ANY(field)`."""
    if field.type is not FieldType.TAGS:
        raise FilterError(
            f'the field "{field.name}" is {DESCRIPTIONS[field.type]}, not a list of tags'
        )
    if isinstance(tag, Parameter):
        return Has(field, tag, negated=False)
    return Has(field, str(literal(tag, field.type, name=field.name)), negated=False)


def parameter(name: str) -> Parameter:
    """The parameter of that name, or FilterError."""
    if not _PARAMETER_NAME.fullmatch(name):
        raise FilterError("a parameter is a colon and a name of letters, digits and _")
    return Parameter(name)


def negate(filter_: Filter) -> Filter:
    """The filter that is TRUE for the rows where `filter_` is FALSE: NULL stays out of both."""
    match filter_:
        case And(parts):
            return any_of([negate(part) for part in parts])
        case Or(parts):
            return all_of([negate(part) for part in parts])
        case Constant(value):
            return Constant(value=not value)
        case Compare(field, Operator.EQUAL, bool(value)):
            return Compare(field, Operator.EQUAL, not value)
        case Compare(field, operator, value):
            return Compare(field, operator.opposite, value)
        case OneOf() | IsNull() | Prefix() | Has():
            return replace(filter_, negated=not filter_.negated)
        case _:
            assert_never(filter_)


def leaves(filter_: Filter) -> Iterator[Leaf]:
    """Every leaf, from left to right."""
    if isinstance(filter_, And | Or):
        for part in filter_.parts:
            yield from leaves(part)
    else:
        yield filter_


def parameters(filter_: Filter) -> frozenset[str]:
    """The names of the parameters that are not bound yet."""
    operands = (operand for leaf in leaves(filter_) for operand in _operands(leaf))
    return frozenset(operand.name for operand in operands if isinstance(operand, Parameter))


def bind(filter_: Filter, values: Mapping[str, Value]) -> Filter:
    """The filter with each parameter replaced by its value.

    Raises:
        FilterError: a value is missing, superfluous, NULL or of another type than its field.
    """
    names = parameters(filter_)
    if names != values.keys():
        raise FilterError(
            f"the filter takes the parameters: {_listed(names)}; given were: {_listed(values)}"
        )
    return _bound(filter_, values) if names else filter_


def bound(operand: Literal | Parameter) -> Literal:
    """Give a literal back, or raise FilterError for a parameter that has no value yet."""
    if isinstance(operand, Parameter):
        raise FilterError(f"the parameter :{operand.name} has no value yet: bind it")
    return operand


def _compare_with_no_int8(field: Field, operator: Operator, value: Decimal) -> Filter:
    """A comparison with a number that is no int8, as the comparison of integers that equals it."""
    none, every = OneOf(field, (), negated=False), OneOf(field, (), negated=True)
    if operator in (Operator.EQUAL, Operator.UNEQUAL):
        return none if operator is Operator.EQUAL else every
    below = operator in (Operator.LESS, Operator.AT_MOST)
    if INT8_MIN < value < INT8_MAX:
        return Compare(field, Operator.AT_MOST if below else Operator.GREATER, math.floor(value))
    return every if below == (value > 0) else none


def _operands(leaf: Leaf) -> tuple[Literal | Parameter, ...]:
    match leaf:
        case Compare():
            return (leaf.value,)
        case OneOf():
            return leaf.values
        case Prefix():
            return (leaf.prefix,)
        case Has():
            return (leaf.tag,)
        case Constant() | IsNull():
            return ()
        case _:
            assert_never(leaf)


def _bound(filter_: Filter, values: Mapping[str, Value]) -> Filter:
    match filter_:
        case And(parts):
            return all_of([_bound(part, values) for part in parts])
        case Or(parts):
            return any_of([_bound(part, values) for part in parts])
        case _:
            return bind_leaf(filter_, values) if parameters(filter_) else filter_


def bind_leaf(leaf: Leaf, values: Mapping[str, Value]) -> Filter:
    """A leaf that holds parameters, built anew: a value may turn it into another kind of leaf."""
    given = [_given(operand, values) for operand in _operands(leaf)]
    try:
        match leaf:
            case Compare(field, operator, _):
                return compare(field, operator, given[0])
            case OneOf(field, _, negated):
                return _with_sign(one_of(field, given), negated=negated)
            case Prefix(field, _, negated):
                return _with_sign(like(field, given[0]), negated=negated)
            case Has(field, _, negated):
                return _with_sign(has(field, given[0]), negated=negated)
            case _:
                return leaf
    except FilterError as error:
        raise FilterError(f"{_listed(parameters(leaf))}: {error}") from None


def _with_sign(leaf: Filter, *, negated: bool) -> Filter:
    return negate(leaf) if negated else leaf


def _given(operand: Literal | Parameter, values: Mapping[str, Value]) -> Given:
    if not isinstance(operand, Parameter):
        return operand
    value = values[operand.name]
    if value is None:
        raise FilterError(f":{operand.name} is NULL; nothing equals NULL: use IS NULL")
    if not isinstance(value, bool | int | float | str | datetime):
        raise FilterError(f":{operand.name} takes one number, text, boolean or timestamp")
    return value


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f":{name}" for name in sorted(names)) or "none"
