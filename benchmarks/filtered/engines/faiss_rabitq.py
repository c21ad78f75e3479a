"""FAISS IVF-RaBitQ: 1-bit codes of randomly turned vectors, refined with the exact ones.

Swept over nprobe and over how many candidates are refined. A query is quantised to 4 bits, as
RaBitQ's authors do; other widths (FAISS's `qb`) are not swept.
"""

from collections.abc import Sequence
from typing import Any, Final

import faiss

from benchmarks.filtered.engines.faiss_base import FaissEngine
from benchmarks.filtered.engines.lists import doubling, lists_for
from benchmarks.filtered.values import Cell, Setting

QUERY_BITS: Final = 4
REFINED: Final = (4, 16, 64)  # times the count


class Adapter(FaissEngine):
    """Inverted lists of 1-bit codes, and the whole vectors beside them."""

    def built(self, vectors: Any) -> faiss.Index:
        """Rotation, lists, codes, exact vectors."""
        dimension = vectors.shape[1]
        rotation = faiss.RandomRotationMatrix(dimension, dimension)
        rotation.init(1)
        quantizer = faiss.IndexFlatIP(dimension)
        coded = faiss.IndexIVFRaBitQ(
            quantizer, dimension, lists_for(len(vectors)), faiss.METRIC_INNER_PRODUCT
        )
        turned = faiss.IndexPreTransform(rotation, coded)
        index = faiss.IndexRefineFlat(turned)
        index.train(vectors)
        index.add(vectors)
        return index

    def settings(self, cell: Cell) -> Sequence[Setting]:  # noqa: ARG002
        """One list to all, few candidates to many."""
        turned = faiss.downcast_index(self.index.base_index)
        lists = faiss.downcast_index(turned.index).nlist
        probes = doubling(1, lists)
        return [{"nprobe": n, "refined": factor} for n in probes for factor in REFINED]

    def parameters(self, setting: Setting, selector: faiss.IDSelector | None) -> Any:
        """The selector goes through all three layers."""
        codes = faiss.IVFRaBitQSearchParameters(
            nprobe=int(setting["nprobe"]), sel=selector, qb=QUERY_BITS, centered=False
        )
        return faiss.IndexRefineSearchParameters(
            k_factor=float(setting["refined"]),
            base_index_params=faiss.SearchParametersPreTransform(index_params=codes),
        )
