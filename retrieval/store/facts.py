"""What is known of each face, its picture and its person, as one table: what data sets are cut by.

One SELECT, so one moment of the store. Conditions come along as columns: whether a face passes a
filter, or has a caption that holds some words, is said by PostgreSQL.
"""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Label, Select, any_, false, func, literal, select

from retrieval.fields import Fields
from retrieval.filters.tree import Filter
from retrieval.store.captions import has_caption
from retrieval.store.database import Store
from retrieval.store.described import told_path
from retrieval.store.marks import DUPLICATE
from retrieval.store.tables import face, image, person
from retrieval.store.where import FACES_WITH_PERSONS, compile_sql, field_expression, where
from retrieval.values import Collection

SIDES: Final = ("left", "top", "right", "bottom")


def passing(name: str, filter_: Filter) -> Label[bool]:
    """A column that says whether each face passes a filter."""
    return func.coalesce(where(filter_), false()).label(name)


def told(name: str, words: str) -> Label[bool]:
    """A column that says whether a caption of each face holds words (captions.has_caption)."""
    return has_caption(words).label(name)


def field(name: str, fields: Fields) -> Label[Any]:
    """A column with the value of a field, by the field's name."""
    return field_expression(name, fields[name]).label(name)


def read_facts(
    store: Store,
    *,
    collection: Collection,
    filter_: Filter | None,
    more: Sequence[Label[Any]] = (),
) -> pa.Table:
    """The faces that pass the filter, by number.

    Columns: face, external_id, image_id, image (path, `archive!member` inside an archive; NULL:
    imported), width and height of the picture, left, top, right, bottom of the box in its pixels,
    person_id, person, quality, size_px, track, duplicate (marked so), and `more`.
    """
    with store.arrow() as connection, connection.cursor() as reading:
        reading.execute(compile_sql(_faces(collection, filter_, more)))
        table = reading.fetch_arrow_table()
    paths = zip(table["path"].to_pylist(), table["member"].to_pylist(), strict=True)
    shown = pa.array([told_path(*one) for one in paths], pa.string())
    return table.drop_columns(["path", "member"]).append_column("image", shown)


def area_share(table: pa.Table) -> pa.ChunkedArray:
    """The share of its picture that each face's box covers; NULL where unknown."""
    left, top, right, bottom, width, height = (
        table[name].cast(pa.float64()) for name in (*SIDES, "width", "height")
    )
    inside = pc.multiply(
        pc.subtract(
            pc.min_element_wise(right, width, skip_nulls=False), pc.max_element_wise(left, 0)
        ),
        pc.subtract(
            pc.min_element_wise(bottom, height, skip_nulls=False), pc.max_element_wise(top, 0)
        ),
    )
    return pc.divide(inside, pc.multiply(width, height))


def _faces(
    collection: Collection, filter_: Filter | None, more: Sequence[Label[Any]]
) -> Select[Any]:
    chosen = [] if filter_ is None else [where(filter_)]
    names = ("external_id", "image_id", "person_id", "quality", "size_px", "track")
    return (
        select(
            face.c.id.label("face"),
            *(face.c[name] for name in names),
            person.c.name.label("person"),
            *(image.c[name] for name in ("path", "member", "width", "height")),
            *(face.c.box[place].label(side) for place, side in enumerate(SIDES, start=1)),
            func.coalesce(literal(DUPLICATE) == any_(face.c.tags), false()).label("duplicate"),
            *more,
        )
        .select_from(FACES_WITH_PERSONS.outerjoin(image, image.c.id == face.c.image_id))
        .where(face.c.collection_id == collection.id, *chosen)
        .order_by(face.c.id)
    )
