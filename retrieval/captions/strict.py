"""A sentence as a filter: words that name attributes become conditions, the others stay words.

`soft` search ranks by the whole sentence; `strict` takes what it surely says as a filter over tags,
and ranks by the rest. A sex is looked for in the field `gender` as well as in the tags.
"""

from dataclasses import dataclass
from typing import Final

from retrieval.captions.reading import Token, mentions, tokens
from retrieval.captions.vocabulary import FEMALE, MALE

# Words that say nothing by themselves once the attributes between them are gone.
_EMPTY_WORDS: Final = """
a an the this that these there here is are was has have having wears wear wearing with without and
or but in of who which he she they it his her their him no not nor neither any very also both shown
shows show one person people someone somebody anyone face faces portrait photo photograph picture
image close up head shot snapshot we see looks looking do does did
"""
_EMPTY: Final = frozenset(_EMPTY_WORDS.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Strict:
    """A sentence in two parts."""

    where: str | None  # a filter over tags; None: it names no attribute
    rest: str  # what it says beside them; "": nothing


def strict(sentence: str) -> Strict:
    """Divide a sentence into what a filter can hold and the rest.

    >>> strict("a man with glasses and no hat in a garden")
    ... # doctest: +NORMALIZE_WHITESPACE
    Strict(where="(gender = 'male' OR 'male' = ANY(tags)) AND 'glasses' = ANY(tags)
        AND NOT 'hat' = ANY(tags)", rest='in a garden')
    """
    found = mentions(sentence)
    said = {tag: truth for one in found for tag, truth in one.says}
    if said.get(MALE) or said.get(FEMALE):  # the other one says nothing more
        said = {t: truth for t, truth in said.items() if truth or t not in (MALE, FEMALE)}
    left = [
        token
        for token in tokens(sentence)
        if not any(one.start <= token.start < one.end for one in found)
    ]
    where = " AND ".join(condition(tag, holds=truth) for tag, truth in said.items())
    return Strict(where=where or None, rest=_rest(sentence, left))


def condition(tag: str, *, holds: bool) -> str:
    """An attribute as a filter; of a sex that it is so, whatever `holds`: ask for the other one."""
    if tag in (MALE, FEMALE):
        return f"(gender = '{tag}' OR '{tag}' = ANY(tags))"
    return f"{'' if holds else 'NOT '}'{tag}' = ANY(tags)"


def _rest(sentence: str, left: list[Token]) -> str:
    """The stretches of what is left that say something, with their small words inside."""
    stretches: list[list[Token]] = []
    for token in left:
        if stretches and not sentence[stretches[-1][-1].end : token.start].strip(" -'\u2019s"):
            stretches[-1].append(token)
        else:
            stretches.append([token])
    return " ".join(told for one in stretches if (told := _told(sentence, one)))


def _told(sentence: str, stretch: list[Token]) -> str:
    full = [place for place, token in enumerate(stretch) if _full(token)]
    if not full:
        return ""
    first, last = full[0], full[-1]
    # "in a garden" keeps the small words that lead to its first full one.
    while first and stretch[first - 1].word in _LEADING:
        first -= 1
    return sentence[stretch[first].start : stretch[last].end]


def _full(token: Token) -> bool:
    word = token.word
    return word not in _EMPTY and word[0].isalnum() and not word.endswith("n't")


_LEADING: Final = frozenset({"a", "an", "the", "in", "of", "with", "wearing", "his", "her", "no"})
