"""Identity-disjoint parts of a collection (retrieval/curation/partition.py)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from facedex.thresholds import Asked, Strangers
from retrieval.curation.partition import dealt, groups_of, majority
from retrieval.curation.separability import Identities, Separability, separability
from retrieval.errors import UsageError
from retrieval.filters.tree import Filter
from retrieval.graph.gathering import Gathered, gathered
from retrieval.index.exact import Numbers, Rows, scales_of
from retrieval.store.facts import read_facts
from retrieval.store.labelled import checked_group
from retrieval.store.people.reading import all_links
from retrieval.values import Collection, FaceIds

if TYPE_CHECKING:
    from facedex.handle import Facedex

Unlabelled = Literal["drop", "cluster-alone"]
Progress = Callable[[int, int], None]
SHOWN: Final = ("face", "external_id", "image", "person_id", "person")
NOBODY: Final = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Partitioned:
    """A part for each face."""

    collection: Collection
    shares: Mapping[str, float]  # asked for
    faces: pa.Table  # those with a part, by number; `value` of the balanced field
    groups: Numbers  # (n,) which hang together
    owners: Numbers  # (n,) a person, or below zero a face of nobody
    parts: Numbers  # (n,) places among the shares
    left_out: int  # faces of nobody
    alike: int  # pairs of identities that were joined because they are alike
    threshold: float
    false_pairs: float | None  # of these, expected; None: unknown
    balanced: bool

    @property
    def table(self) -> pa.Table:
        """The faces, each with its part."""
        names = pa.array(list(self.shares), pa.string())
        return self.faces.select(list(SHOWN)).append_column(
            "part", names.take(pa.array(self.parts))
        )

    def faces_of_parts(self) -> dict[str, FaceIds]:
        """The faces of each part."""
        ids = self.faces["face"].to_numpy()
        return {name: ids[self.parts == place] for place, name in enumerate(self.shares)}

    def figures(self) -> dict[str, Any]:
        """As JSON holds them."""
        sizes = np.bincount(self.groups)
        owners = np.unique(np.stack([self.groups, self.owners]), axis=1)
        identities = np.bincount(owners[0], minlength=len(sizes))
        return {
            "faces": len(self.groups),
            "left_out": self.left_out,
            "groups": len(sizes),
            "largest_group": int(sizes.max(initial=0)),
            "identities": int(identities.sum()),
            "identities_joined": int(identities[identities > 1].sum()),
            "pairs_alike": self.alike,
            "pairs_alike_by_chance": self.false_pairs,
            "threshold": self.threshold,
            "parts": [self._of_part(place, name) for place, name in enumerate(self.shares)],
        }

    def _of_part(self, place: int, name: str) -> dict[str, Any]:
        mine = self.parts == place
        faces, share = int(mine.sum()), self.shares[name]
        told: dict[str, Any] = {
            "part": name,
            "asked": share,
            "share": faces / max(len(mine), 1),
            "faces": faces,
            "faces_off": round(faces - share * len(mine), 3),
            "persons": len(np.unique(self.owners[mine & (self.owners >= 0)])),
            "groups": len(np.unique(self.groups[mine])),
        }
        if self.balanced:
            values = pc.value_counts(self.faces["value"].filter(pa.array(mine))).to_pylist()
            counted = {str(one["values"]): one["counts"] for one in values}
            told["values"] = dict(sorted(counted.items()))
        return told


def partitioned(
    facedex: "Facedex",
    shares: Mapping[str, float],
    *,
    seed: int = 0,
    balance: str | None = None,
    unlabelled: Unlabelled = "drop",
    asked: Asked,
    filter_: Filter | None = None,
    progress: Progress = lambda *_: None,
) -> Partitioned:
    """Deal out the faces that pass a filter.

    Persons stay together that are linked, alike, or seen in one picture.

    Args:
        facedex: an open one; its collection is asked.
        shares: of the parts, which add up to 1.
        seed: of the order in which groups are dealt out.
        balance: a field whose values get the same shares.
        unlabelled: what becomes of faces without a person: they are left out, or each is an
            identity of its own, which may be alike to others.
        asked: how alike two identities have to be.
        filter_: only these faces.
        progress: called with work done and in all.

    Raises:
        UsageError: no face is left, or nothing can be balanced by this field.
        CalibrationMissingError: nothing tells how alike strangers are, and no similarity was asked.
    """
    tenant = facedex.collection()
    value = None if balance is None else checked_group(balance, facedex.fields(tenant))
    more = () if value is None else (value.label("value"),)
    table = read_facts(facedex.store, collection=tenant, filter_=filter_, more=more)
    persons = pc.fill_null(table["person_id"], NOBODY).to_numpy()
    here = persons != NOBODY if unlabelled == "drop" else np.ones(len(persons), np.bool_)
    faces = table.filter(pa.array(here))
    if not faces.num_rows:
        raise UsageError(f"no face of collection '{tenant.name}' passes and has a person")
    ids = faces["face"].to_numpy()
    owners = np.where(persons[here] == NOBODY, -1 - ids, persons[here])
    found, false_pairs = _alike(facedex, np.unique(owners), asked, progress)
    groups = _groups(facedex, tenant, faces, owners, found)
    values = None if value is None else _codes(faces["value"])
    dealt_out = dealt(
        np.bincount(groups),
        shares,
        seed=seed,
        values=None if values is None else majority(groups, values),
    )
    return Partitioned(
        collection=tenant,
        shares=shares,
        faces=faces,
        groups=groups,
        owners=owners,
        parts=dealt_out[groups],
        left_out=int((~here).sum()),
        alike=len(found.ones),
        threshold=found.threshold,
        false_pairs=false_pairs,
        balanced=value is not None,
    )


def _alike(
    facedex: "Facedex", owners: Numbers, asked: Asked, progress: Progress
) -> tuple[Separability, float | None]:
    """All pairs of identities that may be one, and how many by chance."""
    strangers = Strangers(facedex.recognition.calibration, asked)
    rows = identities(facedex, owners)
    threshold = strangers.of_templates(len(rows))
    if (owners < 0).any():  # single faces say less
        threshold = max(threshold, strangers.of_faces(len(rows)))
    found = separability(
        Identities(rows=rows, owners=rows.ids), threshold=threshold, progress=progress
    )
    by_chance = strangers.false_pairs(
        np.array([threshold]), pairs=float(found.compared), templates=bool((owners >= 0).all())
    )[0]
    return found, None if np.isnan(by_chance) else float(by_chance)


def identities(facedex: "Facedex", owners: Numbers) -> Gathered:
    """The template of each person, and the vector of each face of nobody (-1 - face), by number."""
    persons = gathered(facedex.recognition.persons().view, None)
    persons = persons.ordered(np.flatnonzero(np.isin(persons.ids, owners)))
    free = -1 - owners[owners < 0]
    vectors, there = facedex.recognition.faces().view.vectors_of(free)
    ids = np.concatenate([-1 - free[there], persons.ids])
    rows = np.concatenate([vectors[there], persons.rows.vectors[persons.numbers]])
    order = np.argsort(ids)
    ids, rows = ids[order], np.ascontiguousarray(rows[order])
    return Gathered(Rows(ids, scales_of(rows), rows), np.arange(len(ids)))


def _groups(
    facedex: "Facedex", tenant: Collection, faces: pa.Table, owners: Numbers, found: Separability
) -> Numbers:
    """Which faces stay together, (n,)."""
    known, of_face = np.unique(owners, return_inverse=True)
    images, of_image = np.unique(
        pc.fill_null(faces["image_id"], NOBODY).to_numpy(), return_inverse=True
    )
    seen = np.stack([of_face, len(known) + of_image], axis=1)[images[of_image] != NOBODY]
    with facedex.store.reading() as connection:
        links = np.array(all_links(connection, collection=tenant), np.int64).reshape(-1, 2)
    joined = np.concatenate([links, np.stack([found.ones, found.others], axis=1)])
    joined = joined[np.isin(joined, known).all(axis=1)]
    pairs = np.concatenate([seen, np.searchsorted(known, joined)])
    of_owner = groups_of(len(known) + len(images), pairs)[of_face]
    return np.unique(of_owner, return_inverse=True)[1]


def _codes(column: pa.ChunkedArray) -> Numbers:
    """A number for each value, in their order; what is not known is a value, too."""
    values = [str(one) for one in column.to_pylist()]
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
