"""Data sets in an open Facedex: compared, cut into parts, and cleaned. `Facedex.curation`.

Each method reads, decides (retrieval/curation), and gives its answer as a value with tables and
figures; files are written by facedex/written.py. Nothing in the store changes but by `keep_parts`.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from retrieval.curation.rules import read_rules
from retrieval.filters.parse import parse
from retrieval.filters.tree import Filter
from retrieval.store import audit
from retrieval.store.database import token
from retrieval.store.parts import write_parts
from retrieval.values import Collection, Token

if TYPE_CHECKING:
    from facedex.curating import Curated
    from facedex.duplicates import Found
    from facedex.handle import Facedex
    from facedex.labelling import LabelReport
    from facedex.overlapping import Overlap
    from facedex.partitioning import Partitioned
    from facedex.separating import Sampled, Separated


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

    def partition(
        self,
        shares: Mapping[str, float],
        *,
        where: str | None = None,
        fpir: float | None = None,
        above: float | None = None,
        **options: Any,
    ) -> "Partitioned":
        """Deal out faces so that no identity is in two parts.

        Args:
            shares: of the parts, such as {"train": 0.8, "test": 0.2}.
            where: only these faces.
            fpir: share of searches for strangers that may find somebody [1e-3].
            above: a cosine in its place.
            options: seed, balance, unlabelled, progress (facedex/partitioning.py).
        """
        from facedex.partitioning import partitioned
        from facedex.thresholds import Asked

        tenant, filter_ = self._place(where)
        asked = Asked(fpir=fpir, above=above)
        found = partitioned(self._facedex, shares, asked=asked, filter_=filter_, **options)
        self._told("partition", tenant, faces=len(found.parts))
        return found

    def keep_parts(self, found: "Partitioned", name: str) -> tuple[int, Token]:
        """Let a text attribute tell the part of each face, and nothing of all other faces.

        Gives the number of faces that changed, and the write's token.
        """
        with self._facedex.store.writing() as connection:
            changed = write_parts(
                connection, found.faces_of_parts(), name=name, collection=found.collection
            )
            audit.record(connection, "keep parts", found.collection, faces=changed)
            return changed, token(connection)

    def separability(self, **asked: Any) -> "Separated":
        """All pairs of identities that are too alike; `asked` as of facedex/separating.py."""
        from facedex.separating import separated

        found = separated(self._facedex, **asked)
        self._told("separability", self._facedex.collection(), faces=found.found.rows)
        return found

    def sample(self, count: int, **asked: Any) -> "Sampled":
        """Faces or persons no two of which are alike; `asked` as of facedex/separating.py."""
        from facedex.separating import sampled

        found = sampled(self._facedex, count, **asked)
        self._told("sample", self._facedex.collection(), faces=found.table.num_rows)
        return found

    def near_copies(self, **asked: Any) -> "Found":
        """Frames of tracks that are near-copies of another; `asked` as of facedex/tracks.py."""
        from facedex.tracks import near_copies

        return near_copies(self._facedex, **asked)

    def labels(self, *, where: str | None = None, **options: Any) -> "LabelReport":
        """What may be wrong with labels: `options` are those of facedex/labelling.py `judged`."""
        from facedex.labelling import judged

        tenant, filter_ = self._place(where)
        found = judged(self._facedex, filter_, **options)
        self._told("labels", tenant, faces=found.faces)
        return found

    def overlap(
        self,
        one: str,
        other: str,
        *,
        fpir: float | None = None,
        above: float | None = None,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> "Overlap":
        """What two collections of one space share: identities, pictures, names.

        Args:
            one: a collection.
            other: another one.
            fpir: share of identities that may be found in the other one by chance [1e-3].
            above: a cosine in its place.
            progress: called with work done and in all, anew for each kind that is compared.

        Raises:
            SpaceMismatchError: they are in two spaces.
            CalibrationMissingError: nothing tells how alike strangers are, and no cosine was asked.
        """
        from facedex.overlapping import Comparing
        from facedex.thresholds import Asked

        comparing = Comparing(self._facedex, one, other)
        found = comparing.all(Asked(fpir=fpir, above=above), progress)
        for tenant in comparing.tenants:
            self._told("overlap", tenant, pairs=found.identities.num_rows)
        return found

    # --- inside ------------------------------------------------------------------------------

    def _place(self, where: str | None) -> tuple[Collection, Filter | None]:
        tenant = self._facedex.collection()
        return tenant, None if where is None else parse(where, self._facedex.fields(tenant))

    def _told(self, action: str, tenant: Collection, **counts: int) -> None:
        with self._facedex.store.writing() as connection:
            audit.record(connection, action, tenant, **counts)
