"""What people call faces, as one table: for answers that name many of them."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import Select, select

from retrieval.filters.tree import Filter
from retrieval.store.database import Store
from retrieval.store.tables import face, image, person
from retrieval.store.where import FACES_WITH_PERSONS, compile_sql, where
from retrieval.values import Collection

NAMES: Final = ("external_id", "person_id")


def read_described(
    store: Store,
    *,
    collection: Collection,
    filter_: Filter | None,
    columns: Sequence[str] = NAMES,
) -> pa.Table:
    """The faces that pass the filter, by number: face, `columns` of the face, person, image.

    `person` is the name, `image` the path, `archive!member` inside an archive; NULL: imported.
    """
    with store.arrow() as connection, connection.cursor() as reading:
        reading.execute(compile_sql(_faces(collection, filter_, columns)))
        table = reading.fetch_arrow_table()
    paths = zip(table["path"].to_pylist(), table["member"].to_pylist(), strict=True)
    shown = pa.array([told_path(*one) for one in paths], pa.string())
    return table.drop_columns(["path", "member"]).append_column("image", shown)


def told_path(path: bytes | None, member: str | None) -> str | None:
    """Where a picture came from, as text; None where there was none."""
    if path is None:
        return None
    shown = path.decode(errors="backslashreplace")
    return f"{shown}!{member}" if member else shown


def _faces(collection: Collection, filter_: Filter | None, columns: Sequence[str]) -> Select[Any]:
    chosen = [] if filter_ is None else [where(filter_)]
    return (
        select(
            face.c.id.label("face"),
            *(face.c[name] for name in columns),
            person.c.name.label("person"),
            image.c.path,
            image.c.member,
        )
        .select_from(FACES_WITH_PERSONS.outerjoin(image, image.c.id == face.c.image_id))
        .where(face.c.collection_id == collection.id, *chosen)
        .order_by(face.c.id)
    )
