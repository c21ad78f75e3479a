"""hnswlib: a graph with a filter that is asked, in Python, for each row that would be kept.

The callable is `bytes.__getitem__` of the mask, which runs no Python code. Where the search meets
fewer survivors than asked for, hnswlib raises instead of answering: an empty answer here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import hnswlib  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np

from benchmarks.filtered.engines import build_threads
from benchmarks.filtered.engines.survivors import Survivors
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting

LINKS: Final = 32
BUILD_CANDIDATES: Final = 100
SWEEP: Final = (10, 16, 24, 32, 48, 64, 128, 256, 512, 1024, 2048)
FILE: Final = "index.hnswlib"
TOO_FEW: Final = "Cannot return the results"


class Adapter:
    """hnswlib's graph, scored by inner product."""

    def __init__(self) -> None:
        self._index: Any = None

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Build the graph, or read it."""
        rows, dimension = data.vectors.shape
        path = folder / FILE
        self._index = hnswlib.Index(space="ip", dim=dimension)
        if path.exists():
            self._index.load_index(str(path), max_elements=rows)
        else:
            self._index.init_index(
                max_elements=rows, M=LINKS, ef_construction=BUILD_CANDIDATES, random_seed=1
            )
            self._index.add_items(data.vectors, np.arange(rows), num_threads=build_threads())
            self._index.save_index(str(path))
        self._index.set_num_threads(1)
        self._survivors = Survivors(data.table)

    def settings(self, cell: Cell) -> Sequence[Setting]:  # noqa: ARG002
        """Over ef."""
        return [{"ef": ef} for ef in SWEEP]

    def asked(self, ask: Ask) -> object:
        """The question as it is: survivors are found while the clock runs."""
        return ask

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """Search with a callable over the mask."""
        assert isinstance(asked, Ask)
        self._index.set_ef(max(int(setting["ef"]), count))
        passes = None
        if asked.filter is not None:
            mask = self._survivors.mask(asked.filter)
            count = min(count, int(np.count_nonzero(mask)))
            passes = mask.tobytes().__getitem__
        try:
            labels, _ = self._index.knn_query(asked.query, k=count, num_threads=1, filter=passes)
        except RuntimeError as error:
            if TOO_FEW not in str(error):
                raise
            return np.empty(0, np.int64)
        return np.asarray(labels[0], np.int64)

    def close(self) -> None:
        """Free the graph."""
        self._index = None
