"""Builds every engine, tunes it for every cell, and asks in interleaved rounds.

Each engine lives in a process of its own with one thread: one that crashes, hangs or runs out of
memory leaves a line that says so, and the others go on. Settings are chosen on the tuning queries:
cheapest first, until one reaches the target and a few after it were tried. The fastest that
reaches it is reported, and beside it the fastest that reaches a little more, because what just
reached the target on the tuning queries may just miss it on others. In round r every cell is put
to every engine in turn, with a part of the queries that no other round asks: a slow minute of the
machine hits all engines, and no answer can come from a cache. Recall is worked out here, from ids
and exact neighbours (`truth`).

Results are JSON lines: `build`, `sweep` (every setting tried), `report`, `unsupported`, `failed`.
A second run with the same file goes on where the first stopped: builds, sweeps and reports that
are there are not repeated.
"""

import json
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.filtered import truth
from benchmarks.filtered.data import stored
from benchmarks.filtered.engines import UnsupportedError, entry
from benchmarks.filtered.engines.messages import Block, BlockRequest, Built
from benchmarks.filtered.engines.worker import EngineFailedError, Worker
from benchmarks.filtered.values import Ask, Cell, DataSet, Setting
from retrieval.values import UnitRows

Line = dict[str, Any]

BUILD, SWEEP, REPORT, UNSUPPORTED, FAILED = "build", "sweep", "report", "unsupported", "failed"
BUILD_SECONDS_MAX: Final = 1800.0
TUNING_SECONDS_MAX: Final = 8.0  # for one setting; slower ones are judged by fewer queries
REPORT_SECONDS_MAX: Final = 20.0  # for one block
WARM_QUERIES: Final = 5
SAFE_MARGIN: Final = 0.02  # of recall, for the second setting that is reported
TRIED_AFTER: Final = 3  # settings after the first that reaches the target
POOR_RECALL: Final = 0.8
LOWER_95: Final = 1.645  # standard errors below the mean
MARKER: Final = "built.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run."""

    engines: Sequence[str]
    work: Path  # data and builds, kept
    out: Path  # JSON lines
    count: int = 10
    recall: float = 0.95
    rounds: int = 5
    queries: int = 200
    tuning: int = 100
    threads: int = 1  # that ask
    build_threads: int = 1  # of each build
    seed: int = 0
    fresh: bool = False  # forget results and builds
    pinned: bool = True  # hold an engine of one thread to one processor
    build_seconds_max: float = BUILD_SECONDS_MAX
    stored: Path | None = None  # where the set lies already, as `data.stored` writes it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Questions:
    """The questions of one cell with their exact answers."""

    name: str  # under which engines know them
    asks: list[Ask]
    truth: truth.Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the answers of one or more blocks were worth and took."""

    queries: int
    recall: float | None  # None: nothing passed any filter
    recall_low: float | None  # lower 95 % bound
    poor: float | None  # share of queries with a recall under 0.8
    violations: int
    short: int  # answers with fewer rows than pass and were asked for
    qps: float  # median over the rounds, by wall-clock
    qps_cpu: float  # median over the rounds, by seconds of one core
    qps_rounds: list[float]
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Run:
    """One run over one data set."""

    def __init__(self, data: DataSet, cells: Sequence[Cell], plan: Plan) -> None:
        for name in plan.engines:
            entry(name)  # that there is one
        self._data = _with_fewer_queries(data, plan)
        self._cells = [_with_fewer_parameters(cell, plan) for cell in cells]
        self._plan = plan
        self._work = plan.work / f"{_safe(data.name)}-{truth.key(data, [], count=0)[:12]}"
        self._set = plan.stored or self._work / "set"
        self._workers: dict[str, Worker] = {}
        self._processors = psutil.Process().cpu_affinity() or []
        if plan.fresh:
            plan.out.unlink(missing_ok=True)
            shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True, exist_ok=True)
        self._lines = read(plan.out) if plan.out.exists() else []
        self._about = {
            "data": data.name,
            "rows": len(data.vectors),
            "dimension": data.vectors.shape[1],
            "count": plan.count,
            "target": plan.recall,
            "threads": plan.threads,
            "seed": plan.seed,
            "machine": machine(),
        }

    def all(self) -> None:
        """Build, tune, ask, write."""
        wanted = [name for name in self._plan.engines if self._open_cells(name)]
        self._store()
        try:
            for name in tqdm(wanted, desc="builds", unit="engine"):
                self._start(name)
            chosen = dict(self._tuned())
            self._reported(chosen)
        finally:
            for worker in self._workers.values():
                worker.close()

    # Builds

    def _store(self) -> None:
        if not (self._set / stored.INDEX_FILE).exists():
            stored.save(self._data, self._set)

    def _start(self, name: str) -> None:
        """Open what was built; build it where it is missing, or was left by an older version."""
        folder = self._work / name
        try:
            if (folder / MARKER).exists():
                try:
                    self._opened(name, folder)
                except EngineFailedError:
                    self._built(name, folder)
                    self._opened(name, folder)
            else:
                self._built(name, folder)
                self._opened(name, folder)
        except EngineFailedError as error:
            self._write(FAILED, name, reason=str(error))

    def _built(self, name: str, folder: Path) -> None:
        """Build in a process that ends: what a build leaves in memory is not counted."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        built = self._in_a_process(name, folder)
        threads = {"build_threads": self._plan.build_threads}
        (folder / MARKER).write_text(json.dumps(asdict(built) | threads))

    def _opened(self, name: str, folder: Path) -> None:
        one = self._plan.pinned and self._plan.threads == 1
        worker = self._worker(name, self._processors[-1:] if one else ())
        try:
            opened = worker.build(self._set, folder, seconds_max=self._plan.build_seconds_max)
        except EngineFailedError:
            worker.close()
            raise
        self._workers[name] = worker
        self._tell_build(name, folder, opened)

    def _in_a_process(self, name: str, folder: Path) -> Built:
        processors = self._processors[-self._plan.build_threads :]
        worker = self._worker(name, processors, threads=len(processors))
        try:
            return worker.build(self._set, folder, seconds_max=self._plan.build_seconds_max)
        finally:
            worker.close()

    def _worker(self, name: str, processors: Sequence[int], *, threads: int = 1) -> Worker:
        log = self._work / f"{name}.log"
        return Worker(name, log=log, processors=processors, threads=threads)

    def _tell_build(self, name: str, folder: Path, opened: Built) -> None:
        if any(line["what"] == BUILD and self._same(line, name, None) for line in self._lines):
            return
        built = json.loads((folder / MARKER).read_text())
        footprint = self._workers[name].footprint()
        self._write(
            BUILD,
            name,
            **built,
            open_seconds=opened.seconds,
            disk_bytes=disk_bytes(folder),
            **asdict(footprint),
        )

    # Tuning

    def _tuned(self) -> Iterator[tuple[tuple[str, str], list[Setting]]]:
        """The settings of each engine for each cell, where it has any."""
        for cell in tqdm(self._cells, desc="tuning", unit="cell"):
            names = [name for name in self._workers if self._is_open(name, cell)]
            known = {name: self._known(name, cell) for name in names}
            yield from (((n, cell.name), settings) for n, settings in known.items() if settings)
            missing = [name for name in names if not known[name]]
            if not missing:
                continue
            asks = truth.tuning_asks(self._data, cell)
            questions = self._questions(f"tuning {cell.name}", asks)
            for name in missing:
                if settings := self._sweep(name, cell, questions):
                    yield (name, cell.name), settings

    def _sweep(self, name: str, cell: Cell, questions: Questions) -> list[Setting]:
        """Try settings, write what they gave, and choose; none where there is no answer at all."""
        worker = self._workers.get(name)
        if worker is None:
            return []
        tried: list[tuple[Setting, Measured]] = []
        try:
            worker.take(questions.name, questions.asks)
            for setting in worker.settings(cell):
                tried.append((setting, self._tried(worker, questions, setting)))
                if enough([one for _, one in tried], target=self._plan.recall):
                    break
        except UnsupportedError as error:
            self._write(UNSUPPORTED, name, cell, reason=str(error))
            return []
        except EngineFailedError as error:
            self._lost(name, cell, error)
        if not tried:
            return []
        results, target = [one for _, one in tried], self._plan.recall
        best = {best_of(results, target=goal) for goal in (target, target + SAFE_MARGIN)}
        for place, (setting, measured) in enumerate(tried):
            self._write(
                SWEEP, name, cell, setting=setting, chosen=place in best, **asdict(measured)
            )
        return [tried[place][0] for place in sorted(best)]

    def _tried(self, worker: Worker, questions: Questions, setting: Setting) -> Measured:
        block = worker.block(
            BlockRequest(
                questions=questions.name,
                places=range(len(questions.asks)),
                count=self._plan.count,
                setting=setting,
                seconds_max=TUNING_SECONDS_MAX,
                warm=WARM_QUERIES,
                threads=1,
            )
        )
        places = [list(range(len(block.found)))]
        return self._measured([block], places, questions)

    def _known(self, name: str, cell: Cell) -> list[Setting]:
        """What an earlier run chose."""
        return [
            line["setting"]
            for line in self._lines
            if line["what"] == SWEEP and line["chosen"] and self._same(line, name, cell)
        ]

    # Reporting

    def _reported(self, chosen: Mapping[tuple[str, str], list[Setting]]) -> None:
        asked = [cell for cell in self._cells if any(name == cell.name for _, name in chosen)]
        questions = {
            cell.name: self._questions(f"report {cell.name}", truth.asks(self._data, cell))
            for cell in asked
        }
        blocks: dict[tuple[str, str], list[list[Block]]] = {pair: [] for pair in chosen}
        pairs = [(name, cell) for cell in asked for name in self._plan.engines]
        for number in tqdm(range(self._plan.rounds), desc="rounds", unit="round"):
            for name, cell in pairs:
                pair = (name, cell.name)
                if pair not in blocks:
                    continue
                given = self._round(name, cell, questions[cell.name], chosen[pair], number)
                if given:
                    blocks[pair].append(given)
                else:
                    blocks.pop(pair)
        for name, cell in pairs:
            if rounds := blocks.get((name, cell.name)):
                self._tell(name, cell, questions[cell.name], chosen[name, cell.name], rounds)

    def _round(
        self,
        name: str,
        cell: Cell,
        questions: Questions,
        settings: Sequence[Setting],
        number: int,
    ) -> list[Block]:
        """One engine's blocks of one cell, one for each setting; none where it is lost."""
        worker = self._workers.get(name)
        if worker is None:
            return []
        places = self._part(number, len(questions.asks))
        try:
            worker.take(questions.name, questions.asks)
            return [worker.block(self._request(questions, places, one)) for one in settings]
        except UnsupportedError as error:
            self._write(UNSUPPORTED, name, cell, reason=str(error))
        except EngineFailedError as error:
            self._lost(name, cell, error)
        return []

    def _tell(
        self,
        name: str,
        cell: Cell,
        questions: Questions,
        settings: Sequence[Setting],
        rounds: list[list[Block]],
    ) -> None:
        for place, setting in enumerate(settings):
            result = self._of_rounds([given[place] for given in rounds], questions)
            self._write(REPORT, name, cell, setting=setting, **asdict(result))

    def _request(
        self, questions: Questions, places: Sequence[int], setting: Setting
    ) -> BlockRequest:
        return BlockRequest(
            questions=questions.name,
            places=places,
            count=self._plan.count,
            setting=setting,
            seconds_max=REPORT_SECONDS_MAX,
            warm=WARM_QUERIES,
            threads=self._plan.threads,
        )

    def _part(self, number: int, queries: int) -> list[int]:
        """The queries of a round; no other round asks them."""
        return list(range(number, queries, self._plan.rounds))

    def _of_rounds(self, blocks: list[Block], questions: Questions) -> Measured:
        queries = len(questions.asks)
        places = [
            self._part(number, queries)[: len(block.found)] for number, block in enumerate(blocks)
        ]
        return self._measured(blocks, places, questions)

    # What both share

    def _questions(self, name: str, asks: list[Ask]) -> Questions:
        exact = truth.exact(self._data, asks, folder=self._work / "truth")
        return Questions(name=name, asks=asks, truth=exact)

    def _measured(
        self, blocks: list[Block], places: list[list[int]], questions: Questions
    ) -> Measured:
        found = [one for block in blocks for one in block.found]
        asked = [place for part in places for place in part]
        count = self._plan.count
        scores = [
            truth.scored(
                one,
                ask=questions.asks[place],
                nearest=questions.truth.similarities[place],
                data=self._data,
                count=count,
            )
            for one, place in zip(found, asked, strict=True)
        ]
        survivors = questions.truth.survivors
        short = sum(
            len(np.unique(one[one >= 0])) < min(count, survivors[place])
            for one, place in zip(found, asked, strict=True)
        )
        recalls = [score.recall for score in scores if score.recall is not None]
        violations = sum(score.violations for score in scores)
        return measured(blocks, recalls, violations=violations, short=int(short))

    def _lost(self, name: str, cell: Cell, error: EngineFailedError) -> None:
        """Write what happened, and start the engine anew for the other cells."""
        self._write(FAILED, name, cell, reason=str(error))
        self._workers.pop(name).close()
        self._start(name)

    def _open_cells(self, name: str) -> list[Cell]:
        return [cell for cell in self._cells if self._is_open(name, cell)]

    def _is_open(self, name: str, cell: Cell) -> bool:
        finished = (REPORT, UNSUPPORTED)
        return not any(
            line["what"] in finished and self._same(line, name, cell) for line in self._lines
        )

    def _same(self, line: Line, name: str, cell: Cell | None) -> bool:
        about = ("data", "rows", "count", "target", "threads", "seed")
        return (
            line["engine"] == name
            and line.get("cell") == (None if cell is None else cell.name)
            and all(line[part] == self._about[part] for part in about)
        )

    def _write(self, what: str, name: str, cell: Cell | None = None, **more: Any) -> None:
        line: Line = {
            "what": what,
            "engine": name,
            "family": entry(name).family,
            "version": version_of(entry(name).package),
            **self._about,
            "cell": None if cell is None else cell.name,
        }
        if cell is not None:
            line |= {"kind": cell.kind, "share": cell.share, "correlation": cell.correlation}
            line |= {"where": cell.where}
        line |= {name: plain(value) for name, value in more.items()}
        self._plan.out.parent.mkdir(parents=True, exist_ok=True)
        with self._plan.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self._lines.append(line)


def run(data: DataSet, cells: Sequence[Cell], plan: Plan) -> list[Line]:
    """Carry out a plan; gives all lines of the results file."""
    Run(data, cells, plan).all()
    return read(plan.out)


def read(path: Path) -> list[Line]:
    """The lines of a results file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def measured(
    blocks: Sequence[Block], recalls: Sequence[float], *, violations: int, short: int
) -> Measured:
    """Rounds as one result: medians of rates, percentiles over all queries."""
    seconds = np.concatenate([block.seconds for block in blocks])
    rates = [len(block.found) / block.elapsed for block in blocks]
    cpu_rates = [len(block.found) / max(block.cpu_seconds, 1e-9) for block in blocks]
    p50, p95, p99 = (1000 * float(np.quantile(seconds, share)) for share in (0.5, 0.95, 0.99))
    known = np.array(recalls)
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else 0.0
    return Measured(
        queries=len(seconds),
        recall=float(known.mean()) if len(known) else None,
        recall_low=float(known.mean() - LOWER_95 * error) if len(known) else None,
        poor=float((known < POOR_RECALL).mean()) if len(known) else None,
        violations=violations,
        short=short,
        qps=float(np.median(rates)),
        qps_cpu=float(np.median(cpu_rates)),
        qps_rounds=[float(rate) for rate in rates],
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
    )


def enough(tried: Sequence[Measured], *, target: float) -> bool:
    """Whether a setting reached the target and enough that come after it were tried."""
    first = next((n for n, one in enumerate(tried) if reaches(one, target=target)), None)
    return first is not None and len(tried) > first + TRIED_AFTER


def reaches(one: Measured, *, target: float) -> bool:
    """Whether the recall is there; where nothing passes, any answer without rows is right."""
    return one.recall is None or one.recall >= target


def best_of(tried: Sequence[Measured], *, target: float) -> int:
    """The place of the fastest setting that reaches the target, or of the nearest to it."""
    able = [place for place, one in enumerate(tried) if reaches(one, target=target)]
    if able:
        return max(able, key=lambda place: tried[place].qps_cpu)
    return max(range(len(tried)), key=lambda place: tried[place].recall or 0.0)


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    about = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in about if "model name" in line), "unknown")
    return {
        "processor": model,
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def version_of(package: str) -> str | None:
    """The version that is installed; None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def disk_bytes(folder: Path) -> int:
    """What lies below a folder; links to directories (a server's data) are followed."""
    total = 0
    for path in folder.iterdir():
        if path.is_dir():
            total += disk_bytes(path.resolve())
        elif path.is_file():
            total += path.stat().st_size
    return total


def plain(value: Any) -> Any:
    """Numbers as JSON should show them: six digits are enough."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def _with_fewer_queries(data: DataSet, plan: Plan) -> DataSet:
    return replace(
        data,
        queries=UnitRows(data.queries[: plan.queries]),
        query_table=data.query_table.slice(0, plan.queries),
        tuning=UnitRows(data.tuning[: plan.tuning]),
        tuning_table=data.tuning_table.slice(0, plan.tuning),
    )


def _with_fewer_parameters(cell: Cell, plan: Plan) -> Cell:
    return replace(
        cell,
        parameters=cell.parameters[: plan.queries],
        tuning_parameters=cell.tuning_parameters[: plan.tuning],
    )


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
