"""The stopping rule of a snapshot: when a search by lists has seen enough.

`chances[s, c]` is the chance that a row is more similar to a query than s when the row's centroid
has nearness c to it, counted over stored faces at build time. While lists are looked into, the
worst neighbour kept so far is known, and so is how many survivors the lists left out hold at each
nearness: their chances add up to the number of neighbours that stopping now should miss. One rule
for every filter: it counts survivors, so few, many, near and far ones are all the same to it.

What number may be missed for a recall that is asked for was measured, too, on held-out faces under
filters of several shares and places (fitting.py), and so was how far estimates err.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from retrieval.values import Floats

DEFAULT_RECALL: Final = 0.95  # of searches that ask for none
ERRORS_SHARE: Final = 0.4  # of what may be missed is left to errors of estimates
ERRORS_SHARE_BEFORE: Final = 0.2  # in snapshots whose promises do not tell errors
PROBED_SURVIVORS_MIN: Final = 2_000  # promises are measured on classes of so many rows and more


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """How often an estimate is too low by more than `errors` times a |q|."""

    chance: float
    errors: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What stopping at an expected share of missed neighbours gave."""

    missed: float  # of the neighbours asked for
    errors: float  # that estimates were allowed, in a |q|
    recall: float  # the lower 95 % bound of the mean, in the worst of all classes of filters


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What work takes on the machine that built the snapshot, in microseconds on one core."""

    question: float  # to code a query
    row_by_code: float
    row_exactly: float  # somewhere in memory
    list_ranked: float
    seen: tuple[tuple[float, float], ...]  # (share of rows that pass, share of them looked at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All of the rule but the table: it stands in the manifest."""

    tails: tuple[Tail, ...]  # by falling chance
    promises: tuple[Promise, ...]  # by falling share missed
    costs: Costs
    pairs: int  # of query and row that the tails were counted over
    rows: int  # that could be found when all this was measured


def measured_of(content: Mapping[str, Any]) -> Measured:
    """What `dataclasses.asdict` made of a value, and JSON of that, as the value again."""
    costs = content["costs"]
    tails = tuple(Tail(**tail) for tail in content["tails"])
    return Measured(
        tails=tails,
        promises=tuple(
            Promise(
                missed=promise["missed"],
                errors=promise.get("errors")
                or errors_for(tails, ERRORS_SHARE_BEFORE * promise["missed"]),
                recall=promise["recall"],
            )
            for promise in content["promises"]
        ),
        costs=Costs(**costs | {"seen": tuple((share, seen) for share, seen in costs["seen"])}),
        pairs=content["pairs"],
        rows=content["rows"],
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """When to stop, and how far to trust an estimate."""

    chances: Floats  # (WORST_STEPS, NEARNESS_STEPS)
    measured: Measured

    def promise_for(self, recall: float) -> Promise | None:
        """The cheapest promise of this recall; None: no share missed gave it."""
        for promise in self.measured.promises:
            if promise.recall >= recall:
                return promise
        return None

    def errors_for(self, chance: float) -> float:
        """How many times a |q| to allow for, so that a row is lost with at most this chance."""
        return errors_for(self.measured.tails, chance)


def errors_for(tails: tuple[Tail, ...], chance: float) -> float:
    """The errors that estimates exceed with at most this chance."""
    for tail in tails:
        if tail.chance <= chance:
            return tail.errors
    return tails[-1].errors
