"""Faces and the pictures that they lie in: what duplicates are looked for among.

Two SELECTs in one transaction, so one moment of the store.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Select, exists, select

from retrieval.filters.tree import Filter
from retrieval.store.database import Store
from retrieval.store.tables import face, image
from retrieval.store.where import FACES_WITH_PERSONS, compile_sql, where
from retrieval.values import Collection, FaceIds, Floats

NOWHERE: Final = -1
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Pictures:
    """Pictures by number; n rows everywhere."""

    ids: Numbers  # (n,) ascending
    paths: tuple[bytes, ...]
    members: tuple[str | None, ...]  # names inside archives
    hashes: tuple[bytes, ...]  # sha256
    widths: Numbers
    heights: Numbers

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PicturedFaces:
    """Faces by number; n rows everywhere."""

    ids: FaceIds  # (n,) ascending
    places: Numbers  # (n,) of its picture among the pictures; NOWHERE: it came without
    external_ids: tuple[str | None, ...]
    persons: tuple[int | None, ...]
    sources: tuple[str | None, ...]
    quality: npt.NDArray[np.float64]  # (n,) NaN where unknown
    sizes: npt.NDArray[np.float64]  # (n,) pixels, NaN where unknown
    landmarks: Floats  # (n, 5, 2) pixels of the upright picture, NaN where there are none

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Pictured:
    """What one reading gave."""

    pictures: Pictures
    faces: PicturedFaces


def read_pictured(store: Store, *, collection: Collection, filter_: Filter | None) -> Pictured:
    """The faces that pass the filter, and the pictures that show one of them."""
    with store.arrow() as connection, connection.cursor() as reading:
        reading.execute(compile_sql(_pictures(collection, filter_)))
        pictures = _as_pictures(reading.fetch_arrow_table())
        reading.execute(compile_sql(_faces(collection, filter_)))
        faces = _as_faces(reading.fetch_arrow_table(), pictures)
    return Pictured(pictures=pictures, faces=faces)


def _pictures(collection: Collection, filter_: Filter | None) -> Select[Any]:
    shown = select(face.c.id).select_from(FACES_WITH_PERSONS)
    shown = shown.where(face.c.image_id == image.c.id, face.c.collection_id == collection.id)
    if filter_ is not None:
        shown = shown.where(where(filter_))
    names = ("id", "path", "member", "sha256", "width", "height")
    return (
        select(*(image.c[name] for name in names))
        .where(image.c.collection_id == collection.id, exists(shown))
        .order_by(image.c.id)
    )


def _faces(collection: Collection, filter_: Filter | None) -> Select[Any]:
    names = ("id", "image_id", "external_id", "person_id", "source", "quality", "size_px")
    chosen = [] if filter_ is None else [where(filter_)]
    return (
        select(*(face.c[name] for name in names), face.c.landmarks)
        .select_from(FACES_WITH_PERSONS)
        .where(face.c.collection_id == collection.id, *chosen)
        .order_by(face.c.id)
    )


def _as_pictures(table: pa.Table) -> Pictures:
    return Pictures(
        ids=_numbers(table, "id"),
        paths=tuple(table["path"].to_pylist()),
        members=tuple(table["member"].to_pylist()),
        hashes=tuple(table["sha256"].to_pylist()),
        widths=_numbers(table, "width"),
        heights=_numbers(table, "height"),
    )


def _as_faces(table: pa.Table, pictures: Pictures) -> PicturedFaces:
    images = pc.fill_null(table["image_id"], NOWHERE).to_numpy()
    places = np.searchsorted(pictures.ids, images)
    places[images == NOWHERE] = NOWHERE
    return PicturedFaces(
        ids=_numbers(table, "id"),
        places=places,
        external_ids=tuple(table["external_id"].to_pylist()),
        persons=tuple(table["person_id"].to_pylist()),
        sources=tuple(table["source"].to_pylist()),
        quality=_known(table, "quality"),
        sizes=_known(table, "size_px"),
        landmarks=_landmarks(table["landmarks"]),
    )


def _landmarks(column: pa.ChunkedArray) -> Floats:
    made = np.full((len(column), 10), np.nan, np.float32)
    for row, points in enumerate(column.to_pylist()):
        if points is not None:
            made[row] = points
    return made.reshape(-1, 5, 2)


def _numbers(table: pa.Table, name: str) -> Numbers:
    return table[name].to_numpy().astype(np.int64)  # type: ignore[no-any-return]


def _known(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return pc.fill_null(table[name].cast(pa.float64()), np.nan).to_numpy()  # type: ignore[no-any-return]
