"""Importing Parquet: what goes in, what is refused, and what a second import does."""

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from indexer.bulk import importing
from indexer.bulk.importing import ImportReport, ImportRequest, check_file, import_file
from retrieval.errors import (
    SchemaMismatchError,
    SpaceMismatchError,
    StoreConflictError,
    StoreUnavailableError,
    UsageError,
)
from retrieval.store import embedded, schema
from retrieval.store.collections import collection_named, drop_collection
from retrieval.store.database import Store, open_store
from retrieval.values import FieldType

DIMENSION = 8


def vectors(rows: int, *, seed: int = 0, dimension: int = DIMENSION) -> pa.FixedSizeListArray:
    raw = np.random.default_rng(seed).standard_normal((rows, dimension))
    unit = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float16)
    return pa.FixedSizeListArray.from_arrays(pa.array(unit.reshape(-1)), dimension)


def written(file: Path, /, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def put_in(store: Store, path: Path, **facts: Any) -> ImportReport:
    return import_file(store, request(path, **facts))


def request(path: Path, **facts: Any) -> ImportRequest:
    return ImportRequest(path=path, **{"collection": "c", "space": "s", **facts})


def asked(store: Store, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


def stored_vectors(store: Store) -> dict[str, bytes]:
    rows = asked(
        store, "SELECT external_id, data FROM face JOIN vector ON face_id = id ORDER BY id"
    )
    return {name: bytes(data) for name, data in rows}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "CHUNK_ROWS_MAX", 10)


def test_every_column_finds_its_place(store: Store, tmp_path: Path) -> None:
    when = datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    lists = vectors(2)
    report = put_in(
        store,
        written(
            tmp_path / "a.parquet",
            id=["a", None],
            vector=lists,
            person=["Ann", None],
            image=["pictures/a.jpg", None],
            box=[[1.0, 2.0, 3.0, 4.0], None],
            landmarks=[[[1.0, 2.0]] * 5, None],
            quality=[0.5, None],
            captured_at=pa.array([when, None]),
            track=["t", None],
            frame=[7, None],
            tags=[["x", 'y"\\'], None],
            origin=["generated", None],
            city=["Łódź", None],
            score=[0.25, float("nan")],
            visits=[3, None],
            hat=[True, None],
            seen=pa.array([when, None]),
            labels=[["p"], []],
        ),
    )
    assert (report.rows, report.updated, report.refused_count, report.known) == (2, 0, 0, 0)
    assert report.attributes == {
        "city": FieldType.TEXT,
        "score": FieldType.NUMBER,
        "visits": FieldType.INTEGER,
        "hat": FieldType.BOOLEAN,
        "seen": FieldType.TIMESTAMP,
        "labels": FieldType.TAGS,
    }
    found = asked(
        store,
        """
        SELECT external_id, person.name, image_id, box, landmarks, quality, captured_at, track,
            frame, tags, origin, attributes, provenance
        FROM face LEFT JOIN person ON person.id = person_id ORDER BY face.id
        """,
    )
    assert found[0] == (
        *("a", "Ann", None, [1, 2, 3, 4], [1, 2] * 5, 0.5, when, "t", 7, ["x", 'y"\\']),
        "generated",
        {
            "image": "pictures/a.jpg",
            "city": "Łódź",
            "score": 0.25,
            "visits": 3,
            "hat": True,
            "seen": "2020-01-02T03:04:05.678901+00:00",
            "labels": ["p"],
        },
        {},
    )
    assert found[1] == (*[None] * 10, "captured", {"labels": []}, {})
    raw = lists.flatten().to_numpy().reshape(2, DIMENSION)
    assert asked(store, "SELECT data, norm FROM vector ORDER BY face_id") == [
        (row.tobytes(), None) for row in raw
    ]


def test_the_first_import_pins_the_space_and_the_collection(store: Store, tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", vector=vectors(3))
    put_in(store, path)
    put_in(store, path, collection="pinned", space="known@1", model_sha256="ab" * 32)
    assert asked(
        store,
        "SELECT c.name, s.name, dimension, model_sha256, licence FROM collection AS c"
        " JOIN space AS s ON s.id = c.space_id ORDER BY c.id",
    ) == [
        ("c", "s", DIMENSION, None, "unknown: vectors came from outside"),
        ("pinned", "known@1", DIMENSION, "ab" * 32, "unknown: vectors came from outside"),
    ]
    put_in(store, path, space="another")  # its own space stays the one that is searched
    assert asked(
        store,
        "SELECT s.name FROM collection AS c JOIN space AS s ON s.id = space_id WHERE c.name = 'c'",
    ) == [("s",)]


def test_a_space_refuses_vectors_of_another_model(store: Store, tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", vector=vectors(3))
    put_in(store, path, model_sha256="ab" * 32)
    put_in(store, path, collection="d")  # who doesn't say otherwise means the stored model
    with pytest.raises(SpaceMismatchError):
        put_in(store, path, model_sha256="cd" * 32)
    with pytest.raises(SpaceMismatchError):
        put_in(store, path, dimension=9)
    short = written(tmp_path / "b.parquet", vector=vectors(3, dimension=4))
    with pytest.raises(SchemaMismatchError, match="have 4 dimensions; 8 are needed"):
        put_in(store, short)
    with pytest.raises(UsageError, match="64 hexadecimal"):
        put_in(store, path, space="new", model_sha256="AB")


def test_a_schema_that_does_not_fit_writes_nothing(store: Store, tmp_path: Path) -> None:
    good = written(tmp_path / "good.parquet", vector=vectors(2), score=[1.0, 2.0])
    put_in(store, good)
    bad = written(tmp_path / "bad.parquet", vector=vectors(2), score=["a", "b"], path=["a", "b"])
    with pytest.raises(
        SchemaMismatchError, match=r"'path' is no attribute.*'score' is|'score' is.*'path'"
    ):
        put_in(store, bad, collection="c")
    with pytest.raises(SchemaMismatchError):
        check_file(store, request(bad))
    with pytest.raises(SchemaMismatchError):
        put_in(store, bad, collection="new", space="new")
    assert asked(store, "SELECT count(*) FROM face") == [(2,)]
    assert asked(store, "SELECT name FROM collection") == [("c",)]
    assert asked(store, "SELECT name FROM space") == [("s",)]


@pytest.mark.usefixtures("small_chunks")
def test_bad_rows_are_refused_and_the_rest_goes_in(store: Store, tmp_path: Path) -> None:
    rows = [[1.0, float(n)] for n in range(25)]
    rows[3], rows[12], rows[24] = [0.0, 0.0], [float("nan"), 1.0], [1.0, 2.0, 3.0]
    names = [f"n{n}" for n in range(25)]
    names[7] = "nul\0"
    path = written(tmp_path / "a.parquet", vector=pa.array(rows, pa.list_(pa.float32())), id=names)
    dry = check_file(store, request(path))
    assert asked(store, "SELECT count(*) FROM collection") == [(0,)]
    report = put_in(store, path)
    assert [refusal.row for refusal in report.refused] == [3, 7, 12, 24]
    assert (dry.rows, dry.refused, dry.token) == (21, report.refused, None)
    assert (report.rows, report.refused_count) == (21, 4)
    want = {name for n, name in enumerate(names) if n not in (3, 7, 12, 24)}
    assert set(stored_vectors(store)) == want


def test_sensitive_columns_stay_outside_until_they_are_wanted(store: Store, tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", vector=vectors(1), ethnicity=["x"], city=["y"])
    assert put_in(store, path).left_out == {"ethnicity": "it is sensitive: say that you want it"}
    assert asked(store, "SELECT attributes FROM face") == [({"city": "y"},)]
    put_in(store, path, collection="d", allow_sensitive=True)
    assert asked(store, "SELECT attributes FROM face ORDER BY id")[1] == (
        {"city": "y", "ethnicity": "x"},
    )


def test_an_id_that_exists_changes_the_given_fields_in_place_and_keeps_the_others(
    store: Store, tmp_path: Path
) -> None:
    first = vectors(3, seed=1)
    put_in(
        store,
        written(
            tmp_path / "a.parquet", id=["a", "b", "c"], vector=first, person=["A", "B", "C"],
            quality=[0.1, 0.2, 0.3], city=["x", "y", "z"], score=[1, 2, 3], track=["t"] * 3,
        ),
    )  # fmt: skip
    before = asked(store, "SELECT id, external_id FROM face ORDER BY id")
    second = vectors(3, seed=2)
    report = put_in(
        store,
        written(
            tmp_path / "b.parquet", id=["b", "new", "a"], vector=second, person=["B2", "N", None],
            quality=[0.9, 0.8, None], city=["Y", "n", None], tags=[["t"]] * 3,
        ),
    )  # fmt: skip
    assert (report.rows, report.updated) == (3, 2)
    assert asked(store, "SELECT id, external_id FROM face ORDER BY id")[:3] == before
    found = asked(
        store,
        "SELECT external_id, person.name, quality, track, tags, attributes FROM face"
        " LEFT JOIN person ON person.id = person_id ORDER BY external_id",
    )
    assert found == [
        ("a", None, None, "t", ["t"], {"score": 1}),
        ("b", "B2", 0.9, "t", ["t"], {"city": "Y", "score": 2}),
        ("c", "C", 0.3, "t", None, {"city": "z", "score": 3}),
        ("new", "N", 0.8, None, ["t"], {"city": "n"}),
    ]
    one, two = (lists.flatten().to_numpy().reshape(3, -1) for lists in (first, second))
    assert stored_vectors(store) == {
        "a": two[2].tobytes(), "b": two[0].tobytes(), "c": one[2].tobytes(), "new": two[1].tobytes()
    }  # fmt: skip


def test_importing_the_same_ids_again_writes_no_row(store: Store, tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.parquet", id=[str(n) for n in range(50)], vector=vectors(50),
        person=["p"] * 50, score=[0.5] * 50, box=[[1.0, 2.0, 3.0, 4.0]] * 50, tags=[["t"]] * 50,
    )  # fmt: skip
    put_in(store, path)
    before = (
        asked(store, "SELECT xmin::text, ctid::text FROM face"),
        asked(store, "SELECT xmin::text, ctid::text FROM vector"),
    )
    report = put_in(store, path)
    assert (report.rows, report.updated, report.known) == (50, 50, 0)
    after = (
        asked(store, "SELECT xmin::text, ctid::text FROM face"),
        asked(store, "SELECT xmin::text, ctid::text FROM vector"),
    )
    assert after == before
    assert asked(store, "SELECT count(*) FROM imported_file") == [(0,)]


def test_captions_of_a_file_take_the_place_of_those_that_were_stated(
    store: Store, tmp_path: Path
) -> None:
    def said() -> dict[str, list[str]]:
        rows = asked(
            store,
            "SELECT external_id, array_agg(text ORDER BY text) FROM caption"
            " JOIN face ON face.id = face_id GROUP BY external_id",
        )
        return {str(one): list(texts) for one, texts in rows}

    first = written(
        tmp_path / "1.parquet",
        id=["a", "b", "c", "d"],
        vector=vectors(4),
        caption=[" a hat ", None, "12 34", "a beard"],
        captions=[["a hat", "glasses"], ["smiling"], None, []],
    )
    report = put_in(store, first)
    assert (report.rows, report.attributes) == (4, {})
    assert said() == {"a": ["a hat", "glasses"], "b": ["smiling"], "d": ["a beard"]}
    with store.writing() as connection:
        connection.execute(
            text(
                "INSERT INTO caption (collection_id, face_id, text, provider)"
                " SELECT collection_id, id, 'made up', 'a model' FROM face WHERE external_id = 'a'"
            )
        )
    numbers = asked(store, "SELECT id, xmin::text FROM caption ORDER BY id")
    assert put_in(store, first).updated == 4
    assert asked(store, "SELECT id, xmin::text FROM caption ORDER BY id") == numbers
    second = written(
        tmp_path / "2.parquet", id=["a", "b"], vector=vectors(2), captions=[["a hat"], None]
    )
    put_in(store, second)
    assert said() == {"a": ["a hat", "made up"], "d": ["a beard"]}
    put_in(store, written(tmp_path / "3.parquet", id=["a"], vector=vectors(1)))  # says nothing
    assert said() == {"a": ["a hat", "made up"], "d": ["a beard"]}


def test_captions_that_cannot_be_stored_refuse_their_row(store: Store, tmp_path: Path) -> None:
    path = written(
        tmp_path / "in.parquet",
        id=["a", "b", "c", "d"],
        vector=vectors(4),
        captions=[["x" * 9_000], [f"a{n}" for n in range(101)], ["a\0b"], ["fine"]],
    )
    report = put_in(store, path)
    assert [(one.row, one.reason) for one in report.refused] == [
        (0, "'captions' is longer than 8,192 bytes"),
        (1, "'captions' holds more than 100 captions"),
        (2, "'captions' holds a NUL character"),
    ]
    assert asked(store, "SELECT text FROM caption") == [("fine",)]
    wrong = written(tmp_path / "wrong.parquet", vector=vectors(1), captions=[3], caption=[[1.5]])
    with pytest.raises(SchemaMismatchError, match=r"'caption' is list<.*'captions' is int64"):
        put_in(store, wrong)


@pytest.mark.usefixtures("small_chunks")
def test_of_rows_with_one_id_the_last_wins(store: Store, tmp_path: Path) -> None:
    lists = vectors(25)
    names = [f"n{n}" for n in range(25)]
    names[4] = names[8] = names[20] = "twice"
    report = put_in(
        store,
        written(tmp_path / "a.parquet", id=names, vector=lists, row=list(range(25))),
    )
    assert (report.rows, report.updated) == (25, 2)
    assert asked(store, "SELECT attributes FROM face WHERE external_id = 'twice'") == [
        ({"row": 20},)
    ]
    raw = lists.flatten().to_numpy().reshape(25, -1)
    assert stored_vectors(store)["twice"] == raw[20].tobytes()
    assert asked(store, "SELECT count(*) FROM face") == [(23,)]


@pytest.mark.usefixtures("small_chunks")
def test_a_file_without_ids_goes_in_once_and_again_when_its_faces_are_gone(
    store: Store, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.parquet", vector=vectors(25))
    assert put_in(store, path).rows == 25
    again = put_in(store, path)
    assert (again.rows, again.known) == (0, 25)
    assert put_in(store, path, collection="other").rows == 25
    with store.writing() as connection:
        connection.execute(text("DELETE FROM face WHERE id > 10 AND collection_id = 1"))
    assert put_in(store, path).rows == 0
    with store.writing() as connection:
        connection.execute(text("DELETE FROM face WHERE collection_id = 1"))
    assert put_in(store, path).rows == 25
    assert asked(store, "SELECT count(*) FROM face") == [(50,)]


@pytest.mark.usefixtures("small_chunks")
def test_the_token_is_that_of_the_last_rows(store: Store, tmp_path: Path) -> None:
    report = put_in(store, written(tmp_path / "a.parquet", vector=vectors(25)))
    assert asked(store, "SELECT max(changed::text::bigint) FROM vector") == [(report.token,)]


@pytest.mark.usefixtures("small_chunks")
def test_progress_is_told_from_nothing_to_all(store: Store, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = written(tmp_path / "a.parquet", vector=vectors(25))
    import_file(store, request(path), progress=lambda *step: told.append(step))
    assert told == [(0, 25), (10, 25), (20, 25), (25, 25)]


def test_an_empty_table_is_no_error(store: Store, tmp_path: Path) -> None:
    report = put_in(
        store, written(tmp_path / "a.parquet", vector=vectors(0), id=pa.array([], "utf8"))
    )
    assert (report.rows, report.known) == (0, 0)
    assert asked(store, "SELECT count(*) FROM imported_file") == [(0,)]


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"id,vector\n1,2\n", b"PAR1" + bytes(99) + b"PAR1"]
)
def test_what_is_no_parquet_is_said_to_be_none(
    store: Store, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        put_in(store, path)
    with pytest.raises(UsageError, match="there is no"):
        put_in(store, tmp_path / "missing.parquet")


@pytest.mark.usefixtures("small_chunks")
def test_a_damaged_page_stops_the_import_and_keeps_the_chunks_before(
    store: Store, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.parquet", vector=vectors(1))
    table = pa.table({"vector": vectors(40), "id": [str(n) for n in range(40)]})
    pq.write_table(table, path, row_group_size=20, compression="zstd", use_dictionary=False)
    place = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    whole = path.read_bytes()
    path.write_bytes(whole[: place + 60] + bytes(80) + whole[place + 140 :])
    with pytest.raises(UsageError, match="damaged"):
        put_in(store, path)
    assert asked(store, "SELECT count(*) FROM face") in ([(10,)], [(20,)])
    path.write_bytes(whole)
    assert put_in(store, path).known == 0  # another content is another file: its ids are put in
    assert asked(store, "SELECT count(*) FROM face") == [(40,)]


@pytest.mark.usefixtures("small_chunks")
def test_a_connection_cut_in_a_chunk_is_said_and_the_same_import_goes_on(
    store: Store, tmp_path: Path, database_url: str
) -> None:
    path = written(tmp_path / "a.parquet", vector=vectors(45))
    killers: list[threading.Thread] = []

    def block_and_cut(done: int, _rows: int) -> None:
        if done == 20:
            blocker = psycopg.connect(database_url)
            blocker.execute("SELECT FROM imported_file FOR UPDATE")
            killers.append(threading.Thread(target=cut_whoever_waits, args=(blocker,)))
            killers[0].start()

    with pytest.raises(StoreUnavailableError, match="Run the command again"):
        import_file(store, request(path), progress=block_and_cut)
    killers[0].join()
    report = put_in(store, path)
    assert (report.known, report.rows) == (20, 25)
    assert asked(store, "SELECT count(*), count(DISTINCT data) FROM vector") == [(45, 45)]


def cut_whoever_waits(blocker: psycopg.Connection[Any]) -> None:
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while not blocker.execute(cut).fetchall():
        time.sleep(0.01)
    blocker.close()


@pytest.mark.usefixtures("small_chunks")
def test_a_server_that_stops_is_said_and_the_same_import_goes_on(
    home: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.parquet", vector=vectors(45))

    def stop(done: int, _rows: int) -> None:
        if done == 20:
            embedded.stop(home)

    with open_store(embedded.ensure_running(home).url) as store:
        schema.upgrade(store)
        with pytest.raises(StoreUnavailableError):
            import_file(store, request(path), progress=stop)
    with open_store(embedded.ensure_running(home).url) as store:
        assert put_in(store, path).known == 20
        assert asked(store, "SELECT count(*), count(DISTINCT data) FROM vector") == [(45, 45)]


@pytest.mark.usefixtures("small_chunks")
def test_two_imports_of_one_file_at_once_put_every_row_in_once(
    store: Store, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.parquet", vector=vectors(200))
    outcomes: list[object] = []

    def run() -> None:
        try:
            outcomes.append(put_in(store, path).rows)
        except StoreConflictError as conflict:
            outcomes.append(conflict)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    put_in(store, path)  # whoever lost says so; what is left over goes in now
    assert len(outcomes) == 2
    assert asked(store, "SELECT count(*), count(DISTINCT data) FROM vector") == [(200, 200)]


@pytest.mark.usefixtures("small_chunks")
def test_an_import_that_waits_for_another_goes_on_where_that_one_got_to(
    store: Store, tmp_path: Path, database_url: str
) -> None:
    path = written(tmp_path / "a.parquet", vector=vectors(45))

    def stop(done: int, _rows: int) -> None:
        if done == 20:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        import_file(store, request(path), progress=stop)
    outcomes: list[ImportReport] = []
    second = threading.Thread(target=lambda: outcomes.append(put_in(store, path)))
    with psycopg.connect(database_url) as another:
        another.execute("SELECT FROM imported_file FOR UPDATE")
        second.start()
        while not another.execute(
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        ).fetchall():
            time.sleep(0.01)
        another.execute(
            "WITH made AS (INSERT INTO face (collection_id) SELECT id FROM collection RETURNING id)"
            " UPDATE imported_file SET rows_done = 30,"
            " faces = (SELECT int8multirange(int8range(id, id, '[]')) FROM made)"
        )
    second.join()
    assert (outcomes[0].known, outcomes[0].rows) == (30, 15)


def test_every_key_that_an_import_silences_is_one_that_it_checks_itself(store: Store) -> None:
    keys = asked(
        store,
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND conrelid IN ('face'::regclass, 'vector'::regclass) ORDER BY 1, 2",
    )
    assert keys == [
        ("face", "collection"), ("face", "image"), ("face", "person"),
        ("vector", "face"), ("vector", "space"),
    ]  # fmt: skip
    others = asked(
        store,
        "SELECT tgname FROM pg_trigger WHERE tgrelid IN ('face'::regclass, 'vector'::regclass)"
        " AND NOT tgisinternal AND tgtype & 4 > 0 AND tgenabled <> 'A'",  # 4: on INSERT
    )
    assert others == []


def test_imported_faces_are_in_the_change_log(store: Store, tmp_path: Path) -> None:
    put_in(store, written(tmp_path / "a.parquet", vector=vectors(9)))
    assert asked(store, "SELECT DISTINCT unnest(face_ids) FROM face_change ORDER BY 1") == asked(
        store, "SELECT id FROM face ORDER BY 1"
    )


@pytest.mark.usefixtures("small_chunks")
def test_a_collection_dropped_in_the_middle_is_a_conflict_and_leaves_nothing(
    store: Store, tmp_path: Path
) -> None:
    def drop(done: int, _rows: int) -> None:
        if done == 20:
            with store.writing() as connection:
                drop_collection(connection, collection_named(connection, "c"))

    path = written(tmp_path / "a.parquet", vector=vectors(45))
    with pytest.raises(StoreConflictError, match="its collection was dropped"):
        import_file(store, request(path), progress=drop)
    assert asked(store, "SELECT count(*) FROM face") == [(0,)]


def test_a_user_without_special_rights_may_import(
    store: Store, tmp_path: Path, database_url: str
) -> None:
    with store.writing() as connection:
        connection.execute(text("DROP ROLE IF EXISTS plain"))
        connection.execute(text("CREATE ROLE plain LOGIN"))
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO plain"))
        connection.execute(text("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO plain"))
    path = written(
        tmp_path / "a.parquet", vector=vectors(9), id=[str(n) for n in range(9)], person=["p"] * 9
    )
    with open_store(database_url.replace("facedex@", "plain@")) as plain:
        assert asked(plain, "SELECT current_user::text") == [("plain",)]
        assert put_in(plain, path).rows == 9
        assert put_in(plain, path).updated == 9
    with store.writing() as connection:
        connection.execute(text("DROP OWNED BY plain"))
        connection.execute(text("DROP ROLE plain"))
