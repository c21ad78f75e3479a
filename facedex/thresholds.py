"""How alike two identities must be to be taken for one, where many are compared with many.

Asked is the share of searches for strangers that may find somebody (FPIR), as `identify` takes it:
among a million persons more must be asked of a similarity than among ten.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import CalibrationMissingError, UsageError
from retrieval.people.calibration import Calibration, Tail

Doubles = npt.NDArray[np.float64]
FPIR: Final = 1e-3  # asked for where nobody says
POINTS: Final = 512  # of a curve between a threshold and 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a user asked for: a rate, or a similarity itself."""

    fpir: float | None = None
    above: float | None = None

    def __post_init__(self) -> None:
        """Refuse both, and what is no cosine."""
        if self.fpir is not None and self.above is not None:
            raise UsageError("name a similarity or a rate of false matches, not both")
        if self.above is not None and not 0.0 < self.above <= 1.0:
            raise UsageError("a similarity to be the same by is above 0 and up to 1")

    @property
    def rate(self) -> float:
        """The rate asked for."""
        return FPIR if self.fpir is None else self.fpir


class Strangers:
    """What is known of strangers: nothing, where a similarity was asked for without a calibration.

    Args:
        known: gives the calibration.
        asked: what the user wants.

    Raises:
        CalibrationMissingError: a rate is asked for, and nothing tells how alike strangers are.
    """

    def __init__(self, known: Callable[[], Calibration], asked: Asked) -> None:
        self._asked = asked
        self._known: Calibration | None = None
        try:
            self._known = known()
        except CalibrationMissingError:
            if asked.above is None:
                raise

    @property
    def calibration(self) -> Calibration | None:
        """What is known."""
        return self._known

    def of_templates(self, gallery: int) -> float:
        """The similarity with which one of so many templates, or a face with one, is the same."""
        if self._asked.above is not None or self._known is None:
            return self._asked.above or 1.0
        return float(self._known.for_fpir(self._asked.rate, gallery=max(gallery, 1)).similarity)

    def of_faces(self, gallery: int) -> float:
        """The same of single faces that are compared with each other."""
        if self._asked.above is not None or self._known is None:
            return self._asked.above or 1.0
        each = -math.log1p(-self._asked.rate) / max(gallery, 1)
        return float(self._known.for_fmr(each).similarity)

    def false_pairs(self, similarities: Doubles, *, pairs: float, templates: bool) -> Doubles:
        """How many of so many pairs of strangers reach each similarity; NaN where unknown."""
        if self._known is None:
            return np.full(len(similarities), np.nan)
        tail = self._known.searches if templates else self._known.comparisons
        if not len(similarities):
            return np.empty(0)
        at = np.linspace(min(float(similarities.min()), 1.0), 1.0, POINTS)
        rates = np.array([_rate(tail, one) for one in at])
        expected: Doubles = pairs * np.exp(np.interp(similarities, at, np.log(rates)))
        return expected


def _rate(tail: Tail, similarity: float) -> float:
    """The share of comparisons of strangers that reach a similarity."""
    return tail.rate(similarity).value / tail.size
