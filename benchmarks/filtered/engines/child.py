"""One engine in a process of its own: it builds, opens, and answers blocks of questions.

Started as `python -m benchmarks.filtered.engines.child DESCRIPTOR ENGINE`, with the environment
that holds every library to one thread. Requests and replies are pickled over that descriptor; both
ends are this repository. What an engine does in processes of its own (a server, a backend) counts
as its time and memory.
"""

import ctypes
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any, Final

import numpy as np
import psutil

from benchmarks.filtered.data.stored import opened
from benchmarks.filtered.engines import UnsupportedError, engine
from benchmarks.filtered.engines.messages import (
    ANSWER,
    FAILED,
    UNSUPPORTED,
    Block,
    BlockRequest,
    Built,
    Footprint,
)
from benchmarks.filtered.values import Ask, Cell, Numbers, Setting

SECOND_NS: Final = 1e9
DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG


class Child:
    """The engine and the questions it was handed."""

    def __init__(self, name: str) -> None:
        self._engine = engine(name)
        self._asked: dict[str, list[object]] = {}

    def build(self, data: Path, folder: Path) -> Built:
        """Build below `folder`, or open what is there."""
        data_set = opened(data)
        before_bytes = _rollup(os.getpid())["Rss"]
        started, cpu_before = time.perf_counter(), self._cpu()
        self._engine.build(data_set, folder=folder)
        return Built(
            seconds=time.perf_counter() - started,
            cpu_seconds=self._cpu() - cpu_before,
            before_bytes=before_bytes,
            peak_bytes=getrusage(RUSAGE_SELF).ru_maxrss * 1024,
        )

    def settings(self, cell: Cell) -> list[Setting]:
        """The engine's sweep."""
        return list(self._engine.settings(cell))

    def take(self, name: str, questions: Sequence[Ask]) -> int:
        """Put questions into the engine's own form."""
        self._asked[name] = [self._engine.asked(ask) for ask in questions]
        return len(questions)

    def block(self, request: BlockRequest) -> Block:
        """Ask, and measure."""
        asked = [self._asked[request.questions][place] for place in request.places]
        search, setting, count = self._engine.search, request.setting, request.count
        for one in asked[: request.warm]:
            search(one, count=count, setting=setting)

        def ask(one: object) -> tuple[Numbers, float]:
            began = time.perf_counter_ns()
            found = search(one, count=count, setting=setting)
            return found, (time.perf_counter_ns() - began) / SECOND_NS

        gc.collect()
        gc.disable()
        try:
            helpers = self._helpers()
            theirs = sum(map(_ran, helpers))
            # Our own clock starts last and stops first: looking at the others costs more than
            # many a search.
            own, started = time.process_time(), time.perf_counter()
            answers = _answers(ask, asked, request, started)
            elapsed, own = time.perf_counter() - started, time.process_time() - own
            cpu_seconds = own + sum(map(_ran, helpers)) - theirs
        finally:
            gc.enable()
        return Block(
            found=[np.asarray(found, np.int64) for found, _ in answers],
            seconds=np.array([seconds for _, seconds in answers]),
            elapsed=elapsed,
            cpu_seconds=cpu_seconds,
        )

    def footprint(self) -> Footprint:
        """What the engine holds now."""
        rollups = [_rollup(pid) for pid in [os.getpid(), *self._helpers()]]
        return Footprint(
            rss_bytes=sum(rollup["Rss"] for rollup in rollups),
            private_bytes=sum(r["Private_Clean"] + r["Private_Dirty"] for r in rollups),
        )

    def close(self) -> None:
        """Let everything go."""
        self._engine.close()

    def _cpu(self) -> float:
        return time.process_time() + sum(_ran(pid) for pid in self._helpers())

    def _helpers(self) -> list[int]:
        """The other processes of the engine."""
        children = [process.pid for process in psutil.Process().children(recursive=True)]
        named: Iterable[int] = getattr(self._engine, "processes", list)()
        return [*children, *named]


def _answers(
    ask: Callable[[object], tuple[Numbers, float]],
    asked: Sequence[object],
    request: BlockRequest,
    started: float,
) -> list[tuple[Numbers, float]]:
    """Ask until all are answered or the time is over."""
    if request.threads > 1:
        with ThreadPoolExecutor(request.threads) as threads:
            return list(threads.map(ask, asked))
    answers = []
    for one in asked:
        answers.append(ask(one))
        if time.perf_counter() - started > request.seconds_max:
            break
    return answers


def _ran(pid: int) -> float:
    """Seconds that all threads of another process were on a processor; nanoseconds count."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / SECOND_NS
    except OSError:
        return 0.0  # it has ended: what it did is its parent's


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}


def serve(connection: Connection, child: Child) -> None:
    """Carry out requests until there are no more."""
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            child.close()
            return
        reply: tuple[str, Any]
        try:
            reply = (ANSWER, getattr(child, method)(*arguments))
        except UnsupportedError as error:
            reply = (UNSUPPORTED, str(error))
        except Exception as error:  # noqa: BLE001 - the outermost loop of this process
            traceback.print_exc()
            reply = (FAILED, f"{type(error).__name__}: {error}")
        connection.send(reply)


def main() -> None:
    """Serve one engine; an engine that cannot be imported says so as its first reply."""
    # What runs in a library's own code hears of no closed connection.
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    connection = Connection(int(sys.argv[1]))
    try:
        child = Child(sys.argv[2])
    except Exception as error:  # noqa: BLE001 - the outermost frame of this process
        connection.send((FAILED, f"{type(error).__name__}: {error}"))
        return
    connection.send((ANSWER, None))
    serve(connection, child)


if __name__ == "__main__":
    main()
