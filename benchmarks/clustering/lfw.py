"""LFW: the faces whose person is known, grouped as if it were not.

The people are divided by chance into two halves. Each rival is tuned on one half, for each figure
by itself, and groups the other half with what was best there; then the halves change places. The
two groupings together are judged: every face once, by settings that its own half had no part in.
Ours has nothing to tune and groups each half as it is.

Other faces of the pictures, of people who just stand there, may be grouped along (`--others`); they
are dealt to the halves by chance and not judged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.clustering.graphs import pairs_of
from benchmarks.clustering.rivals import RIVALS, Faces, Settings, settings_of
from facedex.handle import open_facedex
from retrieval.evaluation.clustering import ALONE, Table, _figures, _kept, figures
from retrieval.evaluation.resampling import Measure, draws, measured
from retrieval.people.calibration import Calibration
from retrieval.store.collections import space_of
from retrieval.store.labelled import Labelled, read_everybody

Ints = npt.NDArray[np.int64]

THRESHOLDS: Final = tuple(np.round(np.arange(0.20, 0.62, 0.02), 2).tolist())
FLOOR: Final = 0.15
FACES_MAX: Final = 20
JUDGED: Final = ("bcubed_f", "pairwise_f")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Half:
    """Some of the people."""

    faces: Faces
    rows: Ints  # (n,) which of all
    persons: Ints  # (n,) below zero: unknown

    def judged(self, clusters: Ints) -> dict[str, float]:
        """The figures of a grouping, over the faces whose person is known."""
        known = self.persons >= 0
        found = figures(self.persons[known], clusters[known], faces_max=FACES_MAX)
        return {name: getattr(found, name) for name in JUDGED}


def compared(
    home: Path, collection: str, work: Path, *, names: Sequence[str], others: bool
) -> Iterator[dict[str, Any]]:
    """What was chosen and what came of it, a line for each rival and figure."""
    faces, calibration = _read(home, collection, others=others)
    kind = "others" if others else "labelled"
    whole = replace(faces, images=(), groups=())
    halves = [
        _half(whole, rows, calibration, work / f"lfw-{kind}-{number}")
        for number, rows in enumerate(_halves(whole.persons))
    ]
    told: dict[tuple[str, str], Ints] = {}
    for name in names:
        for judged, clusters, chosen in _crossed(name, halves, size=len(whole)):
            told[name, judged] = clusters
            yield {
                "what": "lfw",
                "faces": len(whole),
                "judged_faces": int((whole.persons >= 0).sum()),
                "rival": name,
                "figure": judged,
                **_told(_measured(whole.persons, clusters, judged)),
                "chosen": chosen,
            }
    for (name, judged), clusters in told.items():
        if name != "ours" and ("ours", judged) in told:
            ahead = _measured(whole.persons, told["ours", judged], judged, less=clusters)
            yield {"what": "lfw, ours less", "rival": name, "figure": judged, **_told(ahead)}


def _read(home: Path, collection: str, *, others: bool) -> tuple[Labelled, Calibration]:
    with open_facedex(home=home, collection=collection) as opened:
        tenant = opened.collection()
        with opened.store.reading() as connection:
            space = space_of(connection, tenant)
        faces = read_everybody(opened.store, collection=tenant, space=space, filter_=None)
        calibration = opened.recognition.calibration()
    kept = np.flatnonzero((faces.persons >= 0) | others)
    chosen = replace(
        faces,
        vectors=faces.vectors[kept],
        faces=faces.faces[kept],
        persons=faces.persons[kept],
        quality=faces.quality[kept],
    )
    return chosen, calibration


def _halves(persons: Ints) -> list[Ints]:
    """Rows of two halves of the people; each face of unknown person is a person of its own."""
    mixed = np.random.default_rng(0).permutation(np.unique(persons))
    first = np.isin(persons, mixed[::2])
    return [np.flatnonzero(first), np.flatnonzero(~first)]


def _half(whole: Labelled, rows: Ints, calibration: Calibration, folder: Path) -> Half:
    vectors = whole.vectors[rows].astype("<f2")
    return Half(
        faces=Faces(
            pairs=pairs_of(vectors, folder, floor=FLOOR),
            count=len(rows),
            vectors=vectors,
            quality=whole.quality[rows],
            calibration=calibration,
        ),
        rows=rows,
        persons=whole.persons[rows],
    )


def _crossed(
    name: str, halves: list[Half], *, size: int
) -> Iterator[tuple[str, Ints, list[Settings]]]:
    """For each figure: all faces, grouped by what was best for the other half, and that."""
    tried = settings_of(name, THRESHOLDS)
    groupings = [[RIVALS[name](half.faces, settings) for settings in tried] for half in halves]
    scores = [
        [half.judged(clusters) for clusters in found]
        for half, found in zip(halves, groupings, strict=True)
    ]
    for judged in JUDGED:
        best = [int(np.argmax([score[judged] for score in of_half])) for of_half in scores]
        clusters = np.full(size, ALONE)
        for place, half in enumerate(halves):
            found = groupings[place][best[1 - place]]
            # No number twice: clusters of the two halves have nothing to do with each other.
            clusters[half.rows] = np.where(found < 0, ALONE, 2 * found + place)
        yield judged, clusters, [tried[best[1]], tried[best[0]]]


def _measured(persons: Ints, clusters: Ints, judged: str, *, less: Ints | None = None) -> Measure:
    """A figure with its interval; `less`: less that of another grouping, in the same draws."""
    known = persons >= 0
    numbers = np.unique(persons[known], return_inverse=True)[1]
    one = _Drawn(numbers, clusters[known], judged)
    other = None if less is None else _Drawn(numbers, less[known], judged)
    count = int(numbers.max()) + 1

    def value(weights: npt.NDArray[np.float64]) -> float:
        return one(weights) - (0.0 if other is None else other(weights))

    drawn = np.array([value(weights) for weights in draws(count, seed=0)])
    return measured(value(np.ones(count)), drawn)


class _Drawn:
    """One figure of a grouping, in any draw of persons."""

    def __init__(self, numbers: Ints, clusters: Ints, judged: str) -> None:
        alone = np.flatnonzero(clusters < 0)
        own = clusters.copy()
        own[alone] = clusters.max(initial=0) + 1 + np.arange(len(alone))
        groups = np.unique(own, return_inverse=True)[1]
        kept = _kept(numbers, faces_max=FACES_MAX, seed=0)
        self._judged = judged
        self._whole = Table.of(numbers, groups)
        self._few = Table.of(numbers[kept], np.unique(groups[kept], return_inverse=True)[1])
        self._sums = self._whole.sums()

    def __call__(self, weights: npt.NDArray[np.float64]) -> float:
        found = _figures(self._whole, self._few, self._sums, weights)
        return float(getattr(found, self._judged))


def _told(measure: Measure) -> dict[str, float | None]:
    return {"value": round(measure.value, 5), "low": measure.low, "high": measure.high}
