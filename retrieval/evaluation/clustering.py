"""How well a grouping of faces agrees with who they are.

Pairwise: of the pairs put together, how many show one person (precision), and of the pairs that
show one person, how many were put together (recall). Large groups rule it, by the square of their
size, so at most so many faces a person may be counted. BCubed (Bagga and Baldwin 1998; the measure
that meets all constraints of Amigo et al. 2009): the same for each face, averaged over faces. NMI
(arithmetic mean), homogeneity and completeness compare entropies; ARI is pairs above chance.

All come from one sparse table of how many faces each person has in each cluster, so millions of
faces take seconds. scikit-learn has most of these measures, and the tests compare with it, but none
for a draw of persons (resampling.py). There the grouping stays as it is: means over faces are means
over the faces of those drawn, each face with the precision, recall and surprise that it has among
all. In pairs a person drawn w times counts genuine pairs w times, and pairs with one drawn v times
w * v times; two copies of a person never meet.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval.errors import UsageError
from retrieval.evaluation.resampling import (
    REPLICATES,
    Doubles,
    Measure,
    draws,
    measured,
    require_persons,
)
from retrieval.values import FaceIds

Ints = npt.NDArray[np.int64]

ALONE: Final = -1  # a face that no cluster was found for: a cluster of its own
FACES_MAX: Final = 20  # a person, in pairs: with 500 faces one person would outweigh 600 of 20


class Figures(NamedTuple):
    """Agreement, each from 0 to 1 but `ari` from -0.5; NaN where nothing is there to divide by."""

    pairwise_precision: float
    pairwise_recall: float
    pairwise_f: float
    bcubed_precision: float
    bcubed_recall: float
    bcubed_f: float
    ari: float
    nmi: float
    homogeneity: float
    completeness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteringReport:
    """A grouping compared with the persons known."""

    faces: int
    persons: int
    clusters: int  # with two faces or more
    alone: int  # faces that no other is with
    mixed: int  # clusters that hold faces of two persons or more
    split: int  # persons whose faces lie in two clusters or more
    faces_max: int | None  # a person, in pairwise figures; None: all
    faces_of_pairs: int  # what that leaves
    figures: dict[str, Measure | None]  # by the names of Figures; None: nothing to divide by


class Assignment(NamedTuple):
    """Which faces somebody put together."""

    faces: FaceIds  # (n,) ascending, each once
    clusters: Ints  # (n,) ALONE where there is none

    def of(self, faces: FaceIds) -> Ints:
        """The cluster of each of some faces, (m,); ALONE for those that are not here."""
        places = np.minimum(np.searchsorted(self.faces, faces), len(self.faces) - 1)
        return np.where(self.faces[places] == faces, self.clusters[places], ALONE)


def read_assignment(path: Path) -> Assignment:
    """Read a Parquet file with the columns `face` and `cluster`, or `person` in its place.

    A face without one is on its own, and so is one whose cluster is a number below zero. The file
    that `facedex cluster --out` writes has persons, of which new ones are below zero.

    Raises:
        UsageError: the file cannot be read as that, is empty, or names a face twice.
    """
    try:
        table = pq.read_table(path)
        by = "cluster" if "cluster" in table.column_names else "person"
        faces = table["face"].cast(pa.int64()).to_numpy()
        clusters = _numbers_of(table[by].combine_chunks(), alone_below=by == "cluster")
    except (OSError, ValueError, KeyError, NotImplementedError) as cause:
        raise UsageError(
            f"{path} is no Parquet file with the columns 'face' (whole numbers) and 'cluster' or"
            " 'person'"
        ) from cause
    order = np.argsort(faces, kind="stable")
    if not len(faces) or not np.diff(faces[order]).all():
        raise UsageError(f"{path} has no row, or has a face twice")
    return Assignment(faces[order], clusters[order])


def _numbers_of(column: pa.Array, *, alone_below: bool) -> Ints:
    if alone_below and pa.types.is_integer(column.type):
        column = pc.if_else(pc.less(column, 0), None, column)
    numbers: Ints = pc.fill_null(
        pc.dictionary_encode(column).indices.cast(pa.int64()), ALONE
    ).to_numpy()
    return numbers


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """How many faces each person has in each cluster: the m cells that are not empty."""

    persons: Ints  # (m,)
    clusters: Ints  # (m,)
    counts: Doubles  # (m,)
    sizes: Doubles  # (p,) of all persons
    widths: Doubles  # (c,) of all clusters

    @classmethod
    def of(cls, persons: Ints, clusters: Ints) -> "Table":
        """From numbers, each from 0 on without gaps, of each face."""
        widths = np.bincount(clusters)
        cells, counts = np.unique(persons * len(widths) + clusters, return_counts=True)
        return cls(
            persons=cells // len(widths),
            clusters=cells % len(widths),
            counts=counts.astype(np.float64),
            sizes=np.bincount(persons).astype(np.float64),
            widths=widths.astype(np.float64),
        )

    def sums(self) -> Doubles:
        """What the faces of each person add up to, (p, 7).

        In order: themselves, precision, recall, then surprise (nats) at the person, at the cluster,
        at the person once the cluster is known, at the cluster once the person is known.
        """
        size, width = self.sizes[self.persons], self.widths[self.clusters]
        faces = self.sizes.sum()
        each = (
            np.ones(len(self.counts)),
            self.counts / width,
            self.counts / size,
            np.log(faces / size),
            np.log(faces / width),
            np.log(width / self.counts),
            np.log(size / self.counts),
        )
        return np.stack([np.bincount(self.persons, self.counts * one) for one in each], axis=1)


def measure_clustering(
    persons: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    faces_max: int | None = FACES_MAX,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> ClusteringReport:
    """Compare a grouping with the persons known.

    `persons` and `clusters` are (n,) whole numbers, one of each for a face; a cluster below zero is
    a face on its own. Pairwise figures count at most `faces_max` faces of a person, drawn at
    random by the seed.

    Raises:
        UsageError: too few persons have two faces, or the arrays differ in length.
    """
    numbers, groups = _numbered(persons, clusters)
    require_persons(np.bincount(numbers))
    whole = Table.of(numbers, groups)
    kept = _kept(numbers, faces_max=faces_max, seed=seed)
    few = Table.of(numbers[kept], groups[kept])
    sums, one = whole.sums(), np.ones(len(whole.sizes))
    found = np.array(_figures(whole, few, sums, one))
    drawn = [
        _figures(whole, few, sums, weights)
        for weights in draws(len(one), seed=seed, count=replicates)
    ]
    return ClusteringReport(
        faces=len(numbers),
        persons=len(whole.sizes),
        clusters=int((whole.widths > 1).sum()),
        alone=int((whole.widths == 1).sum()),
        mixed=int((np.bincount(whole.clusters) > 1).sum()),
        split=int((np.bincount(whole.persons) > 1).sum()),
        faces_max=faces_max,
        faces_of_pairs=int(kept.sum()),
        figures={
            name: None if np.isnan(value) else measured(value, np.array(drawn)[:, place])
            for place, (name, value) in enumerate(zip(Figures._fields, found, strict=True))
        },
    )


def figures(
    persons: npt.ArrayLike, clusters: npt.ArrayLike, *, faces_max: int | None = None, seed: int = 0
) -> Figures:
    """The figures alone, in seconds for millions of faces; arguments of measure_clustering.

    >>> found = figures([1, 1, 2, 2], [0, 0, 0, -1])
    >>> round(found.pairwise_precision, 3), found.pairwise_recall, found.bcubed_recall
    (0.333, 0.5, 0.75)
    """
    numbers, groups = _numbered(persons, clusters)
    whole = few = Table.of(numbers, groups)
    if faces_max is not None:
        kept = _kept(numbers, faces_max=faces_max, seed=seed)
        few = Table.of(numbers[kept], groups[kept])
    return _figures(whole, few, whole.sums(), np.ones(len(whole.sizes)))


def _numbered(persons: npt.ArrayLike, clusters: npt.ArrayLike) -> tuple[Ints, Ints]:
    """Both from 0 on without gaps; each face below zero in a cluster of its own."""
    known, found = np.asarray(persons, np.int64), np.array(clusters, np.int64)
    if known.ndim != 1 or known.shape != found.shape or not len(known):
        raise UsageError("one person and one cluster for each face, and at least one face")
    alone = np.flatnonzero(found < 0)
    found[alone] = found.max(initial=0) + 1 + np.arange(len(alone))
    return (
        np.unique(known, return_inverse=True)[1].astype(np.int64),
        np.unique(found, return_inverse=True)[1].astype(np.int64),
    )


def _kept(numbers: Ints, *, faces_max: int | None, seed: int) -> npt.NDArray[np.bool_]:
    """At most so many faces of each person, drawn without looking at clusters."""
    kept = np.ones(len(numbers), np.bool_)
    if faces_max is None:
        return kept
    mixed = np.random.default_rng(seed).permutation(len(numbers))
    order = mixed[np.argsort(numbers[mixed], kind="stable")]
    sizes = np.bincount(numbers)
    ranks = np.arange(len(numbers)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept[order[ranks >= faces_max]] = False
    return kept


def _figures(whole: Table, few: Table, sums: Doubles, weights: Doubles) -> Figures:
    """All figures of one draw: how often each person counts, (p,)."""
    faces, precision, recall, of_person, of_cluster, person_left, cluster_left = weights @ sums
    with np.errstate(invalid="ignore", divide="ignore"):
        return Figures(
            *_pairwise(few, weights),
            float(precision / faces),
            float(recall / faces),
            float(2 * precision * recall / (precision + recall) / faces),
            _adjusted_rand(whole, weights),
            _known(person_left + cluster_left, of_person + of_cluster),
            _known(person_left, of_person),
            _known(cluster_left, of_cluster),
        )


def _known(left: float, surprise: float) -> float:
    """The share of a surprise that is gone; all of it where there was none."""
    return float(1 - left / surprise) if surprise else 1.0


def _pairwise(table: Table, weights: Doubles) -> tuple[float, float, float]:
    together, predicted, genuine = _pairs(table, weights)
    shared = np.float64(together)
    return (
        float(shared / predicted),
        float(shared / genuine),
        float(2 * shared / (predicted + genuine)),
    )


def _pairs(table: Table, weights: Doubles) -> tuple[float, float, float]:
    """Pairs of one person in one cluster, of one cluster, and of one person."""
    each = weights[table.persons]
    together = float(each @ (table.counts * (table.counts - 1))) / 2
    # Of two persons: the square of what a cluster holds without the squares of each one's own.
    held = each * table.counts
    mixed = (np.square(np.bincount(table.clusters, held)).sum() - np.square(held).sum()) / 2
    return together, together + float(mixed), float(weights @ _two_of(table.sizes))


def _adjusted_rand(table: Table, weights: Doubles) -> float:
    together, predicted, genuine = _pairs(table, weights)
    held = weights * table.sizes
    everything = genuine + (held.sum() ** 2 - np.square(held).sum()) / 2
    by_chance = predicted * np.float64(genuine) / everything
    return float((together - by_chance) / ((predicted + genuine) / 2 - by_chance))


def _two_of(counts: Doubles) -> Doubles:
    pairs: Doubles = counts * (counts - 1) / 2
    return pairs
