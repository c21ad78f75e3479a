"""A calibration from labelled faces: how alike strangers are, in comparisons and in searches.

The faces are probes and their persons' templates the gallery, each probe's own person left out:
what it then meets is what a stranger would meet. Intervals come from draws of persons
(resampling.py).

One person under two names would pass for strangers that are alike: of LFW's 5,749 names some forty
are so, which alone decide its FMR below 1e-5. `distinct` finds such pairs and counts them as one
person, twins among them, whom no threshold keeps apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from retrieval.evaluation.curves import THRESHOLDS, Curve
from retrieval.evaluation.pairs import Ints, Progress
from retrieval.evaluation.resampling import Doubles, draws
from retrieval.evaluation.verification import DRAWN_EVERY, VerificationReport, verify_all
from retrieval.people.calibration import (
    Calibration,
    Tail,
    tail_of_counts,
    tail_of_maxima,
)
from retrieval.people.template import templates
from retrieval.store.labelled import Labelled
from retrieval.values import Space, UnitRows

DRAWS: Final = 200  # for an interval of a tail; each holds a number for every probe
PROBES_AT_ONCE: Final = 1_024
GENUINE_BELOW: Final = 0.05  # of genuine pairs are less alike than persons that count as one
JOINED_BY_CHANCE: Final = 0.01  # pairs of strangers, of persons
LEAST: Final = 1e-12  # a share of nothing has no logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A calibration, and the names that it took for one person."""

    calibration: Calibration
    joined: tuple[tuple[int, int], ...]  # pairs of persons that look like one, to be reviewed


def calibrate(
    labelled: Labelled,
    *,
    space: Space,
    data: str,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> Calibrated:
    """What faces of known persons say of the strangers in their space.

    Args:
        labelled: captured faces.
        space: that their vectors are of.
        data: what they are, in words.
        seed: of the draws.
        progress: called with steps done and steps in all.

    Raises:
        UsageError: there are too few persons, or too few strangers.
    """
    first = verify_all(labelled, replicates=1, progress=progress)
    faces, joined = distinct(labelled, first.curve)
    report = verify_all(faces, seed=seed, replicates=DRAWS, progress=progress)
    persons, owners = np.unique(faces.persons, return_inverse=True)
    _, gallery = templates(faces.vectors, faces.quality, faces.persons)
    drawn = np.stack(list(draws(len(persons), seed=seed, count=DRAWS)))
    searches = tail_of_maxima(
        _highest_of_others(faces.vectors, owners, gallery),
        size=len(persons) - 1,
        weights=drawn[:, owners],
    )
    calibration = Calibration(
        space=space.name,
        model_sha256=space.model_sha256,
        data=data,
        comparisons=_comparisons(report),
        searches=searches,
    )
    return Calibrated(calibration=calibration, joined=joined)


def distinct(labelled: Labelled, curve: Curve) -> tuple[Labelled, tuple[tuple[int, int], ...]]:
    """The faces with persons taken for one that are as alike as faces of one usually are.

    Args:
        labelled: faces of known persons.
        curve: of all pairs of these faces; 95 of 100 genuine pairs reach the similarity at which
            the templates of two persons are taken for one person's, and so few pairs of strangers
            that they are no more than a hundredth of the persons.

    Returns:
        The faces, and the pairs of persons that were taken for one.
    """
    persons, gallery = templates(labelled.vectors, labelled.quality, labelled.persons)
    alike = int(np.searchsorted(curve.fnmr, GENUINE_BELOW))
    # Where faces of one person are often as unlike as strangers, that alone would join everybody.
    by_chance = curve.fmr * (len(persons) - 1) / 2
    cut = float(THRESHOLDS[max(alike, int(np.argmax(by_chance <= JOINED_BY_CHANCE)))])
    pairs = list(_alike(gallery, cut))
    meant = np.arange(len(persons))
    for one, other in pairs:
        meant[meant == meant[other]] = meant[one]
    merged = persons[meant][np.searchsorted(persons, labelled.persons)]
    joined = tuple((int(persons[one]), int(persons[other])) for one, other in pairs)
    return _taken(labelled, merged, np.lexsort((labelled.faces, merged))), joined


def _alike(gallery: UnitRows, cut: float) -> Iterator[tuple[int, int]]:
    """The places of templates with a similarity of at least `cut`, each pair once."""
    for begin in range(0, len(gallery), PROBES_AT_ONCE):
        rows, columns = np.nonzero(gallery[begin : begin + PROBES_AT_ONCE] @ gallery.T >= cut)
        once = rows + begin < columns
        yield from zip((rows[once] + begin).tolist(), columns[once].tolist(), strict=True)


def _taken(labelled: Labelled, persons: Ints, order: Ints) -> Labelled:
    return Labelled(
        vectors=UnitRows(labelled.vectors[order]),
        faces=labelled.faces[order],
        persons=persons[order],
        quality=labelled.quality[order],
        images=tuple(labelled.images[place] for place in order),
        groups=tuple(labelled.groups[place] for place in order),
    )


def _comparisons(report: VerificationReport) -> Tail:
    at = THRESHOLDS[::DRAWN_EVERY]
    lows, highs = (
        np.exp(np.interp(THRESHOLDS, at, np.log(np.maximum(bound, LEAST))))
        for bound in (report.band.fmr_low, report.band.fmr_high)
    )
    return tail_of_counts(THRESHOLDS, report.curve.fmr, lows, highs, trials=report.impostors)


def _highest_of_others(vectors: UnitRows, owners: Ints, gallery: UnitRows) -> Doubles:
    """The similarity of each face to the most similar template that is not its own person's."""
    maxima = np.empty(len(vectors))
    for begin in range(0, len(vectors), PROBES_AT_ONCE):
        block = slice(begin, begin + PROBES_AT_ONCE)
        similarities = vectors[block] @ gallery.T
        similarities[np.arange(len(similarities)), owners[block]] = -1.0
        maxima[block] = similarities.max(axis=1)
    return maxima
