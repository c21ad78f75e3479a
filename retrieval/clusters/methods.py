"""Other ways of grouping, by libraries: for those who compare, or know their data.

They take a threshold, and know neither quality nor what people said. docs/guides/clusters.md says
how they do beside the default.
"""

from enum import StrEnum
from typing import Any, Final

import numpy as np

from retrieval.clusters.grouping import Pairs, Places
from retrieval.errors import UsageError

FACES_MIN: Final = 2  # of a group that HDBSCAN finds
SEED: Final = 1


class Method(StrEnum):
    """A way of grouping."""

    TEMPLATES = "templates"  # the default (grouping.py)
    COMPONENTS = "components"  # whatever a chain of pairs joins
    HDBSCAN = "hdbscan"  # density at all scales (Campello et al. 2013), of each component
    LEIDEN = "leiden"  # communities (Traag et al. 2019), by the constant Potts model


def grouped(method: Method, pairs: Pairs, *, size: int, threshold: float) -> Places:
    """A number for each one's group, (size,).

    Args:
        method: any but TEMPLATES.
        pairs: between places below `size`.
        size: faces.
        threshold: pairs less alike are left out.

    Raises:
        UsageError: the library is not installed; the message says what to install.
    """
    kept = pairs.similarities >= threshold
    chosen = Pairs(pairs.ones[kept], pairs.others[kept], pairs.similarities[kept])
    try:
        return _WAYS[method](chosen, size, threshold)
    except ImportError as cause:
        raise UsageError(
            f"--method {method} needs a library that is not there: pip install 'facedex[clusters]'"
        ) from cause


def _components(pairs: Pairs, size: int, threshold: float) -> Places:  # noqa: ARG001
    from scipy.sparse.csgraph import connected_components

    found: Places = connected_components(_matrix(pairs, size), directed=False)[1].astype(np.int64)
    return found


def _hdbscan(pairs: Pairs, size: int, threshold: float) -> Places:
    from sklearn.cluster import HDBSCAN

    components = _components(pairs, size, threshold)
    distances = _matrix(pairs, size)
    distances.data = np.maximum(1.0 - distances.data.astype(np.float64), 1e-9)
    distances = (distances + distances.T).tocsr()
    found, free = np.arange(size) + size, 2 * size
    order = np.argsort(components, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(components[order])) + 1):
        if len(places) <= FACES_MIN:
            found[places] = free
            free += 1
            continue
        # scikit-learn takes a graph only where it is in one piece.
        way = HDBSCAN(
            min_cluster_size=FACES_MIN,
            min_samples=1,
            metric="precomputed",
            allow_single_cluster=True,
            copy=True,
        )
        labels = way.fit_predict(distances[places][:, places])
        inside = labels >= 0
        found[places[inside]] = free + labels[inside]
        free += int(labels.max(initial=-1)) + 1
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _leiden(pairs: Pairs, size: int, threshold: float) -> Places:
    import igraph

    igraph.set_random_number_generator(_Seeded())
    graph = igraph.Graph(n=size, edges=np.column_stack([pairs.ones, pairs.others]))
    found = graph.community_leiden(
        objective_function="CPM",
        weights=pairs.similarities.astype(np.float64),
        resolution=threshold / 2,  # a group is denser inside by half of what a pair must have
        n_iterations=-1,
    )
    return np.array(found.membership, np.int64)


class _Seeded:
    """Random numbers for igraph, always the same."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(SEED)

    def random(self) -> float:
        return float(self._random.random())

    def randint(self, low: int, high: int) -> int:
        return int(self._random.integers(low, high + 1))

    def gauss(self, mean: float, deviation: float) -> float:
        return float(self._random.normal(mean, deviation))

    def getrandbits(self, bits: int) -> int:
        return int.from_bytes(self._random.bytes(-(-bits // 8))) >> (-bits % 8)


def _matrix(pairs: Pairs, size: int) -> Any:
    from scipy.sparse import csr_array

    return csr_array((pairs.similarities, (pairs.ones, pairs.others)), shape=(size, size))


_WAYS: Final = {
    Method.COMPONENTS: _components,
    Method.HDBSCAN: _hdbscan,
    Method.LEIDEN: _leiden,
}
