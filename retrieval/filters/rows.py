"""Which rows pass a filter: a few row numbers, or one bit for each row.

A set that came as row numbers stays so as long as it is small: searches over few rows, and most
filters with a rare part in them, never touch memory that grows with the gallery. A value never
changes, so that it may be kept, and several searches may use it at once.
"""

from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import SnapshotUnusableError
from retrieval.kernels import bits

Words = npt.NDArray[np.uint64]  # bit i of word w is row 64 w + i, as faiss.IDSelectorBitmap reads
RowNumbers = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

WORD_BITS: Final = 64
NUMBERS_SHARE: Final = 32  # up to one row in 32, numbers are no larger than the bitmap
AT_ONCE: Final = 4  # bitmaps that the kernels take


@dataclass(slots=True, eq=False)  # frozen ones take three times as long to make
class RowSet:
    """`count` of the rows 0 to `size` - 1, held in one of two ways; the other one is None."""

    size: int
    count: int
    numbers: RowNumbers | None  # (count,) ascending
    words: Words | None  # (size / 64, rounded up); the bits behind the last row are 0

    @classmethod
    def of_numbers(cls, numbers: npt.NDArray[np.integer[Any]], *, size: int) -> "RowSet":
        """The rows of these numbers, which ascend."""
        return cls(size, len(numbers), read_only(np.array(numbers, np.int32)), None)

    @classmethod
    def of_bitmap(cls, words: Words, *, size: int) -> "RowSet":
        """The rows whose bits are set in words that are not written to from now on."""
        words = read_only(words.view())
        return cls(size, bits.count_bits(words), None, words)

    @classmethod
    def of_mask(cls, mask: Mask) -> "RowSet":
        """The rows whose item is true."""
        words = np.zeros(words_for(len(mask)), np.uint64)
        packed = np.packbits(mask, bitorder="little")
        words.view(np.uint8)[: len(packed)] = packed
        return cls.of_bitmap(words, size=len(mask))

    @classmethod
    def all(cls, size: int) -> "RowSet":
        """Every row."""
        words = np.full(words_for(size), ~np.uint64(0))
        if size % WORD_BITS:
            words[-1] = (1 << size % WORD_BITS) - 1
        return cls(size, size, None, read_only(words))

    @classmethod
    def none(cls, size: int) -> "RowSet":
        """No row."""
        return cls(size, 0, _NO_NUMBERS, None)

    @property
    def nbytes(self) -> int:
        """The memory that the rows take."""
        return sum(held.nbytes for held in (self.numbers, self.words) if held is not None)

    def bitmap(self) -> Words:
        """One bit a row, (size / 64, rounded up) uint64, read-only."""
        if self.words is not None:
            return self.words
        return scattered(self.row_numbers(), size=self.size)

    def row_numbers(self) -> RowNumbers:
        """The rows in ascending order, (count,) int32, read-only."""
        if self.numbers is not None:
            return self.numbers
        rows = np.empty(self.count, np.int32)
        # A damaged file may promise more rows than there are: what was not written is not given.
        return read_only(rows[: bits.numbers_of(self.bitmap(), rows)])

    def mask(self) -> Mask:
        """One item a row, (size,) bool, in an array that the caller may write to."""
        if self.numbers is not None:
            mask = np.zeros(self.size, np.bool_)
            mask[self.numbers] = True
            return mask
        return unpacked(self.bitmap(), size=self.size)

    def listed(self) -> tuple[RowNumbers, bool] | None:
        """The rows, if they are numbers, and that they ascend."""
        return None if self.numbers is None else (self.numbers, True)

    def keep(self, rows: RowNumbers) -> RowNumbers:
        """Those of some rows that are here, in the same order."""
        return self._kept(rows, wanted=1)

    def drop(self, rows: RowNumbers) -> RowNumbers:
        """Those of some rows that are not here, in the same order."""
        return self._kept(rows, wanted=0)

    def counts_per_block(self, offsets: Counts) -> Counts:
        """How many rows lie in each inverted list, (lists,) int64.

        Args:
            offsets: (lists + 1,) int64, read-only: the word where each list begins, then where the
                last one ends.
        """
        counts = np.empty(len(offsets) - 1, np.int64)
        if self.numbers is not None:
            bits.rows_per_block(self.numbers, offsets, counts)
        else:
            bits.bits_per_block(self.bitmap(), offsets, counts)
        return counts

    def intersection(self, words: Words) -> "RowSet":
        """The rows whose bits are also set in a read-only bitmap of as many rows."""
        if self.numbers is not None:
            kept = np.empty(len(self.numbers), np.int32)
            count = sound(bits.keep_in_bits(self.numbers, words, 1, kept))
            rows = self.numbers if count == self.count else read_only(kept[:count])
            return RowSet(self.size, count, rows, None)
        return intersection([self, RowSet(self.size, self.size, None, words)])

    def union(self, words: Words) -> "RowSet":
        """The rows that are here, or whose bits are set in a read-only bitmap of as many rows."""
        return union([self, RowSet(self.size, self.size, None, words)])

    def replaced(
        self, gone: npt.NDArray[np.integer[Any]], come: npt.NDArray[np.integer[Any]]
    ) -> "RowSet":
        """The rows without some, and with others."""
        if self.numbers is not None:
            kept = self.numbers[~np.isin(self.numbers, gone)]
            return RowSet.of_numbers(np.union1d(kept, come), size=self.size)
        words = self.bitmap() & ~scattered(read_only(gone.astype(np.int32)), size=self.size)
        words |= scattered(read_only(come.astype(np.int32)), size=self.size)
        return RowSet.of_bitmap(words, size=self.size)

    def _kept(self, rows: RowNumbers, *, wanted: int) -> RowNumbers:
        kept = np.empty(len(rows), np.int32)
        if self.numbers is not None:
            return first(kept, bits.keep_in_rows(rows, self.numbers, wanted, kept))
        return first(kept, bits.keep_in_bits(rows, self.bitmap(), wanted, kept))


_NO_NUMBERS: Final = np.empty(0, np.int32)
_NO_NUMBERS.setflags(write=False)


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, which nobody writes to from now on: kernels are compiled for such."""
    array.setflags(write=False)
    return array


def first(rows: RowNumbers, count: int) -> RowNumbers:
    """What a kernel has written, by the number that it gave."""
    return read_only(rows[: sound(count)])


def words_for(size: int) -> int:
    """How many words hold that many bits."""
    return -(-size // WORD_BITS)


def scattered(rows: RowNumbers, *, size: int) -> Words:
    """The bitmap of row numbers in any order, each once."""
    words = np.zeros(words_for(size), np.uint64)
    sound(bits.set_bits(rows, size, words))
    return read_only(words)


def unpacked(words: Words, *, size: int) -> Mask:
    """The bits as (size,) bool."""
    return np.unpackbits(words.view(np.uint8), count=size, bitorder="little").view(np.bool_)


def intersection(sets: list[RowSet]) -> RowSet:
    """The rows that are in each of one or more sets."""
    lists = [one for one in sets if one.numbers is not None]
    if not lists:
        return _folded(bits.and_words, sets)
    rarest = min(lists, key=attrgetter("count"))
    rows = rarest.row_numbers()
    for one in sets:
        if one is not rarest:
            rows = one.keep(rows)
    return RowSet(rarest.size, len(rows), rows, None)


def union(sets: list[RowSet]) -> RowSet:
    """The rows that are in at least one of one or more sets."""
    size = sets[0].size
    few = [one.numbers for one in sets if one.numbers is not None]
    if len(few) < len(sets) or sum(map(len, few)) * NUMBERS_SHARE > size:
        return _folded(bits.or_words, sets)
    rows = few[0]
    for more in few[1:]:
        both = np.empty(len(rows) + len(more), np.int32)
        rows = read_only(both[: bits.merge_rows(rows, more, both)])
    return RowSet(size, len(rows), rows, None)


def sound(count: int) -> int:
    """Give a kernel's count back, or raise SnapshotUnusableError where it met no row."""
    if count == bits.DAMAGED:
        raise SnapshotUnusableError(
            "the columns of the index name rows that do not exist. Run `facedex index build`"
        )
    return count


def _folded(kernel: Any, sets: list[RowSet]) -> RowSet:
    """What a kernel makes of all bitmaps, as many at once as it takes."""
    maps = [one.bitmap() for one in sets]
    joined, count = maps[0], sets[0].count
    for begin in range(1, len(maps), AT_ONCE - 1):
        now = [joined, *maps[begin : begin + AT_ONCE - 1]]
        words = np.empty(len(joined), np.uint64)
        count = kernel(*now, *now[:1] * (AT_ONCE - len(now)), words)
        joined = read_only(words)
    return RowSet(sets[0].size, count, None, joined)
