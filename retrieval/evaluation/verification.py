"""All pairs of a collection: how well one picture tells who is on another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from retrieval.errors import UsageError
from retrieval.evaluation.curves import FMRS, Curve, carried, drawn_curve, whole_curve
from retrieval.evaluation.pairs import PairScores, Progress, score_pairs, threshold_of
from retrieval.evaluation.resampling import (
    REPLICATES,
    Doubles,
    Measure,
    draws,
    measured,
    require_persons,
)
from retrieval.store.labelled import Labelled

DRAWN_EVERY: Final = 50  # bins: bands are kept in steps of .005


@dataclass(frozen=True, slots=True, kw_only=True)
class AtFmr:
    """What is accepted at an asked FMR."""

    fmr: float
    threshold: float
    tar: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Pointwise intervals of a curve, at every DRAWN_EVERY-th threshold, (t,) each."""

    fmr_low: Doubles
    fmr_high: Doubles
    fnmr_low: Doubles
    fnmr_high: Doubles


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """Error rates over all pairs, each with its 95 % person-bootstrap interval."""

    persons: int
    faces: int
    genuine: int
    impostors: int
    auc: Measure
    eer: Measure
    at_fmr: tuple[AtFmr, ...]  # those that the data carry
    not_carried: tuple[float, ...]  # asked FMRs with fewer than 30 matches
    curve: Curve
    band: Band


def verify_all(
    labelled: Labelled,
    *,
    fmrs: Sequence[float] = FMRS,
    seed: int = 0,
    replicates: int = REPLICATES,
    progress: Progress = lambda *_: None,
) -> VerificationReport:
    """Compare all faces with one another.

    Raises:
        UsageError: fewer than 10 persons have two faces, or an FMR is not above 0 and below 1.
    """
    for fmr in fmrs:
        if not 0 < fmr < 1:
            raise UsageError(f"an FMR of {fmr} was asked for; it lies between 0 and 1")
    persons, numbers = np.unique(labelled.persons, return_inverse=True)
    require_persons(np.bincount(numbers))
    scores = score_pairs(labelled.vectors, numbers, count=len(persons), progress=progress)
    asked = carried(fmrs, int(scores.impostors.sum()))
    return _report(scores, asked, fmrs=fmrs, seed=seed, replicates=replicates, progress=progress)


def _report(
    scores: PairScores,
    asked: Sequence[float],
    *,
    fmrs: Sequence[float],
    seed: int,
    replicates: int,
    progress: Progress,
) -> VerificationReport:
    whole = whole_curve(scores)
    figures, fmr, fnmr = _drawn(
        scores, whole, asked, seed=seed, replicates=replicates, progress=progress
    )
    return VerificationReport(
        persons=len(scores.faces),
        faces=int(scores.faces.sum()),
        genuine=len(scores.genuine),
        impostors=int(scores.impostors.sum()),
        auc=measured(whole.auc, figures[:, 0]),
        eer=measured(whole.eer, figures[:, 1]),
        at_fmr=tuple(
            AtFmr(
                fmr=one,
                threshold=threshold_of(whole.bin_at(one)),
                tar=measured(whole.tar_at(one), figures[:, 2 + place]),
            )
            for place, one in enumerate(asked)
        ),
        not_carried=tuple(one for one in fmrs if one not in asked),
        curve=whole,
        band=_band(fmr, fnmr),
    )


def _drawn(
    scores: PairScores,
    whole: Curve,
    asked: Sequence[float],
    *,
    seed: int,
    replicates: int,
    progress: Progress,
) -> tuple[Doubles, Doubles, Doubles]:
    """AUC, EER and the TARs of each draw, and its FMR and FNMR at some thresholds."""
    figures, fmr, fnmr = [], [], []
    for step, weights in enumerate(draws(len(scores.faces), seed=seed, count=replicates)):
        drawn = drawn_curve(scores, weights, whole=whole)
        figures.append([drawn.auc, drawn.eer, *map(drawn.tar_at, asked)])
        fmr.append(drawn.fmr[::DRAWN_EVERY])
        fnmr.append(drawn.fnmr[::DRAWN_EVERY])
        progress(step + 1, replicates)
    return np.array(figures), np.array(fmr), np.array(fnmr)


def _band(fmr: Doubles, fnmr: Doubles) -> Band:
    ends = [0.025, 0.975]
    fmr_low, fmr_high = np.nanquantile(fmr, ends, axis=0)
    fnmr_low, fnmr_high = np.nanquantile(fnmr, ends, axis=0)
    return Band(fmr_low=fmr_low, fmr_high=fmr_high, fnmr_low=fnmr_low, fnmr_high=fnmr_high)
