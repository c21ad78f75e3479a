"""Faces made of numbers, in a real store: galleries for the tests of index and search."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import select, text

from retrieval.fields import Fields
from retrieval.filters.parse import parse
from retrieval.store.collections import (
    collection_or_new,
    declare,
    fields_of,
    search_in,
    space_or_new,
)
from retrieval.store.database import Store, copy, token
from retrieval.store.holdings import Faces
from retrieval.store.tables import face, vector
from retrieval.store.where import FACES_WITH_PERSONS, where
from retrieval.values import (
    Collection,
    FieldType,
    Space,
    SpaceId,
    Token,
    UnitRows,
    unit_rows,
)

DECLARED: Final = {"shelf": FieldType.TEXT, "weight": FieldType.NUMBER}
NO_ATTRIBUTES: Final[tuple[str, ...]] = ()


@dataclass(frozen=True)
class TestGallery:
    """A collection with its space."""

    __test__ = False
    store: Store
    collection: Collection
    space: Space

    @property
    def holding(self) -> Faces:
        """What an index of its faces is built of."""
        return Faces(self.store, self.collection, self.space)

    def fields(self) -> Fields:
        with self.store.reading() as connection:
            return fields_of(connection, self.collection)

    def execute(self, statement: str, **parameters: Any) -> Token:
        """One statement, one transaction."""
        with self.store.writing() as connection:
            connection.execute(text(statement), parameters)
            return token(connection)

    def add(
        self,
        faces: Sequence[int],
        vectors: npt.NDArray[Any],
        *,
        ages: Sequence[float | None] | None = None,
        tags: Sequence[list[str] | None] | None = None,
        attributes: Sequence[str] = NO_ATTRIBUTES,
    ) -> Token:
        """Faces with vectors, in one transaction by COPY."""
        with self.store.writing() as connection:
            with copy(connection).copy(
                "COPY face (id, collection_id, age, tags, attributes) FROM STDIN"
            ) as rows:
                for place, number in enumerate(faces):
                    rows.write_row(
                        (
                            int(number),
                            self.collection.id,
                            ages[place] if ages else None,
                            tags[place] if tags else None,
                            attributes[place] if attributes else "{}",
                        )
                    )
            with copy(connection).copy(
                "COPY vector (face_id, space_id, data) FROM STDIN (FORMAT binary)"
            ) as rows:
                rows.set_types(["int8", "int8", "bytea"])
                for number, row in zip(faces, vectors.astype("<f2"), strict=True):
                    rows.write_row((int(number), self.space.id, row.tobytes()))
            return token(connection)


def gallery(
    store: Store, *, name: str = "gallery", dimension: int = 8, space: str = "test@1"
) -> TestGallery:
    """An empty collection that declares a text and a number."""
    wanted = Space(
        id=SpaceId(0),
        name=space,
        dimension=dimension,
        model_sha256=None,
        licence="none",
        commercial=True,
    )
    with store.writing() as connection:
        made = space_or_new(connection, wanted)
        collection = collection_or_new(connection, name)
        collection = search_in(connection, collection, made)
        declare(connection, collection, DECLARED)
    return TestGallery(store, collection, made)


def unit_vectors(rows: int, *, dimension: int = 8, seed: int = 0) -> UnitRows:
    """Random directions."""
    raw = np.random.default_rng(seed).standard_normal((rows, dimension))
    return unit_rows(raw)


def clustered_vectors(
    rows: int, *, dimension: int = 32, clusters: int = 200, seed: int = 0
) -> UnitRows:
    """Directions in clusters, as faces of persons lie."""
    random = np.random.default_rng(seed)
    centres = unit_vectors(clusters, dimension=dimension, seed=seed + 1)
    near = centres[random.integers(0, clusters, rows)]
    return unit_rows(near + 0.6 * random.standard_normal((rows, dimension)) / np.sqrt(dimension))


def answers_of_store(
    tested: TestGallery, queries: UnitRows, *, where_: str | None
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """For each query all faces that pass, with their similarity, best first.

    PostgreSQL filters, numpy scores: nothing of the index is used.
    """
    chosen = [face.c.collection_id == tested.collection.id, vector.c.space_id == tested.space.id]
    if where_ is not None:
        chosen.append(where(parse(where_, tested.fields())))
    tables = FACES_WITH_PERSONS.join(vector, vector.c.face_id == face.c.id)
    with tested.store.reading() as connection:
        rows = connection.execute(
            select(face.c.id, vector.c.data).select_from(tables).where(*chosen)
        ).all()
    faces = np.array([row.id for row in rows], np.int64)
    stored = np.frombuffer(b"".join(row.data for row in rows), "<f2").astype(np.float64)
    stored = stored.reshape(len(rows), tested.space.dimension)
    return [_ranked(faces, stored, query.astype(np.float64)) for query in queries]


def _ranked(
    faces: npt.NDArray[np.int64], stored: npt.NDArray[np.float64], query: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    similarities = stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
    # Equal pictures have equal vectors: to ten digits their order is that of their faces.
    order = np.lexsort((faces, -similarities.round(10)))
    return faces[order], similarities[order]
