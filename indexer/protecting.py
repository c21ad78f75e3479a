"""New faces against a protected list: whatever way they came in, each vector is matched once.

The list has a cursor of its own in the change log, which moves in the transaction that writes the
alerts. A process that is killed before that leaves both as they were, and the next one to match
does it all. Whoever finds that the list changed meanwhile, or was matched by another process,
writes nothing and begins again. Where the log does not lead from the cursor any more, all faces are
matched: what raised an alert before raises none again.

A face is compared with every person's template, exactly: lists are short. The threshold is that of
`identify` for a gallery of so many persons. Ordinary questions come nowhere near this module.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from retrieval.errors import CursorTooOldError
from retrieval.index.exact import paired_cosines
from retrieval.people.calibration import Threshold
from retrieval.quality import QUALITY_FLOOR
from retrieval.store.calibrations import calibration_of
from retrieval.store.collections import space_of
from retrieval.store.database import Store
from retrieval.store.protected import lists
from retrieval.store.protected.alerts import (
    Near,
    NewAlert,
    NewFaces,
    unmatched,
    write_alerts,
)
from retrieval.store.protected.gallery import Gallery, PictureId, ProtectedId, read_gallery
from retrieval.store.protected.lists import ProtectedList
from retrieval.values import Collection, Cursor, FaceId, HalfRows, Similarity, Space

CLOSEST: Final = 3  # authentic pictures told with an alert
BATCH_ROWS: Final = 4_096  # faces compared at once
ROUNDING: Final = 1e-4  # more than float32 products are in error


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """What one call did."""

    faces: int  # that were compared
    alerts: int  # that are new


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watch:
    """A list as it was read, ready to be compared with."""

    watched: ProtectedList
    collection: Collection
    space: Space
    gallery: Gallery
    threshold: Threshold
    system_identifier: str

    @property
    def cursor(self) -> Cursor | None:
        """Where to go on; None: with all faces."""
        same = self.watched.system_identifier == self.system_identifier
        return self.watched.cursor if same else None


def follow(store: Store, collection: Collection) -> Matched:
    """Match all faces of a collection that were not matched yet; costs a query without a list.

    Raises:
        CalibrationMissingError: the list has no threshold; nothing was matched.
    """
    while True:
        watch = _read(store, collection)
        if watch is None:
            return Matched(faces=0, alerts=0)
        try:
            done = _matched(store, watch, watch.cursor)
        except CursorTooOldError:
            done = _matched(store, watch, None)
        if done is not None:
            return done


def found_in(gallery: Gallery, faces: NewFaces, *, threshold: Threshold) -> list[NewAlert]:
    """An alert for each person of the gallery that a face reaches.

    Args:
        gallery: p persons.
        faces: n faces; `poor` says of an alert that the face is below the quality floor.
        threshold: least similarity to a template.
    """
    least = threshold.similarity
    products = faces.vectors.astype(np.float32) @ gallery.templates.astype(np.float32).T
    rows, places = np.nonzero(products >= least - ROUNDING)
    similarities = paired_cosines(gallery.templates[places], faces.vectors[rows])
    return [
        NewAlert(
            face=FaceId(int(faces.ids[row])),
            changed=int(faces.changed[row]),
            person=ProtectedId(int(gallery.persons[place])),
            similarity=Similarity(float(similarity)),
            threshold=least,
            poor=bool(faces.quality[row] < QUALITY_FLOOR),  # not where it is unknown: NaN
            closest=_closest(gallery, int(gallery.persons[place]), faces.vectors[row : row + 1]),
        )
        for row, place, similarity in zip(rows, places, similarities, strict=True)
        if similarity >= least
    ]


def _closest(gallery: Gallery, person: int, face: HalfRows) -> tuple[Near, ...]:
    """The pictures of a person that are most like a face."""
    begin, end = np.searchsorted(gallery.owners, (person, person + 1))
    similarities = paired_cosines(gallery.vectors[begin:end], face)
    order = np.argsort(-similarities, kind="stable")[:CLOSEST]
    return tuple(
        Near(
            picture=PictureId(int(gallery.pictures[begin + place])),
            similarity=Similarity(float(similarities[place])),
        )
        for place in order
    )


def _read(store: Store, collection: Collection) -> _Watch | None:
    """The list with its persons and its threshold; None: there is nobody to look for."""
    with store.reading() as connection:
        watched = lists.followed(connection, collection)
        if watched is None or collection.space_id is None:
            return None
        space = space_of(connection, collection)
        gallery = read_gallery(connection, collection=collection, space=space)
        if not len(gallery.persons):
            return None
        calibration = calibration_of(connection, collection=collection, space=space)
    return _Watch(
        watched=watched,
        collection=collection,
        space=space,
        gallery=gallery,
        threshold=calibration.for_fpir(watched.fpir, gallery=len(gallery.persons)),
        system_identifier=store.system_identifier(),
    )


def _matched(store: Store, watch: _Watch, cursor: Cursor | None) -> Matched | None:
    """Match what came since the cursor; None: the list is another one by now."""
    collection = watch.collection
    with unmatched(
        store, cursor, collection=collection, space=watch.space, batch_rows=BATCH_ROWS
    ) as new:
        faces, alerts = _found(watch, new.batches)
        now = new.cursor
    with store.writing() as connection:
        if not lists.advance(
            connection,
            watch.watched,
            cursor=now,
            system_identifier=watch.system_identifier,
            collection=collection,
        ):
            return None
        written = write_alerts(connection, alerts)
        if faces:
            lists.record(connection, "match", collection, faces=faces, alerts=written)
    return Matched(faces=faces, alerts=written)


def _found(watch: _Watch, batches: Iterator[NewFaces]) -> tuple[int, list[NewAlert]]:
    """How many faces were compared, and the alerts."""
    faces, alerts = 0, []
    for batch in batches:
        faces += len(batch.ids)
        alerts += found_in(watch.gallery, batch, threshold=watch.threshold)
    return faces, alerts
