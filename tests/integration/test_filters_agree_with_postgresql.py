"""PostgreSQL, the SQL compiler and the in-memory columns find the same rows, NULLs included.

Three readings of each filter meet here: its text as PostgreSQL itself reads it, over a table that
has a column for each field; the parsed tree as `store.where` writes it; and the parsed tree over
columns that were read from the same rows. The literals come from the values in the rows, so that
every boundary is hit.
"""

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select, text

import retrieval.filters.evaluate as evaluating
from retrieval.fields import BUILT_IN, Fields
from retrieval.filters import encoding
from retrieval.filters.columns import ARROW_TYPES, Columns
from retrieval.filters.evaluate import evaluate
from retrieval.filters.json_form import from_json, to_json
from retrieval.filters.parse import parse, render
from retrieval.filters.tree import Filter
from retrieval.store.database import Store
from retrieval.store.images import json_value
from retrieval.store.tables import face
from retrieval.store.where import FACES_WITH_PERSONS, compile_sql, field_columns, where
from retrieval.values import FieldType, Value

ROWS = 240
DECLARED: Fields = {
    "Eye Color": FieldType.TEXT,
    "score": FieldType.NUMBER,
    "count of 'x' %(y)s :z": FieldType.INTEGER,
    "smiling": FieldType.BOOLEAN,
    "seen_at": FieldType.TIMESTAMP,
    "labels": FieldType.TAGS,
}
FIELDS: Fields = {**BUILT_IN, **DECLARED}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
POOLS: dict[FieldType, list[Any]] = {
    FieldType.NUMBER: [
        0.0, -0.0, 0.1, 0.6, -1.5, 20.0, 20.5, 30.0, 1e22, -1e300, 1.7976931348623157e308, 5e-324,
        float(2**53), float(2**53 + 2), float(np.float32(0.6)),
    ],
    FieldType.INTEGER: [
        0, 1, -1, 19, 20, 21, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63 - 2, -(2**63), -(2**63) + 1,
    ],
    FieldType.TEXT: [
        "", "a", "A", "ab", "abc", "a%", "a_c", "a\\c", "it's", "é", "e\u0301", "z", "ż", "\uffff",
        "\U0001f600", " a", "a ", "a\n", "Zoë", "B", "true", "5", "%(x)s", ":low", "$1",
        '"', "\x7f", "\x01",
    ],
    FieldType.BOOLEAN: [True, False],
    FieldType.TIMESTAMP: [
        EPOCH, EPOCH - timedelta(microseconds=1), EPOCH + timedelta(microseconds=1),
        datetime(2024, 5, 31, tzinfo=UTC), datetime(2024, 5, 31, 22, 30, 0, 123456, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
    FieldType.TAGS: [
        (), ("glasses",), ("glasses", "hat"), ("hat", "glasses", "hat"), ("",), ("NULL",),
        ("é", "a,b", '"', "{}"),
    ],
}  # fmt: skip


BY_NUMBERS = {"SCATTER_SHARE": 1, "POINTWISE_SHARE": 1}
BY_BITMAPS = {"SCATTER_SHARE": 2**40, "POINTWISE_SHARE": 2**40, "KEPT_ROWS_MIN": 0}
BY_SINGLE_BITS = BY_NUMBERS | {"SORTED_ROWS_MAX": 0, "SORTED_SHARE": 2**40}
WAYS: list[dict[str, int]] = [{}, BY_NUMBERS, BY_SINGLE_BITS, BY_BITMAPS]
ODD_COLUMNS = {"ORDERED_CODES_MIN": 0, "BYTE_CODES": 2, "BUCKETS_HALF": 4, "NUMBERS_SHARE": 1}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Faces:
    """The same faces in PostgreSQL and in memory."""

    connection: Connection
    ids: np.ndarray[Any, np.dtype[np.int64]]
    columns: Columns
    otherwise: Columns  # the same, with lists of rows and buckets where so few rows have none

    def in_memory(self, filter_: Filter) -> list[int]:
        """What every way to the rows finds: by numbers, single bits, bitmaps, and as it is."""
        found = []
        for columns, way in itertools.product((self.columns, self.otherwise), WAYS):
            with pytest.MonkeyPatch.context() as patch:
                for name, value in way.items():
                    patch.setattr(evaluating, name, value)
                found.append(evaluate(filter_, columns))
        for rows in found:
            assert rows.row_numbers().tolist() == np.flatnonzero(found[0].mask()).tolist()
            assert rows.bitmap().tolist() == found[0].bitmap().tolist()
            assert rows.count == len(rows.row_numbers())
        return [int(face) for face in self.ids[found[0].mask()]]

    def in_sql(self, filter_: Filter) -> list[int]:
        statement = select(face.c.id).select_from(FACES_WITH_PERSONS).where(where(filter_))
        return list(self.connection.scalars(statement.order_by(face.c.id)))

    def as_postgresql_reads(self, written: str) -> list[int]:
        statement = f"SELECT face FROM fields WHERE {written} ORDER BY face"
        return [row[0] for row in self.connection.exec_driver_sql(statement.replace("%", "%%"))]


def random_value(randomness: random.Random, type_: FieldType) -> Value:
    """A value of the pool, or NULL."""
    value: Value = randomness.choice(POOLS[type_])
    return None if randomness.random() < 0.2 else value


def insert_faces(connection: Connection, randomness: random.Random) -> None:
    names = POOLS[FieldType.TEXT]
    connection.execute(text("INSERT INTO collection (name) VALUES ('tests')"))
    connection.execute(
        text("INSERT INTO person (collection_id, name) VALUES (1, :name)"),
        [{"name": name} for name in [*names, None]],
    )
    columns = [n for n in BUILT_IN if n not in ("face", "person", "image_id", "external_id")]
    assignable = {n: BUILT_IN[n] for n in columns if n not in ("person_id", "origin")}
    rows = []
    for number in range(ROWS):
        row: dict[str, Any] = {n: random_value(randomness, t) for n, t in assignable.items()}
        row["tags"] = None if row["tags"] is None else list(row["tags"])
        row["person_id"] = randomness.choice([None, *range(1, len(names) + 2)])
        row["origin"] = randomness.choice(["captured", "generated", "restored"])
        row["external_id"] = randomness.choice([None, f"{number}", f"é{number}"])
        declared = {n: random_value(randomness, t) for n, t in DECLARED.items()}
        # NULL is written as JSON's null or by leaving the attribute out.
        kept = {n: v for n, v in declared.items() if v is not None or randomness.random() < 0.5}
        row["attributes"] = json.dumps({n: json_value(v) for n, v in kept.items()})
        rows.append(row)
    names_listed = ", ".join(rows[0])
    values = ", ".join(f":{name}" for name in rows[0]).replace(
        ":attributes", "CAST(:attributes AS jsonb)"
    )
    connection.execute(
        text(f"INSERT INTO face (collection_id, {names_listed}) VALUES (1, {values})"), rows
    )


@pytest.fixture
def faces(store: Store) -> Iterator[Faces]:
    """240 faces of nasty values."""
    with store.engine.begin() as connection:
        insert_faces(connection, random.Random(4))
        every_field = select(*field_columns(FIELDS)).select_from(FACES_WITH_PERSONS)
        made = f"CREATE TABLE fields AS {compile_sql(every_field)}"
        connection.exec_driver_sql(made.replace("%", "%%"))
        rows = connection.execute(every_field.order_by("face")).all()
        by_field = zip(FIELDS.items(), zip(*rows, strict=True), strict=True)
        table = pa.table(
            {name: pa.array(values, ARROW_TYPES[type_]) for (name, type_), values in by_field}
        )
        ids = table.column("face").to_numpy()
        columns = Columns.from_arrow(table, FIELDS)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ODD_COLUMNS.items():
                patch.setattr(encoding, name, value)
            otherwise = Columns.from_arrow(table, FIELDS)
        yield Faces(connection=connection, ids=ids, columns=columns, otherwise=otherwise)


def quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def named(name: str) -> str:
    return name if name in BUILT_IN else f'"{name}"'


def pattern(beginning: str) -> str:
    escaped = beginning.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return quoted(escaped + "%")


def moment(value: datetime) -> list[str]:
    """Ways to write one moment."""
    naive = value.replace(tzinfo=None)
    ways = [quoted(value.isoformat(sep=" ")), quoted(naive.isoformat())]
    ways += [f"TIMESTAMPTZ {quoted(value.isoformat())}", f"timestamp {quoted(naive.isoformat())}"]
    if 1 < value.year < 9999:
        zone = timezone(timedelta(hours=5, minutes=45))
        ways.append(f"TIMESTAMPTZ {quoted(value.astimezone(zone).isoformat())}")
    if naive.time() == time(0):
        ways += [f"DATE '{naive.date()}'", f"'{naive.date()}'"]
    return ways


def of_pool(type_: FieldType) -> st.SearchStrategy[Any]:
    return st.sampled_from(POOLS[type_])


FINITE = st.floats(allow_nan=False, allow_infinity=False).map(repr)
DECIMALS = st.decimals(-(2**64), 2**64, places=2).map(str)
WRITTEN: dict[FieldType, st.SearchStrategy[str]] = {
    FieldType.NUMBER: of_pool(FieldType.NUMBER).map(repr)
    | of_pool(FieldType.INTEGER).map(str)
    | FINITE
    | st.sampled_from(["9007199254740993", ".6", "20.", "0.60000000000000000001", "+20"]),
    FieldType.INTEGER: of_pool(FieldType.INTEGER).map(str)
    | DECIMALS
    | st.integers(-(2**70), 2**70).map(str)
    | st.sampled_from(["20.5", "20.0", "2e1", "-0.5", "9223372036854775807.5", "1e30", "-1e300"]),
    FieldType.TEXT: (of_pool(FieldType.TEXT) | st.text("aAé%_\\' ", max_size=4)).map(quoted),
    FieldType.BOOLEAN: st.sampled_from(["true", "FALSE", "True"]),
    FieldType.TIMESTAMP: of_pool(FieldType.TIMESTAMP).flatmap(lambda m: st.sampled_from(moment(m))),
}
ORDERED = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])
EQUALITY = st.sampled_from(["=", "<>", "!="])
NOT = st.sampled_from(["", "NOT "])


@st.composite
def predicates(draw: st.DrawFn) -> str:
    name, type_ = draw(st.sampled_from(list(FIELDS.items())))
    field, negation = named(name), draw(NOT)
    if draw(st.integers(0, 9)) == 0:
        return f"{field} IS {negation}NULL"
    if type_ is FieldType.TAGS:
        tag = quoted(draw(st.sampled_from(["glasses", "hat", "", "é", "a,b", "NULL", "none"])))
        return f"{negation}{tag} = ANY({field})"
    written = WRITTEN[type_]
    one, other = draw(written), draw(written)
    compared = draw(EQUALITY if type_ is FieldType.BOOLEAN else ORDERED)
    choices = [
        f"{field} {compared} {one}",
        f"{one} {compared} {field}",
        f"{field} {negation}IN ({', '.join(draw(st.lists(written, min_size=1, max_size=5)))})",
    ]
    if type_ is FieldType.BOOLEAN:
        test = draw(st.sampled_from(["TRUE", "FALSE", "UNKNOWN"]))
        choices += [field, f"NOT {field}", f"{field} IS {negation}{test}"]
    else:
        choices.append(f"{field} {negation}BETWEEN {one} AND {other}")
    if type_ is FieldType.TEXT:
        choices.append(f"{field} {negation}LIKE {pattern(draw(of_pool(type_)))}")
    return draw(st.sampled_from(choices))


def combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Put together mostly without parentheses: precedence is PostgreSQL's to decide."""
    several = st.lists(parts, min_size=2, max_size=4)
    return (
        parts.map(lambda p: f"NOT {p}")
        | parts.map(lambda p: f"({p})")
        | parts.map(lambda p: f"NOT ({p})")
        | several.map(" AND ".join)
        | several.map(" or ".join)
    )


TEXTS = st.recursive(predicates() | st.sampled_from(["TRUE", "false"]), combined, max_leaves=8)


def effort(examples: int) -> settings:
    """That many examples, however long they take; the faces are only read."""
    unsuitable = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=unsuitable)


@effort(40)
@given(batch=st.lists(predicates(), min_size=20, max_size=20))
def test_random_leaves_find_the_rows_that_postgresql_finds(faces: Faces, batch: list[str]) -> None:
    filters = {written: parse(written, FIELDS) for written in batch}
    found = {written: faces.as_postgresql_reads(written) for written in filters}
    assert {written: faces.in_memory(filter_) for written, filter_ in filters.items()} == found
    assert {written: faces.in_sql(filter_) for written, filter_ in filters.items()} == found


@effort(400)
@given(written=TEXTS)
def test_random_filters_find_the_rows_that_postgresql_finds(faces: Faces, written: str) -> None:
    filter_ = parse(written, FIELDS)
    found = faces.as_postgresql_reads(written)
    assert faces.in_memory(filter_) == found
    assert faces.in_sql(filter_) == found
    assert parse(render(filter_), FIELDS) == filter_
    assert from_json(json.loads(json.dumps(to_json(filter_))), FIELDS) == filter_


NASTY = [
    "0.6 < age",
    "0.6 <= age AND 20 >= age AND 20.5 > age",
    "NOT (age < 20.5)",
    "NOT (age < 20.5 AND smiling)",
    "NOT (age < 20.5 OR smiling IS TRUE)",
    "NOT (smiling IS NOT TRUE)",
    "NOT smiling IS FALSE",
    "frame < 20.5",
    "NOT frame < 20.5",
    "frame = 20.5",
    "NOT (frame = 20.5)",
    "frame <> 20.5",
    "NOT (frame <> 20.5)",
    "frame >= 9223372036854775807.5",
    "NOT frame >= 9223372036854775808",
    "frame <= -9223372036854775808",
    "frame = 9007199254740993",
    "frame IN (9007199254740992, 9007199254740993.0, 0.5)",
    "frame NOT IN (0.5, 1e30)",
    "frame IN (0.5, 1e30)",
    "age = 9007199254740993",
    "age = 9007199254740993.0",
    "age = -0.0",
    "age IN (-0.0, 0.6)",
    "age = 0.6",
    "score = 0.6",
    "age NOT IN (0.6, 20)",
    "NOT (age NOT BETWEEN 0.6 AND 20)",
    "age BETWEEN 30 AND 20",
    "age NOT BETWEEN 30 AND 20",
    "person < 'a'",
    "person >= 'Z' AND person < 'z'",
    "person = ''",
    "person > ''",
    "NOT person > ''",
    "person IN ('é', 'e\u0301')",
    "person LIKE '%'",
    "person LIKE 'a\\%%'",
    "person LIKE 'a\\_%'",
    "person LIKE 'a\\\\%'",
    "NOT person LIKE 'a%'",
    "person LIKE '\uffff%'",
    "person > '\uffff'",
    "person IS NULL AND person_id IS NOT NULL",
    "'hat' = ANY(tags)",
    "NOT 'hat' = ANY(tags)",
    "NOT ('hat' = ANY(labels) OR 'glasses' = ANY(tags))",
    "'NULL' = ANY(labels)",
    "labels IS NULL",
    "labels IS NOT NULL AND NOT '' = ANY(labels)",
    "\"Eye Color\" = 'it''s'",
    "\"Eye Color\" < 'B'",
    "\"count of 'x' %(y)s :z\" > 2147483647",
    "captured_at < '1970-01-01'",
    "captured_at <= TIMESTAMPTZ '1970-01-01 02:00+02'",
    "seen_at = DATE '2024-05-31'",
    "seen_at > '9999-12-31 23:59:59.999998+00'",
    "seen_at NOT IN ('1970-01-01', '2024-05-31 22:30:00.123456')",
    "TRUE = smiling OR smiling != true",
    "smiling IN (true, false)",
]


def test_nasty_filters_find_the_rows_that_postgresql_finds(faces: Faces) -> None:
    filters = {written: parse(written, FIELDS) for written in NASTY}
    found = {written: faces.as_postgresql_reads(written) for written in NASTY}
    assert {written: faces.in_memory(filter_) for written, filter_ in filters.items()} == found
    assert {written: faces.in_sql(filter_) for written, filter_ in filters.items()} == found


def test_the_store_reads_its_fields_as_the_types_that_columns_are_made_of(faces: Faces) -> None:
    types = ", ".join(f'pg_typeof("{name}")::text' for name in FIELDS).replace("%", "%%")
    row = faces.connection.exec_driver_sql(f"SELECT {types} FROM fields").first()
    expected = {
        FieldType.NUMBER: "double precision",
        FieldType.INTEGER: "bigint",
        FieldType.TEXT: "text",
        FieldType.BOOLEAN: "boolean",
        FieldType.TIMESTAMP: "timestamp with time zone",
        FieldType.TAGS: "text[]",
    }
    assert row is not None
    assert dict(zip(FIELDS, row, strict=True)) == {n: expected[t] for n, t in FIELDS.items()}


def test_columns_give_back_the_values_that_the_store_holds(faces: Faces) -> None:
    every_field = select(*field_columns(FIELDS)).select_from(FACES_WITH_PERSONS)
    rows = faces.connection.execute(every_field.order_by("face")).all()
    stored = {
        name: [tuple(v) if isinstance(v, list) else v for v in values]
        for name, values in zip(FIELDS, zip(*rows, strict=True), strict=True)
    }
    assert {name: faces.columns.get(name, range(ROWS)) for name in FIELDS} == stored


def test_arrow_reads_the_same_fields_by_plain_sql(faces: Faces, store: Store) -> None:
    faces.connection.commit()
    few = parse("'hat' = ANY(labels) AND \"Eye Color\" <> 'a%'", FIELDS)
    statement = select(*field_columns(FIELDS)).select_from(FACES_WITH_PERSONS).where(where(few))
    with store.arrow() as connection, connection.cursor() as cursor:
        cursor.execute(compile_sql(statement.order_by(face.c.id)))
        columns = Columns.from_arrow(cursor.fetch_arrow_table(), FIELDS)
    places = evaluate(few, faces.columns).row_numbers()
    assert len(places) > 0
    for name in FIELDS:
        assert columns.get(name, range(columns.rows)) == faces.columns.get(name, places), name


def test_texts_compare_in_byte_order_whatever_the_collation_of_the_database() -> None:
    condition = select(face.c.id).where(where(parse("\"Eye Color\" < 'b'", FIELDS)))
    assert 'COLLATE "C"' in compile_sql(condition)
