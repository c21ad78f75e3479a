"""What a build finds out about its snapshot before anybody else sees it.

Stored faces are the queries, taken from where the builder read them and not from the snapshot. Each
must find itself and must meet no face that its filter excludes; the recall at the default is noted.
"""

from collections.abc import Iterable
from dataclasses import replace
from statistics import fmean
from typing import Final

import numpy as np

from retrieval.errors import BuildFailedError
from retrieval.filters.tree import Field, Filter, Operator, compare
from retrieval.index.exact import scales_of
from retrieval.index.lists import SEED
from retrieval.index.making import Faces
from retrieval.index.rule import DEFAULT_RECALL
from retrieval.index.snapshot import SelfCheck
from retrieval.index.view import View
from retrieval.search import Question, search
from retrieval.values import FaceIds, FieldType, Neighbour, UnitRows

QUERIES: Final = 128  # searched in four ways each
COUNT: Final = 10
SELF_SIMILARITY_MIN: Final = 1.0 - 1e-6


def unchecked() -> SelfCheck:
    """What is known of a snapshot before its check: nothing."""
    return SelfCheck(queries=0, recall=None, filtered_recall=None)


def sample(faces: Faces) -> tuple[FaceIds, UnitRows]:
    """Some stored faces and their vectors, always the same ones for the same store."""
    usable = min(QUERIES, len(faces.ids))
    chosen = np.sort(np.random.default_rng(SEED).choice(len(faces.ids), usable, replace=False))
    vectors = faces.vectors[chosen]
    scales = scales_of(vectors)
    good = scales > 0
    units = vectors[good].astype(np.float32) * scales[good, None]
    return faces.ids[chosen[good]], UnitRows(units)


def checked(
    view: View, faces: FaceIds, queries: UnitRows, *, highest: int
) -> tuple[float | None, float | None]:
    """Recall of 10 at the default, without a filter and among faces up to the id `highest`.

    Raises:
        BuildFailedError: a face was not found, or one that the filter excludes was.
    """
    few = compare(Field(next(iter(view.fields)), FieldType.INTEGER), Operator.AT_MOST, highest)
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
