"""FAISS Flat: exact over all rows, or over the survivors gathered by an array of ids."""

from typing import Any, ClassVar

import faiss

from benchmarks.filtered.engines.faiss_base import FaissEngine
from benchmarks.filtered.values import Setting


class Adapter(FaissEngine):
    """Exact search. An IDSelectorArray makes FAISS visit the named rows only."""

    sweep: ClassVar = ({"selector": "array"}, {"selector": "bitmap"})

    def built(self, vectors: Any) -> faiss.Index:
        """All rows, as they are."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index

    def parameters(self, setting: Setting, selector: faiss.IDSelector | None) -> Any:  # noqa: ARG002
        """The selector."""
        return faiss.SearchParameters(sel=selector)
