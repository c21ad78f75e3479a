"""Random filters over random rows, each with what SQL's three-valued logic makes of every row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
WORDS = ("a", "b", "c", "dd", "é")
TAGS = ("hat", "glasses", "Ü")


@dataclass(frozen=True)
class Predicate:
    """A condition, the rows for which it is true, and those for which it is unknown."""

    sql: str
    true: Mask
    unknown: Mask

    def negated(self) -> "Predicate":
        return Predicate(f"NOT ({self.sql})", ~self.true & ~self.unknown, self.unknown)

    def both(self, other: "Predicate") -> "Predicate":
        true = self.true & other.true
        false = (~self.true & ~self.unknown) | (~other.true & ~other.unknown)
        return Predicate(f"({self.sql}) AND ({other.sql})", true, ~true & ~false)

    def either(self, other: "Predicate") -> "Predicate":
        true = self.true | other.true
        false = (~self.true & ~self.unknown) & (~other.true & ~other.unknown)
        return Predicate(f"({self.sql}) OR ({other.sql})", true, ~true & ~false)


class Attributes:
    """Columns of every kind that a filter asks, with NULLs among them."""

    def __init__(self, rows: int, *, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.random = random
        self.rows = rows
        self.known = {name: random.random(rows) < 0.85 for name in ("age", "n", "word", "good")}
        self.age = random.integers(0, 90, rows) / 2
        self.n = random.integers(-1000, 1000, rows)
        self.word = random.integers(0, len(WORDS), rows)
        self.good = random.random(rows) < 0.3
        self.tags = random.random((rows, len(TAGS))) < 0.25

    def columns(self, rows: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
        """The columns of some rows, as the library takes them."""

        def held(name: str, value: Callable[[int], Any]) -> list[Any]:
            return [value(row) if self.known[name][row] else None for row in rows.tolist()]

        return {
            "age": held("age", lambda row: float(self.age[row])),
            "n": held("n", lambda row: int(self.n[row])),
            "word": held("word", lambda row: WORDS[self.word[row]]),
            "good": held("good", lambda row: bool(self.good[row])),
            "tags": [
                [tag for tag, there in zip(TAGS, self.tags[row], strict=True) if there]
                for row in rows.tolist()
            ],
        }

    def predicate(self, depth: int = 3) -> Predicate:
        """A condition of some leaves."""
        draw = self.random.random()
        if depth == 0 or draw < 0.4:
            return self._leaf()
        if draw < 0.5:
            return self.predicate(depth - 1).negated()
        one, other = self.predicate(depth - 1), self.predicate(depth - 1)
        return one.both(other) if draw < 0.75 else one.either(other)

    def _leaf(self) -> Predicate:
        leaves = (self._age, self._between, self._n, self._word, self._good, self._tag, self._null)
        return leaves[self.random.integers(len(leaves))]()

    def _of(self, name: str, sql: str, true: Mask) -> Predicate:
        known = self.known[name]
        return Predicate(sql, true & known, ~known)

    def _age(self) -> Predicate:
        limit = self.random.integers(-1, 91) / 2
        compare = {"<": np.less, ">=": np.greater_equal, "=": np.equal, "<>": np.not_equal}
        sign = list(compare)[self.random.integers(len(compare))]
        return self._of("age", f"age {sign} {limit}", compare[sign](self.age, limit))

    def _between(self) -> Predicate:
        low, high = self.random.integers(0, 90, 2) / 2
        inside = (self.age >= low) & (self.age <= high)
        return self._of("age", f"age BETWEEN {low} AND {high}", inside)

    def _n(self) -> Predicate:
        limit = int(self.random.integers(-1100, 1100))
        if self.random.random() < 0.3:
            chosen = [limit, *self.n[self.random.integers(0, self.rows, 3)].tolist()]
            return self._of("n", f"n IN ({', '.join(map(str, chosen))})", np.isin(self.n, chosen))
        return self._of("n", f"n > {limit}", self.n > limit)

    def _word(self) -> Predicate:
        place = int(self.random.integers(len(WORDS)))
        return self._of("word", f"word = '{WORDS[place]}'", self.word == place)

    def _good(self) -> Predicate:
        return self._of("good", "good", self.good)

    def _tag(self) -> Predicate:
        place = int(self.random.integers(len(TAGS)))
        none = np.zeros(self.rows, np.bool_)
        return Predicate(f"'{TAGS[place]}' = ANY(tags)", self.tags[:, place], none)

    def _null(self) -> Predicate:
        name = list(self.known)[self.random.integers(len(self.known))]
        none = np.zeros(self.rows, np.bool_)
        return Predicate(f"{name} IS NULL", ~self.known[name], none)
