"""Declared rules of a data set: which faces stay, and which rule let each of the others go.

Rules are read from TOML, and carried out in the order in which they stand there: each sees the
faces that are still there, and a face goes by the first rule that it fails. So the faces that came
in are those that stayed and those of each rule, and what a rule counts (the faces of a picture, the
best of a person) it counts among those that the rules before it left.

What is not known passes no rule, as in every filter: a face without a picture takes no share of
one. Only a rule that chooses the best of many leaves alone what belongs to nothing.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, assert_never

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

KEPT: Final = -1  # instead of the number of a rule
NOTHING: Final = -1  # no picture, no person, no track
RULES_MAX: Final = 1_000


class Measure(StrEnum):
    """What a rule may hold between two bounds."""

    AREA_SHARE = "area_share"  # of the picture, that the face's box covers
    SIZE_PX = "size_px"
    QUALITY = "quality"
    IMAGE_SIDE_PX = "image_side_px"  # the shorter one
    FACES_PER_IMAGE = "faces_per_image"
    FACES_PER_PERSON = "faces_per_person"


class Group(StrEnum):
    """Of what a rule keeps the best."""

    TRACK = "best_per_track"
    PERSON = "best_per_person"
    IMAGE = "best_per_image"


@dataclass(frozen=True, slots=True)
class Where:
    """A filter has to pass, as `--where` takes it."""

    filter: str


@dataclass(frozen=True, slots=True)
class Told:
    """A caption of the face has to hold words, as web searches ask for them."""

    words: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """A measure lies between two bounds, both included."""

    measure: Measure
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Best:
    """Only so many of each group stay: those of the highest quality, then the largest ones."""

    of: Group
    count: int


@dataclass(frozen=True, slots=True)
class NoDuplicate:
    """What `facedex dedup --apply` marked goes."""


Test = Where | Told | Bounds | Best | NoDuplicate


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule with its name."""

    name: str
    test: Test
    whole_image: bool = False  # a picture goes with all its faces where one of them fails


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Facts:
    """What rules ask about; n faces by number everywhere."""

    faces: Numbers  # (n,) ascending
    images: Numbers  # (n,) NOTHING where it came without
    persons: Numbers  # (n,) NOTHING where unknown
    tracks: Numbers  # (n,) numbered; NOTHING where it is in none
    measures: Mapping[Measure, Doubles]  # (n,) NaN where unknown; of those that are of one face
    duplicate: Mask  # (n,) marked
    passing: Mapping[int, Mask]  # number of a rule -> (n,); of those that the store answers

    def __len__(self) -> int:
        return len(self.faces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What one rule did: `came` is `dropped` and `left` together."""

    rule: str
    came: int
    dropped: int
    left: int


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Applied:
    """What became of each face."""

    fates: npt.NDArray[np.int16]  # (n,) number of the rule that it failed first, or KEPT
    counts: tuple[Count, ...]

    @property
    def kept(self) -> Mask:
        """(n,) those that passed all rules."""
        kept: Mask = self.fates == KEPT
        return kept


def applied(rules: Sequence[Rule], facts: Facts) -> Applied:
    """Carry rules out in their order."""
    fates = np.full(len(facts), KEPT, np.int16)
    left = np.arange(len(facts))
    counts = []
    for number, rule in enumerate(rules):
        passing = _passing(rule.test, facts, left, number)
        if rule.whole_image:
            passing = _by_image(passing, facts.images[left])
        fates[left[~passing]] = number
        kept = left[passing]
        dropped = len(left) - len(kept)
        counts.append(Count(rule=rule.name, came=len(left), dropped=dropped, left=len(kept)))
        left = kept
    return Applied(fates=fates, counts=tuple(counts))


def _passing(test: Test, facts: Facts, left: Numbers, number: int) -> Mask:
    """Which of the faces that are left pass, (len(left),)."""
    match test:
        case Where() | Told():
            return facts.passing[number][left]
        case NoDuplicate():
            return ~facts.duplicate[left]
        case Bounds(Measure.FACES_PER_IMAGE, least, most):
            return _between(_sizes(facts.images[left]), least, most)
        case Bounds(Measure.FACES_PER_PERSON, least, most):
            return _between(_sizes(facts.persons[left]), least, most)
        case Bounds(measure, least, most):
            return _between(facts.measures[measure][left], least, most)
        case Best(of, count):
            return _best(_groups(of, facts)[left], facts, left, count)
        case _:
            assert_never(test)


def _groups(of: Group, facts: Facts) -> Numbers:
    return {Group.TRACK: facts.tracks, Group.PERSON: facts.persons, Group.IMAGE: facts.images}[of]


def _between(values: Doubles, least: float, most: float) -> Mask:
    inside: Mask = (values >= least) & (values <= most)  # NaN is neither
    return inside


def _sizes(groups: Numbers) -> Doubles:
    """How many rows have the same number, (n,); NaN for those in no group."""
    _, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return np.where(groups == NOTHING, np.nan, counts[places])


def _by_image(passing: Mask, images: Numbers) -> Mask:
    """The same, but no face of a picture passes where one of them fails."""
    failing = np.unique(images[~passing & (images != NOTHING)])
    untorn: Mask = passing & ~np.isin(images, failing)
    return untorn


def _best(groups: Numbers, facts: Facts, left: Numbers, count: int) -> Mask:
    """The first `count` of each group by quality, size and number; and all that are in none."""
    quality, size = (
        np.nan_to_num(facts.measures[of][left], nan=-np.inf)
        for of in (Measure.QUALITY, Measure.SIZE_PX)
    )
    order = np.lexsort((facts.faces[left], -size, -quality, groups))
    ordered = groups[order]
    firsts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    ranks = np.arange(len(order)) - np.repeat(firsts, np.diff(np.append(firsts, len(order))))
    passing = np.empty(len(order), np.bool_)
    passing[order] = (ranks < count) | (ordered == NOTHING)
    return passing


# --- reading -------------------------------------------------------------------------------------

_OF_RULE: Final = ("name", "whole_image")
_TESTS: Final = (
    *("where", "captions", "duplicates"),
    *(str(one) for one in Measure),
    *(str(one) for one in Group),
)


def read_rules(written: str) -> tuple[Rule, ...]:
    """The rules of a TOML file: a list of tables `[[rule]]`, each with a name and one test.

    >>> read_rules('''
    ... [[rule]]
    ... name = "alone"
    ... faces_per_image = 1
    ...
    ... [[rule]]
    ... name = "close"
    ... area_share = {min = 0.04}
    ... ''')[1].test
    Bounds(measure=<Measure.AREA_SHARE: 'area_share'>, least=0.04, most=inf)

    Raises:
        UsageError: it is no TOML, or something in it is no rule.
    """
    try:
        read = tomllib.loads(written)
    except tomllib.TOMLDecodeError as cause:
        raise UsageError(f"the rules are no TOML: {cause}") from cause
    listed = read.pop("rule", None)
    if read:
        raise UsageError(f"'{next(iter(read))}' is no part of a rule file; it holds [[rule]] only")
    if not isinstance(listed, list) or not listed:
        raise UsageError("there is no rule: begin each with [[rule]], a name and a test")
    if len(listed) > RULES_MAX:
        raise UsageError(f"{len(listed):,} rules; at most {RULES_MAX:,} are carried out")
    rules = tuple(_rule(one, place) for place, one in enumerate(listed, start=1))
    _require_different([one.name for one in rules])
    return rules


def _rule(read: Any, place: int) -> Rule:
    if not isinstance(read, dict):
        raise UsageError(f"rule {place} is no table: write [[rule]] above it")
    name = read.get("name")
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f'rule {place} has no name: name = "..."')
    tests = [key for key in read if key not in _OF_RULE]
    for key in tests:
        if key not in _TESTS:
            raise UsageError(f"rule '{name}': {_unknown(key)}")
    if len(tests) != 1:
        raise UsageError(f"rule '{name}' has {len(tests)} tests; give one of {', '.join(_TESTS)}")
    whole = read.get("whole_image", False)
    if not isinstance(whole, bool):
        raise UsageError(f"rule '{name}': whole_image is true or false")
    return Rule(name=name, test=_test(name, tests[0], read[tests[0]]), whole_image=whole)


def _test(name: str, key: str, value: Any) -> Test:
    if key in ("where", "captions"):
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"rule '{name}': {key} is text")
        return Where(value) if key == "where" else Told(value)
    if key == "duplicates":
        if value is not False:
            raise UsageError(f"rule '{name}': duplicates = false lets go what was marked")
        return NoDuplicate()
    if key in set(Group):
        if not _is_count(value):
            raise UsageError(f"rule '{name}': {key} is a whole number, at least 1")
        return Best(Group(key), value)
    return _bounds(name, Measure(key), value)


def _bounds(name: str, measure: Measure, value: Any) -> Bounds:
    counted = measure in (Measure.FACES_PER_IMAGE, Measure.FACES_PER_PERSON)
    if counted and _is_count(value):
        return Bounds(measure, value, value)
    given = value if isinstance(value, dict) else {}
    known = set(given) <= {"min", "max"} and all(map(_is_number, given.values()))
    if not given or not known:
        exactly = ", or a whole number" if counted else ""
        raise UsageError(f"rule '{name}': {measure} is {{min = ..., max = ...}}{exactly}")
    least, most = float(given.get("min", -np.inf)), float(given.get("max", np.inf))
    if least > most:
        raise UsageError(f"rule '{name}': min is above max, so that no face passes")
    return Bounds(measure, least, most)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)


def _unknown(key: str) -> str:
    close = difflib.get_close_matches(key, _TESTS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_TESTS)}"
    return f"'{key}' is no test; {hint}"


def _require_different(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"two rules are called '{name}': the report tells them by their names")
        seen.add(name)
