"""Who did what, as rows beside the data: counts and opaque ids, never names or vectors."""

import getpass
import json
from typing import Final

from sqlalchemy import Connection, text

from retrieval.values import Collection

_INSERT: Final = text("""
    INSERT INTO audit (actor, action, collection_id, detail)
    VALUES (:actor, :action, :collection, CAST(:detail AS jsonb))
""")


def record(
    connection: Connection, action: str, collection: Collection | None, **counts: int
) -> None:
    """Add one entry to the audit log, in the transaction of what it tells."""
    connection.execute(
        _INSERT,
        {
            "actor": actor(),
            "action": action,
            "collection": None if collection is None else collection.id,
            "detail": json.dumps(counts),
        },
    )


def actor() -> str:
    """The operating system's user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "unknown"
