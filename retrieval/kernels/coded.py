"""Searching by 1-bit codes: a query of four-bit numbers, rows scored by popcount, the best exactly.

Estimates and their errors are those of RaBitQ (Gao & Long 2024), with one frame for all rows: query
and rows are moved by one mean m and turned by one rotation, so that a row's code depends on nothing
but the row, and a query is turned once. With q and o moved and turned,

    <query, row> = <q, o> + <o, m> + <query, m>,    <q, o> ~ a sum_i sign(o_i) q_i

where a and <o, m> are kept for each row, its factors. The error is about normal, with a deviation
of less than a |q|; how much less, and how far its tail reaches, is measured on the collection.

Arrays travel in tuples, always in this order:

    table   (vectors (n * d,) uint16, scales (n,) float32, ids (n,) int64)
    coded   (codes (n * words,) uint64, factors (n * 2,) uint16, the bits of half floats)
    frame   (mean (d,) float32, signs (laps, d) float32, places (laps, d) int32)
    heap    (similarities (k,) float64, faces (k,) int64)
"""

import numpy as np

from retrieval.kernels.best import AHEAD, LINE, consider, resume, sort_heap, widened
from retrieval.kernels.compiled import inlined, kernel
from retrieval.kernels.lanes import (
    ROWS_AT_ONCE,
    bits_set,
    eight_bounds,
    fetch,
    lowest,
)

LEAST, MOST = -8, 7  # a query's numbers are so many steps: four bits, two's complement
STEPS = 7.5  # of the largest number; beyond 7 it is wrong by half a step, like any other
WORDS_AT_ONCE = 8  # a code is padded to whole vectors of the processor
LANES = 16  # numbers of a processor's vector
BATCH = 2048  # rows looked at between two looks at the stopping rule, at most
TOGETHER = 128  # rows that are worth a look
CHECKS = 16  # of the rows seen are looked at before the rule is asked again: 1 in so many
CODES_AHEAD = 16  # rows whose codes are asked for before they are needed
NEARNESS_STEPS = 256  # similarities of query and centroid, -1 to 1
WORST_STEPS = 256  # similarities of query and last neighbour, -1 to 1


@inlined
def turn(moved, scratch, signs, places):
    """Rotate a vector in place: in each lap a signed permutation, then Hadamard in blocks.

    The blocks are powers of two that make up the dimension. Where they are large, their last steps
    (within a vector of the processor) are left out: the next permutation mixes as well.
    """
    dimension = len(moved)
    for lap in range(len(signs)):
        for place in range(dimension):
            scratch[place] = moved[places[lap, place]] * signs[lap, place]
        done = 0
        while done < dimension:
            width = 1
            while done + 2 * width <= dimension:
                width *= 2
            least = LANES if width >= LANES * LANES else 1
            half = width // 2
            while half >= least:
                for begin in range(done, done + width, 2 * half):
                    for place in range(begin, begin + half):
                        one, other = scratch[place], scratch[place + half]
                        scratch[place] = one + other
                        scratch[place + half] = one - other
                half //= 2
            norm = np.float32(np.sqrt(np.float32(least) / np.float32(width)))
            for place in range(done, done + width):
                moved[place] = scratch[place] * norm
            done += width


@kernel
def turned(rows, signs, places):
    """Rotate rows (n, d) float32 in place; signs (laps, d) float32, places (laps, d) int32."""
    scratch = np.empty(rows.shape[1], np.float32)
    for row in range(len(rows)):
        turn(rows[row], scratch, signs, places)


@inlined
def coded_query(query, frame):
    """A query in four bits a number.

    Returns:
        (planes, step, shift, base, length): the similarity of a row with factors (a, g) is about
        a (step * product - shift) + g + base, and wrong by less than some a * length.
    """
    mean, signs, places = frame
    dimension = len(query)
    padded = (dimension + 511) // 512 * 512
    moved, scratch = np.empty(dimension, np.float32), np.empty(dimension, np.float32)
    base = np.float32(0.0)
    for place in range(dimension):
        moved[place] = query[place] - mean[place]
        base += query[place] * mean[place]
    turn(moved, scratch, signs, places)
    largest, square = np.float32(1e-20), np.float32(0.0)
    for place in range(dimension):
        largest = max(largest, abs(moved[place]))
        square += moved[place] * moved[place]
    step = largest / np.float32(STEPS)
    levels = np.zeros(padded, np.uint8)
    total = 0
    for place in range(dimension):
        level = np.int32(np.floor(moved[place] / step + np.float32(0.5)))
        level = min(max(level, LEAST), MOST)
        levels[place] = level & 15
        total += level
    planes = np.empty(padded // 16, np.uint64)
    for word in range(padded // 64):
        first = word // WORDS_AT_ONCE * 4 * WORDS_AT_ONCE + word % WORDS_AT_ONCE
        for bit in range(4):
            planes[first + bit * WORDS_AT_ONCE] = bits_set(levels, 64 * word, 1 << bit)
    return (
        planes,
        np.float32(2.0) * step,
        step * np.float32(total),
        base,
        np.float32(np.sqrt(square)),
    )


@inlined
def estimate(asked, numbers, count, coded, found):
    """Fill the estimated similarities, less the query's base, of the first `count` rows.

    Numbers (n,) int64 and found (n,) float32 have room for ROWS_AT_ONCE - 1 more, overwritten.
    """
    for place in range(count, min(count + ROWS_AT_ONCE - 1, len(numbers))):
        numbers[place] = numbers[count - 1]
    planes, step, shift, _, _ = asked
    for place in range(0, count, ROWS_AT_ONCE):
        eight = found[place : place + ROWS_AT_ONCE]
        eight_bounds(coded, numbers, place, (planes, step, shift), np.float32(0.0), eight)


@inlined
def batch():
    """Room for the numbers and bounds of a batch of rows, and for eight bounds."""
    return (
        np.empty(BATCH + ROWS_AT_ONCE, np.int64),
        np.empty(BATCH + ROWS_AT_ONCE, np.float32),
        np.empty(ROWS_AT_ONCE, np.float32),
    )


@inlined
def look_at(rows, count, asked, reach, probe, coded, table, heap, filled):
    """Look at the first `count` rows of a batch; give (rows kept then, rows scored exactly).

    The rows' numbers are overwritten: first those stay whose bound beats the worst of the heap.
    """
    planes, step, shift, base, _ = asked
    codes, factors = coded
    numbers, bounds, eight = rows
    words = len(planes) // 4
    full = len(heap[0])
    worst = np.float32(-3.0)
    if filled == full:
        worst = np.float32(heap[0][0]) - base
    lowered = (planes, step, shift - reach)
    last = numbers[count - 1]
    for place in range(count, min(count + ROWS_AT_ONCE, len(numbers))):
        numbers[place] = last
    kept = 0
    for place in range(0, count, ROWS_AT_ONCE):
        for later in range(place + CODES_AHEAD, min(place + CODES_AHEAD + ROWS_AT_ONCE, count)):
            fetch(factors, 2 * numbers[later])
            for word in range(0, words, WORDS_AT_ONCE):
                fetch(codes, numbers[later] * words + word)
        passing = eight_bounds((codes, factors), numbers, place, lowered, worst, eight)
        if place + ROWS_AT_ONCE > count:
            passing &= (1 << (count - place)) - 1
        while passing:
            one = lowest(np.uint64(passing))
            passing &= passing - 1
            numbers[kept] = numbers[place + one]
            bounds[kept] = eight[one]
            kept += 1
    if filled == full or kept <= full:
        return rescore(rows, kept, np.float32(-4.0), asked, probe, table, heap, filled)
    # Nothing is known yet that rows could be measured by: the most promising come first.
    first = largest(bounds, kept, full)
    filled, scored = rescore(rows, kept, first, asked, probe, table, heap, filled)
    for place in range(kept):
        bounds[place] = np.float32(-5.0) if bounds[place] >= first else bounds[place]
    filled, more = rescore(rows, kept, np.float32(-4.0), asked, probe, table, heap, filled)
    return filled, scored + more


@inlined
def largest(values, count, rank):
    """The value of that rank, 1 being the largest, of the first `count`; all but few are passed."""
    heap = np.empty(rank, values.dtype)  # the smallest first
    for place in range(count):
        value = values[place]
        if place < rank:
            at = place
            while at > 0 and heap[(at - 1) // 2] > value:
                heap[at] = heap[(at - 1) // 2]
                at = (at - 1) // 2
            heap[at] = value
        elif value > heap[0]:
            at, child = 0, 1
            while child < rank:
                if child + 1 < rank and heap[child + 1] < heap[child]:
                    child += 1
                if heap[child] >= value:
                    break
                heap[at] = heap[child]
                at, child = child, 2 * child + 1
            heap[at] = value
    return heap[0]


@inlined
def rescore(rows, kept, least, asked, probe, table, heap, filled):
    """Score the rows whose bound is at least `least` and not below the worst of the heap."""
    numbers, bounds, _ = rows
    base, full, scored = asked[3], len(heap[0]), 0
    for place in range(kept):
        bound = bounds[place]
        if bound < least or (filled == full and bound + base < np.float32(heap[0][0])):
            continue
        later = place + AHEAD
        if later < kept and bounds[later] >= least:
            start = numbers[later] * len(probe[0])
            for line in range(0, len(probe[0]), LINE):
                fetch(table[0], start + line)
        scored += 1
        filled = consider(numbers[place], probe, table, heap, filled)
    return filled, scored


@inlined
def taken(words, begin, end, numbers, count):
    """Write the numbers of the rows of one list behind `count` others; give how many there are.

    Returns:
        (count, place): the row from which on there was no more room for a whole word, or `end`.
    """
    place = begin
    while place < end and count + 64 <= BATCH:
        word = words[place >> 6] & (~np.uint64(0) << np.uint64(place & 63))
        first = place & ~63
        place = first + 64
        if place > end:
            word &= ~np.uint64(0) >> np.uint64(place - end)
            place = end
        while word:
            numbers[count] = first + lowest(word)
            count += 1
            word &= word - np.uint64(1)
    return count, place


@kernel
def best_of_codes(query, words, errors, frame, coded, table, heap, filled):
    """The best of the rows whose bits are set, all of them scored by their codes.

    Args:
        query: (d,) float32 of unit length.
        words: (n / 64,) uint64.
        errors: how many times a |q| an estimate may be too low.
        frame, coded, table, heap: see above; the heap is filled best first.
        filled: how many rows an earlier search, over other rows, has left in the heap.

    Returns:
        (rows kept, rows scored by code, rows scored exactly).
    """
    probe = widened(query)
    asked = coded_query(query, frame)
    reach = np.float32(errors) * asked[4]
    rows = batch()
    resume(heap, filled)
    looked_at, scored, place = 0, 0, 0
    while place < 64 * len(words):
        count, place = taken(words, place, 64 * len(words), rows[0], 0)
        looked_at += count
        filled, more = look_at(rows, count, asked, reach, probe, coded, table, heap, filled)
        scored += more
    sort_heap(heap, filled)
    return filled, looked_at, scored


@kernel
def best_of_coded_numbers(query, chosen, errors, frame, coded, table, heap, filled):
    """The same for rows given by their numbers, (m,)."""
    probe = widened(query)
    asked = coded_query(query, frame)
    reach = np.float32(errors) * asked[4]
    rows = batch()
    resume(heap, filled)
    scored = 0
    for begin in range(0, len(chosen), BATCH):
        count = min(BATCH, len(chosen) - begin)
        for place in range(count):
            rows[0][place] = chosen[begin + place]
        filled, more = look_at(rows, count, asked, reach, probe, coded, table, heap, filled)
        scored += more
    sort_heap(heap, filled)
    return filled, len(chosen), scored


@inlined
def ranked(asked, sizes, list_coded):
    """The lists that hold survivors, nearest first by steps of their centroid's estimate.

    Returns:
        (order, ends, held): the numbers of lists; where in `order` each step of nearness ends,
        and how many survivors its lists hold. Step 0 is a similarity of 1.
    """
    numbers = np.empty(len(sizes) + ROWS_AT_ONCE, np.int64)
    near = np.empty(len(sizes) + ROWS_AT_ONCE, np.float32)
    steps = np.empty(len(sizes), np.int32)
    ends = np.zeros(NEARNESS_STEPS + 1, np.int32)
    held = np.zeros(NEARNESS_STEPS, np.int64)
    count = 0
    for one in range(len(sizes)):
        numbers[count] = one
        count += sizes[one] > 0
    estimate(asked, numbers, count, list_coded, near)
    for place in range(count):
        one = numbers[place]
        at = np.int64((np.float32(1.0) - near[place] - asked[3]) * np.float32(0.5 * NEARNESS_STEPS))
        at = min(max(at, 0), NEARNESS_STEPS - 1)
        steps[place] = at
        ends[at + 1] += 1
        held[at] += sizes[one]
    for at in range(NEARNESS_STEPS):
        ends[at + 1] += ends[at]
    order = np.empty(count, np.int32)
    for place in range(count):
        order[ends[steps[place]]] = numbers[place]
        ends[steps[place]] += 1
    return order, ends, held


@inlined
def enough(at, seen, held, worst, chances, missed, count):
    """Whether the lists left out should hold no more than a share of what those seen hold.

    What the table expects of the lists seen is compared with the `count` neighbours that they gave:
    a filter that keeps a query's neighbours and drops others makes its survivors better than the
    table knows, and as much better in the lists left out. It is never taken to make them worse.
    """
    row = np.int64((np.float32(worst) + np.float32(1.0)) * np.float32(0.5 * WORST_STEPS))
    row = min(max(row, 0), WORST_STEPS - 1)
    known = np.float32(0.0)
    for step in range(at + 1):
        known += np.float32(seen[step]) * chances[row, step]
    left, allowed = np.float32(0.0), np.float32(missed) * min(known, np.float32(count))
    for step in range(at, NEARNESS_STEPS):
        left += np.float32(held[step]) * chances[row, step]
        if left > allowed:
            return False
    return True


@kernel
def best_of_lists(query, words, errors, missed, lists, chances, frame, coded, table, heap, filled):
    """The best of the rows whose bits are set, in the nearest lists, until few can be missed.

    Args:
        query, words, errors, frame, coded, table, heap: as for `best_of_codes`.
        missed: the share of neighbours that may be expected in the lists left out.
        lists: (sizes (l,) int32 survivors, offsets (l + 1,) int64 rows, codes and factors of the
            centroids).
        chances: (WORST_STEPS, NEARNESS_STEPS) float32, the chance that a row beats a similarity,
            by that similarity and the nearness of the row's centroid.

    Returns:
        (rows kept, rows scored by code, rows scored exactly, lists looked into).
    """
    sizes, offsets = lists[0], lists[1]
    probe = widened(query)
    asked = coded_query(query, frame)
    reach = np.float32(errors) * asked[4]
    rows = batch()
    order, ends, held = ranked(asked, sizes, (lists[2], lists[3]))
    seen = np.zeros(NEARNESS_STEPS, np.int64)
    resume(heap, filled)
    looked_at, scored, rank, at = 0, 0, 0, 0
    count, place, end, next_check = 0, 0, 0, 0
    while True:
        # Short lists are looked at together: one fetches while another is scored.
        while count + 64 <= BATCH and (place < end or (rank < len(order) and count < TOGETHER)):
            if place == end:
                while ends[at] <= rank:
                    at += 1
                one = order[rank]
                rank += 1
                held[at] -= sizes[one]
                seen[at] += sizes[one]
                place, end = offsets[one], offsets[one + 1]
            count, place = taken(words, place, end, rows[0], count)
        if count == 0:
            break
        looked_at += count
        filled, more = look_at(rows, count, asked, reach, probe, coded, table, heap, filled)
        scored += more
        count = 0
        if filled == len(heap[0]) and place == end and looked_at >= next_check:
            if enough(at, seen, held, heap[0][0], chances, missed, filled):
                break
            # Asking takes as long as some thirty rows: the more was seen, the less often.
            next_check = looked_at + looked_at // CHECKS
    sort_heap(heap, filled)
    return filled, looked_at, scored, rank
