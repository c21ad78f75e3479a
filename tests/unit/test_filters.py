"""The filter language: what it takes, what it refuses and how it says so, its two written forms."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import FilterError
from retrieval.fields import BUILT_IN, Fields
from retrieval.filters.json_form import from_json, to_json
from retrieval.filters.parse import parse, render
from retrieval.filters.tree import (
    FALSE,
    TRUE,
    And,
    Compare,
    Field,
    Filter,
    Has,
    IsNull,
    OneOf,
    Operator,
    Or,
    Parameter,
    Prefix,
    all_of,
    any_of,
    bind,
    compare,
    has,
    is_null,
    like,
    negate,
    one_of,
    parameters,
    pattern_of,
)
from retrieval.limits import FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_LEAVES_MAX
from retrieval.values import FieldType

FIELDS: Fields = {
    **BUILT_IN,
    "smiling": FieldType.BOOLEAN,
    "Eye Color": FieldType.TEXT,
    'say "x"': FieldType.TEXT,
    "date": FieldType.TIMESTAMP,
    "order": FieldType.NUMBER,
    "not": FieldType.BOOLEAN,
    "any": FieldType.TAGS,
    "TRUE": FieldType.INTEGER,
    "show": FieldType.NUMBER,
    "été": FieldType.INTEGER,
    "e": FieldType.TEXT,
}
AGE = Field("age", FieldType.NUMBER)
FRAME = Field("frame", FieldType.INTEGER)
GENDER = Field("gender", FieldType.TEXT)
TAGS = Field("tags", FieldType.TAGS)
SMILING = Field("smiling", FieldType.BOOLEAN)
TAKEN = Field("captured_at", FieldType.TIMESTAMP)
YES, NO = True, False
MAY = datetime(2024, 5, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("age >= 20", Compare(AGE, Operator.AT_LEAST, 20.0)),
        ("20 <= age", Compare(AGE, Operator.AT_LEAST, 20.0)),
        ("AGE != -1.5e1", Compare(AGE, Operator.UNEQUAL, -15.0)),
        ("age > +.5", Compare(AGE, Operator.GREATER, 0.5)),
        (
            "\"Eye Color\" = 'it''s'",
            Compare(Field("Eye Color", FieldType.TEXT), Operator.EQUAL, "it's"),
        ),
        ("gender IN ('f', 'm', 'f')", OneOf(GENDER, ("f", "m"), negated=False)),
        ("gender NOT IN ('f')", OneOf(GENDER, ("f",), negated=True)),
        ("gender LIKE 'a\\%b%'", Prefix(GENDER, "a%b", negated=False)),
        ("gender LIKE 'a\\\\%'", Prefix(GENDER, "a\\", negated=False)),
        ("gender NOT LIKE '%'", Prefix(GENDER, "", negated=True)),
        ("gender IS NULL", IsNull(GENDER, negated=False)),
        ("NOT gender IS NULL", IsNull(GENDER, negated=True)),
        ("'x' = ANY(tags)", Has(TAGS, "x", negated=False)),
        ("NOT 'x' = any ( tags )", Has(TAGS, "x", negated=True)),
        ("NOT :tag = ANY(tags)", Has(TAGS, Parameter("tag"), negated=True)),
        ("smiling", Compare(SMILING, Operator.EQUAL, YES)),
        ("NOT smiling", Compare(SMILING, Operator.EQUAL, NO)),
        ("smiling <> true", Compare(SMILING, Operator.EQUAL, NO)),
        ("FALSE = smiling", Compare(SMILING, Operator.EQUAL, NO)),
        ("smiling = :s", Compare(SMILING, Operator.EQUAL, Parameter("s"))),
        ("NOT smiling = :s", Compare(SMILING, Operator.UNEQUAL, Parameter("s"))),
        ("captured_at < '2024-05-31'", Compare(TAKEN, Operator.LESS, MAY)),
        ("captured_at < DATE '2024-05-31'", Compare(TAKEN, Operator.LESS, MAY)),
        ("TIMESTAMP '2024-05-31 00:00' > captured_at", Compare(TAKEN, Operator.LESS, MAY)),
        ("captured_at < timestamptz '2024-05-31T02:00:00+02'", Compare(TAKEN, Operator.LESS, MAY)),
        (
            "date = date '2024-05-31'",
            Compare(Field("date", FieldType.TIMESTAMP), Operator.EQUAL, MAY),
        ),
        ("show = 1", Compare(Field("show", FieldType.NUMBER), Operator.EQUAL, 1.0)),
        ("été = 1", Compare(Field("été", FieldType.INTEGER), Operator.EQUAL, 1)),
        ('"not"', Compare(Field("not", FieldType.BOOLEAN), Operator.EQUAL, YES)),
        ("TRUE", TRUE),
        ("NOT TRUE", FALSE),
        ("frame < 20.5", Compare(FRAME, Operator.AT_MOST, 20)),
        ("frame > 20.5", Compare(FRAME, Operator.GREATER, 20)),
        ("frame = 20.0", Compare(FRAME, Operator.EQUAL, 20)),
        ("frame = 20.5", OneOf(FRAME, (), negated=False)),
        ("NOT frame = 20.5", OneOf(FRAME, (), negated=True)),
        ("frame < 1e999999", OneOf(FRAME, (), negated=True)),
        ("frame > 1e-999999", Compare(FRAME, Operator.GREATER, 0)),
        ("frame = 9223372036854775807", Compare(FRAME, Operator.EQUAL, 2**63 - 1)),
        ("frame <= 9223372036854775808", OneOf(FRAME, (), negated=True)),
        ("frame IN (1, 1.5, 1e30)", OneOf(FRAME, (1,), negated=False)),
        ("age > 3 -- years", Compare(AGE, Operator.GREATER, 3.0)),
    ],
)
def test_each_form_means_one_leaf(written: str, meant: Filter) -> None:
    assert parse(written, FIELDS) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("age < 1 OR age > 2 AND smiling", "age < 1 OR (age > 2 AND smiling)"),
        ("NOT age < 1 OR smiling", "(NOT age < 1) OR smiling"),
        ("NOT (age < 1 OR smiling)", "age >= 1 AND NOT smiling"),
        ("NOT (age < 1 AND NOT smiling)", "age >= 1 OR smiling"),
        ("NOT NOT age < 1", "age < 1"),
        ("((age < 1))", "age < 1"),
        ("age BETWEEN 1 AND 2 AND smiling", "age >= 1 AND age <= 2 AND smiling"),
        ("age NOT BETWEEN 1 AND 2", "age < 1 OR age > 2"),
        ("NOT age NOT BETWEEN 1 AND 2", "age >= 1 AND age <= 2"),
        ("smiling IS TRUE", "smiling AND smiling IS NOT NULL"),
        ("smiling IS NOT TRUE", "NOT smiling OR smiling IS NULL"),
        ("NOT smiling IS FALSE", "smiling OR smiling IS NULL"),
        ("smiling IS NOT UNKNOWN", "smiling IS NOT NULL"),
        ("age < 1 AND (age > 2 AND smiling)", "age < 1 AND age > 2 AND smiling"),
    ],
)
def test_words_bind_as_in_sql(written: str, meant: str) -> None:
    assert parse(written, FIELDS) == parse(meant, FIELDS)


@pytest.mark.parametrize(
    ("written", "character", "words"),
    [
        ("agee > 3", 1, ['no field "agee"', 'did you mean "age"?', "age, any, captured_at"]),
        ("smiling AND Gendr = 'f'", 13, ['did you mean "gender"?']),
        ('gender = "female"', 10, ["text is written in 'single quotes'"]),
        ("age = 'old'", 7, ['"age" is a number', "with text"]),
        ("'x' < age", 1, ['"age" is a number']),
        ("gender = 5", 10, ['"gender" is text', "with a number"]),
        ("gender IN ('f', 5)", 17, ['"gender" is text']),
        ("smiling = 1", 11, ["true or false"]),
        ("smiling > true", 11, ["no order"]),
        ("captured_at > 5", 15, ["a timestamp"]),
        ("captured_at > 'soon'", 15, ["2024-05-31"]),
        ("captured_at > '2024-02-30'", 15, ["2024-05-31"]),
        ("captured_at > '٢٠٢٤-05-31'", 15, ["2024-05-31"]),
        ("captured_at > '0001-01-01 00:00+14:00'", 15, ["years 1 to 9999"]),
        ("captured_at > TIMESTAMP '2024-05-31 10:00+02'", 15, ["TIMESTAMPTZ"]),
        ("captured_at > DATE '2024-05-31 10:00'", 15, ["'2024-05-31'"]),
        ("age BETWEEN 1 AND 'x'", 19, ["a number"]),
        ("tags = 'x'", 8, ["list of tags", "= ANY("]),
        ("tags IN ('x')", 10, ["list of tags"]),
        ("'x' = ANY(gender)", 11, ["not a list of tags"]),
        ("'x' <> ANY(tags)", 8, ["only = goes with ANY"]),
        ("tags = ANY('x')", 8, ["the literal comes first"]),
        ("age LIKE 'x%'", 10, ["not text"]),
        ("gender LIKE 'f'", 13, ["one % at its end"]),
        ("gender LIKE '%f%'", 13, ["one % at its end"]),
        ("gender LIKE 'f_%'", 13, ["one % at its end"]),
        ("gender LIKE 'f\\%'", 13, ["one % at its end"]),
        ("gender LIKE 5", 13, ["text pattern"]),
        ("age = NULL", 7, ["IS NULL"]),
        ("age IN (1, NULL)", 12, ["IS NULL"]),
        ("age BETWEEN NULL AND 3", 13, ["IS NULL"]),
        ("age > 1e400", 7, ["finite"]),
        ("age > 1e", 7, ["no number"]),
        ("age > 0x10", 7, ["a literal"]),
        ("age", 1, ["compare it"]),
        ("age AND smiling", 1, ["compare it"]),
        ("age IS TRUE", 8, ["not true or false"]),
        ("age IS 5", 8, ["NULL, TRUE or FALSE"]),
        ("5 AND smiling", 1, ["decides nothing"]),
        ("5 = 5", 5, ["a field"]),
        ("age = frame", 7, ["literals only"]),
        ("age + 1 > 5", 5, ["expected a comparison"]),
        ("age > 5 + 1", 9, ["AND, OR or the end"]),
        ("age::int = 5", 4, ["expected a comparison"]),
        ("lower(gender) = 'f'", 1, ["functions"]),
        ("age > (SELECT 1)", 7, ["a literal"]),
        ("age == 5", 6, ["a literal"]),
        ("1 < age < 5", 9, ["AND, OR or the end"]),
        ("age IN (1, 2,)", 14, ["a literal"]),
        ("age IN 5", 8, ["expected ("]),
        ("age NOT 5", 9, ["BETWEEN, IN or LIKE"]),
        ("gender = E'f'", 10, ["a literal"]),
        ("gender = $$f$$", 10, ["a literal"]),
        ("gender = 'a' 'b'", 14, ["AND, OR or the end"]),
        ("gender = 'a\0'", 10, ["NUL"]),
        ("gender = 'a", 10, ["not closed"]),
        ("gender = 'it''s' OR gender = 'a", 30, ["not closed"]),
        ("age > 3; DROP TABLE face", 8, ["AND, OR or the end"]),
        ("age > $1", 7, ["a literal"]),
        ("gender ILIKE 'f%'", 8, ["expected a comparison"]),
        ("not age > 3 order by age", 13, ["AND, OR or the end"]),
    ],
)
def test_errors_point_at_the_word_that_is_wrong(
    written: str, character: int, words: list[str]
) -> None:
    with pytest.raises(FilterError) as raised:
        parse(written, FIELDS)
    assert str(raised.value).startswith(f"at character {character}")
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    "written",
    ["", "  ", "age >", "age > 3 AND", "(age > 3", "age IN (1", "NOT", "'x' = ANY(tags", ":"],
)
def test_a_filter_that_ends_too_early_is_told_so(written: str) -> None:
    with pytest.raises(FilterError, match="at the end of the filter: expected"):
        parse(written, FIELDS)


def test_errors_do_not_repeat_texts_for_they_may_be_names_of_persons() -> None:
    for written in ("age = 'Ada'", "person = 'Ada", "person LIKE 'Ada'", "'Ada' = 'Ada'"):
        with pytest.raises(FilterError) as raised:
            parse(written, FIELDS)
        assert "Ada" not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None or raised.value.__suppress_context__


def test_limits_are_named_when_they_are_exceeded() -> None:
    deep = "(" * FILTER_DEPTH_MAX + "smiling" + ")" * FILTER_DEPTH_MAX
    many = ", ".join(str(n) for n in range(FILTER_LEAVES_MAX))
    assert parse(deep, FIELDS) == parse("smiling", FIELDS)
    assert isinstance(parse(f"age IN ({many})", FIELDS), OneOf)
    assert isinstance(parse(" AND ".join(["age > 1"] * FILTER_LEAVES_MAX), FIELDS), And)
    for written, limit in (
        (f"({deep})", "64"),
        ("NOT " * 65 + "smiling", "64"),
        ("(" * 30_000, "64"),
        (f"age IN ({many}) OR smiling", "4,096"),
        (" OR ".join(["smiling"] * (FILTER_LEAVES_MAX + 1)), "4,096"),
        ("gender = '" + "x" * FILTER_BYTES_MAX + "'", "65,536"),
        ("gender = '" + "x" * 10_000 + "'", "8,192"),
    ):
        with pytest.raises(FilterError, match=f"at most {limit} is allowed"):
            parse(written, FIELDS)


WORDS = (
    "age gender smiling tags captured_at frame ( ) , = <> < <= NOT AND OR IN IS NULL LIKE BETWEEN"
    " ANY TRUE 1 -2 1e9 .5 'x' 'x%' '2024-05-31' DATE :p :: \"age\" ' \" -- /* */ $$ E'x' {{ ;"
    " . SELECT 0x1 0b2 U&'x' \\ é \ud800"
)


@settings(max_examples=400, deadline=None)
@given(
    written=st.text(max_size=80)
    | st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join)
)
def test_any_text_is_a_filter_or_a_filter_error(written: str) -> None:
    try:
        filter_ = parse(written, FIELDS)
    except FilterError as error:
        assert str(error).isprintable()  # noqa: PT017 - whatever is raised must be this
    else:
        assert parse(render(filter_), FIELDS) == filter_


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
LITERALS: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.NUMBER: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    FieldType.INTEGER: st.integers(-(2**65), 2**65) | st.decimals(-9, 9, places=1),
    FieldType.TEXT: TEXT,
    FieldType.BOOLEAN: st.booleans(),
    FieldType.TIMESTAMP: st.datetimes(timezones=st.none() | st.just(UTC)),
    FieldType.TAGS: TEXT,
}
PARAMETERS = st.sampled_from(["low", "high", "_x1"]).map(Parameter)


@st.composite
def leaves(draw: st.DrawFn) -> Filter:
    field = Field(*draw(st.sampled_from(list(FIELDS.items()))))
    operand = LITERALS[field.type] | PARAMETERS
    if field.type is FieldType.TAGS:
        made = draw(st.sampled_from([has(field, draw(operand)), is_null(field)]))
    else:
        equality = [Operator.EQUAL, Operator.UNEQUAL]
        operators = equality if field.type is FieldType.BOOLEAN else list(Operator)
        choices = [
            compare(field, draw(st.sampled_from(operators)), draw(operand)),
            one_of(field, draw(st.lists(operand, max_size=4))),
            is_null(field),
        ]
        if field.type is FieldType.TEXT:
            choices.append(like(field, draw(TEXT.map(pattern_of) | PARAMETERS)))
        made = draw(st.sampled_from(choices))
    return negate(made) if draw(st.booleans()) else made


FILTERS = st.recursive(
    leaves() | st.sampled_from([TRUE, FALSE]),
    lambda parts: (
        st.lists(parts, max_size=4).map(all_of)
        | st.lists(parts, max_size=4).map(any_of)
        | parts.map(negate)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(filter_=FILTERS)
def test_writing_and_reading_a_filter_gives_it_back(filter_: Filter) -> None:
    assert parse(render(filter_), FIELDS) == filter_
    assert from_json(json.loads(json.dumps(to_json(filter_))), FIELDS) == filter_


@settings(deadline=None)
@given(filter_=FILTERS)
def test_negating_twice_changes_nothing(filter_: Filter) -> None:
    assert negate(negate(filter_)) == filter_


@settings(deadline=None)
@given(filter_=FILTERS)
def test_trees_are_flat_and_have_their_nots_in_the_leaves(filter_: Filter) -> None:
    inner = [filter_]
    while inner:
        node = inner.pop()
        if isinstance(node, And | Or):
            assert len(node.parts) > 1
            assert type(node) not in map(type, node.parts)
            inner.extend(node.parts)


@pytest.mark.parametrize(
    ("written", "values", "meant"),
    [
        ("age BETWEEN :low AND :high", {"low": 20, "high": 30.5}, "age BETWEEN 20 AND 30.5"),
        ("NOT frame < :f", {"f": 20.5}, "NOT frame < 20.5"),
        ("frame NOT IN (1, :f, 1.5)", {"f": 20.5}, "frame NOT IN (1)"),
        ("NOT smiling = :s", {"s": True}, "NOT smiling"),
        ("gender LIKE :p", {"p": "a\\%%"}, "gender LIKE 'a\\%%'"),
        ("NOT :t = ANY(tags)", {"t": "x"}, "NOT 'x' = ANY(tags)"),
        ("captured_at > :d", {"d": datetime(2024, 5, 31)}, "captured_at > '2024-05-31'"),  # noqa: DTZ001
        ("captured_at > :d", {"d": "2024-05-31"}, "captured_at > '2024-05-31'"),
        ("gender IS NULL", {}, "gender IS NULL"),
    ],
)
def test_binding_equals_writing_the_literals(
    written: str, values: dict[str, Any], meant: str
) -> None:
    filter_ = parse(written, FIELDS)
    assert parameters(filter_) == values.keys()
    assert bind(filter_, values) == parse(meant, FIELDS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ":high, :low; given were: none"),
        ({"low": 1}, "given were: :low"),
        ({"low": 1, "high": 2, "lower": 3}, "given were: :high, :low, :lower"),
        ({"low": 1, "high": None}, ":high is NULL"),
        ({"low": 1, "high": ("a",)}, ":high takes one"),
        ({"low": 1, "high": "x"}, ':high: the field "age" is a number'),
        ({"low": float("nan"), "high": 1}, ":low: numbers are finite"),
        ({"low": 10**400, "high": 1}, ":low: numbers are finite"),
    ],
)
def test_wrong_values_for_parameters_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(FilterError, match=words):
        bind(parse("age BETWEEN :low AND :high", FIELDS), values)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"field": "age", "op": ">=", "value": 20}, "age >= 20"),
        (
            {"field": "age", "op": "between", "value": [20, {"parameter": "h"}]},
            "age BETWEEN 20 AND :h",
        ),
        ({"field": "gender", "op": "NOT IN", "value": ["f", "m"]}, "gender NOT IN ('f', 'm')"),
        ({"field": "gender", "op": "like", "value": "a%"}, "gender LIKE 'a%'"),
        ({"field": "tags", "op": "not has", "value": "x"}, "NOT 'x' = ANY(tags)"),
        ({"field": "age", "op": "is not null"}, "age IS NOT NULL"),
        ({"field": "captured_at", "op": "<", "value": "2024-05-31"}, "captured_at < '2024-05-31'"),
        (
            {"not": {"and": [True, {"field": "smiling", "op": "!=", "value": True}]}},
            "FALSE OR smiling",
        ),
        ({"or": [{"field": "frame", "op": "<", "value": 1.5}, False]}, "frame <= 1 OR FALSE"),
    ],
)
def test_json_means_the_same_as_text(written: Any, meant: str) -> None:
    assert from_json(written, FIELDS) == parse(meant, FIELDS)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (None, r"\$: expected"),
        ([], r"\$: expected"),
        ({"and": [], "or": []}, r"\$: expected"),
        ({"and": [True, 5]}, r"\$\.and\[1\]: expected"),
        ({"not": {"field": "agee", "op": "="}}, r'\$\.not\.field: .*did you mean "age"'),
        ({"field": "age", "op": "~", "value": 1}, r'\$\.op: "~" is none of: =, <>'),
        ({"field": "age", "op": "="}, "takes one"),
        ({"field": "age", "op": "is null", "value": 1}, 'takes no "value"'),
        ({"field": "age", "op": "=", "value": [1]}, "takes one value"),
        ({"field": "age", "op": "in", "value": 1}, "takes a list"),
        ({"field": "age", "op": "between", "value": [1]}, "two values"),
        ({"field": "age", "op": "=", "value": None}, "is null"),
        ({"field": "age", "op": "=", "value": {"parameter": "a b"}}, "parameter"),
        ({"field": "age", "op": "=", "value": {}}, "a value is"),
        ({"field": "age", "op": "=", "value": "x"}, r'\$: the field "age" is a number'),
        ({"field": "age", "op": "=", "value": True}, "true or false"),
        ({"field": "age", "op": "=", "value": float("nan")}, "finite"),
        ({"field": "gender", "op": "=", "value": "\ud800"}, "Unicode"),
        ({"field": "gender", "op": "=", "value": "\0"}, "NUL"),
        ({"field": "age", "op": "=", "value": 1, "x": 1}, "expected"),
    ],
)
def test_wrong_json_is_refused_with_its_path(written: Any, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        from_json(written, FIELDS)


def test_json_keeps_the_limits() -> None:
    deep: Any = True
    for _ in range(FILTER_DEPTH_MAX):
        deep = {"not": deep}
    assert from_json(deep, FIELDS) == TRUE
    for written in (
        {"not": deep},
        {"or": [True] * (FILTER_LEAVES_MAX + 1)},
        {"field": "age", "op": "in", "value": [1] * (FILTER_LEAVES_MAX + 1)},
    ):
        with pytest.raises(FilterError, match="at most"):
            from_json(written, FIELDS)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["and", "or", "not", "field", "op", "value", "parameter"]),
            inner | st.sampled_from(["age", "gender", "tags", "=", "in", "has", "like", "is null"]),
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(written=JSON)
def test_any_json_is_a_filter_or_a_filter_error(written: Any) -> None:
    try:
        filter_ = from_json(written, FIELDS)
    except FilterError:
        return
    assert from_json(to_json(filter_), FIELDS) == filter_


def test_a_moment_is_the_same_in_every_zone() -> None:
    moment = datetime(2024, 5, 31, 12, tzinfo=UTC)
    elsewhere = (moment + timedelta(hours=2)).replace(tzinfo=None).isoformat(sep=" ") + "+02"
    assert parse(f"captured_at = '{elsewhere}'", FIELDS) == compare(TAKEN, Operator.EQUAL, moment)
