"""The protected list of a collection: what for, on which basis, and how far it was matched."""

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from retrieval.errors import UnknownNameError, UsageError
from retrieval.limits import TEXT_BYTES_MAX, within
from retrieval.store import audit
from retrieval.values import Collection, Cursor

FPIR_MAX: Final = 0.01  # beyond it alerts are noise, and people who are in none of them suffer

# Who was given the alerts to read, and no more, neither matches nor changes lists.
_MAY_WORK: Final = text("""
    SELECT CASE
        WHEN has_schema_privilege('protected', 'USAGE')
        THEN has_table_privilege('protected.list', 'UPDATE')
        ELSE false
    END
""")
_FOUND: Final = text("""
    SELECT purpose, basis, fpir, cursor::text AS cursor, system_identifier, revision
    FROM protected.list
    WHERE collection_id = :collection
""")
# A new threshold is one for the faces that are there as well.
_SWITCH_ON: Final = text("""
    INSERT INTO protected.list (collection_id, purpose, basis, fpir)
    VALUES (:collection, :purpose, :basis, :fpir)
    ON CONFLICT (collection_id) DO UPDATE
    SET purpose = excluded.purpose, basis = excluded.basis, fpir = excluded.fpir,
        cursor = NULL, revision = list.revision + 1
""")
_SWITCH_OFF: Final = text("DELETE FROM protected.list WHERE collection_id = :collection")
_START_ANEW: Final = text("""
    UPDATE protected.list SET cursor = NULL, revision = revision + 1
    WHERE collection_id = :collection
""")
_PERSONS_LEFT: Final = text("""
    UPDATE protected.list SET revision = revision + 1 WHERE collection_id = :collection
""")
_ADVANCE: Final = text("""
    UPDATE protected.list
    SET cursor = CAST(:cursor AS pg_snapshot), system_identifier = :system,
        revision = revision + 1
    WHERE collection_id = :collection AND revision = :revision
""")
_RECORD: Final = text("""
    INSERT INTO protected.audit (actor, action, collection_id, detail)
    VALUES (:actor, :action, :collection, CAST(:detail AS jsonb))
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectedList:
    """What a collection's list is for, and what of the collection was compared with it."""

    purpose: str
    basis: str  # that allows it, such as a consent or a law
    fpir: float  # share of strangers' faces that may raise an alert
    cursor: Cursor | None  # None: every face is to be matched
    system_identifier: str | None  # of the server that the cursor is of
    revision: int  # another one: the list, its persons or its cursor have changed


def followed(connection: Connection, collection: Collection) -> ProtectedList | None:
    """The list that faces are to be matched with; None: there is none, or none for this role."""
    return _found(connection, collection) if _may_work(connection) else None


def required(connection: Connection, collection: Collection) -> ProtectedList:
    """The collection's list.

    Raises:
        UsageError: this database role may not work with lists, whether there is a list or not.
        UnknownNameError: there is none.
    """
    require_right(connection)
    found = _found(connection, collection)
    if found is None:
        raise UnknownNameError(
            f"collection '{collection.name}' has no protected list: see `facedex protected on`"
        )
    return found


def require_right(connection: Connection) -> None:
    """Raise UsageError where this database role may not work with protected lists."""
    if not _may_work(connection):
        raise UsageError(
            "this database role may not work with protected lists: ask the database's owner"
        )


def switch_on(
    connection: Connection, *, purpose: str, basis: str, fpir: float, collection: Collection
) -> None:
    """Make the collection's list, or say anew what it is for.

    Raises:
        UsageError: purpose or basis is empty, or the rate is not one for alerts.
    """
    if not 0.0 < fpir <= FPIR_MAX:
        raise UsageError(f"the FPIR of a protected list is a share above 0, at most {FPIR_MAX}")
    said = {"purpose": _told("purpose", purpose), "basis": _told("basis", basis)}
    connection.execute(_SWITCH_ON, {"collection": collection.id, "fpir": fpir, **said})


def switch_off(connection: Connection, collection: Collection) -> None:
    """Delete the list with its persons, their pictures and every alert."""
    connection.execute(_SWITCH_OFF, {"collection": collection.id})


def start_anew(connection: Connection, collection: Collection) -> None:
    """Let every face be matched again: persons have come or look otherwise."""
    connection.execute(_START_ANEW, {"collection": collection.id})


def note_persons_left(connection: Connection, collection: Collection) -> None:
    """Let whoever matches at this moment begin again: its persons are not all there any more."""
    connection.execute(_PERSONS_LEFT, {"collection": collection.id})


def advance(
    connection: Connection,
    watched: ProtectedList,
    *,
    cursor: Cursor,
    system_identifier: str,
    collection: Collection,
) -> bool:
    """Remember what was matched with the list as it was read; False: it is another one by now."""
    to: dict[str, Any] = {
        "collection": collection.id,
        "revision": watched.revision,
        "cursor": cursor,
        "system": system_identifier,
    }
    return connection.execute(_ADVANCE, to).rowcount == 1


def record(connection: Connection, action: str, collection: Collection, **counts: int) -> None:
    """Add one entry to the audit log of protected lists, which ordinary roles cannot read."""
    entry = {
        "actor": audit.actor(),
        "action": action,
        "collection": collection.id,
        "detail": json.dumps(counts),
    }
    connection.execute(_RECORD, entry)


def _may_work(connection: Connection) -> bool:
    return bool(connection.scalar(_MAY_WORK))


def _found(connection: Connection, collection: Collection) -> ProtectedList | None:
    row = connection.execute(_FOUND, {"collection": collection.id}).one_or_none()
    if row is None:
        return None
    return ProtectedList(
        purpose=row.purpose,
        basis=row.basis,
        fpir=row.fpir,
        cursor=None if row.cursor is None else Cursor(row.cursor),
        system_identifier=row.system_identifier,
        revision=row.revision,
    )


def _told(what: str, said: str) -> str:
    if not said.strip() or "\0" in said:
        raise UsageError(f"a protected list needs a {what}: say it in words")
    within(TEXT_BYTES_MAX, len(said.encode(errors="surrogatepass")), what=f"the length of a {what}")
    return said
