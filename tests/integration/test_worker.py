"""Jobs and workers on a real queue. The jobs here write into a table `step` instead of ingesting.

Run as a program, this file is a worker: `test_worker.py NAME URL SECONDS HEARTBEAT`.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

import indexer.worker
from indexer.jobs import IngestRequest, JobRecord, JobReport, JobState, jobs, queue_ingest
from indexer.pipeline import RefusedPicture, Tally
from indexer.sources.pictures import Framing
from indexer.worker import HEARTBEAT_TIMEOUT, Until, queries, run_worker
from retrieval.errors import RefusedImageError, StoreUnavailableError
from retrieval.store.collections import collection_or_new, drop_collection
from retrieval.store.database import Store, open_store
from retrieval.values import Token

REPOSITORY = Path(__file__).parents[2]
TAKE_OVER_SECONDS_MAX = 15
REPORT = JobReport(images=3, known=2, faces=7, refused=1, seconds=0.5, token=Token(42))
REQUEST = IngestRequest(
    paths=["/photos", "/photos/\udcff\n.jpg"],
    metadata=None,
    person_from_folder=True,
    frames=False,
    framing=Framing.ALIGNED,
    source="web",
    origin="captured",
    copy_originals=False,
    allow_sensitive=False,
    retry_refused=False,
)
Progress = Callable[[Tally], None]
Steps = Callable[[], list[tuple[int, str, str]]]


def stepping(store: Store, name: str, *, seconds: float) -> Callable[..., JobReport]:
    """A job that writes when it begins and when it ends, and reports progress in between.

    It takes `seconds`; a job that was begun before takes a fifth of a second.
    """

    def step(job: JobRecord, what: str) -> None:
        with store.writing() as connection:
            connection.execute(
                text("INSERT INTO step (job, worker, what) VALUES (:job, :worker, :what)"),
                {"job": job.id, "worker": name, "what": what},
            )

    def carry_out(job: JobRecord, progress: Progress) -> JobReport:
        step(job, "begin")
        for images in range(round((seconds if job.attempt == 1 else 0.2) / 0.05)):
            time.sleep(0.05)
            progress(Tally(images=images, faces=2 * images))
        step(job, "end")
        return REPORT

    return carry_out


@pytest.fixture
def steps(store: Store) -> Steps:
    """What the jobs wrote, in order."""
    with store.writing() as connection:
        connection.execute(
            text("""
                CREATE TABLE step (
                    id bigint GENERATED ALWAYS AS IDENTITY, job bigint, worker text, what text,
                    at timestamptz DEFAULT clock_timestamp())
            """)
        )

    def read() -> list[tuple[int, str, str]]:
        with store.reading() as connection:
            rows = connection.execute(text("SELECT job, worker, what FROM step ORDER BY id"))
            return [(row.job, row.worker, row.what) for row in rows]

    return read


def queue(store: Store, *, count: int = 1) -> list[int]:
    with store.writing() as connection:
        collection = collection_or_new(connection, "default")
        return [queue_ingest(connection, collection, REQUEST) for _ in range(count)]


def records(store: Store) -> dict[int, JobRecord]:
    with store.reading() as connection:
        return {job.id: job for job in jobs(connection, 100)}


def queue_length(store: Store) -> int:
    with store.reading() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM pgqueuer")))


def drain(store: Store, name: str = "here") -> int:
    return run_worker(store, stepping(store, name, seconds=0), until=Until.EMPTY)


@contextlib.contextmanager
def two_workers(
    store: Store, *, seconds: float, heartbeat: timedelta = HEARTBEAT_TIMEOUT
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Two workers in processes of their own, by name; they drain, and do not outlive the test."""
    program = ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, __file__]
    words = [store.url, str(seconds), str(heartbeat.total_seconds())]
    processes = {name: subprocess.Popen([*program, name, *words]) for name in ("one", "two")}
    try:
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def wait_until(fact: Callable[[], bool], *, seconds: float) -> None:
    """Wait for a fact to be true."""
    begun = time.perf_counter()
    while not fact():
        assert time.perf_counter() - begun < seconds, "it did not come true in time"
        time.sleep(0.02)


# --- the queue -----------------------------------------------------------------------------------


def test_what_is_queued_in_a_transaction_that_fails_was_never_queued(store: Store) -> None:
    with store.writing() as connection:
        collection = collection_or_new(connection, "default")
    with store.writing() as connection:
        queue_ingest(connection, collection, REQUEST)
        connection.rollback()
    assert records(store) == {}
    assert queue_length(store) == 0


def test_a_queued_job_is_listed_as_it_was_asked_for(store: Store) -> None:
    first, second = queue(store, count=2)
    listed = list(records(store).values())
    assert [job.id for job in listed] == [second, first]
    assert listed[0].request == REQUEST
    assert (listed[0].collection, listed[0].kind) == ("default", "ingest")
    assert (listed[0].state, listed[0].report, listed[0].error) == (JobState.WAITING, None, None)


def test_the_frozen_tables_are_those_that_the_library_wants(store: Store) -> None:
    async def statements() -> list[str]:
        async with await psycopg.AsyncConnection.connect(store.url, autocommit=True) as connection:
            plan = await queries(connection, connection).plan_upgrade()
            return list(plan.statements)

    assert asyncio.run(statements()) == []


# --- one worker ----------------------------------------------------------------------------------


def test_a_drain_does_every_job_once_in_order_and_ends(store: Store, steps: Steps) -> None:
    queued = queue(store, count=3)
    ended: list[JobRecord] = []
    carry_out = stepping(store, "here", seconds=0)
    assert run_worker(store, carry_out, until=Until.EMPTY, ended=ended.append) == 3
    assert steps() == [(job, "here", what) for job in queued for what in ("begin", "end")]
    assert [job.id for job in ended] == queued
    for job in records(store).values():
        assert (job.state, job.report, job.attempt) == (JobState.DONE, REPORT, 1)
        assert job.finished_at is not None
        assert job.finished_at >= job.created_at
    assert queue_length(store) == 0


def test_a_drain_of_an_empty_queue_ends_at_once(store: Store, steps: Steps) -> None:
    begun = time.perf_counter()
    assert drain(store) == 0
    assert time.perf_counter() - begun < 3
    assert steps() == []


def test_a_job_that_fails_says_why_and_the_next_one_is_done(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    refused, broken, fine = queue(store, count=3)

    def carry_out(job: JobRecord, _: Progress) -> JobReport:
        if job.id == refused:
            raise RefusedImageError("the disk \udcff is on fire")
        if job.id == broken:
            raise KeyError("Ann")
        return REPORT

    assert run_worker(store, carry_out, until=Until.EMPTY) == 1
    found = records(store)
    assert found[refused].state is JobState.FAILED
    assert found[refused].error == "the disk \\udcff is on fire"
    assert found[broken].error == "unexpected KeyError: the worker's standard error tells where"
    assert "KeyError: 'Ann'" in capsys.readouterr().err
    assert found[fine].state is JobState.DONE
    assert queue_length(store) == 0


def test_a_running_job_tells_how_far_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.worker, "REPORT_SECONDS", 0.2)
    (job,) = queue(store)
    seen: list[JobReport | None] = []

    def carry_out(record: JobRecord, progress: Progress) -> JobReport:
        refused = [RefusedPicture(path=Path("/a"), member=None, reason="no face found")]
        for images in range(3):
            time.sleep(0.12)
            progress(Tally(images=images, known=1, faces=5, refused=refused))
            seen.append(records(store)[record.id].report)
        return REPORT

    assert run_worker(store, carry_out, until=Until.EMPTY) == 1
    assert seen[0] is None  # too early
    assert seen[1] is not None
    assert (seen[1].images, seen[1].known, seen[1].faces, seen[1].refused) == (1, 1, 5, 1)
    assert seen[2] == seen[1]
    assert records(store)[job].report == REPORT


def test_a_job_that_lost_its_database_is_started_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.worker, "UNREACHABLE_PAUSE", timedelta(0))
    monkeypatch.setattr(indexer.worker, "BUSY_POLL", timedelta(seconds=0.05))
    (job,) = queue(store)

    def carry_out(record: JobRecord, progress: Progress) -> JobReport:
        progress(Tally())
        if record.attempt < 3:
            raise StoreUnavailableError
        return REPORT

    assert run_worker(store, carry_out, until=Until.EMPTY) == 1
    assert (records(store)[job].state, records(store)[job].attempt) == (JobState.DONE, 3)


def test_a_job_whose_database_never_comes_back_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.worker, "UNREACHABLE_PAUSE", timedelta(0))
    monkeypatch.setattr(indexer.worker, "UNREACHABLE_MAX", 2)
    monkeypatch.setattr(indexer.worker, "BUSY_POLL", timedelta(seconds=0.05))
    (job,) = queue(store)

    def carry_out(_: JobRecord, __: Progress) -> JobReport:
        raise StoreUnavailableError("the database's disk is full")

    assert run_worker(store, carry_out, until=Until.EMPTY) == 0
    assert records(store)[job].state is JobState.FAILED
    assert records(store)[job].error == "the database's disk is full"


def test_a_job_goes_with_its_collection(store: Store, steps: Steps) -> None:
    queue(store)
    with store.writing() as connection:
        drop_collection(connection, collection_or_new(connection, "default"))
    assert drain(store) == 0
    assert steps() == []
    assert queue_length(store) == 0


def test_a_worker_survives_the_loss_of_its_connections(
    store: Store, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.worker, "HEARTBEAT_TIMEOUT", timedelta(seconds=1))
    first, second = queue(store, count=2)
    well = stepping(store, "here", seconds=0.2)

    def carry_out(job: JobRecord, progress: Progress) -> JobReport:
        if job.id == first:
            with psycopg.connect(store.url) as connection:
                connection.execute("""
                    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()
                """)
        return well(job, progress)

    revived: list[None] = []
    done = run_worker(store, carry_out, until=Until.EMPTY, revive=lambda: revived.append(None))
    assert done == 2
    assert len(revived) == 2
    assert steps() == [(job, "here", what) for job in (first, second) for what in ("begin", "end")]
    assert queue_length(store) == 0


def test_a_worker_gives_up_on_a_database_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.worker, "RECONNECT_PAUSES_S", (0.01, 0.01))
    with open_store("postgresql://facedex@/nowhere?host=/nonexistent") as away:  # noqa: SIM117
        with pytest.raises(StoreUnavailableError, match="did not answer"):
            drain(away)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_asked_to_stop_puts_its_job_back(
    store: Store, steps: Steps, number: signal.Signals
) -> None:
    first, second = queue(store, count=2)
    before = signal.getsignal(number)

    def carry_out(_: JobRecord, progress: Progress) -> JobReport:
        os.kill(os.getpid(), number)
        while True:
            time.sleep(0.01)
            progress(Tally())

    assert run_worker(store, carry_out, until=Until.STOPPED) == 0
    assert signal.getsignal(number) is before
    assert {job.state for job in records(store).values()} == {JobState.WAITING}
    assert drain(store) == 2
    assert [job for job, _, _ in steps()] == [first, first, second, second]


# --- several workers -----------------------------------------------------------------------------


def test_two_workers_share_the_jobs_and_do_each_once(store: Store, steps: Steps) -> None:
    queued = queue(store, count=10)
    with two_workers(store, seconds=0.3) as processes:
        assert [process.wait(30) for process in processes.values()] == [0, 0]
    began = [(job, name) for job, name, what in steps() if what == "begin"]
    assert sorted(job for job, _ in began) == queued
    assert {name for _, name in began} == {"one", "two"}
    assert {job.state for job in records(store).values()} == {JobState.DONE}


def test_the_job_of_a_killed_worker_is_taken_over_and_done_once(store: Store, steps: Steps) -> None:
    (job,) = queue(store)
    with two_workers(store, seconds=60) as processes:
        wait_until(lambda: len(steps()) > 0, seconds=20)
        ((_, killed, _),) = steps()
        (heir,) = {"one", "two"} - {killed}
        time.sleep(1)  # the heir is there by now, and leaves the running job alone
        processes[killed].kill()
        wait_until(lambda: len(steps()) > 1, seconds=TAKE_OVER_SECONDS_MAX)
        assert processes[heir].wait(10) == 0
    assert steps() == [(job, killed, "begin"), (job, heir, "begin"), (job, heir, "end")]
    assert (records(store)[job].state, records(store)[job].attempt) == (JobState.DONE, 2)
    assert queue_length(store) == 0


def test_a_worker_that_slept_lets_go_of_the_job_that_another_one_took(
    store: Store, steps: Steps
) -> None:
    (job,) = queue(store)
    with two_workers(store, seconds=60, heartbeat=timedelta(seconds=1)) as processes:
        wait_until(lambda: len(steps()) > 0, seconds=20)
        ((_, sleeper, _),) = steps()
        (heir,) = {"one", "two"} - {sleeper}
        processes[sleeper].send_signal(signal.SIGSTOP)
        wait_until(lambda: (job, heir, "begin") in steps(), seconds=20)
        processes[sleeper].send_signal(signal.SIGCONT)
        assert [process.wait(20) for process in processes.values()] == [0, 0]
    assert steps() == [(job, sleeper, "begin"), (job, heir, "begin"), (job, heir, "end")]
    assert (records(store)[job].state, records(store)[job].attempt) == (JobState.DONE, 2)
    assert queue_length(store) == 0


def main(name: str, url: str, seconds: str, heartbeat: str) -> None:
    indexer.worker.HEARTBEAT_TIMEOUT = timedelta(seconds=float(heartbeat))  # type: ignore[misc]
    with open_store(url) as store:
        run_worker(store, stepping(store, name, seconds=float(seconds)), until=Until.EMPTY)


if __name__ == "__main__":
    main(*sys.argv[1:])
