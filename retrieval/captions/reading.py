"""From a sentence to what it says of attributes, with the place of each word that says it.

Words are looked up, longest first; nothing is inferred. A feature (nose, hair) takes the adjectives
before it ("curly brown hair", "a big, pointed nose") and those that follow it ("her mouth is wide
open"). Denials are followed as far as English lets a plain reader: `no`, `not` and `lacks` reach
over "or" and commas, `without` over "and" too, and all of them end where a new clause begins
("without a hat but smiling"). Sentences of grammar.py are read without loss; free sentences as far
as the table of words goes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from retrieval.captions.vocabulary import (
    ATTRIBUTES,
    BABY,
    CHILD,
    DENYING,
    FEATURES,
    FEMALE,
    INNOCENT,
    MALE,
    NOUNS,
    Kind,
)

_TOKEN: Final = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|[,.;:!?()]")
_POSSESSIVE: Final = re.compile(r"['\u2019]s$")
_ARTICLES: Final = frozenset({"a", "an", "the", "any"})
_DENIALS: Final = frozenset({"no", "not", "never", "lacks", "lacking", "neither"})
_WIDE_DENIALS: Final = frozenset({"without", "minus"})  # reach over "and"
_ENDS: Final = frozenset(".;:!?()") | {"but", "although", "however", "yet", "who", "he", "she"}
# A verb or preposition after something was denied begins what is so.
_TURNS: Final = frozenset({"with", "wearing", "wears", "has", "have", "having", "is", "are", "in"})
_PRONOUNS: Final = frozenset({"he", "him", "his", "himself", "she", "her", "hers", "herself"})
_LINKS: Final = frozenset({"is", "are", "was", "were", "looks", "seems"})
_BETWEEN: Final = frozenset({"and", "or", ",", "very", "rather", "quite", "somewhat"})
_PARTS_MAX: Final = 3  # words of one adjective of a feature


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A word in lower case, or a mark, and where it stands."""

    word: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """What one stretch of a sentence says: truth by tag."""

    says: tuple[tuple[str, bool], ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A phrase of the table."""

    words: tuple[str, ...]
    says: tuple[tuple[str, bool], ...]
    kind: Kind | None


def tokens(sentence: str) -> list[Token]:
    """The words and marks of a sentence; hyphens divide words, `'s` is dropped.

    >>> [token.word for token in tokens("The man's BIG, wide-open mouth.")]
    ['the', 'man', 'big', ',', 'wide', 'open', 'mouth', '.']
    """
    return [
        Token(
            word=_POSSESSIVE.sub("", found[0].lower()).replace("\u2019", "'"),
            start=found.start(),
            end=found.end(),
        )
        for found in _TOKEN.finditer(sentence)
    ]


def mentions(sentence: str) -> list[Mention]:
    """Everything that a sentence says of attributes, in its order.

    >>> [one.says for one in mentions("a blond woman without glasses")]
    [(('blond hair', True),), (('female', True), ('male', False)), (('glasses', False),)]
    """
    read = tokens(sentence)
    words = [token.word for token in read]
    found = []
    denial = _Denial()
    place = 0
    while place < len(words):
        matched = _matched(words, place)
        if matched is None:
            denial.passes(words, place)
            place += 1
            continue
        first, last, entry = matched
        denied = denial.reaches(words, first, entry.kind)
        says = _denied(entry.says) if denied else entry.says
        if says:
            found.append(Mention(says=says, start=read[first].start, end=read[last - 1].end))
        place = last
    return _without_two_sexes(found)


class _Denial:
    """Whether words stand under a "no" that came before."""

    def __init__(self) -> None:
        self._wide = False
        self._open = False
        self._used = False  # something was denied since

    def passes(self, words: Sequence[str], place: int) -> None:
        """Go over a word that names no attribute."""
        word = words[place]
        if word in _DENIALS or word in _WIDE_DENIALS or word.endswith("n't"):
            self._open, self._used, self._wide = True, False, word in _WIDE_DENIALS
        elif word in _ENDS or (self._used and self._turns(word)):
            self._open = False

    def _turns(self, word: str) -> bool:
        return word in _TURNS or (word == "and" and not self._wide)

    def reaches(self, words: Sequence[str], place: int, kind: Kind | None) -> bool:
        """Whether the attribute that begins at `place` is denied."""
        if words[place] in _PRONOUNS:  # "without his glasses", "without a hat he smiles"
            self._open = self._open and words[place] not in _ENDS
            return False
        in_turn = kind in (Kind.DOES, Kind.STATE, Kind.SEX) and self._used
        if in_turn and words[place - 1] not in ("or", "nor"):  # "without a hat, smiling"
            self._open = False
        self._used = self._open
        return self._open


def _denied(says: tuple[tuple[str, bool], ...]) -> tuple[tuple[str, bool], ...]:
    """What a denial leaves: "no beard" is false; "not clean-shaven" says nothing certain."""
    if any(not truth for tag, truth in says if tag not in (MALE, FEMALE)):
        return ()
    return tuple((tag, not truth) for tag, truth in says)


def _without_two_sexes(found: list[Mention]) -> list[Mention]:
    """A sentence with a man and a woman in it says no sex."""
    said = {truth for one in found for tag, truth in one.says if tag == MALE}
    if len(said) <= 1:
        return found
    return [
        Mention(says=says, start=one.start, end=one.end)
        for one in found
        if (says := tuple((t, truth) for t, truth in one.says if t not in (MALE, FEMALE)))
    ]


def _matched(words: Sequence[str], place: int) -> tuple[int, int, _Entry] | None:
    """The attribute that begins here: first place, place behind it, and what it says."""
    phrase = _phrase(words, place)
    feature = _feature(words, place)
    if feature is not None and (phrase is None or feature[1] >= place + len(phrase.words)):
        return place, feature[1], feature[0]
    if phrase is not None:
        return place, place + len(phrase.words), phrase
    return None


def _phrase(words: Sequence[str], place: int) -> _Entry | None:
    for entry in _phrases().get(words[place], ()):
        if tuple(words[place : place + len(entry.words)]) == entry.words:
            return entry
    return None


def _feature(words: Sequence[str], place: int) -> tuple[_Entry, int] | None:
    """Adjectives of a feature with their feature, from here on, and the place behind."""
    if words[place] in _nouns():
        return _after(words, place)
    if words[place] not in _adjective_starts():
        return None
    at = place
    parts: list[tuple[str, ...]] = []
    while at < len(words):
        if words[at] in _nouns():
            says = _of(words[at], parts)
            return (_entry(says), at + 1) if says else None
        if parts and words[at] in _BETWEEN:
            at += 1
            continue
        part = _adjective(words, at)
        if part is None:
            return None
        parts.append(part)
        at += len(part)
    return None


def _after(words: Sequence[str], place: int) -> tuple[_Entry, int] | None:
    """Adjectives that follow their feature: "mouth wide open", "hair is curly and brown"."""
    at = place + 1
    linked = at < len(words) and words[at] in _LINKS
    at += linked
    parts: list[tuple[str, ...]] = []
    behind = at
    while at < len(words):
        if parts and words[at] in _BETWEEN:
            at += 1
            continue
        part = _adjective(words, at)
        if part is None or not _of(words[place], [part]):
            break
        parts.append(part)
        at += len(part)
        behind = at
        if not linked:
            break
    # "a nose big eyes": what a noun follows belongs to that noun.
    if not parts or (behind < len(words) and words[behind] in _nouns()):
        return None
    return _entry(_of(words[place], parts)), behind


def _adjective(words: Sequence[str], place: int) -> tuple[str, ...] | None:
    for length in range(_PARTS_MAX, 0, -1):
        part = tuple(words[place : place + length])
        if len(part) == length and part in _adjectives():
            return part
    return None


def _of(noun: str, parts: Sequence[tuple[str, ...]]) -> tuple[tuple[str, bool], ...]:
    by_feature = _nouns()[noun]
    told = _adjectives()
    return tuple((told[part][by_feature], True) for part in parts if by_feature in told[part])


def _entry(says: tuple[tuple[str, bool], ...]) -> _Entry:
    return _Entry(words=(), says=says, kind=Kind.QUALITY)


@cache
def _nouns() -> Mapping[str, str]:
    """The feature of each noun."""
    return {
        noun: name for name, feature in FEATURES.items() for noun in (*feature.said, *feature.heard)
    }


@cache
def _adjectives() -> Mapping[tuple[str, ...], Mapping[str, str]]:
    """For each adjective of features, the tag by feature."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for one in ATTRIBUTES:
        if one.feature is not None:
            for words in (*one.said, *one.heard):
                found.setdefault(_words(words), {})[one.feature] = one.tag
    for words, tag in _OPEN.items():
        found.setdefault(_words(words), {})["mouth"] = tag
    found.setdefault(("parted",), {})["lips"] = "mouth slightly open"
    return found


_OPEN: Final = {"open": "mouth slightly open", "wide open": "mouth wide open"}


@cache
def _adjective_starts() -> frozenset[str]:
    return frozenset(part[0] for part in _adjectives())


@cache
def _phrases() -> Mapping[str, Sequence[_Entry]]:
    """All phrases by their first word, longest first."""
    found: dict[tuple[str, ...], _Entry] = {}
    for entry in _entries():
        found.setdefault(entry.words, entry)
    by_first: dict[str, list[_Entry]] = {}
    for entry in sorted(found.values(), key=lambda one: -len(one.words)):
        by_first.setdefault(entry.words[0], []).append(entry)
    return by_first


def _entries() -> Iterator[_Entry]:
    for phrase in INNOCENT:
        yield _Entry(words=_words(phrase), says=(), kind=None)
    for phrase, denied in DENYING.items():
        says = tuple((tag, False) for tag in denied)
        yield _Entry(words=_words(phrase), says=says, kind=None)
    for phrase, tags in NOUNS.items():
        yield _Entry(words=_words(phrase), says=_with_sex(tags), kind=_kind(tags))
    for one in ATTRIBUTES:
        bare = () if one.feature is not None else (*one.said, *one.heard)
        for phrase in (*bare, *one.adjectives, *one.verbs):
            yield _Entry(words=_words(phrase), says=_with_sex((one.tag,)), kind=one.kind)


def _kind(tags: tuple[str, ...]) -> Kind:
    return Kind.SEX if {MALE, FEMALE, CHILD, BABY} & set(tags) else Kind.QUALITY


def _with_sex(tags: tuple[str, ...]) -> tuple[tuple[str, bool], ...]:
    """What is said when these are true: one sex denies the other."""
    others = [FEMALE for tag in tags if tag == MALE] + [MALE for tag in tags if tag == FEMALE]
    return (*((tag, True) for tag in tags), *((tag, False) for tag in others))


def _words(phrase: str) -> tuple[str, ...]:
    """A phrase of the table as a sentence is cut, without its article."""
    words = tuple(token.word for token in tokens(phrase))
    return words[1:] if words[0] in _ARTICLES else words
