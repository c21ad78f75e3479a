"""What grouping is made of and what it left: faces with what people said, and proposals.

A face is *said* to be a person's where people said so: it came with its person, or was given to it,
or the person has a name or was changed by anybody. What an earlier grouping proposed, and nobody
touched, is free to be grouped anew.
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from sqlalchemy import Connection, Select, and_, func, not_, or_, select, text

from retrieval.clusters.grouping import Ended
from retrieval.filters.tree import Filter
from retrieval.store.database import Store
from retrieval.store.people.events import locked_faces, locked_persons, perform, take_turn
from retrieval.store.people.rows import Changes, EventId, FaceMove, PersonChange, PersonRow
from retrieval.store.tables import face, person, person_event, proposal
from retrieval.store.where import FACES_WITH_PERSONS, compile_sql, where
from retrieval.values import Collection, FaceId, FaceIds, PersonId, Space

Places = npt.NDArray[np.int64]
EVENT_FACES: Final = 500_000  # of one event; a larger grouping is several
EVENT: Final = "cluster"  # the kind of event that proposes persons
NOBODY: Final = -1
UNKNOWN: Final = {
    "faces": 0,
    "images": -1,
    "quality": float("nan"),
    "persons": NOBODY,
    "said": False,
    "seen": False,
}
_INSERT: Final = text("""
    INSERT INTO clustering (collection_id, space_id, thresholds)
    VALUES (:collection, :space, CAST(:thresholds AS jsonb))
    RETURNING id
""")
_PROPOSE: Final = text("""
    INSERT INTO proposal (face_id, clustering_id, person_id, confidence)
    SELECT face, :clustering, NULLIF(person, -1), NULLIF(confidence, -1)
    FROM unnest(CAST(:faces AS bigint[]), CAST(:persons AS bigint[]), CAST(:confidence AS real[]))
        AS given (face, person, confidence)
    WHERE EXISTS (SELECT FROM face WHERE id = given.face)
    ON CONFLICT (face_id) DO UPDATE SET
        (clustering_id, person_id, confidence) =
        (excluded.clustering_id, excluded.person_id, excluded.confidence)
""")
_LAST: Final = text("""
    SELECT id, thresholds FROM clustering
    WHERE collection_id = :collection AND space_id = :space
    ORDER BY id DESC LIMIT 1
""")
_REJECTIONS: Final = text("""
    SELECT rejection.face_id, rejection.person_id
    FROM rejection JOIN face ON face.id = rejection.face_id
    WHERE face.collection_id = :collection
    ORDER BY 1, 2
""")
_EMPTIED: Final = text("""
    SELECT id FROM person
    WHERE id = ANY(CAST(:persons AS bigint[])) AND NOT EXISTS (
        SELECT FROM face LEFT JOIN unnest(CAST(:moved AS bigint[])) AS moved (id) USING (id)
        WHERE person_id = person.id AND moved.id IS NULL)
    ORDER BY id
""")
_NEW: Final = text("""
    SELECT nextval(pg_get_serial_sequence('person', 'id')) AS id, now() AS at
    FROM generate_series(1, :count)
""")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standing:
    """Faces as they stand, by id; n everywhere."""

    faces: FaceIds  # (n,) ascending
    images: npt.NDArray[np.int64]  # (n,) -1 without one
    quality: npt.NDArray[np.float64]  # (n,) NaN where unknown
    persons: npt.NDArray[np.int64]  # (n,) NOBODY without one
    said: npt.NDArray[np.bool_]  # (n,) that the person was said by people
    seen: npt.NDArray[np.bool_]  # (n,) by an earlier grouping

    def __len__(self) -> int:
        return len(self.faces)

    def some(self, there: npt.NDArray[np.bool_]) -> "Standing":
        """Those of a mask (n,)."""
        return Standing(**{one.name: getattr(self, one.name)[there] for one in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """The last grouping of a collection."""

    id: int
    ended: Ended


def read_standing(store: Store, *, collection: Collection, filter_: Filter | None) -> Standing:
    """The faces that pass a filter."""
    with store.arrow() as connection, connection.cursor() as reading:
        reading.execute(compile_sql(_standing(collection, filter_)))
        table = reading.fetch_arrow_table()
    columns: dict[str, Any] = {
        name: pc.fill_null(table[name], unknown).to_numpy() for name, unknown in UNKNOWN.items()
    }
    return Standing(**columns)


def rejections(connection: Connection, collection: Collection) -> npt.NDArray[np.int64]:
    """Which faces are known not to be which persons, (m, 2)."""
    found = connection.execute(_REJECTIONS, {"collection": collection.id})
    return np.array([tuple(row) for row in found], np.int64).reshape(-1, 2)


def last_of(connection: Connection, *, collection: Collection, space: Space) -> Last | None:
    """The last grouping, None before the first."""
    row = connection.execute(_LAST, {"collection": collection.id, "space": space.id}).one_or_none()
    return None if row is None else Last(id=row.id, ended=Ended(**row.thresholds))


def propose(
    connection: Connection,
    standing: Standing,
    persons: Places,
    confidence: npt.NDArray[np.floating],
    ended: Ended,
    *,
    collection: Collection,
    space: Space,
) -> tuple[Places, tuple[EventId, ...]]:
    """Write a grouping; give the person of each face then, and the events that tell of it.

    What people said, changed or deleted since `standing` was read stays as they made it.

    Args:
        connection: whose transaction it is.
        standing: what was grouped.
        persons: (n,) of each face; NOBODY for none, below it a number for each new person.
        confidence: (n,) NaN for none.
        ended: where joining ended, for faces that come later.
        collection: whose faces they are.
        space: of their vectors.
    """
    take_turn(connection, collection)
    moving = np.flatnonzero((persons != standing.persons) & ~standing.said)
    present = locked_faces(connection, _ids(standing.faces[moving]), collection=collection)
    same = [
        face in present and present[FaceId(face)] == _person(person)
        for face, person in zip(
            standing.faces[moving].tolist(), standing.persons[moving].tolist(), strict=True
        )
    ]
    moving = moving[np.array(same, np.bool_)]
    numbered, new = _numbered(connection, persons)
    settled = standing.persons.copy()
    settled[moving] = numbered[moving]
    events = [
        perform(connection, EVENT, changes, collection=collection)
        for changes in _changes(connection, standing, settled, moving, new, collection)
    ]
    told = ~standing.seen | (settled != standing.persons) | ~np.isnan(confidence)
    free = np.flatnonzero(~standing.said & told)
    number = _noted(connection, ended, collection=collection, space=space)
    connection.execute(
        _PROPOSE,
        {
            "clustering": number,
            "faces": standing.faces[free].tolist(),
            "persons": settled[free].tolist(),
            "confidence": np.nan_to_num(confidence[free], nan=-1.0).tolist(),
        },
    )
    return settled, tuple(event for event in events if event is not None)


def _noted(connection: Connection, ended: Ended, *, collection: Collection, space: Space) -> int:
    """Remember that a grouping was made; give its number."""
    number: int = connection.execute(
        _INSERT,
        {
            "collection": collection.id,
            "space": space.id,
            "thresholds": json.dumps(asdict(ended)),
        },
    ).scalar_one()
    return number


def _numbered(connection: Connection, persons: Places) -> tuple[Places, dict[int, PersonRow]]:
    """The same with numbers of the store for new persons, and their rows."""
    asked, places = np.unique(np.minimum(persons, NOBODY), return_inverse=True)
    made = connection.execute(_NEW, {"count": len(asked)}).all()
    numbers = np.array([row.id for row in made], np.int64)
    numbers[asked == NOBODY] = NOBODY
    rows = {
        row.id: PersonRow(name=None, created_at=row.at, merged_into=None)
        for row, one in zip(made, asked.tolist(), strict=True)
        if one != NOBODY
    }
    return np.where(persons >= 0, persons, numbers[places]), rows


def _changes(
    connection: Connection,
    standing: Standing,
    settled: Places,
    moving: Places,
    new: dict[int, PersonRow],
    collection: Collection,
) -> list[Changes]:
    """The changes of rows: of one event, or of several where it would be too large."""
    order = moving[np.argsort(settled[moving], kind="stable")]
    found, begun = [], set[int]()
    for begin in range(0, len(order), EVENT_FACES):
        some = order[begin : begin + EVENT_FACES]
        begins = [one for one in np.unique(settled[some]).tolist() if one in new]
        found.append(
            Changes(
                persons=tuple(
                    PersonChange(person=PersonId(one), before=None, after=new[one])
                    for one in begins
                    if one not in begun
                ),
                moves=tuple(
                    FaceMove(face=FaceId(face), before=_person(old), after=_person(now))
                    for face, old, now in zip(
                        standing.faces[some].tolist(),
                        standing.persons[some].tolist(),
                        settled[some].tolist(),
                        strict=True,
                    )
                ),
            )
        )
        begun.update(begins)
    if found:
        gone = _emptied(connection, standing, settled, moving, collection)
        found[-1] = replace(found[-1], persons=(*found[-1].persons, *gone))
    return found


def _emptied(
    connection: Connection,
    standing: Standing,
    settled: Places,
    moving: Places,
    collection: Collection,
) -> tuple[PersonChange, ...]:
    """The end of proposed persons that all faces leave."""
    left = np.setdiff1d(standing.persons[moving], settled[moving])
    empty = connection.scalars(
        _EMPTIED,
        {"persons": left[left >= 0].tolist(), "moved": standing.faces[moving].tolist()},
    )
    rows = locked_persons(connection, list(empty), collection=collection)
    return tuple(PersonChange(person=one, before=row, after=None) for one, row in rows.items())


def _person(number: int) -> PersonId | None:
    return None if number < 0 else PersonId(number)


def _ids(faces: FaceIds) -> list[FaceId]:
    return [FaceId(face) for face in faces.tolist()]


def _standing(collection: Collection, filter_: Filter | None) -> Select[Any]:
    touched = select(func.unnest(person_event.c.persons)).where(
        person_event.c.collection_id == collection.id, person_event.c.kind != EVENT
    )
    proposed = and_(
        proposal.c.person_id == face.c.person_id,
        person.c.name.is_(None),
        person.c.id.not_in(touched),
    )
    chosen = [] if filter_ is None else [where(filter_)]
    return (
        select(
            face.c.id.label("faces"),
            face.c.image_id.label("images"),
            face.c.quality.label("quality"),
            face.c.person_id.label("persons"),
            and_(
                face.c.person_id.is_not(None),
                or_(proposal.c.face_id.is_(None), not_(func.coalesce(proposed, False))),
            ).label("said"),
            proposal.c.face_id.is_not(None).label("seen"),
        )
        .select_from(FACES_WITH_PERSONS.outerjoin(proposal, proposal.c.face_id == face.c.id))
        .where(face.c.collection_id == collection.id, *chosen)
        .order_by(face.c.id)
    )
