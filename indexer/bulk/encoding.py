"""Checked rows as they go over the wire, but for their numbers in the store.

Ids of faces and persons are known only in the transaction. They are the first fields of a row, so
everything after them is encoded here, ahead of time, and joined to them with one copy.
"""

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from indexer.bulk import arrow_copy
from indexer.bulk.checking import CheckedRows, RefusedRow
from indexer.bulk.schema import CAPTIONS, ID, IMAGE, PERSON, POINTS, PROVENANCE, TYPED, Layout
from retrieval.values import Collection, FieldType, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Rows that are ready for the wire, but for their numbers in the store."""

    first_row: int
    end_row: int  # the row after the last, refused ones included
    ids: pa.Array | None  # text; None: the file has no ids
    persons: pa.Array | None  # text; None: the file names nobody
    captions: pa.Array | None  # lists of text; None: the file says nothing of the kind
    faces: pa.Array  # the fields after `id` and `person_id`
    vectors: pa.Array  # the fields after `face_id`
    refused: tuple[RefusedRow, ...]

    def __len__(self) -> int:
        return len(self.faces)

    def only(self, mask: pa.Array) -> "Chunk":
        """The rows that are marked."""
        return replace(
            self,
            ids=None if self.ids is None else self.ids.filter(mask),
            persons=None if self.persons is None else self.persons.filter(mask),
            captions=None if self.captions is None else self.captions.filter(mask),
            faces=self.faces.filter(mask),
            vectors=self.vectors.filter(mask),
        )


def encoded(
    rows: CheckedRows,
    layout: Layout,
    *,
    collection: Collection,
    space: Space,
    first_row: int,
    end_row: int,
) -> Chunk:
    """Encode the rows of a batch that began at `first_row` of its file."""
    return Chunk(
        first_row=first_row,
        end_row=end_row,
        ids=rows.columns.get(ID),
        persons=rows.columns.get(PERSON),
        captions=rows.columns.get(CAPTIONS),
        faces=_face_fields(rows, layout, collection),
        vectors=_vector_fields(rows, space),
        refused=rows.refused,
    )


def face_columns(layout: Layout) -> list[str]:
    """Columns of `face` that the file fills, in the order of the wire; `id` is first."""
    person = ["person_id"] if PERSON in layout.known else []
    external = ["external_id"] if ID in layout.known else []
    typed = [name for name in (*POINTS, *TYPED) if name in {*layout.points, *layout.known}]
    provenance = [PROVENANCE] if PROVENANCE in layout.known else []
    return ["id", *person, "collection_id", *external, *typed, *provenance, "attributes"]


def attribute_keys(layout: Layout) -> list[str]:
    """Keys of `attributes` that the file fills. An imported face has no image: its path is kept."""
    return [*([IMAGE] if IMAGE in layout.known else []), *layout.attributes]


def _face_fields(rows: CheckedRows, layout: Layout, collection: Collection) -> pa.Array:
    """The fields after `id` and `person_id`."""
    given = rows.columns
    fields = [
        arrow_copy.int8_constant(collection.id),
        *([arrow_copy.text(given[ID])] if ID in given else []),
        *(arrow_copy.float4_lists(given[name]) for name in POINTS if name in given),
        *(_typed(given[name], layout.known[name]) for name in TYPED if name in given),
    ]
    if PROVENANCE in given:
        fields.append(arrow_copy.jsonb_texts(pc.fill_null(given[PROVENANCE], "{}")))
    attributes = {key: given[key] for key in attribute_keys(layout)}
    return arrow_copy.joined([*fields, arrow_copy.jsonb(attributes, rows=len(rows))])


def _typed(values: pa.Array, type_: FieldType) -> arrow_copy.Fields:
    match type_:
        case FieldType.NUMBER:
            return arrow_copy.float8(values)
        case FieldType.INTEGER:
            return arrow_copy.int8(values)
        case FieldType.TIMESTAMP:
            return arrow_copy.timestamptz(values)
        case FieldType.TAGS:
            return arrow_copy.text_lists(values)
        case FieldType.TEXT | FieldType.BOOLEAN:  # no column of `face` is boolean
            return arrow_copy.text(values)


def _vector_fields(rows: CheckedRows, space: Space) -> pa.Array:
    """The fields after `face_id`."""
    return arrow_copy.joined(
        [
            arrow_copy.int8_constant(space.id),
            arrow_copy.bytea_rows(rows.vectors),
            arrow_copy.float4(rows.norms),
        ]
    )
