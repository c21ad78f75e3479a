"""Error rates by group of people, and how far they lie apart (after ISO/IEC 19795-10).

All groups are judged at one threshold. A group's FMR is that of impostor pairs within it (two men,
two women): between groups people resemble each other less, which would flatter every group. The
whole is the pairs of all groups together. Ratios say how many times more often one group errs than
another; every draw of persons gives all rates at once, so what groups share cancels out.

The worst and the best group are chosen after looking, so their ratio's interval holds for all pairs
of groups at once (Bonferroni): with two groups it is the plain one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.evaluation.curves import impostor_pairs
from retrieval.evaluation.pairs import BINS, Progress, bin_of_threshold, score_pairs, threshold_of
from retrieval.evaluation.resampling import (
    LEVEL,
    REPLICATES,
    Doubles,
    Measure,
    draws,
    measured,
)
from retrieval.store.labelled import Labelled
from retrieval.values import UnitRows

Ints = npt.NDArray[np.int64]

GROUP_PERSONS_MIN: Final = 30
GROUP_PAIRS_MIN: Final = 300  # of each kind; a rate of 1 % is then seen three times
DEFAULT_FMR: Final = 1e-3
ERRORS_MIN: Final = 10  # in both groups; a ratio to fewer has an interval of a decade


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReport:
    """One group, or all together."""

    name: str
    persons: int
    genuine: int
    impostors: int
    false_matches: int
    false_non_matches: int
    fmr: Measure
    fnmr: Measure
    fmr_ratio: Measure | None  # to the whole; None: too few errors
    fnmr_ratio: Measure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Differential:
    """The group that errs most against the one that errs least."""

    worst: str
    best: str
    ratio: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupsReport:
    """Error rates of all groups at one threshold."""

    threshold: float
    whole: GroupReport
    groups: tuple[GroupReport, ...]
    refused: tuple[str, ...]  # why each group that is missing is missing
    without_group: int  # faces whose group is unknown
    fmr_differential: Differential | None  # None: one group, or one with too few errors
    fnmr_differential: Differential | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """The errors of one group at the threshold, by person."""

    faces: Ints  # (p,) of each person, in this group
    pairs: Ints  # (p,) genuine ones
    missed: Ints  # (p,) genuine ones below the threshold
    one: npt.NDArray[np.int32]  # (m,) false matches: between whom
    other: npt.NDArray[np.int32]

    def counts(self, weights: Doubles) -> Doubles:
        """False matches, impostor pairs, false non-matches, genuine pairs of one draw, (4,)."""
        return np.array(
            [
                weights[self.one] @ weights[self.other],
                impostor_pairs(self.faces, weights),
                weights @ self.missed,
                weights @ self.pairs,
            ]
        )


def compare_groups(
    labelled: Labelled,
    *,
    threshold: float | None = None,
    fmr: float = DEFAULT_FMR,
    persons_min: int = GROUP_PERSONS_MIN,
    pairs_min: int = GROUP_PAIRS_MIN,
    seed: int = 0,
    replicates: int = REPLICATES,
    progress: Progress = lambda *_: None,
) -> GroupsReport:
    """Judge all groups at one threshold.

    The threshold is a similarity; without one, the lowest with at most `fmr` over the whole.

    Raises:
        UsageError: no group is large enough; the message says why for each.
    """
    if not 0 < fmr < 1 or not -1 <= (threshold or 0.0) <= 1:
        raise UsageError("an FMR lies between 0 and 1, a threshold between -1 and 1")
    names, refused = _large_enough(labelled, persons_min=persons_min, pairs_min=pairs_min)
    if not names:
        raise UsageError("no group is large enough: " + "; ".join(refused or ["none is known"]))
    persons, numbers = np.unique(labelled.persons, return_inverse=True)
    of_face = np.array(labelled.groups, dtype=object)
    parts = {name: np.flatnonzero(of_face == name) for name in names}
    bin_ = (
        _common_bin(labelled, numbers, list(parts.values()), fmr=fmr)
        if threshold is None
        else bin_of_threshold(threshold)
    )
    errors = {}
    for step, (name, rows) in enumerate(parts.items()):
        errors[name] = _errors(labelled, rows, numbers, count=len(persons), bin_=bin_)
        progress(step + 1, len(parts))
    drawn = [
        np.array([one.counts(weights) for one in errors.values()])
        for weights in draws(len(persons), seed=seed, count=replicates)
    ]
    found = np.array([one.counts(np.ones(len(persons))) for one in errors.values()])
    return _report(
        errors,
        found,
        np.array(drawn),
        threshold=threshold_of(bin_),
        refused=refused,
        without_group=int((of_face == None).sum()),  # noqa: E711  (element by element)
    )


def _large_enough(
    labelled: Labelled, *, persons_min: int, pairs_min: int
) -> tuple[list[str], tuple[str, ...]]:
    """The groups that may be judged, and why each other one may not."""
    of_face = np.array(labelled.groups, dtype=object)
    names, refused = [], []
    for name in sorted({group for group in labelled.groups if group is not None}):
        faces = np.unique(labelled.persons[of_face == name], return_counts=True)[1]
        genuine = int((faces * (faces - 1) // 2).sum())
        impostors = int(impostor_pairs(faces, np.ones(len(faces))))
        if len(faces) >= persons_min and min(genuine, impostors) >= pairs_min:
            names.append(name)
            continue
        refused.append(
            f"group '{name}' has {len(faces)} persons, {genuine} genuine and {impostors} impostor"
            f" pairs; it needs {persons_min} persons and {pairs_min} pairs of each kind"
        )
    return names, tuple(refused)


def _common_bin(labelled: Labelled, numbers: Ints, parts: Sequence[Ints], *, fmr: float) -> int:
    """The lowest threshold with at most this FMR over the impostor pairs within all groups."""
    counts = np.zeros(BINS, np.int64)
    for rows in parts:
        scores = score_pairs(
            UnitRows(labelled.vectors[rows]),
            numbers[rows],
            count=int(numbers.max()) + 1,
            floor=BINS,
        )
        counts += scores.impostors
    above = np.append(counts[::-1].cumsum()[::-1], 0)
    return int(np.argmax(above <= fmr * counts.sum()))


def _errors(labelled: Labelled, rows: Ints, numbers: Ints, *, count: int, bin_: int) -> Errors:
    scores = score_pairs(UnitRows(labelled.vectors[rows]), numbers[rows], count=count, floor=bin_)
    missed = scores.genuine.persons[scores.genuine.bins < bin_]
    return Errors(
        faces=scores.faces,
        pairs=scores.faces * (scores.faces - 1) // 2,
        missed=np.bincount(missed, minlength=count),
        one=scores.kept.one,
        other=scores.kept.other,
    )


def _report(
    errors: Mapping[str, Errors],
    found: Doubles,
    drawn: Doubles,
    *,
    threshold: float,
    refused: tuple[str, ...],
    without_group: int,
) -> GroupsReport:
    """Counts of all groups, (g, 4), and of each draw, (b, g, 4), as rates and ratios."""
    everyone = sum((one.faces > 0).astype(np.int64) for one in errors.values())
    whole = found.sum(axis=0), drawn.sum(axis=1)
    names = list(errors)
    return GroupsReport(
        threshold=threshold,
        whole=_group("all", int(np.count_nonzero(everyone)), *whole, whole=None),
        groups=tuple(
            _group(name, int((one.faces > 0).sum()), found[place], drawn[:, place], whole=whole)
            for place, (name, one) in enumerate(errors.items())
        ),
        refused=refused,
        without_group=without_group,
        fmr_differential=_differential(names, found[:, :2], drawn[:, :, :2]),
        fnmr_differential=_differential(names, found[:, 2:], drawn[:, :, 2:]),
    )


def _group(
    name: str,
    persons: int,
    found: Doubles,
    drawn: Doubles,
    *,
    whole: tuple[Doubles, Doubles] | None,
) -> GroupReport:
    matches, impostors, misses, genuine = found.astype(int).tolist()
    with np.errstate(invalid="ignore", divide="ignore"):
        fmrs, fnmrs = drawn[:, 0] / drawn[:, 1], drawn[:, 2] / drawn[:, 3]
    return GroupReport(
        name=name,
        persons=persons,
        genuine=genuine,
        impostors=impostors,
        false_matches=matches,
        false_non_matches=misses,
        fmr=measured(matches / impostors, fmrs),
        fnmr=measured(misses / genuine, fnmrs),
        fmr_ratio=None if whole is None else _to_whole(found, drawn, whole, slice(0, 2)),
        fnmr_ratio=None if whole is None else _to_whole(found, drawn, whole, slice(2, 4)),
    )


def _to_whole(
    found: Doubles, drawn: Doubles, whole: tuple[Doubles, Doubles], kind: slice
) -> Measure | None:
    return _ratio((found[kind], drawn[:, kind]), (whole[0][kind], whole[1][:, kind]), level=LEVEL)


def _differential(names: Sequence[str], found: Doubles, drawn: Doubles) -> Differential | None:
    """The worst against the best, from errors and pairs: (g, 2), and (b, g, 2) of the draws."""
    if len(names) < 2:  # noqa: PLR2004
        return None
    rates = found[:, 0] / found[:, 1]
    order = np.argsort(rates)  # of equal rates too it gives two groups
    worst, best = int(order[-1]), int(order[0])
    comparisons = len(names) * (len(names) - 1) // 2
    ratio = _ratio(
        (found[worst], drawn[:, worst]),
        (found[best], drawn[:, best]),
        level=1 - (1 - LEVEL) / comparisons,
    )
    if ratio is None:
        return None
    return Differential(worst=names[worst], best=names[best], ratio=ratio)


def _ratio(
    one: tuple[Doubles, Doubles], other: tuple[Doubles, Doubles], *, level: float
) -> Measure | None:
    """The ratio of two rates, each given as errors and pairs: (2,), and (b, 2) of the draws."""
    if min(one[0][0], other[0][0]) < ERRORS_MIN:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = one[1][:, 0] / one[1][:, 1] / (other[1][:, 0] / other[1][:, 1])
    value = float(one[0][0] / one[0][1] / (other[0][0] / other[0][1]))
    return measured(value, drawn, level=level)
