"""One filterable field of many faces: how its values lie in memory and on disk.

Every column but tags is the same: its distinct values in ascending order, and for each row the
place of its value among them, the code. So a leaf of a filter is a range of codes, or some of
them, whatever the type; `starts` tells how many rows that is before any of them is looked at.

* NULL is code 0 and value i is code i + 1: `IS NOT NULL` is the range of all codes but the first.
* `codes` answers for one row. `order`, the rows by code, answers for few rows: those of a value or
  of a range are a slice of it.
* For many rows a scan of one byte a row is the quickest there is, and the fewer bytes the better.
  Where there are more than 256 codes they are put into up to 255 buckets of about equally many
  rows; a range scans `buckets` and takes the rest, parts of the two buckets at its ends, from
  `order` (docs/adr/0008-filter-columns-are-codes.md).

Tags lie twice: by row for reading, by tag for filtering: a tag of few rows as their numbers, a
frequent one as a bitmap. Rows that only pad a list are all NULL.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from retrieval.filters.rows import WORD_BITS, RowNumbers, RowSet, Words, words_for
from retrieval.kernels import bits
from retrieval.values import FieldType, Value

Codes = npt.NDArray[np.unsignedinteger[Any]]  # as narrow as the number of codes allows
Places = npt.NDArray[np.int64]
Values = npt.NDArray[Any]  # float64, int64, or the bytes of texts
Bounds = tuple[
    int, ...
]  # ranges of codes: low, high, low, high, ... ascending, none touches another

BYTE_CODES: Final = 256
TAGS_KEPT_MAX: Final = 1_024  # of a column, whose rows were looked up before
ORDERED_CODES_MIN: Final = 32  # with fewer codes a value has too many rows for a list to pay off
# Values are held in the first of these types that has all of them: they compare alike in each.
VALUE_TYPES: Final[dict[FieldType, tuple[type[np.generic], ...]]] = {
    FieldType.NUMBER: (np.float32, np.float64),
    FieldType.INTEGER: (np.int32, np.int64),
    FieldType.TIMESTAMP: (np.int32, np.int64),  # microseconds since 1970
    FieldType.BOOLEAN: (np.int32,),  # 0 and 1
    FieldType.TEXT: (np.uint8,),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
DAY_S: Final = 86_400
SECOND_US: Final = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Dictionary:
    """Distinct texts in byte order: word i is `text[ends[i]:ends[i + 1]]`."""

    ends: Places  # (words + 1,) int64
    text: npt.NDArray[np.uint8]  # UTF-8

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, code: int) -> str:
        return self.text[self.ends[code] : self.ends[code + 1]].tobytes().decode()

    def place(self, word: bytes) -> tuple[int, int]:
        """How many words lie before this one, and 1 if it is one of them."""
        twice = bits.place_of_word(self.ends, self.text, np.frombuffer(word, np.uint8))
        return twice >> 1, twice & 1

    def sound(self) -> bool:
        """Whether the two arrays belong together."""
        if self.ends.ndim != 1 or not len(self.ends):
            return False
        return self.ends.dtype == np.int64 and is_array(self.text, np.uint8, self.ends[-1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScalarColumn:
    """One value a row, or NULL."""

    PARTS: ClassVar = ("codes", "starts", "values", "ends", "order", "buckets", "firsts")

    type: FieldType
    codes: Codes  # (rows,)
    starts: npt.NDArray[np.int32]  # (codes + 1,) how many rows have a lower code
    values: Values  # (codes - 1,) ascending; text: the bytes of all
    ends: Places  # text: (codes,) where each value begins, and the end; otherwise empty
    order: RowNumbers  # (rows,) by code, then ascending; empty below ORDERED_CODES_MIN
    buckets: npt.NDArray[np.uint8]  # (rows,) of buckets; empty where codes are bytes themselves
    firsts: Places  # (buckets + 1,) the first code of each, then the number of codes

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.codes)

    @property
    def words(self) -> Dictionary:
        """The values of a text column."""
        return Dictionary(self.ends, self.values)

    @property
    def code_count(self) -> int:
        """How many codes there are, NULL included."""
        return len(self.starts) - 1

    @property
    def scanned(self) -> npt.NDArray[np.uint8]:
        """One byte a row: its bucket, which is the code where there are few."""
        return self.buckets if len(self.buckets) else self.codes

    def place(self, value: float | str) -> tuple[int, int]:
        """How many values are less than this one, and 1 if it is one of them."""
        if type(value) is str:
            word = np.frombuffer(value.encode(), np.uint8)
            twice = bits.place_of_word(self.ends, self.values, word)
        else:
            twice = bits.place_of(self.values, value)
        return twice >> 1, twice & 1

    def codes_of(self, values: Sequence[float]) -> list[int]:
        """The codes of those of the numbers that are values here, in any order."""
        given = np.array(values, VALUE_TYPES[self.type][-1])
        with np.errstate(over="ignore"):
            sought = given.astype(self.values.dtype)  # or numpy would widen all values
        sought = sought[sought == given]
        places = np.searchsorted(self.values, sought)
        inside = places < len(self.values)
        sought, places = sought[inside], places[inside]
        codes: list[int] = (places[self.values[places] == sought] + 1).tolist()
        return codes

    def count(self, bounds: Bounds) -> int:
        """How many rows have a code in these ranges."""
        start = self.starts.item
        if len(bounds) == 2:  # noqa: PLR2004 - one range, as nearly always
            return start(bounds[1]) - start(bounds[0])
        return sum(
            start(high) - start(low) for low, high in zip(bounds[::2], bounds[1::2], strict=True)
        )

    def get(self, row: int) -> Value:
        """The value of one row."""
        code = int(self.codes[row])
        if code == 0:
            return None
        if self.type is FieldType.TEXT:
            return self.words[code - 1]
        value: float | int = self.values.item(code - 1)
        return moment(int(value)) if self.type is FieldType.TIMESTAMP else self._typed(value)

    def held(self, rows: npt.NDArray[np.integer[Any]]) -> tuple[Values, npt.NDArray[np.bool_]]:
        """The values of some rows and which are not NULL, (n,) each; not of text."""
        codes = self.codes[rows]
        known = codes > 0
        values = np.zeros(len(codes), VALUE_TYPES[self.type][-1])
        values[known] = self.values[codes[known] - 1]
        return values, known

    def sound(self, rows: int) -> bool:
        """Whether the arrays belong together and have that many rows."""
        if self.starts.ndim != 1 or self.firsts.ndim != 1:
            return False
        count = len(self.starts) - 1
        return (
            is_array(self.starts, np.int32, count + 1)
            and count >= 1
            and self.starts[0] == 0
            and self.starts[-1] == rows
            and is_array(self.codes, narrow(count), rows)
            and self._sound_values(count - 1)
            and is_array(self.order, np.int32, rows if count > ORDERED_CODES_MIN else 0)
            and is_array(self.buckets, np.uint8, rows if count > BYTE_CODES else 0)
            and self._sound_buckets(count)
        )

    def _typed(self, value: float) -> Value:
        return bool(value) if self.type is FieldType.BOOLEAN else value

    def _sound_values(self, count: int) -> bool:
        if self.type is FieldType.TEXT:
            return self.words.sound() and len(self.words) == count
        held = any(is_array(self.values, kind, count) for kind in VALUE_TYPES[self.type])
        return held and is_array(self.ends, np.int64, 0)

    def _sound_buckets(self, count: int) -> bool:
        firsts = self.firsts
        if not is_array(firsts, np.int64, min(len(firsts), BYTE_CODES + 1)) or len(firsts) == 1:
            return False
        ascending = firsts[0] == 0 and firsts[-1] == count and bool((np.diff(firsts) > 0).all())
        return ascending and (count > BYTE_CODES or len(firsts) == count + 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TagsColumn:
    """A list of tags a row, or NULL.

    Row r has the tags `codes[starts[r]:starts[r + 1]]` in their order. Tag t is on the rows
    `tag_rows[tag_starts[t]:tag_starts[t + 1]]`, or, if it is `frequent[i]`, on those of
    `bitmaps[i]`.
    """

    PARTS: ClassVar = (
        *("known", "starts", "codes", "ends", "text"),
        *("tag_starts", "tag_rows", "frequent", "counts", "bitmaps"),
    )

    known: Words  # the rows that are not NULL
    starts: npt.NDArray[np.signedinteger[Any]]  # (rows + 1,) int32, int64 for more than 2**31 tags
    codes: Codes  # word i has code i
    ends: Places
    text: npt.NDArray[np.uint8]
    tag_starts: Places  # (words + 1,) int64
    tag_rows: RowNumbers
    frequent: Places  # (f,) int64 codes, ascending
    counts: Places  # (f,) int64 rows of each of them
    bitmaps: npt.NDArray[np.uint64]  # (f, rows / 64)
    asked: dict[str, RowSet] = field(default_factory=dict, repr=False)  # what was found of tags

    @property
    def type(self) -> FieldType:
        """What the field is."""
        return FieldType.TAGS

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.starts) - 1

    @property
    def words(self) -> Dictionary:
        """The dictionary."""
        return Dictionary(self.ends, self.text)

    def get(self, row: int) -> Value:
        """The value of one row."""
        if not int(self.known[row // WORD_BITS]) >> row % WORD_BITS & 1:
            return None
        words = self.words
        return tuple(words[code] for code in self.codes[self.starts[row] : self.starts[row + 1]])

    def rows_with(self, tag: str) -> RowSet:
        """The rows that have this tag."""
        rows = self.asked.get(tag)
        if rows is None:
            if len(self.asked) >= TAGS_KEPT_MAX:
                self.asked.clear()
            rows = self.asked[tag] = self._rows_with(tag)
        return rows

    def _rows_with(self, tag: str) -> RowSet:
        size = len(self.starts) - 1
        twice = bits.place_of_word(self.ends, self.text, np.frombuffer(tag.encode(), np.uint8))
        if not twice & 1:
            return RowSet.none(size)
        code = twice >> 1
        begin, end = self.tag_starts.item(code), self.tag_starts.item(code + 1)
        if end > begin:
            return RowSet(size, end - begin, self.tag_rows[begin:end], None)
        place = bits.place_of(self.frequent, code) >> 1
        return RowSet(size, self.counts.item(place), None, self.bitmaps[place])

    def sound(self, rows: int) -> bool:
        """Whether the arrays belong together and have that many rows."""
        words, count = words_for(rows), self.frequent.size
        return (
            is_array(self.known, np.uint64, words)
            and self.starts.dtype in (np.int32, np.int64)
            and self.starts.shape == (rows + 1,)
            and self.words.sound()
            and is_array(self.codes, narrow(len(self.words)), self.starts[-1])
            and is_array(self.tag_starts, np.int64, len(self.words) + 1)
            and is_array(self.tag_rows, np.int32, self.tag_starts[-1])
            and is_array(self.frequent, np.int64, count)
            and is_array(self.counts, np.int64, count)
            and self.bitmaps.dtype == np.uint64
            and self.bitmaps.shape == (count, words)
        )


Column = ScalarColumn | TagsColumn


def microseconds(when: datetime) -> int:
    """A moment as TIMESTAMP columns hold it."""
    since = when - _EPOCH
    return (since.days * DAY_S + since.seconds) * SECOND_US + since.microseconds


def moment(value: int) -> datetime:
    """The moment that a TIMESTAMP column holds, in UTC."""
    return _EPOCH + value * _MICROSECOND


def narrow(count: int) -> np.dtype[Any]:
    """The smallest unsigned type that has that many values, of uint8, uint16 and uint32."""
    return np.min_scalar_type(max(count, 1) - 1)


def is_array(array: npt.NDArray[Any], type_: npt.DTypeLike, length: int) -> bool:
    """Whether an array is (length,) of this type."""
    return array.dtype == type_ and array.shape == (length,)
