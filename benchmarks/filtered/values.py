"""What the parts of the harness pass to one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval.fields import Fields
from retrieval.filters import Filter
from retrieval.values import Floats, UnitRows, Value

Setting = Mapping[str, int | float | str]  # one point of an engine's sweep, such as {"nprobe": 32}
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Vectors with attributes, and queries of two kinds: to tune with and to report on."""

    name: str
    vectors: UnitRows  # (n, d); row i has the id i in every engine
    table: pa.Table  # (n rows) attributes, of the types in retrieval.filters.columns.ARROW_TYPES
    queries: UnitRows  # (q, d) reported on; none of them is a row
    query_table: pa.Table  # (q rows) the attributes that each query's own face would have
    tuning: UnitRows  # (t, d) settings are chosen on these only
    tuning_table: pa.Table  # (t rows)

    @property
    def fields(self) -> Fields:
        """The attributes with their types."""
        from retrieval.filters.columns import field_types

        return field_types(self.table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One class of filters: a template, and what each query binds to it."""

    name: str  # "10 %, age range"
    kind: str  # none, equality, range, set, boolean, null, tag
    share: float  # of the rows that should pass, 0 to 1
    correlation: str  # none, independent, own, far
    where: str | None  # an SQL condition with :parameters; None: no filter
    parameters: tuple[Mapping[str, Value], ...]  # one for each query
    tuning_parameters: tuple[Mapping[str, Value], ...]  # one for each tuning query


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question, in every form that an engine may want."""

    query: Floats  # (d,) unit length
    where: str | None  # the cell's template
    parameters: Mapping[str, Value]
    filter: Filter | None  # the template, parsed and bound


class Engine(Protocol):
    """One way to answer filtered nearest-neighbour questions. Lives in a process of its own."""

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Index the rows below `folder`, with one thread, or open what was built there before."""
        ...

    def settings(self, cell: Cell) -> Sequence[Setting]:
        """The sweep for this class of filters, cheapest first; one empty setting if none."""
        ...

    def asked(self, ask: Ask) -> object:
        """The question in the engine's own form. Not timed."""
        ...

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """Row numbers of the `count` nearest rows that pass, best first. Timed."""
        ...

    def close(self) -> None:
        """Let everything go."""
        ...
