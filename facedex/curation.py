"""Data sets in an open Facedex: compared, cut into parts, and cleaned. `Facedex.curation`.

Each method reads, decides (retrieval/curation), and gives its answer as a value with tables and
figures; files are written by facedex/written.py. Nothing in the store changes but by `keep_parts`.
"""

from typing import TYPE_CHECKING

from retrieval.curation.rules import read_rules
from retrieval.filters.parse import parse
from retrieval.filters.tree import Filter
from retrieval.store import audit
from retrieval.values import Collection

if TYPE_CHECKING:
    from facedex.curating import Curated
    from facedex.handle import Facedex


class Curation:
    """Cuts and compares the faces of the configured collection."""

    def __init__(self, facedex: "Facedex") -> None:
        self._facedex = facedex

    def curate(self, rules: str, *, where: str | None = None) -> "Curated":
        """Let declared rules choose faces (retrieval/curation/rules.py).

        Args:
            rules: TOML, as docs/guides/curation.md shows it.
            where: only these faces come in.

        Raises:
            UsageError: something in it is no rule.
            FilterError: a filter cannot be read.
        """
        from facedex.curating import curate

        read = read_rules(rules)
        tenant, filter_ = self._place(where)
        found = curate(
            self._facedex.store,
            read,
            collection=tenant,
            fields=self._facedex.fields(tenant),
            filter_=filter_,
        )
        self._told("curate", tenant, faces=found.table.num_rows)
        return found

    # --- inside ------------------------------------------------------------------------------

    def _place(self, where: str | None) -> tuple[Collection, Filter | None]:
        tenant = self._facedex.collection()
        return tenant, None if where is None else parse(where, self._facedex.fields(tenant))

    def _told(self, action: str, tenant: Collection, *, faces: int) -> None:
        with self._facedex.store.writing() as connection:
            audit.record(connection, action, tenant, faces=faces)
