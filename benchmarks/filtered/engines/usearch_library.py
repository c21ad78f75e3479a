"""usearch: its Python binding takes no filter, so the answer is filtered afterwards.

It is asked for count / share rows times a factor of the sweep, and for twice as many as long as
too few pass; at the end every row is asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from usearch.index import Index  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.filtered.engines import build_threads
from benchmarks.filtered.engines.survivors import Survivors
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting

LINKS: Final = 32
BUILD_CANDIDATES: Final = 100
EXPANSIONS: Final = (16, 32, 64, 128, 256, 512, 1024)
FACTORS: Final = (1.5, 4.0, 16.0, 64.0)
FILE: Final = "index.usearch"


class Adapter:
    """usearch's graph over float32, scored by inner product."""

    def __init__(self) -> None:
        self._index: Any = None

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Build the graph, or read it."""
        rows, dimension = data.vectors.shape
        path = folder / FILE
        self._index = Index(
            ndim=dimension,
            metric="ip",
            dtype="f32",
            connectivity=LINKS,
            expansion_add=BUILD_CANDIDATES,
            expansion_search=EXPANSIONS[0],
        )
        if path.exists():
            self._index.load(str(path))
        else:
            rows_in_order = np.ascontiguousarray(data.vectors)
            self._index.add(np.arange(rows), rows_in_order, threads=build_threads())
            self._index.save(str(path))
        self._rows = rows
        self._survivors = Survivors(data.table)

    def settings(self, cell: Cell) -> Sequence[Setting]:
        """Over the width of the search, or over how many rows more are asked for."""
        if cell.where is None:
            return [{"expansion": expansion} for expansion in EXPANSIONS]
        return [{"factor": factor} for factor in FACTORS]

    def asked(self, ask: Ask) -> object:
        """The question as it is: survivors are found while the clock runs."""
        return ask

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """Search, filter, and search for more while too few pass."""
        assert isinstance(asked, Ask)
        if asked.filter is None:
            self._index.expansion_search = int(setting["expansion"])
            return self._nearest(asked.query, count)
        mask = self._survivors.mask(asked.filter)
        passing = int(np.count_nonzero(mask))
        wanted = min(count, passing)
        share = max(passing, 1) / self._rows
        more = int(np.ceil(count / share * float(setting["factor"])))
        while True:
            more = min(more, self._rows)
            self._index.expansion_search = more
            found = self._nearest(asked.query, more)
            kept: Numbers = found[mask[found]][:count]
            if len(kept) >= wanted or more == self._rows:
                return kept
            more *= 2

    def _nearest(self, query: Any, count: int) -> Numbers:
        rows: Numbers = self._index.search(query, count, threads=1).keys.astype(np.int64)
        return rows

    def close(self) -> None:
        """Free the graph."""
        self._index = None
