"""Keeping the nearest rows of every row, from blocks of similarities that matrix products gave.

Each row has a heap of so many places: `similarities` (n, places) float32 with the least one first,
`rows` (n, places) int32, and `filled` (n,) int32. A pair that is met twice is kept once.
"""

import numpy as np

from retrieval.kernels.best import consider, sort_heap, widened
from retrieval.kernels.compiled import inlined, kernel
from retrieval.kernels.lanes import half_as_float

TOGETHER = 64  # similarities that are compared at once


@inlined
def push(similarities, rows, filled, floors, owner, other, similarity):
    """Keep `other` among the nearest of `owner`, unless it is there."""
    best, numbers, count = similarities[owner], rows[owner], filled[owner]
    for place in range(count):
        if numbers[place] == other:
            return
    if count < len(best):
        place = count
        filled[owner] = count + 1
        while place > 0 and best[(place - 1) // 2] > similarity:
            best[place] = best[(place - 1) // 2]
            numbers[place] = numbers[(place - 1) // 2]
            place = (place - 1) // 2
    else:
        place, child = 0, 1
        while child < count:
            if child + 1 < count and best[child + 1] < best[child]:
                child += 1
            if best[child] >= similarity:
                break
            best[place] = best[child]
            numbers[place] = numbers[child]
            place, child = child, 2 * child + 1
    best[place] = similarity
    numbers[place] = other
    if filled[owner] == len(best):
        floors[owner] = max(floors[owner], best[0])


@kernel
def push_block(scores, asking, begin, heaps, floors):
    """Offer every pair of a block to the heaps of both of its rows.

    Args:
        scores: (a, m) float32.
        asking: (a,) int64, the rows that the first axis stands for.
        begin: the second axis stands for the m rows from here on.
        heaps: (similarities, rows, filled), see above.
        floors: (n,) float32, below which a row takes nothing.
    """
    similarities, rows, filled = heaps
    width = scores.shape[1]
    full = width // TOGETHER * TOGETHER
    mine = floors[begin : begin + width].copy()
    for place in range(len(asking)):
        owner, line = asking[place], scores[place]
        floor = floors[owner]
        for first in range(0, width, TOGETHER):
            # Whole vectors of the processor are compared first: nearly always in vain.
            if first < full:
                above = np.int32(0)
                some, least = line[first : first + TOGETHER], mine[first : first + TOGETHER]
                for other in range(TOGETHER):
                    above += np.int32(some[other] > floor) | np.int32(some[other] > least[other])
                if above == 0:
                    continue
            for other in range(first, min(first + TOGETHER, width)):
                similarity, row = line[other], begin + other
                if row == owner:
                    continue
                if similarity > floor:
                    push(similarities, rows, filled, floors, owner, row, similarity)
                    floor = floors[owner]
                if similarity > mine[other]:
                    push(similarities, rows, filled, floors, row, owner, similarity)
                    mine[other] = floors[row]


@kernel
def finish(begin, heaps, numbers, table, faces, similarities):
    """Score the rows that were kept in full, and put the best of each in order.

    Args:
        begin: the first row that is told; as many follow as `faces` has.
        heaps: see above.
        numbers: (n,) int64, where each row is in the table.
        table: as for `best_of_numbers`.
        faces: (b, k) int64 and
        similarities: (b, k) float64, filled as far as rows were kept.
    """
    _, rows, filled = heaps
    vectors, scales, ids = table
    dimension = len(vectors) // len(ids)
    query = np.empty(dimension, np.float32)
    for place in range(len(faces)):
        row = begin + place
        start = numbers[row] * dimension
        for item in range(dimension):
            query[item] = half_as_float(vectors[start + item]) * scales[numbers[row]]
        probe, heap, count = widened(query), (similarities[place], faces[place]), 0
        for other in range(filled[row]):
            count = consider(numbers[rows[row, other]], probe, table, heap, count)
        sort_heap(heap, count)
