"""Ways of grouping faces, side by side.

    python -m benchmarks.clustering lfw --home HOME --work WORK
    python -m benchmarks.clustering faces --work WORK
    python -m benchmarks.clustering faces --work WORK --pulled 0.03 --rivals ours infomap
    python -m benchmarks.clustering faces --work WORK --rows 50000 200000 800000 1600000

`lfw` groups real faces (a home into which LFW was ingested with `--person-from folder`). `faces`
groups made-up ones; every way runs in a process of its own, once for each of its settings, and
each line tells figures, CPU seconds of the grouping alone, and the peak memory of the process, the
graph included. Rivals are `pip install infomap igraph hdbscan`. One JSON line a figure.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.clustering import lfw
from benchmarks.clustering.graphs import COUNT, Pairs, pairs_of
from benchmarks.clustering.rivals import RIVALS, Faces, settings_of
from benchmarks.clustering.sets import HARD_NOISE, ROWS, FaceSet, Recipe, face_set, folder_of
from retrieval.evaluation.calibrating import calibrate
from retrieval.evaluation.clustering import figures
from retrieval.kernels.compiled import use_cache
from retrieval.people.calibration import Calibration, from_json, to_json
from retrieval.store.labelled import Labelled
from retrieval.values import Space, SpaceId, unit_rows

# One stray pair joins two people for good in the first; others bear many.
CHAINED: Final = ("components", "dbscan")
CHAINED_THRESHOLDS: Final = (0.46, 0.48, 0.5, 0.52, 0.54, 0.56)
THRESHOLDS: Final = (0.26, 0.28, 0.3, 0.32, 0.34, 0.36, 0.38, 0.4)
SPARE_S: Final = 3_600


def main() -> None:
    """Print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    real = commands.add_parser("lfw")
    real.add_argument("--home", type=Path, required=True)
    real.add_argument("--collection", default="lfw")
    real.add_argument("--others", action="store_true", help="Group other faces along.")
    made = commands.add_parser("faces")
    made.add_argument("--rows", type=int, nargs="+", default=[ROWS])
    made.add_argument("--thresholds", type=float, nargs="+", help="Instead of each way's own.")
    one = commands.add_parser("one")  # what `faces` starts for each way and setting
    one.add_argument("--rows", type=int)
    one.add_argument("--way", choices=["graph", *RIVALS])
    one.add_argument("--settings", type=json.loads, default={})
    for each in (real, made):
        each.add_argument("--rivals", nargs="+", choices=RIVALS, default=list(RIVALS))
    for each in (made, one):
        each.add_argument("--noise", type=float, default=HARD_NOISE)
        each.add_argument("--pulled", type=float, default=0.0)
        each.add_argument("--seed", type=int, default=0)
    for each in (real, made, one):
        each.add_argument("--work", type=Path, required=True)
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    use_cache(chosen.work)
    lines = {
        "lfw": lambda: lfw.compared(
            chosen.home, chosen.collection, chosen.work, names=chosen.rivals, others=chosen.others
        ),
        "faces": lambda: side_by_side(chosen),
        "one": lambda: iter([alone(chosen)]),
    }
    for line in lines[chosen.command]():
        print(json.dumps(line), flush=True)


def side_by_side(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every way at every setting, and then the best of each."""
    for rows in chosen.rows:
        yield _started(chosen, rows, "graph", {})
        best: list[dict[str, Any]] = []
        for name in chosen.rivals:
            tried = [
                _started(chosen, rows, name, settings)
                for settings in settings_of(name, chosen.thresholds or _thresholds(name))
            ]
            yield from tried
            best.append(max(tried, key=lambda line: line.get("pairwise_f", -1.0)))
        yield from ({**line, "what": "faces, best"} for line in best)


def _thresholds(name: str) -> tuple[float, ...]:
    return CHAINED_THRESHOLDS if name in CHAINED else THRESHOLDS


def _started(
    chosen: argparse.Namespace, rows: int, way: str, settings: dict[str, float]
) -> dict[str, Any]:
    words = {
        "rows": rows,
        "way": way,
        "settings": json.dumps(settings),
        "noise": chosen.noise,
        "pulled": chosen.pulled,
        "seed": chosen.seed,
        "work": chosen.work,
    }
    told = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.clustering", "one", *told],
        stdout=subprocess.PIPE,
        check=False,
        timeout=SPARE_S,
    )
    if done.returncode:
        return {"what": "faces", "rows": rows, "rival": way, **settings, "failed": done.returncode}
    return dict(json.loads(done.stdout))


def alone(chosen: argparse.Namespace) -> dict[str, Any]:
    """One way with one setting, in this process."""
    recipe = Recipe(rows=chosen.rows, noise=chosen.noise, pulled=chosen.pulled, seed=chosen.seed)
    made = face_set(recipe, chosen.work)
    folder = folder_of(recipe, chosen.work)
    began = time.process_time()
    pairs = pairs_of(made.vectors, folder / f"graph{COUNT}")
    line = {"what": "faces", "rows": chosen.rows, "noise": recipe.noise, "pulled": recipe.pulled}
    if chosen.way == "graph":
        took = time.process_time() - began
        return {**line, "graph": len(pairs.ones), "cpu_s": round(took, 1), "peak_mib": _peak()}
    faces = (
        _faces(made, pairs, folder)
        if chosen.way == "ours"
        else Faces(pairs=pairs, count=len(made.persons))
    )
    began = time.process_time()
    clusters = RIVALS[chosen.way](faces, chosen.settings)
    took, peak = time.process_time() - began, _peak()
    found = figures(made.persons, clusters)
    seen = figures(made.persons[~made.pulled], clusters[~made.pulled])
    return {
        **line,
        "rival": chosen.way,
        **chosen.settings,
        **{name: round(value, 5) for name, value in found._asdict().items()},
        "pairwise_f_recognisable": round(seen.pairwise_f, 5),
        "cpu_s": round(took, 1),
        "peak_mib": peak,
    }


def _faces(made: FaceSet, pairs: Pairs, folder: Path) -> Faces:
    return Faces(
        pairs=pairs,
        count=len(made.persons),
        vectors=made.vectors,
        quality=made.quality,
        calibration=_calibration(made, folder / "calibration.json"),
    )


def _calibration(made: FaceSet, path: Path) -> Calibration:
    """From the faces of other people; kept beside the set."""
    if not path.exists():
        persons = made.calibration_persons
        labelled = Labelled(
            vectors=unit_rows(made.calibration_vectors),
            faces=np.arange(len(persons)),
            persons=persons,
            quality=made.calibration_quality,
            images=(None,) * len(persons),
            groups=(None,) * len(persons),
        )
        space = Space(
            id=SpaceId(0),
            name="made@1",
            dimension=made.vectors.shape[1],
            model_sha256=None,
            licence="",
            commercial=True,
        )
        found = calibrate(labelled, space=space, data="made-up faces")
        path.write_text(json.dumps(to_json(found.calibration)), encoding="utf-8")
    return from_json(json.loads(path.read_text(encoding="utf-8")))


def _peak() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
