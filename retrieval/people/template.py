"""A person as one vector: the mean of its faces, each weighted by how far it can be trusted.

A probe is compared with one template and not with every face, so that the chance of a false match
does not grow with the number of faces a person has. Only `captured` faces belong into a template.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.limits import VECTOR_LENGTH_MIN
from retrieval.values import HalfRows, UnitRows

Doubles = npt.NDArray[np.float64]
PersonIds = npt.NDArray[np.int64]

UNKNOWN_QUALITY: Final = 0.5  # of faces that came without a picture
WEIGHT_MIN: Final = 0.01  # the worst face still counts where there is no better one


def weights(quality: Doubles) -> Doubles:
    """How much each face counts, (n,): its quality from 0 to 1; NaN is unknown."""
    known = np.where(np.isnan(quality), UNKNOWN_QUALITY, quality)
    return np.clip(known, WEIGHT_MIN, 1.0)


def templates(
    vectors: HalfRows | UnitRows, quality: Doubles, persons: PersonIds
) -> tuple[PersonIds, UnitRows]:
    """The persons, ascending, and the template of each, (p, d).

    Sums are in float64 and in the order of the rows: equal rows in equal order give equal bits. A
    person whose faces cancel each other out gets a row of zeros, which no search finds.

    Args:
        vectors: (n, d) of unit length.
        quality: (n,), NaN where unknown.
        persons: (n,) ascending: the faces of one person stand together.
    """
    if not len(persons):
        return np.empty(0, np.int64), UnitRows(np.empty((0, vectors.shape[1]), np.float32))
    begins = np.flatnonzero(np.diff(persons, prepend=persons[0] - 1))
    weighted = vectors.astype(np.float64) * weights(quality)[:, None]
    sums = np.add.reduceat(weighted, begins, axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    there = np.isfinite(lengths) & (lengths > VECTOR_LENGTH_MIN)
    units = np.divide(sums, lengths, out=np.zeros_like(sums), where=there)
    return persons[begins], UnitRows(units.astype(np.float32))
