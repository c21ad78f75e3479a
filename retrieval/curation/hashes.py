"""Pairs of close 64-bit hashes, among all pairs.

Each is compared with each. An index of parts of hashes would find the same pairs sooner where
hashes were spread evenly, which those of pictures are not.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
BLOCK: Final = 256  # rows at once: with all columns of 100,000 they fit into 200 MB


def close_pairs(hashes: Hashes, mirrored: Hashes, *, bits: int) -> Iterator[tuple[int, int]]:
    """Pairs of places, the lower first, ascending, each once, whose hashes differ in few bits.

    Args:
        hashes: (n,) of pictures.
        mirrored: (n,) of their mirror images: a pair is close also where one is close to that of
            the other.
        bits: at most so many may differ.
    """
    for begin in range(0, len(hashes), BLOCK):
        block = hashes[begin : begin + BLOCK, None]
        later = slice(begin, None)
        close = np.bitwise_count(block ^ hashes[None, later]) <= bits
        close |= np.bitwise_count(block ^ mirrored[None, later]) <= bits
        ones, others = np.nonzero(np.triu(close, k=1))
        yield from zip((ones + begin).tolist(), (others + begin).tolist(), strict=True)


def distance(one: int, other: int) -> int:
    """In how many bits two hashes differ.

    >>> distance(0b1011, 0b0010)
    2
    """
    return (one ^ other).bit_count()
