"""Faces that come later, and what people said: does grouping keep up, and keep to it?

    python -m benchmarks.clustering.later joined --work WORK --rows 600000
    python -m benchmarks.clustering.later said --work WORK --rows 60000

`joined` stores 99 of 100 faces of a made-up set, groups them, stores the rest, lets them join
(`facedex cluster --new`) and compares with a full run over all: agreement (ARI) and seconds, all
through PostgreSQL and the index. `said` draws 1,000 random pairs that must be, or must not be, one
person, whoever they are, and counts those that grouping broke. One JSON line.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.clustering.__main__ import _calibration
from benchmarks.clustering.graphs import COUNT, pairs_of
from benchmarks.clustering.sets import FaceSet, Ints, Recipe, face_set, folder_of
from facedex.clustering import Clustered
from facedex.handle import Facedex, open_facedex
from indexer.bulk.importing import ImportRequest
from retrieval.clusters.grouping import Constraints, Pairs, group
from retrieval.evaluation.clustering import figures
from retrieval.kernels.compiled import use_cache
from retrieval.people.calibration import Calibration
from retrieval.store import collections as tenants
from retrieval.store import embedded
from retrieval.store.calibrations import keep_calibration

LATER: Final = 0.01
SAID: Final = 1_000
SPACE: Final = "made@1"


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["joined", "said"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=600_000)
    chosen = parser.parse_args()
    use_cache(chosen.work)
    faces = face_set(Recipe(rows=chosen.rows), chosen.work)
    told = {"joined": joined, "said": said}[chosen.command](faces, chosen.work)
    print(json.dumps({"what": chosen.command, "rows": len(faces.persons), **told}))


def joined(faces: FaceSet, work: Path) -> dict[str, Any]:
    """The last faces join, beside a full run."""
    home, first = work / "later.facedex", round((1 - LATER) * len(faces.persons))
    try:
        with open_facedex(home=home) as facedex:
            stored(facedex, faces, slice(0, first), work)
            with facedex.store.writing() as connection:
                tenant = facedex.collection()
                space = tenants.space_of(connection, tenant)
                keep_calibration(
                    connection, calibration_of(faces, work), collection=tenant, space=space
                )
            facedex.maintain_index(tenant)
            before, _, _ = timed(facedex.clustering.cluster)
            stored(facedex, faces, slice(first, None), work)
            later, wall_s, cpu_s = timed(facedex.clustering.attach)
            full, full_s, full_cpu_s = timed(lambda: facedex.clustering.cluster(write=False))
    finally:
        embedded.stop(home)
    return {
        "before_bcubed_f": round(figures(faces.persons[:first], before.persons).bcubed_f, 4),
        "later_bcubed_f": round(figures(faces.persons, later.persons).bcubed_f, 4),
        "full_bcubed_f": round(figures(faces.persons, full.persons).bcubed_f, 4),
        "ari": round(figures(numbered(full.persons), later.persons).ari, 4),
        "later_s": round(wall_s, 1),
        "full_s": round(full_s, 1),
        "later_cpu_s": round(cpu_s, 1),
        "full_cpu_s": round(full_cpu_s, 1),
    }


def numbered(persons: Ints) -> Ints:
    """The same, each one alone a person of its own, and no number below zero."""
    alone = persons == -1
    return np.where(alone, np.arange(len(persons)), persons - persons.min() + len(persons))


def calibration_of(faces: FaceSet, work: Path) -> Calibration:
    """From the faces of other people."""
    return _calibration(faces, folder_of(faces.recipe, work) / "calibration.json")


def stored(facedex: Facedex, faces: FaceSet, some: slice, work: Path) -> None:
    """Import some faces; their number in the set is their id."""
    vectors = faces.vectors[some]
    flat = pa.array(np.asarray(vectors).reshape(-1))
    numbers = np.arange(len(faces.persons))[some]
    table = pa.table(
        {
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            "id": [f"{one:08d}" for one in numbers],
            "quality": faces.quality[some],
        }
    )
    pq.write_table(table, work / "later.parquet", row_group_size=16_384)
    facedex.import_file(
        ImportRequest(path=work / "later.parquet", collection="default", space=SPACE)
    )


def timed(act: Any) -> tuple[Clustered, float, float]:
    """What it gave, and the wall and CPU seconds it took here; PostgreSQL's are not counted."""
    began, spent = time.perf_counter(), time.process_time()
    found = act()
    return found, time.perf_counter() - began, time.process_time() - spent


def said(faces: FaceSet, work: Path) -> dict[str, Any]:
    """Random pairs that must be, or must not be, one person."""
    random = np.random.default_rng(7)
    drawn = random.integers(0, len(faces.persons), (SAID, 2))
    drawn = drawn[drawn[:, 0] != drawn[:, 1]]
    together, apart = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    found = group(
        faces.vectors,
        faces.quality,
        Pairs(*pairs_of(faces.vectors, folder_of(faces.recipe, work) / f"graph{COUNT}")),
        calibration=calibration_of(faces, work),
        constraints=Constraints(together=together, apart=apart),
    ).groups
    return {
        "together": len(together),
        "apart": len(apart),
        "together_broken": int((found[together[:, 0]] != found[together[:, 1]]).sum()),
        "apart_broken": int((found[apart[:, 0]] == found[apart[:, 1]]).sum()),
        "bcubed_f": round(figures(faces.persons, found).bcubed_f, 4),
    }


if __name__ == "__main__":
    main()
