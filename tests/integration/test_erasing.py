"""An erased person is gone: rows, events, names, pictures, snapshots; and does not come back."""

import json
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from facedex.handle import Facedex, open_facedex
from indexer.build import build
from indexer.erasing import LEDGER, finish, training_folder
from indexer.originals import keep_original
from retrieval.errors import FacedexError, UnknownNameError
from retrieval.reader import Reader
from retrieval.store import embedded
from retrieval.store.collections import set_text_space, space_or_new
from retrieval.store.database import Store, open_store
from retrieval.store.holdings import Faces, Kind, Persons
from retrieval.store.images import add_images
from retrieval.store.people.events import events
from retrieval.store.people.reading import found
from retrieval.store.snapshots import sole_builder
from retrieval.values import FaceId
from tests.conftest import with_kernels
from tests.people import dump, faces_of, gallery, picture

NAME, ALIAS, OLD_NAME = "Ann Erasable", "Annie Erasable", "Anna Erasable"
PICTURES = [[NAME], [NAME, "Ben"], ["Ben"], [ALIAS, None], [ALIAS], ["Cleo"], [OLD_NAME]]
# Each counts rows that name the person or its faces.
NAMING = {
    "face": "face WHERE id = ANY(:faces) OR person_id = ANY(:persons)",
    "vector": "vector WHERE face_id = ANY(:faces)",
    "caption": "caption WHERE face_id = ANY(:faces)",
    "caption's vector": "caption_vector WHERE caption_id NOT IN (SELECT id FROM caption)",
    "person": "person WHERE id = ANY(:persons) OR merged_into = ANY(:persons)",
    "rejection": "rejection WHERE face_id = ANY(:faces) OR person_id = ANY(:persons)",
    "link": "person_link WHERE one_id = ANY(:persons) OR two_id = ANY(:persons)",
    "event": "person_event WHERE faces && CAST(:faces AS bigint[])"
    " OR persons && CAST(:persons AS bigint[])",
    "name": "person_event_name WHERE person_id = ANY(:persons)",
    "log of faces": "face_change WHERE face_ids && CAST(:faces AS bigint[])",
    "import": "imported_file, unnest(CAST(:faces AS bigint[])) AS gone (id) WHERE faces @> gone.id",
}
IMPORTED = "INSERT INTO imported_file SELECT 1, 1, sha256(''), 9, int8multirange(int8range(1, 99))"


@pytest.fixture
def place(tmp_path: Path, compiled: Path) -> Path:
    """The folder of a home whose database lies elsewhere."""
    (tmp_path / "home").mkdir()
    return with_kernels(tmp_path / "home", compiled)


@pytest.fixture
def facedex(database_url: str, place: Path) -> Iterator[Facedex]:
    with open_facedex(home=place, database_url=database_url, collection="gallery") as opened:
        gallery(opened.store, PICTURES)
        yield opened


def history(facedex: Facedex) -> None:
    """Events of every kind around the person to be erased, and others."""
    people = facedex.people
    free = faces_of(facedex.store, None)
    people.merge(ALIAS, into=NAME)
    people.rename(OLD_NAME, "Anna Other Erasable")
    people.merge("Anna Other Erasable", into=NAME)
    people.assign(NAME, free)
    people.reject(NAME, faces_of(facedex.store, "Cleo"))
    people.link(NAME, "Ben")
    people.rename("Cleo", "Clea")
    people.undo(people.reject("Ben", faces_of(facedex.store, "Clea")).event or 0)
    with facedex.store.writing() as connection:
        connection.execute(text(IMPORTED))


def captioned(facedex: Facedex) -> None:
    """Every face with a vector in a face-text space, and a caption with one, too."""
    with facedex.store.writing() as connection:
        words = space_or_new(connection, replace(facedex.spaces()[0], name="words@1"))
        set_text_space(connection, facedex.collection(), words)
        for statement in (
            "INSERT INTO vector SELECT face_id, :words, data FROM vector",
            """INSERT INTO caption (id, collection_id, face_id, text, provider)
            SELECT face.id, 1, face.id, name || ' smiling', 'stated'
            FROM face JOIN person ON person.id = person_id""",
            """INSERT INTO caption_vector SELECT id, :words, data
            FROM caption JOIN vector USING (face_id) WHERE space_id = :words""",
        ):
            connection.execute(text(statement), {"words": words.id})


def on_disk(home: Path) -> bytes:
    """Every file of the home but its ledger."""
    files = [path for path in home.rglob("*") if path.is_file() and "kernels" not in path.parts]
    return b"".join(path.read_bytes() for path in sorted(files) if path.name != LEDGER)


def snapshots(home: Path) -> list[Path]:
    return [path for path in home.glob("snapshots/*/*/*") if not path.is_symlink()]


def halves(face: FaceId, store: Store) -> bytes:
    with store.reading() as connection:
        statement = text("SELECT DISTINCT data FROM vector WHERE face_id = :face")
        return bytes(connection.scalars(statement, {"face": face}).one())


def names(store: Store) -> set[str | None]:
    with store.reading() as connection:
        return set(connection.scalars(text("SELECT name FROM person")))


def started(home: Path, url: str, name: str) -> "subprocess.Popen[bytes]":
    """`facedex person erase` in a process of its own."""
    options = ["--home", str(home), "--database-url", url]
    words = ["person", "erase", name, "--yes", "-c", "gallery"]
    return subprocess.Popen([sys.executable, "-m", "facedex", *options, *words])


def wait_until(true: object, *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@contextmanager
def copied(facedex: Facedex, url: str) -> Iterator[str]:
    """A backup of the database as it is now."""
    copy = f"{re.search(r'/(test_[0-9]+)', url)[1]}_{secrets.token_hex(4)}"  # type: ignore[index]
    facedex.store.engine.dispose()
    facedex.store.arrow_pool.dispose()
    server = re.sub(r"/test_[0-9]+", "/postgres", url)
    with psycopg.connect(server, autocommit=True) as connection:
        source = re.search(r"/(test_[0-9]+)", url)[1]  # type: ignore[index]
        connection.execute(f"CREATE DATABASE {copy} TEMPLATE {source}")  # type: ignore[arg-type]
        yield re.sub(r"/test_[0-9]+", f"/{copy}", url)
        connection.execute(f"DROP DATABASE {copy} WITH (FORCE)")  # type: ignore[arg-type]


def is_waiting(store: Store) -> bool:
    """Whether somebody waits for the lock of a table."""
    statement = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")
    with store.reading() as connection:
        return bool(connection.scalar(statement))


def test_nothing_names_an_erased_person_or_its_faces(facedex: Facedex, place: Path) -> None:
    store = facedex.store
    history(facedex)
    before = facedex.people.show(NAME)
    gone = {"faces": list(before.faces), "persons": [before.person.id, *before.person.merged]}
    captioned(facedex)
    vectors = [halves(face, store) for face in before.faces]
    for kind in (Kind.FACES, *facedex.index_kinds()):  # of faces one is current and one is kept
        facedex.build_index(kind)
    assert all(vector in on_disk(place) for vector in vectors)
    seen = training_folder(facedex.settings.home, facedex.collection().id)
    seen.mkdir(parents=True)
    (seen / "network.features").write_bytes(b"".join(vectors))

    facedex.people.erase(f"#{before.person.id}")

    with store.reading() as connection:
        counts = {
            what: connection.scalar(text(f"SELECT count(*) FROM {rows}"), gone)
            for what, rows in NAMING.items()
        }
        kinds = [one.kind for one in events(connection, collection=facedex.collection())]
        images = connection.scalars(text("SELECT path FROM image ORDER BY id")).all()
    assert counts == dict.fromkeys(NAMING, 0)
    rows = [row for found in dump(store, without=set()).values() for row in found]
    assert not [row for row in rows if "Erasable" in row]
    assert kinds == ["undo", "reject", "rename"]
    assert images == [b"/pictures/2.jpg", b"/pictures/3.jpg", b"/pictures/6.jpg"]
    assert not any(vector in on_disk(place) for vector in vectors)
    assert not seen.exists()
    assert len(snapshots(place)) == len(Kind)
    for event in (1, 5):
        with pytest.raises(UnknownNameError, match="Events of an erased person are gone"):
            facedex.people.undo(event)
    for who in (NAME, ALIAS, f"#{before.person.id}"):
        with pytest.raises(UnknownNameError):
            facedex.people.show(who)
    for kind in Kind:
        assert not facedex.check(kind).differences
    assert facedex.check(Kind.CAPTIONS).store == len(
        faces_of(store, "Ben") + faces_of(store, "Clea")
    )


def test_the_ledger_holds_numbers_and_times_alone(facedex: Facedex, place: Path) -> None:
    history(facedex)
    before = facedex.people.show(NAME)
    facedex.people.erase(NAME)
    told = json.loads((place / LEDGER).read_text())
    assert set(told) == {"erasure", "collection", "persons", "faces", "images"}
    numbers = {
        word: sorted(number for _, ids in told[word] for number in ids)
        for word in ("persons", "faces", "images")
    }
    assert numbers["faces"] == before.faces
    assert numbers["persons"] == sorted([before.person.id, *before.person.merged])
    assert len(numbers["images"]) == 4
    with facedex.store.reading() as connection:
        erased = connection.scalars(text("SELECT erased FROM erasure")).one()
    assert erased == {word: told[word] for word in ("persons", "faces", "images")}


def test_kept_originals_go_unless_another_image_has_the_same_content(
    facedex: Facedex, place: Path
) -> None:
    contents = {n: b"content %d" % n for n in (1, 2, 5)}
    with facedex.store.writing() as connection:
        for number, content in contents.items():
            statement = text("UPDATE image SET sha256 = sha256(:content) WHERE id = :id")
            connection.execute(statement, {"content": content, "id": number})
    kept = {n: keep_original(one, Path("x.jpg"), home=place) for n, one in contents.items()}
    other = gallery(facedex.store, [["Ben"]], name="other")
    with facedex.store.writing() as connection:
        connection.execute(
            text("UPDATE image SET sha256 = sha256(:content) WHERE collection_id = :id"),
            {"content": contents[5], "id": other.id},
        )
    facedex.people.erase(NAME)
    assert {n: path.exists() for n, path in kept.items()} == {1: False, 2: True, 5: True}
    facedex.people.erase(ALIAS)
    assert kept[5].exists()


def test_readers_at_work_see_the_person_no_more(facedex: Facedex, place: Path) -> None:
    faces = faces_of(facedex.store, NAME)
    probe = facedex.probe_of_face(faces[0])
    held = (facedex.store, facedex.collection(), facedex.spaces()[0])
    facedex.build_index()
    build(Persons(*held), home=place)
    of_faces = Reader.open(Faces(*held), home=place)
    of_persons = Reader.open(Persons(*held), home=place)
    assert (of_faces.status().snapshot_rows, of_persons.status().snapshot_rows) == (9, 5)
    facedex.people.erase(NAME)
    found = facedex.search(probe, count=99, recall="exact")
    assert len(found.hits[0]) == 7
    assert not {hit.record.face for hit in found.hits[0]} & set(faces)
    for reader, rows in ((of_faces, 7), (of_persons, 4)):
        reader.refresh()
        assert (reader.status().rows, reader.status().snapshot_rows) == (rows, rows)


def test_the_last_person_of_a_collection_can_be_erased(facedex: Facedex, place: Path) -> None:
    facedex.build_index()
    for person in facedex.people.list():
        facedex.people.erase(f"#{person.id}")
    (left,) = faces_of(facedex.store, None)  # in a picture with somebody who is gone
    facedex.people.assign("Nobody", [left])
    facedex.people.erase("Nobody")
    assert (facedex.count(), facedex.people.list(), len(snapshots(place))) == (0, [], 1)


def test_a_restored_backup_brings_nobody_back_and_a_reused_number_is_somebody_else(
    facedex: Facedex, database_url: str, place: Path
) -> None:
    def come(name: str, *, number: int, store: Store) -> list[FaceId]:
        with store.writing() as connection:
            images = [picture(number, [name])]
            add_images(connection, images, collection=facedex.collection(), space=space)
        return faces_of(store, name)

    (space,) = facedex.spaces()
    cleo = faces_of(facedex.store, "Cleo")
    with copied(facedex, database_url) as early:
        late_faces = come("Late", number=90, store=facedex.store)
        facedex.people.assign(NAME, cleo)
        with copied(facedex, database_url) as late:
            numbers = {one.name: one.id for one in facedex.people.list()}
            facedex.people.erase(NAME)
            facedex.people.erase("Late")
            with open_store(early) as store:
                assert come("New", number=91, store=store) == late_faces
                with store.reading() as connection:
                    new = found(connection, "New", collection=facedex.collection())
                assert new == numbers["Late"]
                finish(store, home=place)
                assert names(store) == {ALIAS, OLD_NAME, "Ben", "Cleo", "New"}
                assert faces_of(store, "New") == late_faces
                assert faces_of(store, "Cleo") == []  # when it was erased, NAME's
                once = dump(store, without=set())
                finish(store, home=place)
                assert dump(store, without=set()) == once
            with open_facedex(home=place, database_url=late, collection="gallery") as restored:
                assert names(restored.store) == {ALIAS, OLD_NAME, "Ben", "Cleo"}
                assert not restored.check().differences


def test_what_a_restore_gives_back_to_the_person_goes_too(
    facedex: Facedex, database_url: str, place: Path
) -> None:
    """A face that was deleted before the erasing: no ledger names it, and it shows the person."""
    first = faces_of(facedex.store, NAME)[0]
    with copied(facedex, database_url) as backup:
        facedex.delete(where=f"face = {first}")
        facedex.people.erase(NAME)
        with open_facedex(home=place, database_url=backup, collection="gallery") as restored:
            assert restored.count(where=f"face = {first}") == 0


def test_a_copy_of_the_embedded_servers_data_does_not_bring_the_person_back(home: Path) -> None:
    with open_facedex(home=home, collection="gallery") as facedex:
        gallery(facedex.store, PICTURES)
        facedex.build_index()
    embedded.stop(home)
    data = (home / "postgres").resolve()
    subprocess.run(["cp", "-a", data, data.with_name("older")], check=True)
    with open_facedex(home=home, collection="gallery") as facedex:
        facedex.people.erase(NAME)
    embedded.stop(home)
    shutil.rmtree(data)
    data.with_name("older").rename(data)
    with open_facedex(home=home, collection="gallery") as facedex:
        assert names(facedex.store) == {ALIAS, OLD_NAME, "Ben", "Cleo"}
        assert facedex.count() == 7
        assert not facedex.check().differences


def test_killed_between_ledger_and_commit_it_is_finished_at_the_next_opening(
    facedex: Facedex, database_url: str, place: Path
) -> None:
    facedex.build_index()
    with facedex.store.writing() as connection:
        connection.execute(text("LOCK TABLE erasure IN SHARE MODE"))  # the last thing it writes
        erasing = started(place, database_url, NAME)
        wait_until(lambda: (place / LEDGER).exists() and is_waiting(facedex.store))
        erasing.kill()
        erasing.wait()
    wait_until(lambda: not is_waiting(facedex.store))
    assert NAME in names(facedex.store)
    with open_facedex(home=place, database_url=database_url, collection="gallery") as again:
        assert names(again.store) == {ALIAS, OLD_NAME, "Ben", "Cleo"}
        assert (again.count(), again.index_status().snapshot_rows) == (7, 7)
    assert len(snapshots(place)) == 1


def test_killed_after_the_commit_the_snapshots_are_cleaned_at_the_next_opening(
    facedex: Facedex, database_url: str, place: Path
) -> None:
    (face, *_) = faces_of(facedex.store, NAME)
    vector = halves(face, facedex.store)
    facedex.build_index()
    with sole_builder(facedex.store, collection=facedex.collection()):
        erasing = started(place, database_url, NAME)
        wait_until(lambda: NAME not in names(facedex.store))
        erasing.kill()
        erasing.wait()
        # Who opens now is not made to wait for the builder.
        with open_facedex(home=place, database_url=database_url):
            assert vector in on_disk(place)
    with open_facedex(home=place, database_url=database_url):
        assert vector not in on_disk(place)
        assert len(snapshots(place)) == 1


def test_a_build_that_began_before_the_erasing_is_waited_for(facedex: Facedex, place: Path) -> None:
    facedex.build_index()
    before = snapshots(place)
    erasing = threading.Thread(target=facedex.people.erase, args=(NAME,))
    with sole_builder(facedex.store, collection=facedex.collection()):
        erasing.start()
        wait_until(lambda: NAME not in names(facedex.store))
        time.sleep(1.5)
        assert snapshots(place) == before
        assert erasing.is_alive()
    erasing.join()
    assert len(snapshots(place)) == 1
    assert snapshots(place) != before


def test_a_home_learns_of_erasures_from_the_database(
    facedex: Facedex, database_url: str, place: Path
) -> None:
    facedex.people.erase(NAME)
    other = place.parent / "other"
    with open_facedex(home=other, database_url=database_url):
        assert (other / LEDGER).read_bytes() == (place / LEDGER).read_bytes()


def test_a_torn_line_is_cut_off_and_a_damaged_one_is_reported(
    facedex: Facedex, database_url: str, place: Path
) -> None:
    ledger = place / LEDGER
    ledger.write_bytes(b'{"erasure": "0123')  # the machine stopped in the middle
    facedex.people.erase(NAME)
    assert next(iter(json.loads(ledger.read_text()))) == "erasure"
    ledger.write_bytes(b"nonsense\n" + ledger.read_bytes())
    with (
        pytest.raises(FacedexError, match=r"erasures\.jsonl holds a line that cannot be read"),
        open_facedex(home=place, database_url=database_url),
    ):
        pass


def test_erasing_and_other_operations_at_once_lose_nothing(facedex: Facedex) -> None:
    faces = faces_of(facedex.store, "Ben")
    failed: list[Exception] = []

    def assign() -> None:
        for turn in range(30):
            try:
                facedex.people.assign("Ben" if turn % 2 else "Cleo", faces)
            except Exception as cause:  # noqa: BLE001  (a thread's error would be lost)
                failed.append(cause)

    other = threading.Thread(target=assign)
    other.start()
    for name in (NAME, ALIAS, OLD_NAME):
        facedex.people.erase(name)
    other.join()
    assert failed == []
    assert faces_of(facedex.store, "Ben") == faces
    assert names(facedex.store) == {"Ben", "Cleo"}


def test_erasing_knows_every_table_that_refers_to_a_person_a_face_or_an_image(
    store: Store,
) -> None:
    """Who adds such a table adds it to retrieval/store/people/erasing.py, and then here."""
    statement = text("""
        SELECT DISTINCT CAST(CAST(conrelid AS regclass) AS text)
        FROM pg_constraint
        WHERE contype = 'f'
            AND CAST(CAST(confrelid AS regclass) AS text) IN ('person', 'face', 'image')
    """)
    with store.reading() as connection:
        referring = set(connection.scalars(statement))
    alerts = {"protected.alert"}  # outlive their face and forget its number
    expected = {"caption", "face", "person", "person_link", "proposal", "rejection", "vector"}
    assert referring - alerts == expected
