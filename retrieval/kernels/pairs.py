"""Pairs of rows that reach a similarity, from blocks of products along the main directions.

Of each row is known how long it is beside those directions, and two rows can't be more alike than
their product along them and the product of those lengths (Cauchy-Schwarz). The few pairs that can
reach a floor are scored in full, in float64.
"""

import numpy as np

from retrieval.kernels.best import cosine, widened
from retrieval.kernels.compiled import inlined, kernel
from retrieval.kernels.lanes import half_as_float

TOGETHER = 64  # pairs that are compared at once


@inlined
def probe_of(vectors, start, dimension):
    """A row of a table as a probe, not scaled: its cosines are the same from either side."""
    query = np.empty(dimension, np.float32)
    for item in range(dimension):
        query[item] = half_as_float(vectors[start + item])
    return widened(query)


@inlined
def count_in(edges, counts, similarity):
    """Count a similarity in the last bin whose lower edge it reaches."""
    low, high = 0, len(edges)
    while low < high:
        middle = (low + high) // 2
        if edges[middle] <= similarity:
            low = middle + 1
        else:
            high = middle
    if low > 0:
        counts[low - 1] += 1


@kernel
def tally(scores, slack, place, besides, owners, numbers, table, threshold, edges, counts, pairs):
    """Look at the pairs of a block until all is seen or `pairs` is nearly full.

    Args:
        scores: (a, b) float32 products along the directions.
        slack: float32, how far these may be wrong.
        place: (4,) int64: the first row and the first column of the block among all rows; the row
            of the block to begin with, which is moved on; how many pairs are there, likewise.
        besides: (n,) float32, how long each row is beside the directions.
        owners: (n,) int64; rows of one owner are no pair.
        numbers: (n,) int64, where each row is in the table.
        table: as for `best_of_numbers`.
        threshold: from this similarity on pairs are told.
        edges: (e,) float64 ascending, lower edges of bins; not above the threshold.
        counts: (e + 1,) int64, pairs in each bin are added; the last tells how many were scored.
        pairs: (similarities, ones, others), (m,) float64, int64, int64; the last place of the first
            holds the highest similarity so far, of all pairs.
    """
    vectors, _, ids = table
    similarities, ones, others = pairs
    dimension = len(vectors) // len(ids)
    height, width = scores.shape
    top, left = place[0], place[1]
    room = len(similarities) - 1
    full = width // TOGETHER * TOGETHER
    mine = besides[left : left + width]
    probed = top
    probe = probe_of(vectors, numbers[probed] * dimension, dimension)
    while place[2] < height and place[3] + width <= room:
        row = top + place[2]
        line, beside, owner = scores[place[2]], besides[row], owners[row]
        limit = np.float32(min(edges[0], similarities[room])) - slack
        for first in range(0, width, TOGETHER):
            if left + min(first + TOGETHER, width) <= row + 1:
                continue  # each pair is met once
            # Whole vectors of the processor are compared first: nearly always in vain.
            if first < full:
                some, lengths = line[first : first + TOGETHER], mine[first : first + TOGETHER]
                above = np.int32(0)
                for at in range(TOGETHER):
                    above += np.int32(some[at] + beside * lengths[at] >= limit)
                if above == 0:
                    continue
            for other in range(first, min(first + TOGETHER, width)):
                column = left + other
                if line[other] + beside * mine[other] < limit:
                    continue
                if column <= row or owners[column] == owner:
                    continue
                if probed != row:
                    probed = row
                    probe = probe_of(vectors, numbers[row] * dimension, dimension)
                found = cosine(vectors, numbers[column] * dimension, probe)
                counts[-1] += 1
                count_in(edges, counts, found)
                if found > similarities[room]:
                    similarities[room] = found
                    limit = np.float32(min(edges[0], found)) - slack
                if found >= threshold:
                    kept = place[3]
                    similarities[kept], ones[kept], others[kept] = found, row, column
                    place[3] = kept + 1
        place[2] += 1
