"""One literal, held as PostgreSQL would compare it with a field of some type.

Numbers are float8 and integers int8, both finite; text is valid UTF-8 without NUL; timestamps
are UTC microseconds, and one that names no offset is UTC. A number that no int8 equals (20.5,
1e30) stays an exact Decimal here: `tree.compare` turns its comparison into one of integers.
"""

import math
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final, TypeGuard, assert_never

from retrieval.errors import FilterError, LimitExceededError
from retrieval.limits import TEXT_BYTES_MAX, within
from retrieval.values import FieldType

Given = bool | int | float | Decimal | str | datetime  # what a caller may write for a literal
Literal = bool | int | float | str | datetime  # what a filter holds
_Number = int | float | Decimal

INT8_MIN: Final = -(2**63)
INT8_MAX: Final = 2**63 - 1
DESCRIPTIONS: Final = {
    FieldType.NUMBER: "a number",
    FieldType.INTEGER: "an integer",
    FieldType.TEXT: "text",
    FieldType.BOOLEAN: "true or false",
    FieldType.TIMESTAMP: "a timestamp",
    FieldType.TAGS: "a list of tags",
}
# What PostgreSQL and ISO 8601 read alike.
_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)


def literal(given: Given, type_: FieldType, *, name: str) -> Literal | Decimal:
    """`given` as a field of this type compares with it; Decimal only for INTEGER fields.

    Raises:
        FilterError: the literal is of another type, or no such value exists.
    """
    match type_:
        case FieldType.NUMBER if _is_number(given):
            return _float8(given)
        case FieldType.INTEGER if _is_number(given):
            return _int8(given)
        case FieldType.TEXT | FieldType.TAGS if isinstance(given, str):
            return checked_text(given)
        case FieldType.BOOLEAN if isinstance(given, bool):
            return given
        case FieldType.TIMESTAMP if isinstance(given, datetime):
            return in_utc(given)
        case FieldType.TIMESTAMP if isinstance(given, str):
            return timestamp(given)
        case _:
            raise FilterError(
                f'the field "{name}" is {DESCRIPTIONS[type_]}; it cannot be compared with '
                f"{_description(given)}"
            )


def number(digits: str) -> Decimal:
    """The exact value of an unsigned number as SQL writes it, or FilterError."""
    try:
        return Decimal(digits)
    except InvalidOperation:
        raise FilterError("this is no number that can be read") from None


def timestamp(written: str) -> datetime:
    """The moment that ISO 8601 text names, in UTC, or FilterError."""
    try:
        if not _TIMESTAMP.fullmatch(written):
            raise ValueError  # noqa: TRY301 - one message for what the pattern and the calendar refuse
        return in_utc(datetime.fromisoformat(written))
    except ValueError:
        raise FilterError(
            "this is no timestamp: write '2024-05-31' or '2024-05-31 18:30:00+02:00'"
        ) from None


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC; one that names no offset is UTC already."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise FilterError("timestamps lie in the years 1 to 9999 of UTC") from None


def checked_text(given: str) -> str:
    """Give `given` back if PostgreSQL can hold it, or raise FilterError."""
    try:
        within(TEXT_BYTES_MAX, len(given.encode()), what="the length of a text in bytes")
    except UnicodeEncodeError:
        raise FilterError("this text is no valid Unicode") from None
    except LimitExceededError as cause:
        raise FilterError(str(cause)) from None
    if "\0" in given:
        raise FilterError("text cannot hold the character NUL")
    return given


def _is_number(given: Given) -> TypeGuard[_Number]:
    return isinstance(given, int | float | Decimal) and not isinstance(given, bool)


def _float8(given: _Number) -> float:
    try:
        value = float(given)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise FilterError("numbers are finite and below 1.8e308")
    return value + 0.0  # -0.0 becomes 0.0, its equal


def _int8(given: _Number) -> int | Decimal:
    exact = Decimal(given)
    if not exact.is_finite():
        raise FilterError("numbers are finite")
    if INT8_MIN <= exact <= INT8_MAX and (whole := int(exact)) == exact:
        return whole
    return exact


def _description(given: Given) -> str:
    match given:
        case bool():
            return "true or false"
        case str():
            return "text"
        case datetime():
            return "a timestamp"
        case int() | float() | Decimal():
            return "a number"
        case _:
            assert_never(given)
