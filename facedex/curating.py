"""Declared rules carried out on the faces of a collection (retrieval/curation/rules.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.curation.rules import (
    NOTHING,
    Applied,
    Facts,
    Mask,
    Measure,
    Numbers,
    Rule,
    Told,
    Where,
    applied,
)
from retrieval.errors import FilterError
from retrieval.fields import Fields
from retrieval.filters.parse import parse
from retrieval.filters.tree import Filter
from retrieval.store.database import Store
from retrieval.store.facts import area_share, passing, read_facts, told
from retrieval.values import Collection

SHOWN: Final = ("face", "external_id", "image", "person_id", "person")


@dataclass(frozen=True, kw_only=True, eq=False)
class Curated:
    """The faces of a collection, and what became of them by some rules."""

    rules: tuple[Rule, ...]
    applied: Applied
    table: pa.Table  # a row for each face that came in, as read_facts gives it

    @property
    def kept(self) -> pa.Table:
        """The faces that passed all rules."""
        return self._shown(self.applied.kept)

    @property
    def dropped(self) -> pa.Table:
        """The others, each with the rule that it failed first."""
        gone = ~self.applied.kept
        names = pa.array([rule.name for rule in self.rules], pa.string())
        failed = names.take(pa.array(self.applied.fates[gone].astype(np.int64)))
        return self._shown(gone).append_column("rule", failed)

    def figures(self) -> dict[str, Any]:
        """What each rule did, and that it adds up."""
        kept = self.applied.kept
        return {
            "input": self.table.num_rows,
            "kept": int(kept.sum()),
            "dropped": int((~kept).sum()),
            "images": _different(self.table["image_id"]),
            "images_kept": _different(self.kept_column("image_id")),
            "persons": _different(self.table["person_id"]),
            "persons_kept": _different(self.kept_column("person_id")),
            "rules": [
                {
                    "rule": one.rule,
                    "input": one.came,
                    "dropped": one.dropped,
                    "left": one.left,
                }
                for one in self.applied.counts
            ],
        }

    def kept_column(self, name: str) -> pa.ChunkedArray:
        """A column of the faces that passed."""
        return self.table[name].filter(pa.array(self.applied.kept))

    def _shown(self, rows: Mask) -> pa.Table:
        return self.table.select(list(SHOWN)).filter(pa.array(rows))


def curate(
    store: Store,
    rules: Sequence[Rule],
    *,
    collection: Collection,
    fields: Fields,
    filter_: Filter | None,
) -> Curated:
    """Carry rules out on the faces that pass a filter; nothing is written.

    Raises:
        FilterError: the filter of a rule cannot be read; the message names the rule.
    """
    asked = {
        number: column
        for number, rule in enumerate(rules)
        if (column := _column(rule, f"rule {number}", fields)) is not None
    }
    table = read_facts(store, collection=collection, filter_=filter_, more=tuple(asked.values()))
    facts = Facts(
        faces=table["face"].to_numpy(),
        images=_numbers(table["image_id"]),
        persons=_numbers(table["person_id"]),
        tracks=_numbers(pc.dictionary_encode(table["track"]).combine_chunks().indices),
        measures={
            Measure.QUALITY: _known(table["quality"]),
            Measure.SIZE_PX: _known(table["size_px"]),
            Measure.AREA_SHARE: _known(area_share(table)),
            Measure.IMAGE_SIDE_PX: _known(
                pc.min_element_wise(table["width"], table["height"], skip_nulls=False)
            ),
        },
        duplicate=_mask(table["duplicate"]),
        passing={number: _mask(table[f"rule {number}"]) for number in asked},
    )
    return Curated(rules=tuple(rules), applied=applied(rules, facts), table=table)


def _column(rule: Rule, name: str, fields: Fields) -> Any:
    """What the store is to say of each face for a rule; None where it needs not be asked."""
    match rule.test:
        case Where(written):
            try:
                return passing(name, parse(written, fields))
            except FilterError as cause:
                raise FilterError(f"rule '{rule.name}': {cause}") from cause
        case Told(words):
            return told(name, words)
        case _:
            return None


def _numbers(column: pa.ChunkedArray | pa.Array) -> Numbers:
    found: Numbers = pc.fill_null(column.cast(pa.int64()), NOTHING).to_numpy(zero_copy_only=False)
    return found


def _known(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    return pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()  # type: ignore[no-any-return]


def _mask(column: pa.ChunkedArray) -> Mask:
    return column.to_numpy().astype(np.bool_)  # type: ignore[no-any-return]


def _different(column: pa.ChunkedArray) -> int:
    return int(pc.count_distinct(column, mode="only_valid").as_py())
