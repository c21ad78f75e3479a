"""The default way of grouping: along edges, if templates agree, down to where joins are chance.

Edges are taken by falling similarity. Two groups are joined if their templates, the means of their
faces weighted by quality, are alike enough: one chance edge between two people joins nothing, since
their templates differ. How alike is enough is found on the way. Similarity falls in small steps;
each step makes joins, and the calibration of the space says how many strangers would join in it by
chance. Where these are half of the joins that were made (a local false discovery rate of one half,
Efron 2007), joining ends: between single faces, and of faces with groups, each at a step of its
own. So a collection in which everybody has many pictures is joined further down than one full of
strangers.

Two groups of some faces are joined if their persons would be alike, whatever noise is in the two
templates: the cosine is divided by what noise leaves of it (Spearman 1904), which is learned from
the groups made so far. Chance tells nothing there: relatives look alike, and are not the same.

Nothing is ever joined that must be apart, and what must be together is so from the beginning.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.kernels.grouping import (
    FACES,
    GROUP_FACES,
    MIXED,
    add_up,
    join_alike,
    join_all,
    left_between,
    nearly,
)
from retrieval.limits import VECTOR_LENGTH_MIN
from retrieval.people.calibration import Calibration
from retrieval.people.template import weights
from retrieval.quality import QUALITY_FLOOR
from retrieval.values import Floats

Places = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

STEP: Final = 0.02  # of similarity
CHANCE_MAX: Final = 0.5  # of the joins of a step
CHANCE_BEGIN: Final = 1e-3  # false pairs that may be expected for each face, to begin with
FMR_MAX: Final = 1e-3  # no further down than where so many strangers are alike
LOOK_BELOW: Final = 0.06  # edges so much less alike than templates must be are looked at
ROUNDS: Final = 4  # over the edges of a step: templates grow, and reach more
PERSONS_ALIKE: Final = 0.6  # of two groups: relatives are .4 to .55, two halves of a person 1
ALIKE_FIRST: Final = 0.5  # similarity of two faces of a person, before groups tell it
DOUBTED_BELOW: Final = 3 * STEP  # pairs of groups so near to being joined are told
DOUBTS_MAX: Final = 10_000
BLOCK_ROWS: Final = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Edges between faces, each pair once."""

    ones: npt.NDArray[np.int32]  # (m,) places
    others: npt.NDArray[np.int32]  # (m,)
    similarities: Floats  # (m,)


def _none() -> Places:
    return np.empty((0, 2), np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constraints:
    """What people said, by places of faces."""

    together: Places = field(default_factory=_none)  # (m, 2)
    apart: Places = field(default_factory=_none)  # (m, 2)
    owners: Places | None = None  # (n,) persons that faces stand for, -1: none; two never join


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What joining down to a similarity gave; of FACES and MIXED each."""

    similarity: float
    joins: tuple[int, int]
    by_chance: tuple[float, float]  # strangers that were expected

    def is_chance(self, kind: int) -> bool:
        """Whether too many joins of the kind are expected to be of strangers."""
        return self.by_chance[kind] > CHANCE_MAX * max(self.joins[kind], 1)

    @property
    def chance(self) -> float:
        """The share of joins that are expected to be of strangers."""
        return min(sum(self.by_chance) / max(sum(self.joins), 1), CHANCE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Where joining ended, for faces that come later."""

    faces: float  # similarity of templates, both of few faces
    mixed: float  # of few faces and a group
    alike: float  # the mean similarity of two faces of a group


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nodes:
    """Groups, by their templates, and single faces."""

    vectors: npt.NDArray[np.floating]  # (n, d) of unit length
    weights: Doubles  # (n,) of all faces of a node together
    sizes: npt.NDArray[np.int32]  # (n,) faces


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Doubts:
    """Pairs of groups that nearly were one, the nearest first."""

    ones: Places  # (m,) places that stand for a group
    others: Places
    similarities: Floats  # of their templates


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grouping:
    """Which faces belong together."""

    groups: Places  # (n,) the lowest place of each one's group
    similarities: Floats  # (n,) to the template of the rest of its group; NaN alone
    confidence: Floats  # (n,) chance that it belongs there; NaN alone
    ended: Ended
    steps: tuple[Step, ...]
    doubts: Doubts


def group(
    vectors: npt.NDArray[np.floating],
    quality: Doubles,
    pairs: Pairs,
    *,
    calibration: Calibration,
    constraints: Constraints | None = None,
    progress: Progress = lambda *_: None,
) -> Grouping:
    """Group faces; those below the quality floor stay alone, unless people said whose they are.

    Args:
        vectors: (n, d) of unit length.
        quality: (n,) 0 to 1, NaN where unknown: the weight of a face in its template.
        pairs: neighbours; what has no edge to a group does not get into it.
        calibration: of the space: how alike strangers are.
        constraints: what people said.
        progress: called with steps done and steps in all, at most.

    Raises:
        UsageError: two faces must be together, and apart.
    """
    said = constraints or Constraints()
    state = _State(vectors, weights(quality), usable(pairs, quality, said), said)
    steps = state.descended(calibration, progress)
    return state.told(steps)


def attach(nodes: Nodes, pairs: Pairs, *, like: Ended, apart: Places) -> Places:
    """Join single faces to the groups that there are, or to each other, as a whole run ended.

    Two groups are not joined: a whole run does that.

    Args:
        nodes: groups and single faces.
        pairs: between them, none between two groups.
        like: where joining ended.
        apart: (m, 2) nodes that must not be one.

    Returns:
        The lowest node of each one's group, (n,).
    """
    owners = np.where(nodes.sizes > 1, np.arange(len(nodes.sizes)), -1)
    state = _State(
        nodes.vectors,
        nodes.weights,
        pairs,
        Constraints(apart=apart, owners=owners),
        sizes=nodes.sizes,
    )
    return state.joined_like(like)


def usable(pairs: Pairs, quality: Doubles, said: Constraints) -> Pairs:
    """The pairs in which no face is too poor to be told from others: poor faces are all alike."""
    poor = quality < QUALITY_FLOOR  # not where it is unknown
    if said.owners is not None:
        poor &= said.owners < 0
    kept = ~(poor[pairs.ones] | poor[pairs.others])
    return Pairs(pairs.ones[kept], pairs.others[kept], pairs.similarities[kept])


class _State:
    """Groups while they grow."""

    def __init__(
        self,
        vectors: npt.NDArray[np.floating],
        counted: Doubles,
        pairs: Pairs,
        constraints: Constraints,
        *,
        sizes: npt.NDArray[np.int32] | None = None,
    ) -> None:
        size = len(vectors)
        self._vectors, self._counted = vectors, counted
        order = np.lexsort((pairs.others, pairs.ones, -pairs.similarities))
        self._edges = (
            pairs.ones[order].astype(np.int32),
            pairs.others[order].astype(np.int32),
            pairs.similarities[order].astype(np.float32),
        )
        self._left = len(order)
        sums = vectors.astype(np.float32)
        sums *= counted[:, None].astype(np.float32)
        owners = constraints.owners
        self._groups = (
            np.arange(size),
            np.ones(size, np.int32) if sizes is None else sizes.astype(np.int32),
            sums,
            np.column_stack([counted, counted**2]),
            np.full(size, -1) if owners is None else owners.astype(np.int64),
            *_chains(size, constraints.apart),
            counted.astype(np.float32),
        )
        self._walls = _walls(constraints.apart)
        self._alike = ALIKE_FIRST
        self._thresholds = np.zeros(2)
        self._join_told(constraints)

    def _join_told(self, constraints: Constraints) -> None:
        """Begin with what must be together."""
        owners = self._groups[4]
        owned = np.flatnonzero(owners >= 0)
        owned = owned[np.argsort(owners[owned], kind="stable")]
        same = owners[owned[1:]] == owners[owned[:-1]]
        for ones, others in (
            (owned[:-1][same], owned[1:][same]),
            (constraints.together[:, 0], constraints.together[:, 1]),
        ):
            where = join_all(
                self._groups,
                self._walls,
                np.ascontiguousarray(ones, np.int64),
                np.ascontiguousarray(others, np.int64),
            )
            if where >= 0:
                raise UsageError(
                    "two faces must be one person, and must not: take one of the two back"
                )

    def descended(self, calibration: Calibration, progress: Progress) -> tuple[Step, ...]:
        """Join, step by step, down to where joins are chance."""
        chance = _Chance(calibration)
        begin, end = chance.range_for(len(self._vectors))
        self._thresholds[:] = begin
        self._joined(begin)
        self._alike = self._measured_alike()
        steps: list[Step] = []
        going = {FACES, MIXED}
        for number in range(1, round((begin - end) / STEP) + 1):
            similarity = begin - number * STEP
            while going:
                before = self._kept()
                step = self._step(similarity, going, chance)
                over = {kind for kind in going if step.is_chance(kind)}
                if not over:
                    steps.append(step)
                    break
                self._restore(before)
                for kind in over:
                    self._thresholds[kind] = similarity + STEP
                going -= over
            progress(number, round((begin - end) / STEP))
        return tuple(steps)

    def joined_like(self, ended: Ended) -> Places:
        """Join as another run ended; give the lowest place of each one's group."""
        self._alike = ended.alike
        self._thresholds[:] = ended.faces, ended.mixed
        self._joined(min(ended.faces, ended.mixed))
        return _lowest(_roots_of(self._groups[0]))

    def _step(self, similarity: float, going: set[int], chance: "_Chance") -> Step:
        sizes = self._groups[1][self._roots()]
        few, many = int((sizes < GROUP_FACES).sum()), int((sizes >= GROUP_FACES).sum())
        for kind in going:
            self._thresholds[kind] = similarity
        joins = self._joined(similarity)
        self._alike = self._measured_alike()
        return Step(
            similarity=round(similarity, 6),
            joins=(joins[FACES], joins[MIXED]),
            by_chance=(
                0.5 * few * few * chance.between(FACES, similarity),
                few * many * chance.between(MIXED, similarity),
            ),
        )

    def _joined(self, similarity: float) -> list[int]:
        """Join down to a similarity; give the joins by kind."""
        joins = np.zeros(3, np.int64)
        self._left = left_between(self._groups, self._some_edges())
        for _ in range(ROUNDS):
            made = join_alike(
                self._groups, self._walls, self._some_edges(), similarity - LOOK_BELOW,
                self._thresholds, (self._alike, PERSONS_ALIKE), joins,
            )  # fmt: skip
            if not made:
                break
        return [int(one) for one in joins]

    def _measured_alike(self) -> float:
        """How alike two faces of a group are, in the median of groups."""
        sizes, sums, counted = (self._groups[place] for place in (1, 2, 3))
        roots = self._roots()
        roots = roots[sizes[roots] >= GROUP_FACES]
        if not len(roots):
            return self._alike
        lengths = np.einsum("ij,ij->i", sums[roots], sums[roots], dtype=np.float64)
        total, squares = counted[roots].T
        return float(np.median((lengths - squares) / (total**2 - squares)))

    def told(self, steps: tuple[Step, ...]) -> Grouping:
        """The groups as they are now."""
        parents = self._groups[0]
        roots = _roots_of(parents)
        similarities = self._to_the_rest(roots)
        return Grouping(
            groups=_lowest(roots),
            similarities=similarities,
            confidence=_confidence(similarities, steps),
            ended=Ended(
                faces=float(self._thresholds[FACES]),
                mixed=float(self._thresholds[MIXED]),
                alike=self._alike,
            ),
            steps=steps,
            doubts=self._doubts(),
        )

    def _to_the_rest(self, roots: Places) -> Floats:
        """The similarity of each face to the template of the others of its group; NaN alone."""
        sizes, sums = self._groups[1], self._groups[2]
        found = np.full(len(roots), np.nan, np.float32)
        for begin in range(0, len(roots), BLOCK_ROWS):
            block = slice(begin, begin + BLOCK_ROWS)
            here, counted = roots[block], self._counted[block, None]
            vectors = self._vectors[block].astype(np.float32)
            rest = sums[here] - vectors * counted.astype(np.float32)
            lengths = np.linalg.norm(rest, axis=1)
            there = (sizes[here] > 1) & (lengths > VECTOR_LENGTH_MIN)
            dots = np.einsum("ij,ij->i", rest, vectors)
            found[block][there] = dots[there] / lengths[there]
        return found

    def _doubts(self) -> Doubts:
        """Pairs of groups that would have been joined a little further down."""
        self._left = left_between(self._groups, self._some_edges())
        roots = _roots_of(self._groups[0])
        ends = np.sort(np.stack([roots[of] for of in self._some_edges()[:2]]), axis=0)
        ones, others = np.unique(ends, axis=1)
        found = np.empty(len(ones), np.float32)
        needed = np.empty(len(ones), np.float32)
        nearly(
            self._groups, self._walls, ones, others,
            self._thresholds, (self._alike, PERSONS_ALIKE), found, needed,
        )  # fmt: skip
        short = needed - found
        order = np.lexsort((others, ones, short))
        order = order[short[order] <= DOUBTED_BELOW][:DOUBTS_MAX]
        return Doubts(ones=ones[order], others=others[order], similarities=found[order])

    def _some_edges(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Floats]:
        ones, others, similarities = self._edges
        return ones[: self._left], others[: self._left], similarities[: self._left]

    def _roots(self) -> Places:
        parents = self._groups[0]
        return np.flatnonzero(parents == np.arange(len(parents)))

    def _parts(self) -> list[npt.NDArray[Any]]:
        """What changes, but the sums: they are large, and follow from the rest."""
        return [*self._groups[:2], *self._groups[3:], self._walls[1]]

    def _kept(self) -> list[npt.NDArray[Any]]:
        return [part.copy() for part in self._parts()]

    def _restore(self, kept: list[npt.NDArray[Any]]) -> None:
        for part, before in zip(self._parts(), kept, strict=True):
            part[:] = before
        self._groups[2][:] = 0.0
        roots = _roots_of(self._groups[0])
        for begin in range(0, len(self._vectors), BLOCK_ROWS):
            some = slice(begin, begin + BLOCK_ROWS)
            vectors = self._vectors[some].astype(np.float32)
            add_up(vectors, self._counted[some], roots[some], self._groups[2])


class _Chance:
    """How many strangers are so alike."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    def range_for(self, faces: int) -> tuple[float, float]:
        """Where joining begins and where it ends at the latest."""
        end = self._calibration.for_fmr(FMR_MAX).similarity
        begin = float(end)
        while begin < 1.0 and 0.5 * faces * self._rate(FACES, begin) > CHANCE_BEGIN:
            begin += STEP
        return begin, float(end)

    def between(self, kind: int, similarity: float) -> float:
        """The share of comparisons of strangers in the step down to a similarity."""
        return self._rate(kind, similarity) - self._rate(kind, similarity + STEP)

    def _rate(self, kind: int, similarity: float) -> float:
        if kind == FACES:
            return self._calibration.comparisons.rate(similarity).value
        searches = self._calibration.searches
        return searches.rate(similarity).value / searches.size


def _roots_of(parents: Places) -> Places:
    """The root of every place."""
    roots = parents.copy()
    while (roots[roots] != roots).any():
        roots = roots[roots]
    return roots


def _lowest(roots: Places) -> Places:
    """The lowest place of each one's group."""
    _, firsts, groups = np.unique(roots, return_index=True, return_inverse=True)
    return firsts[groups]


def _walls(apart: Places) -> tuple[Places, Places]:
    """Each pair from both sides: whom a wall is against, and the next wall of the same face."""
    sides = np.concatenate([apart, apart[:, ::-1]])
    order = np.argsort(sides[:, 0], kind="stable")
    faces = sides[order, 0]
    following = np.arange(1, len(order) + 1)
    following[np.append(faces[1:] != faces[:-1], np.ones(min(len(faces), 1), np.bool_))] = -1
    return np.ascontiguousarray(sides[order, 1]), following


def _chains(size: int, apart: Places) -> tuple[Places, Places, npt.NDArray[np.int32]]:
    """The first and the last wall of each face, -1 where there is none, and their number."""
    counts = np.bincount(apart.ravel(), minlength=size)
    ends = np.cumsum(counts)
    some = counts > 0
    return (
        np.where(some, ends - counts, -1),
        np.where(some, ends - 1, -1),
        counts.astype(np.int32),
    )


def _confidence(similarities: Floats, steps: tuple[Step, ...]) -> Floats:
    """The chance that a face belongs where it is, from the steps that made joins at its height."""
    confidence = np.where(np.isnan(similarities), np.nan, 1.0)
    worst = 0.0
    for step in steps:
        worst = max(worst, step.chance)
        confidence[similarities < step.similarity + STEP] = 1.0 - worst
    return confidence.astype(np.float32)
