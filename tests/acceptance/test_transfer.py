"""Ready-made vectors through the command line: in, filtered, out, in again."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.conftest import Facedex

ROWS, DIMENSION = 500, 32


@pytest.fixture
def table() -> pa.Table:
    random = np.random.default_rng(7)
    rows = random.standard_normal((ROWS, DIMENSION)).astype(np.float16)
    return pa.table(
        {
            "id": [f"row-{number}" for number in range(ROWS)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), DIMENSION),
            "person": [f"person {number % 50}" for number in range(ROWS)],
            "shelf": pa.array([number % 7 for number in range(ROWS)], pa.int64()),
            "weight": [None if number % 5 == 0 else number / 10 for number in range(ROWS)],
        }
    )


def test_import_search_export_import_is_the_identity(
    facedex: Facedex, table: pa.Table, tmp_path: Path
) -> None:
    source, out, again = (tmp_path / f"{name}.parquet" for name in ("in", "out", "again"))
    pq.write_table(table, source)
    dry = facedex("import", str(source), "--space", "mine@1", "--dry-run", "--json")
    assert dry.status == 0, dry.err
    assert facedex("count").status == 2  # nothing was written, not even the collection
    ran = facedex("import", str(source), "--space", "mine@1", "--json")
    assert (ran.status, ran.json["rows"], ran.json["space"]) == (0, ROWS, "mine@1"), ran.err
    where = "shelf = 3 AND weight IS NOT NULL AND person LIKE 'person 1%'"
    expected = [
        number
        for number in range(ROWS)
        if number % 7 == 3 and number % 5 and str(number % 50).startswith("1")
    ]
    np.save(tmp_path / "probe.npy", np.arange(DIMENSION, dtype=np.float32))
    probe = str(tmp_path / "probe.npy")
    found = facedex("search", "--vector", probe, "--where", where, "-k", "100", "--json").json
    assert found["survivors"] == len(expected)
    assert {hit["external_id"] for hit in found["hits"]} == {f"row-{n}" for n in expected}
    picture = facedex("search", "--image", probe)
    assert picture.status == 2
    assert "space 'mine@1'" in picture.err
    assert facedex("export", str(out), "--json").json["rows"] == ROWS
    assert facedex("import", str(out), "--space", "mine@1", "-c", "two", "--json").status == 0
    assert facedex("export", str(again), "-c", "two", "--json").json["rows"] == ROWS
    assert pq.read_table(again).equals(pq.read_table(out))


def test_deleting_the_snapshots_and_building_again_changes_no_exact_answer(
    facedex: Facedex, table: pa.Table, tmp_path: Path, home: Path
) -> None:
    import shutil

    pq.write_table(table, tmp_path / "in.parquet")
    facedex("import", str(tmp_path / "in.parquet"), "--space", "mine@1")
    queries = tmp_path / "queries.parquet"
    pq.write_table(table.slice(0, 20).select(["vector"]), queries)

    def answers() -> list[list[tuple[int, float]]]:
        words = ["--queries", str(queries), "--recall", "exact", "--where", "shelf < 5", "--json"]
        found = facedex("search", *words).json["queries"]
        return [[(hit["face"], hit["similarity"]) for hit in hits] for hits in found]

    before = answers()
    assert facedex("index", "build", "--json").json["rows"] == ROWS
    built = answers()
    assert facedex("index", "verify").status == 0
    shutil.rmtree(home / "snapshots")
    without = answers()
    facedex("index", "build")
    assert before == built == without == answers()
    assert facedex("check", "--json").json["differences"] == []


def test_a_file_that_does_not_fit_writes_nothing_and_says_all_that_is_wrong(
    facedex: Facedex, table: pa.Table, tmp_path: Path
) -> None:
    bad = table.append_column("quality", pa.array(["good"] * ROWS)).append_column(
        "9 lives", pa.array([9] * ROWS)
    )
    pq.write_table(bad, tmp_path / "bad.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    ran = facedex("import", str(tmp_path / "bad.parquet"), "--space", "mine@1")
    assert ran.status == 2
    assert "quality" in ran.err
    assert "9 lives" in ran.err
    assert facedex("import", str(tmp_path / "text.parquet"), "--space", "mine@1").status == 2
    assert facedex("collection", "list", "--json").json == {"collections": []}


def test_vectors_that_point_nowhere_are_refused_and_the_rest_goes_in(
    facedex: Facedex, tmp_path: Path
) -> None:
    rows = np.ones((5, 4), np.float32)
    rows[1], rows[3, 2] = 0, np.nan
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1), from_pandas=False), 4)
    pq.write_table(pa.table({"vector": vectors}), tmp_path / "in.parquet")
    ran = facedex("import", str(tmp_path / "in.parquet"), "--space", "mine@1", "--json")
    assert ran.status == 0, ran.err
    assert (ran.json["rows"], ran.json["refused_count"]) == (3, 2)
    assert [refused["row"] for refused in ran.json["refused"]] == [1, 3]
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, np.ones(5))
    assert facedex("search", "--vector", str(wrong)).status == 2


def test_a_search_says_in_json_and_in_words_how_it_was_answered(
    facedex: Facedex, table: pa.Table, tmp_path: Path, home: Path
) -> None:
    pq.write_table(table, tmp_path / "in.parquet")
    facedex("import", str(tmp_path / "in.parquet"), "--space", "mine@1")
    facedex("index", "build")
    np.save(tmp_path / "probe.npy", np.arange(DIMENSION, dtype=np.float32))
    asked = ["search", "--vector", str(tmp_path / "probe.npy"), "-k", "5"]
    answers = {
        recall: facedex(*asked, "--recall", recall, "--json").json
        for recall in ("0.8", "certified", "exact")
    }
    for recall, found in answers.items():
        assert {"hits", "tier", "survivors", "rows_scored", "plan"} <= found.keys()
        kept = {"face", "external_id", "similarity", "image", "person", "attributes"}
        assert all(kept <= hit.keys() for hit in found["hits"])
        assert found["tier"] in {"exact", {"0.8": "calibrated"}.get(recall, recall)}
        assert found["survivors"] == found["plan"]["rows"] == ROWS
        plan = found["plan"]
        assert plan["strategy"] in plan["microseconds"]["ways"]
        assert f"{ROWS:,} of {ROWS:,} rows pass" in plan["why"]
        assert plan["promise"]
        assert plan["rows_scored"].keys() == {"by_code", "exactly"}
        assert plan["lists"].keys() == {"all", "ranked", "touched"}
        assert plan["microseconds"]["actual"] > 0
        assert all(name.endswith("_ms") for name in plan["timings"])
    assert answers["certified"]["hits"] == answers["exact"]["hits"]
    told = facedex(*asked, "--recall", "certified", "--explain")
    assert told.status == 0
    for word in ("rows pass", "tier", "rows scored", "lists touched", "microseconds", "by step"):
        assert word in told.out
    assert list((home / "kernels").iterdir()), "compiled code is kept below the home"
