"""Joining groups of faces along edges, where their templates agree and nothing forbids it.

The state of all groups travels in one tuple:

    groups  (parents (n,) int64, sizes (n,) int32, sums (n, d) float32, weights (n, 2) float64,
             owners (n,) int64, firsts (n,) int64, lasts (n,) int64, counts (n,) int32,
             lengths (n,) float32)
    walls   (others (w,) int64, following (w,) int64)

A group is meant by its root. `sums` holds the weighted vectors added up, `lengths` how long that
is, `weights` their sum and that of their squares, `owners` the person it stands for, -1 for none.
What a group may not be joined with is a chain of walls: `firsts` and `lasts` are its ends, -1 where
there are none.
"""

import numpy as np

from retrieval.kernels.compiled import inlined, kernel, summing

GROUP_FACES = 4  # from here on a template says more than a face
FACES, MIXED, GROUPS = 0, 1, 2  # kinds of joins: none, one, both have GROUP_FACES


@inlined
def root_of(parents, place):
    """The root of a place's group, and a shorter way there."""
    while parents[place] != place:
        parents[place] = parents[parents[place]]
        place = parents[place]
    return place


@inlined
def apart(groups, walls, one, two):
    """Whether two groups must not be joined."""
    parents, owners, firsts, counts = groups[0], groups[4], groups[5], groups[7]
    if owners[one] >= 0 and owners[two] >= 0 and owners[one] != owners[two]:
        return True
    if counts[two] < counts[one]:
        one, two = two, one
    others, following = walls
    place = firsts[one]
    while place >= 0:
        if root_of(parents, others[place]) == two:
            return True
        place = following[place]
    return False


@summing
def product(one, two):
    """The inner product of two vectors."""
    total = np.float32(0.0)
    for place in range(len(one)):
        total += one[place] * two[place]
    return total


@inlined
def join(groups, walls, one, two):
    """Make two groups one; give its root."""
    parents, sizes, sums, weights, owners, firsts, lasts, counts, lengths = groups
    if sizes[one] < sizes[two] or (sizes[one] == sizes[two] and two < one):
        one, two = two, one
    parents[two] = one
    sizes[one] += sizes[two]
    for place in range(sums.shape[1]):
        sums[one, place] += sums[two, place]
    lengths[one] = np.sqrt(product(sums[one], sums[one]))
    weights[one] += weights[two]
    owners[one] = max(owners[one], owners[two])
    if firsts[one] < 0:
        firsts[one], lasts[one] = firsts[two], lasts[two]
    elif firsts[two] >= 0:
        walls[1][lasts[one]] = firsts[two]
        lasts[one] = lasts[two]
    counts[one] += counts[two]
    return one


@inlined
def agreement(groups, one, two):
    """The cosine of two templates."""
    sums, lengths = groups[2], groups[8]
    return product(sums[one], sums[two]) / (lengths[one] * lengths[two])


@inlined
def reliability(size, alike):
    """The share of a template that is the person, for faces that are so alike (Spearman-Brown)."""
    return size * alike / (1.0 + (size - 1) * alike)


@inlined
def kind_of(sizes, one, two):
    """The kind of a join."""
    return (sizes[one] >= GROUP_FACES) + (sizes[two] >= GROUP_FACES)


@inlined
def needed_of(sizes, one, two, thresholds, alike):
    """How alike the templates of two groups must be."""
    kind = kind_of(sizes, one, two)
    if kind != GROUPS:
        return thresholds[kind]
    shares = reliability(sizes[one], alike[0]) * reliability(sizes[two], alike[0])
    return alike[1] * np.sqrt(shares)


@kernel
def join_all(groups, walls, ones, others):
    """Join pairs (m,) whatever they look like; give the place of the first forbidden one, or -1."""
    parents = groups[0]
    for place in range(len(ones)):
        one, two = root_of(parents, ones[place]), root_of(parents, others[place])
        if one == two:
            continue
        if apart(groups, walls, one, two):
            return place
        join(groups, walls, one, two)
    return -1


@kernel
def join_alike(groups, walls, edges, least, thresholds, alike, joins):
    """Join along edges, the most similar first, where templates are as alike as their kind needs.

    Args:
        groups, walls: see above.
        edges: (ones (m,) int32, others (m,) int32, similarities (m,) float32), by falling
            similarity.
        least: edges below this similarity are left alone.
        thresholds: (2,) float64, for FACES and MIXED.
        alike: (similarity of two faces of a group, least similarity of two groups as persons).
        joins: (3,) int64, by kind: added to.

    Returns:
        The number of joins.
    """
    parents, sizes = groups[0], groups[1]
    ones, others, similarities = edges
    made = 0
    for edge in range(len(ones)):
        if similarities[edge] < least:
            break
        one, two = root_of(parents, ones[edge]), root_of(parents, others[edge])
        if one == two:
            continue
        kind = kind_of(sizes, one, two)
        needed = needed_of(sizes, one, two, thresholds, alike)
        if agreement(groups, one, two) < needed or apart(groups, walls, one, two):
            continue
        join(groups, walls, one, two)
        joins[kind] += 1
        made += 1
    return made


@kernel
def left_between(groups, edges):
    """Move edges between different groups to the front, in their order; give how many there are."""
    parents = groups[0]
    ones, others, similarities = edges
    kept = 0
    for edge in range(len(ones)):
        if root_of(parents, ones[edge]) != root_of(parents, others[edge]):
            ones[kept], others[kept] = ones[edge], others[edge]
            similarities[kept] = similarities[edge]
            kept += 1
    return kept


@kernel
def nearly(groups, walls, ones, others, thresholds, alike, found, needed):
    """Fill how alike the templates of two groups each are, (m,), and must be; 3 for those apart."""
    sizes = groups[1]
    for place in range(len(ones)):
        one, two = ones[place], others[place]
        found[place] = agreement(groups, one, two)
        needed[place] = needed_of(sizes, one, two, thresholds, alike)
        if apart(groups, walls, one, two):
            needed[place] = np.float32(3.0)


@kernel
def add_up(vectors, counted, owners, sums):
    """Add vectors (m, d) float32, by their weights (m,), to the sum of the owner of each, (m,)."""
    for place in range(len(vectors)):
        weight, sum_ = np.float32(counted[place]), sums[owners[place]]
        for item in range(vectors.shape[1]):
            sum_[item] += weight * vectors[place, item]
