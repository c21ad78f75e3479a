"""What the FAISS engines share: survivors as a selector, and FAISS's odd habits.

FAISS's own BLAS waits for 128,000 distances before it multiplies matrices: set to 8 here. Empty
places come back as -1. A selector holds the address of its bits, which must outlive the search.
Selectors get lost in some indexes (faiss#5504, #5584); those are not used, and `run` re-checks
every id.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import faiss
import numpy as np

from benchmarks.filtered.engines import build_threads
from benchmarks.filtered.engines.survivors import Survivors
from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting

BLAS_QUERIES_MIN: Final = 8
EMPTY_PLACE: Final = -1
FILE: Final = "index.faiss"


def some(kind: str, survivors: Survivors, ask: Ask) -> tuple[faiss.IDSelector | None, object]:
    """The survivors as a selector, and what must be kept for as long as it is used."""
    if ask.filter is None:
        return None, None
    if kind == "array":
        rows = survivors.rows(ask.filter)
        return faiss.IDSelectorArray(rows), rows
    bits = np.packbits(survivors.mask(ask.filter), bitorder="little")
    return faiss.IDSelectorBitmap(bits), bits


class FaissEngine:
    """An engine over one FAISS index in one file."""

    sweep: ClassVar[Sequence[Setting]]

    def __init__(self) -> None:
        self.index: Any = None

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Build the index, or read it."""
        faiss.omp_set_num_threads(build_threads())
        faiss.cvar.distance_compute_blas_threshold = BLAS_QUERIES_MIN
        path = folder / FILE
        if not path.exists():
            faiss.write_index(self.built(np.ascontiguousarray(data.vectors)), str(path))
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(str(path))
        self.survivors = Survivors(data.table)

    def built(self, vectors: Any) -> faiss.Index:
        """The index over all rows."""
        raise NotImplementedError

    def settings(self, cell: Cell) -> Sequence[Setting]:  # noqa: ARG002
        """The same sweep for every class of filters."""
        return self.sweep

    def asked(self, ask: Ask) -> object:
        """The question as it is: survivors are found while the clock runs."""
        return ask

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """Filter, then search with a selector."""
        assert isinstance(asked, Ask)
        selector, kept = some(str(setting.get("selector", "bitmap")), self.survivors, asked)
        parameters = self.parameters(setting, selector)
        _, found = self.index.search(asked.query[None], count, params=parameters)
        del kept
        rows: Numbers = found[0][found[0] != EMPTY_PLACE]
        return rows

    def parameters(self, setting: Setting, selector: faiss.IDSelector | None) -> Any:
        """The setting as FAISS takes it."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the index."""
        self.index = None
