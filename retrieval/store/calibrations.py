"""The calibration that a collection measured on its own faces: one for each space."""

import json
from typing import Final

from sqlalchemy import Connection, text

from retrieval.errors import CalibrationMissingError
from retrieval.people.calibration import Calibration, from_json, shipped, to_json
from retrieval.values import Collection, Space

_KEEP: Final = text("""
    INSERT INTO calibration (collection_id, space_id, content)
    VALUES (:collection, :space, CAST(:content AS jsonb))
    ON CONFLICT (collection_id, space_id)
    DO UPDATE SET content = excluded.content, made_at = now()
""")
_KEPT: Final = text("""
    SELECT content FROM calibration WHERE collection_id = :collection AND space_id = :space
""")


def keep_calibration(
    connection: Connection, calibration: Calibration, *, collection: Collection, space: Space
) -> None:
    """Put a calibration in the place of the one before."""
    content = json.dumps(to_json(calibration))
    wanted = {"collection": collection.id, "space": space.id, "content": content}
    connection.execute(_KEEP, wanted)


def stored_calibration(
    connection: Connection, *, collection: Collection, space: Space
) -> Calibration | None:
    """The collection's own calibration, None where nobody measured one."""
    found = connection.scalar(_KEPT, {"collection": collection.id, "space": space.id})
    return None if found is None else from_json(found)


def calibration_of(
    connection: Connection, *, collection: Collection | None, space: Space
) -> Calibration:
    """The collection's own, or else the one that came with the model.

    Raises:
        CalibrationMissingError: there is neither.
    """
    own = collection and stored_calibration(connection, collection=collection, space=space)
    found = own or shipped(space.name, model_sha256=space.model_sha256)
    if found is None:
        raise CalibrationMissingError(
            f"nothing is known of how alike strangers are in space '{space.name}'. "
            "Run `facedex evaluate verification --calibrate` on labelled faces"
        )
    return found
