"""The part of each face as a declared attribute, written as a whole: it can be done again."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, text

from retrieval.store.collections import declare
from retrieval.values import Collection, FaceIds, FieldType

# Rows are locked by face, like everywhere: two writers of the same faces never deadlock.
_LOCK: Final = text("""
    SELECT count(*) FROM (
        SELECT FROM face
        WHERE collection_id = :collection
            AND (attributes ? :name OR id = ANY(CAST(:faces AS bigint[])))
        ORDER BY id
        FOR NO KEY UPDATE
    ) AS locked
""")
_SET: Final = text("""
    UPDATE face
    SET attributes = attributes || jsonb_build_object(CAST(:name AS text), CAST(:part AS text))
    WHERE collection_id = :collection AND id = ANY(CAST(:faces AS bigint[]))
        AND attributes ->> CAST(:name AS text) IS DISTINCT FROM :part
""")
_CLEAR: Final = text("""
    UPDATE face
    SET attributes = attributes - CAST(:name AS text)
    WHERE collection_id = :collection AND attributes ? :name
        AND id <> ALL (CAST(:faces AS bigint[]))
""")


def write_parts(
    connection: Connection, parts: Mapping[str, FaceIds], *, name: str, collection: Collection
) -> int:
    """Let a text attribute tell the part of each face, and nothing of any other face.

    Gives the number of faces that changed: none where all was so before.

    Raises:
        SchemaMismatchError: the attribute is declared with another type.
        UsageError: nothing can be called so.
    """
    declare(connection, collection, {name: FieldType.TEXT})
    given = {"collection": collection.id, "name": name}
    everything = [face for faces in parts.values() for face in faces.tolist()]
    connection.execute(_LOCK, {**given, "faces": everything})
    changed = connection.execute(_CLEAR, {**given, "faces": everything}).rowcount
    for part, faces in parts.items():
        changed += connection.execute(
            _SET, {**given, "part": part, "faces": faces.tolist()}
        ).rowcount
    return changed
