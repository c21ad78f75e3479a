"""Sets of rows: from the codes of a column to bitmaps and row numbers, and from these to others.

Bit i of word w is row 64 w + i; the bits behind the last row are 0. Row numbers are int32. All
arrays that are only read must be read-only arrays: Numba compiles a kernel anew for each mix of
both kinds. Where rows come from a file, a kernel looks at each before it uses it, and gives
DAMAGED for one that does not exist: a flipped bit on a disk must not write into foreign memory.
"""

from typing import Any

import numpy as np

from retrieval.kernels.compares import CODES_AT_ONCE, within64
from retrieval.kernels.compiled import inlined, kernel
from retrieval.kernels.lanes import lowest, ones

DAMAGED = -1
_ONE = np.uint64(1)
_NONE = np.uint64(0)


@inlined
def _first_at_least(values: Any, value: Any) -> Any:
    """How many of the ascending values are less."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def place_of(values: Any, value: Any) -> Any:
    """Twice the number of values less than this one, plus 1 if it is one of them.

    Args:
        values: (n,) ascending, each once.
        value: of the same type.
    """
    place = _first_at_least(values, value)
    return 2 * place + (1 if place < len(values) and values[place] == value else 0)


@kernel
def place_of_word(ends: Any, text: Any, word: Any) -> Any:
    """The same for texts in byte order.

    Args:
        ends: (n + 1,) int64; text i is `text[ends[i]:ends[i + 1]]`.
        text: uint8.
        word: uint8.
    """
    low, high, equal = 0, len(ends) - 1, 0
    while low < high:
        middle = (low + high) >> 1
        begin = max(0, ends[middle])
        length = min(len(text), ends[middle + 1]) - begin
        shared = min(length, len(word))
        at = 0
        while at < shared and text[begin + at] == word[at]:
            at += 1
        less = text[begin + at] < word[at] if at < shared else length < len(word)
        if less:
            low = middle + 1
        else:
            high = middle
            equal = 1 if at == length and length == len(word) else 0
    return 2 * low + equal


@inlined
def _scan(codes: Any, low: Any, high: Any, kept: Any, words: Any) -> Any:
    """Write the rows with low <= code < high, and what `kept` leaves of the words before.

    Gives the number of rows with such codes. `kept` has all bits or none.
    """
    begin = np.uint8(low)
    span = np.uint8(high - low)
    whole = len(codes) // CODES_AT_ONCE
    count = 0
    for place in range(whole):
        found = within64(codes, CODES_AT_ONCE * place, begin, span)
        words[place] = found | (words[place] & kept)
        count += ones(found)
    if whole < len(words):
        found = _NONE
        for row in range(CODES_AT_ONCE * whole, len(codes)):
            if np.uint8(codes[row] - begin) < span:
                found |= _ONE << np.uint64(row & 63)
        words[whole] = found | (words[whole] & kept)
        count += ones(found)
    return count


@inlined
def _set(rows: Any, begin: Any, end: Any, words: Any, size: Any) -> Any:
    """Set the bits of `rows[begin:end]`; give how many rows that is, or DAMAGED."""
    if begin >= end:
        return 0
    if begin < 0 or end > len(rows):
        return DAMAGED
    for place in range(begin, end):
        row = np.int64(rows[place])
        if row < 0 or row >= size:
            return DAMAGED
        words[row >> 6] |= _ONE << np.uint64(row & 63)
    return end - begin


@kernel
def set_bits(rows: Any, size: Any, words: Any) -> Any:
    """Set the bits of rows; give how many rows there are, or DAMAGED.

    Args:
        rows: (n,) int32, each once, none of them set yet.
        size: how many rows `words` stands for.
        words: uint64, written to.
    """
    return _set(rows, 0, len(rows), words, size)


@kernel
def range_bits(
    buckets: Any, firsts: Any, starts: Any, order: Any, low: Any, high: Any, words: Any
) -> Any:
    """Write the rows whose code lies in [low, high); give their number, or DAMAGED.

    Whole buckets are found by the one byte that each row has of them, and what the range has of
    buckets at its ends by the rows themselves: of all rows there are few, however many codes.

    Args:
        buckets: (rows,) uint8, the bucket of each row.
        firsts: (buckets + 1,) int64, the first code of each bucket, then the number of codes.
        starts: (codes + 1,) int32, how many rows have a lower code.
        order: (rows,) int32 rows by code; it may be empty where each bucket has one code.
        low: int64, at least 0.
        high: int64, at most the number of codes; not all of them are in the range.
        words: (rows / 64,) uint64, written to.
    """
    first = _first_at_least(firsts, low)
    last = _first_at_least(firsts, high + 1) - 1
    if first >= last:
        words[:] = _NONE
        return _set(order, starts[low], starts[high], words, len(buckets))
    count = _scan(buckets, first, last, _NONE, words)
    left = _set(order, starts[low], starts[firsts[first]], words, len(buckets))
    right = _set(order, starts[firsts[last]], starts[high], words, len(buckets))
    return DAMAGED if left < 0 or right < 0 else count + left + right


@kernel
def ranges_bits(buckets: Any, firsts: Any, starts: Any, order: Any, bounds: Any, words: Any) -> Any:
    """The same for several ranges.

    The bounds are (2 n,) int64: low, high, low, high, ... ascending, no two ranges touch.
    """
    words[:] = _NONE
    count = 0
    for pair in range(len(bounds) // 2):
        low, high = bounds[2 * pair], bounds[2 * pair + 1]
        first = _first_at_least(firsts, low)
        last = _first_at_least(firsts, high + 1) - 1
        if first >= last:
            left = _set(order, starts[low], starts[high], words, len(buckets))
            right = 0
        else:
            count += _scan(buckets, first, last, ~_NONE, words)
            left = _set(order, starts[low], starts[firsts[first]], words, len(buckets))
            right = _set(order, starts[firsts[last]], starts[high], words, len(buckets))
        if left < 0 or right < 0:
            return DAMAGED
        count += left + right
    return count


@kernel
def keep_in_ranges(rows: Any, codes: Any, bounds: Any, kept: Any) -> Any:
    """Write the rows whose code lies in one of the ranges; give their number, or DAMAGED.

    Args:
        rows: (n,) int32.
        codes: (rows,) uint8, uint16 or uint32.
        bounds: see `ranges_bits`.
        kept: (n,) int32, written to.
    """
    count = 0
    for place in range(len(rows)):
        row = np.int64(rows[place])
        if row < 0 or row >= len(codes):
            return DAMAGED
        # A code lies in a range if the number of bounds at or below it is odd.
        below = _first_at_least(bounds, np.int64(codes[row]) + 1)
        kept[count] = rows[place]
        count += below & 1
    return count


@kernel
def keep_in_range(rows: Any, codes: Any, low: Any, high: Any, kept: Any) -> Any:
    """The same for one range."""
    count = 0
    span = np.uint32(high - low)
    begin = np.uint32(low)
    for place in range(len(rows)):
        row = np.int64(rows[place])
        if row < 0 or row >= len(codes):
            return DAMAGED
        kept[count] = rows[place]
        count += 1 if np.uint32(np.uint32(codes[row]) - begin) < span else 0
    return count


@kernel
def keep_in_bits(rows: Any, words: Any, wanted: Any, kept: Any) -> Any:
    """Write the rows whose bit is as wanted; give their number, or DAMAGED.

    Args:
        rows: (n,) int32.
        words: uint64.
        wanted: 1 or 0.
        kept: (n,) int32, written to.
    """
    count = 0
    for place in range(len(rows)):
        row = np.int64(rows[place])
        if row < 0 or (row >> 6) >= len(words):
            return DAMAGED
        kept[count] = rows[place]
        count += 1 if np.int64((words[row >> 6] >> np.uint64(row & 63)) & _ONE) == wanted else 0
    return count


@kernel
def keep_in_rows(rows: Any, others: Any, wanted: Any, kept: Any) -> Any:
    """Write the rows that are among the others, or are not; give their number.

    Args:
        rows: (n,) int32.
        others: (m,) int32, ascending.
        wanted: 1 for those that are, 0 for those that are not.
        kept: (n,) int32, written to.
    """
    count = 0
    for place in range(len(rows)):
        row = rows[place]
        at = _first_at_least(others, row)
        kept[count] = row
        count += 1 if (1 if at < len(others) and others[at] == row else 0) == wanted else 0
    return count


@kernel
def merge_rows(one: Any, two: Any, both: Any) -> Any:
    """Write the rows of two lists in order, each once; give their number.

    Args:
        one: (n,) int32, ascending.
        two: (m,) int32, ascending.
        both: (n + m,) int32, written to.
    """
    count, left, right = 0, 0, 0
    while left < len(one) and right < len(two):
        mine, other = one[left], two[right]
        both[count] = min(mine, other)
        count += 1
        left += 1 if mine <= other else 0
        right += 1 if other <= mine else 0
    for place in range(left, len(one)):
        both[count] = one[place]
        count += 1
    for place in range(right, len(two)):
        both[count] = two[place]
        count += 1
    return count


@kernel
def and_words(one: Any, two: Any, three: Any, four: Any, both: Any) -> Any:
    """Write the rows that are in all four bitmaps; give their number. One may stand for several."""
    count = 0
    for place in range(len(both)):
        bits = one[place] & two[place] & three[place] & four[place]
        both[place] = bits
        count += ones(bits)
    return count


@kernel
def or_words(one: Any, two: Any, three: Any, four: Any, both: Any) -> Any:
    """Write the rows that are in one of four bitmaps; give their number."""
    count = 0
    for place in range(len(both)):
        bits = one[place] | two[place] | three[place] | four[place]
        both[place] = bits
        count += ones(bits)
    return count


@kernel
def count_bits(words: Any) -> Any:
    """How many bits are set."""
    count = 0
    for place in range(len(words)):
        count += ones(words[place])
    return count


@kernel
def numbers_of(words: Any, rows: Any) -> Any:
    """Write the numbers of the rows whose bits are set, ascending; give how many there are.

    Args:
        words: uint64.
        rows: (n,) int32, written to; no more than n are written.
    """
    count = 0
    for place in range(len(words)):
        bits = words[place]
        while bits != _NONE and count < len(rows):
            rows[count] = 64 * place + lowest(bits)
            count += 1
            bits &= bits - _ONE
    return count


@kernel
def bits_per_block(words: Any, offsets: Any, counts: Any) -> Any:
    """Write how many bits each block has.

    Args:
        words: uint64.
        offsets: (blocks + 1,) int64, where each block begins, then where the last one ends.
        counts: (blocks,) int64, written to.
    """
    for block in range(len(counts)):
        count = 0
        for place in range(max(0, offsets[block]), min(len(words), offsets[block + 1])):
            count += ones(words[place])
        counts[block] = count


@kernel
def rows_per_block(rows: Any, offsets: Any, counts: Any) -> Any:
    """Write how many rows lie in each block of words; the rows, (n,) int32, ascend."""
    counts[:] = 0
    block = 0
    for place in range(len(rows)):
        word = np.int64(rows[place]) >> 6
        while block < len(counts) and offsets[block + 1] <= word:
            block += 1
        if block == len(counts):
            break
        counts[block] += 1
