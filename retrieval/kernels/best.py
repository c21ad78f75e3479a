"""The best rows of a search: their similarity in float64, and the heap that keeps the first k.

The similarity of a query and a row is their cosine in float64, summed by halves in an order that
only the dimension decides (`retrieval.index.exact.cosines` is the same in NumPy, to the bit). Rows
are ordered by similarity, then by id; the heap's first place holds the last of them.
"""

import numpy as np

from retrieval.kernels.compiled import inlined, kernel
from retrieval.kernels.lanes import (
    fetch,
    half_as_double,
    half_as_float,
    half_product,
    half_sums,
    lowest,
)

# A float32 inner product of unit vectors, summed in 32 lanes, is wrong by at most this for each
# addition of a lane, and for each of the additions that join them (Higham 2002, section 4.2).
ERROR_PER_SUM = 6e-8
LANES, JOINS = 32, 16
LINE = 32  # half floats of a cache line
EIGHT = 8  # doubles of a processor's vector
AHEAD = 3  # rows whose cache lines are asked for before they are needed


@inlined
def summed(values, width):
    """The sum of a power-of-two number of values, which are used up."""
    while width > 1:
        width //= 2
        for place in range(width):
            values[place] += values[width + place]
    return values[0]


@inlined
def widened(query):
    """A probe: the query, room for float64 sums that begins with it, and the sum of its squares."""
    width = width_of(len(query))
    wide = np.zeros(3 * width)
    for place in range(len(query)):
        wide[place] = query[place]
    for place in range(width):
        wide[width + place] = wide[place] * wide[place]
    return query, wide, summed(wide[width : 2 * width], width)


@inlined
def cosine(rows, start, probe):
    """The similarity of a row and a probe, float64 in [-1, 1]."""
    query, wide, square = probe
    dimension = len(query)
    width = len(wide) // 3
    if dimension % EIGHT == 0 and width > EIGHT:
        dot, squares = half_sums(rows, start, wide, dimension)
    else:
        dot, squares = _plain_sums(rows, start, wide, dimension)
    length = np.sqrt(squares) * np.sqrt(square)
    return min(max(dot / length, -1.0), 1.0)


@inlined
def _plain_sums(rows, start, wide, dimension):
    """`half_sums` for rows that are not made of whole vectors of the processor."""
    width = len(wide) // 3
    products, squares = wide[width : 2 * width], wide[2 * width :]
    for place in range(dimension):
        value = half_as_double(rows[start + place])
        products[place] = value * wide[place]
        squares[place] = value * value
    for place in range(dimension, width):
        products[place] = 0.0
        squares[place] = 0.0
    return summed(products, width), summed(squares, width)


@inlined
def before(similarity, face, other_similarity, other_face):
    """Whether the first of two rows comes first in an answer."""
    return similarity > other_similarity or (similarity == other_similarity and face < other_face)


@inlined
def keep(similarities, faces, filled, similarity, face):
    """Put a row into the heap if it belongs there; give the number of rows kept then."""
    if filled < len(faces):
        place = filled
        while place > 0:
            parent = (place - 1) // 2
            if not before(similarities[parent], faces[parent], similarity, face):
                break
            similarities[place] = similarities[parent]
            faces[place] = faces[parent]
            place = parent
        similarities[place] = similarity
        faces[place] = face
        return filled + 1
    if before(similarity, face, similarities[0], faces[0]):
        sink(similarities, faces, filled, similarity, face)
    return filled


@inlined
def sink(similarities, faces, filled, similarity, face):
    """Put a row in the place of the last, and down to where it belongs."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= filled:
            break
        if child + 1 < filled and before(
            similarities[child], faces[child], similarities[child + 1], faces[child + 1]
        ):
            child += 1
        if not before(similarity, face, similarities[child], faces[child]):
            break
        similarities[place] = similarities[child]
        faces[place] = faces[child]
        place = child
    similarities[place] = similarity
    faces[place] = face


@inlined
def replaced(best, value):
    """Put a value in the place of the least of a heap of values."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= len(best):
            break
        if child + 1 < len(best) and best[child + 1] < best[child]:
            child += 1
        if value <= best[child]:
            break
        best[place] = best[child]
        place = child
    best[place] = value


@inlined
def resume(heap, filled):
    """Make a heap of what an earlier search has sorted: the last first is one."""
    similarities, faces = heap
    for place in range(filled // 2):
        other = filled - 1 - place
        similarities[place], similarities[other] = similarities[other], similarities[place]
        faces[place], faces[other] = faces[other], faces[place]


@inlined
def sort_heap(heap, filled):
    """Order what the heap keeps: first the best."""
    similarities, faces = heap
    for end in range(filled - 1, 0, -1):
        similarity, face = similarities[end], faces[end]
        similarities[end], faces[end] = similarities[0], faces[0]
        sink(similarities, faces, end, similarity, face)


@inlined
def slack(dimension):
    """How far a float32 similarity may be from the true one."""
    return np.float32((dimension // LANES + JOINS) * ERROR_PER_SUM)


@inlined
def consider(row, probe, table, heap, filled):
    """Score a row, and keep it if it belongs to the best; give the number of rows kept then."""
    query = probe[0]
    vectors, scales, ids = table
    start = row * len(query)
    quick = half_product(vectors, start, query, len(query)) * scales[row]
    # Below the worst by more than its error a row is out; else float64 decides.
    if filled == len(heap[0]) and quick < np.float32(heap[0][0]) - slack(len(query)):
        return filled
    return keep(heap[0], heap[1], filled, cosine(vectors, start, probe), ids[row])


@kernel
def best_of_numbers(query, numbers, table, heap, filled):
    """Score these rows exactly and keep the best.

    Args:
        query: (d,) float32 of unit length.
        numbers: (m,) integers, rows.
        table: (vectors (n * d,) uint16, the bits of half floats; scales (n,) float32, 1 / length of
            each row; ids (n,) int64).
        heap: (similarities (k,) float64, faces (k,) int64), filled best first.
        filled: how many rows an earlier search, over other rows, has left in the heap.

    Returns:
        How many rows are kept, at most k.
    """
    vectors, scales, ids = table
    dimension, count, wanted = len(query), len(numbers), len(heap[0])
    quick = np.empty(count, np.float32)
    best = np.full(min(wanted, count), np.float32(-2.0))  # a heap: first the last of the best
    for place in range(count):
        if place + AHEAD < count:
            start = np.int64(numbers[place + AHEAD]) * dimension
            for line in range(0, dimension, LINE):
                fetch(vectors, start + line)
        row = np.int64(numbers[place])
        quick[place] = half_product(vectors, row * dimension, query, dimension) * scales[row]
        if quick[place] > best[0]:
            replaced(best, quick[place])
    # Of the two that are compared each may be wrong by the slack; what is less is none of the best.
    floor = best[0] - 2 * slack(dimension) if count >= wanted else np.float32(-2.0)
    if filled == wanted:
        floor = max(floor, np.float32(heap[0][filled - 1]) - slack(dimension))
    probe = widened(query)
    resume(heap, filled)
    for place in range(count):
        if quick[place] >= floor:
            row = np.int64(numbers[place])
            found = cosine(vectors, row * dimension, probe)
            filled = keep(heap[0], heap[1], filled, found, ids[row])
    sort_heap(heap, filled)
    return filled


@kernel
def best_of_bitmap(query, words, table, heap, filled):
    """The same for the rows whose bits are set in (n / 64,) uint64 words."""
    probe = widened(query)
    resume(heap, filled)
    for place in range(len(words)):
        left = words[place]
        while left:
            row = 64 * place + lowest(left)
            left &= left - np.uint64(1)
            filled = consider(row, probe, table, heap, filled)
    sort_heap(heap, filled)
    return filled


@kernel
def measure(vectors, dimension, scales):
    """Fill 1 / length of each row (n,) float32 of half floats; 0 for one that points nowhere."""
    wide = np.zeros(3 * width_of(dimension))
    for row in range(len(scales)):
        if dimension % EIGHT == 0 and len(wide) > 3 * EIGHT:
            square = half_sums(vectors, row * dimension, wide, dimension)[1]
        else:
            square = _plain_sums(vectors, row * dimension, wide, dimension)[1]
        good = np.isfinite(square) and square > 0.0
        scales[row] = np.float32(1.0 / np.sqrt(square)) if good else np.float32(0.0)


@kernel
def widen(numbers, table, wide):
    """Copy rows (m,) of a table into (m, d) float32 of unit length."""
    vectors, scales, _ = table
    dimension = wide.shape[1]
    for place in range(len(numbers)):
        row = np.int64(numbers[place])
        for item in range(dimension):
            wide[place, item] = half_as_float(vectors[row * dimension + item]) * scales[row]


@inlined
def width_of(size):
    """The smallest power of two that is not below a size."""
    width = 1
    while width < size:
        width *= 2
    return width
