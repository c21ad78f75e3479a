"""What a build finds out about its snapshot before anybody else sees it.

Stored faces are the queries, taken from where the builder read them and not from the snapshot. Each
must find itself, must meet no face that its filter excludes, and tells how many lists hold its true
neighbours: the ladder by which questions are planned.
"""

from collections.abc import Iterable
from dataclasses import replace
from statistics import fmean
from typing import Final

import numpy as np

from indexer.spool import Spool
from retrieval.errors import BuildFailedError
from retrieval.filters.tree import Field, Filter, Operator, compare
from retrieval.index import exact
from retrieval.index.exact import Hits, Numbers, scales_of
from retrieval.index.ivf import SEED
from retrieval.index.ladder import DEPTHS, Rung
from retrieval.index.snapshot import SelfCheck, Snapshot
from retrieval.index.view import View
from retrieval.plan import DEFAULT_RECALL
from retrieval.search import Question, search
from retrieval.values import FaceIds, FieldType, Neighbour, UnitRows

QUERIES: Final = 256  # of the ladder
SEARCHED: Final = 128  # of them, in four ways each
COUNT: Final = 10
SELF_SIMILARITY_MIN: Final = 1.0 - 1e-6
DEPTH_SHARE_MAX: Final = 0.1  # of the faces; a deeper neighbourhood is no neighbourhood


def unchecked() -> SelfCheck:
    """What is known of a snapshot before its check: nothing."""
    return SelfCheck(queries=0, recall=None, filtered_recall=None, ladder=())


def sample(spool: Spool) -> tuple[FaceIds, UnitRows]:
    """Some stored faces and their vectors, always the same ones for the same store."""
    usable = min(QUERIES, len(spool.ids))
    chosen = np.sort(np.random.default_rng(SEED).choice(len(spool.ids), usable, replace=False))
    vectors = spool.vectors[chosen]
    scales = scales_of(vectors)
    good = scales > 0
    units = vectors[good].astype(np.float32) * scales[good, None]
    return spool.ids[chosen[good]], UnitRows(units)


def ladder(snapshot: Snapshot, faces: FaceIds, queries: UnitRows) -> tuple[Rung, ...]:
    """How many lists hold the neighbours of these faces, themselves left out."""
    lists = len(snapshot.lists.sizes)
    depths = [depth for depth in DEPTHS if depth <= DEPTH_SHARE_MAX * snapshot.manifest.rows]
    if lists == 1 or not depths:
        return ()
    hits = exact.gather(
        snapshot.rows, queries, count=max(depths) + 1, survivors=snapshot.rows.usable
    )
    nearness = snapshot.listed.nearness(queries)
    ranks = [
        _ranks(snapshot, order, hit, face)
        for order, hit, face in zip(nearness, hits, faces, strict=True)
    ]
    return tuple(
        Rung(depth=depth, lists=probes, recall=_held(ranks, depth=depth, probes=probes))
        for depth in depths
        for probes in (1 << step for step in range(lists.bit_length()))
    )


def checked(
    view: View, faces: FaceIds, queries: UnitRows, *, highest: int
) -> tuple[float | None, float | None]:
    """Recall of 10 at the default, without a filter and among faces up to the id `highest`.

    Raises:
        BuildFailedError: a face was not found, or one that the filter excludes was.
    """
    faces, queries = faces[:SEARCHED], UnitRows(queries[:SEARCHED])
    few = compare(Field("face", FieldType.INTEGER), Operator.AT_MOST, highest)
    found, truth = _searched(view, queries, filter_=None)
    if not all(hits and hits[0].similarity >= SELF_SIMILARITY_MIN for hits in truth):
        raise BuildFailedError("the self-check did not find stored faces in the new index")
    found_of_few, truth_of_few = _searched(view, queries, filter_=few)
    if any(hit.face > highest for hits in (*found_of_few, *truth_of_few) for hit in hits):
        raise BuildFailedError("the self-check met a face that its filter excludes")
    return _recall(found, truth, faces), _recall(found_of_few, truth_of_few, faces)


def _searched(
    view: View, queries: UnitRows, *, filter_: Filter | None
) -> tuple[list[list[Neighbour]], list[list[Neighbour]]]:
    """The answers at the default recall, and the true ones."""
    # One more than is measured: a face is its own nearest neighbour, which proves nothing.
    question = Question(vectors=queries, count=COUNT + 1, filter=filter_, recall=DEFAULT_RECALL)
    true = replace(question, recall="exact")
    return search(view, question).neighbours, search(view, true).neighbours


def _recall(
    found: Iterable[list[Neighbour]], truth: Iterable[list[Neighbour]], faces: FaceIds
) -> float | None:
    """Mean share of the true neighbours that were found; None where no query has any."""
    shares = []
    for hits, true, face in zip(found, truth, faces, strict=True):
        wanted = {hit.face for hit in true} - {face}
        if wanted:
            shares.append(len(wanted & {hit.face for hit in hits}) / len(wanted))
    return fmean(shares) if shares else None


def _ranks(snapshot: Snapshot, nearness: Numbers, hits: Hits, face: int) -> Numbers:
    """How near the list of each true neighbour is to the query, by the neighbours' order."""
    rank = np.empty(len(nearness), np.int64)
    rank[nearness] = np.arange(len(nearness))
    rows = snapshot.places(hits.ids[hits.ids != face])
    return rank[np.searchsorted(snapshot.lists.offsets, rows, side="right") - 1]


def _held(ranks: Iterable[Numbers], *, depth: int, probes: int) -> float:
    """The share of the first `depth` neighbours whose lists are among the first `probes`."""
    return fmean(float(np.mean(one[:depth] < probes)) for one in ranks)
