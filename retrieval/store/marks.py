"""Marks on duplicates: a tag on faces, links between persons, and taking both back.

Each run that marked something is a row of `marking`, which holds what the run changed, and no more:
a face that had the tag before, or persons that were linked before, are not in it, so undoing a run
leaves them. Where nobody ever said what tags a face has (NULL), no filter on tags passes it, `NOT
'duplicate' = ANY(tags)` neither; so a run also says of the other faces it looked at that they have
no tags, and its undo forgets that again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NewType

from sqlalchemy import Connection, text

from retrieval.errors import UnknownNameError
from retrieval.store import audit
from retrieval.store.people import operations
from retrieval.store.people.events import take_turn
from retrieval.values import Collection, FaceId, ImageId, PersonId

DUPLICATE: Final = "duplicate"  # the tag
MarkingId = NewType("MarkingId", int)
# Rows are locked by face, like everywhere: two writers of the same faces never deadlock.
_LOCK: Final = text("""
    SELECT id, tags IS NULL AS unknown, tags IS NULL OR :tag <> ALL (tags) AS unmarked
    FROM face
    WHERE collection_id = :collection AND id = ANY(CAST(:faces AS bigint[]))
    ORDER BY id
    FOR NO KEY UPDATE
""")
_OPEN: Final = text("UPDATE face SET tags = '{}' WHERE id = ANY(CAST(:faces AS bigint[]))")
_TAG: Final = text("""
    UPDATE face SET tags = array_append(tags, :tag) WHERE id = ANY(CAST(:faces AS bigint[]))
""")
_UNTAG: Final = text("""
    UPDATE face SET tags = array_remove(tags, :tag)
    WHERE collection_id = :collection AND id = ANY(CAST(:faces AS bigint[])) AND :tag = ANY(tags)
""")
_CLOSE: Final = text("""
    UPDATE face SET tags = NULL
    WHERE collection_id = :collection AND id = ANY(CAST(:faces AS bigint[])) AND tags = '{}'
""")
_FACES_SHOWN: Final = text("""
    SELECT id FROM face
    WHERE collection_id = :collection AND image_id = ANY(CAST(:images AS bigint[]))
    ORDER BY id
""")
_RECORD: Final = text("""
    INSERT INTO marking (collection_id, actor, level, tag, faces, opened, ones, twos)
    VALUES (:collection, :actor, :level, :tag, :faces, :opened, :ones, :twos)
    RETURNING id
""")
_ONE: Final = text("""
    SELECT tag, faces, opened, ones, twos, undone_at IS NOT NULL AS undone
    FROM marking
    WHERE collection_id = :collection AND id = :number
    FOR UPDATE
""")
_UNDONE: Final = text("UPDATE marking SET undone_at = now() WHERE id = :number")
# As long as another run's marks are there, filters on tags go on to pass what has none.
_HAND_ON: Final = text("""
    UPDATE marking SET opened = opened || CAST(:opened AS bigint[])
    WHERE id = (
        SELECT min(id) FROM marking
        WHERE collection_id = :collection AND tag = :tag AND undone_at IS NULL AND id <> :number
    )
""")
_ALL: Final = text("""
    SELECT id, at, actor, level, cardinality(faces) AS faces, cardinality(ones) AS links, undone_at
    FROM marking
    WHERE collection_id = :collection
    ORDER BY id DESC
""")
_LINKED: Final = text("""
    SELECT one_id, two_id
    FROM person_link
        JOIN person AS one ON one.id = one_id
        JOIN person AS two ON two.id = two_id
    WHERE one.collection_id = :collection AND two.collection_id = :collection
    ORDER BY one_id, two_id
""")
_REJECTED: Final = text("""
    SELECT DISTINCT least(owner.person_id, rejection.person_id) AS one,
        greatest(owner.person_id, rejection.person_id) AS two
    FROM rejection JOIN face AS owner ON owner.id = face_id
    WHERE owner.collection_id = :collection AND owner.person_id IS NOT NULL
    ORDER BY 1, 2
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """What a run changed."""

    number: MarkingId | None  # None: all was so before, and nothing changed
    faces: int  # that got the tag
    links: int  # between persons


@dataclass(frozen=True, slots=True, kw_only=True)
class Marking:
    """A run that marked, as it is listed."""

    number: MarkingId
    at: datetime
    actor: str
    level: str
    faces: int
    links: int
    undone_at: datetime | None


def faces_shown(
    connection: Connection, images: Sequence[ImageId], *, collection: Collection
) -> list[FaceId]:
    """Every face that lies in one of these pictures."""
    given = {"collection": collection.id, "images": list(images)}
    return list(connection.scalars(_FACES_SHOWN, given))


def mark_faces(
    connection: Connection,
    duplicates: Sequence[FaceId],
    *,
    considered: Sequence[FaceId],
    level: str,
    collection: Collection,
) -> Marked:
    """Give the tag to duplicates that have it not; say of all others that their tags are known."""
    given = {
        "collection": collection.id,
        "tag": DUPLICATE,
        "faces": sorted({*duplicates, *considered}),
    }
    rows = connection.execute(_LOCK, given).all()
    wanted = set(duplicates)
    opened = [row.id for row in rows if row.unknown]
    faces = [row.id for row in rows if row.unmarked and row.id in wanted]
    if not opened and not faces:
        return Marked(number=None, faces=0, links=0)
    connection.execute(_OPEN, {"faces": opened})
    connection.execute(_TAG, {"faces": faces, "tag": DUPLICATE})
    number = _recorded(
        connection, level, collection, tag=DUPLICATE, faces=faces, opened=opened, pairs=[]
    )
    return Marked(number=number, faces=len(faces), links=0)


def link_duplicates(
    connection: Connection,
    pairs: Sequence[tuple[PersonId, PersonId]],
    *,
    level: str,
    collection: Collection,
) -> Marked:
    """Link persons that are one human, each link with its event."""
    made = [
        (one, two)
        for one, two in pairs
        if operations.link_persons(connection, f"#{one}", f"#{two}", collection=collection).event
    ]
    if not made:
        return Marked(number=None, faces=0, links=0)
    number = _recorded(connection, level, collection, tag=None, faces=[], opened=[], pairs=made)
    return Marked(number=number, faces=0, links=len(made))


def undo_marking(connection: Connection, number: int, *, collection: Collection) -> Marked:
    """Take back what a run changed and is still so; doing it twice changes nothing.

    Raises:
        UnknownNameError: the collection has no run of that number.
    """
    take_turn(connection, collection)
    place = {"collection": collection.id, "number": number}
    row = connection.execute(_ONE, place).one_or_none()
    if row is None:
        raise UnknownNameError(
            f"no run {number} marked duplicates in collection '{collection.name}':"
            " `facedex dedup --list` shows those that did"
        )
    if row.undone:
        return Marked(number=None, faces=0, links=0)
    connection.execute(_UNDONE, place)
    faces = 0
    if row.tag is not None:
        given = {**place, "tag": row.tag, "opened": row.opened}
        connection.execute(_LOCK, {**given, "faces": sorted({*row.faces, *row.opened})})
        faces = connection.execute(_UNTAG, {**given, "faces": row.faces}).rowcount
        if not connection.execute(_HAND_ON, given).rowcount:
            connection.execute(_CLOSE, {**given, "faces": row.opened})
    links = _unlinked(connection, zip(row.ones, row.twos, strict=True), collection)
    return Marked(number=MarkingId(number), faces=faces, links=links)


def markings(connection: Connection, *, collection: Collection) -> list[Marking]:
    """Every run that marked something, the newest first."""
    return [
        Marking(
            number=MarkingId(row.id),
            at=row.at,
            actor=row.actor,
            level=row.level,
            faces=row.faces,
            links=row.links,
            undone_at=row.undone_at,
        )
        for row in connection.execute(_ALL, {"collection": collection.id})
    ]


def settled_pairs(connection: Connection, *, collection: Collection) -> set[tuple[int, int]]:
    """Persons of whom people said that they are one, or are not; the lower number first."""
    given = {"collection": collection.id}
    linked = {(row.one_id, row.two_id) for row in connection.execute(_LINKED, given)}
    return linked | {(row.one, row.two) for row in connection.execute(_REJECTED, given)}


def _unlinked(
    connection: Connection, pairs: Iterable[tuple[int, int]], collection: Collection
) -> int:
    """Take links back that are still there; one that went over to another person stays."""
    present = {
        (row.one_id, row.two_id)
        for row in connection.execute(_LINKED, {"collection": collection.id})
    }
    there = [(one, two) for one, two in pairs if (min(one, two), max(one, two)) in present]
    for one, two in there:
        operations.unlink_persons(connection, f"#{one}", f"#{two}", collection=collection)
    return len(there)


def _recorded(
    connection: Connection,
    level: str,
    collection: Collection,
    *,
    tag: str | None,
    faces: Sequence[int],
    opened: Sequence[int],
    pairs: Sequence[tuple[int, int]],
) -> MarkingId:
    given = {
        "collection": collection.id,
        "actor": audit.actor(),
        "level": level,
        "tag": tag,
        "faces": list(faces),
        "opened": list(opened),
        "ones": [one for one, _ in pairs],
        "twos": [two for _, two in pairs],
    }
    return MarkingId(connection.scalars(_RECORD, given).one())
