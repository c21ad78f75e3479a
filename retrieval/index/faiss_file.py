"""Whole vectors out of an index file that FAISS wrote.

Only indexes that keep each number are read: Flat, IVF-Flat and HNSW-Flat, alone or below an IDMap.
A compressed index (PQ, SQ, binary) gives other vectors than went in, which nobody should import.
"""

from pathlib import Path

import faiss
import numpy as np

from retrieval.errors import SchemaMismatchError, UsageError
from retrieval.values import FaceIds, Floats


def vectors_of_file(path: Path) -> tuple[Floats, FaceIds | None]:
    """The (n, d) float32 vectors of an index file, and their ids where it keeps any.

    Ids that only count the rows are none: rows then come in that order.

    Raises:
        UsageError: the file is no index of FAISS.
        SchemaMismatchError: the index holds no whole vectors.
    """
    try:
        owner = faiss.read_index(str(path))
    except RuntimeError as cause:
        raise UsageError(f"{path} is no index of FAISS, or damaged") from cause
    # What `downcast_index` gives is memory of `owner`, which must therefore live on.
    index = faiss.downcast_index(owner)
    ids = None
    if isinstance(index, faiss.IndexIDMap):  # IDMap2 is one too
        ids = faiss.vector_to_array(index.id_map)
        index = faiss.downcast_index(index.index)
    if isinstance(index, faiss.IndexIVFFlat):
        vectors, within = _of_lists(index)
        ids = within if ids is None else ids[within]
    elif isinstance(index, faiss.IndexFlat | faiss.IndexHNSWFlat):
        vectors = index.reconstruct_n(0, index.ntotal)
    else:
        raise SchemaMismatchError(
            f"{path} is an {type(index).__name__}, which holds no whole vectors; Flat, IVF-Flat"
            " and HNSW-Flat do"
        )
    return _in_order(vectors, ids)


def _of_lists(index: faiss.IndexIVFFlat) -> tuple[Floats, FaceIds]:
    """Vectors and ids of all inverted lists, one after the other."""
    vectors = np.empty((index.ntotal, index.d), dtype=np.float32)
    ids = np.empty(index.ntotal, dtype=np.int64)
    lists, start = index.invlists, 0
    if lists is None:  # never in a file; FAISS's own type allows it
        return vectors, ids
    for number in range(index.nlist):
        end = start + lists.list_size(number)
        if end > start:
            codes = faiss.rev_swig_ptr(lists.get_codes(number), (end - start) * index.code_size)
            vectors[start:end] = codes.view("<f4").reshape(-1, index.d)
            ids[start:end] = faiss.rev_swig_ptr(lists.get_ids(number), end - start)
        start = end
    return vectors, ids


def _in_order(vectors: Floats, ids: FaceIds | None) -> tuple[Floats, FaceIds | None]:
    if ids is None:
        return vectors, None
    order = np.argsort(ids, kind="stable")
    counted = bool((ids[order] == np.arange(len(ids))).all())
    return vectors[order], None if counted else ids[order]
