"""Manifests: joined on path, typed, and checked as a whole before anything is done."""

import os
import tarfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.sources.facts import integer
from indexer.sources.listing import Listing, list_pictures
from indexer.sources.pictures import Facts, Picture, Refused, SourceOptions, read_bytes
from retrieval.errors import SchemaMismatchError, UsageError
from retrieval.values import Box, FieldType


def write(root: Path, text: str | bytes, *, name: str = "faces.csv") -> Path:
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def parquet(root: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), root / "faces.parquet")
    return root / "faces.parquet"


def pictures(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))


def listing_of(metadata: Path, *paths: Path, allow_sensitive: bool = False) -> Listing:
    options = SourceOptions(metadata=metadata, allow_sensitive=allow_sensitive)
    return list_pictures(paths, options=options)


def pictures_of(listing: Listing) -> list[Picture]:
    return [entry for entry in listing if isinstance(entry, Picture)]


def facts_of(listing: Listing) -> dict[str, Facts]:
    return {p.path.name: p.facts for p in pictures_of(listing)}


def problems_of(metadata: Path) -> list[str]:
    with pytest.raises(SchemaMismatchError) as error:
        listing_of(metadata)
    assert str(error.value).startswith(f"{metadata} ")
    return str(error.value).split("\n- ")[1:]


def test_rows_join_on_paths_beside_the_manifest_and_on_absolute_ones(tmp_path: Path) -> None:
    pictures(tmp_path, "p/a.jpg", "p/b.jpg", "p/c.jpg", "p/d.jpg")
    (tmp_path / "link").symlink_to("p")
    text = f"path,n\np/a.jpg,1\n{tmp_path}/p/b.jpg,2\n./link/../p/c.jpg,3\n"
    listing = listing_of(write(tmp_path, text), tmp_path / "link")
    assert {name: dict(facts.attributes) for name, facts in facts_of(listing).items()} == {
        "a.jpg": {"n": 1}, "b.jpg": {"n": 2}, "c.jpg": {"n": 3}, "d.jpg": {},
    }  # fmt: skip


def test_a_manifest_alone_names_the_pictures_in_its_order(tmp_path: Path) -> None:
    pictures(tmp_path, "b.jpg", "a.jpg", "not-named.jpg")
    listing = listing_of(write(tmp_path, "path\nb.jpg\ngone.jpg\na.jpg\nb.jpg\n"))
    assert [read_bytes(picture) for picture in pictures_of(listing)] == [b"b.jpg", b"a.jpg"]
    assert listing.count() == 2
    assert list(listing)[1] == Refused(
        path=tmp_path / "gone.jpg",
        reason="no such file or folder (row 2 of the metadata names it)",
    )


def test_a_row_that_reaches_a_link_from_the_folder_above_keeps_its_facts(tmp_path: Path) -> None:
    pictures(tmp_path, "store/a.jpg", "m/unused.jpg")
    (tmp_path / "store/b.jpg").symlink_to("a.jpg")
    listing = listing_of(write(tmp_path / "m", "path,n\n../store/b.jpg,1\n"))
    assert facts_of(listing)["b.jpg"].attributes == {"n": 1}


def test_rows_of_missing_files_are_refused_after_the_pictures(tmp_path: Path) -> None:
    pictures(tmp_path, "p/a.jpg", "elsewhere.jpg")
    text = "path\ngone.jpg\np/a.jpg\nelsewhere.jpg\n"
    picture, refused = listing_of(write(tmp_path, text), tmp_path / "p")
    assert (picture.path.name, refused.path.name) == ("a.jpg", "gone.jpg")


def test_a_row_can_name_a_member_of_an_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        pictures(tmp_path, "x.jpg")
        archive.add(tmp_path / "x.jpg", "in/x.jpg")
    listing = listing_of(write(tmp_path, "path,person\ns.tar/in/x.jpg,p\n"), tmp_path / "s.tar")
    assert [picture.facts.person for picture in pictures_of(listing)] == ["p"]


def test_reserved_columns_become_facts(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    text = (
        "path,person,source,origin,captured_at,track,frame,tags,box,age,gender,id\n"
        'a.jpg,p1,cam,restored,2024-01-02T03:04:05+02:00,t,007,"hat; smile;","1,2,3.5,4",31,f,x9\n'
        "b.jpg,,,,2024-01-02,,,,,,,\n"
    )
    assert facts_of(listing_of(write(tmp_path, text))) == {
        "a.jpg": Facts(
            person="p1", source="cam", origin="restored",
            captured_at=datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC), track="t", frame=7,
            tags=("hat", "smile"), box=Box(left=1, top=2, right=3.5, bottom=4),
            age=31.0, gender="f", external_id="x9",
        ),
        "b.jpg": Facts(
            origin="captured", captured_at=datetime(2024, 1, 2, tzinfo=UTC),
            captured_at_assumed_utc=True,
        ),
    }  # fmt: skip


def test_captions_are_facts_and_go_before_those_beside_the_picture(tmp_path: Path) -> None:
    pictures(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    for name in ("1.txt", "3.txt"):
        (tmp_path / name).write_text("beside")
    facts = facts_of(listing_of(write(tmp_path, "path,caption\n1.jpg,a hat\n2.jpg,\n3.jpg,\n")))
    assert {name: one.captions for name, one in facts.items()} == {
        "1.jpg": ("a hat",), "2.jpg": None, "3.jpg": ("beside",)
    }  # fmt: skip
    table = {
        "path": ["1.jpg", "2.jpg"],
        "caption": ["a hat", None],
        "captions": [["with glasses", "a hat", None], [" smiling", "", "12 34"]],
    }
    facts = facts_of(listing_of(parquet(tmp_path, table)))
    assert {name: one.captions for name, one in facts.items()} == {
        "1.jpg": ("a hat", "with glasses"), "2.jpg": ("smiling",)
    }  # fmt: skip
    table = {"path": ["1.jpg"] * 2, "captions": [["a"], ["b" * 9_000]]}
    assert problems_of(parquet(tmp_path, table)) == [
        "column 'captions' holds a NUL, or text of more than 8,192 bytes: row 2",
        "a path that an earlier row has with other values: row 2",
    ]
    table = {"path": ["1.jpg"], "captions": [[f"a{n}" for n in range(101)]]}
    assert problems_of(parquet(tmp_path, table)) == [
        "column 'captions' holds more than 100 captions: row 1"
    ]


def test_the_manifest_is_right_before_folder_names_and_options(tmp_path: Path) -> None:
    pictures(tmp_path, "Ann/a_1.jpg", "Ann/b_2.jpg")
    metadata = write(tmp_path, "path,person,source,track\nAnn/a_1.jpg,Bo,film,t\n")
    options = SourceOptions(
        metadata=metadata, person_from_folder=True, frames=True, source="disk", origin="generated"
    )
    a, b = pictures_of(list_pictures([tmp_path], options=options))
    assert a.facts == Facts(person="Bo", source="film", origin="generated", track="t", frame=1)
    assert b.facts == Facts(person="Ann", source="disk", origin="generated", track="Ann", frame=2)


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-20", "0"], FieldType.INTEGER, [1, -20, 0]),
        (["1", "", "3"], FieldType.INTEGER, [1, None, 3]),
        (["1", "2.5", "-1e3"], FieldType.NUMBER, [1.0, 2.5, -1000.0]),
        (["true", "FALSE"], FieldType.BOOLEAN, [True, False]),
        (["1", "true"], FieldType.TEXT, ["1", "true"]),
        (["1.5", "x"], FieldType.TEXT, ["1.5", "x"]),
        (["007", "8"], FieldType.TEXT, ["007", "8"]),
        (["99999999999999999999"], FieldType.TEXT, ["99999999999999999999"]),
        ([str(2**63 - 1), str(2**63)], FieldType.TEXT, [str(2**63 - 1), str(2**63)]),
        (["1e999"], FieldType.TEXT, ["1e999"]),
        (["nan", "1"], FieldType.TEXT, ["nan", "1"]),
        (["2024-02-29", "2024-01-01 10:00:00.5Z"], FieldType.TIMESTAMP,
         [datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 1, 1, 10, 0, 0, 500_000, tzinfo=UTC)]),
        (["2023-02-29"], FieldType.TEXT, ["2023-02-29"]),
        (["a;b", ";"], FieldType.TEXT, ["a;b", ";"]),
        (["", ""], None, [None, None]),
    ],
)  # fmt: skip
def test_a_csv_column_gets_the_narrowest_type_that_fits_all_its_cells(
    tmp_path: Path, cells: Any, kind: FieldType | None, values: list[Any]
) -> None:
    names = [f"{i}.jpg" for i in range(len(cells))]
    pictures(tmp_path, *names)
    rows = "".join(f"{name},{cell}\n" for name, cell in zip(names, cells, strict=True))
    listing = listing_of(write(tmp_path, "path,x\n" + rows))
    assert listing.attribute_types == ({"x": kind} if kind else {})
    found = [facts.attributes.get("x") for facts in facts_of(listing).values()]
    assert [(type(value), value) for value in found] == [(type(v), v) for v in values]


PARQUET = [
    (pa.array([1], pa.int8()), FieldType.INTEGER, 1),
    (pa.array([1], pa.uint64()), FieldType.INTEGER, 1),
    (pa.array([1.5], pa.float32()), FieldType.NUMBER, 1.5),
    (pa.array([float("nan")]), FieldType.NUMBER, None),
    (pa.array([Decimal("1.25")]), FieldType.NUMBER, 1.25),
    (pa.array([False]), FieldType.BOOLEAN, False),
    (pa.array(["x"]).dictionary_encode(), FieldType.TEXT, "x"),
    (pa.array(["x"], pa.large_string()), FieldType.TEXT, "x"),
    (pa.array([date(2024, 5, 31)]), FieldType.TIMESTAMP, datetime(2024, 5, 31, tzinfo=UTC)),
    (pa.array([1], pa.timestamp("ns")), FieldType.TIMESTAMP, datetime(1970, 1, 1, tzinfo=UTC)),
    (
        pa.array([0], pa.timestamp("s", tz="Europe/Berlin")),
        FieldType.TIMESTAMP,
        datetime(1970, 1, 1, tzinfo=UTC),
    ),
    (pa.array([["a", None, "b"]]), FieldType.TAGS, ("a", "b")),
    (pa.array([None], pa.string()), FieldType.TEXT, None),
]


@pytest.mark.parametrize(
    ("cells", "kind", "value"), PARQUET, ids=[str(c.type) for c, *_ in PARQUET]
)
def test_a_parquet_column_keeps_its_type(
    tmp_path: Path, cells: Any, kind: FieldType | None, value: Any
) -> None:
    pictures(tmp_path, "a.jpg")
    listing = listing_of(parquet(tmp_path, {"path": ["a.jpg"], "x": cells}))
    assert listing.attribute_types == {"x": kind}
    assert facts_of(listing)["a.jpg"].attributes == ({} if value is None else {"x": value})


def test_reserved_columns_of_parquet_may_be_typed(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    columns = {
        "path": ["a.jpg", "b.jpg"],
        "person": pa.array([17, None], pa.int32()),
        "frame": pa.array([12.0, float("nan")]),  # as pandas writes whole numbers with a gap
        "captured_at": pa.array([1_500_000_001, None], pa.timestamp("ns")),
        "tags": [["hat", None], None],
        "box": pa.array([[0, 0, 9, 9], None], pa.list_(pa.float32(), 4)),
        "age": pa.array([31, None], pa.uint8()),
    }
    found = facts_of(listing_of(parquet(tmp_path, columns)))
    assert found["a.jpg"] == Facts(
        person="17", frame=12, tags=("hat",), box=Box(left=0, top=0, right=9, bottom=9), age=31.0,
        captured_at=datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC),
        captured_at_assumed_utc=True, origin="captured",
    )  # fmt: skip
    assert found["b.jpg"] == Facts(origin="captured")


def test_sensitive_columns_are_left_out_with_a_notice_unless_asked_for(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    metadata = write(tmp_path, "path,Emotion,hair\na.jpg,sad,red\n")
    listing = listing_of(metadata)
    assert facts_of(listing)["a.jpg"].attributes == {"hair": "red"}
    assert listing.notices == (f"{metadata}: column 'Emotion' was left out: it is sensitive",)
    asked = listing_of(metadata, allow_sensitive=True)
    assert facts_of(asked)["a.jpg"].attributes == {"Emotion": "sad", "hair": "red"}
    assert asked.notices == ()


def test_every_problem_of_a_csv_is_listed_at_once_and_no_cell_is_repeated(tmp_path: Path) -> None:
    text = (
        "path,person,origin,frame,box,captured_at,quality,1st,age,id,long\n"
        f"a.jpg,Ann,captured,1,,2024-01-01,1,1,3,k,{'x' * 9000}\n"
        'a.jpg,Bo,painted,one,"1,2,3",31.12.2024,1,1,old,,\n'
        'b.jpg,Cy,drawn,2,"5,0,1,9",2024-13-01,1,1,inf,k,\n'
    )
    metadata = write(tmp_path, text)
    assert sorted(problems_of(metadata)) == sorted([
        "column 'origin' holds another word than captured, generated, restored: row 2 and 1 more",
        "column 'frame' holds no whole number: row 2",
        "column 'box' holds no box: four numbers left,top,right,bottom: row 2",
        ("column 'box' holds a box whose left is not below its right, or top not below "
        "bottom: row 3"),
        ("column 'captured_at' holds no ISO 8601 date, such as 2024-05-31T12:00:00Z: "
        "row 2 and 1 more"),
        "column 'age' holds no finite number: row 2 and 1 more",
        "column 'quality' is what Facedex itself finds out: rename it or drop it",
        "'1st' cannot name an attribute: begin with a letter or _, at most 63 characters",
        "column 'long' holds text of 9,000 bytes; at most 8,192 is allowed",
        "column 'id' has a value that an earlier picture has: row 3",
        "a path that an earlier row has with other values: row 2",
    ])  # fmt: skip


def test_every_problem_of_a_parquet_is_listed_at_once(tmp_path: Path) -> None:
    columns = {
        "path": ["a.jpg", None, ""],
        "person": [1.5, None, 2.0],
        "track": [True, None, None],
        "tags": [[1], [2], []],
        "vector": [[0.1], [0.2], [0.3]],
        "deep": [{"a": 1}] * 3,
        "bytes": [b"1"] * 3,
        "inf": [float("inf"), 0.0, 1.0],
        "huge": pa.array([2**64 - 1] * 3, pa.uint64()),
        "nul": ["a\0b"] * 3,
        "far": pa.array([10**18] * 3, pa.timestamp("us")),
        "numbers": [[1], [2], [3]],
    }
    assert sorted(problems_of(parquet(tmp_path, columns))) == sorted([
        "column 'path' holds no path: row 2 and 1 more",
        "column 'person' holds no text: row 1 and 1 more",
        "column 'track' holds no text: row 1",
        "column 'tags' holds no list of text: row 1 and 1 more",
        "column 'vector' is what Facedex itself finds out: rename it or drop it",
        ("column 'deep' has the type struct<a: int64>, "
        "which no attribute has: convert it or drop it"),
        "column 'bytes' has the type binary, which no attribute has: convert it or drop it",
        "column 'inf' holds infinite numbers",
        "column 'huge' holds a value that is out of range",
        "column 'nul' holds text with a NUL in it",
        "column 'far' holds a time before the year 1 or after 9999",
        ("column 'numbers' has the type list<element: int64>, "
        "which no attribute has: convert or drop it"),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,age\na.jpg,3\n", "it has no column 'path'; its columns are: file, age"),
        ("path,x,x\na.jpg,1,2\n", "column 'x' stands there 2 times"),
        (
            "path,x\na.jpg\nb.jpg,1\nc.jpg,1,2\n",
            "more or fewer cells than the heading: row 1 and 1 more",
        ),
        (
            "path,id,external_id\na.jpg,1,2\n",
            "columns 'id' and 'external_id' mean the same: drop one",
        ),
        (
            "path,\na.jpg,1\n",
            "'' cannot name an attribute: begin with a letter or _, at most 63 characters",
        ),
        (
            "path," + ",".join(f"a{i}" for i in range(257)) + "\n",
            "the number of attributes is 257; at most 256 is allowed",
        ),
    ],
)
def test_a_heading_that_does_not_fit_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    assert problems_of(write(tmp_path, text)) == [problem]


def test_the_same_row_twice_is_no_conflict(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    text = "path,person,x\na.jpg,p,1.5\n./a.jpg,p,1.5\n"
    assert len(list(listing_of(write(tmp_path, text)))) == 1
    columns = {"path": ["a.jpg"] * 2, "x": [float("nan")] * 2, "age": [float("nan"), None]}
    assert len(list(listing_of(parquet(tmp_path, columns)))) == 1


def test_names_with_line_breaks_and_stray_bytes_join(tmp_path: Path) -> None:
    for name in [b"two\nlines.jpg", b"latin\xe9.jpg"]:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    text = b'\xef\xbb\xbfpath,n\r\n"two\nlines.jpg",1\r\nlatin\xe9.jpg,2\r\n'
    listing = listing_of(write(tmp_path, text), tmp_path)
    assert {read_bytes(p): p.facts.attributes["n"] for p in pictures_of(listing)} == {
        b"two\nlines.jpg": 1, b"latin\xe9.jpg": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b""),
        ("a.csv", b"path,x\na.jpg,\xff\n"),
        ("a.csv", b"\xff,x\n1,2\n"),
        ("a.parquet", b"x"),
        ("a.parquet", b"PAR1" + b"x" * 100 + b"PAR1"),
    ],
)
def test_what_cannot_be_read_as_a_table_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises((SchemaMismatchError, UsageError), match=name):
        listing_of(write(tmp_path, data, name=name))


def test_a_manifest_that_is_missing_or_a_folder_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        listing_of(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match="a folder"):
        listing_of(tmp_path)


def test_a_heading_alone_names_nothing(tmp_path: Path) -> None:
    assert list(listing_of(write(tmp_path, "path,person,x\n"))) == []


def test_a_broken_manifest_is_found_before_the_first_picture(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    with pytest.raises(SchemaMismatchError):
        listing_of(write(tmp_path, "path,origin\na.jpg,painted\n"), tmp_path)


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=5))
def test_whole_numbers_survive_csv(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int]
) -> None:
    root = tmp_path_factory.mktemp("numbers")
    names = [f"{i}.jpg" for i in range(len(numbers))]
    pictures(root, *names)
    text = "path,x,frame\n" + "".join(f"{n},{x},{x}\n" for n, x in zip(names, numbers, strict=True))
    found = facts_of(listing_of(write(root, text))).values()
    assert [facts.attributes["x"] for facts in found] == numbers
    assert [facts.frame for facts in found] == numbers == [integer(str(x)) for x in numbers]
