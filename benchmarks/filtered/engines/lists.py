"""What sweeps are made of: how many lists there are and are probed, and where exact search goes."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from benchmarks.filtered.values import Cell, Setting

LISTS_PER_ROOT: Final = 1.2  # 512 lists for 200,000 rows, 1,024 for a million
EXACT_FIRST_SHARE: Final = 0.02


def lists_for(rows: int) -> int:
    """How many inverted lists: a power of two near 1.2 times the root of the rows.

    >>> lists_for(200_000), lists_for(1_000_000)
    (512, 1024)
    """
    return int(2 ** np.round(np.log2(max(LISTS_PER_ROOT * np.sqrt(rows), 1.0))))


def doubling(first: int, last: int) -> list[int]:
    """Powers of two times `first` below `last`, and `last`.

    >>> doubling(1, 6)
    [1, 2, 4, 6]
    """
    numbers = []
    while first < last:
        numbers.append(first)
        first *= 2
    return [*numbers, last]


def with_exact(sweep: Sequence[Setting], exact: Setting, cell: Cell) -> list[Setting]:
    """The sweep with exact search where it is cheap: first if few rows pass, last if many do."""
    if cell.where is None:
        return list(sweep)
    few = cell.share <= EXACT_FIRST_SHARE
    return [exact, *sweep] if few else [*sweep, exact]
