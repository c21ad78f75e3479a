"""The modality gap: vectors of faces and of sentences lie in two cones; this brings them together.

Contrastive training leaves each kind in a narrow cone of its own (Liang et al., "Mind the Gap",
2022). The way from the middle of one to the middle of the other tells nothing, but it is part of
every cosine between a face and a sentence, and more of it for vectors near the edge of their cone:
so it moves answers. Subtracting from each kind its own mean takes it away.
"""

from dataclasses import dataclass

import numpy as np

from retrieval.errors import UnusableVectorError
from retrieval.values import Floats, UnitRows, unit_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Where the middles of faces and of sentences lie, each (d,) float32."""

    faces: Floats
    texts: Floats


def no_gap(dimension: int) -> Gap:
    """The gap of a model of which none was learned: nothing is subtracted."""
    return Gap(faces=np.zeros(dimension, np.float32), texts=np.zeros(dimension, np.float32))


def learned(faces: UnitRows, texts: UnitRows) -> Gap:
    """The gap between samples of faces (n, d) and of sentences (m, d); n and m need not be alike.

    Raises:
        UnusableVectorError: one of the samples is empty.
    """
    if not (len(faces) and len(texts)):
        raise UnusableVectorError("a gap is learned from at least one face and one sentence")
    return Gap(faces=_mean(faces), texts=_mean(texts))


def corrected(rows: UnitRows, mean: Floats) -> UnitRows:
    """The rows (n, d) without the mean (d,) of their kind, of unit length again."""
    return unit_rows(rows - mean) if len(rows) else rows


def _mean(rows: UnitRows) -> Floats:
    mean: Floats = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
