"""Ways of grouping faces: each takes a graph and one or two numbers, and gives a cluster a face.

Which is fair: all of them see the same pairs, and none more than those above its threshold. What a
way leaves alone is -1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.clustering.graphs import Pairs
from retrieval.clusters import grouping
from retrieval.kernels.compiled import kernel
from retrieval.people.calibration import Calibration
from retrieval.values import HalfRows

Ints = npt.NDArray[np.int64]
Settings = Mapping[str, float]

WHISPERS: Final = 20  # rounds; labels seldom change after ten
UNRELATED: Final = 2.0  # distance of components, for what wants a graph in one piece


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Faces:
    """What may be grouped."""

    pairs: Pairs
    count: int  # rows
    vectors: HalfRows | None = None  # (n, d); only our own looks at these
    quality: npt.NDArray[np.float64] | None = None  # (n,)
    calibration: Calibration | None = None

    def __len__(self) -> int:
        return self.count


Rival = Callable[[Faces, Settings], Ints]


def ours(faces: Faces, _settings: Settings) -> Ints:
    """The default of `facedex cluster`: nothing is tuned, the calibration says where to stop."""
    pairs = grouping.Pairs(*(np.asarray(each) for each in faces.pairs))
    assert faces.vectors is not None
    assert faces.quality is not None
    assert faces.calibration is not None
    vectors = faces.vectors.astype(np.float32)
    return grouping.group(vectors, faces.quality, pairs, calibration=faces.calibration).groups


def components(faces: Faces, settings: Settings) -> Ints:
    """Faces that a chain of pairs above a threshold joins."""
    from scipy.sparse.csgraph import connected_components

    return connected_components(_matrix(faces, settings["threshold"]), directed=False)[1]


def dbscan(faces: Faces, settings: Settings) -> Ints:
    """scikit-learn's, over the distances 1 - similarity of the graph."""
    from sklearn.cluster import DBSCAN

    near = _matrix(faces, settings["threshold"])
    near = near + near.T
    near.data = 1 - near.data
    found = DBSCAN(
        eps=1 - settings["threshold"],
        min_samples=int(settings["min_samples"]),
        metric="precomputed",
        n_jobs=1,
    )
    return found.fit_predict(near)


def hdbscan(faces: Faces, settings: Settings) -> Ints:
    """PyPI hdbscan's, over the pairs above a threshold; what no chain joins is unrelated.

    Without a threshold it puts any two strangers together who have nobody nearer.
    """
    import scipy.sparse as sp
    from hdbscan import HDBSCAN
    from scipy.sparse.csgraph import connected_components

    near = _matrix(faces, settings["threshold"])
    near.data = np.maximum(1 - near.data.astype(np.float64), 1e-9)
    pieces = connected_components(near, directed=False)[1].astype(np.int64)
    first = np.unique(pieces, return_index=True)[1]
    chain = sp.coo_matrix(
        (np.full(len(first) - 1, UNRELATED), (first[:-1], first[1:])), shape=near.shape
    )
    whole = (near + chain).tocsr()
    found = HDBSCAN(
        metric="precomputed",
        min_cluster_size=int(settings["min_cluster_size"]),
        min_samples=int(settings["min_samples"]),
        cluster_selection_epsilon=settings["epsilon"],
        max_dist=UNRELATED,
        core_dist_n_jobs=1,
    )
    labels = found.fit_predict(whole + whole.T)
    # Pieces that only the chain joined are no cluster.
    return np.where(labels < 0, -1, pieces * (labels.max() + 1) + labels)


def whispers(faces: Faces, settings: Settings) -> Ints:
    """Chinese whispers (Biemann 2006): each face takes the name that its pairs say most."""
    near = _matrix(faces, settings["threshold"])
    near = (near + near.T).tocsr()
    names = np.arange(len(faces))
    random = np.random.default_rng(0)
    for _ in range(WHISPERS):
        order = random.permutation(len(faces))
        if not _whisper(near.indptr, near.indices, near.data, order, names):
            break
    return names


@kernel
def _whisper(begins, others, weights, order, names):  # noqa: ANN001, ANN202
    """One round over `order`; how many names changed."""
    said = np.zeros(len(names), np.float64)
    changed = 0
    for face in order:
        best, most = names[face], 0.0
        for place in range(begins[face], begins[face + 1]):
            name = names[others[place]]
            said[name] += weights[place]
            if said[name] > most:
                best, most = name, said[name]
        for place in range(begins[face], begins[face + 1]):
            said[names[others[place]]] = 0.0
        if best != names[face]:
            names[face] = best
            changed += 1
    return changed


def infomap(faces: Faces, settings: Settings) -> Ints:
    """PyPI infomap, two levels, one trial, links weighed by similarity."""
    from infomap import Infomap

    links = faces.pairs.above(settings["threshold"])
    found = Infomap(silent=True, two_level=True, num_trials=1, seed=1)
    found.add_links(
        np.column_stack([links.ones, links.others, links.similarities.astype(np.float64)])
    )
    found.run()
    clusters = np.full(len(faces), -1)
    for face, module in found.get_modules().items():
        clusters[face] = module
    return clusters


def leiden(faces: Faces, settings: Settings) -> Ints:
    """igraph's, by the constant Potts model."""
    import random

    import igraph

    random.seed(0)  # igraph draws from it
    links = faces.pairs.above(settings["threshold"])
    graph = igraph.Graph(
        n=len(faces), edges=np.column_stack([links.ones, links.others]), directed=False
    )
    found = graph.community_leiden(
        objective_function="CPM",
        weights=links.similarities.astype(np.float64),
        resolution=settings["resolution"],
        n_iterations=2,
    )
    return np.array(found.membership)


def _matrix(faces: Faces, threshold: float) -> Any:
    """(n, n) sparse: the similarity of each pair above a threshold, above the diagonal."""
    import scipy.sparse as sp

    links = faces.pairs.above(threshold)
    made = sp.coo_matrix(
        (np.asarray(links.similarities), (links.ones, links.others)), shape=(len(faces),) * 2
    )
    return made.tocsr()


RIVALS: Final[dict[str, Rival]] = {
    "ours": ours,
    "components": components,
    "dbscan": dbscan,
    "hdbscan": hdbscan,
    "whispers": whispers,
    "infomap": infomap,
    "leiden": leiden,
}
# What else than the threshold is tuned; all thresholds go with each.
TUNED: Final[dict[str, list[dict[str, float]]]] = {
    "components": [{}],
    "dbscan": [{"min_samples": least} for least in (2, 3, 4, 8)],
    "hdbscan": [
        {"min_cluster_size": 2, "min_samples": least, "epsilon": epsilon}
        for least in (1, 2)
        for epsilon in (0.0, 0.4, 0.5)
    ],
    "whispers": [{}],
    "infomap": [{}],
    "leiden": [{"resolution": resolution} for resolution in (0.003, 0.01, 0.03, 0.1, 0.3)],
}


def settings_of(name: str, thresholds: Sequence[float]) -> list[dict[str, float]]:
    """All settings that a way is tried with; ours has one."""
    if name == "ours":
        return [{}]
    some = thresholds[::2] if name == "hdbscan" else thresholds  # a hundred times as slow as others
    return [{**more, "threshold": one} for more in TUNED[name] for one in some]
