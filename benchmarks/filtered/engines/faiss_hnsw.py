"""FAISS HNSW with a bitmap: 32 links, efConstruction 100, swept over efSearch.

efConstruction is 100 for the sake of the build, which takes minutes at 200,000 x 512; whether 200
would answer faster was not measured.
"""

from typing import Any, ClassVar, Final

import faiss

from benchmarks.filtered.engines.faiss_base import FaissEngine
from benchmarks.filtered.values import Setting

LINKS: Final = 32
BUILD_CANDIDATES: Final = 100


class Adapter(FaissEngine):
    """A graph of whole vectors."""

    sweep: ClassVar = tuple(
        {"ef": ef} for ef in (10, 16, 24, 32, 48, 64, 128, 256, 512, 1024, 2048)
    )

    def built(self, vectors: Any) -> faiss.Index:
        """The graph."""
        index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BUILD_CANDIDATES
        index.add(vectors)
        return index

    def parameters(self, setting: Setting, selector: faiss.IDSelector | None) -> Any:
        """The width of the search, and the selector."""
        # With bounded_queue=False the selector gets lost (faiss#5504).
        return faiss.SearchParametersHNSW(
            efSearch=int(setting["ef"]), sel=selector, bounded_queue=True
        )
