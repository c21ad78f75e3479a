"""Filters as SQL: the second compiler, for what the store lists, counts, deletes and exports.

Each built-in field is a column; a declared attribute is read out of `attributes`, whose values
were type-checked when they were written. A statement that uses these expressions reads FROM
`FACES_WITH_PERSONS` (face LEFT JOIN person) and restricts `face.collection_id`: another
collection may have declared the same name with another type, and the cast would fail there.
(PostgreSQL tests the collection first, because comparing two integers is the cheapest condition.)
"""

import operator as python
from collections.abc import Callable
from typing import Any, Final, assert_never

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    Label,
    Select,
    Text,
    all_,
    and_,
    any_,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from retrieval.fields import BUILT_IN, Fields
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
    bound,
)
from retrieval.store.tables import face, person
from retrieval.values import FieldType

FACES_WITH_PERSONS: Final = face.outerjoin(person, face.c.person_id == person.c.id)

_TYPES: Final[dict[FieldType, TypeEngine[Any]]] = {
    FieldType.NUMBER: Double(),
    FieldType.INTEGER: BigInteger(),
    FieldType.TEXT: Text(),
    FieldType.BOOLEAN: Boolean(),
    FieldType.TIMESTAMP: postgresql.TIMESTAMP(timezone=True),
    FieldType.TAGS: ARRAY(Text),
}
_COMPARISONS: Final[dict[Operator, Callable[[Any, Any], ColumnElement[bool]]]] = {
    Operator.EQUAL: python.eq,
    Operator.UNEQUAL: python.ne,
    Operator.LESS: python.lt,
    Operator.AT_MOST: python.le,
    Operator.GREATER: python.gt,
    Operator.AT_LEAST: python.ge,
}
_COLUMNS: Final = {"face": face.c.id, "person": person.c.name}  # others are named like their field


def where(filter_: Filter) -> ColumnElement[bool]:
    """The condition that is TRUE for the rows that pass; FROM must be FACES_WITH_PERSONS.

    Raises:
        FilterError: a parameter is not bound.
    """
    match filter_:
        case And(parts):
            return and_(*map(where, parts))
        case Or(parts):
            return or_(*map(where, parts))
        case Constant(value):
            return true() if value else false()
        case _:
            return _leaf(filter_)


def field_expression(name: str, type_: FieldType) -> ColumnElement[Any]:
    """The value of a field, as float8, int8, text COLLATE "C", bool, timestamptz or text[]."""
    if name in BUILT_IN:
        return _COLUMNS[name] if name in _COLUMNS else face.c[name]
    written: ColumnElement[Any] = face.c.attributes[name].astext
    match type_:
        case FieldType.TEXT:
            return written.collate("C")
        case FieldType.TAGS:
            elements = func.jsonb_array_elements_text(face.c.attributes[name]).column_valued("tag")
            tags = func.array(select(elements).scalar_subquery(), type_=_TYPES[type_])
            return case((_is_array(name), tags))
        case _:
            return cast(written, _TYPES[type_])


def field_columns(fields: Fields) -> list[Label[Any]]:
    """Every field as a typed column of its name, to SELECT."""
    return [field_expression(name, type_).label(name) for name, type_ in fields.items()]


def compile_sql(statement: Select[Any]) -> str:
    """The statement with its literals inside, for drivers that take plain SQL (ADBC).

    Literals are escaped for `standard_conforming_strings`, which every server here has on.
    """
    # With named parameters a % stays one; they all become literals anyway.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    compiled = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    return str(compiled)


def _leaf(leaf: Compare | OneOf | IsNull | Prefix | Has) -> ColumnElement[bool]:
    match leaf:
        case Compare(field, operator, value):
            compared = literal(bound(value), _TYPES[field.type])
            return _COMPARISONS[operator](field_expression(field.name, field.type), compared)
        case OneOf(field, values, negated):
            return _one_of(field, [bound(value) for value in values], negated=negated)
        case IsNull(field, negated):
            return _written(field).is_not(None) if negated else _written(field).is_(None)
        case Prefix(field, prefix, negated):
            beginning = literal(bound(prefix), Text())
            begins = func.starts_with(field_expression(field.name, field.type), beginning)
            return not_(begins) if negated else begins.is_(True)
        case Has(field, tag, negated):
            return _has(field, str(bound(tag)), negated=negated)
        case _:
            assert_never(leaf)


def _one_of(field: Field, values: list[Literal], *, negated: bool) -> ColumnElement[bool]:
    if not values:  # false for every value, NULL for NULL
        return _written(field).is_not(None) if negated else false()
    expression = field_expression(field.name, field.type)
    return expression.not_in(values) if negated else expression.in_(values)


def _has(field: Field, tag: str, *, negated: bool) -> ColumnElement[bool]:
    sought = literal(tag, Text())
    if field.name in BUILT_IN:
        tags = face.c[field.name]
        return sought != all_(tags) if negated else sought == any_(tags)
    contains = face.c.attributes[field.name].has_key(sought)
    return and_(_is_array(field.name), not_(contains)) if negated else contains


def _written(field: Field) -> ColumnElement[Any]:
    """An expression that is NULL where the field is, without a cast."""
    if field.name in BUILT_IN:
        return field_expression(field.name, field.type)
    written: ColumnElement[Any] = face.c.attributes[field.name].astext
    return written


def _is_array(name: str) -> ColumnElement[bool]:
    return func.jsonb_typeof(face.c.attributes[name]) == "array"
