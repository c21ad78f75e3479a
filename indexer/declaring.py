"""Attributes that come with pictures, fitted to what the collection declared.

A manifest's columns are declared before the first picture. Sidecars of archives bring names as they
come: a new name is declared by its first value (any number as `number`, since JSON does not tell
7 from 7.0); a name that cannot be an attribute is left out, and said once.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from retrieval.errors import RefusedImageError, UsageError
from retrieval.fields import Fields, checked_attribute_name
from retrieval.values import FieldType, Value

_FIRST_TYPES: Final[tuple[tuple[type, FieldType], ...]] = (
    (bool, FieldType.BOOLEAN),  # before int: True is an int to Python
    (int, FieldType.NUMBER),
    (float, FieldType.NUMBER),
    (str, FieldType.TEXT),
    (datetime, FieldType.TIMESTAMP),
    (tuple, FieldType.TAGS),
)


class Declarations:
    """The declared attributes of a collection, growing while pictures come in."""

    def __init__(self, declared: Fields) -> None:
        self._declared = dict(declared)
        self.new: dict[str, FieldType] = {}  # to be declared with the next write
        self.left_out: set[str] = set()

    def fitted(self, attributes: Mapping[str, Value]) -> dict[str, Value]:
        """The attributes as the collection stores them.

        Raises:
            RefusedImageError: a value does not fit the type declared for its name.
        """
        fitted: dict[str, Value] = {}
        for name, value in attributes.items():
            if value is not None and self._known(name, value):
                fitted[name] = _fitted(name, value, self._declared[name])
        return fitted

    def _known(self, name: str, value: Value) -> bool:
        if name in self._declared:
            return True
        try:
            checked_attribute_name(name)
        except UsageError:
            self.left_out.add(name)
            return False
        self._declared[name] = self.new[name] = _first_type(value)
        return True


def _first_type(value: Value) -> FieldType:
    return next(type_ for python, type_ in _FIRST_TYPES if isinstance(value, python))


def _fitted(name: str, value: Value, type_: FieldType) -> Value:
    match type_, value:
        case (FieldType.BOOLEAN, bool()) | (FieldType.TEXT, str()) | (FieldType.TAGS, tuple()):
            return value
        case FieldType.TIMESTAMP, datetime():
            return value
        case FieldType.NUMBER, (int() | float()) if not isinstance(value, bool):
            return float(value)
        case FieldType.INTEGER, (int() | float()) if not isinstance(value, bool):
            if value == int(value):
                return int(value)
    raise RefusedImageError(f"its attribute '{name}' does not fit the declared type {type_}")
