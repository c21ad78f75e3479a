"""Are wrong labels found, and only those? What does a comparison of two galleries take?

    python -m benchmarks.labels swapped --persons 5000 --share 0.02
    python -m benchmarks.labels overlap --gallery 1000000 --asking 10000

Faces are those of the generator (benchmarks/people.py). `swapped` gives a share of the faces to
another person drawn at random, calibrates on other people, and counts the faces that are told as
mislabelled, with the right person proposed, and those told as unlike. `overlap` asks the index of
one gallery of templates for those of another, a tenth of which are in it by other faces. One JSON
line each; `cpu_s` is the processor's time.
"""

import argparse
import json
import resource
import time
from typing import Any, Final

import numpy as np

from benchmarks.people import Crowd, searched
from retrieval.curation.labels import Doubt, Kind, LabelledFaces, Limits, doubted
from retrieval.curation.overlap import Side, met
from retrieval.graph.gathering import gathered
from retrieval.library import Index
from retrieval.people.calibration import Tail
from retrieval.people.template import templates
from retrieval.search import Question, search
from retrieval.values import UnitRows

FMR: Final = 1e-3
FPIR: Final = 1e-3
FACES: Final = (2, 3, 5, 10, 20, 50)  # of a person, as often each
CANDIDATES: Final = 8
SHARED: Final = 0.1


def main() -> None:
    """Print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("swapped")
    one.add_argument("--persons", type=int, default=5_000)
    one.add_argument("--share", type=float, default=0.02)
    two = commands.add_parser("overlap")
    two.add_argument("--gallery", type=int, default=1_000_000)
    two.add_argument("--asking", type=int, default=10_000)
    chosen = parser.parse_args()
    if chosen.command == "swapped":
        line = swapped(chosen.persons, chosen.share)
    else:
        line = overlap(chosen.gallery, chosen.asking)
    print(json.dumps({"what": chosen.command, **line}), flush=True)


def tail_of(persons: int) -> Tail:
    """What searches among other people of that number meet."""
    people = Crowd.drawn(persons, seed=11)
    return searched(Index.build(people.enrolled(3)), people, max(20_000, persons))


def swapped(persons: int, share: float) -> dict[str, Any]:
    """Precision and recall of planted wrong labels."""
    tail = tail_of(persons)
    crowd = Crowd.drawn(persons, seed=1)
    owners = np.repeat(np.arange(persons), np.resize(FACES, persons))
    vectors, quality = crowd.faces(owners)
    random = np.random.default_rng(2)
    wrong = random.choice(len(owners), round(share * len(owners)), replace=False)
    given = owners.copy()
    given[wrong] = (owners[wrong] + random.integers(1, persons, len(wrong))) % persons
    order = np.argsort(given, kind="stable")
    faces = LabelledFaces(
        vectors=UnitRows(vectors[order]), quality=quality[order], persons=given[order]
    )
    limits = Limits(
        own=float(tail.threshold(FMR * tail.size)),
        other=float(tail.threshold(-np.log1p(-FPIR) * tail.size / persons)),
        quality=0.0,
    )
    began = time.process_time()
    found = judged(faces, limits)
    taken = time.process_time() - began
    truth, bad = owners[order], given[order] != owners[order]
    judgeable = _with_others(faces)
    return {
        "faces": len(order),
        "persons": persons,
        "wrong": int(bad.sum()),
        "own": round(limits.own, 4),
        "other": round(limits.other, 4),
        **_figures(found, bad, truth, judgeable),
        "cpu_s": round(taken, 1),
    }


def judged(faces: LabelledFaces, limits: Limits) -> list[Doubt]:
    """The doubts, from an index of the persons as they are labelled."""
    names, rows = templates(faces.vectors, faces.quality, faces.persons)
    view = Index.build(rows, ids=names).view

    def nearest(asked: UnitRows) -> tuple[np.ndarray, np.ndarray]:
        hits = search(view, Question(vectors=asked, count=CANDIDATES, recall="certified")).hits
        return np.array([one.ids for one in hits]), np.array([one.similarities for one in hits])

    return doubted(faces, limits, nearest, one={})


def _with_others(faces: LabelledFaces) -> np.ndarray:
    """Faces that are not alone under their label."""
    _, places, counts = np.unique(faces.persons, return_inverse=True, return_counts=True)
    return counts[places] > 1


def _figures(
    found: list[Doubt], bad: np.ndarray, truth: np.ndarray, judgeable: np.ndarray
) -> dict[str, Any]:
    proposed = [one for one in found if one.kind is Kind.MISLABELLED]
    rows = np.array([one.row for one in proposed], np.int64)
    every = np.array([one.row for one in found], np.int64)
    right = sum(one.other == truth[one.row] for one in proposed if bad[one.row])
    return {
        "mislabelled": len(rows),
        "mislabelled_precision": round(float(bad[rows].mean()), 5),
        "mislabelled_recall": round(float(bad[rows].sum() / bad.sum()), 5),
        "right_person": round(right / max(int(bad[rows].sum()), 1), 5),
        "listed": len(every),
        "listed_precision": round(float(bad[every].mean()), 5),
        "listed_recall": round(float(bad[every].sum() / bad.sum()), 5),
        "alone_under_label": int((bad & ~judgeable).sum()),
    }


def overlap(gallery: int, asking: int) -> dict[str, Any]:
    """Time and errors of one gallery against another."""
    tail = tail_of(min(gallery, 20_000))
    floor = float(tail.threshold(-np.log1p(-FPIR) * tail.size / gallery))
    people = Crowd.drawn(gallery, seed=1)
    began = time.process_time()
    large = Index.build(people.enrolled(3)).view
    built = time.process_time() - began
    shared = np.arange(round(SHARED * asking))
    others = Crowd.drawn(asking, seed=2)
    others.centres[shared] = people.centres[shared]
    small = Index.build(others.enrolled(3), ids=np.arange(asking)).view
    began = time.process_time()
    found = met(_side(small), _side(large), floor=floor, progress=lambda *_: None)
    taken = time.process_time() - began
    true = (found.ones == found.others) & (found.ones < len(shared))
    return {
        "gallery": gallery,
        "asking": asking,
        "threshold": round(floor, 4),
        "shared": len(shared),
        "found": int(true.sum()),
        "false_pairs": int((~true).sum()),
        "false_pairs_asked": round(asking * -float(np.log1p(-FPIR)), 2),
        "build_cpu_s": round(built, 1),
        "cpu_s": round(taken, 1),
        "ms_a_search": round(1e3 * taken / asking, 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _side(view: Any) -> Side:
    rows = gathered(view, None)
    return Side(view=view, filter=None, rows=rows.ordered(np.argsort(rows.ids)))


if __name__ == "__main__":
    main()
