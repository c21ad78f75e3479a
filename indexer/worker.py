"""The worker: takes jobs from the queue on PostgreSQL, one at a time, and carries them out.

pgqueuer is the queue: it hands each job to one worker, keeps a heartbeat while the job runs, and
gives a job whose heartbeat stopped to the next worker, which starts it from the beginning (an
ingest finds what is stored already). What this module promises on top of it:

    a job that fails says why in its row, and the worker goes on
    a worker that is asked to stop puts its job back and ends after the pictures in work
    a worker that slept and lost its job to another one notices and lets go of it
    a database that goes away is waited for, for a minute

The job runs in a thread with connections of its own, so a loss of the queue's connections does
not disturb it: it goes on, and the queue learns of its end from the row of `job`.
"""

import asyncio
import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from typing import Final

import psycopg
from pgqueuer.adapters.persistence.qb import (
    DBSettings,
    Durability,
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.db import PsycopgDriver
from pgqueuer.errors import FailingListenerError, RetryRequested
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import EntrypointExecutionParameter, Queries
from pgqueuer.types import Channel, QueueEntrypoint, QueueExecutionMode, QueueManagerId

from indexer.jobs import (
    ENTRYPOINT,
    JobRecord,
    JobReport,
    failed,
    finished,
    progressed,
    put_back,
    started,
)
from indexer.pipeline import Tally
from retrieval.errors import FacedexError, StoreConflictError, StoreUnavailableError
from retrieval.store.database import (
    Store,
    session_parameters,
    translating_store_errors,
)

# A job is taken over when its heartbeat is this old. pgqueuer beats at half of it and writes
# beats within an eighth, so a stall of 2.5 s is forgiven, and a take-over needs at most 8.5 s.
HEARTBEAT_TIMEOUT: Final = timedelta(seconds=8)
BUSY_POLL: Final = timedelta(seconds=0.5)  # while jobs wait or run; dead workers send no notice
IDLE_POLL: Final = timedelta(seconds=5)  # a new job is announced; this is for lost announcements
REPORT_SECONDS: Final = 1.0
UNREACHABLE_PAUSE: Final = timedelta(seconds=5)  # before a job that lost its database starts again
UNREACHABLE_MAX: Final = 10  # then the job fails: a disk that stays full does not get better
RECONNECT_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # a minute in all
STEADY_S: Final = 60.0  # a connection that lasted so long starts the pauses anew

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_UNFINISHED: Final = """
    SELECT count(*) AS unfinished FROM pgqueuer
    WHERE entrypoint = ANY($1) AND status IN ('queued', 'picked')
"""
# Every name is said: pgqueuer would take CHANNEL or PREFIX from the environment.
_NAMES: Final = DBSettings(
    prefix="",
    db_schema=None,
    channel=Channel("ch_pgqueuer"),
    function="fn_pgqueuer_changed",
    statistics_table="pgqueuer_statistics",
    queue_status_type="pgqueuer_status",
    queue_table="pgqueuer",
    queue_table_log="pgqueuer_log",
    trigger="tg_pgqueuer_changed",
    schedules_table="pgqueuer_schedules",
    durability=Durability.durable,
    widen_id=False,
)
_log: Final = logging.getLogger(__name__)

CarryOut = Callable[[JobRecord, Callable[[Tally], None]], JobReport]


class Until(Enum):
    """When a worker ends by itself."""

    STOPPED = auto()
    EMPTY = auto()  # no job waits or runs, anywhere


class CutOffError(Exception):
    """The worker is to end; raised by `progress`, inside of the job, which goes back."""


class OvertakenError(Exception):
    """Another worker started the job again, or its collection was dropped; `progress` raises it."""


def run_worker(
    store: Store,
    carry_out: CarryOut,
    *,
    until: Until,
    ended: Callable[[JobRecord], None] = lambda _: None,
    revive: Callable[[], None] = lambda: None,
) -> int:
    """Carry out jobs, one at a time; give the number of those done. For the main thread.

    Args:
        store: the database of the jobs.
        carry_out: does the job, in a thread, and calls `progress` after each step. It may be
            called again for a job that was cut off. A FacedexError of it fails the job.
        until: when to end without being asked; SIGINT and SIGTERM ask, a second one insists.
        ended: told of each job that was done or failed.
        revive: brings an embedded server back; called before each connection.

    Raises:
        StoreUnavailableError: the database stayed away for a minute.
    """
    worker = _Worker(store=store, carry_out=carry_out, until=until, ended=ended, revive=revive)
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        return asyncio.run(worker.run())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Outcome(Enum):
    """What became of one start of a job."""

    ENDED = auto()  # done or failed, now or before
    CUT_OFF = auto()
    OVERTAKEN = auto()
    UNREACHABLE = auto()  # the database did not answer, or refused


@dataclass(slots=True, kw_only=True)
class _Worker:
    store: Store
    carry_out: CarryOut
    until: Until
    ended: Callable[[JobRecord], None]
    revive: Callable[[], None]
    done: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    cut_off: threading.Event = field(default_factory=threading.Event)  # the same for the thread
    manager: QueueManager | None = None

    async def run(self) -> int:
        """Serve until the end; after a lost connection, connect again."""
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._stop)
        failures = 0
        while not self.stopping.is_set():
            begun = time.perf_counter()
            try:
                await self._serve()
                break
            except (StoreUnavailableError, StoreConflictError):
                failures = 0 if time.perf_counter() - begun > STEADY_S else failures
                if failures == len(RECONNECT_PAUSES_S):
                    raise
                _log.warning("the worker lost the database and tries again")
                await self._pause(RECONNECT_PAUSES_S[failures])
                failures += 1
        return self.done

    def _stop(self) -> None:
        """End soon; the next signal of the kind ends the process as it would any other."""
        _log.warning("stopping soon; a second signal stops at once")
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        self.stopping.set()
        self.cut_off.set()
        if self.manager is not None:
            self.manager.shutdown.set()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _serve(self) -> None:
        """Take jobs over one pair of connections until there is no more to do."""
        await asyncio.to_thread(self.revive)
        try:
            with translating_store_errors():
                async with await self._connected() as asking, await self._connected() as listening:
                    await self._take_jobs(asking, listening)
        except FailingListenerError as silent:
            raise StoreUnavailableError from silent

    async def _connected(self) -> psycopg.AsyncConnection:
        parameters = session_parameters(self.store.url)
        return await psycopg.AsyncConnection.connect(autocommit=True, **parameters)

    async def _take_jobs(
        self, asking: psycopg.AsyncConnection, listening: psycopg.AsyncConnection
    ) -> None:
        self.manager = manager = QueueManager(queries(asking, listening), channel=_NAMES.channel)
        manager.min_dequeue_poll_interval = BUSY_POLL

        @manager.entrypoint(ENTRYPOINT, on_failure="hold", accepts_context=False)
        async def take(queued: Job) -> None:
            match await asyncio.to_thread(self._attempt, queued):
                case _Outcome.ENDED:
                    return
                case _Outcome.CUT_OFF:
                    raise RetryRequested
                case _Outcome.UNREACHABLE:
                    raise RetryRequested(UNREACHABLE_PAUSE)
                case _Outcome.OVERTAKEN:
                    # pgqueuer would now delete or release the row, which is another worker's.
                    # Without its connection it cannot, and this worker begins as a new one.
                    await asking.close()

        if self.stopping.is_set():
            return
        drain = self.until is Until.EMPTY
        await manager.run(
            mode=QueueExecutionMode.drain if drain else QueueExecutionMode.continuous,
            batch_size=1,
            max_concurrent_tasks=None,  # _Queries says one
            dequeue_timeout=IDLE_POLL,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            shutdown_on_listener_failure=True,
            log_aggregation_interval=timedelta(0),  # nobody reads pgqueuer's statistics
        )

    # --- in the job's thread -----------------------------------------------------------------

    def _attempt(self, queued: Job) -> _Outcome:
        """Start the job and see it through."""
        try:
            with self.store.writing() as connection:
                job = started(connection, int(queued.payload or b""))
            if job is None:
                return _Outcome.ENDED
            came = self._outcome(job, may_return=queued.attempts < UNREACHABLE_MAX)
            return came if isinstance(came, _Outcome) else self._end(job, came)
        except (StoreUnavailableError, StoreConflictError):
            return _Outcome.UNREACHABLE

    def _outcome(self, job: JobRecord, *, may_return: bool) -> JobReport | str | _Outcome:
        """Carry the job out: its report, why it failed, or what else happened."""
        try:
            return self.carry_out(job, _Progress(self.store, job, cut_off=self.cut_off))
        except CutOffError:
            self._put_back(job)
            return _Outcome.CUT_OFF
        except OvertakenError:
            return _Outcome.OVERTAKEN
        except FacedexError as problem:
            if isinstance(problem, StoreUnavailableError) and may_return:
                self._put_back(job)
                return _Outcome.UNREACHABLE
            return str(problem)
        except Exception as bug:  # noqa: BLE001  # this process's outermost loop
            traceback.print_exc()
            return f"unexpected {type(bug).__name__}: the worker's standard error tells where"

    def _put_back(self, job: JobRecord) -> None:
        with self.store.writing() as connection:
            put_back(connection, job)

    def _end(self, job: JobRecord, came: JobReport | str) -> _Outcome:
        with self.store.writing() as connection:
            if isinstance(came, str):
                record = failed(connection, job, came)
            else:
                record = finished(connection, job, came)
        if record is None:
            return _Outcome.OVERTAKEN
        self.done += isinstance(came, JobReport)
        with suppress(BrokenPipeError):  # nobody reads our output any more; the jobs go on
            self.ended(record)
        return _Outcome.ENDED


class _Progress:
    """Takes a job's progress, and tells the job when it has to let go."""

    def __init__(self, store: Store, job: JobRecord, *, cut_off: threading.Event) -> None:
        self._store = store
        self._job = job
        self._cut_off = cut_off
        self._begun = self._told = time.perf_counter()

    def __call__(self, tally: Tally) -> None:
        if self._cut_off.is_set():
            raise CutOffError
        now = time.perf_counter()
        if now - self._told < REPORT_SECONDS:
            return
        self._told = now
        report = JobReport(
            images=tally.images,
            known=tally.known,
            faces=tally.faces,
            refused=len(tally.refused),
            seconds=now - self._begun,
            token=None,
        )
        # A database that is away is the job's own business: it waits for it, or fails.
        with suppress(StoreUnavailableError), self._store.writing() as connection:
            if progressed(connection, self._job, report) is None:
                raise OvertakenError


# --- pgqueuer, adapted ---------------------------------------------------------------------------


def queries(asking: psycopg.AsyncConnection, listening: psycopg.AsyncConnection) -> Queries:
    """The library's queries as a worker wants them, over two connections in autocommit mode."""
    return _Queries(
        _Driver(asking, listening),
        qbe=QueryBuilderEnvironment(_NAMES),
        qbq=QueryQueueBuilder(_NAMES),
        qbs=QuerySchedulerBuilder(_NAMES),
    )


class _Driver(PsycopgDriver):
    """Listens on a connection of its own: listening locks it for a second at a time."""

    def __init__(self, asking: psycopg.AsyncConnection, listening: psycopg.AsyncConnection) -> None:
        super().__init__(listening)
        self._asking = PsycopgDriver(asking)

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        return await self._asking.fetch(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        return await self._asking.execute(query, *args)

    async def __aexit__(self, *error: object) -> None:
        for listener in self.tm.tasks:
            listener.cancel()  # or the end would wait for what is left of its second
        await super().__aexit__(*error)


class _Queries(Queries):
    """One job at a time, and an empty queue is one in which no job runs either."""

    async def dequeue(
        self,
        batch_size: int,
        entrypoints: dict[QueueEntrypoint, EntrypointExecutionParameter],
        queue_manager_id: QueueManagerId,
        global_concurrency_limit: int | None,  # noqa: ARG002
        heartbeat_timeout: timedelta,
    ) -> list[Job]:
        """Take a job where this worker has none: an ingest uses every core by itself."""
        # The limit is "jobs of one worker", and QueueManager takes no limit below 2.
        return await super().dequeue(
            batch_size, entrypoints, queue_manager_id, 1, heartbeat_timeout
        )

    async def queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:
        """Count running jobs too: one whose worker died has to be waited for and taken over."""
        rows = await self.driver.fetch(_UNFINISHED, entrypoints)
        return int(str(rows[0]["unfinished"]))
