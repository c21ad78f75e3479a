"""FMR and FNMR at every threshold, and what is read off them: AUC, EER, TAR at an FMR.

Everything is counted in the bins of `pairs.py`: a threshold is where a bin begins, and a pair
matches when its similarity is in that bin or above. A rate below 30 errors is not given (the rule
of 30, Doddington 1998): the data do not carry it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.evaluation.pairs import BINS, BINS_A_UNIT, PairScores
from retrieval.evaluation.resampling import Doubles

MATCHES_MIN: Final = 30
FMRS: Final = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
THRESHOLDS: Final[Doubles] = np.arange(BINS + 1) / BINS_A_UNIT - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Error rates by threshold; entry k is for the threshold at which bin k begins."""

    fmr: Doubles  # (BINS + 1,) descending, ends with 0
    fnmr: Doubles  # (BINS + 1,) ascending, ends with 1

    def bin_at(self, fmr: float) -> int:
        """The lowest threshold with at most this FMR."""
        return int(np.searchsorted(-self.fmr, -fmr))

    def tar_at(self, fmr: float) -> float:
        """Share of genuine pairs accepted at the lowest threshold with at most this FMR."""
        return 1 - float(self.fnmr[self.bin_at(fmr)])

    @property
    def auc(self) -> float:
        """Chance that a genuine pair is more alike than an impostor pair; a tie counts half."""
        impostors_below = 1 - (self.fmr[:-1] + self.fmr[1:]) / 2
        return float(np.diff(self.fnmr) @ impostors_below)

    @property
    def eer(self) -> float:
        """Where FMR and FNMR are equal, between two thresholds by a straight line."""
        gap = self.fnmr - self.fmr
        after = int(np.argmax(gap >= 0))
        if after == 0:
            return float(self.fmr[0] + self.fnmr[0]) / 2
        share = gap[after] / (gap[after] - gap[after - 1])
        return float(self.fnmr[after] - share * (self.fnmr[after] - self.fnmr[after - 1]))


def curve_of(genuine: npt.NDArray[np.generic], impostor: npt.NDArray[np.generic]) -> Curve:
    """The curve of two histograms, (BINS,) each, counted or weighted.

    A draw without a genuine, or without an impostor pair has NaN for the rate that it cannot tell.
    """
    with np.errstate(invalid="ignore"):
        above = _above(impostor) / impostor.sum()
        return Curve(fmr=above, fnmr=1 - _above(genuine) / genuine.sum())


def whole_curve(scores: PairScores) -> Curve:
    """The curve of the faces as they are."""
    return curve_of(np.bincount(scores.genuine.bins, minlength=BINS), scores.impostors)


def drawn_curve(scores: PairScores, weights: Doubles, *, whole: Curve) -> Curve:
    """The curve of one draw of persons.

    Below the kept impostor pairs, FMR is that of the whole: there it is high, and so many pairs
    make it that draws differ by little. `weights`, (p,), say how often each person is drawn.
    """
    kept, genuine = scores.kept, scores.genuine
    counted = np.bincount(kept.bins, weights[kept.one] * weights[kept.other], minlength=BINS)
    with np.errstate(invalid="ignore", divide="ignore"):
        fmr = _above(counted) / impostor_pairs(scores.faces, weights)
        own = np.bincount(genuine.bins, weights[genuine.persons], minlength=BINS)
        fnmr = 1 - _above(own) / own.sum()
    below = slice(0, scores.floor)
    fmr[below] = np.maximum(whole.fmr[below], fmr[scores.floor])
    return Curve(fmr=fmr, fnmr=fnmr)


def impostor_pairs(faces: npt.NDArray[np.int64], weights: Doubles) -> float:
    """How many pairs of faces of two persons a draw has, from the faces of each person.

    >>> impostor_pairs(np.array([2, 3]), np.array([1.0, 1.0]))
    6.0
    """
    drawn = weights * faces
    return float(drawn.sum() ** 2 - (drawn**2).sum()) / 2


def carried(fmrs: Sequence[float], impostors: int) -> list[float]:
    """The error rates at which so many impostor pairs make MATCHES_MIN matches."""
    return [fmr for fmr in fmrs if fmr * impostors >= MATCHES_MIN]


def key_of(rate: float) -> str:
    """A rate as part of a name.

    >>> key_of(1e-4), key_of(0.05)
    ('1e_4', '5e_2')
    """
    return f"{rate:.0e}".replace("e-0", "e_").replace("e-", "e_")


def _above(counts: npt.NDArray[np.generic]) -> Doubles:
    """The counts of this bin and above, (BINS + 1,)."""
    summed = counts[::-1].astype(np.float64).cumsum()[::-1]
    return np.append(summed, 0.0)
