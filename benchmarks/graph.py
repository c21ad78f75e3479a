"""The graph of nearest faces: recall, time and memory.

    python -m benchmarks.graph --rows 1000000 --count 30 --recall 0.97

Faces are those of the generator (benchmarks/filtered/data/generator.py), in an index on disk. A
process of its own makes the graph, writes it as Parquet, and tells its time and the most memory it
had; recall is that of some hundred faces, against a product with all. One JSON line.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.filtered.data.generator import faces
from retrieval.graph.edges import write_edges
from retrieval.graph.making import made, plan
from retrieval.kernels.compiled import use_cache
from retrieval.library import Index

T = TypeVar("T")
ASKED = 500


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--recall", type=float, default=0.97)
    parser.add_argument("--work", type=Path, default=Path("work/graph"))
    chosen = parser.parse_args()
    index, edges = chosen.work / f"index-{chosen.rows}", chosen.work / f"edges-{chosen.rows}"
    if not (index / "manifest.json").exists():
        in_a_process(build, index, chosen.rows)
    told = in_a_process(graph, index, edges, chosen.count, chosen.recall)
    told |= in_a_process(measured, index, edges, chosen.count)
    print(json.dumps({"rows": chosen.rows, "count": chosen.count, "asked": chosen.recall, **told}))


def in_a_process(act: Callable[..., T], *arguments: object) -> T:
    """Do it in a new process, whose memory is its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as one:
        return one.submit(act, *arguments).result()


def build(folder: Path, rows: int) -> None:
    """Index made-up faces."""
    use_cache(folder.parent)
    Index.build(faces(rows, seed=0, queries=1, tuning=1).vectors, folder=folder)


def graph(folder: Path, out: Path, count: int, recall: float) -> dict[str, float | int | None]:
    """Make the graph; tell what it took."""
    use_cache(folder.parent)
    view = Index.load(folder).view
    began, spent = time.perf_counter(), time.process_time()
    planned = plan(view, count=count, recall=recall)
    edges = write_edges(made(planned, folder=None, progress=lambda *_: None), out)
    return {
        "edges": edges,
        "cpu_s": round(time.process_time() - spent, 1),
        "wall_s": round(time.perf_counter() - began, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "directions": planned.effort.directions,
        "expected": round(planned.effort.recall or 1.0, 4),
    }


def measured(folder: Path, out: Path, count: int) -> dict[str, float]:
    """The recall of some faces."""
    rows = Index.load(folder).view.snapshot.rows
    places = np.flatnonzero(rows.usable)
    asked = np.sort(np.random.default_rng(1).choice(places, ASKED, replace=False))
    queries = rows.vectors[asked].astype(np.float32) * rows.scales[asked, None]
    best = np.full((ASKED, count + 1), -2.0, np.float32)
    for begin in range(0, len(rows.ids), 65_536):
        block = slice(begin, begin + 65_536)
        there = rows.usable[block]
        some = rows.vectors[block][there].astype(np.float32) * rows.scales[block][there, None]
        scores = np.concatenate([best, queries @ some.T], axis=1)
        best = -np.partition(-scores, count, axis=1)[:, : count + 1]
    least = -np.partition(-best, count, axis=1)[:, count]
    table = pq.read_table(out, filters=pc.field("face").isin(pa.array(rows.ids[asked])))
    found = dict(zip(rows.ids[asked].tolist(), [0] * ASKED, strict=True))
    floor = dict(zip(rows.ids[asked].tolist(), least.tolist(), strict=True))
    for face, similarity in zip(
        table["face"].to_pylist(), table["similarity"].to_pylist(), strict=True
    ):
        found[face] += similarity >= floor[face] - 1e-6
    return {"recall": round(sum(min(n, count) for n in found.values()) / (ASKED * count), 4)}


if __name__ == "__main__":
    main()
