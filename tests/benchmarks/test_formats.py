"""What tiny writers write is what the readers read; what is cut short is refused by name."""

import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.filtered.data import formats
from retrieval.errors import SchemaMismatchError, UnusableVectorError, UsageError
from retrieval.values import FieldType, unit_rows

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.standard_normal((90, 6)).astype(np.float32)
ASKED = RANDOM.standard_normal((9, 6)).astype(np.float32)
UNIT, UNIT_ASKED = unit_rows(ROWS), unit_rows(ASKED)
TUNED = [2, 5, 8]  # every third
REPORTED = [0, 1, 3, 4, 6, 7]


def _bin(path: Path, rows: np.ndarray) -> Path:
    path.write_bytes(struct.pack("<II", *rows.shape) + rows.tobytes())
    return path


def _vecs(path: Path, rows: np.ndarray) -> Path:
    head = struct.pack("<i", rows.shape[1])
    path.write_bytes(b"".join(head + row.tobytes() for row in rows))
    return path


def _spmat(path: Path, tags: list[list[int]], columns: int) -> Path:
    flat = np.array([tag for row in tags for tag in row], "<i4")
    ends = np.cumsum([0, *map(len, tags)]).astype("<i8")
    head = struct.pack("<qqq", len(tags), columns, len(flat))
    path.write_bytes(head + ends.tobytes() + flat.tobytes() + np.ones(len(flat), "<f4").tobytes())
    return path


def _lists(rows: np.ndarray, type_: pa.DataType) -> pa.Array:
    return pa.array(list(rows), type_)


def test_an_hdf5_file_of_ann_benchmarks(tmp_path: Path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "glove.hdf5", "w") as file:
        file["train"], file["test"] = ROWS, ASKED
    data = formats.ann_benchmarks(tmp_path / "glove.hdf5")
    assert data.name == "glove"
    assert np.array_equal(data.vectors, UNIT)
    assert np.array_equal(data.queries, UNIT_ASKED[REPORTED])
    assert np.array_equal(data.tuning, UNIT_ASKED[TUNED])
    assert data.table.column_names == ["slot", "position"]
    assert data.query_table.num_rows == 6
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["rows"] = ROWS
    with pytest.raises(UsageError, match="no whole file of ann-benchmarks"):
        formats.ann_benchmarks(tmp_path / "other.hdf5")


@pytest.mark.parametrize(
    ("suffix", "type_"), [(".fbin", "<f4"), (".u8bin", "u1"), (".i8bin", "i1")]
)
def test_rows_of_big_ann(tmp_path: Path, suffix: str, type_: str):
    rows, asked = ((40 * np.abs(some) + 1).astype(type_) for some in (ROWS, ASKED))
    data = formats.big_ann(
        _bin(tmp_path / f"base{suffix}", rows), _bin(tmp_path / f"query{suffix}", asked), rows=50
    )
    assert np.array_equal(data.vectors, unit_rows(rows[:50]))
    assert np.array_equal(data.tuning, unit_rows(asked[TUNED]))


def test_the_filter_track_of_big_ann(tmp_path: Path):
    tags = [[place % 7, 7 + place % 3] for place in range(90)]
    asked = [[place % 7] * (1 + place % 2) for place in range(9)]
    data = formats.big_ann(
        _bin(tmp_path / "base.fbin", ROWS),
        _bin(tmp_path / "query.fbin", ASKED),
        row_tags=_spmat(tmp_path / "base.spmat", tags, 10),
        query_tags=_spmat(tmp_path / "query.spmat", asked, 10),
        rows=80,
    )
    assert data.fields["tags"] is FieldType.TAGS
    assert data.table["tags"].to_pylist() == [[str(tag) for tag in row] for row in tags[:80]]
    assert data.tuning_table["tags"].to_pylist() == [
        [str(tag) for tag in asked[place]] for place in TUNED
    ]


@pytest.mark.parametrize("named", ["train.parquet", "shuffle_train-{}-of-2.parquet"])
def test_a_folder_of_vector_db_bench(tmp_path: Path, named: str):
    order = RANDOM.permutation(90)
    parts = [order] if named == "train.parquet" else [order[:40], order[40:]]
    for number, part in enumerate(parts):
        table = {"id": part, "emb": _lists(ROWS[part], pa.list_(pa.float32()))}
        pq.write_table(pa.table(table), tmp_path / named.format(number))
    asked = {"id": np.arange(9), "emb": _lists(ASKED, pa.list_(pa.float64()))}
    pq.write_table(pa.table(asked), tmp_path / "test.parquet")
    labels = {"id": np.arange(89, -1, -1), "labels": [f"label_{n}p" for n in range(89, -1, -1)]}
    pq.write_table(pa.table(labels), tmp_path / "scalar_labels.parquet")
    data = formats.vector_db_bench(tmp_path)
    assert np.array_equal(data.vectors, UNIT)
    assert data.table["number"].to_pylist() == list(range(90))
    assert data.table["labels"].to_pylist() == [f"label_{number}p" for number in range(90)]
    assert len(formats.vector_db_bench(tmp_path, rows=10).vectors) == 10


def test_vector_db_bench_files_that_do_not_fit_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="holds no train"):
        formats.vector_db_bench(tmp_path)
    pq.write_table(pa.table({"id": [0, 0], "emb": [[1.0], [2.0]]}), tmp_path / "train.parquet")
    with pytest.raises(UsageError, match="twice"):
        formats.vector_db_bench(tmp_path)
    pq.write_table(pa.table({"id": [0, 1], "emb": [[1.0], [2.0, 1.0]]}), tmp_path / "train.parquet")
    with pytest.raises(UsageError, match="of the lengths"):
        formats.vector_db_bench(tmp_path)
    pq.write_table(pa.table({"number": [0]}), tmp_path / "train.parquet")
    with pytest.raises(SchemaMismatchError, match="lacks the columns: emb, id"):
        formats.vector_db_bench(tmp_path)


def test_vecs_with_attributes_as_json_lines(tmp_path: Path):
    given = [
        {"city": f"c{n}", "year": n, "score": n / 2, "seen": "2024-05-31T00:00:00Z", "tags": ["a"]}
        for n in range(90)
    ]
    given[1].pop("year")
    lines = tmp_path / "base.jsonl"
    lines.write_text("\n".join(map(json.dumps, given)))
    data = formats.plain_vectors(
        _vecs(tmp_path / "base.fvecs", ROWS), _vecs(tmp_path / "q.fvecs", ASKED), attributes=lines
    )
    assert np.array_equal(data.vectors, UNIT)
    assert data.table["year"].to_pylist()[:3] == [0, None, 2]
    assert data.table["seen"][0].as_py() == datetime(2024, 5, 31, tzinfo=UTC)
    assert {data.fields[name] for name in ("seen", "city", "score", "tags")} == {
        FieldType.TIMESTAMP, FieldType.TEXT, FieldType.NUMBER, FieldType.TAGS
    }  # fmt: skip
    nearest = (UNIT_ASKED[REPORTED] @ UNIT.T).argmax(axis=1)
    assert data.query_table["city"].to_pylist() == [f"c{row}" for row in nearest]


def test_bytes_and_neighbours_in_vecs(tmp_path: Path):
    rows = (10 * np.abs(ROWS) + 1).astype(np.uint8)
    data = formats.plain_vectors(
        _vecs(tmp_path / "b.bvecs", rows), _vecs(tmp_path / "q.bvecs", rows[:9])
    )
    assert np.array_equal(data.vectors, unit_rows(rows))
    near = np.arange(12, dtype="<i4").reshape(4, 3)
    assert np.array_equal(formats.ivecs(_vecs(tmp_path / "n.ivecs", near)), near)
    assert np.array_equal(formats.ibin(_bin(tmp_path / "n.ibin", near)), near)


@pytest.mark.parametrize("type_", [pa.list_(pa.float16(), 6), pa.list_(pa.float32(), 6)])
def test_a_collection_that_facedex_exported(tmp_path: Path, type_: pa.DataType):
    halves = ROWS.astype(np.float16 if type_.value_type == pa.float16() else np.float32)
    flat = pa.array(halves.reshape(-1))
    table = pa.table(
        {
            "id": [f"face-{n}" for n in range(90)],
            "vector": pa.FixedSizeListArray.from_arrays(flat, type=type_),
            "vector_norm": pa.array([20.0] * 90, pa.float32()),
            "box": pa.array([[0.0] * 4] * 90, pa.list_(pa.float32(), 4)),
            "provenance": ["{}"] * 90,
            "age": pa.array([None, *range(1, 90)], pa.int64()),
            "tags": pa.array([["a"], None, *[["b"]] * 88]),
            "shelf": [f"s{n}" for n in range(90)],
        }
    )
    pq.write_table(table, tmp_path / "mine.parquet")
    data = formats.own_collection(tmp_path / "mine.parquet", queries=7, tuning=3)
    assert (len(data.vectors), len(data.queries), len(data.tuning)) == (80, 7, 3)
    assert data.table.column_names == ["age", "tags", "shelf", "slot", "position"]
    assert data.fields["age"] is FieldType.NUMBER  # as it is of every face
    unit = unit_rows(halves)
    for vectors, part in ((data.vectors, data.table), (data.queries, data.query_table)):
        rows = [int(shelf[1:]) for shelf in part["shelf"].to_pylist()]
        assert np.array_equal(vectors, unit[rows])
    asked = set(data.query_table["shelf"].to_pylist()) | set(data.tuning_table["shelf"].to_pylist())
    assert not asked & set(data.table["shelf"].to_pylist())
    with pytest.raises(UsageError, match="cannot be held out"):
        formats.own_collection(tmp_path / "mine.parquet", queries=80, tuning=10)


def test_columns_that_no_field_can_be_are_all_named(tmp_path: Path):
    table = pa.table({"vector": _lists(ROWS, pa.list_(pa.float32())), "a": [{"x": 1}] * 90,
                      "b": [b"raw"] * 90})  # fmt: skip
    pq.write_table(table, tmp_path / "mine.parquet")
    with pytest.raises(SchemaMismatchError, match=r'"a" is struct.*"b" is binary'):
        formats.own_collection(tmp_path / "mine.parquet", queries=1, tuning=1)


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("x.fbin", lambda p: _bin(p, ROWS), lambda p: formats.big_ann(p, p)),
        ("x.u8bin", lambda p: _bin(p, ROWS.view("u1")), lambda p: formats.big_ann(p, p)),
        ("x.fvecs", lambda p: _vecs(p, ROWS), lambda p: formats.plain_vectors(p, p)),
        ("x.spmat", lambda p: _spmat(p, [[0], [1, 2]], 3), formats.sparse_tags),
        ("x.parquet", lambda p: pq.write_table(pa.table({"vector": [[1.0]]}), p),
         formats.own_collection),
    ],
)  # fmt: skip
def test_a_file_cut_short_is_refused_with_its_name(
    tmp_path: Path, name: str, write: Callable[[Path], Any], read: Callable[[Path], Any]
):
    path = tmp_path / name
    with pytest.raises(UsageError, match="no file"):
        read(path)
    write(path)
    whole = path.read_bytes()
    for size in (0, 3, 9, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UsageError, match=name):
            read(path)


def test_a_matrix_with_columns_outside_is_damaged(tmp_path: Path):
    with pytest.raises(UsageError, match="outside the matrix"):
        formats.sparse_tags(_spmat(tmp_path / "x.spmat", [[0], [5]], 3))


def test_files_that_do_not_fit_one_another_are_refused(tmp_path: Path):
    rows, asked = _bin(tmp_path / "b.fbin", ROWS), _bin(tmp_path / "q.fbin", ASKED[:, :5])
    with pytest.raises(UsageError, match="6 dimensions, queries of 5"):
        formats.big_ann(rows, asked)
    tags = _spmat(tmp_path / "t.spmat", [[0]], 3)
    with pytest.raises(UsageError, match="90 vectors and 1 sets"):
        formats.big_ann(rows, rows, row_tags=tags, query_tags=tags)
    with pytest.raises(UsageError, match="none of"):
        formats.big_ann(tmp_path / "t.spmat", rows)
    lines = tmp_path / "broken.jsonl"
    lines.write_text('{"a": 1}\n{"a": ')
    with pytest.raises(UsageError, match="no file of JSON lines"):
        formats.json_lines(lines)


def test_a_vector_that_points_nowhere_is_refused(tmp_path: Path):
    rows = _bin(tmp_path / "b.fbin", np.zeros((3, 6), "<f4"))
    with pytest.raises(UnusableVectorError):
        formats.big_ann(rows, rows)
