"""Near-copies in the frames of tracks: what `facedex dedup --level track` finds.

Faces of one track (the fields `track` and `frame`) and of one person are compared by what is stored
of them: their vectors, pose, and looks where the collection has them. No picture is opened, so
imported faces are judged like others. retrieval/curation/redundancy.py decides.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from facedex.duplicates import Found, Member
from retrieval.curation.duplicates import Decision, Level
from retrieval.curation.redundancy import (
    LOOK,
    POSE,
    VECTOR,
    Covered,
    Frames,
    Way,
    bounds_of,
    covered,
    steps_of,
)
from retrieval.filters.parse import parse
from retrieval.index.exact import BLOCK_ROWS, Numbers
from retrieval.index.view import View
from retrieval.store.described import read_described
from retrieval.store.holdings import Kind
from retrieval.store.pictured import NOWHERE, read_pictured
from retrieval.values import Collection, FaceIds, Floats

if TYPE_CHECKING:
    from facedex.handle import Facedex

Progress = Callable[[int, int], None]
Doubles = npt.NDArray[np.float64]

TURNS: Final = ("yaw", "pitch", "roll")
WORTH: Final = ("quality", "sharpness", "size_px")  # what decides which frame is kept, in turn
COLUMNS: Final = ("track", "frame", "person_id", *TURNS, *WORTH)
LEARNED_FACES: Final = 50_000  # of whole tracks, that bounds are learned from
SEED: Final = 20_917


@dataclass(frozen=True, eq=False, kw_only=True)
class _Tracked:
    """Faces of tracks, those of one track and person together, in the order of frames."""

    faces: FaceIds  # (n,)
    groups: Numbers  # (n,) ascending
    tracks: Numbers  # (n,) ascending numbers
    names: pa.Array  # of the tracks
    frames: Doubles  # (n,) NaN where unknown
    pose: Floats  # (n, 3) degrees, NaN where unknown
    worth: Doubles  # (n, 3) -inf where unknown

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def begins(self) -> Numbers:
        """The first face of each group, and the end."""
        return np.append(np.flatnonzero(np.diff(self.groups, prepend=-1)), len(self))


def near_copies(
    facedex: "Facedex", *, where: str | None = None, progress: Progress = lambda *_: None
) -> Found:
    """Faces of tracks that are near-copies of a better one of the same track.

    Args:
        facedex: an open one; its collection is asked.
        where: only faces that pass.
        progress: called with faces done and faces in all.

    Raises:
        FilterError: the filter cannot be read.
    """
    tenant = facedex.collection()
    filter_ = None if where is None else parse(where, facedex.fields(tenant))
    table = read_described(facedex.store, collection=tenant, filter_=filter_, columns=COLUMNS)
    views = _views(facedex, tenant)
    tracked = _tracked(table, views[VECTOR])
    bounds = _learned(tracked, views)
    pictured = read_pictured(facedex.store, collection=tenant, filter_=filter_)
    places = np.searchsorted(pictured.faces.ids, tracked.faces)
    groups, kept = list[tuple[Member, ...]](), 0
    for rows in _groups(tracked):
        frames = _frames(tracked, rows, views)
        order = np.lexsort((tracked.faces[rows], *(-tracked.worth[rows].T[::-1])))
        found = covered(frames, order, bounds)
        kept += int(found.kept.sum())
        groups += _told(tracked, rows, found, places, pictured.faces.places)
        progress(int(rows[-1]) + 1, len(tracked))
    return Found(
        level=Level.TRACK,
        collection=tenant,
        pictured=pictured,
        groups=tuple(groups),
        missing=(),
        figures={
            "tracks": len(np.unique(tracked.tracks)),
            "faces_in_tracks": len(tracked),
            "kept": kept,
            **{f"copies_within_{way.name}": round(bound, 4) for way, bound in bounds.items()},
        },
    )


def _views(facedex: "Facedex", tenant: Collection) -> dict[Way, View]:
    """Where vectors are: of identities, and of looks where there are such."""
    kinds = {VECTOR: Kind.FACES}
    if tenant.text_space_id is not None:
        kinds[LOOK] = Kind.LOOKS
    views = {}
    for way, kind in kinds.items():
        index = facedex.opened(facedex.holding(tenant, kind))
        index.refresh()
        views[way] = index.view
    return views


def _tracked(table: pa.Table, view: View) -> _Tracked:
    """The faces that are in a track and have a vector."""
    table = table.filter(pc.is_valid(table["track"]))
    faces: FaceIds = table["face"].to_numpy()
    blocks = (faces[begin : begin + BLOCK_ROWS] for begin in range(0, len(faces), BLOCK_ROWS))
    there = [view.vectors_of(block)[1] for block in blocks]
    table = table.filter(pa.array(np.concatenate([np.empty(0, np.bool_), *there])))
    names = pc.dictionary_encode(table["track"]).combine_chunks()
    tracks = _known(names.indices)
    persons, frames = _known(table["person_id"], missing=-1.0), _known(table["frame"])
    faces = table["face"].to_numpy()
    order = np.lexsort((faces, frames, persons, tracks))
    pairs = np.stack([tracks, persons], axis=1)[order]
    changes = (np.diff(pairs, axis=0, prepend=pairs[:1]) != 0).any(axis=1)
    return _Tracked(
        faces=faces[order],
        groups=np.cumsum(changes),
        tracks=tracks[order].astype(np.int64),
        names=names.dictionary,
        frames=frames[order],
        pose=np.stack([_known(table[name]) for name in TURNS], axis=1)[order].astype(np.float32),
        worth=np.stack([_known(table[name], missing=-np.inf) for name in WORTH], axis=1)[order],
    )


def _known(column: pa.ChunkedArray | pa.Array, *, missing: float = np.nan) -> Doubles:
    cast = pc.fill_null(column.cast(pa.float64()), missing)
    return cast.to_numpy(zero_copy_only=False) if isinstance(cast, pa.Array) else cast.to_numpy()  # type: ignore[no-any-return]


def _learned(tracked: _Tracked, views: dict[Way, View]) -> dict[Way, float]:
    """How near copies are, by whole tracks spread evenly over all."""
    begins = tracked.begins
    step = max(1, -(-len(tracked) // LEARNED_FACES))
    parts = [np.arange(*begins[at : at + 2]) for at in range(0, len(begins) - 1, step)]
    rows = np.concatenate([np.empty(0, np.int64), *parts])[: 2 * LEARNED_FACES]
    return bounds_of(_frames(tracked, rows, views), steps_of(tracked.groups[rows], seed=SEED))


def _groups(tracked: _Tracked) -> Iterator[Numbers]:
    begins = tracked.begins
    for begin, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        yield np.arange(begin, end)


def _frames(tracked: _Tracked, rows: Numbers, views: dict[Way, View]) -> Frames:
    ways: dict[Way, Floats] = {POSE: tracked.pose[rows]}
    for way, view in views.items():
        halves, there = view.vectors_of(tracked.faces[rows])
        wide = halves.astype(np.float32)
        wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.float32(1e-6))
        wide[~there] = np.nan
        ways[way] = wide
    return Frames(ways=ways)


def _told(
    tracked: _Tracked, rows: Numbers, found: Covered, places: Numbers, pictures: Numbers
) -> Iterator[tuple[Member, ...]]:
    """A group for each frame that has near-copies: it first, then those by frame."""
    track = tracked.names[int(tracked.tracks[rows[0]])].as_py()

    def member(at: int, decision: Decision, reason: str) -> Member:
        place = int(places[rows[at]])
        picture = int(pictures[place])
        return Member(
            decision=decision,
            reason=reason,
            picture=None if picture == NOWHERE else picture,
            face=place,
        )

    for kept in np.flatnonzero(found.kept).tolist():
        copies = np.flatnonzero(found.by == kept)
        copies = copies[copies != kept]
        if not len(copies):
            continue
        best = f"the best of {len(copies) + 1} alike in track {track}{_frame(tracked, rows[kept])}"
        face = int(tracked.faces[rows[kept]])
        yield (
            member(kept, Decision.KEEP, best),
            *(
                member(
                    at,
                    Decision.DROP,
                    f"a near-copy of face {face}{_frame(tracked, rows[at])}; {_how(found, at)}",
                )
                for at in copies.tolist()
            ),
        )


def _frame(tracked: _Tracked, row: int) -> str:
    frame = tracked.frames[row]
    return "" if np.isnan(frame) else f", frame {frame:.0f}"


def _how(found: Covered, at: int) -> str:
    """How near a copy is."""
    told = []
    for way, words in ((VECTOR, "vectors"), (LOOK, "looks")):
        distance = float(found.distances[way][at]) if way in found.distances else np.nan
        if np.isfinite(distance):
            told.append(f"{words} alike to {1 - distance**2 / 2:.3f}")
    turned = float(found.distances[POSE][at])
    if np.isfinite(turned):
        told.append(f"the head turned by {turned:.0f} degrees")
    return ", ".join(told)
