"""What the columns of a table become: the vector, fields of every face, attributes of a collection.

Decided once, from names and types alone, before anything is written; every problem is found, not
only the first. Values are looked at later, row by row (checking.py).

A vector column says its dimension itself (fixed-size lists, or the first list), only bytes do not:
there the space's dimension or an explicit one tells float16 (two bytes a number) from float32.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import pyarrow as pa

from retrieval.errors import SchemaMismatchError, UsageError
from retrieval.fields import BUILT_IN, SENSITIVE, Fields, checked_attribute_name, nearest_name
from retrieval.limits import ATTRIBUTES_MAX, VECTOR_DIMENSION_MAX
from retrieval.values import FieldType

VECTOR: Final = "vector"
VECTOR_NORM: Final = "vector_norm"
ID: Final = "id"
PERSON: Final = "person"
IMAGE: Final = "image"
PROVENANCE: Final = "provenance"
CAPTION: Final = "caption"  # one sentence, or several: both become captions of the face
CAPTIONS: Final = "captions"
POINTS: Final[Mapping[str, int]] = MappingProxyType({"box": 4, "landmarks": 10})
# Fields that lie in a column of their own in the store, under the same name.
TYPED: Final = ("quality", "sharpness", "detector_score", "size_px", "yaw", "pitch", "roll", "age",
                "gender", "source", "origin", "captured_at", "track", "frame", "tags")  # fmt: skip
KNOWN: Final[Fields] = MappingProxyType(
    {
        ID: FieldType.TEXT,
        IMAGE: FieldType.TEXT,
        PERSON: FieldType.TEXT,
        VECTOR_NORM: FieldType.NUMBER,
        PROVENANCE: FieldType.TEXT,
        CAPTION: FieldType.TEXT,
        CAPTIONS: FieldType.TAGS,
        **{name: BUILT_IN[name] for name in TYPED},
    }
)
# Names that would be mistaken for an attribute, with what to do about them.
MISNAMED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "external_id": "rename it to 'id'",
        "path": "rename it to 'image'",
        "face": "the store numbers faces itself: rename it to 'id' or leave it out",
        "image_id": "the store numbers images itself: leave it out",
        "person_id": "the store numbers persons itself: leave it out",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorLayout:
    """How a vector lies in its column."""

    dimension: int
    number: np.dtype[np.floating]  # little-endian float16, float32 or float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What each column of a table becomes."""

    vectors: VectorLayout
    known: Fields  # columns with a meaning of their own, without vector and points
    points: tuple[str, ...]  # which of POINTS there are
    attributes: Fields  # to be declared
    left_out: Mapping[str, str]  # columns that are not read, with the reason


def layout(
    schema: pa.Schema,
    *,
    first_vector: pa.Scalar | None,
    dimension: int | None,
    declared: Fields,
    allowed: frozenset[str],
) -> Layout:
    """Say what each column becomes.

    Args:
        schema: names and types of the table's columns.
        first_vector: the first value of `vector` that is not NULL.
        dimension: what the space has, or what the caller said; None: not known.
        declared: what the collection declared before.
        allowed: sensitive attributes that are wanted.

    Raises:
        SchemaMismatchError: every problem at once.
    """
    left_out = dict(_left_out(schema, allowed))
    kept = {field.name: field_type(field.type) for field in schema if field.name not in left_out}
    known = {name: type_ for name, type_ in KNOWN.items() if name in kept}
    attributes = {name: t for name, t in kept.items() if name not in {*KNOWN, *POINTS, VECTOR}}
    vectors = _vector_layout(schema, first_vector=first_vector, dimension=dimension)
    problems = [
        *(f"column '{name}' appears twice" for name, n in Counter(schema.names).items() if n > 1),
        *([vectors] if isinstance(vectors, str) else []),
        *_known_problems(schema, known),
        *_point_problems(schema),
        *_attribute_problems(schema, attributes, declared),
    ]
    if problems or isinstance(vectors, str):
        raise SchemaMismatchError("; ".join(problems))
    return Layout(
        vectors=vectors,
        known=known,
        points=tuple(name for name in POINTS if name in kept),
        # A whole number is a number: the wider type that was declared first stays.
        attributes={name: declared.get(name, t) for name, t in attributes.items() if t is not None},
        left_out=MappingProxyType(left_out),
    )


def field_type(type_: pa.DataType) -> FieldType | None:
    """What an Arrow type holds, in the store's words; None: nothing that the store can hold."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if _is_list(type_):
        return FieldType.TAGS if _is_text(type_.value_type) else None
    return next((found for found, holds in _HOLDS.items() if holds(type_)), None)


def _left_out(schema: pa.Schema, allowed: frozenset[str]) -> Iterator[tuple[str, str]]:
    for field in schema:
        if field.name.lower() in SENSITIVE - allowed:
            yield field.name, "it is sensitive: say that you want it"
        elif pa.types.is_null(field.type) and field.name != VECTOR:
            yield field.name, "it holds only NULLs, of no type"


def _vector_layout(
    schema: pa.Schema, *, first_vector: pa.Scalar | None, dimension: int | None
) -> VectorLayout | str:
    """The layout, or the problem with it."""
    if VECTOR not in schema.names:
        meant = nearest_name(VECTOR, dict.fromkeys(schema.names, FieldType.TEXT))
        return "there is no column 'vector'" + (f"; is it '{meant}'?" if meant else "")
    type_ = schema.field(schema.names.index(VECTOR)).type
    length = None if first_vector is None else len(first_vector.as_py())
    if pa.types.is_fixed_size_list(type_):
        length = type_.list_size
    if _is_list(type_) and pa.types.is_floating(type_.value_type):
        return _of_lists(type_, length=length, dimension=dimension)
    if _is_binary(type_):
        return _of_bytes(length, dimension=dimension)
    return (
        f"column 'vector' is {type_}; it must be a list of float16, float32 or float64, or binary"
    )


def _of_lists(
    type_: pa.DataType, *, length: int | None, dimension: int | None
) -> VectorLayout | str:
    number = np.dtype(type_.value_type.to_pandas_dtype()).newbyteorder("<")
    found = dimension if length is None else length
    if found is None:
        return "no row holds a vector"
    if dimension is not None and found != dimension:
        return f"the vectors have {found} dimensions; {dimension} are needed"
    if not 1 <= found <= VECTOR_DIMENSION_MAX:
        return f"the vectors have {found} dimensions; 1 to {VECTOR_DIMENSION_MAX:,} are possible"
    return VectorLayout(dimension=found, number=number)


def _of_bytes(length: int | None, *, dimension: int | None) -> VectorLayout | str:
    if dimension is None:
        return (
            f"column 'vector' is binary, {length} bytes a row: the space is new,"
            " so say its dimension to tell float16 from float32"
        )
    if length in (None, 2 * dimension):
        return VectorLayout(dimension=dimension, number=np.dtype("<f2"))
    if length == 4 * dimension:
        return VectorLayout(dimension=dimension, number=np.dtype("<f4"))
    return (
        f"the vectors have {length} bytes; with {dimension} dimensions"
        f" they must have {2 * dimension} (float16) or {4 * dimension} (float32)"
    )


def _known_problems(schema: pa.Schema, known: Fields) -> Iterator[str]:
    for name, wanted in known.items():
        type_ = schema.field(schema.names.index(name)).type
        given = field_type(type_)
        # A whole number is a fine name of a face, a person or a track.
        if not (_fits(given, wanted) or (given, wanted) == (FieldType.INTEGER, FieldType.TEXT)):
            yield f"column '{name}' is {type_}; it must be {wanted}"


def _point_problems(schema: pa.Schema) -> Iterator[str]:
    for name, count in POINTS.items():
        if name in schema.names:
            type_ = schema.field(schema.names.index(name)).type
            inner = type_.value_type if _is_list(type_) else type_
            inner = inner.value_type if _is_list(inner) else inner
            if not _is_list(type_) or field_type(inner) not in (
                FieldType.NUMBER,
                FieldType.INTEGER,
            ):
                yield f"column '{name}' is {type_}; it must be a list of {count} numbers"


def _attribute_problems(
    schema: pa.Schema, attributes: Mapping[str, FieldType | None], declared: Fields
) -> Iterator[str]:
    for name, type_ in attributes.items():
        if name in MISNAMED:
            yield f"column '{name}' is no attribute: {MISNAMED[name]}"
            continue
        try:
            checked_attribute_name(name)
        except UsageError as refusal:
            yield str(refusal)
        if type_ is None:
            held = schema.field(schema.names.index(name)).type
            yield f"column '{name}' is {held}, which no attribute can hold"
        elif not _fits(type_, declared.get(name, type_)):
            yield f"'{name}' is declared as {declared[name]}, not {type_}"
    if (count := len({*declared, *attributes})) > ATTRIBUTES_MAX:
        yield f"the collection would have {count:,} attributes; {ATTRIBUTES_MAX} are the most"


def _fits(given: FieldType | None, wanted: FieldType) -> bool:
    return given == wanted or (given, wanted) == (FieldType.INTEGER, FieldType.NUMBER)


def _is_text(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_string_view(type_)
    )


def _is_binary(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_fixed_size_binary(type_)
        or pa.types.is_binary_view(type_)
    )


def _is_list(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    )


_HOLDS: Final[Mapping[FieldType, Callable[[pa.DataType], bool]]] = MappingProxyType(
    {
        FieldType.TEXT: _is_text,
        FieldType.BOOLEAN: pa.types.is_boolean,
        FieldType.INTEGER: pa.types.is_integer,
        FieldType.NUMBER: lambda t: pa.types.is_floating(t) or pa.types.is_decimal(t),
        FieldType.TIMESTAMP: lambda t: pa.types.is_timestamp(t) or pa.types.is_date(t),
    }
)
