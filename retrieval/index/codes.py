"""One bit a dimension for each row, and the frame that turns vectors into such codes.

A row is moved by the mean of the collection, turned by a random rotation, and only the signs of
its numbers are kept, with two factors (RaBitQ, Gao & Long 2024; kernels/coded.py has the estimate).
The frame belongs to a collection's space and outlives merges: a code depends on its row alone.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.index.exact import BLOCK_ROWS, Halves, frozen
from retrieval.kernels.coded import WORDS_AT_ONCE, turned
from retrieval.values import Floats, HalfRows

LAPS: Final = 3  # of the rotation; two mix every number with every other at 512 dimensions
LENGTH_MIN: Final = 1e-12  # a row that lies on the mean has no direction

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Where codes are measured from: a mean and a rotation."""

    mean: Floats  # (d,)
    signs: Floats  # (laps, d) of -1 and 1
    places: npt.NDArray[np.int32]  # (laps, d) permutations

    @property
    def arrays(self) -> tuple[Floats, Floats, npt.NDArray[np.int32]]:
        """As kernels take it."""
        return self.mean, self.signs, self.places


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """The codes of rows, as kernels take them."""

    words: Words  # (n * words of a code,)
    factors: Halves  # (n * 2,)

    @property
    def arrays(self) -> tuple[Words, Halves]:
        """As kernels take them."""
        return self.words, self.factors

    def part(self, begin: int, end: int) -> tuple[Words, Halves]:
        """Those of the rows from `begin` to before `end`."""
        words = 2 * len(self.words) // max(len(self.factors), 1)
        return self.words[begin * words : end * words], self.factors[2 * begin : 2 * end]


def frame_of(sample: Floats, *, seed: int) -> Frame:
    """A frame around the mean of a sample of unit vectors, (n, d)."""
    random = np.random.default_rng(seed)
    dimension = sample.shape[1]
    mean = sample.mean(axis=0, dtype=np.float64) if len(sample) else np.zeros(dimension)
    signs = random.choice(np.array([-1.0, 1.0], np.float32), (LAPS, dimension))
    places = np.stack([random.permutation(dimension) for _ in range(LAPS)])
    return Frame(frozen(mean.astype(np.float32)), frozen(signs), frozen(places.astype(np.int32)))


def words_of(dimension: int) -> int:
    """The length of a code: whole vectors of 512 bits."""
    return -(-dimension // (64 * WORDS_AT_ONCE)) * WORDS_AT_ONCE


def encoded(vectors: HalfRows | Floats, scales: Floats, frame: Frame) -> Codes:
    """The codes of rows (n, d) with their scales (n,); a row of scale 0 gets any code."""
    dimension = vectors.shape[1]
    rotation = np.eye(dimension, dtype=np.float32)
    turned(rotation, frame.signs, frame.places)
    words = np.zeros((len(vectors), words_of(dimension)), np.uint64)
    factors = np.zeros((len(vectors), 2), np.float16)
    for begin in range(0, len(vectors), BLOCK_ROWS):
        part = slice(begin, begin + BLOCK_ROWS)
        block = vectors[part].astype(np.float32)
        np.nan_to_num(block, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        block *= scales[part, None]
        block -= frame.mean
        factors[part, 1] = block @ frame.mean
        block = block @ rotation
        bits = np.packbits(block > 0, axis=1, bitorder="little")
        words[part].view(np.uint8)[:, : bits.shape[1]] = bits
        sums = np.abs(block).sum(axis=1)
        squares = np.einsum("ij,ij->i", block, block)
        factors[part, 0] = squares / np.maximum(sums, LENGTH_MIN)
    return Codes(frozen(words.reshape(-1)), frozen(factors.reshape(-1).view(np.uint16)))
