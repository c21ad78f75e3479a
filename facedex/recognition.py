"""Who somebody is: verify, identify, enroll. What `Facedex.recognition` gives.

Thresholds are asked for as error rates. The calibration that turns them into similarities is the
collection's own, measured on its labelled faces, or else the one that came with the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from retrieval.errors import RefusedImageError
from retrieval.index.exact import cosines
from retrieval.limits import COUNT_MAX
from retrieval.people.calibration import Calibration, Threshold
from retrieval.people.decision import (
    Candidate,
    Identification,
    Verification,
    identified,
    verified,
)
from retrieval.quality import QUALITY_FLOOR
from retrieval.reader import Reader
from retrieval.search import Question
from retrieval.store import audit
from retrieval.store import collections as tenants
from retrieval.store.calibrations import calibration_of
from retrieval.store.database import token
from retrieval.store.faces import quality_of
from retrieval.store.holdings import Persons
from retrieval.store.people import operations, reading
from retrieval.values import (
    Collection,
    FaceId,
    PersonId,
    Similarity,
    Space,
    Token,
    UnitRows,
    unit_rows,
)

if TYPE_CHECKING:
    from facedex.handle import Facedex
    from indexer.enrolling import Portrait

FMR: Final = 1e-5  # asked for where nobody says
FPIR: Final = 1e-3
FMR_OF_ONE_PERSON: Final = 1e-3  # pictures of one person are that much alike, however old
CANDIDATES: Final = 16  # fetched at first
UNLIKE: Final = "it does not look like the person's other pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One face that is asked about."""

    vector: UnitRows  # (1, d)
    quality: float | None  # None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A candidate with the name that people know."""

    candidate: Candidate
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """An identification with names, in the order of its candidates."""

    identification: Identification
    named: tuple[Named, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPortrait:
    """A picture that was not enrolled, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What became of the pictures of one person."""

    person: PersonId | None  # None: every picture was refused
    faces: tuple[FaceId, ...]
    refused: tuple[RefusedPortrait, ...]
    token: Token | None


class Recognition:
    """Decisions about persons in the configured collection."""

    def __init__(self, facedex: "Facedex") -> None:
        self._facedex = facedex

    # --- probes ------------------------------------------------------------------------------

    def probe_of_picture(self, path: str | Path) -> Probe:
        """The largest central face of a picture, or UsageError."""
        return _probe(self._facedex.portrait(path))

    def probe_of_face(self, face: int) -> Probe:
        """A stored face."""
        tenant, _ = self._place()
        with self._facedex.store.reading() as connection:
            quality = quality_of(connection, FaceId(face), collection=tenant)
        return Probe(vector=self._facedex.probe_of_face(face), quality=quality)

    # --- decisions ---------------------------------------------------------------------------

    def verify(self, one: Probe, two: Probe, *, fmr: float = FMR) -> Verification:
        """Whether two faces are of one person, at a false match rate."""
        similarity = float(cosines(two.vector.astype("<f2"), one.vector[0])[0])
        return verified(
            Similarity(similarity),
            threshold=self.calibration().for_fmr(fmr),
            quality=(one.quality, two.quality),
            floor=QUALITY_FLOOR,
        )

    def verify_person(self, probe: Probe, who: str, *, fmr: float = FMR) -> Verification:
        """Whether a face is of a stored person, by the person's template.

        Raises:
            UnknownNameError: there is no such person, or it has no captured face.
        """
        tenant, _ = self._place()
        with self._facedex.store.reading() as connection:
            person = reading.required(connection, who, collection=tenant)
        index = self.persons()
        vector = index.vectors_of(np.array([person]))
        return verified(
            Similarity(float(cosines(vector.astype("<f2"), probe.vector[0])[0])),
            threshold=self.calibration().for_fmr_of_templates(fmr),
            quality=(probe.quality, None),
            floor=QUALITY_FLOOR,
        )

    def identify(self, probe: Probe, *, fpir: float = FPIR, where: str | None = None) -> Identified:
        """Everybody whose template is so similar that strangers seldom are, most similar first.

        Args:
            probe: one face.
            fpir: share of searches for strangers that may find somebody.
            where: only persons with a face that passes; the gallery is as large as they are many.
        """
        index = self.persons()
        passing = None if where is None else self._facedex.persons_passing(where)
        gallery = index.status().rows if passing is None else len(passing)
        threshold = self.calibration().for_fpir(fpir, gallery=gallery)
        found = _candidates(index, probe, threshold)
        if passing is not None:
            found = [one for one in found if one.person in passing]
        decided = identified(
            found,
            threshold=threshold,
            quality=probe.quality,
            floor=QUALITY_FLOOR,
            gallery=gallery,
        )
        return Identified(identification=decided, named=self._named(decided.candidates))

    # --- enrolment ---------------------------------------------------------------------------

    def enroll(self, name: str, pictures: Sequence[str | Path], *, fpir: float = FPIR) -> Enrolment:
        """Store pictures and give their largest central faces to a person, made where new.

        A picture is refused that cannot be read, shows no face, is below the quality floor, looks
        like another person, or unlike the person's other pictures. The others are enrolled.
        """
        from indexer.enrolling import store_portraits

        tenant, space = self._facedex.place_for_pictures()
        accepted, refused = self._judged(name, pictures, tenant, fpir=fpir)
        if not accepted:
            return Enrolment(person=None, faces=(), refused=tuple(refused), token=None)
        told, text_space = self._facedex.words.told(accepted, tenant)
        with self._facedex.store.writing() as connection:
            faces = store_portraits(
                connection, told, collection=tenant, space=space, text_space=text_space
            )
            done = operations.assign(connection, faces, name, collection=tenant)
            audit.record(connection, "enroll", tenant, faces=len(faces))
            written = token(connection)
        self._facedex.match_protected(tenant)
        return Enrolment(
            person=done.person, faces=tuple(faces), refused=tuple(refused), token=written
        )

    # --- inside ------------------------------------------------------------------------------

    def persons(self) -> Reader:
        """The index of templates, as of now."""
        tenant, space = self._place()
        index = self._facedex.opened(Persons(self._facedex.store, tenant, space))
        index.refresh()
        return index

    def faces(self) -> Reader:
        """The index of faces, as of now."""
        index = self._facedex.index(self._facedex.collection())
        index.refresh()
        return index

    def names_of(self, persons: Sequence[PersonId]) -> dict[PersonId, str | None]:
        """The name of each person that is there."""
        with self._facedex.store.reading() as connection:
            return reading.names_of(connection, persons)

    def calibration(self) -> Calibration:
        """The collection's own, or the one that came with the model.

        Raises:
            CalibrationMissingError: there is neither.
        """
        tenant = self._facedex.collection_if_any()
        with self._facedex.store.reading() as connection:
            if tenant is not None and tenant.space_id is not None:
                space = tenants.space_of(connection, tenant)
            else:  # two pictures can be compared before anything is stored
                space = self._facedex.space_of_pictures()
            return calibration_of(connection, collection=tenant, space=space)

    def _place(self) -> tuple[Collection, Space]:
        tenant = self._facedex.collection()
        with self._facedex.store.reading() as connection:
            return tenant, tenants.space_of(connection, tenant)

    def _judged(
        self, name: str, pictures: Sequence[str | Path], tenant: Collection, *, fpir: float
    ) -> tuple[list["Portrait"], list[RefusedPortrait]]:
        """The pictures that may stand for the person, and the others with the reason."""
        from indexer.enrolling import read_portrait

        with self._facedex.store.reading() as connection:
            person = reading.found(connection, name, collection=tenant)
            linked = [] if person is None else reading.links_of(connection, person)
        index, reader = self.persons(), self._facedex.reader_of(tenant)
        conflict = self.calibration().for_fpir(fpir, gallery=max(index.status().rows, 1))
        accepted: list[Portrait] = []
        refused: list[RefusedPortrait] = []
        for path in map(Path, pictures):
            try:
                portrait = read_portrait(path, reader)
                require_quality(portrait)
                found = _candidates(index, _probe(portrait), conflict)
                _require_no_other(found, {*linked, person})
            except RefusedImageError as refusal:
                refused.append(RefusedPortrait(path=path, reason=str(refusal)))
            else:
                accepted.append(portrait)
        template = None if person is None else _template(index, person)
        kept, others = alike(accepted, template, calibration=self.calibration())
        return kept, [*refused, *others]

    def _named(self, candidates: Sequence[Candidate]) -> tuple[Named, ...]:
        names = self.names_of([one.person for one in candidates])
        return tuple(Named(candidate=one, name=names.get(one.person)) for one in candidates)


def _probe(portrait: "Portrait") -> Probe:
    face = portrait.face
    return Probe(vector=UnitRows(face.vector[None]), quality=face.quality.total)


def _candidates(index: Reader, probe: Probe, threshold: Threshold) -> list[Candidate]:
    """Everybody at or above the threshold, best first."""
    count = CANDIDATES
    while True:
        question = Question(
            vectors=probe.vector,
            count=count,
            recall="certified",
            min_similarity=threshold.similarity,
        )
        [hits] = index.search(question).hits
        if len(hits.ids) < count or count == COUNT_MAX:
            return [
                Candidate(person=PersonId(person), similarity=Similarity(similarity))
                for person, similarity in zip(
                    hits.ids.tolist(), hits.similarities.tolist(), strict=True
                )
            ]
        count = min(4 * count, COUNT_MAX)


def _template(index: Reader, person: PersonId) -> UnitRows | None:
    vectors, there = index.view.vectors_of(np.array([person]))
    return unit_rows(vectors) if there.all() else None


def require_quality(portrait: "Portrait") -> None:
    """Raise RefusedImageError where the picture is too poor to stand for a person."""
    quality = portrait.face.quality.total
    if quality < QUALITY_FLOOR:
        raise RefusedImageError(
            f"its quality is {quality:.2f}, below {QUALITY_FLOOR:.2f}: too small, blurred, covered "
            "or turned away to stand for a person"
        )


def alike(
    portraits: Sequence["Portrait"], template: UnitRows | None, *, calibration: Calibration
) -> tuple[list["Portrait"], list[RefusedPortrait]]:
    """Those like the person's template, or like the picture that is most like all others.

    The others come second, refused.
    """
    if not portraits:
        return [], []
    vectors = np.stack([one.face.vector for one in portraits])
    if template is None:
        template = UnitRows(vectors[[np.argmax((vectors @ vectors.T).sum(axis=1))]])
    least = calibration.for_fmr(FMR_OF_ONE_PERSON).similarity
    similarities = (vectors @ template.T)[:, 0]
    pairs = list(zip(portraits, similarities, strict=True))
    kept = [one for one, near in pairs if near >= least]
    unlike = [RefusedPortrait(path=one.path, reason=UNLIKE) for one, near in pairs if near < least]
    return kept, unlike


def _require_no_other(found: Sequence[Candidate], same: set[PersonId | None]) -> None:
    for other in found:
        if other.person not in same:
            raise RefusedImageError(
                f"it looks like person #{other.person} (similarity {other.similarity:.3f}): if "
                "both are one human, use that person's name, or `facedex person link` the two"
            )
