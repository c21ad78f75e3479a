"""Comparing the pictures and faces of a collection by what is kept of their originals.

Candidates are pictures whose hashes are close, and those with faces that are alike as vectors and
as crops. Whether two of them are one is decided by their pixels (retrieval/likeness.py).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.likening import NOT_READ, Signatures
from retrieval.curation.hashes import close_pairs, distance
from retrieval.graph.making import Block
from retrieval.index.exact import cosines
from retrieval.index.view import View
from retrieval.likeness import (
    SIDE_PX,
    Agreement,
    Placed,
    agreement,
    by_landmarks,
    face_agreement,
    whole,
)
from retrieval.store.pictured import NOWHERE, Pictured, PicturedFaces
from retrieval.values import Floats, Pixels

NEIGHBOURS: Final = 32  # of each face
SIMILARITY_MIN: Final = 0.6  # of two faces; a copy with text over half the face has 0.72
CROPS_MIN: Final = 0.6  # correlation of two aligned crops; the same copy has 0.64
BITS_MAX: Final = 8  # of 64 that differ; copies that are not cropped have at most that many
VECTORS_ALONE_MIN: Final = 0.95  # where no original, or only the crop, can be compared
FACES_ALONE_MIN: Final = 0.97  # of the blocks of two crops, where what is around them differs
PAIRS_AT_ONCE: Final = 2_048
ALL_FACES_MAX: Final = 64  # of a picture, that are compared with all faces of another
Numbers = npt.NDArray[np.int64]
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLikeness:
    """How a picture is like another one."""

    share: float  # of blocks that agree
    mirrored: bool
    growth: float  # how much larger is in the second what both show


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceLikeness:
    """How a face is like another one."""

    similarity: float  # of the vectors
    share: float | None  # of blocks of the crops that agree; None: no original was compared
    mirrored: bool


@dataclass(frozen=True, slots=True)
class Near:
    """Pairs of faces that are alike, by their rows; the lower first, each once."""

    ones: Numbers
    others: Numbers
    similarities: npt.NDArray[np.float64]


def near_pairs(blocks: Iterable[Block], ids: Numbers) -> Near:
    """The edges of a graph as pairs of places among ascending ids, those that are there."""
    ones, others, similarities = [], [], []
    for block in blocks:
        of, at = np.nonzero(block.neighbours >= 0)
        ones.append(block.ids[of])
        others.append(block.neighbours[of, at])
        similarities.append(block.similarities[of, at])
    if not ones or not len(ids):
        none = np.zeros(0, np.int64)
        return Near(none, none, np.zeros(0))
    ends = np.stack([np.concatenate(ones), np.concatenate(others)])
    places = np.minimum(np.searchsorted(ids, ends), len(ids) - 1)
    there = (ids[places] == ends).all(axis=0)
    pairs = np.sort(places[:, there], axis=0)
    pairs, first = np.unique(pairs, axis=1, return_index=True)
    return Near(pairs[0], pairs[1], np.concatenate(similarities)[there][first])


class Comparing:
    """The pictures and faces of one reading, by their places in it."""

    def __init__(self, pictured: Pictured, signatures: Signatures, view: View) -> None:
        self._pictures = pictured.pictures
        self._faces = pictured.faces
        self._kept = signatures
        self._view = view

    # --- candidates --------------------------------------------------------------------------

    def picture_candidates(self, near: Near) -> list[Pair]:
        """Pairs of pictures that are worth comparing, ascending."""
        places = self._faces.places
        crops = self._crops_of_pairs(near)
        some = crops >= CROPS_MIN
        by_face = np.sort(np.stack([places[near.ones[some]], places[near.others[some]]]), axis=0)
        by_face = by_face[:, by_face[0] != by_face[1]]
        return sorted({*zip(*by_face.tolist(), strict=True), *self._close()})

    def face_candidates(self, near: Near) -> list[Pair]:
        """Pairs of faces that are worth comparing, ascending; none of one picture."""
        places = self._faces.places
        crops = self._crops_of_pairs(near)
        apart = (places[near.ones] != places[near.others]) | (places[near.ones] == NOWHERE)
        alone = np.isnan(crops) & (near.similarities >= VECTORS_ALONE_MIN)
        some = apart & ((crops >= CROPS_MIN) | alone)
        return list(zip(near.ones[some].tolist(), near.others[some].tolist(), strict=True))

    def _close(self) -> Iterator[Pair]:
        """Pairs of pictures whose hashes are close."""
        read = np.flatnonzero(self._kept.records != NOT_READ)
        records = self._kept.records[read]
        found = close_pairs(
            self._kept.hashes[records], self._kept.mirrored_hashes[records], bits=BITS_MAX
        )
        return ((int(read[one]), int(read[other])) for one, other in found)

    def _crops_of_pairs(self, near: Near) -> npt.NDArray[np.float64]:
        """How well the crops of each pair correlate, or one with the other's mirror image.

        NaN where one has no original.
        """
        found = np.full(len(near.ones), np.nan)
        pairs = np.stack([self.squares[near.ones], self.squares[near.others]])
        there = np.flatnonzero((pairs != NOWHERE).all(axis=0))
        for begin in range(0, len(there), PAIRS_AT_ONCE):
            some = there[begin : begin + PAIRS_AT_ONCE]
            ones, others = (self._kept.faces[pairs[side, some]] for side in (0, 1))
            straight, turned = (
                np.einsum("ij,ij->i", _centred(ones), _centred(each))
                for each in (others, others[:, :, ::-1])
            )
            found[some] = np.maximum(straight, turned)
        return found

    # --- decisions ---------------------------------------------------------------------------

    def pictures(self, one: int, other: int) -> PictureLikeness | None:
        """How one picture is like another; None: they are not copies of one picture."""
        records = self._kept.records[[one, other]]
        if (records == NOT_READ).any():
            return None
        first, second = (np.asarray(self._kept.greys[record]) for record in records)
        for guess in self._guesses(one, other):
            found = agreement(first, second, guess)
            if found.same_picture:
                return PictureLikeness(
                    share=found.share, mirrored=found.mirrored, growth=found.growth
                )
        return None

    def faces(self, one: int, other: int) -> FaceLikeness | None:
        """How one face is like another; None: they are not one shot."""
        similarity = self._similarity(one, other)
        squares = self.squares[[one, other]]
        if (squares == NOWHERE).any():
            if similarity < VECTORS_ALONE_MIN:
                return None
            return FaceLikeness(similarity=similarity, share=None, mirrored=False)
        if similarity < SIMILARITY_MIN:
            return None
        first, second = (np.asarray(self._kept.faces[square]) for square in squares.tolist())
        straight, turned = (
            float((_centred(first[None]) * _centred(each[None])).sum())
            for each in (second, second[:, ::-1])
        )
        mirrored = turned > straight
        found = self._laid_by_faces(one, other, mirrored=mirrored)
        if not found.same_shot:
            # The shot may have been cut out, and lie before something else.
            found = face_agreement(first, second, mirrored=mirrored)
            if similarity < VECTORS_ALONE_MIN or found.share < FACES_ALONE_MIN:
                return None
        return FaceLikeness(similarity=similarity, share=found.share, mirrored=mirrored)

    def _laid_by_faces(self, one: int, other: int, *, mirrored: bool) -> Agreement:
        records = self._kept.records[self._faces.places[[one, other]]]
        first, second = (np.asarray(self._kept.greys[record]) for record in records)
        guess = by_landmarks(self._placed(one), self._placed(other), mirrored=mirrored)
        return agreement(first, second, guess)

    def _similarity(self, one: int, other: int) -> float:
        vectors, there = self._view.vectors_of(self._faces.ids[[one, other]])
        if not there.all():
            return -1.0
        return float(cosines(vectors[:1], vectors[1].astype(np.float32))[0])

    def _guesses(self, one: int, other: int) -> Iterator[npt.NDArray[np.float64]]:
        """How one picture may lie on another, the likelier first."""
        first, second = self._rows[one], self._rows[other]
        if len(first) and len(second):
            crops = [_centred(self._squares_of(rows)) for rows in (first, second)]
            turned = _centred(self._squares_of(second)[:, :, ::-1])
            products = np.stack([crops[0] @ crops[1].T, crops[0] @ turned.T])
            mirrored, mine, its = np.unravel_index(products.argmax(), products.shape)
            if products.max() >= CROPS_MIN:
                placed = self._placed(first[mine]), self._placed(second[its])
                yield by_landmarks(*placed, mirrored=bool(mirrored))
        hashes = [int(self._kept.hashes[record]) for record in self._kept.records[[one, other]]]
        turned_hash = int(self._kept.mirrored_hashes[self._kept.records[other]])
        straight_bits, turned_bits = distance(*hashes), distance(hashes[0], turned_hash)
        if min(straight_bits, turned_bits) <= BITS_MAX:
            yield whole(SIDE_PX, mirrored=turned_bits < straight_bits)

    def _placed(self, row: int) -> Placed:
        place = self._faces.places[row]
        return Placed(
            landmarks=self._faces.landmarks[row],
            width=int(self._pictures.widths[place]),
            height=int(self._pictures.heights[place]),
        )

    def _squares_of(self, rows: Numbers) -> Pixels:
        return np.asarray(self._kept.faces[self.squares[rows]])

    @cached_property
    def _rows(self) -> list[Numbers]:
        """The largest faces of each picture that have a square."""
        rows: list[list[int]] = [[] for _ in range(len(self._pictures))]
        usable = np.flatnonzero(self.squares != NOWHERE)
        largest = np.argsort(-np.nan_to_num(self._faces.sizes[usable]), kind="stable")
        for row in usable[largest].tolist():
            of = rows[self._faces.places[row]]
            if len(of) < ALL_FACES_MAX:
                of.append(row)
        return [np.array(of, np.int64) for of in rows]

    @cached_property
    def squares(self) -> Numbers:
        """Where the square of each face is kept; NOWHERE."""
        found = np.full(len(self._faces), NOWHERE)
        with_points = seen(self._faces)
        places = self._faces.places[with_points]
        order = np.argsort(places, kind="stable")  # by picture, and by face as their landmarks were
        starts = np.searchsorted(places[order], places[order])
        nth = np.arange(len(order)) - starts
        records = self._kept.records[places[order]]
        read = records != NOT_READ
        rows = with_points[order]
        found[rows[read]] = self._kept.first_faces[records[read]] + nth[read]
        return found


def seen(faces: PicturedFaces) -> Numbers:
    """The rows of faces that lie in a picture at known landmarks."""
    known = ~np.isnan(faces.landmarks[:, 0, 0])
    return np.flatnonzero(known & (faces.places != NOWHERE))


def _centred(squares: Pixels) -> Floats:
    """Squares as rows whose products are their correlations, (n, pixels)."""
    rows = squares.reshape(len(squares), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    np.divide(rows, lengths, out=rows, where=lengths > 0)
    return rows
