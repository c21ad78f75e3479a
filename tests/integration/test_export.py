"""Exporting: what was stored, bit for bit, whole or not at all; and in again without a change."""

import itertools
import os
import resource
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from indexer.bulk import exporting
from indexer.bulk.exporting import ExportReport, export_file
from indexer.bulk.importing import ImportRequest, import_file
from retrieval.errors import FacedexError, StoreUnavailableError, UsageError
from retrieval.filters.parse import parse
from retrieval.store.collections import (
    collection_named,
    collection_or_new,
    fields_of,
    space_named,
    space_or_new,
)
from retrieval.store.database import Store
from retrieval.store.images import FaceFacts, NewImage, add_images
from retrieval.values import (
    Box,
    Detection,
    Estimate,
    FaceReading,
    Pose,
    Quality,
    Space,
    SpaceId,
)

numbers = itertools.count()


def put_in(store: Store, path: Path, *, collection: str) -> None:
    report = import_file(store, ImportRequest(path=path, collection=collection, space="s"))
    assert report.refused == ()


def taken_out(
    store: Store, path: Path, *, collection: str, where: str | None = None
) -> tuple[pa.Table, ExportReport]:
    with store.reading() as connection:
        tenant = collection_named(connection, collection)
        space = space_named(connection, "s")
        filter_ = None if where is None else parse(where, fields_of(connection, tenant))
    report = export_file(store, path, collection=tenant, space=space, where=filter_)
    return pq.read_table(path), report


def assert_in_and_out_is_the_same(store: Store, path: Path, *, collection: str) -> pa.Table:
    """Export, import into a new collection, export: the same table, and the same bytes."""
    first, report = taken_out(store, path, collection=collection)
    assert report.rows == len(first)
    put_in(store, path, collection=f"{collection}-again")
    second, _ = taken_out(store, path.with_suffix(".again"), collection=f"{collection}-again")
    assert second.schema.equals(first.schema)
    assert second.equals(first)
    assert path.read_bytes() == path.with_suffix(".again").read_bytes()
    return first


TEXTS = st.none() | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6
)
NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
INTS = st.none() | st.integers(-(2**63), 2**63 - 1)
TIMES = st.none() | st.datetimes(
    datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)  # noqa: DTZ001
)  # fmt: skip
TAGS = st.none() | st.lists(TEXTS.filter(lambda t: t is not None), max_size=3)
SENTENCES = st.text(st.characters(categories=["L", "S"]), min_size=1, max_size=4)
CAPTIONS = st.none() | st.lists(
    SENTENCES.filter(lambda t: any(map(str.isalpha, t))), min_size=1, max_size=3, unique=True
).map(sorted)
POINTS = st.floats(-1e6, 1e6, width=32)
COLUMNS: dict[str, tuple[st.SearchStrategy[Any], pa.DataType]] = {
    "person": (TEXTS, pa.string()),
    "image": (TEXTS, pa.string()),
    "box": (st.none() | st.lists(POINTS, min_size=4, max_size=4), pa.list_(pa.float32(), 4)),
    "landmarks": (
        st.none() | st.lists(POINTS, min_size=10, max_size=10),
        pa.list_(pa.float32(), 10),
    ),
    "quality": (NUMBERS, pa.float64()),
    "age": (NUMBERS, pa.float64()),
    "gender": (TEXTS, pa.string()),
    "origin": (st.sampled_from(["captured", "generated", "restored"]), pa.string()),
    "captured_at": (TIMES, pa.timestamp("us", "UTC")),
    "track": (TEXTS, pa.string()),
    "frame": (INTS, pa.int64()),
    "tags": (TAGS, pa.list_(pa.string())),
    "vector_norm": (st.none() | st.floats(0.125, 64, width=32), pa.float32()),
    "a text": (TEXTS, pa.string()),
    "a number": (NUMBERS, pa.float64()),
    "größe's": (INTS, pa.int64()),
    "true%s": (st.none() | st.booleans(), pa.bool_()),
    "time": (TIMES, pa.timestamp("us", "UTC")),
    "labels": (TAGS, pa.list_(pa.string())),
    "captions": (CAPTIONS, pa.list_(pa.string())),
}  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 6))
    raw = np.random.default_rng(draw(st.integers(0, 99))).standard_normal((rows, 5))
    unit = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float16)
    ids = draw(
        st.lists(
            TEXTS, min_size=rows, max_size=rows, unique_by=lambda t: object() if t is None else t
        )
    )
    columns: dict[str, pa.Array] = {
        "id": pa.array(ids, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(unit.reshape(-1)), 5),
    }
    for name in draw(st.lists(st.sampled_from(list(COLUMNS)), unique=True)):
        values, type_ = COLUMNS[name]
        drawn = draw(st.lists(values, min_size=rows, max_size=rows))
        columns[name] = pa.array(drawn, type_)
    return pa.table(columns)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(table=tables())
def test_export_then_import_is_the_identity(store: Store, tmp_path: Path, table: pa.Table) -> None:
    name = f"c{next(numbers)}"
    path = tmp_path / f"{name}.parquet"
    pq.write_table(table, path)
    put_in(store, path, collection=name)
    exported = assert_in_and_out_is_the_same(store, tmp_path / f"{name}.out", collection=name)
    for column in table.column_names:
        given = table[column].to_pylist()
        if column == "captions" and not any(given):
            assert column not in exported.column_names
        else:
            assert exported[column].to_pylist() == given, column
    assert exported.schema.field("vector").type == pa.list_(pa.float16(), 5)


def reading(seed: int, *, age: float | None = None) -> FaceReading:
    random = np.random.default_rng(seed)
    vector = random.standard_normal(5).astype(np.float32)
    estimates = {} if age is None else {
        "age": Estimate(value=age, provider="some model", confidence=0.1 + 0.2)
    }  # fmt: skip
    return FaceReading(
        detection=Detection(
            box=Box(left=0.1, top=2.0, right=30.0, bottom=40.0),
            landmarks=random.random((5, 2)).astype(np.float32),
            score=0.9,
        ),
        pose=Pose(yaw=-3.25, pitch=1e-9, roll=0.0),
        quality=Quality(total=0.7, size=0.1, sharpness=0.2, frontality=0.3, detector_score=0.9,
                        vector_norm=21.7),
        vector=vector / np.linalg.norm(vector),
        estimates=estimates,
    )  # fmt: skip


def test_faces_of_pictures_survive_with_the_paths_of_their_pictures(
    store: Store, tmp_path: Path
) -> None:
    new = Space(id=SpaceId(0), name="s", dimension=5, model_sha256="ab" * 32, licence="l",
                commercial=False)  # fmt: skip
    facts = FaceFacts(person="Ann", captured_at=datetime(2020, 1, 1, 1,
                      tzinfo=timezone(timedelta(hours=5))), tags=("x", ""))  # fmt: skip
    places = [(b"/p/\xff.jpg", None), ("/p/é.jpg".encode(), None), (b"/p/a.tar", "in/b.jpg")]
    pictures = [
        NewImage(sha256=bytes([n]) * 32, path=path, member=member, bytes=1, width=2, height=3,
                 format="JPEG", captured_at_assumed_utc=False,
                 faces=[(reading(n, age=n * 10.5), facts), (reading(n + 9), FaceFacts())])
        for n, (path, member) in enumerate(places)
    ]  # fmt: skip
    with store.writing() as connection:
        tenant = collection_or_new(connection, "c")
        space = space_or_new(connection, new)
        add_images(connection, pictures, collection=tenant, space=space)
    table = assert_in_and_out_is_the_same(store, tmp_path / "out.parquet", collection="c")
    want = ["/p/\\xff.jpg", "/p/é.jpg", "/p/a.tar!in/b.jpg"]
    assert table["image"].to_pylist() == [path for path in want for _ in range(2)]
    assert table["person"].to_pylist() == ["Ann", None] * 3
    assert table["vector_norm"].to_pylist() == [float(np.float32(21.7))] * 6
    assert table["age"].to_pylist() == [0.0, None, 10.5, None, 21.0, None]
    assert '"some model"' in table["provenance"][0].as_py()
    with store.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM image")) == 3


def written(path: Path, *, rows: int, dimension: int = 4) -> Path:
    raw = np.random.default_rng(0).standard_normal((rows, dimension)).astype(np.float32)
    columns = {
        "id": [f"n{n}" for n in range(rows)],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(raw.reshape(-1)), dimension),
        "n": list(range(rows)),
        "half": ["even", "odd"] * (rows // 2),
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_a_filter_chooses_the_rows_in_order_of_their_faces(store: Store, tmp_path: Path) -> None:
    put_in(store, written(tmp_path / "in.parquet", rows=20), collection="c")
    put_in(store, tmp_path / "in.parquet", collection="another")
    table, report = taken_out(
        store, tmp_path / "out.parquet", collection="c", where="n >= 7 AND half = 'odd'"
    )
    assert table["id"].to_pylist() == [f"n{n}" for n in range(7, 20, 2)]
    assert (report.rows, report.without_vector, report.space) == (7, 0, "s")
    nothing, report = taken_out(store, tmp_path / "out.parquet", collection="c", where="n < 0")
    assert (len(nothing), report.rows) == (0, 0)
    assert nothing.schema.equals(table.schema)


def test_faces_without_a_vector_in_the_space_are_counted(store: Store, tmp_path: Path) -> None:
    put_in(store, written(tmp_path / "in.parquet", rows=20), collection="c")
    with store.writing() as connection:
        connection.execute(text("DELETE FROM vector WHERE face_id <= 5"))
    _, report = taken_out(store, tmp_path / "out.parquet", collection="c", where="half = 'odd'")
    assert (report.rows, report.without_vector) == (8, 2)


def test_a_folder_that_is_not_there_is_said(store: Store, tmp_path: Path) -> None:
    put_in(store, written(tmp_path / "in.parquet", rows=2), collection="c")
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        taken_out(store, tmp_path / "missing" / "out.parquet", collection="c")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot be written: Is a directory"):
        taken_out(store, tmp_path / "folder", collection="c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "in.parquet"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 100 kB: to a program that looks like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_file_before_and_no_half_one(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    put_in(store, written(tmp_path / "in.parquet", rows=2_000, dimension=64), collection="c")
    (tmp_path / "out.parquet").write_bytes(b"the file before")
    request.getfixturevalue("small_files")
    with pytest.raises(FacedexError, match="is full: free space"):
        taken_out(store, tmp_path / "out.parquet", collection="c")
    assert (tmp_path / "out.parquet").read_bytes() == b"the file before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_truly_full_disk_is_said_too(store: Store, tmp_path: Path) -> None:
    put_in(store, written(tmp_path / "in.parquet", rows=2_000, dimension=64), collection="c")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this root may not mount")
    try:
        with pytest.raises(FacedexError, match="is full: free space"):
            taken_out(store, disk / "out.parquet", collection="c")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_connection_cut_in_the_middle_leaves_no_half_file(
    store: Store, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 24 MB: the second of two batches is still in the server when the first one is here.
    put_in(store, written(tmp_path / "in.parquet", rows=3_000, dimension=4096), collection="c")
    as_ours, batches = exporting._as_ours, []

    def cut_after_the_first(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        batches.append(len(batch))
        with psycopg.connect(database_url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return as_ours(batch, schema)

    monkeypatch.setattr(exporting, "_as_ours", cut_after_the_first)
    with pytest.raises(StoreUnavailableError, match="Export again"):
        taken_out(store, tmp_path / "out.parquet", collection="c")
    assert 0 < sum(batches) < 3_000
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
