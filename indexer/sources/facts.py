"""What rows of a manifest and sidecars of a shard say, turned into checked facts.

Reserved names have one reader each; every other name is an attribute. A reader gives the value
or raises ValueError with words that finish "column 'frame' ...": they never repeat the value,
which may be a person's name.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import UTC, date, datetime, time
from typing import Any, Final, NamedTuple

from indexer.sources.pictures import Facts
from retrieval.limits import CAPTIONS_MAX, TAGS_MAX, TEXT_BYTES_MAX
from retrieval.values import ORIGINS, Box, Value

_INTEGER_MAX: Final = 2**63 - 1
_NUMBER: Final = re.compile(r"[0-9]+")
ISO_TIME: Final = (  # what may be a date, in RE2 and in Python
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
)


class Moment(NamedTuple):
    """A point in time, and whether its zone was missing and UTC was assumed."""

    at: datetime
    assumed_utc: bool


def text(value: Any) -> str:
    """Text that the store takes; whole numbers are written out."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError("holds no text")  # noqa: TRY004 -- one kind of error for all readers
    if "\0" in value or len(value.encode("utf-8", "replace")) > TEXT_BYTES_MAX:
        raise ValueError(f"holds a NUL, or text of more than {TEXT_BYTES_MAX:,} bytes")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError("holds text that is no valid Unicode")
    return value


def integer(value: Any) -> int:
    """A whole number of 64 bits, also from digits, and from 12.0, as pandas writes it."""
    try:
        found = int(value) if isinstance(value, int | str) else _whole(value)
    except ValueError:
        found = _whole(value)
    if found is None or isinstance(value, bool) or not -_INTEGER_MAX <= found <= _INTEGER_MAX:
        raise ValueError("holds no whole number")
    return found


def _whole(value: Any) -> int | None:
    try:
        wide = number(value)
    except ValueError:
        return None
    return int(wide) if wide.is_integer() else None


def number(value: Any) -> float:
    """A finite number, also from digits."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError("holds no finite number")
    return found


def origin(value: Any) -> str:
    """One of values.ORIGINS."""
    if value not in ORIGINS:
        raise ValueError(f"holds another word than {', '.join(ORIGINS)}")
    return str(value)


def moment(value: Any) -> Moment:
    """A time in UTC, from an ISO 8601 date or time; without a zone, UTC is assumed."""
    if isinstance(value, str) and re.match(ISO_TIME, value):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise ValueError("holds no ISO 8601 date, such as 2024-05-31T12:00:00Z")  # noqa: TRY004
    try:
        return Moment(
            value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC), value.tzinfo is None
        )
    except OverflowError as cause:
        raise ValueError("holds a time before the year 1 or after 9999") from cause


def tags(value: Any) -> tuple[str, ...]:
    """Tags from a list of text, or from text with semicolons between them."""
    parts = [part.strip() for part in value.split(";")] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(p, str | None) for p in parts):
        raise ValueError("holds no list of text")
    if len(parts) > TAGS_MAX:
        raise ValueError(f"holds more than {TAGS_MAX:,} tags")
    return tuple(text(part) for part in parts if part)


def captions(value: Any) -> tuple[str, ...]:
    r"""Sentences from a list of text, or from text with one in each line, each once.

    What holds no letter is no sentence: labels of detectors lie beside pictures as text, too.

    >>> captions("a man\n\nwith a hat\n0 0.71 0.39\na man")
    ('a man', 'with a hat')
    """
    parts = value.splitlines() if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(p, str | None) for p in parts):
        raise ValueError("holds no list of text")
    said = dict.fromkeys(text(part).strip() for part in parts if part)
    found = tuple(sentence for sentence in said if any(map(str.isalpha, sentence)))
    if len(found) > CAPTIONS_MAX:
        raise ValueError(f"holds more than {CAPTIONS_MAX} captions")
    return found


def sidecar_text(content: bytes) -> str:
    """The text of a file that lies beside a picture.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise ValueError("is not UTF-8") from cause


def box(value: Any) -> Box:
    """A box from four numbers: left, top, right, bottom, as a list or with commas between."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) != len(fields(Box)):
        raise ValueError("holds no box: four numbers left,top,right,bottom")
    left, top, right, bottom = map(number, parts)
    if left >= right or top >= bottom:
        raise ValueError("holds a box whose left is not below its right, or top not below bottom")
    return Box(left=left, top=top, right=right, bottom=bottom)


READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "person": text,
    "box": box,
    "source": text,
    "origin": origin,
    "captured_at": moment,
    "track": text,
    "frame": integer,
    "tags": tags,
    "age": number,
    "gender": text,
    "id": text,
    "external_id": text,
    "caption": lambda value: captions([text(value)]),
    "captions": captions,
}


def reserved_facts(cells: Mapping[str, Any]) -> Facts:
    """The facts behind the reserved names among `cells`; other names are ignored.

    Raises:
        ValueError: a cell cannot be read; the message names its column.
    """
    found: dict[str, Any] = {}
    for name, read in READERS.items():
        if name in cells and not missing(cells[name]):
            try:
                found[name] = read(cells[name])
            except ValueError as cause:
                raise ValueError(f"'{name}' {cause}") from cause
    if "id" in found:
        found["external_id"] = found.pop("id")
    if said := found.pop("caption", ()) + found.pop("captions", ()):
        found["captions"] = tuple(dict.fromkeys(said))
    if "captured_at" in found:
        found["captured_at"], found["captured_at_assumed_utc"] = found["captured_at"]
    return Facts(**found)


def missing(cell: Any) -> bool:
    """Whether a cell says nothing."""
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def attribute_value(value: Any) -> Value:
    """A value of a sidecar as an attribute, with the type that it has there.

    Raises:
        ValueError: it is nested, too long or too large.
    """
    match value:
        case None | bool():
            return value
        case int():
            return integer(value)
        case float():
            return None if math.isnan(value) else number(value)
        case str():
            return text(value)
        case list():
            return tags(value)
        case _:
            raise ValueError("is nested")


def merged(stronger: Facts, weaker: Facts) -> Facts:
    """All facts of both; where both speak, `stronger` is right."""
    said = {
        field.name: value
        for field in fields(Facts)
        if field.name not in {"attributes", "captured_at_assumed_utc"}
        and (value := getattr(stronger, field.name)) is not None
    }
    if stronger.captured_at is not None:
        said["captured_at_assumed_utc"] = stronger.captured_at_assumed_utc
    return replace(weaker, **said, attributes={**weaker.attributes, **stronger.attributes})


def frame_number(stem: str) -> int | None:
    """The last number in a file's stem.

    >>> frame_number("cam2_000123")
    123
    """
    numbers = _NUMBER.findall(stem)
    return int(numbers[-1]) if numbers and len(numbers[-1]) <= len(str(_INTEGER_MAX)) - 1 else None
