"""Operations on persons are events; undo takes them back exactly, or says what is in the way."""

import getpass
import random
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy import text

from retrieval.errors import UndoRefusedError, UnknownNameError, UsageError
from retrieval.fields import BUILT_IN
from retrieval.filters.parse import parse
from retrieval.store import collections as tenants
from retrieval.store.database import Connection, Store
from retrieval.store.faces import update_faces
from retrieval.store.images import add_images, known_images, persons_named
from retrieval.store.people import operations as op
from retrieval.store.people.events import event, events
from retrieval.store.people.operations import Done
from retrieval.store.people.reading import persons
from retrieval.store.people.undo import undo
from retrieval.values import Collection, FaceId
from tests.people import dump, faces_of, gallery, picture

OPERATIONS = 500
PICTURES = [["Ann"], ["Ann", "Ben"], ["Ben"], ["Cleo", None], [None], ["Dora", "Ann"], [None, None]]
# Faces of persons who are merged, or of whom it is known that they are not.
STRAY = """
    SELECT count(*)
    FROM face JOIN person ON person.id = person_id
        LEFT JOIN rejection ON face_id = face.id AND rejection.person_id = person.id
    WHERE merged_into IS NOT NULL OR face_id IS NOT NULL
"""


@pytest.fixture
def people(store: Store) -> Collection:
    return gallery(store, PICTURES)


def done(store: Store, act: Callable[[Connection], Done]) -> Done:
    with store.writing() as connection:
        return act(connection)


class Anybody:
    """Does something at random to persons at random; refusals of impossible wishes are fine."""

    def __init__(self, store: Store, collection: Collection, *, seed: int) -> None:
        self.store, self.collection = store, collection
        self.random = random.Random(seed)

    def act(self) -> Done | None:
        try:
            return done(self.store, self._wish())
        except UsageError:
            return None

    def _wish(self) -> Callable[[Connection], Done]:
        of_it = {"collection": self.collection}
        one, two, faces, new = self._who(), self._who(), self._faces(), self._new()
        wishes: list[Callable[[Connection], Done]] = [
            lambda c: op.create(c, new, **of_it),
            lambda c: op.assign(c, faces, one, **of_it),
            lambda c: op.assign(c, faces, new or "Zoe", **of_it),
            lambda c: op.unassign(c, faces, **of_it),
            lambda c: op.reject(c, faces, one, **of_it),
            lambda c: op.link_persons(c, one, two, **of_it),
            lambda c: op.unlink_persons(c, one, two, **of_it),
            lambda c: op.merge(c, one, two, **of_it),
            lambda c: op.split(c, self._some_of(c, one), one, name=new, **of_it),
            lambda c: op.rename(c, one, new or "Yves", **of_it),
        ]
        return self.random.choice(wishes)

    def _who(self) -> str:
        with self.store.reading() as connection:
            known = connection.execute(text("SELECT id, name FROM person ORDER BY id")).all()
        chosen = self.random.choice(known)
        return chosen.name if chosen.name and self.random.random() < 0.5 else f"#{chosen.id}"

    def _faces(self) -> list[FaceId]:
        with self.store.reading() as connection:
            known = connection.scalars(text("SELECT id FROM face ORDER BY id")).all()
        return self.random.sample(known, self.random.randint(1, 3))

    def _some_of(self, connection: Connection, who: str) -> list[FaceId]:
        statement = text("SELECT id FROM face WHERE person_id = :id ORDER BY id")
        number = op.reading.required(connection, who, collection=self.collection)
        owned = connection.scalars(statement, {"id": number}).all()
        return self.random.sample(owned, min(len(owned), 2))

    def _new(self) -> str | None:
        return self.random.choice([None, *(f"Person {n}" for n in range(40))])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("with_undos_between", [False, True])
def test_500_operations_undone_in_reverse_leave_the_database_as_it_was(
    store: Store, people: Collection, *, with_undos_between: bool
) -> None:
    anybody = Anybody(store, people, seed=7)
    before = dump(store)
    made: list[int] = []
    kinds: set[str] = set()
    while len(made) < OPERATIONS:
        if with_undos_between and made and anybody.random.random() < 0.3:
            wanted = anybody.random.choice(made[-5:])
            try:
                acted = done(store, lambda c, n=wanted: undo(c, n, collection=people))
            except UndoRefusedError:
                continue
        else:
            acted = anybody.act()
        if acted is not None and acted.event is not None:
            made.append(acted.event)
    with store.reading() as connection:
        kinds = {one.kind for one in events(connection, collection=people)}
    expected = {
        "create",
        "assign",
        "unassign",
        "reject",
        "link",
        "unlink",
        "merge",
        "split",
        "rename",
    }
    assert kinds == expected | ({"undo", "redo"} if with_undos_between else set())
    assert dump(store) != before
    for number in reversed(made):
        done(store, lambda c, n=number: undo(c, n, collection=people))
    assert dump(store) == before


def test_undoing_the_undos_brings_every_state_back(store: Store, people: Collection) -> None:
    anybody = Anybody(store, people, seed=11)
    states, made = [dump(store)], []
    while len(made) < 40:
        acted = anybody.act()
        if acted is not None and acted.event is not None:
            made.append(acted.event)
            states.append(dump(store))
    undos = []
    for number, state in zip(reversed(made), reversed(states[:-1]), strict=True):
        undos.append(done(store, lambda c, n=number: undo(c, n, collection=people)).event)
        assert dump(store) == state
    for number, state in zip(reversed(undos), states[1:], strict=True):
        done(store, lambda c, n=number: undo(c, n or 0, collection=people))
        assert dump(store) == state


def test_undo_names_the_event_that_stands_in_the_way(store: Store, people: Collection) -> None:
    ann, ben = faces_of(store, "Ann"), faces_of(store, "Ben")
    of_it = {"collection": people}
    first = done(store, lambda c: op.assign(c, ann[:1], "Ben", **of_it)).event
    second = done(store, lambda c: op.merge(c, "Ben", "Cleo", **of_it)).event
    third = done(store, lambda c: op.rename(c, "Cleo", "Clea", **of_it)).event
    made = done(store, lambda c: op.assign(c, ben[:1], "Eve", **of_it)).event
    merged = done(store, lambda c: op.merge(c, "Dora", "Eve", **of_it)).event
    assert first is not None
    assert second is not None
    assert third is not None
    assert made is not None
    with pytest.raises(UndoRefusedError, match=rf"undo {second} \(merge\) first"):
        done(store, lambda c: undo(c, first, **of_it))
    with pytest.raises(UndoRefusedError, match=rf"undo {made} \(assign\) first"):
        done(store, lambda c: undo(c, second, **of_it))
    with pytest.raises(UndoRefusedError, match=rf"undo {merged} \(merge\) first"):
        done(store, lambda c: undo(c, made, **of_it))
    taken_back = done(store, lambda c: undo(c, third, **of_it)).event
    with pytest.raises(UndoRefusedError, match=rf"undone already: undo {taken_back} \(undo\)"):
        done(store, lambda c: undo(c, third, **of_it))
    with pytest.raises(UnknownNameError, match="no event 999"):
        done(store, lambda c: undo(c, 999, **of_it))


def test_undo_does_not_take_a_person_from_faces_that_ingest_gave_it(
    store: Store, people: Collection
) -> None:
    free = faces_of(store, None)
    made = done(store, lambda c: op.assign(c, free[:1], "Eve", collection=people)).event
    with store.writing() as connection:
        eve = persons_named(connection, ["Eve"], collection=people)["Eve"]
        statement = text("UPDATE face SET person_id = :person WHERE id = :face")
        connection.execute(statement, {"person": eve, "face": free[1]})
    with pytest.raises(UndoRefusedError, match=f"face {free[1]} was changed.*by ingest"):
        done(store, lambda c: undo(c, made or 0, collection=people))


def test_undo_of_a_face_that_was_deleted_since_is_refused(store: Store, people: Collection) -> None:
    (ben, *_) = faces_of(store, "Ben")
    for act in (op.unassign, lambda c, f, **k: op.assign(c, f, "Ben", **k)):
        made = done(store, lambda c, act=act: act(c, [ben], collection=people)).event
    with store.writing() as connection:
        connection.execute(text("DELETE FROM face WHERE id = :id"), {"id": ben})
    with pytest.raises(UndoRefusedError, match=f"face {ben} was changed or deleted since"):
        done(store, lambda c: undo(c, made or 0, collection=people))


def test_a_rejection_takes_the_face_off_and_the_next_assignment_lifts_it(
    store: Store, people: Collection
) -> None:
    ann = faces_of(store, "Ann")
    of_it = {"collection": people}
    assert done(store, lambda c: op.reject(c, ann[:2], "Ann", **of_it)).faces == 2
    assert faces_of(store, "Ann") == ann[2:]
    assert done(store, lambda c: op.reject(c, ann[:1], "Ann", **of_it)).event is None
    done(store, lambda c: op.assign(c, ann[:1], "Ann", **of_it))
    with store.reading() as connection:
        kept = connection.scalars(text("SELECT face_id FROM rejection")).all()
    assert kept == ann[1:2]
    done(store, lambda c: op.assign(c, ann[1:2], "Ben", **of_it))
    with pytest.raises(UsageError, match=f"face {ann[1]} is of person #.* and rejected for #"):
        done(store, lambda c: op.merge(c, "Ben", "Ann", **of_it))


def test_the_name_and_number_of_a_merged_person_mean_the_survivor(
    store: Store, people: Collection
) -> None:
    free = faces_of(store, None)
    of_it = {"collection": people}
    with store.reading() as connection:
        numbers = {one.name: one.id for one in persons(connection, collection=people)}
    done(store, lambda c: op.link_persons(c, "Ben", "Dora", **of_it))
    done(store, lambda c: op.merge(c, "Ben", "Ann", **of_it))
    done(store, lambda c: op.merge(c, "Ann", "Cleo", **of_it))
    for who in ("Ben", f"#{numbers['Ben']}", "Ann"):
        assert (
            done(store, lambda c, w=who: op.assign(c, free, w, **of_it)).person == numbers["Cleo"]
        )
    with store.writing() as connection:
        assert persons_named(connection, ["Ben"], **of_it) == {"Ben": numbers["Cleo"]}
        second = picture(2, []).sha256  # of Ann and Ben, whom ingest may go on to call so
        known = known_images(connection, people, [second])[second]
        assert known.persons == {"Ann", "Ben", "Cleo"}
        cleo, dora = persons(connection, **of_it)
    assert (cleo.merged, cleo.aliases) == ((numbers["Ann"], numbers["Ben"]), ("Ann", "Ben"))
    assert (cleo.links, dora.links) == ((dora.id,), (cleo.id,))
    with pytest.raises(UsageError, match=f"taken by person #{cleo.id}"):
        done(store, lambda c: op.rename(c, "Dora", "Ben", **of_it))


def test_split_makes_a_person_of_some_faces(store: Store, people: Collection) -> None:
    ann, ben = faces_of(store, "Ann"), faces_of(store, "Ben")
    of_it = {"collection": people}
    done(store, lambda c: op.split(c, ann[:1], "Ann", name="Eve", **of_it))
    assert (faces_of(store, "Eve"), faces_of(store, "Ann")) == (ann[:1], ann[1:])
    for faces, name, word in (
        (ben, None, f"faces {ben[0]}, {ben[1]} are not of person"),
        (ann[1:], None, "all faces of person"),
        (ann[1:2], "Ben", "name is taken"),
    ):
        with pytest.raises(UsageError, match=word):
            done(store, lambda c, f=faces, n=name: op.split(c, f, "Ann", name=n, **of_it))


def test_bad_names_and_numbers_are_refused_without_repeating_a_name(
    store: Store, people: Collection
) -> None:
    of_it = {"collection": people}
    wishes: list[tuple[str, Callable[[Connection], Done]]] = [
        ("no person of that name", lambda c: op.rename(c, "Nobody", "x", **of_it)),
        ("no person #4711", lambda c: op.assign(c, [FaceId(1)], "#4711", **of_it)),
        ("no person #99999999999999999999", lambda c: op.merge(c, "#" + "9" * 20, "Ann", **of_it)),
        ("begins a person's number", lambda c: op.create(c, "#x", **of_it)),
        ("empty", lambda c: op.rename(c, "Ann", "  ", **of_it)),
        ("the length of a name is 2,001", lambda c: op.create(c, "n" * 2001, **of_it)),
        ("both are person #", lambda c: op.merge(c, "Ann", "Ann", **of_it)),
        (
            "face 4711 is not in collection 'gallery'",
            lambda c: op.reject(c, [FaceId(4711)], "Ann", **of_it),
        ),
        ("no face was named", lambda c: op.assign(c, [], "Ann", **of_it)),
    ]
    before = dump(store)
    for word, wish in wishes:
        with pytest.raises(UsageError, match=word) as refused:
            done(store, wish)
        assert not {"Nobody", "Ann"} & set(str(refused.value).split())
    assert dump(store) == before


def test_events_tell_who_did_what_and_hold_no_name(store: Store, people: Collection) -> None:
    of_it = {"collection": people}
    made = done(store, lambda c: op.assign(c, faces_of(store, None), "Eve Example", **of_it)).event
    renamed = done(store, lambda c: op.rename(c, "Eve Example", "Eva", **of_it)).event
    with store.reading() as connection:
        rows = [*connection.scalars(text("SELECT t::text FROM person_event t"))]
        actors = set(connection.scalars(text("SELECT actor FROM person_event")))
        named = event(connection, renamed or 0, **of_it).changes.persons[0]
    assert not any("Eve" in row or "Eva" in row for row in rows)
    assert (len(rows), [made, renamed]) == (2, [1, 2])
    assert actors == {getpass.getuser()}
    assert named.before is not None
    assert named.after is not None
    assert (named.before.name, named.after.name) == ("Eve Example", "Eva")


def test_setting_the_person_of_faces_by_filter_is_an_event_too(
    store: Store, people: Collection
) -> None:
    before = dump(store)
    for value, where in (("Eve", "person = 'Ann'"), (None, "person = 'Ben'"), ("Eve", "face < 0")):
        with store.writing() as connection:
            update_faces(
                connection,
                {"person": value},
                collection=people,
                filter_=parse(where, BUILT_IN),
                fields=BUILT_IN,
            )
    assert (faces_of(store, "Ann"), faces_of(store, "Ben")) == ([], [])
    with store.reading() as connection:
        happened = events(connection, collection=people)
    assert [one.kind for one in happened] == ["unassign", "assign"]
    for one in happened:
        done(store, lambda c, n=one.id: undo(c, n, collection=people))
    assert dump(store) == before


@pytest.mark.timeout(300)
def test_writers_at_once_lose_nothing_and_never_wait_for_each_other(
    store: Store, people: Collection
) -> None:
    gallery(store, [["Ann"]], name="other")
    before = dump(store)
    made: list[int] = []
    failed: list[Exception] = []

    def write(seed: int) -> None:
        anybody = Anybody(store, people, seed=seed)
        for _ in range(60):
            try:
                acted = anybody.act()
            except Exception as cause:  # noqa: BLE001  (a thread's error would be lost)
                failed.append(cause)
                return
            if acted is not None and acted.event is not None:
                made.append(acted.event)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    with store.reading() as connection:
        kept = [one.id for one in events(connection, collection=people)]
    assert sorted(made) == sorted(kept)
    for number in kept:
        done(store, lambda c, n=number: undo(c, n, collection=people))
    assert dump(store) == before


def test_ingest_of_a_name_waits_for_the_merge_that_gives_it_away(
    store: Store, people: Collection
) -> None:
    """Else faces would come to a person who is merged, and nobody would find them."""
    found: list[int] = []

    def ingest() -> None:
        with store.writing() as connection:
            found.append(persons_named(connection, ["Ben"], collection=people)["Ben"])

    with store.writing() as connection:
        op.merge(connection, "Ben", "Ann", collection=people)
        other = threading.Thread(target=ingest)
        other.start()
        other.join(timeout=0.3)
        assert other.is_alive()
    other.join()
    with store.reading() as connection:
        assert found == [op.reading.required(connection, "Ann", collection=people)]


def test_dropping_a_collection_takes_its_persons_along(store: Store, people: Collection) -> None:
    anybody = Anybody(store, people, seed=3)
    for _ in range(60):
        anybody.act()
    done(store, lambda c: op.create(c, "One", collection=people))
    done(store, lambda c: op.create(c, "Two", collection=people))
    done(store, lambda c: op.merge(c, "One", "Two", collection=people))
    with store.writing() as connection:
        tenants.drop_collection(connection, people)
    left = dump(store, without={"face_change", "person_change", "audit", "alembic_version"})
    assert {table for table, rows in left.items() if rows} <= {"space", "pgqueuer_schema"}


@pytest.mark.timeout(300)
def test_ingest_beside_operations_gives_no_face_to_somebody_who_is_merged_or_gone(
    store: Store, people: Collection
) -> None:
    failed: list[Exception] = []
    names = ["Ann", "Ben", "Cleo", "Dora"]
    with store.reading() as connection:
        space = tenants.space_of(connection, people)

    def ingest() -> None:
        try:
            for number in range(100, 160):
                images = [picture(10 * number + n, [name, None]) for n, name in enumerate(names)]
                with store.writing() as connection:
                    add_images(connection, images, collection=people, space=space)
        except Exception as cause:  # noqa: BLE001  (a thread's error would be lost)
            failed.append(cause)

    writer = threading.Thread(target=ingest)
    writer.start()
    anybody = Anybody(store, people, seed=5)
    made: list[int] = []
    while writer.is_alive():
        if made and anybody.random.random() < 0.4:
            with suppress(UndoRefusedError):
                done(store, lambda c: undo(c, made.pop(), collection=people))
        elif (acted := anybody.act()) is not None and acted.event is not None:
            made.append(acted.event)
    writer.join()
    assert failed == []
    with store.reading() as connection:
        stray = connection.scalar(text(STRAY))
        kept = connection.scalar(text("SELECT count(*) FROM face"))
    assert (stray, kept) == (0, 60 * 8 + 11)


def test_undo_puts_no_face_on_somebody_whom_it_was_rejected_for(
    store: Store, people: Collection
) -> None:
    (face, *_) = faces_of(store, None)
    of_it = {"collection": people}
    rejected = done(store, lambda c: op.reject(c, [face], "Ann", **of_it)).event
    back = done(store, lambda c: undo(c, rejected or 0, **of_it)).event
    given = done(store, lambda c: op.assign(c, [face], "Ann", **of_it)).event
    with pytest.raises(UndoRefusedError, match=rf"undo {given} \(assign\) first"):
        done(store, lambda c: undo(c, back or 0, **of_it))


def test_undo_gives_nobody_a_name_that_somebody_else_took(store: Store, people: Collection) -> None:
    of_it = {"collection": people}
    renamed = done(store, lambda c: op.rename(c, "Ann", "Anna", **of_it)).event
    made = done(store, lambda c: op.create(c, "Ann", **of_it)).event
    with pytest.raises(UndoRefusedError, match=rf"undo {made} \(create\) first"):
        done(store, lambda c: undo(c, renamed or 0, **of_it))
    done(store, lambda c: undo(c, made or 0, **of_it))
    with store.writing() as connection:
        newcomer = persons_named(connection, ["Ann"], **of_it)["Ann"]
    with pytest.raises(UndoRefusedError, match=f"person {newcomer} was changed.*by ingest"):
        done(store, lambda c: undo(c, renamed or 0, **of_it))
