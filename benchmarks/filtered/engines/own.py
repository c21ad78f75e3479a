"""Facedex itself, through the class that users import: shipped settings, no knob for a cell.

The filter is prepared beforehand, as its users do for filters they repeat: parsing is the one
thing that `asked` does. Binding, evaluation and planning are part of the search.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.filtered.values import Ask, Cell, DataSet, Numbers, Setting
from retrieval.library import Index

SHIPPED: Final = "0.95"
DONE: Final = "built"  # a file: the index is whole


class Adapter:
    """A library index, asked for a recall that it has to find the way to by itself."""

    def __init__(self, recall: str = SHIPPED) -> None:
        self._recall: float | str = float(recall) if recall == SHIPPED else recall
        self._index: Any = None
        self._prepared: dict[str, Any] = {}

    def build(self, data: DataSet, *, folder: Path) -> None:
        """Build and save, or load."""
        saved = folder / "index"
        if not (folder / DONE).exists():
            table = data.table if data.table.num_columns else None
            Index.build(data.vectors, table).save(saved)
            (folder / DONE).touch()
        self._index = Index.load(saved)

    def settings(self, cell: Cell) -> Sequence[Setting]:  # noqa: ARG002
        """One: what is shipped."""
        return [{"recall": self._recall}]

    def asked(self, ask: Ask) -> object:
        """The prepared template, the parameters and the query."""
        if ask.where is None:
            return ask.query, None, None
        if ask.where not in self._prepared:
            self._prepared[ask.where] = self._index.prepare(ask.where)
        return ask.query, self._prepared[ask.where], dict(ask.parameters) or None

    def search(self, asked: object, *, count: int, setting: Setting) -> Numbers:
        """One call."""
        assert isinstance(asked, tuple)
        query, where, parameters = asked
        answer = self._index.search(
            query, where=where, parameters=parameters, count=count, recall=setting["recall"]
        )
        return np.asarray(answer.ids, np.int64)

    def close(self) -> None:
        """Let the index go."""
        self._index = None
