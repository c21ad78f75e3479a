"""Identities that are too alike, and samples of those that are not, in an open Facedex.

What `Facedex.curation` answers with retrieval/curation/separability.py and sampling.py. Persons are
compared by their templates. Records that people linked are one identity, and so are the faces of a
person; a face without a person is an identity of its own.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from facedex.recognition import FMR
from indexer.bulk.files import whole
from retrieval.curation.duplicates import Joined
from retrieval.curation.sampling import sampled_apart
from retrieval.curation.separability import Identities, Separability, separability
from retrieval.errors import CalibrationMissingError, UsageError
from retrieval.filters.parse import parse
from retrieval.graph.gathering import Gathered, gathered
from retrieval.index.exact import Numbers
from retrieval.people.calibration import Calibration, Rate
from retrieval.store.described import read_described
from retrieval.store.people.reading import all_links
from retrieval.values import FaceIds

if TYPE_CHECKING:
    from facedex.handle import Facedex

By = Literal["person", "face"]
Progress = Callable[[int, int], None]

WORK: Final = "work"  # the folder of what was compared when a run was cut off


@dataclass(frozen=True, kw_only=True, eq=False)
class Separated:
    """How well identities are separated."""

    by: By
    found: Separability
    expected: Rate | None  # share of pairs of strangers that reach the threshold; None: unknown
    pairs: pa.Table  # with names

    def figures(self) -> dict[str, Any]:
        """As JSON holds them."""
        found, rate = self.found, self.expected
        shares = (None, None, None) if rate is None else (rate.value, rate.low, rate.high)
        value, low, high = (one and one * found.compared for one in shares)
        return {
            "by": self.by,
            "identities": found.identities,
            "rows": found.rows,
            "pairs_compared": found.compared,
            "threshold": found.threshold,
            "pairs": len(found.ones),
            "pairs_expected": value,
            "pairs_expected_low": low,
            "pairs_expected_high": high,
            "identities_involved": found.involved,
            "highest": found.highest,
            "directions": found.directions,
            "pairs_scored": found.scored,
        }

    @property
    def histogram(self) -> pa.Table:
        """Pairs of each bin of similarity, from somewhat below the threshold on."""
        edges = self.found.edges
        uppers = np.append(edges[1:], np.nan)
        return pa.table(
            {
                "from": edges,
                "to": pa.array(uppers, mask=np.isnan(uppers)),
                "pairs": self.found.counts,
            }
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """Faces or persons, every two of them less alike than asked."""

    by: By
    asked: int
    among: int
    table: pa.Table  # in the order in which they were taken

    @property
    def exhausted(self) -> bool:
        """Whether nothing that was left out could be added, so that fewer were found."""
        return bool(self.table.num_rows < self.asked)


def separated(
    facedex: "Facedex",
    *,
    by: By = "person",
    where: str | None = None,
    above: float | None = None,
    fmr: float | None = None,
    folder: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Separated:
    """All pairs of identities that are at least so alike.

    Args:
        facedex: an open one; its collection is asked.
        by: persons by their templates, or faces of different persons.
        where: only faces that pass, or persons with such a face.
        above: a cosine; None: it is taken from `fmr`.
        fmr: share of comparisons of strangers that reach it; None: as `verify` has it.
        folder: where work is kept that was cut off, below WORK.
        progress: called with stripes done and in all.

    Raises:
        CalibrationMissingError: no cosine is given, and nothing tells how alike strangers are.
        LimitExceededError: more than PAIRS_MAX pairs are so alike.
    """
    if above is not None and fmr is not None:
        raise UsageError("name a similarity or a rate of false matches, not both")
    if above is None:
        calibration, threshold = _asked(facedex, by, FMR if fmr is None else fmr)
    else:
        calibration, threshold = _known(facedex), above
    rows = _rows(facedex, by, where)
    found = separability(
        Identities(rows=rows, owners=_owners(facedex, by, rows.ids)),
        threshold=threshold,
        folder=None if folder is None else folder / WORK,
        progress=progress,
    )
    return Separated(
        by=by,
        found=found,
        expected=None if calibration is None else _rate(calibration, by, threshold),
        pairs=_pairs(facedex, by, found),
    )


def sampled(
    facedex: "Facedex",
    count: int,
    *,
    below: float,
    by: By = "face",
    where: str | None = None,
    seed: int = 0,
    best: bool = False,
) -> Sampled:
    """At most `count` faces or persons, every two less alike than `below`.

    Args:
        facedex: an open one; its collection is asked.
        count: how many are wanted, at least 1.
        below: a cosine that no two of them reach.
        by: faces, or persons by their templates.
        where: only faces that pass, or persons with such a face.
        seed: of the order in which they are taken.
        best: take faces of the highest quality first, or persons with the most faces; then by seed.
    """
    if count < 1:
        raise UsageError("ask for at least one")
    if not -1.0 < below <= 1.0:
        raise UsageError("a cosine that no two reach is above -1 and up to 1")
    rows = _rows(facedex, by, where)
    told = _described(facedex, by, rows.ids)
    order = np.random.default_rng(seed).permutation(len(rows))
    if best:
        worth = told["quality" if by == "face" else "faces"].cast(pa.float64())
        ranks = np.nan_to_num(pc.fill_null(worth, -1.0).to_numpy(), nan=-1.0)
        order = order[np.argsort(-ranks[order], kind="stable")]
    places = sampled_apart(rows, order, count=count, below=below)
    return Sampled(by=by, asked=count, among=len(rows), table=told.take(pa.array(places)))


def write_sample(found: Sampled, path: Path) -> None:
    """Write a sample as Parquet.

    Raises:
        UsageError: the file cannot be written.
    """
    with whole(path) as staged:
        pq.write_table(found.table, staged)


def _asked(facedex: "Facedex", by: By, fmr: float) -> tuple[Calibration | None, float]:
    """How alike strangers are, and the similarity that a share of them reaches."""
    calibration = facedex.recognition.calibration()
    rule = calibration.for_fmr if by == "face" else calibration.for_fmr_of_templates
    return calibration, float(rule(fmr).similarity)


def _known(facedex: "Facedex") -> Calibration | None:
    with suppress(CalibrationMissingError):
        return facedex.recognition.calibration()
    return None


def _rate(calibration: Calibration, by: By, threshold: float) -> Rate:
    """The share of pairs of strangers that reach a similarity."""
    tail = calibration.searches
    if by == "face" or threshold < tail.similarities[0]:
        # Every search met somebody so alike: how many of them only comparisons tell.
        tail = calibration.comparisons
    found = tail.rate(threshold)
    value, low, high = (one and one / tail.size for one in (found.value, found.low, found.high))
    return Rate(value=value or 0.0, low=low, high=high)


def _rows(facedex: "Facedex", by: By, where: str | None) -> Gathered:
    """What is compared, by number."""
    if by == "face":
        tenant = facedex.collection()
        index = facedex.recognition.faces()
        filter_ = None if where is None else parse(where, facedex.fields(tenant))
        rows = gathered(index.view, filter_)
    else:
        rows = gathered(facedex.recognition.persons().view, None)
        if where is not None:
            passing = np.array(sorted(facedex.persons_passing(where)), np.int64)
            rows = rows.ordered(np.flatnonzero(np.isin(rows.ids, passing)))
    return rows.ordered(np.argsort(rows.ids))


def _owners(facedex: "Facedex", by: By, ids: FaceIds) -> Numbers:
    """A number for each row's identity, (n,)."""
    persons = ids
    if by == "face":
        tenant = facedex.collection()
        table = read_described(
            facedex.store, collection=tenant, filter_=None, columns=("person_id",)
        )
        known = pc.fill_null(table["person_id"], -1).to_numpy()
        places = np.searchsorted(table["face"].to_numpy(), ids)
        places = np.minimum(places, max(len(known) - 1, 0))
        here = table["face"].to_numpy()[places] == ids  # of one that went meanwhile nothing is told
        persons = np.where(here & (known[places] >= 0), known[places], -1 - ids)
    return _linked(facedex, persons)


def _linked(facedex: "Facedex", persons: Numbers) -> Numbers:
    """The same number for all records of one human."""
    with facedex.store.reading() as connection:
        links = all_links(connection, collection=facedex.collection())
    joined = Joined()
    for one, other in links:
        joined.join(one, other)
    roots = {person: group[0] for group in joined.components() for person in group}
    if not roots:
        return persons
    found, places = np.unique(persons, return_inverse=True)
    return np.array([roots.get(one, one) for one in found.tolist()], np.int64)[places]


def _described(facedex: "Facedex", by: By, ids: FaceIds) -> pa.Table:
    """What is known of faces or persons by number, a row each."""
    tenant = facedex.collection()
    columns = ("external_id", "person_id", "quality")
    table = read_described(facedex.store, collection=tenant, filter_=None, columns=columns)
    if by == "person":
        known = table.filter(pc.is_valid(table["person_id"]))
        table = known.group_by(["person_id", "person"]).aggregate([("face", "count")])
        table = table.rename_columns(["person_id", "person", "faces"]).sort_by("person_id")
    # Of one that went meanwhile, only its number is told.
    key = table.column_names[0]
    wanted = pa.table({key: pa.array(ids, pa.int64()), "place": np.arange(len(ids))})
    joined = wanted.join(table, keys=key, join_type="left outer").sort_by("place")
    return joined.select(table.column_names).combine_chunks()


def _pairs(facedex: "Facedex", by: By, found: Separability) -> pa.Table:
    """The pairs that reach the threshold, with what their two sides are called."""
    involved = np.unique(np.concatenate([found.ones, found.others]))
    told = _described(facedex, by, involved)
    key = "face" if by == "face" else "person_id"
    names = ("external_id", "person_id", "person", "image") if by == "face" else ("person",)
    columns: dict[str, Any] = {}
    for side, ids in (("a", found.ones), ("b", found.others)):
        places = pa.array(np.searchsorted(involved, ids))
        columns[f"{key}_{side}"] = ids
        columns |= {f"{name}_{side}": told[name].take(places) for name in names}
    return pa.table(columns | {"similarity": found.similarities})
