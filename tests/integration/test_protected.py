"""Protected lists: who is found, who may look, and that nobody else sees a difference."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sqlalchemy import event, text

from facedex.handle import Facedex, open_facedex
from indexer.bulk.importing import ImportRequest
from indexer.protecting import BATCH_ROWS, CLOSEST, follow
from retrieval.errors import UnknownNameError, UsageError
from retrieval.people.calibration import Calibration, tail_of_counts, tail_of_maxima
from retrieval.people.template import templates
from retrieval.quality import QUALITY_FLOOR
from retrieval.store import collections as tenants
from retrieval.store.calibrations import keep_calibration
from retrieval.store.database import Store
from retrieval.store.protected import gallery as members
from retrieval.store.protected import lists
from retrieval.store.protected.gallery import NewPicture
from retrieval.values import UnitRows, unit_rows
from tests.conftest import with_kernels
from tests.galleries import TestGallery

DIMENSION, MEMBERS, PICTURES, STRANGERS = 64, 20, 4, 600
STRANGE = stats.beta((DIMENSION - 1) / 2, (DIMENSION - 1) / 2, loc=-1, scale=2)
RARE, FPIR = 1e-9, 1e-3


def drawn(count: int, *, seed: int) -> UnitRows:
    return unit_rows(np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype("<f2"))


def near(centres: UnitRows, *, seed: int, noise: float = 0.6) -> UnitRows:
    """Pictures of these people."""
    random = np.random.default_rng(seed)
    spread = noise * random.standard_normal(centres.shape) / np.sqrt(DIMENSION)
    return unit_rows((centres + spread).astype("<f2"))


def calibration() -> Calibration:
    """The truth of random directions: what strangers reach."""
    at = np.linspace(-0.5, 0.8, 500)
    rates = STRANGE.sf(at)
    maxima = STRANGE.ppf(np.random.default_rng(0).random(200_000) ** (1 / MEMBERS))
    return Calibration(
        space="made@1",
        model_sha256=None,
        data="numbers",
        comparisons=tail_of_counts(at, rates, rates, rates, trials=10_000_000),
        searches=tail_of_maxima(maxima, size=MEMBERS),
    )


def write(path: Path, vectors: UnitRows, *, first: int, **columns: list[object]) -> None:
    flat = pa.array(np.asarray(vectors, np.float32).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, DIMENSION)
    ids = [f"f{number}" for number in range(first, first + len(vectors))]
    pq.write_table(pa.table({"vector": column, "id": ids, **columns}), path)


def put(facedex: Facedex, path: Path, vectors: UnitRows, *, first: int, **columns: list) -> None:
    """Import faces whose ids are f<first>, f<first + 1>, ..."""
    write(path, vectors, first=first, **columns)
    facedex.import_file(ImportRequest(path=path, collection="default", space="made@1"))


def copied(facedex: Facedex, vectors: UnitRows) -> None:
    """Bring in faces by COPY, past everything that Facedex does after it."""
    tenant = facedex.collection()
    with facedex.store.reading() as connection:
        space = tenants.space_of(connection, tenant)
    tested = TestGallery(facedex.store, tenant, space)
    tested.add(range(10_000, 10_000 + len(vectors)), vectors)


@pytest.fixture
def facedex(database_url: str, home: Path, tmp_path: Path) -> Iterator[Facedex]:
    """Strangers, some of them persons, whose vectors came from outside; a calibration."""
    with open_facedex(home=home, database_url=database_url) as opened:
        named = [f"P{row // 3}" if row < 90 else None for row in range(STRANGERS)]
        put(opened, tmp_path / "0.parquet", drawn(STRANGERS, seed=1), first=0, person=named)
        tenant = opened.collection()
        with opened.store.writing() as connection:
            space = tenants.space_of(connection, tenant)
            keep_calibration(connection, calibration(), collection=tenant, space=space)
        yield opened


CENTRES = drawn(MEMBERS, seed=2)


def switch_on(facedex: Facedex, *, fpir: float = RARE) -> None:
    facedex.protected.on(purpose="find forgeries", basis="consent", fpir=fpir)


def enlist(facedex: Facedex, places: range, *, pictures: int = PICTURES) -> list[UnitRows]:
    """Put these of the CENTRES on the list, by vectors as pictures would give them."""
    tenant = facedex.collection()
    given = []
    with facedex.store.writing() as connection:
        space = tenants.space_of(connection, tenant)
        lists.start_anew(connection, tenant)
        for place in places:
            centres = UnitRows(np.repeat(CENTRES[[place]], pictures, axis=0))
            vectors = near(centres, seed=100 + place)
            new = [
                NewPicture(
                    sha256=bytes([place, number]) * 16,
                    path=f"/authentic/{place}-{number}.jpg".encode(),
                    quality=0.5 + 0.1 * number,
                    vector=vector,
                )
                for number, vector in enumerate(vectors)
            ]
            members.add_pictures(connection, new, f"M{place}", collection=tenant, space=space)
            given.append(vectors)
    return given


def external_ids(facedex: Facedex, faces: list[int | None]) -> list[str | None]:
    records = {record.face: record.external_id for record in facedex.faces(limit=100_000)}
    return [None if face is None else records[face] for face in faces]


# --- who is found -------------------------------------------------------------------------------


def test_planted_members_are_found_at_import_with_their_closest_pictures(
    facedex: Facedex, tmp_path: Path
) -> None:
    switch_on(facedex)
    given = enlist(facedex, range(MEMBERS))
    before = facedex.protected.match()
    assert before.faces == STRANGERS
    planted = near(CENTRES, seed=3)
    put(facedex, tmp_path / "1.parquet", planted, first=10_000)
    with facedex.store.reading() as connection:  # before anybody asks
        rows = connection.execute(
            text("SELECT count(*) FROM protected.alert WHERE id > :before"),
            {"before": before.alerts},
        )
        assert rows.scalar() == MEMBERS
    found = facedex.protected.alerts(after=before.alerts, limit=1_000)
    assert external_ids(facedex, [one.face for one in found]) == [
        f"f{10_000 + place}" for place in range(MEMBERS)
    ]
    made = templates(
        np.concatenate(given),
        np.tile(0.5 + 0.1 * np.arange(PICTURES), MEMBERS),
        np.repeat(np.arange(MEMBERS), PICTURES),
    )[1]
    threshold = calibration().for_fpir(RARE, gallery=MEMBERS).similarity
    for place, alert in enumerate(found):
        halves = planted[place].astype("<f2").astype(np.float64)
        halves /= np.linalg.norm(halves)
        assert alert.similarity == pytest.approx(made[place] @ halves, abs=2e-3)
        assert alert.threshold == pytest.approx(threshold, abs=1e-5)
        assert alert.similarity >= alert.threshold
        similarities = given[place] @ halves
        closest = np.argsort(-similarities)[:CLOSEST]
        assert alert.paths == tuple(
            f"/authentic/{place}-{number}.jpg".encode() for number in closest
        )
        assert [one.similarity for one in alert.closest] == pytest.approx(
            similarities[closest].tolist(), abs=2e-3
        )


def test_a_new_member_is_looked_for_among_the_faces_that_are_there(
    facedex: Facedex, tmp_path: Path
) -> None:
    switch_on(facedex)
    put(facedex, tmp_path / "1.parquet", near(CENTRES[:2], seed=3), first=10_000)
    enlist(facedex, range(1))
    assert external_ids(facedex, [one.face for one in facedex.protected.alerts()]) == ["f10000"]
    enlist(facedex, range(1, 2))
    found = facedex.protected.alerts()
    assert external_ids(facedex, [one.face for one in found]) == ["f10000", "f10001"]
    assert facedex.protected.match().faces == 0


def test_each_vector_is_told_once_and_a_new_vector_again(facedex: Facedex, tmp_path: Path) -> None:
    switch_on(facedex)
    enlist(facedex, range(1))
    put(facedex, tmp_path / "1.parquet", near(CENTRES[:1], seed=3), first=10_000)
    face = facedex.protected.alerts()[0].face
    facedex.update({"source": "door"}, where="external_id = 'f10000'")
    assert facedex.protected.match().faces == 0
    switch_on(facedex)  # all faces again
    assert facedex.protected.match().faces == STRANGERS + 1
    assert len(facedex.protected.alerts()) == 1
    put(facedex, tmp_path / "2.parquet", near(CENTRES[:1], seed=4), first=10_000)
    assert [one.face for one in facedex.protected.alerts()] == [face, face]


def test_faces_that_came_by_sql_are_found(facedex: Facedex) -> None:
    switch_on(facedex)
    enlist(facedex, range(1))
    tenant = facedex.collection()
    with facedex.store.writing() as connection:
        face = connection.scalar(
            text("INSERT INTO face (collection_id) VALUES (:c) RETURNING id"), {"c": tenant.id}
        )
        connection.execute(
            text("INSERT INTO vector (face_id, space_id, data) VALUES (:face, :space, :data)"),
            {
                "face": face,
                "space": tenant.space_id,
                "data": near(CENTRES[:1], seed=5).astype("<f2").tobytes(),
            },
        )
    assert [one.face for one in facedex.protected.alerts()] == [face]


def test_a_face_below_the_quality_floor_is_told_apart(facedex: Facedex, tmp_path: Path) -> None:
    switch_on(facedex)
    enlist(facedex, range(3))
    quality = [QUALITY_FLOOR - 0.01, QUALITY_FLOOR + 0.01, None]
    put(facedex, tmp_path / "1.parquet", near(CENTRES[:3], seed=3), first=10_000, quality=quality)
    assert [one.poor for one in facedex.protected.alerts()] == [True, False, False]


def test_strangers_raise_an_alert_as_seldom_as_asked(facedex: Facedex) -> None:
    switch_on(facedex, fpir=FPIR)
    enlist(facedex, range(MEMBERS))
    strangers = 100_000
    copied(facedex, drawn(strangers, seed=9))
    compared = STRANGERS + strangers
    told = {one.face for one in facedex.protected.alerts(limit=100_000)}
    low, high = stats.poisson.interval(0.999, FPIR * compared)
    assert low <= len(told) <= high


def test_batches_and_rounding_do_not_decide_who_is_found(facedex: Facedex) -> None:
    switch_on(facedex, fpir=FPIR)
    enlist(facedex, range(MEMBERS))
    rows = 2 * BATCH_ROWS + 1
    mixed = near(UnitRows(np.resize(CENTRES, (rows, DIMENSION))), seed=8, noise=1.8)
    copied(facedex, mixed)
    found = {(one.face, one.person) for one in facedex.protected.alerts(limit=100_000)}
    with facedex.store.reading() as connection:
        tenant = facedex.collection()
        space = tenants.space_of(connection, tenant)
        looked = members.read_gallery(connection, collection=tenant, space=space)
        stored = connection.execute(text("SELECT face_id, data FROM vector ORDER BY 1")).all()
    vectors = np.frombuffer(b"".join(row.data for row in stored), "<f2").astype(np.float64)
    vectors = vectors.reshape(-1, DIMENSION)
    known = looked.templates.astype(np.float64)
    similarities = (vectors @ known.T) / np.linalg.norm(vectors, axis=1)[:, None]
    similarities /= np.linalg.norm(known, axis=1)
    # As it was kept: the numbers of a calibration are rounded.
    kept = facedex.recognition.calibration()
    threshold = kept.for_fpir(FPIR, gallery=MEMBERS).similarity
    assert found == {
        (stored[row].face_id, int(looked.persons[place]))
        for row, place in np.argwhere(similarities >= threshold)
    }
    assert 0 < len(found) < rows


# --- nothing is lost ----------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from facedex.handle import open_facedex
from indexer import protecting
from indexer.bulk.importing import ImportRequest

def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(protecting, sys.argv[4], end)
with open_facedex(home=Path(sys.argv[1]), database_url=sys.argv[2]) as facedex:
    request = ImportRequest(path=Path(sys.argv[3]), collection="default", space="made@1")
    facedex.import_file(request)
"""


@pytest.mark.parametrize("moment", ["follow", "write_alerts"])
def test_kill_9_between_write_and_match_loses_no_alert(
    facedex: Facedex, home: Path, tmp_path: Path, database_url: str, moment: str
) -> None:
    switch_on(facedex)
    enlist(facedex, range(MEMBERS))
    before = facedex.protected.match().alerts
    write(tmp_path / "1.parquet", near(CENTRES, seed=3), first=10_000)
    words = [str(home), database_url, str(tmp_path / "1.parquet"), moment]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert facedex.count() == STRANGERS + MEMBERS
    with facedex.store.reading() as connection:
        told = connection.scalar(text("SELECT count(*) FROM protected.alert"))
    assert told == before
    # Somebody else's ingest, which brings in nothing, does it.
    facedex.import_file(
        ImportRequest(path=tmp_path / "1.parquet", collection="default", space="made@1")
    )
    with facedex.store.reading() as connection:
        told = connection.scalar(text("SELECT count(*) FROM protected.alert"))
    assert told == before + MEMBERS


def test_a_log_that_was_pruned_beyond_the_cursor_loses_no_alert(facedex: Facedex) -> None:
    switch_on(facedex)
    enlist(facedex, range(1))
    before = len(facedex.protected.alerts())
    with facedex.store.writing() as connection:
        place = near(CENTRES[:1], seed=5).astype("<f2").tobytes()
        connection.execute(text("UPDATE vector SET data = :d WHERE face_id = 7"), {"d": place})
        # As a build does that publishes and prunes.
        connection.execute(text("DELETE FROM face_change"))
        connection.execute(text("UPDATE collection SET log_begins = pg_current_xact_id()"))
    assert facedex.protected.match().faces == STRANGERS
    assert [one.face for one in facedex.protected.alerts()][before:] == [7]


def test_a_database_that_was_copied_to_another_server_is_matched_anew(facedex: Facedex) -> None:
    switch_on(facedex)
    enlist(facedex, range(1))
    facedex.protected.match()
    with facedex.store.writing() as connection:
        connection.execute(text("UPDATE protected.list SET system_identifier = '1'"))
    assert facedex.protected.match().faces == STRANGERS
    assert facedex.protected.match().faces == 0


def test_writers_at_the_same_time_tell_each_face_once(facedex: Facedex, tmp_path: Path) -> None:
    switch_on(facedex)
    enlist(facedex, range(MEMBERS))
    before = len(facedex.protected.alerts())

    def bring(writer: int) -> None:
        first = 10_000 + 100 * writer
        planted = near(CENTRES, seed=writer, noise=0.3)
        put(facedex, tmp_path / f"{writer}.parquet", planted, first=first)

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(bring, writer) for writer in range(6)]:
            done.result()
    found = facedex.protected.alerts(limit=1_000)[before:]
    assert sorted(external_ids(facedex, [one.face for one in found])) == [
        f"f{10_000 + 100 * writer + place}" for writer in range(6) for place in range(MEMBERS)
    ]


def test_whoever_matched_with_a_list_that_changed_writes_nothing(facedex: Facedex) -> None:
    switch_on(facedex)
    enlist(facedex, range(1))
    tenant = facedex.collection()
    with facedex.store.writing() as connection:
        stale = lists.required(connection, tenant)
        lists.note_persons_left(connection, tenant)
        now = lists.required(connection, tenant)
        moved = {"cursor": "1:1:", "system_identifier": "1", "collection": tenant}
        assert not lists.advance(connection, stale, **moved)
        assert lists.advance(connection, now, **moved)
        assert not lists.advance(connection, now, **moved)


# --- what goes ----------------------------------------------------------------------------------


def rows_of(store: Store) -> dict[str, int]:
    with store.reading() as connection:
        return {
            table: connection.scalar(text(f"SELECT count(*) FROM protected.{table}"))
            for table in ("list", "person", "picture", "alert")
        }


def test_a_person_goes_with_its_pictures_and_alerts_and_a_list_with_everything(
    facedex: Facedex, tmp_path: Path
) -> None:
    assert rows_of(facedex.store) == {"list": 0, "person": 0, "picture": 0, "alert": 0}
    switch_on(facedex)
    enlist(facedex, range(2))
    put(facedex, tmp_path / "1.parquet", near(CENTRES[:2], seed=3), first=10_000)
    shown = facedex.protected.show().members
    assert [(one.name, one.pictures, one.alerts) for one in shown] == [("M0", 4, 1), ("M1", 4, 1)]
    facedex.protected.remove("M0")
    assert rows_of(facedex.store) == {"list": 1, "person": 1, "picture": 4, "alert": 1}
    with pytest.raises(UnknownNameError, match="nobody on the protected list"):
        facedex.protected.remove("M0")
    facedex.protected.off()
    assert rows_of(facedex.store) == {"list": 0, "person": 0, "picture": 0, "alert": 0}
    with pytest.raises(UnknownNameError, match="facedex protected on"):
        facedex.protected.alerts()
    with facedex.store.reading() as connection:
        log = list(connection.scalars(text("SELECT action FROM protected.audit ORDER BY id")))
        public = set(connection.scalars(text("SELECT action FROM audit")))
    assert log == ["on", "match", "show", "remove", "off"]
    assert public == {"import"}


def test_an_alert_outlives_its_face_and_goes_with_the_collection(
    facedex: Facedex, tmp_path: Path
) -> None:
    switch_on(facedex)
    enlist(facedex, range(1))
    put(facedex, tmp_path / "1.parquet", near(CENTRES[:1], seed=3), first=10_000)
    assert facedex.delete(where="external_id = 'f10000'")[0] == 1
    [alert] = facedex.protected.alerts()
    assert alert.face is None
    assert len(alert.closest) == CLOSEST
    facedex.drop("default")
    assert rows_of(facedex.store) == {"list": 0, "person": 0, "picture": 0, "alert": 0}


def test_an_alert_holds_nothing_of_an_ordinary_person_that_was_erased(
    facedex: Facedex, tmp_path: Path
) -> None:
    switch_on(facedex)
    enlist(facedex, range(1))
    named = {"person": ["Ann"]}
    put(facedex, tmp_path / "1.parquet", near(CENTRES[:1], seed=3), first=10_000, **named)
    facedex.people.erase("Ann")
    with facedex.store.reading() as connection:
        assert list(connection.scalars(text("SELECT face_id FROM protected.alert"))) == [None]


def test_an_alert_is_seen_once(facedex: Facedex, tmp_path: Path) -> None:
    switch_on(facedex)
    enlist(facedex, range(2))
    put(facedex, tmp_path / "1.parquet", near(CENTRES[:2], seed=3), first=10_000)
    first, second = facedex.protected.alerts(unseen=True)
    facedex.protected.seen(first.id)
    seen, _ = facedex.protected.alerts()
    facedex.protected.seen(first.id)
    assert [one.id for one in facedex.protected.alerts(unseen=True)] == [second.id]
    assert facedex.protected.alerts(limit=1) == [seen]
    assert seen == replace(first, seen_at=seen.seen_at, seen_by=seen.seen_by)
    assert seen.seen_at is not None
    with pytest.raises(UnknownNameError, match="no alert 999"):
        facedex.protected.seen(999)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"purpose": " "}, "needs a purpose"),
        ({"basis": ""}, "needs a basis"),
        ({"fpir": 0.5}, "at most 0.01"),
        ({"fpir": 0.0}, "above 0"),
    ],
)
def test_a_list_without_purpose_basis_or_a_small_rate_is_refused(
    facedex: Facedex, said: dict[str, object], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        facedex.protected.on(**{"purpose": "find forgeries", "basis": "consent", **said})
    assert rows_of(facedex.store)["list"] == 0


# --- who may look -------------------------------------------------------------------------------


@pytest.fixture
def ordinary_url(facedex: Facedex, database_url: str) -> Iterator[str]:
    """The same database, for a role that may read and write all that is ordinary."""
    del facedex
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE ordinary LOGIN")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO ordinary")
        connection.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO ordinary")
    yield database_url.replace("//facedex@", "//ordinary@")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP OWNED BY ordinary")
        connection.execute("DROP ROLE ordinary")


def test_an_ordinary_role_may_not_touch_a_protected_table(ordinary_url: str) -> None:
    statements = ("SELECT 1 FROM {}", "DELETE FROM {}", "LOCK {} IN ACCESS SHARE MODE")
    with psycopg.connect(ordinary_url) as connection:
        for table in ("list", "person", "picture", "alert", "audit"):
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.format(f"protected.{table}"))
                connection.rollback()


@pytest.fixture
def other_home(compiled: Path, tmp_path: Path) -> Path:
    """The home of the ordinary role."""
    (tmp_path / "other").mkdir()
    return with_kernels(tmp_path / "other", compiled)


def ordinary_answers(url: str, home: Path, out: Path) -> list[str]:
    """Whatever can be asked without touching protected lists, as text."""
    with open_facedex(home=home, database_url=url) as opened:
        recognition, people = opened.recognition, opened.people
        probes = [recognition.probe_of_face(face) for face in (1, 50, STRANGERS + 1)]
        answers = [
            *(recognition.identify(probe) for probe in probes),
            *(recognition.verify(probes[0], probe) for probe in probes),
            *(opened.search(probe.vector, count=20).hits for probe in probes),
            *(opened.overview(), opened.spaces(), opened.count(), opened.count(where="face > 9")),
            *(opened.faces(limit=100_000), people.list(limit=1_000), people.show("P1")),
            *(people.events(), replace(opened.export_file(out), seconds=0.0)),
            out.read_bytes(),
        ]
        for act in (
            lambda: people.show("M0"),
            lambda: people.rename("M0", "P1"),
            lambda: opened.collection("protected"),
            lambda: opened.count(where="protected = 1"),
        ):
            with pytest.raises(UsageError) as refused:
                act()
            answers.append(str(refused.value))
        return list(map(repr, answers))


def test_what_an_ordinary_role_sees_is_the_same_with_and_without_members(
    facedex: Facedex, ordinary_url: str, other_home: Path, tmp_path: Path
) -> None:
    put(facedex, tmp_path / "1.parquet", near(CENTRES, seed=3), first=10_000)

    def asked() -> list[str]:
        return ordinary_answers(ordinary_url, other_home, tmp_path / "out.parquet")

    without = asked()
    switch_on(facedex)
    assert asked() == without
    enlist(facedex, range(MEMBERS))
    assert facedex.protected.match().alerts >= MEMBERS
    assert asked() == without


def overheard(store: Store) -> list[str]:
    """Every statement from here on; a list that grows."""
    said: list[str] = []

    @event.listens_for(store.engine, "before_cursor_execute")
    def note(_one, _cursor, statement: str, *_others: object) -> None:
        said.append(statement)

    return said


def test_no_ordinary_statement_names_a_protected_table(facedex: Facedex, tmp_path: Path) -> None:
    switch_on(facedex)
    enlist(facedex, range(MEMBERS))
    facedex.protected.match()
    said = overheard(facedex.store)
    probe = facedex.recognition.probe_of_face(1)
    facedex.recognition.identify(probe)
    facedex.recognition.verify_person(probe, "P1")
    facedex.search(probe.vector)
    facedex.count()
    facedex.people.assign("P1", [500])
    facedex.export_file(tmp_path / "out.parquet")
    assert len(said) > 10
    assert not [one for one in said if "protected" in one]


def test_what_an_ordinary_role_brings_in_is_matched_by_whoever_may(
    facedex: Facedex, ordinary_url: str, other_home: Path, tmp_path: Path
) -> None:
    switch_on(facedex)
    enlist(facedex, range(1))
    before = len(facedex.protected.alerts())
    with open_facedex(home=other_home, database_url=ordinary_url) as other:
        put(other, tmp_path / "1.parquet", near(CENTRES[:1], seed=3), first=10_000)
        for act in (other.protected.show, other.protected.off, other.protected.alerts):
            with pytest.raises(UsageError, match="may not work"):
                act()
    assert len(facedex.protected.alerts()) == before + 1


def test_an_auditor_reads_alerts_and_stays_an_ordinary_role_otherwise(
    facedex: Facedex, ordinary_url: str, other_home: Path, database_url: str, tmp_path: Path
) -> None:
    switch_on(facedex)
    enlist(facedex, range(2))
    put(facedex, tmp_path / "1.parquet", near(CENTRES[:1], seed=3), first=10_000)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("GRANT USAGE ON SCHEMA protected TO ordinary")
        connection.execute("GRANT SELECT ON protected.alert TO ordinary")
    with open_facedex(home=other_home, database_url=ordinary_url) as auditor:
        put(auditor, tmp_path / "2.parquet", near(CENTRES[1:2], seed=3), first=10_001)
        with pytest.raises(UsageError, match="may not work"):
            auditor.protected.show()
        with auditor.store.reading() as connection:
            assert connection.scalar(text("SELECT count(*) FROM protected.alert")) == 1
    assert len(facedex.protected.alerts()) == 2


def test_an_ordinary_role_deletes_a_face_with_an_alert_and_does_not_notice(
    facedex: Facedex, ordinary_url: str, other_home: Path, tmp_path: Path
) -> None:
    switch_on(facedex)
    enlist(facedex, range(2))
    put(facedex, tmp_path / "1.parquet", near(CENTRES[:2], seed=3), first=10_000)
    told = facedex.protected.alerts()
    with open_facedex(home=other_home, database_url=ordinary_url) as other:
        assert other.delete(where="external_id = 'f10000'")[0] == 1
    left = facedex.protected.alerts()
    assert left == [replace(told[0], face=None), told[1]]


def test_without_a_list_matching_takes_two_short_queries(facedex: Facedex) -> None:
    tenant = facedex.collection()
    said = overheard(facedex.store)
    assert follow(facedex.store, tenant).faces == 0
    assert len(said) == 2
