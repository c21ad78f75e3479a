"""Bitmaps of leaves that were found before: dashboards and dialogs repeat their conditions.

Kept is what was asked for twice: a filter with values of its own every time would otherwise push
out what is worth keeping, and a bitmap that is kept takes memory that was warm from the next one.
The least recently used ones go first. Safe for several threads.
"""

from collections import OrderedDict
from threading import Lock

from retrieval.filters.rows import RowSet
from retrieval.limits import KEPT_SETS_BYTES_MAX

Key = tuple[str, tuple[int, ...]]  # field, ranges of codes
SEEN_MAX = 4_096  # keys that were asked for once; some 200 bytes each


class KeptSets:
    """The sets of rows of some leaves of one table, at most `bytes_max` of them."""

    def __init__(self, bytes_max: int = KEPT_SETS_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._sets: OrderedDict[Key, RowSet] = OrderedDict()
        self._seen: OrderedDict[Key, bool] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: Key) -> RowSet | None:
        """The rows of a leaf, if they are kept."""
        with self._lock:
            found = self._sets.get(key)
            if found is not None:
                self._sets.move_to_end(key)
            return found

    def offer(self, key: Key, rows: RowSet) -> None:
        """Keep the rows of a leaf if they are offered for the second time."""
        with self._lock:
            if key in self._sets or rows.nbytes > self._bytes_max:
                return
            if not self._seen.pop(key, False):
                self._seen[key] = True
                if len(self._seen) > SEEN_MAX:
                    self._seen.popitem(last=False)
                return
            self._sets[key] = rows
            self._bytes += rows.nbytes
            while self._bytes > self._bytes_max:
                self._bytes -= self._sets.popitem(last=False)[1].nbytes

    @property
    def nbytes(self) -> int:
        """The memory that is in use."""
        return self._bytes
