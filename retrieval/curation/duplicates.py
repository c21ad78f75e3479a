"""Which of some things are one, and which one of those to keep.

Candidates are joined where they prove alike; of what hangs together, the best is kept, and those
that prove like it are dropped. What is only like something that is dropped is looked at again,
without it. So each thing that is dropped was compared with the one that stays, and a chain of small
steps, as through the frames of a video, ends where the last frame is no copy of the first.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final, Generic, TypeVar

QUALITY_STEP: Final = 0.1  # less is noise: encoding a picture anew changes its quality, too
Evidence = TypeVar("Evidence")


class Level(StrEnum):
    """Of what duplicates are looked for."""

    IMAGE = "image"
    FACE = "face"
    PERSON = "person"
    TRACK = "track"


class Decision(StrEnum):
    """What is to become of a member of a group."""

    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Star(Generic[Evidence]):
    """One thing that is kept, and those that are the same."""

    kept: int
    dropped: tuple[tuple[int, Evidence], ...]  # with how they are like the kept one; best first


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What decides which of several copies is kept: the highest `rank`."""

    number: int  # of the picture or face
    source: str | None
    quality: float | None
    pixels: int  # of the picture

    def rank(self, preferred: Sequence[str]) -> tuple[int, int, int, int]:
        """Source in the order given, quality in steps, pixels, and who came first.

        Bytes say nothing: a copy may be encoded better than what it was made of.

        >>> small = Worth(number=1, source="web", quality=0.71, pixels=100)
        >>> large = Worth(number=2, source=None, quality=0.70, pixels=400)
        >>> large.rank([]) > small.rank([]), large.rank(["web"]) > small.rank(["web"])
        (True, False)
        """
        place = preferred.index(self.source) if self.source in preferred else len(preferred)
        quality = -1 if self.quality is None else round(self.quality / QUALITY_STEP)
        return (-place, quality, self.pixels, -self.number)


def stars(
    best_first: Sequence[int],
    candidates: Iterable[tuple[int, int]],
    compare: Callable[[int, int], Evidence | None],
) -> list[Star[Evidence]]:
    """Group what proves alike, by the number of the kept one.

    Args:
        best_first: everything there is; of two alike, the former is kept.
        candidates: pairs that are worth comparing.
        compare: how the second is like the first, or None where it is not; asked (better, worse).

    >>> near = lambda one, other: abs(one - other) if abs(one - other) <= 2 else None
    >>> stars([5, 6, 3, 4, 1, 9], [(1, 3), (3, 5), (6, 5), (9, 6)], near)
    [Star(kept=5, dropped=((6, 1), (3, 2)))]
    """
    places = {one: place for place, one in enumerate(best_first)}
    compared = cache(compare)
    joined = Joined()
    for pair in candidates:
        if not joined.same(*pair):
            better, worse = sorted(pair, key=places.__getitem__)
            if compared(better, worse) is not None:
                joined.join(better, worse)
    found: list[Star[Evidence]] = []
    for component in joined.components():
        found += _stars_of(sorted(component, key=places.__getitem__), compared)
    return sorted(found, key=lambda star: star.kept)


def _stars_of(
    best_first: list[int], compare: Callable[[int, int], Evidence | None]
) -> Iterator[Star[Evidence]]:
    left = best_first
    while len(left) > 1:
        best, *others = left
        like = [(one, how) for one in others if (how := compare(best, one)) is not None]
        if like:
            yield Star(kept=best, dropped=tuple(like))
        gone = {one for one, _ in like}
        left = [one for one in others if one not in gone]


class Joined:
    """Numbers, some of which hang together."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def same(self, one: int, other: int) -> bool:
        """Whether two hang together."""
        return self._top(one) == self._top(other)

    def join(self, one: int, other: int) -> None:
        """Let two hang together."""
        low, high = sorted((self._top(one), self._top(other)))
        self._above[high] = low

    def components(self) -> list[list[int]]:
        """What hangs together, two or more each, ascending."""
        by_top: dict[int, list[int]] = {}
        for one in sorted(self._above):
            by_top.setdefault(self._top(one), []).append(one)
        return [[top, *others] for top, others in sorted(by_top.items())]

    def _top(self, one: int) -> int:
        above = self._above
        while one in above:
            above[one] = above.get(above[one], above[one])
            one = above[one]
        return one
