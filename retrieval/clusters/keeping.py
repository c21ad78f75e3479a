"""Which person a group is: what earlier groupings proposed keeps its person where most stays.

A group that holds faces which people said to be a person's is that person. Of the others each takes
the earlier person of which it holds most faces, largest shares first, each person once.
"""

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
NOBODY = -1
NEW = -2  # a group that is nobody yet: `NEW - number`, numbers from 0


def persons_of(groups: Places, persons: Places, said: npt.NDArray[np.bool_]) -> Places:
    """The person of each face, (n,): NOBODY alone, and NEW and below for new ones.

    Args:
        groups: (n,) a number for each group.
        persons: (n,) whose each face is now, NOBODY for none.
        said: (n,) whether people said so; a group holds at most one such person.

    >>> persons_of(np.array([0, 0, 2, 2, 4]), np.array([7, 7, 7, -1, -1]), np.zeros(5, bool))
    array([ 7,  7, -2, -2, -1])
    """
    names, places, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    owner = np.full(len(names), NOBODY)
    owner[places[said]] = persons[said]
    taken = set(persons[said].tolist())
    free = (persons >= 0) & ~said
    pairs, counts = np.unique(np.stack([places[free], persons[free]]), axis=1, return_counts=True)
    for at in np.lexsort((pairs[1], pairs[0], -counts)):
        place, person = pairs[:, at].tolist()
        if owner[place] == NOBODY and sizes[place] > 1 and person not in taken:
            owner[place] = person
            taken.add(person)
    new = np.flatnonzero((owner == NOBODY) & (sizes > 1))
    owner[new] = NEW - np.arange(len(new))
    found: Places = owner[places]
    return found


def pairs_within(owners: Places) -> Places:
    """Every two places with one owner, (m, 2), the lower first; owners below zero own nothing.

    >>> pairs_within(np.array([5, -1, 5, 3, 5, -1])).tolist()
    [[0, 2], [0, 4], [2, 4]]
    """
    order = np.argsort(owners, kind="stable")
    order = order[owners[order] >= 0]
    begins = np.flatnonzero(np.diff(owners[order], prepend=-1))
    found = [np.empty((0, 2), np.int64)]
    for mine in np.split(order, begins[1:]):
        ones, others = np.triu_indices(len(mine), 1)
        found.append(np.stack([mine[ones], mine[others]], axis=1))
    return np.concatenate(found)
