"""Grouping the faces of an open Facedex into persons. Reached as `facedex.clustering`.

A grouping proposes: persons without a name, one event that can be undone. What people said stands:
faces that came with a person, were given to one, or belong to a person with a name or one that
anybody changed, stay there, and two such persons never become one; a face that was rejected for a
person does not get there, and two faces of one picture are not one person. What an earlier grouping
proposed and nobody touched is grouped anew, and keeps its person where most of it stays together.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from facedex.crowd import Crowd, Progress
from indexer.bulk.files import whole
from retrieval.clusters import keeping
from retrieval.clusters.grouping import Grouping
from retrieval.clusters.methods import Method
from retrieval.evaluation.clustering import Assignment
from retrieval.store import audit
from retrieval.store import clusterings as kept
from retrieval.store.database import token
from retrieval.values import FaceId, FaceIds, Floats, PersonId, Token

if TYPE_CHECKING:
    from facedex.handle import Facedex

Places = npt.NDArray[np.int64]
CLUSTERS, DOUBTS = "clusters.parquet", "doubtful.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Two faces that stand for two groups which may be one."""

    one: FaceId
    other: FaceId
    one_person: PersonId | None
    other_person: PersonId | None
    similarity: float  # of the groups' templates


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """What a grouping found."""

    faces: FaceIds  # (n,) looked at, ascending
    persons: Places  # (n,) NOBODY without one; of a dry run NEW and below for new ones
    confidence: Floats  # (n,) NaN where nothing was decided
    doubts: tuple[Doubt, ...]  # to be looked at first, the nearest to being one first
    events: tuple[int, ...]  # to be undone to take the grouping back
    token: Token | None  # of the write; None: nothing was written

    @property
    def assigned(self) -> int:
        """Faces that have a person."""
        return int((self.persons != kept.NOBODY).sum())

    @property
    def count(self) -> int:
        """Persons that have faces among those looked at."""
        return len(np.unique(self.persons[self.persons != kept.NOBODY]))


class Clustering:
    """Proposing persons."""

    def __init__(self, facedex: "Facedex") -> None:
        self._facedex = facedex

    def cluster(
        self,
        *,
        where: str | None = None,
        method: Method = Method.TEMPLATES,
        threshold: float | None = None,
        write: bool = True,
        progress: Progress = lambda *_: None,
    ) -> Clustered:
        """Group all faces that pass a filter.

        Args:
            where: which faces; None: all of the collection.
            method: the default, or a library's.
            threshold: of a library's method; None: the similarity that 1 of 100,000 strangers has.
            write: propose what was found; else nothing is stored.
            progress: called with what is being done, how much of it is, and how much there is.

        Raises:
            CalibrationMissingError: nothing is known of strangers in the space.
            UsageError: the method's library is not installed.
        """
        crowd = Crowd(self._facedex, where)
        if method is Method.TEMPLATES:
            found = crowd.grouped(progress)
            groups, confidence = found.groups, found.confidence
        else:
            found = None
            groups = crowd.grouped_by(method, threshold, progress)
            confidence = np.full(len(groups), np.nan, np.float32)
        standing = crowd.standing
        persons = keeping.persons_of(groups, standing.persons, standing.said)
        return self._told(crowd, found, persons, confidence, write=write)

    def attach(
        self, *, where: str | None = None, write: bool = True, progress: Progress = lambda *_: None
    ) -> Clustered:
        """Group the faces that came since the last grouping: with persons, or with each other.

        Raises:
            UsageError: there was no grouping yet.
        """
        crowd = Crowd(self._facedex, where)
        persons = crowd.attached(progress)
        confidence = np.full(len(persons), np.nan, np.float32)
        return self._told(crowd, None, persons, confidence, write=write)

    def unaided(
        self,
        *,
        where: str | None = None,
        method: Method = Method.TEMPLATES,
        threshold: float | None = None,
        progress: Progress = lambda *_: None,
    ) -> Assignment:
        """The groups that would be found if nobody had said who is who; nothing is stored.

        Arguments and errors are those of `cluster`.
        """
        crowd = Crowd(self._facedex, where).forgetful()
        if method is Method.TEMPLATES:
            groups = crowd.grouped(progress).groups
        else:
            groups = crowd.grouped_by(method, threshold, progress)
        return Assignment(crowd.standing.faces, groups)

    def _told(
        self,
        crowd: Crowd,
        found: Grouping | None,
        persons: Places,
        confidence: Floats,
        *,
        write: bool,
    ) -> Clustered:
        events: tuple[int, ...] = ()
        written: Token | None = None
        if write:
            with self._facedex.store.writing() as connection:
                ended = crowd.ended if found is None else found.ended
                persons, events = kept.propose(
                    connection,
                    crowd.standing,
                    persons,
                    confidence,
                    ended,
                    collection=crowd.collection,
                    space=crowd.space,
                )
                audit.record(
                    connection, "cluster", crowd.collection, faces=int((persons >= 0).sum())
                )
                written = token(connection)
        return Clustered(
            faces=crowd.standing.faces,
            persons=persons,
            confidence=confidence,
            doubts=_doubts(crowd, found, persons),
            events=events,
            token=written,
        )


def write_clusters(clustered: Clustered, folder: Path) -> None:
    """Write clusters.parquet (face, person, confidence) and doubtful.parquet into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    alone = clustered.persons == kept.NOBODY
    unsure = np.isnan(clustered.confidence)
    clusters = pa.table(
        {
            "face": clustered.faces,
            "person": pa.array(clustered.persons, mask=alone),
            "confidence": pa.array(clustered.confidence, mask=unsure),
        }
    )
    doubtful = pa.Table.from_pylist(
        [asdict(doubt) for doubt in clustered.doubts],
        schema=pa.schema(
            [
                ("one", pa.int64()),
                ("other", pa.int64()),
                ("one_person", pa.int64()),
                ("other_person", pa.int64()),
                ("similarity", pa.float64()),
            ]
        ),
    )
    for name, made in ((CLUSTERS, clusters), (DOUBTS, doubtful)):
        with whole(folder / name) as staged:
            pq.write_table(made, staged)


def _doubts(crowd: Crowd, found: Grouping | None, persons: Places) -> tuple[Doubt, ...]:
    if found is None:
        return ()
    faces = crowd.standing.faces
    doubts = found.doubts
    return tuple(
        Doubt(
            one=FaceId(int(faces[one])),
            other=FaceId(int(faces[other])),
            one_person=_person(int(persons[one])),
            other_person=_person(int(persons[other])),
            similarity=similarity,
        )
        for one, other, similarity in zip(
            doubts.ones.tolist(), doubts.others.tolist(), doubts.similarities.tolist(), strict=True
        )
    )


def _person(number: int) -> PersonId | None:
    return None if number < 0 else PersonId(number)
