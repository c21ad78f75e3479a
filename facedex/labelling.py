"""Wrong labels of an open Facedex (retrieval/curation/labels.py): a list for people to act on.

Three things are looked for: faces unlike the rest of their person, persons that are one, and faces
that are one shot, of which two things are said. `confidence` is what the calibration says of it: of
a face that may be somebody else's and of two persons that may be one, the chance that no stranger
in the whole gallery is so alike; of a face unlike its person, the share of strangers that are more
alike than it is (half of them: no trace of the person is left).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from facedex.comparing import VECTORS_ALONE_MIN, near_pairs
from facedex.recognition import FMR_OF_ONE_PERSON
from facedex.thresholds import FPIR
from retrieval.curation.duplicates import Joined
from retrieval.curation.labels import (
    Doubt,
    Kind,
    LabelledFaces,
    Limits,
    Mask,
    cleaned_templates,
    conflicting,
    doubted,
)
from retrieval.curation.separability import Identities, separability
from retrieval.errors import UsageError
from retrieval.fields import Fields
from retrieval.filters.tree import Filter
from retrieval.graph.gathering import gathered
from retrieval.graph.making import neighbours
from retrieval.index.exact import Doubles, Numbers
from retrieval.index.view import View
from retrieval.people.calibration import Calibration
from retrieval.quality import QUALITY_FLOOR
from retrieval.search import Question, search
from retrieval.store.collections import space_of
from retrieval.store.facts import field, read_facts
from retrieval.store.labelled import read_labelled
from retrieval.store.marks import DUPLICATE, settled_pairs
from retrieval.store.people.reading import all_links
from retrieval.values import Collection, FieldType, PersonId, UnitRows

if TYPE_CHECKING:
    from facedex.handle import Facedex

Progress = Callable[[int, int], None]

CANDIDATES: Final = 8  # persons looked at around a doubtful face
SHOTS: Final = 16  # copies of one face
RECALL: Final = 0.99  # of copies
COMPARED: Final = ("person", "gender", "age")
COMPARABLE: Final = (FieldType.TEXT, FieldType.BOOLEAN, FieldType.TAGS)
SCHEMA: Final = pa.schema(
    [
        ("kind", pa.string()),
        ("confidence", pa.float64()),
        ("face", pa.int64()),
        ("image", pa.string()),
        ("person_id", pa.int64()),
        ("person", pa.string()),
        ("similarity", pa.float64()),
        ("other_face", pa.int64()),
        ("other_image", pa.string()),
        ("other_person_id", pa.int64()),
        ("other_person", pa.string()),
        ("other_similarity", pa.float64()),
        ("field", pa.string()),
        ("value", pa.string()),
        ("other_value", pa.string()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that may be wrong."""

    kind: Kind
    confidence: float | None  # None: too poor to say
    reason: str
    face: int | None = None
    person: int | None = None
    similarity: float | None = None  # to the rest of its person, or of two
    other_face: int | None = None
    other_person: int | None = None
    other_similarity: float | None = None
    field: str | None = None
    value: Any = None
    other_value: Any = None

    @property
    def surest_first(self) -> tuple[Any, ...]:
        """What findings are sorted by."""
        margin = self.similarity or 0.0  # of two that should not be so alike
        if self.kind in (Kind.MISLABELLED, Kind.UNLIKE, Kind.POOR):
            margin = (self.other_similarity or 0.0) - margin
        numbers = (self.face or 0, self.person or 0, self.other_face or 0, self.other_person or 0)
        sure = -1.0 if self.confidence is None else self.confidence
        return (-round(sure, 9), -round(margin, 9), str(self.kind), *numbers, self.field or "")


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelReport:
    """What may be wrong with the labels of a collection, the surest first."""

    findings: tuple[Finding, ...]
    faces: int  # with a person
    persons: int
    limits: Limits
    told: pa.Table  # read_facts of all faces
    names: Mapping[int | None, str | None]  # of persons that are told

    def figures(self) -> dict[str, Any]:
        """As JSON holds them."""
        counts = [one.kind for one in self.findings]
        return {
            "faces": self.faces,
            "persons": self.persons,
            **{str(kind): counts.count(kind) for kind in Kind},
            "threshold_own": self.limits.own,
            "threshold_other": self.limits.other,
            "quality_floor": self.limits.quality,
        }

    @property
    def table(self) -> pa.Table:
        """A row for each finding, with names."""
        ids = self.told["face"].to_numpy()
        images, names = self.told["image"].to_pylist(), self.names
        place = {int(face): at for at, face in enumerate(ids)}

        def image(face: int | None) -> str | None:
            return None if face is None else images[place[face]]

        return pa.Table.from_pylist(
            [
                {
                    "kind": str(one.kind),
                    "confidence": one.confidence,
                    "face": one.face,
                    "image": image(one.face),
                    "person_id": one.person,
                    "person": names.get(one.person),
                    "similarity": one.similarity,
                    "other_face": one.other_face,
                    "other_image": image(one.other_face),
                    "other_person_id": one.other_person,
                    "other_person": names.get(one.other_person),
                    "other_similarity": one.other_similarity,
                    "field": one.field,
                    "value": None if one.value is None else str(one.value),
                    "other_value": None if one.other_value is None else str(one.other_value),
                    "reason": one.reason,
                }
                for one in self.findings
            ],
            schema=SCHEMA,
        )


class Judging:
    """The labelled faces of a collection at one moment, and what is known of strangers."""

    def __init__(
        self, facedex: "Facedex", filter_: Filter | None, *, fpir: float, fmr: float
    ) -> None:
        self._facedex = facedex
        self._filter = filter_
        self._tenant: Collection = facedex.collection()
        self._calibration: Calibration = facedex.recognition.calibration()
        self._persons: View = facedex.recognition.persons().view
        with facedex.store.reading() as connection:
            space = space_of(connection, self._tenant)
            self._one = _roots(all_links(connection, collection=self._tenant))
            self._settled = settled_pairs(connection, collection=self._tenant)
        read = read_labelled(facedex.store, collection=self._tenant, space=space, filter_=filter_)
        if not len(read):
            raise UsageError(
                f"no face of collection '{self._tenant.name}' passes and has a person: name them"
                " with `facedex ingest --person-from folder`, or widen the filter"
            )
        self._ids = read.faces
        self.faces = LabelledFaces(vectors=read.vectors, quality=read.quality, persons=read.persons)
        self._gallery = max(self._persons.everything.total, 1)
        self.limits = Limits(
            own=float(self._calibration.for_fmr_of_templates(fmr).similarity),
            other=float(self._calibration.for_fpir(fpir, gallery=self._gallery).similarity),
            quality=QUALITY_FLOOR,
        )

    def report(self, compared: Sequence[str], progress: Progress) -> LabelReport:
        """All that may be wrong."""
        fields = self._facedex.fields(self._tenant)
        checked(compared, fields)
        doubts = doubted(self.faces, self.limits, self._nearest, one=self._one)
        out = np.zeros(len(self._ids), np.bool_)
        out[[doubt.row for doubt in doubts]] = True
        told = read_facts(
            self._facedex.store,
            collection=self._tenant,
            filter_=self._filter,
            more=[field(name, fields).label(f"field {name}") for name in compared],
        )
        findings = [
            *map(self._doubted, doubts),
            *self._same_persons(out, progress),
            *self._conflicts(told, compared),
        ]
        known = set(told["face"].to_pylist())
        there = (one for one in findings if {one.face, one.other_face} <= {None, *known})
        return LabelReport(
            findings=tuple(sorted(there, key=lambda one: one.surest_first)),
            faces=len(self._ids),
            persons=len(np.unique(self.faces.persons)),
            limits=self.limits,
            told=told,
            names=self._names(findings),
        )

    def _names(self, findings: Sequence[Finding]) -> dict[int | None, str | None]:
        named = {person for one in findings for person in (one.person, one.other_person)}
        known = [PersonId(one) for one in named if one is not None]
        return dict(self._facedex.recognition.names_of(sorted(known)).items())

    def _nearest(self, vectors: UnitRows) -> tuple[Numbers, Doubles]:
        question = Question(vectors=vectors, count=CANDIDATES, recall="certified")
        hits = search(self._persons, question).hits
        persons = np.full((len(hits), CANDIDATES), -1)
        similarities = np.full((len(hits), CANDIDATES), -np.inf)
        for row, one in enumerate(hits):
            persons[row, : len(one.ids)] = one.ids
            similarities[row, : len(one.ids)] = one.similarities
        return persons, similarities

    def _sure(self, similarity: float) -> float:
        """The chance that nobody in the gallery is so alike by chance."""
        return 1.0 - self._calibration.fpir(similarity, gallery=self._gallery).value

    def _doubted(self, doubt: Doubt) -> Finding:
        face, person = int(self._ids[doubt.row]), int(self.faces.persons[doubt.row])
        unlike = f"{doubt.own:.3f} like the rest of its person ({self.limits.own:.3f} is asked)"
        found = Finding(
            kind=doubt.kind,
            confidence=None,
            reason=f"{unlike}, but its quality is below {self.limits.quality:.2f}",
            face=face,
            person=person,
            similarity=doubt.own,
        )
        if doubt.similarity is not None:
            return replace(
                found,
                confidence=self._sure(doubt.similarity),
                other_person=doubt.other,
                other_similarity=doubt.similarity,
                reason=f"{doubt.own:.3f} like the rest of its person, {doubt.similarity:.3f} like"
                f" person #{doubt.other}",
            )
        if doubt.kind is Kind.UNLIKE:
            share = self._calibration.comparisons.rate(doubt.own).value
            return replace(found, confidence=min(share, 1.0), reason=unlike)
        return found

    def _same_persons(self, out: Mask, progress: Progress) -> Iterator[Finding]:
        """Persons whose templates are alike, once without the faces that are doubted."""
        rows = gathered(self._persons, None)
        rows = rows.ordered(np.flatnonzero(np.isin(rows.ids, self.faces.persons)))
        rows = rows.ordered(np.argsort(rows.ids))
        owners = np.array([self._one.get(one, one) for one in rows.ids.tolist()], np.int64)
        found = separability(
            Identities(rows=rows, owners=owners), threshold=self.limits.other, progress=progress
        )
        spoiled = set(self.faces.persons[out].tolist())
        pairs = list(zip(found.ones.tolist(), found.others.tolist(), strict=True))
        again = {one for pair in pairs if spoiled & set(pair) for one in pair}
        clean = cleaned_templates(self.faces, out, np.array(sorted(again), np.int64))
        for (one, other), similarity in zip(pairs, found.similarities.tolist(), strict=True):
            if (min(one, other), max(one, other)) in self._settled:
                continue
            if spoiled & {one, other}:
                if one not in clean or other not in clean:
                    continue  # all faces of one of them are doubted themselves
                similarity = float(clean[one] @ clean[other])  # noqa: PLW2901
            if similarity >= self.limits.other:
                yield Finding(
                    kind=Kind.SAME_PERSON,
                    confidence=self._sure(similarity),
                    reason=f"persons #{one} and #{other} are {similarity:.3f} alike"
                    f" ({self.limits.other:.3f} is enough)",
                    person=one,
                    other_person=other,
                    similarity=similarity,
                )

    def _conflicts(self, told: pa.Table, compared: Sequence[str]) -> Iterator[Finding]:
        """Faces that are one shot, of which two things are said."""
        view = self._facedex.recognition.faces().view
        blocks = neighbours(
            view, count=SHOTS, recall=RECALL, filter_=self._filter, floor=VECTORS_ALONE_MIN
        )
        ids = told["face"].to_numpy()
        near = near_pairs(blocks, ids)
        persons = told["person_id"].to_pylist()
        for name in compared:
            values = told[f"field {name}"].to_pylist()
            for one, other, similarity in _each(near.ones, near.others, near.similarities):
                if self._agree(name, (persons[one], persons[other]), (values[one], values[other])):
                    continue
                yield Finding(
                    kind=Kind.CONFLICT,
                    confidence=1.0 - self._calibration.comparisons.rate(similarity).value,
                    reason=f"one shot ({similarity:.3f} alike), and two values of '{name}'",
                    face=int(ids[one]),
                    person=persons[one],
                    similarity=similarity,
                    other_face=int(ids[other]),
                    other_person=persons[other],
                    field=name,
                    value=values[one],
                    other_value=values[other],
                )

    def _agree(self, name: str, persons: tuple[Any, Any], values: tuple[Any, Any]) -> bool:
        if name == "person":
            one, other = persons
            if one is None or other is None:
                return True
            return bool(self._one.get(one, one) == self._one.get(other, other))
        return not conflicting(*values, ignored=frozenset({DUPLICATE}))


def judged(
    facedex: "Facedex",
    filter_: Filter | None,
    *,
    fpir: float | None = None,
    fmr: float = FMR_OF_ONE_PERSON,
    compared: Sequence[str] = COMPARED,
    progress: Progress = lambda *_: None,
) -> LabelReport:
    """What may be wrong with the labels of the faces that pass a filter.

    Args:
        facedex: an open one; its collection is asked.
        filter_: only these faces.
        fpir: share of faces that may be taken for another person's by chance.
        fmr: a face is unlike its person where more strangers than this share are as alike.
        compared: fields that have to agree in copies of one shot.
        progress: called with work done and in all.

    Raises:
        UsageError: no face passes and has a person, or a field cannot be compared.
        CalibrationMissingError: nothing tells how alike strangers are.
    """
    judging = Judging(facedex, filter_, fpir=FPIR if fpir is None else fpir, fmr=fmr)
    return judging.report(compared, progress)


def checked(compared: Iterable[str], fields: Fields) -> None:
    """Raise UsageError where a field cannot be compared."""
    for name in compared:
        if name not in fields:
            raise UsageError(f"no field is called '{name}'; there are {', '.join(fields)}")
        if name != "age" and fields[name] not in COMPARABLE:
            raise UsageError(f"'{name}' holds {fields[name]}: compare text, boolean, tags, or age")


def _roots(links: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The same number for all persons that are linked."""
    joined = Joined()
    for one, other in links:
        joined.join(one, other)
    return {person: group[0] for group in joined.components() for person in group}


def _each(
    ones: Numbers, others: Numbers, similarities: Doubles
) -> Iterator[tuple[int, int, float]]:
    return zip(ones.tolist(), others.tolist(), similarities.tolist(), strict=True)
