"""What a similarity says: the same person, another one, or nothing because a face is too poor.

A face below the quality floor gets no name and no yes or no: bad crops are alike in being bad, and
match anybody. The similarity is told all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from retrieval.people.calibration import Threshold
from retrieval.values import PersonId, Similarity


class Verdict(StrEnum):
    """What was decided."""

    SAME = "same"
    DIFFERENT = "different"
    KNOWN = "known"  # at least one person reaches the threshold
    UNKNOWN = "unknown"  # nobody does
    INSUFFICIENT_QUALITY = "insufficient_quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Whether two faces, or a face and a person, belong together."""

    similarity: Similarity
    verdict: Verdict
    threshold: Threshold  # its rate is the FMR
    quality: tuple[float | None, float | None]  # None: not known, as of vectors from outside

    @property
    def same(self) -> bool | None:
        """Yes, no, or None where quality does not allow either."""
        return {Verdict.SAME: True, Verdict.DIFFERENT: False}.get(self.verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A person whose similarity reaches the threshold."""

    person: PersonId
    similarity: Similarity


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """Who a probe may be: everybody at or above the threshold, most similar first."""

    candidates: tuple[Candidate, ...]
    verdict: Verdict
    threshold: Threshold  # its rate is the FPIR
    quality: float | None
    gallery: int  # persons searched


def verified(
    similarity: Similarity,
    *,
    threshold: Threshold,
    quality: tuple[float | None, float | None],
    floor: float,
) -> Verification:
    """Decide on one comparison."""
    if _too_poor(quality, floor=floor):
        verdict = Verdict.INSUFFICIENT_QUALITY
    else:
        verdict = Verdict.SAME if similarity >= threshold.similarity else Verdict.DIFFERENT
    return Verification(
        similarity=similarity, verdict=verdict, threshold=threshold, quality=quality
    )


def identified(
    found: Sequence[Candidate],
    *,
    threshold: Threshold,
    quality: float | None,
    floor: float,
    gallery: int,
) -> Identification:
    """Decide on one search; `found` may hold candidates below the threshold, best first."""
    if _too_poor([quality], floor=floor):
        reached: tuple[Candidate, ...] = ()
        verdict = Verdict.INSUFFICIENT_QUALITY
    else:
        reached = tuple(one for one in found if one.similarity >= threshold.similarity)
        verdict = Verdict.KNOWN if reached else Verdict.UNKNOWN
    return Identification(
        candidates=reached,
        verdict=verdict,
        threshold=threshold,
        quality=quality,
        gallery=gallery,
    )


def _too_poor(qualities: Sequence[float | None], *, floor: float) -> bool:
    return any(quality is not None and quality < floor for quality in qualities)
