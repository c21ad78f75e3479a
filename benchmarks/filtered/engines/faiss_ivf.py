"""FAISS IVF-Flat with a bitmap, swept over nprobe up to every list."""

from collections.abc import Sequence
from typing import Any

import faiss

from benchmarks.filtered.engines.faiss_base import FaissEngine
from benchmarks.filtered.engines.lists import doubling, lists_for
from benchmarks.filtered.values import Cell, Setting


class Adapter(FaissEngine):
    """Inverted lists of whole vectors."""

    def built(self, vectors: Any) -> faiss.Index:
        """Lists trained on at most 256 rows each, which is FAISS's default."""
        dimension = vectors.shape[1]
        quantizer = faiss.IndexFlatIP(dimension)
        lists = lists_for(len(vectors))
        index = faiss.IndexIVFFlat(quantizer, dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        return index

    def settings(self, cell: Cell) -> Sequence[Setting]:  # noqa: ARG002
        """One list to all."""
        return [{"nprobe": number} for number in doubling(1, self.index.nlist)]

    def parameters(self, setting: Setting, selector: faiss.IDSelector | None) -> Any:
        """How many lists, and the selector."""
        return faiss.SearchParametersIVF(nprobe=int(setting["nprobe"]), sel=selector)
