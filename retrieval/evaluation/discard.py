"""Errors against discard: what is gained by leaving the worst pictures out.

The threshold stays that of the whole at an asked FMR, as in ISO/IEC 29794-1: so the curve falls
only where a low quality foretells a miss. A quality that tells nothing leaves it flat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from retrieval.errors import UsageError
from retrieval.evaluation.curves import MATCHES_MIN, whole_curve
from retrieval.evaluation.pairs import Ints, PairScores, Progress, score_pairs, threshold_of
from retrieval.evaluation.resampling import (
    REPLICATES,
    Doubles,
    Measure,
    draws,
    measured,
    require_persons,
)
from retrieval.store.labelled import Labelled
from retrieval.values import UnitRows

SHARES: Final = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
DEFAULT_FMR: Final = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """What is left when a share of the faces is left out."""

    share: float
    quality_min: float  # faces below it are left out
    faces: int
    genuine: int
    fnmr: Measure
    change: Measure | None  # of FNMR against the whole; None for the whole itself


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardReport:
    """FNMR at one threshold by share of faces left out."""

    fmr: float
    threshold: float
    without_quality: int  # faces of unknown quality: not among these
    shares: tuple[Discarded, ...]


def discard_worst(
    labelled: Labelled,
    *,
    fmr: float = DEFAULT_FMR,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    replicates: int = REPLICATES,
    progress: Progress = lambda *_: None,
) -> DiscardReport:
    """Leave ever more of the worst faces out.

    Raises:
        UsageError: faces have no quality, too few persons have two faces, or the impostor pairs do
            not carry the FMR.
    """
    known = np.flatnonzero(~np.isnan(labelled.quality))
    if not len(known):
        raise UsageError(
            "no face has a quality: ingested pictures get one, imported vectors bring it"
        )
    persons, numbers = np.unique(labelled.persons[known], return_inverse=True)
    require_persons(np.bincount(numbers))
    vectors = UnitRows(labelled.vectors[known])
    scores = score_pairs(vectors, numbers, count=len(persons), progress=progress)
    if not MATCHES_MIN <= fmr * scores.impostors.sum() < scores.impostors.sum():
        raise UsageError(
            f"{scores.impostors.sum()} impostor pairs do not carry an FMR of {fmr:g}: ask for one"
            f" at which at least {MATCHES_MIN} of them match"
        )
    bin_ = whole_curve(scores).bin_at(fmr)
    quality = labelled.quality[known]
    parts = [_part(scores, quality, share, bin_=bin_) for share in shares]
    drawn = np.array(
        [
            [part.fnmr(weights) for part in parts]
            for weights in draws(len(persons), seed=seed, count=replicates)
        ]
    )
    return DiscardReport(
        fmr=fmr,
        threshold=threshold_of(bin_),
        without_quality=len(labelled) - len(known),
        shares=tuple(_discarded(parts, drawn, place) for place in range(len(parts))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The faces that are left."""

    share: float
    quality_min: float
    faces: int
    pairs: Ints  # (p,) genuine ones of each person
    misses: Ints  # (p,) those below the threshold

    def fnmr(self, weights: Doubles) -> float:
        """FNMR of one draw of persons; NaN where nobody with a pair was drawn."""
        with np.errstate(invalid="ignore"):
            return float((weights @ self.misses) / (weights @ self.pairs))


def _part(scores: PairScores, quality: Doubles, share: float, *, bin_: int) -> Part:
    floor = float(np.sort(quality)[int(share * len(quality))])
    genuine = scores.genuine
    left = np.minimum(quality[genuine.one], quality[genuine.other]) >= floor
    if not left.any():
        raise UsageError(f"no person has two faces when {share:.0%} of all are left out")
    who, missed = genuine.persons[left], genuine.bins[left] < bin_
    return Part(
        share=share,
        quality_min=floor,
        faces=int((quality >= floor).sum()),
        pairs=np.bincount(who, minlength=len(scores.faces)),
        misses=np.bincount(who[missed], minlength=len(scores.faces)),
    )


def _discarded(parts: Sequence[Part], drawn: Doubles, place: int) -> Discarded:
    """One share against the first, which leaves nothing out; `drawn` is (b, parts)."""
    part, everybody = parts[place], np.ones(len(parts[0].pairs))
    fnmr, whole = part.fnmr(everybody), parts[0].fnmr(everybody)
    return Discarded(
        share=part.share,
        quality_min=part.quality_min,
        faces=part.faces,
        genuine=int(part.pairs.sum()),
        fnmr=measured(fnmr, drawn[:, place]),
        change=measured(fnmr - whole, drawn[:, place] - drawn[:, 0]) if place else None,
    )
