"""From attributes to English sentences, and what such sentences said.

A caption is deterministic in (attributes, seed, options). It opens with a noun of sex and age,
takes some attributes along ("a bearded young man in glasses, with a round face") and says the
others in sentences of their own. Words are drawn from the table (vocabulary.py), so that many
sentences say the same; a full caption says everything that is true and can be said, a partial one
a share of it. What is false is said only where asked for (`denied`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from retrieval.captions.reading import mentions
from retrieval.captions.vocabulary import (
    ATTRIBUTES,
    BABY,
    BY_TAG,
    CHILD,
    FEATURES,
    FEMALE,
    MALE,
    Attribute,
    Kind,
)
from retrieval.errors import UsageError

TRIES: Final = 4  # for each caption that is asked for, until all differ
SEXLESS: Final = 0.15  # of partial captions say "person"
_LISTED_MAX: Final = 5  # things in one list; longer ones become two sentences
_WITH_MAX: Final = 4
_ADJECTIVES_MAX: Final = 2
_OPENINGS: Final = (
    *("", "", "", "This is ", "Here is ", "We see ", "There is "),
    *("Close-up of ", "Head shot of ", "Snapshot of "),
)
_IN: Final = frozenset({"glasses", "sunglasses", "hat", "necktie"})  # "a man in glasses"
_DENIABLE: Final = frozenset({Kind.HAS, Kind.WEARS, Kind.DOES, Kind.STATE})
_DENIABLE_FEATURES: Final = frozenset({"hair", "hairline", "chin", "cheeks"})  # "no double chin"


def captions(
    attributes: Mapping[str, bool],
    *,
    seed: int,
    count: int = 1,
    share: float = 1.0,
    denied: int = 0,
) -> list[str]:
    """At most `count` different captions; fewer where there are not so many ways to say it.

    Args:
        attributes: truth by tag; what is not in the table of words is passed over.
        seed: the same gives the same captions, whatever the order of the attributes.
        count: captions.
        share: of the attributes that are true, how many are said. The sex is nearly always said.
        denied: how many of the attributes that are false are said to be.

    Raises:
        UsageError: `count` is below 1, `share` not between 0 and 1, or `denied` below 0.
    """
    if count < 1 or not 0 <= share <= 1 or denied < 0:
        raise UsageError("captions need count >= 1, 0 <= share <= 1 and denied >= 0")
    random = Random(seed)  # noqa: S311  (choices of words)
    true = [one for one in ATTRIBUTES if attributes.get(one.tag)]
    false = [
        one
        for one in ATTRIBUTES
        if attributes.get(one.tag) is False
        and (one.kind in _DENIABLE or one.feature in _DENIABLE_FEATURES)
    ]
    found: dict[str, None] = {}
    for _ in range(count * TRIES):
        said = true if share == 1 else _share_of(true, share, random)
        not_said = random.sample(false, min(denied, len(false))) if denied else []
        found[_Caption(said, not_said, random).text()] = None
        if len(found) == count:
            break
    return list(found)


def attributes_of(sentence: str) -> dict[str, bool]:
    """What a sentence says of attributes, by tag; what it does not speak of is left out.

    >>> attributes_of("A bearded man without glasses. He is not smiling.")
    {'beard': True, 'male': True, 'female': False, 'glasses': False, 'smiling': False}
    """
    return {tag: truth for one in mentions(sentence) for tag, truth in one.says}


def _share_of(true: Sequence[Attribute], share: float, random: Random) -> list[Attribute]:
    """So many of the attributes, in the order of the table, the sex beside them."""
    others = [one.tag for one in true if one.kind is not Kind.SEX]
    kept = set(random.sample(others, round(share * len(others))))
    sexless = random.random() < SEXLESS
    return [one for one in true if one.tag in kept or (one.kind is Kind.SEX and not sexless)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """Whom a caption speaks of."""

    noun: str
    pronoun: str
    plural: bool  # "they have"

    def verb(self, one: str, many: str) -> str:
        """The form that goes with the pronoun."""
        return many if self.plural else one


class _Caption:
    """One caption in the making: each part takes what it says out of what is left to say."""

    def __init__(
        self, said: Sequence[Attribute], denied: Sequence[Attribute], random: Random
    ) -> None:
        self._random = random
        self._left = {one.tag: one for one in said}
        self._denied = denied

    def text(self) -> str:
        """The caption."""
        subject = self._subject()
        picture = self._take(Kind.PICTURE)
        portrait = self._portrait(subject)
        has = self._features() + [self._word(one) for one in self._take(Kind.HAS)]
        self._random.shuffle(has)
        worn = self._take(Kind.WEARS)
        self._random.shuffle(worn)
        first, has, worn = self._first(portrait, has, worn)
        verbs = self._verbs(subject, has, worn)
        self._random.shuffle(verbs)
        verbs += self._denials(subject)
        sentences = [first, *self._sentences(subject, verbs)]
        if picture:
            self._random.shuffle(picture)
            sentences.append(f"The picture is {_listed(self._word(one) for one in picture)}")
        return " ".join(f"{sentence}." for sentence in sentences)

    def _take(self, kind: Kind) -> list[Attribute]:
        taken = [one for one in self._left.values() if one.kind is kind]
        for one in taken:
            del self._left[one.tag]
        return taken

    def _word(self, one: Attribute) -> str:
        return self._random.choice(one.said)

    def _often(self, chance: float) -> bool:
        return self._random.random() < chance

    def _subject(self) -> _Subject:
        sexes = [one.tag for one in self._take(Kind.SEX)]
        sex = sexes[0] if len(sexes) == 1 else None
        pronoun = {MALE: "he", FEMALE: "she", None: "they"}[sex]
        return _Subject(noun=self._noun(sex), pronoun=pronoun, plural=sex is None)

    def _noun(self, sex: str | None) -> str:
        young = {MALE: "boy", FEMALE: "girl"}
        if self._left.pop(BABY, None):
            return "baby" if sex is None else f"baby {young[sex]}"
        if child := self._left.pop(CHILD, None):
            return self._word(child) if sex is None else young[sex]
        return "person" if sex is None else self._random.choice(BY_TAG[sex].said)

    def _portrait(self, subject: _Subject) -> str:
        """The noun with its adjectives and article."""
        baby_too = self._left.pop(CHILD, None)  # a noisy label: said in a sentence of its own
        ages = [self._word(one) for one in self._take(Kind.AGE)]
        if baby_too:
            self._left[CHILD] = baby_too
        adjectives = self._adjectives()
        words = [", ".join(adjectives), " or ".join(ages), subject.noun]
        noun = " ".join(word for word in words if word)
        return f"{_article(noun)} {noun}"

    def _adjectives(self) -> list[str]:
        """Some of what can stand before the noun."""
        able = [one for one in self._left.values() if one.adjectives or one.kind is Kind.STATE]
        self._random.shuffle(able)
        chosen = [one for one in able[:_ADJECTIVES_MAX] if self._often(0.4)]
        for one in chosen:
            del self._left[one.tag]
        return [self._random.choice(one.adjectives or one.said) for one in chosen]

    def _features(self) -> list[str]:
        """Each feature with all its qualities: "curly brown hair"."""
        by_feature: dict[str, list[Attribute]] = {}
        for one in self._take(Kind.QUALITY):
            by_feature.setdefault(str(one.feature), []).append(one)
        return [self._feature(name, qualities) for name, qualities in by_feature.items()]

    def _feature(self, name: str, qualities: list[Attribute]) -> str:
        feature = FEATURES[name]
        if name == "hair":
            words = _hair([(one.tag, self._word(one)) for one in qualities])
        else:
            self._random.shuffle(qualities)
            qualities.sort(key=lambda one: one.said == ("brown",))  # a colour comes last
            words = ", ".join(self._word(one) for one in qualities)
            words = words.replace(", brown", " brown")
        said = f"{words} {self._random.choice(feature.said)}"
        return f"{_article(said)} {said}" if feature.one else said

    def _first(
        self, portrait: str, has: list[str], worn: list[Attribute]
    ) -> tuple[str, list[str], list[Attribute]]:
        """The opening, and what is left to say."""
        count = self._random.randint(0, min(len(has), _WITH_MAX))
        with_ = f"with {_listed(has[:count])}" if count else ""
        wears = ""
        if worn and self._often(0.5):
            simple = all(one.tag in _IN for one in worn) and self._often(0.5)
            verb = "in" if simple else "wearing"
            wears = f"{verb} {_listed(self._word(one) for one in worn)}"
            worn = []
        parts = [wears, with_] if self._often(0.7) else [with_, wears]
        if self._often(0.3):
            parts.append(_listed(self._word(one) for one in self._take(Kind.DOES)))
        opening = self._random.choice(_OPENINGS)
        told = _joined(portrait, [part for part in parts if part])
        return _capital(opening + told), has[count:], worn

    def _verbs(self, subject: _Subject, has: list[str], worn: list[Attribute]) -> list[str]:
        """What is said in sentences: verbs with their objects."""
        found = []
        for begin in range(0, len(has), _LISTED_MAX):
            part = has[begin : begin + _LISTED_MAX]
            found.append(f"{subject.verb('has', 'have')} {_listed(part)}")
        if worn:
            verb = self._random.choice(
                (subject.verb("wears", "wear"), self._is(subject, "wearing"))
            )
            found.append(f"{verb} {_listed(self._word(one) for one in worn)}")
        states = [self._word(one) for one in self._take(Kind.STATE)]
        if self._left.pop(CHILD, None):
            states.append("still a child")
        if states:
            found.append(f"{self._is(subject)} {_listed(states)}")
        return found + [self._does(subject, one) for one in self._take(Kind.DOES)]

    def _is(self, subject: _Subject, word: str = "") -> str:
        return f"{subject.verb('is', 'are')} {word}".strip()

    def _does(self, subject: _Subject, one: Attribute) -> str:
        place = self._random.randrange(len(one.said))
        if subject.plural or self._often(0.5):
            return self._is(subject, one.said[place])
        return one.verbs[place]

    def _denials(self, subject: _Subject) -> list[str]:
        """What is said not to be so."""
        found = []
        lists: dict[str, list[str]] = {}
        for one in self._denied:
            lists.setdefault(_denying(one.kind, subject), []).append(self._bare(one))
        for verb, words in lists.items():
            found.append(f"{verb} {' or '.join(words)}")
        return found

    def _bare(self, one: Attribute) -> str:
        if one.kind is Kind.QUALITY:
            return f"{self._word(one)} {FEATURES[str(one.feature)].said[0]}"
        return self._word(one).removeprefix("a ")

    def _sentences(self, subject: _Subject, verbs: list[str]) -> list[str]:
        """Sentences of one verb, or of two that are short."""
        found: list[str] = []
        begun: str | None = None
        for verb in _with_also(verbs):
            if begun is not None and len(begun) + len(verb) < _SHORT and self._often(0.6):
                found[-1] = f"{found[-1]} and {verb}"
                begun = None
                continue
            found.append(f"{self._name(subject)} {verb}")
            begun = None if " or " in verb else verb
        return found

    def _name(self, subject: _Subject) -> str:
        if not subject.plural and self._often(0.25):
            return f"The {subject.noun}"
        return _capital(subject.pronoun)


_SHORT: Final = 60  # letters of two verbs with their objects in one sentence


def _with_also(verbs: Sequence[str]) -> list[str]:
    """The same, where what somebody has is said a second time with "also"."""
    having = [
        place
        for place, verb in enumerate(verbs)
        if verb.startswith(("has ", "have ")) and " no " not in verb
    ]
    return [f"also {verb}" if place in having[1:] else verb for place, verb in enumerate(verbs)]


def _denying(kind: Kind, subject: _Subject) -> str:
    match kind:
        case Kind.WEARS:
            return f"{subject.verb('wears', 'wear')} no"
        case Kind.HAS | Kind.QUALITY:
            return f"{subject.verb('has', 'have')} no"
        case _:
            return f"{subject.verb('is', 'are')} not"


def _hair(qualities: list[tuple[str, str]]) -> str:
    """Shapes and then colours: "wavy and curly, black hair"."""
    shapes = [w for tag, w in qualities if tag in {"straight hair", "wavy hair", "curly hair"}]
    colours = [word for tag, word in qualities if word not in shapes]
    both = [_listed(shapes), _listed(colours)]
    between = ", " if len(shapes) > 1 or len(colours) > 1 else " "
    return between.join(words for words in both if words)


def _joined(portrait: str, parts: list[str]) -> str:
    """The noun and what comes with it, with commas behind lists."""
    told = portrait
    for place, part in enumerate(parts):
        told += f" {part}" if place == 0 and not part.endswith("ing") else f", {part}"
    return told


def _listed(words: Iterable[str]) -> str:
    """A, b and c.

    >>> _listed(["a hat", "earrings", "a tie"])
    'a hat, earrings and a tie'
    """
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
