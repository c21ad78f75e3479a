"""Graphs as Parquet: one row for each face and neighbour, in parts, each whole or not there."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.graph.making import Block
from retrieval.values import FaceIds, Floats

SCHEMA: Final = pa.schema(
    [("face", pa.int64()), ("neighbour", pa.int64()), ("similarity", pa.float32())]
)
PARTS: Final = "edges-{:05d}.parquet"


class Edges(NamedTuple):
    """Pairs of a face and one of its nearest, as the graph has them: a pair may be there twice."""

    faces: FaceIds  # (m,)
    neighbours: FaceIds  # (m,)
    similarities: Floats  # (m,)


def edges_of(block: Block) -> Edges:
    """The pairs of a block, by face in its order, best first."""
    there = block.neighbours >= 0
    faces = np.repeat(block.ids, there.sum(axis=1))
    return Edges(faces, block.neighbours[there], block.similarities[there].astype(np.float32))


def write_edges(blocks: Iterable[Block], folder: Path) -> int:
    """Write a graph into a folder, which holds nothing else; give the number of edges."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("edges-*.parquet"):
        old.unlink()
    total = 0
    for number, block in enumerate(blocks):
        edges = edges_of(block)
        staged = folder / f"{PARTS.format(number)}.staged"
        pq.write_table(pa.table(list(edges), schema=SCHEMA), staged)
        staged.replace(folder / PARTS.format(number))
        total += len(edges.faces)
    return total


def read_edges(folder: Path) -> Iterator[Edges]:
    """The parts of a graph that was written."""
    for path in sorted(folder.glob("edges-*.parquet")):
        table = pq.read_table(path)
        yield Edges(*(table.column(name).to_numpy() for name in SCHEMA.names))
