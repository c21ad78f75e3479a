"""Whether Facedex keeps what its answers promise: recall, certificates, threads, updates.

Each command prints JSON lines; data sets are named as for `facedex bench run`.

    python -m benchmarks.promises recall    --data faces:200000 --queries 1000
    python -m benchmarks.promises certified --data faces:200000 --queries 10000
    python -m benchmarks.promises threads   --data faces:200000
    python -m benchmarks.promises updates   --data faces:200000 --minutes 30
"""

import argparse
import itertools
import json
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.filtered import truth, workload
from benchmarks.filtered.data.named import named
from benchmarks.filtered.values import Ask, Cell, DataSet
from retrieval.kernels.compiled import use_cache
from retrieval.library import Found, Index
from retrieval.plan import Recall

COUNT: Final = 10
LOW: Final = 0.8  # recall of a single question below which it counts as failed
BOUND: Final = 1.645  # of the normal distribution, 95 % on one side
RULE_OF_THREE: Final = 3.0  # 0 of n: at most 3 / n, with 95 % confidence


def main() -> None:
    """Run one command."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("command", choices=list(COMMANDS))
    options.add_argument("--data", default="faces:200000")
    options.add_argument("--work", type=Path, default=Path(".facedex/bench"))
    options.add_argument("--queries", type=int, default=1000)
    options.add_argument("--recall", type=float, default=0.95)
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--changes", type=int, default=10_000, help="a minute")
    chosen = options.parse_args()
    use_cache(chosen.work)
    data = named(
        chosen.data, chosen.work / "data" / _folder(chosen.data), queries=1000, tuning=100, seed=0
    )
    COMMANDS[chosen.command](
        data, _index(data, chosen.work / "index" / _folder(chosen.data)), chosen
    )


def recall(data: DataSet, index: Index, chosen: argparse.Namespace) -> None:
    """The recall of each share x correlation at the shipped setting, against exact neighbours."""
    for cell in _progress([*_named_cells(data), *workload.grid(data)]):
        asks = truth.asks(data, cell)[: chosen.queries]
        exact = truth.exact(data, asks, folder=chosen.work / "truth")
        asked = _asker(index, cell)
        found = [asked(ask, recall=chosen.recall) for ask in asks]
        scores = truth.recalls(
            [one.ids for one in found], exact, data=data, questions=asks, count=COUNT
        )
        values = np.array([score.recall for score in scores if score.recall is not None])
        short = sum(len(one.ids) < min(COUNT, one.answer.survivors) for one in found)
        error = values.std() / np.sqrt(max(len(values), 1)) if len(values) else 0.0
        _say(
            cell=cell.name,
            queries=len(values),
            recall=_mean(values),
            recall_low=_mean(values) - BOUND * float(error) if len(values) else None,
            share_below=float((values < LOW).mean()) if len(values) else None,
            violations=sum(score.violations for score in scores),
            short_answers=short,
            p50_us=1e3 * float(np.median([_ms(one) for one in found])),
        )


def certified(data: DataSet, index: Index, chosen: argparse.Namespace) -> None:
    """Certified answers against exact ones over random queries and filters of every kind."""
    cells = workload.cells(data)
    asked = {cell.name: _asker(index, cell) for cell in cells}
    questions = {cell.name: truth.asks(data, cell) for cell in cells}
    missed, times, scanned, tiers = 0, [], [], dict[str, int]()
    for number in tqdm(range(chosen.queries), disable=None):
        cell = cells[number % len(cells)]
        ask = questions[cell.name][(number // len(cells)) % len(questions[cell.name])]
        one = asked[cell.name](ask, recall="certified")
        true = asked[cell.name](ask, recall="exact")
        missed += one.ids.tolist() != true.ids.tolist()
        tiers[str(one.answer.tier)] = tiers.get(str(one.answer.tier), 0) + 1
        times.append(_ms(one))
        scanned.append(one.answer.work.by_code)
    _say(
        questions=chosen.queries,
        answers_that_differ=missed,
        rate_high=(RULE_OF_THREE if missed == 0 else missed + 2 * np.sqrt(missed) + 2)
        / chosen.queries,
        tiers=tiers,
        ms_worst=max(times),
        ms_p99=float(np.quantile(times, 0.99)),
        rows_worst=scanned[int(np.argmax(times))],
    )


def threads(data: DataSet, index: Index, chosen: argparse.Namespace) -> None:
    """The rate of two threads over that of one, by cell, in turns of one run."""
    for cell in _progress([*_named_cells(data)]):
        asks = truth.asks(data, cell)[: chosen.queries]
        asked = _asker(index, cell)
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _, count in itertools.product(range(5), (1, 2)):
            rates[count].append(
                _rate(lambda ask, asked=asked: asked(ask, recall=0.95), asks, count)
            )
        _say(
            cell=cell.name,
            one_ms=1e3 / float(np.median(rates[1])),
            ratio=float(np.median(np.array(rates[2]) / np.array(rates[1]))),
        )


def updates(data: DataSet, index: Index, chosen: argparse.Namespace) -> None:
    """Additions and deletions beside searches: recall, latency, read-your-writes, memory."""
    cells = [cell for cell in _named_cells(data) if cell.share >= 0.01 or cell.where is None]
    quiet = [
        _ms(_asker(index, cell)(ask, recall=0.95)) for cell, ask in _endless(data, cells, 2000)
    ]
    stop, changed = threading.Event(), _Changes()
    writer = threading.Thread(
        target=_change, args=(data, index, chosen.changes, stop, changed), daemon=True
    )
    process = psutil.Process()
    writer.start()
    ends, minute = time.perf_counter() + 60 * chosen.minutes, time.perf_counter() + 60
    times: list[float] = []
    exact: list[float] = []
    for number, (cell, ask) in enumerate(_endless(data, cells, None)):
        asked = _asker(index, cell)
        one = asked(ask, recall=0.95)
        times.append(_ms(one))
        if number % 50 == 0:
            true = asked(ask, recall="exact")
            kept = one.similarities >= true.similarities[-1] - 1e-12
            exact.append(float(kept.mean()))
        if time.perf_counter() > minute or time.perf_counter() > ends:
            memory = process.memory_full_info()
            _say(
                searches=len(times), changes=changed.count, rows=len(index),
                recall=_mean(np.array(exact)), p99_ms=float(np.quantile(times, 0.99)),
                quiet_p99_ms=float(np.quantile(quiet, 0.99)), stale_reads=changed.stale,
                private_mib=memory.uss >> 20, resident_mib=memory.rss >> 20,
            )  # fmt: skip
            minute, times, exact = minute + 60, [], []
        if time.perf_counter() > ends:
            break
    stop.set()
    writer.join()


class _Changes:
    """What the writer did."""

    def __init__(self) -> None:
        self.count = 0
        self.stale = 0  # writes that a search right after them did not show


def _change(
    data: DataSet, index: Index, a_minute: int, stop: threading.Event, changed: _Changes
) -> None:
    """Half of the changes add a vector like a stored one, half delete what was added before."""
    random = np.random.default_rng(0)
    batch, added = 10, list[np.ndarray[Any, Any]]()
    first = len(data.vectors)
    for number in itertools.count():
        due = time.perf_counter() + 60 * 2 * batch / a_minute
        rows = random.integers(0, len(data.vectors), batch)
        noise = 0.02 * random.standard_normal((batch, data.vectors.shape[1]))
        vectors = (data.vectors[rows] + noise).astype(np.float32)
        ids = first + batch * number + np.arange(batch)
        index.add(vectors, data.table.take(rows), ids=ids)
        seen = index.search(vectors[0], count=1, recall="exact").ids
        changed.stale += int(seen[0]) != int(ids[0])
        added.append(ids)
        if len(added) > 1000:
            gone = added.pop(0)
            index.delete(gone)
        changed.count += 2 * batch
        if stop.wait(max(due - time.perf_counter(), 0)):
            return


def _index(data: DataSet, folder: Path) -> Index:
    """The index of a data set, built once."""
    if not folder.exists():
        began, cpu = time.perf_counter(), time.process_time()
        shutil.rmtree(folder.with_suffix(".new"), ignore_errors=True)
        Index.build(data.vectors, data.table, folder=folder.with_suffix(".new"))
        folder.with_suffix(".new").rename(folder)
        _say(
            rows=len(data.vectors),
            build_s=time.perf_counter() - began,
            build_cpu_s=time.process_time() - cpu,
            peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        )
    return Index.load(folder)


def _asker(index: Index, cell: Cell) -> Callable[..., Found]:
    """What asks a cell's questions through the public call, with a prepared filter."""
    prepared = None if cell.where is None else index.prepare(cell.where)

    def asked(ask: Ask, *, recall: Recall) -> Found:
        return index.search(
            ask.query,
            where=prepared,
            parameters=ask.parameters if prepared else None,
            count=COUNT,
            recall=recall,
        )

    return asked


def _endless(data: DataSet, cells: Sequence[Cell], count: int | None) -> Iterator[tuple[Cell, Ask]]:
    """Questions of all cells in turns."""
    questions = {cell.name: truth.asks(data, cell) for cell in cells}
    turns = itertools.count() if count is None else range(count)
    for number in turns:
        cell = cells[number % len(cells)]
        of_cell = questions[cell.name]
        yield cell, of_cell[(number // len(cells)) % len(of_cell)]


def _rate(act: Callable[[Ask], object], asks: Sequence[Ask], count: int) -> float:
    """Questions a second of so many threads."""
    parts = [asks[number::count] for number in range(count)]
    workers = [
        threading.Thread(target=lambda part=part: [act(ask) for ask in part]) for part in parts
    ]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(asks) / (time.perf_counter() - began)


def _named_cells(data: DataSet) -> Sequence[Cell]:
    """The ten of ENGINE.md where the data has their fields."""
    return workload.face_cells(data) if "gender" in data.table.column_names else ()


def _ms(found: Found) -> float:
    timings = found.answer.timings
    return timings.filter_ms + timings.plan_ms + timings.delta_ms + timings.search_ms


def _mean(values: np.ndarray[Any, Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _progress(cells: Sequence[Cell]) -> Iterator[Cell]:
    return iter(tqdm(cells, unit="cell", disable=None))


def _folder(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")


def _say(**values: Any) -> None:
    print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}))
    sys.stdout.flush()


COMMANDS: Final[dict[str, Callable[[DataSet, Index, argparse.Namespace], None]]] = {
    "recall": recall,
    "certified": certified,
    "threads": threads,
    "updates": updates,
}

if __name__ == "__main__":
    main()
