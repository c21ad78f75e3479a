"""How building and the worst answers grow with the number of rows, by the library class.

    python -m benchmarks.sizes --rows 100000 400000 --work DIR --out sizes.jsonl --plot sizes.png

Vectors come from the face generator in float16 and are mapped, never held: ten million take 10 GB
on the disk and twice that while an index is built. One JSON line a size tells the build, one a
filter the answers: `certified` ones against a scan of the survivors' codes and nothing else.
"""

import argparse
import json
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import pyarrow.parquet as pq
from tqdm import tqdm

from benchmarks.filtered.data import generator
from benchmarks.filtered.data.grid import SLOTS
from benchmarks.filtered.data.making import as_fields
from retrieval.library import Found, Index
from retrieval.plan import Recall

FILTERS: Final = (
    ("none", None),
    ("50.0%", "gender = 'female'"),
    *((f"{share:.1%}", f"slot < {round(SLOTS * share)}") for share in (0.1, 0.01, 0.001)),
)
RECALLS: Final[tuple[Recall, ...]] = ("certified", 0.95)
EXACT_QUERIES_MAX: Final = 20  # asked exactly, too: these take seconds
WARM_QUERIES: Final = 3
COUNT: Final = 10


def main() -> None:
    """Build each size that is missing, ask it, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True, help="Kept: data and indexes.")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, added to.")
    parser.add_argument("--queries", type=int, default=100, help="For each filter; 0: only build.")
    parser.add_argument("--plot", type=Path, help="PNG of all builds in the file.")
    chosen = parser.parse_args()
    for rows in tqdm(chosen.rows, unit="size", disable=None):
        index = _index(rows, chosen.work, chosen.out)
        if chosen.queries:
            _asked(index, rows, chosen.queries, chosen.out)
    if chosen.plot:
        _draw(chosen.out, chosen.plot)


def _index(rows: int, work: Path, out: Path) -> Index:
    folder = work / f"index-{rows}"
    if not folder.exists():
        data = _data(rows, work / f"faces-{rows}")
        vectors = np.load(data / "vectors.npy", mmap_mode="r")
        table = as_fields(pq.read_table(data / "attributes.parquet"))
        making = folder.with_suffix(".new")
        shutil.rmtree(making, ignore_errors=True)
        began, cpu = time.perf_counter(), time.process_time()
        Index.build(vectors, table, folder=making)
        _say(
            out, what="build", rows=rows, seconds=time.perf_counter() - began,
            cpu_seconds=time.process_time() - cpu,
            peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            disk_mib=sum(path.stat().st_size for path in making.rglob("*") if path.is_file()) >> 20,
        )  # fmt: skip
        making.rename(folder)
    return Index.load(folder)


def _data(rows: int, folder: Path) -> Path:
    if not (folder / generator.DONE).exists():
        generator.write(generator.Population(rows=rows, seed=0), folder)
    return folder


def _asked(index: Index, rows: int, count: int, out: Path) -> None:
    queries, _ = generator.questions(generator.Population(rows=rows, seed=0), count)
    costs = _costs(index)
    for name, where in FILTERS:
        prepared = None if where is None else index.prepare(where)

        def ask(query: Any, recall: Recall, prepared: Any = prepared) -> Found:
            return index.search(query, where=prepared, count=COUNT, recall=recall)

        for recall in RECALLS:
            for query in queries[:WARM_QUERIES]:
                ask(query, recall)
            found = [ask(query, recall) for query in queries]
            times = [one.answer.timings.search_ms + one.answer.timings.filter_ms for one in found]
            exact = [ask(query, "exact") for query in queries[:EXACT_QUERIES_MAX]]
            kept = [
                np.isin(true.ids, one.ids).mean() for one, true in zip(found, exact, strict=False)
            ]
            survivors = found[0].answer.survivors
            _say(
                out, what="answers", rows=rows, filter=name, survivors=survivors, asked=str(recall),
                tier=str(found[0].answer.tier), queries=count, p50_ms=float(np.median(times)),
                p99_ms=float(np.quantile(times, 0.99)), worst_ms=max(times),
                bare_scan_ms=1e-3 * survivors * costs, recall=float(np.mean(kept)),
                by_code=float(np.mean([one.answer.work.by_code for one in found])),
                exactly=float(np.mean([one.answer.work.exactly for one in found])),
                private_mib=psutil.Process().memory_full_info().uss >> 20,
            )  # fmt: skip


def _costs(index: Index) -> float:
    """Microseconds that a row's code takes, as measured at build time."""
    snapshot = index.view.snapshot
    if snapshot is None or snapshot.coding is None:
        raise SystemExit("an index of so few rows has no codes")
    return snapshot.coding.rule.measured.costs.row_by_code


def _draw(results: Path, picture: Path) -> None:
    from matplotlib import pyplot as plt

    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    builds = sorted((one["rows"], one["cpu_seconds"]) for one in lines if one["what"] == "build")
    rows, seconds = (np.array(part, float) for part in zip(*builds, strict=True))
    plt.loglog(rows, seconds, "o-", label="Facedex, CPU seconds")
    for label, growth in (("n log n", rows * np.log(rows)), ("n^1.5", rows**1.5)):
        plt.loglog(rows, seconds[0] * growth / growth[0], "--", label=label)
    plt.xlabel("rows of 512 dimensions")
    plt.ylabel("seconds of one core")
    plt.legend()
    plt.savefig(picture, dpi=120)


def _say(out: Path, **values: Any) -> None:
    line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()})
    with out.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
