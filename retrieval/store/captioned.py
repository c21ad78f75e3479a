"""Captions with their vectors, and which faces pass a filter: what finding by words is measured on.

Each is one SELECT, so one moment of the store. Everything is held at once.
"""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import select

from retrieval.filters.tree import Filter
from retrieval.store.changes import hint_batches
from retrieval.store.database import Store
from retrieval.store.labelled import BATCH_ROWS
from retrieval.store.tables import caption, caption_vector, face
from retrieval.store.where import FACES_WITH_PERSONS, compile_sql, where
from retrieval.values import Collection, FaceIds, Space, UnitRows, unit_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """Captions by face and number; m rows everywhere."""

    faces: FaceIds  # (m,) whose they are
    sentences: tuple[str, ...]
    vectors: UnitRows  # (m, d)

    def __len__(self) -> int:
        return len(self.faces)


def read_captioned(
    store: Store, *, collection: Collection, space: Space, filter_: Filter | None
) -> Captioned:
    """The captions that have a vector in the space, of the faces that pass the filter."""
    chosen = [] if filter_ is None else [where(filter_)]
    statement = (
        select(
            face.c.id.label("face"),
            caption.c.text.label("sentence"),
            caption_vector.c.data.label("vector"),
        )
        .select_from(
            FACES_WITH_PERSONS.join(caption, caption.c.face_id == face.c.id).join(
                caption_vector, caption_vector.c.caption_id == caption.c.id
            )
        )
        .where(
            face.c.collection_id == collection.id, caption_vector.c.space_id == space.id, *chosen
        )
        .order_by(face.c.id, caption.c.id)
    )
    with store.arrow() as connection, connection.cursor() as reading:
        hint_batches(reading, rows=BATCH_ROWS, space=space)
        reading.execute(compile_sql(statement))
        table = reading.fetch_arrow_table()
    raw = np.frombuffer(b"".join(table["vector"].to_pylist()), "<f2")
    rows = raw.reshape(len(table), space.dimension)
    return Captioned(
        faces=table["face"].to_numpy(),
        sentences=tuple(table["sentence"].to_pylist()),
        vectors=unit_rows(rows) if len(rows) else UnitRows(rows.astype(np.float32)),
    )


def faces_passing(store: Store, *, collection: Collection, filter_: Filter) -> FaceIds:
    """The faces that pass a filter, (n,), ascending."""
    statement = (
        select(face.c.id)
        .select_from(FACES_WITH_PERSONS)
        .where(face.c.collection_id == collection.id, where(filter_))
        .order_by(face.c.id)
    )
    with store.reading() as connection:
        return np.array(list(connection.scalars(statement)), np.int64)
