"""A filter as an SQL condition, for engines that read one: one writer, a dialect for each.

A filter arrives with its negations at the leaves, so that a dialect needs AND, OR and the leaves.
NULL is as in SQL; a dialect whose NOT forgets that says so by `not_null_first`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from retrieval.filters.literals import Literal
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
    all_of,
    any_of,
    bound,
)
from retrieval.values import FieldType

Column = str
Written = str


def quoted_name(name: str) -> str:
    """A column's name in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """A text in single quotes, with no escapes but the doubled quote."""
    return "'" + text.replace("'", "''") + "'"


def plain_literal(value: Literal) -> str:
    """A literal as standard SQL has it."""
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case int() | float():
            return repr(value)
        case str():
            return quoted_text(value)
        case datetime():
            return f"TIMESTAMPTZ '{value.isoformat(sep=' ')}'"
        case _:
            assert_never(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What differs between the engines that read SQL."""

    has: Callable[[Column, Written], Written]  # the list in the column holds this tag
    begins: Callable[[Column, str], Written]  # the text begins with this, which is not escaped yet
    name: Callable[[str], Column] = quoted_name
    literal: Callable[[Literal], Written] = plain_literal
    equal: str = "="
    unequal: str = "<>"
    every: Written = "TRUE"
    none: Written = "FALSE"
    not_null_first: bool = False  # NOT of something unknown is true there, against SQL
    lacks: Callable[[Column, Written], Written] | None = None  # None: NOT (has)
    begins_not: Callable[[Column, str], Written] | None = None  # None: NOT (begins)
    in_: str = "{} IN ({})"
    not_in: str = "{} NOT IN ({})"


def condition(filter_: Filter, dialect: Dialect) -> Written:  # noqa: C901, PLR0911 - one for each kind
    """The condition that is true for the rows that pass; its parameters are bound already."""
    match filter_:
        case And(parts):
            return "(" + " AND ".join(condition(part, dialect) for part in parts) + ")"
        case Or(parts):
            return "(" + " OR ".join(condition(part, dialect) for part in parts) + ")"
        case Constant(value):
            return dialect.every if value else dialect.none
        case IsNull(field, negated):
            return _known(dialect.name(field.name), known=negated)
        case Compare(field, operator, value):
            return _compared(dialect.name(field.name), operator, bound(value), dialect=dialect)
        case OneOf(Field(type=FieldType.BOOLEAN)):
            return condition(_flags(filter_), dialect)
        case OneOf(field, values, negated):
            literals = [dialect.literal(bound(value)) for value in values]
            return _one_of(dialect.name(field.name), literals, negated=negated, dialect=dialect)
        case Prefix(field, prefix, negated):
            return _prefixed(field.name, str(bound(prefix)), negated=negated, dialect=dialect)
        case Has(field, tag, negated):
            return _has(field.name, str(bound(tag)), negated=negated, dialect=dialect)
        case _:
            assert_never(filter_)


def _flags(leaf: OneOf) -> Filter:
    """IN of booleans without IN, which not every engine has for them."""
    sought = [bool(bound(value)) for value in leaf.values]
    if leaf.negated:
        same: list[Filter] = [Compare(leaf.field, Operator.EQUAL, not value) for value in sought]
        return all_of([IsNull(leaf.field, negated=True), *same])
    return any_of([Compare(leaf.field, Operator.EQUAL, value) for value in sought])


def _known(column: Column, *, known: bool) -> Written:
    return f"{column} IS {'NOT ' * known}NULL"


def _compared(column: Column, operator: Operator, value: Literal, *, dialect: Dialect) -> Written:
    signs = {Operator.EQUAL: dialect.equal, Operator.UNEQUAL: dialect.unequal}
    written = f"{column} {signs.get(operator, operator.value)} {dialect.literal(value)}"
    if operator is Operator.UNEQUAL and dialect.not_null_first:
        return f"({_known(column, known=True)} AND {written})"
    return written


def _one_of(column: Column, literals: list[str], *, negated: bool, dialect: Dialect) -> Written:
    if not literals:  # false for every value, NULL for NULL
        return _known(column, known=True) if negated else dialect.none
    written = (dialect.not_in if negated else dialect.in_).format(column, ", ".join(literals))
    if negated and dialect.not_null_first:
        return f"({_known(column, known=True)} AND {written})"
    return written


def _prefixed(name: str, prefix: str, *, negated: bool, dialect: Dialect) -> Written:
    column = dialect.name(name)
    if not negated:
        return dialect.begins(column, prefix)
    if dialect.begins_not is not None:
        return dialect.begins_not(column, prefix)
    return _opposite(dialect.begins(column, prefix), column, dialect=dialect)


def _has(name: str, tag: str, *, negated: bool, dialect: Dialect) -> Written:
    column, written = dialect.name(name), dialect.literal(tag)
    if not negated:
        return dialect.has(column, written)
    if dialect.lacks is not None:
        return dialect.lacks(column, written)
    return _opposite(dialect.has(column, written), column, dialect=dialect)


def _opposite(written: Written, column: Column, *, dialect: Dialect) -> Written:
    if dialect.not_null_first:
        return f"({_known(column, known=True)} AND NOT ({written}))"
    return f"NOT ({written})"
