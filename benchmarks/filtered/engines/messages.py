"""What a run and an engine's process say to one another, in a module that both import by name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.filtered.values import Numbers, Setting

ANSWER, UNSUPPORTED, FAILED = "answer", "unsupported", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build took, or an opening of what was built."""

    seconds: float
    cpu_seconds: float
    before_bytes: int  # of this process, with its imports and the attributes
    peak_bytes: int  # of this process


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory of the engine's processes."""

    rss_bytes: int
    private_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRequest:
    """Some of the questions that were handed over under a name, with one setting."""

    questions: str
    places: Sequence[int]
    count: int
    setting: Setting
    seconds_max: float  # then it stops; at least one question is answered
    warm: int  # that many of the questions are asked before the clock runs
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """The answers to the first questions of a request, as many as there was time for."""

    found: list[Numbers]
    seconds: npt.NDArray[np.float64]  # (answers,) wall-clock
    elapsed: float  # of the whole block
    cpu_seconds: float  # of all the engine's processes, over the whole block
