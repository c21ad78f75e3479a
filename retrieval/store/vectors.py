"""Vectors between the bytes that the store keeps and rows of float16."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.values import HalfRows


def half_rows(data: pa.ChunkedArray, *, dimension: int) -> HalfRows:
    """Vectors as the store keeps them, without NULLs, as (n, d) float16.

    Bytes of a wrong length become zeros, which no search can find: somebody wrote them past the
    checks, and one such row must not keep all others from being searched.
    """
    # Offsets of 64 bits: what came in one read may exceed 2 GiB.
    joined = data.cast(pa.large_binary()).combine_chunks()
    if len(joined) == 0:
        return np.empty((0, dimension), "<f2")
    width = 2 * dimension
    right = pc.equal(pc.binary_length(joined), width)
    if not pc.all(right).as_py():
        joined = pc.if_else(right, joined, pa.scalar(bytes(width), pa.large_binary()))
    _, ends, content = joined.buffers()
    begin = np.frombuffer(ends, np.int64)[joined.offset]
    values = np.frombuffer(content, "<f2", count=len(joined) * dimension, offset=int(begin))
    return values.reshape(len(joined), dimension)


def binary_rows(vectors: HalfRows) -> pa.Array:
    """The same the other way: (n, d) float16 as n values of bytes."""
    halves = np.ascontiguousarray(vectors, "<f2")
    ends = np.arange(len(halves) + 1, dtype=np.int32) * halves.itemsize * halves.shape[1]
    return pa.Array.from_buffers(
        pa.binary(), len(halves), [None, pa.py_buffer(ends), pa.py_buffer(halves)]
    )
