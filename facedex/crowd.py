"""The faces that are grouped, with their vectors and what people said of them."""

import shutil
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from retrieval.clusters import keeping, methods
from retrieval.clusters.grouping import (
    LOOK_BELOW,
    Constraints,
    Ended,
    Grouping,
    Nodes,
    Pairs,
    attach,
    group,
    usable,
)
from retrieval.clusters.methods import Method
from retrieval.errors import UsageError
from retrieval.filters.parse import parse
from retrieval.filters.tree import Filter
from retrieval.graph.edges import edges_of
from retrieval.graph.making import neighbours
from retrieval.index.exact import Mask, places_in
from retrieval.index.view import View
from retrieval.kernels.grouping import add_up
from retrieval.limits import VECTOR_LENGTH_MIN
from retrieval.people.calibration import Calibration
from retrieval.people.template import weights
from retrieval.store import clusterings as kept
from retrieval.store.clusterings import Standing
from retrieval.store.collections import space_of
from retrieval.store.holdings import Kind
from retrieval.values import Collection, Floats

if TYPE_CHECKING:
    from facedex.handle import Facedex

Progress = Callable[[str, int, int], None]  # what is done, done, of all
Places = npt.NDArray[np.int64]
NEIGHBOURS: Final = 80  # of each face: a larger group hangs together by some of them
RECALL: Final = 0.95
FMR_MAX: Final = 1e-3  # edges less alike than so many strangers are not looked at
LIBRARY_FMR: Final = 1e-5  # of a library's method, where nobody names a threshold
NODES_AT_ONCE: Final = 4_096
FACES_AT_ONCE: Final = 16_384


class Crowd:
    """Faces of a collection at one moment."""

    def __init__(self, facedex: "Facedex", where: str | None) -> None:
        self.collection: Collection = facedex.collection()
        self.calibration: Calibration = facedex.recognition.calibration()
        reader = facedex.opened(facedex.holding(self.collection, Kind.FACES))
        reader.refresh()
        self._view: View = reader.view
        self._folder = facedex.settings.home / "graphs" / str(self.collection.id)
        fields = facedex.fields(self.collection)
        self._filter: Filter | None = None if where is None else parse(where, fields)
        standing = kept.read_standing(
            facedex.store, collection=self.collection, filter_=self._filter
        )
        _, there = self._view.vectors_of(standing.faces)
        self.standing: Standing = standing.some(there)
        with facedex.store.reading() as connection:
            self.space = space_of(connection, self.collection)
            self._rejected = kept.rejections(connection, self.collection)
            self._last = kept.last_of(connection, collection=self.collection, space=self.space)
        self.ended = Ended(faces=1.0, mixed=1.0, alike=1.0)

    def grouped(self, progress: Progress) -> Grouping:
        """Group all by templates."""
        pairs = self._pairs(progress)
        return group(
            self._view.vectors_of(self.standing.faces)[0],
            self.standing.quality,
            pairs,
            calibration=self.calibration,
            constraints=self._constraints(),
            progress=lambda done, of_all: progress("grouping", done, of_all),
        )

    def forgetful(self) -> "Crowd":
        """The same faces as if nobody had said who they are; those of one picture stay apart."""
        blank = copy(self)
        blank.standing = replace(
            self.standing,
            persons=np.full(len(self.standing), kept.NOBODY),
            said=np.zeros(len(self.standing), np.bool_),
        )
        blank._rejected = self._rejected[:0]  # noqa: SLF001 - it is a Crowd
        return blank

    def grouped_by(self, method: Method, threshold: float | None, progress: Progress) -> Places:
        """Group all by a library."""
        if threshold is None:
            threshold = self.calibration.for_fmr(LIBRARY_FMR).similarity
        self.ended = Ended(faces=threshold, mixed=threshold, alike=threshold)
        pairs = self._pairs(progress)
        return methods.grouped(method, pairs, size=len(self.standing), threshold=threshold)

    def attached(self, progress: Progress) -> Places:
        """The person of each face once those that nobody saw have joined."""
        if self._last is None:
            raise UsageError(
                "nothing was grouped yet: run `facedex cluster` once, later `facedex cluster --new`"
            )
        self.ended = self._last.ended
        standing = self.standing
        owned, single = standing.persons >= 0, standing.seen & (standing.persons < 0)
        new = ~owned & ~single
        nodes, of_face = self._nodes(owned, single, new)
        first_new = len(nodes.sizes) - int(new.sum())
        pairs = self._pairs_of_new(nodes, first_new, progress)
        quality = np.full(len(nodes.sizes), np.nan)
        quality[of_face[~owned]] = standing.quality[~owned]
        lowest = attach(
            nodes,
            usable(pairs, quality, Constraints()),
            like=self.ended,
            apart=of_face[self._apart()],
        )
        groups = lowest[of_face]
        return keeping.persons_of(groups, standing.persons, owned)

    def _nodes(self, owned: Mask, single: Mask, new: Mask) -> tuple[Nodes, Places]:
        """A node for each person, then for each single face, new ones last; and of each face."""
        standing = self.standing
        persons, of_owned = np.unique(standing.persons[owned], return_inverse=True)
        alone = np.concatenate([np.flatnonzero(single), np.flatnonzero(new)])
        of_face = np.empty(len(standing), np.int64)
        of_face[owned] = of_owned
        of_face[alone] = len(persons) + np.arange(len(alone))
        counted = weights(standing.quality)
        total = len(persons) + len(alone)
        vectors = np.zeros((total, self._view.dimension), np.float32)
        for begin in range(0, len(standing), FACES_AT_ONCE):
            some = slice(begin, begin + FACES_AT_ONCE)
            halves = self._view.vectors_of(standing.faces[some])[0]
            add_up(halves.astype(np.float32), counted[some], of_face[some], vectors)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.maximum(lengths, VECTOR_LENGTH_MIN)
        sizes = np.bincount(of_face, minlength=total).astype(np.int32)
        # A person of one face is a person all the same: two of them never join.
        sizes[: len(persons)] = np.maximum(sizes[: len(persons)], 2)
        heavy = np.bincount(of_face, weights=counted, minlength=total).astype(np.float64)
        return Nodes(vectors=vectors, weights=heavy, sizes=sizes), of_face

    def _pairs_of_new(self, nodes: Nodes, first: int, progress: Progress) -> Pairs:
        """New faces with all nodes before them, by one product a block."""
        vectors, floor = nodes.vectors, self._floor()
        found = []
        total = len(vectors)
        for begin in range(first, total, NODES_AT_ONCE):
            end = min(begin + NODES_AT_ONCE, total)
            for start in range(0, end, NODES_AT_ONCE):
                scores = vectors[begin:end] @ vectors[start : min(start + NODES_AT_ONCE, end)].T
                ones, others = np.nonzero(scores >= floor)
                similarities = scores[ones, others]
                before = others + start < ones + begin
                found.append((ones[before] + begin, others[before] + start, similarities[before]))
            progress("comparing", end - first, total - first)
        return _joined(found)

    def _pairs(self, progress: Progress) -> Pairs:
        """Near faces, each pair once."""
        faces, found = self.standing.faces, []
        for block in neighbours(
            self._view,
            count=NEIGHBOURS,
            recall=RECALL,
            filter_=self._filter,
            floor=self._floor(),
            folder=self._folder,
            progress=lambda done, of_all: progress("comparing", done, of_all),
        ):
            edges = edges_of(block)
            ones, others = places_in(faces, edges.faces), places_in(faces, edges.neighbours)
            there = (ones >= 0) & (others >= 0)
            found.append((ones[there], others[there], edges.similarities[there]))
        shutil.rmtree(self._folder, ignore_errors=True)  # it is there for runs that are cut off
        both = _joined(found)
        keys = np.minimum(both.ones, both.others).astype(np.int64) << 32
        keys |= np.maximum(both.ones, both.others)
        _, firsts = np.unique(keys, return_index=True)
        return Pairs(both.ones[firsts], both.others[firsts], both.similarities[firsts])

    def _floor(self) -> float:
        return self.calibration.for_fmr(FMR_MAX).similarity - LOOK_BELOW

    def _constraints(self) -> Constraints:
        standing = self.standing
        owners = np.where(standing.said, standing.persons, kept.NOBODY)
        return Constraints(apart=self._apart(), owners=owners)

    def _apart(self) -> Places:
        """Faces of one picture, and faces with one of a person that they are not, (m, 2)."""
        standing = self.standing
        of_one = keeping.pairs_within(standing.images)
        same = standing.persons[of_one[:, 0]] == standing.persons[of_one[:, 1]]
        both = standing.said[of_one].all(axis=1) & same  # people say that both are one person
        firsts = np.full(len(self._rejected), -1)
        said = np.flatnonzero(standing.said)
        order = said[np.argsort(standing.persons[said], kind="stable")]
        at = np.searchsorted(standing.persons[order], self._rejected[:, 1])
        inside = at < len(order)
        firsts[inside] = order[at[inside]]
        faces = places_in(standing.faces, self._rejected[:, 0])
        right = (firsts >= 0) & (faces >= 0)
        right &= standing.persons[firsts] == self._rejected[:, 1]
        told = np.stack([faces, firsts], axis=1)[right & (faces != firsts)]
        return np.concatenate([of_one[~both], told])


def _joined(found: list[tuple[Places, Places, Floats]]) -> Pairs:
    if not found:
        return Pairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
    ones, others, similarities = (np.concatenate(of) for of in zip(*found, strict=True))
    return Pairs(ones.astype(np.int32), others.astype(np.int32), similarities.astype(np.float32))
