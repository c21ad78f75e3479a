"""Error rates of an open Facedex: `facedex.evaluation`.

Each method reads the labelled faces of the configured collection (faces with a person, and a vector
in its space) and measures on them; retrieval/evaluation says how, and what the figures mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from retrieval.errors import UsageError
from retrieval.evaluation.calibrating import Calibrated, calibrate
from retrieval.evaluation.discard import DEFAULT_FMR as DISCARD_FMR
from retrieval.evaluation.discard import DiscardReport, discard_worst
from retrieval.evaluation.groups import DEFAULT_FMR as GROUPS_FMR
from retrieval.evaluation.groups import (
    GROUP_PAIRS_MIN,
    GROUP_PERSONS_MIN,
    GroupsReport,
    compare_groups,
)
from retrieval.evaluation.identification import (
    FPIRS,
    GALLERIES,
    SPLITS,
    IdentificationReport,
    identify_all,
)
from retrieval.evaluation.listed import ListedReport, read_pairs, verify_listed
from retrieval.evaluation.pairs import Progress
from retrieval.evaluation.verification import VerificationReport, verify_all
from retrieval.fields import Fields
from retrieval.filters.parse import parse
from retrieval.store import audit
from retrieval.store.calibrations import keep_calibration
from retrieval.store.collections import space_of
from retrieval.store.database import Store
from retrieval.store.labelled import Labelled, checked_group, read_labelled
from retrieval.values import Collection


class Opened(Protocol):
    """What an evaluation needs of an open Facedex."""

    store: Store

    def collection(self, name: str | None = None) -> Collection:
        """The configured collection."""
        ...

    def fields(self, collection: Collection) -> Fields:
        """What a filter over it may name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All pairs of a collection, and the pairs of a list."""

    all_pairs: VerificationReport
    listed: ListedReport | None


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


class Evaluation:
    """Measures how often recognition errs on the faces of the configured collection."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def faces(self, *, where: str | None = None, by: str | None = None) -> Labelled:
        """The faces that pass the filter and whose person is known, grouped by a field.

        Raises:
            FilterError: the filter cannot be read.
            UsageError: there are none, or nothing can be grouped by this field.
        """
        tenant = self._opened.collection()
        fields = self._opened.fields(tenant)
        with self._opened.store.reading() as connection:
            space = space_of(connection, tenant)
        found = read_labelled(
            self._opened.store,
            collection=tenant,
            space=space,
            filter_=None if where is None else parse(where, fields),
            group=None if by is None else checked_group(by, fields),
        )
        if not len(found):
            raise UsageError(
                f"no face of collection '{tenant.name}' passes and has a person: name them with"
                " `facedex ingest --person-from folder`, or widen the filter"
            )
        with self._opened.store.writing() as connection:
            audit.record(connection, "evaluate", tenant, faces=len(found))
        return found

    def verification(
        self,
        *,
        where: str | None = None,
        pairs: Path | None = None,
        progress: Progress = no_progress,
        **options: Any,
    ) -> Verification:
        """All pairs, and those of a list in LFW's format; `options` as of `verify_all`."""
        named = None if pairs is None else read_pairs(pairs)
        faces = self.faces(where=where)
        listed = None if named is None else verify_listed(faces, named)
        return Verification(
            all_pairs=verify_all(faces, progress=progress, **options), listed=listed
        )

    def calibrate(
        self, *, where: str | None = None, progress: Progress = no_progress
    ) -> Calibrated:
        """Measure how alike strangers are, and keep it: thresholds come from it from now on."""
        tenant = self._opened.collection()
        with self._opened.store.reading() as connection:
            space = space_of(connection, tenant)
        faces = self.faces(where=where)
        persons = len(set(faces.persons.tolist()))
        data = f"{len(faces):,} faces of {persons:,} persons"
        found = calibrate(faces, space=space, data=data, progress=progress)
        with self._opened.store.writing() as connection:
            keep_calibration(connection, found.calibration, collection=tenant, space=space)
            audit.record(connection, "calibrate", tenant, faces=len(faces))
        return found

    def identification(
        self,
        *,
        where: str | None = None,
        galleries: Sequence[int] = GALLERIES,
        fpirs: Sequence[float] = FPIRS,
        splits: int = SPLITS,
        quality_min: float = 0.0,
        progress: Progress = no_progress,
    ) -> IdentificationReport:
        """Open-set identification (retrieval/evaluation/identification.py)."""
        return identify_all(
            self.faces(where=where),
            galleries=galleries,
            fpirs=fpirs,
            splits=splits,
            quality_min=quality_min,
            progress=progress,
        )

    def bias(
        self,
        by: str,
        *,
        where: str | None = None,
        threshold: float | None = None,
        fmr: float = GROUPS_FMR,
        persons_min: int = GROUP_PERSONS_MIN,
        pairs_min: int = GROUP_PAIRS_MIN,
        progress: Progress = no_progress,
    ) -> GroupsReport:
        """Error rates by the values of a field (retrieval/evaluation/groups.py)."""
        return compare_groups(
            self.faces(where=where, by=by),
            threshold=threshold,
            fmr=fmr,
            persons_min=persons_min,
            pairs_min=pairs_min,
            progress=progress,
        )

    def quality(
        self,
        *,
        where: str | None = None,
        fmr: float = DISCARD_FMR,
        progress: Progress = no_progress,
    ) -> DiscardReport:
        """Errors as the worst faces are left out (retrieval/evaluation/discard.py)."""
        return discard_worst(self.faces(where=where), fmr=fmr, progress=progress)
