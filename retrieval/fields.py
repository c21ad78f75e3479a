"""The fields that every face has, and those a collection declares: what a filter may name.

One table names each built-in field with its type; `store.where` knows the column behind it,
`index` keeps an in-memory column of the same name. A declared attribute never hides a built-in.
"""

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from retrieval.errors import UsageError
from retrieval.values import FieldType

Fields = Mapping[str, FieldType]

BUILT_IN: Final[Fields] = MappingProxyType(
    {
        "face": FieldType.INTEGER,
        "external_id": FieldType.TEXT,
        "image_id": FieldType.INTEGER,
        "person": FieldType.TEXT,
        "person_id": FieldType.INTEGER,
        "quality": FieldType.NUMBER,
        "sharpness": FieldType.NUMBER,
        "detector_score": FieldType.NUMBER,
        "size_px": FieldType.NUMBER,
        "yaw": FieldType.NUMBER,
        "pitch": FieldType.NUMBER,
        "roll": FieldType.NUMBER,
        "age": FieldType.NUMBER,
        "gender": FieldType.TEXT,
        "source": FieldType.TEXT,
        "origin": FieldType.TEXT,
        "captured_at": FieldType.TIMESTAMP,
        "track": FieldType.TEXT,
        "frame": FieldType.INTEGER,
        "tags": FieldType.TAGS,
    }
)
# Columns with a meaning of their own in an import file; they are no attributes.
RESERVED: Final = frozenset(BUILT_IN) | {
    *("id", "vector", "vector_norm", "image", "box", "landmarks", "path", "provenance"),
    *("caption", "captions"),
}
# Ethnicity, attractiveness and emotion as data sets call them (CelebA, LFWA+, FairFace, UTKFace and
# others); the colour of skin stands for ethnicity. Names are compared in lower case.
SENSITIVE: Final = frozenset(
    spelt
    for name in (
        *("ethnicity", "ethnic_group", "race", "asian", "white", "black", "indian", "latino"),
        *("hispanic", "middle_eastern", "east_asian", "southeast_asian", "latino_hispanic"),
        *("pale_skin", "dark_skin", "skin_color", "skin_colour", "skin_tone", "skin_type"),
        *("attractive", "attractive_man", "attractive_woman", "attractiveness", "beauty"),
        *("emotion", "emotions", "dominant_emotion", "dominant_race", "happy", "sad", "angry"),
        *("fearful", "disgusted", "surprised", "valence", "arousal"),
    )
    for spelt in (name, name.replace("_", " "), name.replace("_", "-"), name.replace("_", ""))
)
_NAME: Final = re.compile(r"[^\W\d][^\x00\"]{0,62}")


def checked_attribute_name(name: str) -> str:
    """Give `name` back if it can be declared, or raise UsageError."""
    if name in RESERVED:
        raise UsageError(f"'{name}' is a field of every face and cannot be declared")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot name an attribute: begin with a letter or _, at most 63 characters"
        )
    return name


def nearest_name(name: str, names: Fields) -> str | None:
    """The known name that `name` was probably meant to be."""
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1)
    return next((n for n in names if close and n.lower() == close[0]), None)
