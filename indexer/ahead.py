"""Batches in work: given to child processes, taken back in the order of submission.

A process that dies takes its pool along; the pool is opened anew and what was in work is repeated.
A batch that saw too many deaths is read picture by picture, so that one which kills its reader is
refused and the others go in.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from indexer.embedding import UnreadImage

BATCHES_A_WORKER: Final = 2  # one in work, one waiting
DEATHS_MAX: Final = 3  # a picture that was in work at so many deaths of a process is refused
Given = TypeVar("Given")
Given_contra = TypeVar("Given_contra", contravariant=True)
Read = TypeVar("Read")


class Work(Protocol[Given_contra, Read]):
    """What child processes do with pictures."""

    def pool(self, workers: int) -> ProcessPoolExecutor:
        """Processes that are ready for it."""
        ...

    def submit(
        self, pool: ProcessPoolExecutor, pictures: Sequence[Given_contra]
    ) -> Future[list[Read | UnreadImage]]:
        """Give them pictures; the outcome has one entry for each, in order."""
        ...


@dataclass(slots=True, kw_only=True)
class Batch(Generic[Given]):
    """Pictures that one process reads together."""

    pictures: list[Given]
    deaths: int = 0


class BatchesAhead(Generic[Given, Read]):
    """Batches in work, in the order of submission; survives the death of a child process."""

    def __init__(self, work: Work[Given, Read], *, workers: int) -> None:
        self._work = work
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: deque[tuple[Batch[Given], Future[list[Read | UnreadImage]]]] = deque()

    @property
    def full(self) -> bool:
        """Whether enough waits for the processes."""
        return len(self._waiting) >= BATCHES_A_WORKER * self._workers

    @property
    def busy(self) -> bool:
        """Whether anything is in work."""
        return bool(self._waiting)

    def submit(self, batch: Batch[Given]) -> None:
        """Give a batch to the processes."""
        try:
            self._waiting.append((batch, self._future(batch)))
        except BrokenProcessPool:
            self._restart()
            self._waiting.append((batch, self._future(batch)))

    def next_done(self) -> tuple[Batch[Given], list[Read | UnreadImage]]:
        """Wait for the oldest batch; give it with the outcome of each of its pictures."""
        while True:
            batch, future = self._waiting[0]
            try:
                outcomes: list[Read | UnreadImage] | None = future.result()
            except BrokenProcessPool:
                outcomes = self._after_death(batch)
            if outcomes is not None:
                self._waiting.popleft()
                return batch, outcomes

    def close(self) -> None:
        """End the processes; what they have not begun is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _future(self, batch: Batch[Given]) -> Future[list[Read | UnreadImage]]:
        if self._pool is None:
            # The first batch opens the pool: a run over known pictures loads no model.
            self._pool = self._work.pool(self._workers)
        return self._work.submit(self._pool, batch.pictures)

    def _restart(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None
        batches = [batch for batch, _ in self._waiting]
        self._waiting = deque((batch, self._future(batch)) for batch in batches)

    def _after_death(self, batch: Batch[Given]) -> list[Read | UnreadImage] | None:
        """Bring the processes back; after repeated deaths find the picture that kills them."""
        batch.deaths += 1
        if batch.deaths < DEATHS_MAX:
            self._restart()
            return None
        outcomes = [self._alone(one) for one in batch.pictures]
        self._restart()
        return outcomes

    def _alone(self, one: Given) -> Read | UnreadImage:
        with self._work.pool(1) as single:
            try:
                return self._work.submit(single, [one]).result()[0]
            except BrokenProcessPool:
                return UnreadImage(reason="the process that read it died each time")
