"""The other end of `child`: starts an engine's process, and outlives whatever becomes of it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from benchmarks.filtered.engines import UnsupportedError
from benchmarks.filtered.engines.messages import (
    FAILED,
    UNSUPPORTED,
    Block,
    BlockRequest,
    Built,
    Footprint,
)
from benchmarks.filtered.values import Ask, Cell, Setting

REPOSITORY: Final = Path(__file__).resolve().parents[3]
START_SECONDS_MAX: Final = 120.0
SHORT_SECONDS_MAX: Final = 300.0  # for everything but builds
CLOSE_SECONDS_MAX: Final = 30.0
# Every way in which a library is told how many threads to take. LANCE_IO_THREADS=1 is not among
# them: LanceDB then waits for itself for ever.
THREADS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS",
)


class EngineFailedError(Exception):
    """The engine raised, died or did not answer. The message says which."""


class Worker:
    """An engine in a process of its own."""

    def __init__(
        self, name: str, *, log: Path, processors: Sequence[int] = (), threads: int = 1
    ) -> None:
        """Start it, held to these processors where some are named."""
        self.name = name
        self._log = log
        self._taken: set[str] = set()
        ours, theirs = socket.socketpair()
        pinned = ["taskset", "-c", ",".join(map(str, processors))] if processors else []
        counts = [f"{variable}={threads}" for variable in THREADS]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *("env", "ANONYMIZED_TELEMETRY=False", *counts, *pinned, sys.executable),
                    *("-m", "benchmarks.filtered.engines.child", str(theirs.fileno()), name),
                ],
                cwd=REPOSITORY,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        theirs.close()
        self._connection = Connection(ours.detach())
        try:
            self._reply(START_SECONDS_MAX, what="start")
        except EngineFailedError:
            self.close()
            raise

    def build(self, data: Path, folder: Path, *, seconds_max: float) -> Built:
        """Build below `folder`, or open what is there."""
        built: Built = self._call("build", data, folder, seconds_max=seconds_max)
        return built

    def settings(self, cell: Cell) -> list[Setting]:
        """The engine's sweep."""
        settings: list[Setting] = self._call("settings", cell)
        return settings

    def take(self, name: str, questions: Sequence[Ask]) -> None:
        """Hand over questions, once; UnsupportedError where the engine has no form for one."""
        if name not in self._taken:
            self._call("take", name, list(questions))
            self._taken.add(name)

    def block(self, request: BlockRequest) -> Block:
        """Ask some of the questions that were handed over."""
        block: Block = self._call("block", request)
        return block

    def footprint(self) -> Footprint:
        """The engine's memory."""
        footprint: Footprint = self._call("footprint")
        return footprint

    def close(self) -> None:
        """Let the engine close itself, and end it where it does not."""
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS_MAX)
        self._end()

    def _call(self, method: str, *arguments: object, seconds_max: float = SHORT_SECONDS_MAX) -> Any:
        try:
            self._connection.send((method, arguments))
        except OSError as cause:
            raise EngineFailedError(self._death()) from cause
        return self._reply(seconds_max, what=method)

    def _reply(self, seconds_max: float, *, what: str) -> Any:
        try:
            if not self._connection.poll(seconds_max):
                self._end()
                raise EngineFailedError(f"{what}: no answer within {seconds_max:.0f} s")
            kind, value = self._connection.recv()
        except (EOFError, OSError) as cause:
            raise EngineFailedError(f"{what}: {self._death()}") from cause
        if kind == UNSUPPORTED:
            raise UnsupportedError(value)
        if kind == FAILED:
            raise EngineFailedError(f"{what}: {value}")
        return value

    def _death(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS_MAX)
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"status {code}"
        killed = ", probably for memory" if code == -signal.SIGKILL else ""
        return f"the process ended with {how}{killed}; see {self._log}"

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
