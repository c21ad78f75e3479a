"""Open-set identification: who is it, if it is anybody enrolled.

Persons with two faces or more are enrolled with all but one of them and asked for with the one left
out (mated probes); all others are strangers, each with one face. Which face is left out and who is
enrolled is drawn anew in each split.

FPIR (ISO/IEC 19795-1): share of strangers for whom anybody is at or above the threshold. FNIR:
share of mated probes whose own person is below it, at whatever rank. A probe that is refused for
its quality counts as a miss, or as a stranger of whom nothing was claimed; a person of whom every
face is refused cannot be enrolled, and its probe is a miss. Rank k of the CMC: share of mated
probes whose own person is among the k best, whatever the threshold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.evaluation.curves import MATCHES_MIN
from retrieval.evaluation.pairs import Progress
from retrieval.evaluation.resampling import (
    PERSONS_MIN,
    REPLICATES,
    Doubles,
    Measure,
    draws,
    measured,
)
from retrieval.people.template import templates
from retrieval.store.labelled import Labelled
from retrieval.values import Floats, UnitRows

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FPIRS: Final = (1e-1, 1e-2, 1e-3)
RANKS: Final = (1, 5, 10)
GALLERIES: Final = (100, 500)  # and everybody
SPLITS: Final = 10
REFUSED: Final = -np.inf  # the similarity of a probe or a person that was refused
RANK_OF_REFUSED: Final = 2**31  # never among the best
THRESHOLDS: Final[Doubles] = np.arange(-0.2, 1.0001, 0.005)
BLOCK_MAX: Final = 2**24  # similarities of probes and enrolled faces at a time: 64 MiB


class Scoring(StrEnum):
    """How a probe is compared with a person of several faces."""

    TEMPLATE = "template"  # with the weighted mean of its faces (retrieval/people/template.py)
    BEST = "best"  # with each face; the best counts


@dataclass(frozen=True, slots=True, kw_only=True)
class AtFpir:
    """What is missed at an asked FPIR."""

    fpir: float
    threshold: float  # mean over splits
    fnir: Measure  # mean over splits; interval from draws of probes, in all splits alike
    spread: float | None  # standard deviation over splits; None: one split
    splits: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryReport:
    """One size of gallery and one way of scoring."""

    persons: int
    scoring: Scoring
    at_fpir: tuple[AtFpir, ...]
    ranks: tuple[tuple[int, Measure], ...]  # CMC
    fpir: Doubles  # (t,) at THRESHOLDS, mean over splits
    fnir: Doubles


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateGain:
    """What templates change against best-of-n, in the same galleries, splits and draws."""

    persons: int
    fpir: float
    fnir_change: Measure  # negative: templates miss less


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentificationReport:
    """Open-set error rates for each gallery and scoring."""

    mated: int  # persons who can be enrolled
    strangers: int
    refused: int  # faces below the quality floor
    splits: int
    not_carried: tuple[float, ...]  # asked FPIRs at which fewer than 30 strangers would pass
    galleries: tuple[GalleryReport, ...]
    gains: tuple[TemplateGain, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Probes against one gallery in one split: p persons enrolled, s strangers."""

    places: Ints  # (p,) which of the mated persons are enrolled
    own: Doubles  # (p,) similarity of each mated probe with its own person
    rank: Ints  # (p,) 1 is best; a tie counts against us
    top: Doubles  # (s,) best similarity of each stranger


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """How often each mated person and each stranger is drawn, b times; float32 holds it exactly."""

    mated: Floats  # (b, m)
    strangers: Floats  # (b, s)

    @classmethod
    def of(cls, people: "Population", *, seed: int, count: int) -> "Drawn":
        """Draws of mated persons and strangers together."""
        mated, everybody = len(people.begins), len(people.begins) + len(people.strangers)
        rows = [row.astype(np.float32) for row in draws(everybody, seed=seed, count=count)]
        drawn = np.array(rows)
        return cls(mated=drawn[:, :mated], strangers=drawn[:, mated:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Who can be enrolled and who is a stranger, as rows of the faces."""

    begins: Ints  # (m,) first row of each mated person
    counts: Ints  # (m,)
    strangers: Ints  # (s,) a row for each

    @classmethod
    def of(cls, labelled: Labelled) -> "Population":
        """Mated persons have two faces or more."""
        begins, counts = np.unique(labelled.persons, return_index=True, return_counts=True)[1:]
        mated = counts > 1
        return cls(begins=begins[mated], counts=counts[mated], strangers=begins[~mated])


Trials = dict[tuple[int, Scoring], list[Trial]]  # by size of gallery; one for each split


def identify_all(
    labelled: Labelled,
    *,
    galleries: Sequence[int] = GALLERIES,
    fpirs: Sequence[float] = FPIRS,
    splits: int = SPLITS,
    quality_min: float = 0.0,
    seed: int = 0,
    replicates: int = REPLICATES,
    progress: Progress = lambda *_: None,
) -> IdentificationReport:
    """Ask for everybody and for strangers in galleries of several sizes, and of everybody.

    Sizes of galleries beyond the number of persons are left out. Faces below `quality_min` are
    refused; an unknown quality passes.

    Raises:
        UsageError: fewer than 10 persons can be enrolled, or fewer than 30 are strangers.
    """
    people = Population.of(labelled)
    _require(people, galleries)
    good = ~(labelled.quality < quality_min)
    sizes = sorted({*(size for size in galleries if size < len(people.begins)), len(people.begins)})
    random = np.random.default_rng(seed)
    tested: Trials = {}
    for split in range(splits):
        left_out = people.begins + random.integers(people.counts)
        order = random.permutation(len(people.begins))
        for scoring in Scoring:
            enrolled = _enrolled(labelled, people, left_out, good, scoring)
            for size in sizes:
                found = _tested(labelled, people, left_out, good, enrolled.of(order[:size]))
                tested.setdefault((size, scoring), []).append(found)
        progress(split + 1, splits)
    drawn = Drawn.of(people, seed=seed, count=replicates)
    asked = [fpir for fpir in fpirs if fpir * len(people.strangers) >= MATCHES_MIN]
    reports = tuple(
        _report(found, asked, drawn, scoring=scoring)
        for (_, scoring), found in sorted(tested.items())
    )
    return IdentificationReport(
        mated=len(people.begins),
        strangers=len(people.strangers),
        refused=int((~good).sum()),
        splits=splits,
        not_carried=tuple(fpir for fpir in fpirs if fpir not in asked),
        galleries=reports,
        gains=tuple(_gain(tested, size, fpir, drawn) for size in sizes for fpir in asked),
    )


def _require(people: Population, galleries: Sequence[int]) -> None:
    if len(people.begins) < PERSONS_MIN:
        raise UsageError(
            f"{len(people.begins)} persons have two faces or more and can be enrolled;"
            f" identification needs at least {PERSONS_MIN}: name more faces, or widen the filter"
        )
    if len(people.strangers) < MATCHES_MIN:
        raise UsageError(
            f"{len(people.strangers)} persons have one face and are strangers; identification needs"
            f" at least {MATCHES_MIN} (persons with several faces are all enrolled)"
        )
    if min(galleries, default=1) < 1:
        raise UsageError("a gallery has at least one person")


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """A gallery: rows of vectors, and which stretch of them is whose."""

    vectors: UnitRows  # (r, d)
    begins: Ints  # (p,) first row of each person
    counts: Ints  # (p,) 0: could not be enrolled
    places: Ints  # (p,) which of the mated persons

    def of(self, places: Ints) -> "Enrolled":
        """The part of some persons."""
        return Enrolled(
            vectors=self.vectors,
            begins=self.begins[places],
            counts=self.counts[places],
            places=places,
        )

    def scores(self, probes: UnitRows) -> Doubles:
        """Each probe's similarity with each person, (n, p); REFUSED where nobody is enrolled."""
        found = np.full((len(probes), len(self.places)), REFUSED)
        there = np.flatnonzero(self.counts)
        if not len(there):
            return found
        counts = self.counts[there]
        ends = np.cumsum(counts)
        # Row by row of the chosen stretches, side by side.
        rows = np.arange(ends[-1]) + np.repeat(self.begins[there] - ends + counts, counts)
        similarities = probes @ self.vectors[rows].T
        found[:, there] = np.maximum.reduceat(similarities, ends - counts, axis=1)
        return found


def _enrolled(
    labelled: Labelled, people: Population, left_out: Ints, good: Mask, scoring: Scoring
) -> Enrolled:
    """Everybody with all faces that are good and not left out."""
    kept = good.copy()
    kept[left_out] = False
    numbers = np.repeat(np.arange(len(people.begins)), people.counts)
    rows = np.arange(len(numbers)) + np.repeat(
        people.begins - np.cumsum(people.counts) + people.counts, people.counts
    )
    numbers, rows = numbers[kept[rows]], rows[kept[rows]]
    vectors, quality = UnitRows(labelled.vectors[rows]), labelled.quality[rows]
    if scoring is Scoring.TEMPLATE:
        numbers, vectors = templates(vectors, quality, numbers)
    counts = np.bincount(numbers, minlength=len(people.begins))
    return Enrolled(
        vectors=vectors,
        begins=np.cumsum(counts) - counts,
        counts=counts,
        places=np.arange(len(counts)),
    )


def _tested(
    labelled: Labelled, people: Population, left_out: Ints, good: Mask, gallery: Enrolled
) -> Trial:
    mated, strangers = left_out[gallery.places], people.strangers
    own, rank, top = [], [], []
    for place, scores in _blocks(labelled, mated, gallery):
        mine = scores[np.arange(len(scores)), place + np.arange(len(scores))]
        own.append(mine)
        rank.append((scores >= mine[:, None]).sum(axis=1))
    for _, scores in _blocks(labelled, strangers, gallery):
        top.append(scores.max(axis=1))
    of_mated = np.where(good[mated], np.concatenate(own), REFUSED)
    return Trial(
        places=gallery.places,
        own=of_mated,
        rank=np.where(np.isfinite(of_mated), np.concatenate(rank), RANK_OF_REFUSED),
        top=np.where(good[strangers], np.concatenate(top), REFUSED),
    )


def _blocks(labelled: Labelled, rows: Ints, gallery: Enrolled) -> Iterator[tuple[int, Doubles]]:
    """The similarities of some probes at a time, and the place of the first of them."""
    count = max(1, BLOCK_MAX // max(1, int(gallery.counts.sum())))
    for begin in range(0, len(rows), count):
        yield begin, gallery.scores(UnitRows(labelled.vectors[rows[begin : begin + count]]))


def _report(
    tested: Sequence[Trial], asked: Sequence[float], drawn: Drawn, *, scoring: Scoring
) -> GalleryReport:
    return GalleryReport(
        persons=len(tested[0].places),
        scoring=scoring,
        at_fpir=tuple(_at_fpir(tested, fpir, drawn) for fpir in asked),
        ranks=tuple(
            (rank, _mean([one.rank <= rank for one in tested], tested, drawn)) for rank in RANKS
        ),
        fpir=np.mean([_share_from(one.top) for one in tested], axis=0),
        fnir=1 - np.mean([_share_from(one.own) for one in tested], axis=0),
    )


def _at_fpir(tested: Sequence[Trial], fpir: float, drawn: Drawn) -> AtFpir:
    thresholds = [_threshold(one, fpir) for one in tested]
    of_splits = _fnirs(tested, fpir)
    return AtFpir(
        fpir=fpir,
        threshold=float(np.mean(thresholds)),
        fnir=measured(float(np.mean(of_splits)), _drawn_fnir(tested, fpir, drawn)),
        spread=float(np.std(of_splits, ddof=1)) if len(of_splits) > 1 else None,
        splits=of_splits,
    )


def _gain(trials: Trials, size: int, fpir: float, drawn: Drawn) -> TemplateGain:
    ours, theirs = trials[size, Scoring.TEMPLATE], trials[size, Scoring.BEST]
    change = float(np.mean(_fnirs(ours, fpir)) - np.mean(_fnirs(theirs, fpir)))
    replicates = _drawn_fnir(ours, fpir, drawn) - _drawn_fnir(theirs, fpir, drawn)
    return TemplateGain(persons=size, fpir=fpir, fnir_change=measured(change, replicates))


def _threshold(tested: Trial, fpir: float) -> float:
    return float(threshold_at(tested.top, fpir, np.ones((1, len(tested.top)), np.float32))[0])


def _fnirs(tested: Sequence[Trial], fpir: float) -> tuple[float, ...]:
    """FNIR of each split."""
    return tuple(float((one.own < _threshold(one, fpir)).mean()) for one in tested)


def _drawn_fnir(tested: Sequence[Trial], fpir: float, drawn: Drawn) -> Doubles:
    """FNIR of all splits together, of each draw, each with the threshold of its strangers, (b,)."""
    hits = [
        one.own[None, :] < threshold_at(one.top, fpir, drawn.strangers)[:, None] for one in tested
    ]
    return _drawn_shares(hits, tested, drawn)


def threshold_at(top: Doubles, fpir: float, weights: Floats) -> Doubles:
    """The lowest threshold that at most a share `fpir` of the strangers reaches, for each draw.

    Args:
        top: (s,) best similarity of each stranger.
        fpir: a share.
        weights: (b, s) how often each is drawn.

    >>> top = np.array([0.1, 0.4, 0.3, 0.2])
    >>> bool(0.3 < threshold_at(top, 0.25, np.ones((1, 4), np.float32))[0] < 0.3 + 1e-6)
    True
    """
    allowed = fpir * weights.sum(axis=1, keepdims=True) + 1e-9
    # So many of the best strangers are drawn too often in every draw; the others need no look.
    enough = int(3 * fpir * len(top)) + MATCHES_MIN
    order = np.argsort(-top)[:enough]
    counted = weights[:, order].cumsum(axis=1)
    # The first stranger who may not pass; just above that one's similarity lies the threshold.
    over = np.argmax(counted > allowed, axis=1)
    found: Doubles = np.nextafter(top[order][over].astype(np.float32), np.float32(2))
    return found.astype(np.float64)


def _mean(hits: Sequence[Mask], tested: Sequence[Trial], drawn: Drawn) -> Measure:
    """The share of hits, mean over splits."""
    replicates = _drawn_shares([hit[None, :] for hit in hits], tested, drawn)
    return measured(float(np.mean([hit.mean() for hit in hits])), replicates)


def _drawn_shares(hits: Sequence[Mask], tested: Sequence[Trial], drawn: Drawn) -> Doubles:
    """The share of hits in all splits together, of each draw, (b,); NaN where nobody was drawn."""
    found, everybody = np.zeros(len(drawn.mated)), np.zeros(len(drawn.mated))
    for hit, one in zip(hits, tested, strict=True):
        weights = drawn.mated[:, one.places]
        found += (weights * hit).sum(axis=1)
        everybody += weights.sum(axis=1)
    with np.errstate(invalid="ignore"):
        shares: Doubles = found / everybody
    return shares


def _share_from(similarities: Doubles) -> Doubles:
    """The share at or above each of THRESHOLDS."""
    ranked = np.sort(similarities)
    return 1 - np.searchsorted(ranked, THRESHOLDS, side="left") / len(ranked)
