"""`facedex worker` and `facedex jobs`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from api.cli.output import Session, emit, printable, table, with_json

if TYPE_CHECKING:
    from facedex.handle import Facedex
    from indexer.jobs import JobRecord, JobReport
    from indexer.pipeline import Tally

SYSTEM_FAILED: Final = 3
JOBS_SHOWN_MAX: Final = 100  # the newest ones


@click.command(
    epilog="""\b
Examples:
  facedex ingest photos/ --later && facedex worker --drain
  facedex worker
"""
)
@click.option("--drain", is_flag=True, help="End when no job waits or runs any more.")
@with_json
@click.pass_obj
def worker_command(session: Session, drain: bool, as_json: bool) -> int:
    """Carry out queued jobs, one at a time.

    Start as many as you like, on any machine that sees the database and the pictures: the job of
    one that dies is taken over by another. Ctrl-C ends after the pictures in work; the job goes
    back to the queue. `--json` prints one object at the end.
    """
    from facedex.handle import database_address
    from indexer.jobs import JobRecord, JobState
    from indexer.worker import Until, run_worker

    ended: list[JobRecord] = []

    def tell(job: JobRecord) -> None:
        ended.append(job)
        if not as_json:
            click.echo(_line(job))

    with session.facedex() as facedex:

        def revive() -> None:
            database_address(facedex.settings)

        until = Until.EMPTY if drain else Until.STOPPED
        run_worker(facedex.store, _ingest_with(facedex), until=until, ended=tell, revive=revive)
    failed = sum(job.state is JobState.FAILED for job in ended)
    if as_json:
        values = {
            "done": len(ended) - failed,
            "failed": failed,
            "jobs": [_values(job) for job in ended],
            "token": max((job.report.token or 0 for job in ended if job.report), default=None),
        }
        emit(values, as_json=True, text="")
    return SYSTEM_FAILED if drain and failed else 0


@click.command(epilog="Example:  facedex jobs")
@with_json
@click.pass_obj
def jobs_command(session: Session, as_json: bool) -> None:
    """List queued jobs, the newest first."""
    from indexer.jobs import jobs

    with session.facedex() as facedex, facedex.store.reading() as connection:
        listed = jobs(connection, JOBS_SHOWN_MAX)
    emit(
        {"jobs": [_values(job) for job in listed]},
        as_json=as_json,
        text=table(
            [_cells(job) for job in listed],
            header=["job", "kind", "collection", "state", "images", "faces", "refused", "error"],
        ),
    )


def _ingest_with(
    facedex: "Facedex",
) -> "Callable[[JobRecord, Callable[[Tally], None]], JobReport]":
    from indexer.jobs import JobReport

    def carry_out(job: "JobRecord", progress: "Callable[[Tally], None]") -> JobReport:
        report = facedex.run_ingest(job.request, collection=job.collection, progress=progress)
        return JobReport(
            images=report.images,
            known=report.known,
            faces=report.faces,
            refused=len(report.refused),
            seconds=report.seconds,
            token=report.token,
        )

    return carry_out


def _line(job: "JobRecord") -> str:
    if job.error is not None:
        return f"job {job.id} failed: {printable(job.error)}"
    if job.report is None:
        return f"job {job.id}: {job.state}"
    return (
        f"job {job.id}: {job.report.images} new images with {job.report.faces} faces,"
        f" {job.report.refused} refused, in {job.report.seconds:.1f} s"
    )


def _cells(job: "JobRecord") -> list[str]:
    report = job.report
    counts = (
        ["", "", ""]
        if report is None
        else [str(report.images), str(report.faces), str(report.refused)]
    )
    error = "" if job.error is None else printable(job.error)
    return [str(job.id), job.kind, job.collection, job.state, *counts, error]


def _values(job: "JobRecord") -> dict[str, Any]:
    report = job.report
    return {
        "job": job.id,
        "kind": job.kind,
        "collection": job.collection,
        "state": job.state,
        "images": report and report.images,
        "known": report and report.known,
        "faces": report and report.faces,
        "refused": report and report.refused,
        "seconds": report and round(report.seconds, 3),
        "token": report and report.token,
        "error": job.error,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
    }
