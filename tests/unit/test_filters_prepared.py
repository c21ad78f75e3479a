"""A prepared filter binds to what `tree.bind` gives, errors included."""

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from retrieval.errors import FilterError
from retrieval.fields import BUILT_IN
from retrieval.filters.parse import parse
from retrieval.filters.prepared import Prepared
from retrieval.filters.tree import bind
from retrieval.values import FieldType

FIELDS = {**BUILT_IN, "good": FieldType.BOOLEAN}
MAY = datetime(2024, 5, 31, tzinfo=UTC)
VALUES: list[Any] = [
    0, 1, -0.0, 20.5, 1e308, math.inf, math.nan, 2**63 - 1, 2**63, -(2**63), 10**400, True, False,
    None, "a", "", "é", "a\0", "\ud800", "x" * 9_000, "a%", "2024-05-31", MAY,
    MAY.replace(tzinfo=None), MAY.astimezone(timezone(timedelta(hours=2))), ("a",), ["a"],
]  # fmt: skip
FILTERS = [
    "age < :x", "age <> :x", "frame >= :x", "frame = :x", "person = :x", "captured_at > :x",
    "good = :x", "good <> :x", ":x = ANY(tags)", "NOT :x = ANY(tags)", "age IN (:x, 3)",
    "frame NOT IN (1, :x)", "person LIKE :x", "NOT person LIKE :x", "age < 5",
    "age BETWEEN :x AND 30 AND (frame = :x OR gender = 'male')",
]  # fmt: skip


def outcome(way: Any) -> Any:
    try:
        return way()
    except FilterError as error:
        return str(error)


@pytest.mark.parametrize("written", FILTERS)
def test_a_prepared_filter_binds_as_any_other(written: str) -> None:
    filter_ = parse(written, FIELDS)
    prepared = Prepared(filter_)
    for values in [*({"x": value} for value in VALUES), {}, {"y": 1}, {"x": 1, "y": 1}]:
        expected = outcome(lambda values=values: bind(filter_, values))
        found = outcome(lambda values=values: prepared.bind(values))
        assert found == expected, values
        assert repr(found) == repr(expected), values  # 1, 1.0 and True are equal in Python


def test_the_names_of_the_parameters_are_told() -> None:
    assert Prepared(parse("age < :x AND frame > :y", FIELDS)).names == {"x", "y"}
