"""How well sentences find faces: ranks, precision of free sentences, skew between groups.

A caption asks for its own face among all faces (text to face), a face for its own captions among
all different sentences (face to text; a sentence that two faces share is right for both). Equal
similarities count against: what ties with the right one comes before it, so a model that says the
same of everything finds nothing. Free sentences have any number of right faces.

Skew (Geyik et al. 2019, Berg et al. 2022): the share of a group among the k best for a sentence
over its share among all faces. Intervals are from draws of persons (resampling.py): for captions
the gallery stays and those who ask are drawn; for free sentences and skew the gallery is drawn, and
a person drawn twice stands in it twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.evaluation.groups import GROUP_PERSONS_MIN
from retrieval.evaluation.pairs import Progress
from retrieval.evaluation.resampling import (
    LEVEL,
    PERSONS_MIN,
    REPLICATES,
    Doubles,
    Measure,
    draws,
    measured,
)
from retrieval.values import Floats, UnitRows

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

RANKS: Final = (1, 5, 10)
PRECISION_AT: Final = 10
SKEW_COUNT: Final = 100
EXPECTED_MIN: Final = 5  # of a group among the k best; of fewer a share says little
BLOCK: Final = 512  # queries whose similarities are held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """One way of asking."""

    queries: int
    gallery: int
    recall_at: Mapping[int, Measure]  # share of queries with a right answer among the k best
    median_rank: Measure
    mean_average_precision: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionsReport:
    """Captions and faces, asked both ways."""

    faces: int
    persons: int
    captions: int
    text_to_face: Direction
    face_to_text: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceReport:
    """One free sentence."""

    sentence: str
    relevant: int
    precision: Measure
    average_precision: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencesReport:
    """Free sentences, and their means."""

    faces: int
    at: int  # k of the precision
    sentences: tuple[SentenceReport, ...]
    refused: tuple[str, ...]  # why each sentence that is missing is missing
    precision: Measure
    mean_average_precision: Measure
    chance: float  # the precision of any order


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupShare:
    """One group among the best and among all."""

    name: str
    persons: int
    faces: int
    found: int  # among the k best
    share: Measure  # of the k best
    gallery_share: Measure
    ratio: Measure  # of both: 1 is even


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The group that a sentence favours most against the one it favours least."""

    most: str
    least: str
    ratio: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewReport:
    """How evenly a sentence finds the groups."""

    sentence: str
    count: int  # k
    faces: int  # whose group is known
    groups: tuple[GroupShare, ...]
    refused: tuple[str, ...]
    without_group: int
    contrast: Contrast | None  # None: one group, or one of which none was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """What each query gave."""

    best: Ints  # (q,) place of the first right answer, from 1
    average_precision: Doubles  # (q,)


def rank_captions(
    faces: UnitRows,
    texts: UnitRows,
    *,
    sentences: Sequence[str],
    owners: Ints,
    persons: Ints,
    seed: int = 0,
    replicates: int = REPLICATES,
    progress: Progress = lambda *_: None,
) -> CaptionsReport:
    """Ask with each caption for its face, and with each face for its captions.

    Args:
        faces: (n, d) of all faces, with captions or without.
        texts: (m, d) of the captions.
        sentences: the m captions; equal ones are one sentence.
        owners: (m,) the row of each caption's face.
        persons: (n,) of each face, any numbers.
        seed: of the draws.
        replicates: draws of persons; of fewer than 10 persons there is no interval.
        progress: blocks of queries done, of all.

    Raises:
        UsageError: there is no caption, or the arrays do not fit.
    """
    if not len(texts):
        raise UsageError("there is no caption to ask with: ingest some, or widen the filter")
    if not len(texts) == len(sentences) == len(owners) or len(faces) != len(persons):
        raise UsageError(
            f"{len(texts)} vectors, {len(sentences)} sentences and {len(owners)} owners, or"
            f" {len(faces)} faces and {len(persons)} persons, are not as many"
        )
    numbers = np.unique(persons, return_inverse=True)[1]
    told, first, which = np.unique(np.array(sentences), return_index=True, return_inverse=True)
    asking = np.unique(owners)
    own = [which[owners == face] for face in asking]
    blocks = -(-len(texts) // BLOCK) + -(-len(asking) // BLOCK)
    of_texts = ranked(texts, faces, [np.array([face]) for face in owners.tolist()])
    progress(-(-len(texts) // BLOCK), blocks)
    of_faces = ranked(UnitRows(faces[asking]), UnitRows(texts[first]), own)
    progress(blocks, blocks)

    def direction(ranks: Ranks, rows: Ints, *, gallery: int) -> Direction:
        who = np.unique(numbers[rows], return_inverse=True)[1]
        return _direction(ranks, who, gallery=gallery, seed=seed, replicates=replicates)

    return CaptionsReport(
        faces=len(faces),
        persons=len(np.unique(numbers)),
        captions=len(texts),
        text_to_face=direction(of_texts, owners, gallery=len(faces)),
        face_to_text=direction(of_faces, asking, gallery=len(told)),
    )


def ranked(queries: UnitRows, gallery: UnitRows, right: Sequence[Ints]) -> Ranks:
    """The places of the right answers of each query; ties count against.

    Args:
        queries: (q, d).
        gallery: (n, d).
        right: for each query the rows of its right answers, at least one.
    """
    best = np.empty(len(queries), np.int64)
    precision = np.empty(len(queries))
    for begin in range(0, len(queries), BLOCK):
        similar = queries[begin : begin + BLOCK] @ gallery.T
        for row, scores in enumerate(similar):
            places = _places(scores, np.unique(right[begin + row]))
            best[begin + row] = places[0]
            precision[begin + row] = (np.arange(1, len(places) + 1) / places).mean()
    return Ranks(best=best, average_precision=precision)


def judge_sentences(
    similarities: Floats,
    relevant: Mask,
    *,
    sentences: Sequence[str],
    persons: Ints,
    at: int = PRECISION_AT,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> SentencesReport:
    """Precision among the `at` best and average precision of free sentences.

    Args:
        similarities: (s, n) of each sentence and face.
        relevant: (s, n) which faces are right.
        sentences: s of them; one without a right face is left out.
        persons: (n,) of each face.
        at: k of the precision.
        seed: of the draws.
        replicates: draws of persons.

    Raises:
        UsageError: there are fewer than `at` faces, or no sentence has a right one.
    """
    if similarities.shape[1] < at:
        raise UsageError(f"{similarities.shape[1]} faces are fewer than the {at} asked for")
    kept = np.flatnonzero(relevant.any(axis=1)).tolist()
    if not kept:
        raise UsageError("none of the sentences has a right face here")
    numbers = np.unique(persons, return_inverse=True)[1]
    orders = [_worst_order(similarities[place], relevant[place]) for place in kept]
    hits = [relevant[place][order] for place, order in zip(kept, orders, strict=True)]
    found = np.array([_figures(one, at=at) for one in hits])
    drawn = np.array(
        [
            [
                _figures(np.repeat(one, weights[numbers[order]]), at=at)
                for one, order in zip(hits, orders, strict=True)
            ]
            for weights in _drawn(numbers, seed=seed, replicates=replicates)
        ]
    ).reshape(-1, len(kept), 2)
    # A draw without a right face tells nothing of its sentence; the mean is of the others.
    known = np.where(np.isnan(drawn).any(axis=2, keepdims=True), np.nan, drawn)
    means = np.nanmean(known, axis=1) if len(known) else np.empty((0, 2))
    return SentencesReport(
        faces=similarities.shape[1],
        at=at,
        sentences=tuple(
            SentenceReport(
                sentence=sentences[place],
                relevant=int(relevant[place].sum()),
                precision=_measured(found[row, 0], known[:, row, 0]),
                average_precision=_measured(found[row, 1], known[:, row, 1]),
            )
            for row, place in enumerate(kept)
        ),
        refused=tuple(
            f"no face is right for '{sentences[place]}'"
            for place in np.flatnonzero(~relevant.any(axis=1)).tolist()
        ),
        precision=_measured(found[:, 0].mean(), means[:, 0]),
        mean_average_precision=_measured(found[:, 1].mean(), means[:, 1]),
        chance=float(relevant[kept].mean()),
    )


def skew_of(
    similarities: Floats,
    *,
    sentence: str,
    groups: Sequence[str | None],
    persons: Ints,
    count: int = SKEW_COUNT,
    persons_min: int = GROUP_PERSONS_MIN,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> SkewReport:
    """The share of each group among the `count` best against its share among all.

    Faces of unknown group are left out throughout; a group that is too small to be judged stays
    among the faces.

    Args:
        similarities: (n,) of the sentence and each face.
        sentence: what was asked.
        groups: of each face; None: unknown.
        persons: (n,) of each face.
        count: k.
        persons_min: of a group.
        seed: of the draws.
        replicates: draws of persons.

    Raises:
        UsageError: there are not twice as many faces as `count`, or no group is large enough.
    """
    known = np.array([group is not None for group in groups], np.bool_)
    faces = int(known.sum())
    if faces < 2 * count:
        raise UsageError(
            f"{faces} faces have a known group; among the {count} best of so few every group has"
            " its share: ask for fewer (--count), or widen the filter"
        )
    names, of_face = np.unique([str(group) for group in groups if group], return_inverse=True)
    numbers = np.unique(persons[known], return_inverse=True)[1]
    order = np.argsort(-similarities[known], kind="stable")
    judged, refused = _judged_groups(
        names.tolist(), of_face, numbers, count=count, persons_min=persons_min
    )
    if not judged:
        raise UsageError("no group is large enough: " + "; ".join(refused))
    found = _shares(of_face, order, np.ones(faces, np.int64), count=count, groups=len(names))
    drawn = np.array(
        [
            _shares(of_face, order, weights[numbers], count=count, groups=len(names))
            for weights in _drawn(numbers, seed=seed, replicates=replicates)
        ]
    ).reshape(-1, 2, len(names))
    return SkewReport(
        sentence=sentence,
        count=count,
        faces=faces,
        groups=tuple(
            GroupShare(
                name=names[place],
                persons=len(np.unique(numbers[of_face == place])),
                faces=int((of_face == place).sum()),
                found=round(found[0, place] * count),
                share=_measured(found[0, place], drawn[:, 0, place]),
                gallery_share=_measured(found[1, place], drawn[:, 1, place]),
                ratio=_measured(found[0, place] / found[1, place], _ratios(drawn)[:, place]),
            )
            for place in judged
        ),
        refused=refused,
        without_group=len(groups) - faces,
        contrast=_contrast(names.tolist(), judged, found, _ratios(drawn)),
    )


def auc(scores: npt.NDArray[np.floating], truth: Mask) -> float | None:
    """Chance that a true one scores above a false one, ties counting half; None: one kind only.

    >>> auc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
    0.875
    """
    true, false = int(truth.sum()), int((~truth).sum())
    if not true or not false:
        return None
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    places = (counts.cumsum() - (counts - 1) / 2)[which]
    return float((places[truth].sum() - true * (true + 1) / 2) / (true * false))


def _places(scores: Floats, right: Ints) -> Ints:
    """The places of the right answers, ascending from 1; ties count against."""
    own = -np.sort(-scores[right])
    others = np.sort(np.delete(scores, right))
    above = len(others) - np.searchsorted(others, own, side="left")
    places: Ints = above + np.arange(1, len(own) + 1)
    return places


def _direction(
    ranks: Ranks, persons: Ints, *, gallery: int, seed: int, replicates: int
) -> Direction:
    """The figures over all queries, with intervals from draws of those who ask."""
    hits = np.stack([ranks.best <= rank for rank in RANKS] + [ranks.average_precision], axis=1)
    count = int(persons.max()) + 1
    sums = np.zeros((count, hits.shape[1] + 1))
    np.add.at(sums, persons, np.concatenate([hits, np.ones((len(hits), 1))], axis=1))
    order = np.argsort(ranks.best, kind="stable")
    drawn = []
    for weights in _drawn(persons, seed=seed, replicates=replicates):
        totals = weights @ sums
        median = _median(ranks.best[order], weights[persons[order]])
        drawn.append([*(totals[:-1] / totals[-1]), median])
    figures = np.array(drawn).reshape(-1, hits.shape[1] + 1)
    whole = hits.mean(axis=0)
    return Direction(
        queries=len(hits),
        gallery=gallery,
        recall_at={
            rank: _measured(whole[place], figures[:, place]) for place, rank in enumerate(RANKS)
        },
        median_rank=_measured(
            _median(ranks.best[order], np.ones(len(hits), np.int64)), figures[:, -1]
        ),
        mean_average_precision=_measured(whole[-1], figures[:, -2]),
    )


def _drawn(persons: Ints, *, seed: int, replicates: int) -> Iterator[Ints]:
    """How often each person is drawn; of too few persons no draw says anything."""
    count = int(persons.max()) + 1
    if count >= PERSONS_MIN:
        for weights in draws(count, seed=seed, count=replicates):
            yield weights.astype(np.int64)


def _measured(value: float, replicates: Doubles, *, level: float = LEVEL) -> Measure:
    return measured(float(value), replicates, level=level)


def _median(ascending: Ints, weights: Ints) -> float:
    """The middle of values that count so many times each; of two middles their mean."""
    reached = weights.cumsum()
    total = reached[-1]
    low, high = np.searchsorted(reached, [(total + 1) // 2, total // 2 + 1])
    return float(ascending[low] + ascending[high]) / 2


def _worst_order(scores: Floats, relevant: Mask) -> Ints:
    """Faces by similarity, best first; among equal ones the right ones come last."""
    return np.lexsort((relevant, -scores))


def _figures(hits: Mask, *, at: int) -> tuple[float, float]:
    """Precision among the first `at`, and average precision; NaN without a right one."""
    places = np.flatnonzero(hits) + 1
    if not len(places):
        return np.nan, np.nan
    return float(hits[:at].mean()), float((np.arange(1, len(places) + 1) / places).mean())


def _judged_groups(
    names: Sequence[str], of_face: Ints, numbers: Ints, *, count: int, persons_min: int
) -> tuple[list[int], tuple[str, ...]]:
    """The groups that may be judged, and why each other one may not."""
    judged, refused = [], []
    for place, name in enumerate(names):
        inside = of_face == place
        persons = len(np.unique(numbers[inside]))
        expected = count * float(inside.mean())
        if persons >= persons_min and expected >= EXPECTED_MIN:
            judged.append(place)
            continue
        refused.append(
            f"group '{name}' has {persons} persons, and {expected:.1f} of its faces are expected"
            f" among {count}; it needs {persons_min} and {EXPECTED_MIN}"
        )
    return judged, tuple(refused)


def _shares(of_face: Ints, order: Ints, copies: Ints, *, count: int, groups: int) -> Doubles:
    """The share of each group among the best and among all, (2, g); each face stands `copies` x."""
    taken = copies[order]
    before = taken.cumsum() - taken
    best = np.clip(count - before, 0, taken)
    shares: Doubles = np.stack(
        [
            np.bincount(of_face[order], best, minlength=groups) / best.sum(),
            np.bincount(of_face, copies, minlength=groups) / copies.sum(),
        ]
    )
    return shares


def _ratios(drawn: Doubles) -> Doubles:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios: Doubles = drawn[:, 0] / drawn[:, 1]
    return ratios


def _contrast(
    names: Sequence[str], judged: Sequence[int], found: Doubles, drawn: Doubles
) -> Contrast | None:
    """The most against the least favoured group.

    They are chosen after looking, so the interval holds for all pairs of groups at once
    (Bonferroni).
    """
    ratios = found[0, judged] / found[1, judged]
    order = np.argsort(ratios, kind="stable")
    most, least = judged[order[-1]], judged[order[0]]
    if most == least or not found[0, least]:
        return None
    comparisons = len(judged) * (len(judged) - 1) // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates = drawn[:, most] / drawn[:, least]
    value = float(ratios[order[-1]] / ratios[order[0]])
    level = 1 - (1 - LEVEL) / comparisons
    return Contrast(
        most=names[most], least=names[least], ratio=_measured(value, replicates, level=level)
    )
