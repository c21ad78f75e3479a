"""Pictures that two collections hold: the same bytes, by their hash."""

from typing import Final

import pyarrow as pa
from sqlalchemy import select

from retrieval.store.database import Store
from retrieval.store.described import told_path
from retrieval.store.tables import image
from retrieval.store.where import compile_sql
from retrieval.values import Collection

SCHEMA: Final = pa.schema(
    [
        ("sha256", pa.string()),
        ("image_id_a", pa.int64()),
        ("image_a", pa.string()),
        ("image_id_b", pa.int64()),
        ("image_b", pa.string()),
    ]
)


def shared_pictures(store: Store, one: Collection, other: Collection) -> pa.Table:
    """A row for each picture that both have, by its number in the first."""
    mine, its = image.alias("mine"), image.alias("its")
    statement = (
        select(
            mine.c.sha256,
            *(mine.c[name].label(f"{name}_a") for name in ("id", "path", "member")),
            *(its.c[name].label(f"{name}_b") for name in ("id", "path", "member")),
        )
        .where(
            mine.c.collection_id == one.id,
            its.c.collection_id == other.id,
            mine.c.sha256 == its.c.sha256,
        )
        .order_by(mine.c.id)
    )
    with store.arrow() as connection, connection.cursor() as reading:
        reading.execute(compile_sql(statement))
        rows = reading.fetch_arrow_table().to_pylist()
    return pa.Table.from_pylist(
        [
            {
                "sha256": row["sha256"].hex(),
                "image_id_a": row["id_a"],
                "image_a": told_path(row["path_a"], row["member_a"]),
                "image_id_b": row["id_b"],
                "image_b": told_path(row["path_b"], row["member_b"]),
            }
            for row in rows
        ],
        schema=SCHEMA,
    )
