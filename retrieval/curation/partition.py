"""Parts of a data set: groups of faces that must stay together, dealt out to given shares.

What hangs together (faces of a person, persons that may be one, faces in one picture) is a group,
and a group goes as a whole into one part. Groups come in an order drawn by a seed, each into the
part that lacks most faces. So no part ends further from its share than the largest group is large:
a part gets a group only while it lacks at least as many faces as any other, hence no two parts'
lacks differ by more than one group in the end, and all lacks add up to nothing. A group's size has
no say in its place, so that all parts have large and small persons; but some small groups are held
back for the end, where they even out what large ones left uneven.

Where a field is to be balanced, groups come by its values, and what a part lacks is counted value
by value: then each value has its shares, as nearly as its groups allow, and so has the whole.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrieval.errors import UsageError

Numbers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

SUM_ERROR_MAX: Final = 1e-6  # of shares
PARTS_MAX: Final = 100
_NAME: Final = re.compile(r"[\w.-]{1,64}")


def read_parts(written: str) -> dict[str, float]:
    """The shares of parts, which add up to 1.

    >>> read_parts("train=.8,val=.1,test=.1")
    {'train': 0.8, 'val': 0.1, 'test': 0.1}

    Raises:
        UsageError: it is something else.
    """
    shares: dict[str, float] = {}
    for one in written.split(","):
        name, _, share = (piece.strip() for piece in one.partition("="))
        if not _NAME.fullmatch(name) or name in shares:
            raise UsageError("parts are NAME=SHARE, with a comma between: train=.8,val=.1,test=.1")
        try:
            shares[name] = float(share)
        except ValueError as cause:
            raise UsageError(f"the share of '{name}' is no number") from cause
        if not 0.0 < shares[name] < 1.0:
            raise UsageError(f"the share of '{name}' is not above 0 and below 1")
    if not math.isclose(sum(shares.values()), 1.0, abs_tol=SUM_ERROR_MAX):
        raise UsageError(f"the shares of parts add up to {sum(shares.values()):.6g}, not to 1")
    if len(shares) > PARTS_MAX:
        raise UsageError(f"{len(shares)} parts; at most {PARTS_MAX} are made")
    return shares


def groups_of(size: int, pairs: npt.NDArray[np.int64]) -> Numbers:
    """Which of `size` things hang together by pairs (m, 2): a number for each, (size,).

    Groups are numbered by their first member.

    >>> groups_of(5, np.array([[3, 1], [1, 4]])).tolist()
    [0, 1, 2, 1, 1]
    """
    ones, others = pairs.reshape(-1, 2).T
    graph = coo_array((np.ones(len(ones), np.bool_), (ones, others)), shape=(size, size))
    found = connected_components(graph, directed=False)[1]
    _, firsts, places = np.unique(found, return_index=True, return_inverse=True)
    ranks = np.empty(len(firsts), np.int64)
    ranks[np.argsort(firsts)] = np.arange(len(firsts))
    return ranks[places]


def majority(groups: Numbers, values: Numbers) -> Numbers:
    """The most frequent value of each group, the lowest of several; groups are 0 to g - 1.

    >>> majority(np.array([0, 0, 0, 1, 1]), np.array([7, 5, 5, 2, 1])).tolist()
    [5, 1]
    """
    pairs, counts = np.unique(np.stack([groups, values]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    _, firsts = np.unique(pairs[0][order], return_index=True)
    most: Numbers = pairs[1][order][firsts]
    return most


def dealt(
    sizes: Numbers, shares: Mapping[str, float], *, seed: int, values: Numbers | None = None
) -> Numbers:
    """The part of each group, (g,) places among `shares`.

    Args:
        sizes: (g,) faces of each group.
        shares: of the parts, which add up to 1.
        seed: of the order.
        values: (g,) to be balanced.
    """
    kinds = np.zeros(len(sizes), np.int64) if values is None else values
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = _with_reserve(order, sizes, len(shares))
    wanted = list(shares.values())
    lacks = [0.0] * len(wanted)
    parts = np.empty(len(sizes), np.int64)
    for kind in _largest_first(kinds, sizes):
        mine = order[kinds[order] == kind]
        total = float(sizes[mine].sum())
        lacks = [lack + share * total for lack, share in zip(lacks, wanted, strict=True)]
        for group, size in zip(mine.tolist(), sizes[mine].tolist(), strict=True):
            part = max(range(len(lacks)), key=lacks.__getitem__)
            parts[group] = part
            lacks[part] -= size
    return parts


def _with_reserve(order: Numbers, sizes: Numbers, parts: int) -> Numbers:
    """The same order, but its last small groups come after all others, enough to even all out."""
    small = order[sizes[order] <= sizes.mean()] if len(order) else order
    behind = np.cumsum(sizes[small][::-1])[::-1]  # faces of a group and all small ones after it
    held = small[behind <= parts * sizes.max(initial=0)]
    return np.concatenate([order[~np.isin(order, held)], held])


def _largest_first(kinds: Numbers, sizes: Numbers) -> Sequence[int]:
    """The values by their faces: what is left over by a large one, small ones can make up for."""
    found, places = np.unique(kinds, return_inverse=True)
    faces = np.bincount(places, weights=sizes, minlength=len(found))
    order: list[int] = found[np.lexsort((found, -faces))].tolist()
    return order
