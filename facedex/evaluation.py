"""Error rates of an open Facedex, and how well words find its faces: `facedex.evaluation`.

Each method reads the labelled faces of the configured collection (faces with a person, and a vector
in its space) and measures on them; retrieval/evaluation says how, and what the figures mean. What
is said of words takes faces of unknown person, too.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.captions.strict import condition
from retrieval.captions.vocabulary import GENDERS, tags_of_column
from retrieval.errors import UsageError
from retrieval.evaluation.calibrating import Calibrated, calibrate
from retrieval.evaluation.captions import (
    PRECISION_AT,
    SKEW_COUNT,
    CaptionsReport,
    SentencesReport,
    SkewReport,
    judge_sentences,
    rank_captions,
    skew_of,
)
from retrieval.evaluation.clustering import FACES_MAX, ClusteringReport, measure_clustering
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
from retrieval.filters.tree import Field, Filter, all_of, is_null, negate
from retrieval.models.ports import FaceTextEncoder
from retrieval.store import audit
from retrieval.store.calibrations import keep_calibration
from retrieval.store.captioned import faces_passing, read_captioned
from retrieval.store.collections import space_of, text_space_of
from retrieval.store.database import Store
from retrieval.store.labelled import Labelled, checked_group, read_everybody, read_labelled
from retrieval.values import Collection, FieldType, Space, UnitRows


class Encoding(Protocol):
    """Who has the model of a collection's face-text space."""

    def encoder(self) -> FaceTextEncoder:
        """The model, opened once."""
        ...


class Opened(Protocol):
    """What an evaluation needs of an open Facedex."""

    store: Store

    @property
    def words(self) -> "Encoding":
        """The model of its face-text space."""
        ...

    def collection(self, name: str | None = None) -> Collection:
        """The configured collection."""
        ...

    def fields(self, collection: Collection) -> Fields:
        """What a filter over it may name."""
        ...


# The cluster of each face, (n,), without a look at its person; below zero: on its own.
Grouping = Callable[[Labelled], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All pairs of a collection, and the pairs of a list."""

    all_pairs: VerificationReport
    listed: ListedReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A free sentence, and a filter that the faces pass for which it is right."""

    text: str
    where: str


def read_sentences(path: Path, fields: Fields) -> list[Sentence]:
    """Read a JSON list of {"sentence": ..., "where": ...}.

    Instead of "where" there may be "attributes": names of columns, with 1 where they are true and 0
    where they are not. A column that the collection has counts by its value, above zero is true;
    any other by the tag that it tells.

    Raises:
        UsageError: the file cannot be read, or an attribute is neither a column nor tells a tag.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return [
            Sentence(
                text=str(one["sentence"]),
                where=str(one["where"]) if "where" in one else _all_of(one["attributes"], fields),
            )
            for one in listed
        ]
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as cause:
        raise UsageError(
            f'{path} is no JSON list of {{"sentence": ..., "where": ...}}, or of "attributes"'
            ' such as {"Male": 0} in the place of "where"'
        ) from cause


def _all_of(attributes: Mapping[str, Any], fields: Fields) -> str:
    return " AND ".join(_of_column(name, truth > 0, fields) for name, truth in attributes.items())


def _of_column(name: str, truth: bool, fields: Fields) -> str:  # noqa: FBT001
    match fields.get(name):
        case FieldType.NUMBER | FieldType.INTEGER:
            return f'"{name}" {">" if truth else "<="} 0'
        case FieldType.BOOLEAN:
            return f'"{name}" = {"TRUE" if truth else "FALSE"}'
        case _:
            told = [
                condition(tag, holds=same == truth)
                for tag, same in tags_of_column(name)
                if tag not in GENDERS or same == truth
            ]
    if not told:
        raise UsageError(f"'{name}' is neither a column here nor the name of an attribute")
    return " AND ".join(told)


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

    def clustering(
        self,
        grouping: Grouping,
        *,
        where: str | None = None,
        by: str | None = None,
        faces_max: int | None = FACES_MAX,
        seed: int = 0,
    ) -> ClusteringReport:
        """How well a grouping agrees with who faces are (retrieval/evaluation/clustering.py).

        Args:
            grouping: puts faces together.
            where: which faces are grouped and judged.
            by: the field that says who a face is; None: its person. Faces without it stay out.
            faces_max: of a person in pairwise figures.
            seed: of the draws.
        """
        faces, persons = self._known(where=where, by=by)
        return measure_clustering(persons, grouping(faces), faces_max=faces_max, seed=seed)

    def _known(
        self, *, where: str | None, by: str | None
    ) -> tuple[Labelled, npt.NDArray[np.int64]]:
        """Faces, and a number for who each is."""
        if by is None:
            faces = self.faces(where=where)
            return faces, faces.persons
        tenant = self._opened.collection()
        fields = self._opened.fields(tenant)
        group = checked_group(by, fields)
        known = [negate(is_null(Field(by, fields[by])))]
        known += [] if where is None else [parse(where, fields)]
        with self._opened.store.reading() as connection:
            space = space_of(connection, tenant)
        found = read_everybody(
            self._opened.store,
            collection=tenant,
            space=space,
            filter_=all_of(known),
            group=group,
        )
        if not len(found):
            raise UsageError(f"no face of collection '{tenant.name}' passes and has '{by}'")
        with self._opened.store.writing() as connection:
            audit.record(connection, "evaluate", tenant, faces=len(found))
        names = np.array(found.groups, dtype=str)
        return found, np.unique(names, return_inverse=True)[1].astype(np.int64)

    def captions(
        self, *, where: str | None = None, progress: Progress = no_progress
    ) -> CaptionsReport:
        """Captions of the collection against its faces (retrieval/evaluation/captions.py).

        Faces of unknown person take part, each as a person of its own. Captions without a vector
        do not: `facedex space backfill` gives them one.

        Raises:
            UnknownNameError: the collection has no face-text space.
            UsageError: no face passes, or none has a caption.
        """
        tenant, space, filter_ = self._looks(where)
        store = self._opened.store
        faces = self._everybody(where)
        told = read_captioned(store, collection=tenant, space=space, filter_=filter_)
        order = np.argsort(faces.faces)
        places = np.searchsorted(faces.faces, told.faces, sorter=order)
        places = order[np.minimum(places, len(order) - 1)]
        # A face that came between the two reads is left out.
        here = np.flatnonzero(faces.faces[places] == told.faces)
        return rank_captions(
            faces.vectors,
            UnitRows(told.vectors[here]),
            sentences=[told.sentences[row] for row in here],
            owners=places[here],
            persons=faces.persons,
            progress=progress,
        )

    def sentences(
        self, path: Path, *, where: str | None = None, at: int = PRECISION_AT
    ) -> SentencesReport:
        """Free sentences of a file (`read_sentences`) against the faces for which they are right.

        Raises:
            UsageError: the file cannot be read, or no sentence has a right face.
            FilterError: a filter cannot be read.
        """
        tenant, _, _ = self._looks(where)
        fields = self._opened.fields(tenant)
        asked = read_sentences(path, fields)
        filters = [parse(one.where, fields) for one in asked]
        faces = self._everybody(where)
        relevant = [
            np.isin(
                faces.faces,
                faces_passing(self._opened.store, collection=tenant, filter_=filter_),
            )
            for filter_ in filters
        ]
        texts = self._opened.words.encoder().of_texts([one.text for one in asked])
        return judge_sentences(
            texts @ faces.vectors.T,
            np.array(relevant).reshape(len(asked), len(faces)),
            sentences=[one.text for one in asked],
            persons=faces.persons,
            at=at,
        )

    def skew(
        self,
        sentences: Sequence[str],
        by: str,
        *,
        where: str | None = None,
        count: int = SKEW_COUNT,
        persons_min: int = GROUP_PERSONS_MIN,
    ) -> list[SkewReport]:
        """How evenly each sentence finds the groups that a field makes, whatever it asks.

        The policy of trait words does not hold here: shares of groups are told, no face is.

        Raises:
            UsageError: nothing can be grouped by this field, or no group is large enough.
        """
        faces = self._everybody(where, by=by)
        texts = self._opened.words.encoder().of_texts(list(sentences))
        return [
            skew_of(
                vector @ faces.vectors.T,
                sentence=sentence,
                groups=faces.groups,
                persons=faces.persons,
                count=count,
                persons_min=persons_min,
            )
            for sentence, vector in zip(sentences, texts, strict=True)
        ]

    def _looks(self, where: str | None) -> tuple[Collection, Space, Filter | None]:
        """The collection, its face-text space, and the filter."""
        tenant = self._opened.collection()
        with self._opened.store.reading() as connection:
            space = text_space_of(connection, tenant)
        filter_ = None if where is None else parse(where, self._opened.fields(tenant))
        return tenant, space, filter_

    def _everybody(self, where: str | None, *, by: str | None = None) -> Labelled:
        """The faces that pass and have a vector in the face-text space."""
        tenant, space, filter_ = self._looks(where)
        group = None if by is None else checked_group(by, self._opened.fields(tenant))
        found = read_everybody(
            self._opened.store, collection=tenant, space=space, filter_=filter_, group=group
        )
        if not len(found):
            raise UsageError(
                f"no face of collection '{tenant.name}' passes and has a vector in"
                f" '{space.name}': `facedex space backfill`, or widen the filter"
            )
        with self._opened.store.writing() as connection:
            audit.record(connection, "evaluate", tenant, faces=len(found))
        return found
