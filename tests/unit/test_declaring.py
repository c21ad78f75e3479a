from datetime import UTC, datetime

import pytest

from indexer.declaring import Declarations
from retrieval.errors import RefusedImageError
from retrieval.values import FieldType, Value

WHEN = datetime(2024, 5, 31, tzinfo=UTC)


def test_a_new_name_is_declared_by_its_first_value() -> None:
    declarations = Declarations({})
    values: dict[str, Value] = {"a": True, "b": 7, "c": "x", "d": WHEN, "e": ("t",), "f": None}
    assert declarations.fitted(values) == {"a": True, "b": 7.0, "c": "x", "d": WHEN, "e": ("t",)}
    assert declarations.new == {
        "a": FieldType.BOOLEAN,
        "b": FieldType.NUMBER,
        "c": FieldType.TEXT,
        "d": FieldType.TIMESTAMP,
        "e": FieldType.TAGS,
    }


def test_a_name_that_cannot_be_an_attribute_is_left_out() -> None:
    declarations = Declarations({})
    assert declarations.fitted({"quality": 1.0, "9 lives": 1, "fine": 1}) == {"fine": 1.0}
    assert declarations.left_out == {"quality", "9 lives"}


@pytest.mark.parametrize(
    ("type_", "value", "stored"),
    [
        (FieldType.INTEGER, 7.0, 7),
        (FieldType.INTEGER, 7.5, None),
        (FieldType.INTEGER, True, None),
        (FieldType.NUMBER, 7, 7.0),
        (FieldType.NUMBER, "7", None),
        (FieldType.TEXT, 7, None),
        (FieldType.BOOLEAN, 1, None),
        (FieldType.TAGS, "a", None),
        (FieldType.TIMESTAMP, "2024-05-31", None),
    ],
)
def test_a_value_fits_its_declared_type_or_refuses_the_picture(
    type_: FieldType, value: Value, stored: Value
) -> None:
    declarations = Declarations({"x": type_})
    if stored is None:
        with pytest.raises(RefusedImageError, match=f"'x' does not fit the declared type {type_}"):
            declarations.fitted({"x": value})
    else:
        fitted = declarations.fitted({"x": value})["x"]
        assert (fitted, type(fitted)) == (stored, type(stored))
