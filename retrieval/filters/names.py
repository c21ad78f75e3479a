"""Names as users write them: which field is meant, and how a message repeats a word."""

from typing import Final

from retrieval.fields import Fields, nearest_name

SHOWN_CHARACTERS_MAX: Final = 40


def shown(word: str) -> str:
    """A word of the user's as a message may show it: short, and on one line."""
    short = word if len(word) <= SHOWN_CHARACTERS_MAX else word[:SHOWN_CHARACTERS_MAX] + "…"
    return short if short.isprintable() else ascii(short)[1:-1]


def no_such_field(name: str, fields: Fields) -> str:
    """What to tell someone who named a field that does not exist."""
    near = nearest_name(name[:SHOWN_CHARACTERS_MAX], fields)
    meant = f'; did you mean "{near}"?' if near else "."
    return f'there is no field "{shown(name)}"{meant} The fields are: {", ".join(sorted(fields))}'
