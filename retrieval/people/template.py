"""A person as one vector: the mean of its faces, each weighted by how far it can be trusted.

A probe is compared with one template and not with every face, so that the chance of a false match
does not grow with the number of faces a person has. Only `captured` faces belong into a template.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.values import HalfRows, UnitRows, unit_rows

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

    Sums are in float64 and in the order of the rows: equal rows in equal order give equal bits.

    Args:
        vectors: (n, d) of unit length.
        quality: (n,), NaN where unknown.
        persons: (n,) ascending: the faces of one person stand together.

    Raises:
        UnusableVectorError: the faces of a person cancel each other out.
    """
    if not len(persons):
        return np.empty(0, np.int64), UnitRows(np.empty((0, vectors.shape[1]), np.float32))
    begins = np.flatnonzero(np.diff(persons, prepend=persons[0] - 1))
    weighted = vectors.astype(np.float64) * weights(quality)[:, None]
    return persons[begins], unit_rows(np.add.reduceat(weighted, begins, axis=0))
