"""What a build measures with: estimates of all rows, and counts of what they were worth."""

import numpy as np

from retrieval.kernels.coded import (
    BATCH,
    NEARNESS_STEPS,
    WORST_STEPS,
    coded_query,
    estimate,
)
from retrieval.kernels.compiled import kernel
from retrieval.kernels.lanes import half_as_float

ERROR_STEPS = 1024  # of a |q| / 128: errors up to 8


@kernel
def estimated(query, frame, coded, estimates):
    """Fill the estimated similarity of every row, (n,) float32; give the |q| of its error."""
    asked = coded_query(query, frame)
    numbers, found = np.empty(BATCH, np.int64), np.empty(BATCH, np.float32)
    for begin in range(0, len(estimates), BATCH):
        count = min(BATCH, len(estimates) - begin)
        for place in range(count):
            numbers[place] = begin + place
        estimate(asked, numbers, count, coded, found)
        for place in range(count):
            estimates[begin + place] = found[place] + asked[3]
    return asked[4]


@kernel
def tally(similarities, estimates, factors, length, steps, usable, counts):
    """Count rows by similarity and nearness of their centroid, and errors of estimates.

    Args:
        similarities, estimates, factors, steps, usable: of some rows, (m,) each, factors (2 m,);
            steps is the nearness of the centroid.
        length: the |q| of the estimates.
        counts: (by similarity and nearness (WORST_STEPS, NEARNESS_STEPS), errors (ERROR_STEPS,))
            int64, added to.
    """
    near, errors = counts
    for row in range(len(similarities)):
        if usable[row]:
            at = np.int64((similarities[row] + np.float32(1.0)) * np.float32(0.5 * WORST_STEPS))
            near[min(max(at, 0), WORST_STEPS - 1), steps[row]] += 1
            reach = half_as_float(factors[2 * row]) * length
            error = (similarities[row] - estimates[row]) / max(reach, np.float32(1e-12))
            errors[min(max(np.int64(error * np.float32(128.0)), 0), ERROR_STEPS - 1)] += 1


@kernel
def nearness_steps(nearness, steps):
    """The step of each similarity of query and centroid, (n,) int32; 0 is a similarity of 1."""
    for place in range(len(nearness)):
        at = np.int64((np.float32(1.0) - nearness[place]) * np.float32(0.5 * NEARNESS_STEPS))
        steps[place] = min(max(at, 0), NEARNESS_STEPS - 1)
