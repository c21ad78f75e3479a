"""All pairs of templates above a similarity: time, memory, and whether they are all there.

    python -m benchmarks.separability all --persons 300000 --above 0.4
    python -m benchmarks.separability part --persons 20000 --above 0.3
    python -m benchmarks.separability scan --persons 300000 --above 0.4

Persons are those of the generator, a template of three faces each. `all` compares everybody with
everybody; `part` does so for fewer, along some directions and along all, and against products of
all pairs in float64; `scan` asks an index certified for everybody instead, some of them, which may
miss pairs, each with a small chance. One JSON line a figure.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.people import Crowd
from retrieval.curation.separability import (
    DIRECTIONS,
    Identities,
    Separability,
    separability,
)
from retrieval.graph.gathering import Gathered
from retrieval.index.exact import Doubles, Numbers, Rows, paired_cosines, scales_of
from retrieval.kernels.compiled import use_cache
from retrieval.library import Index
from retrieval.values import HalfRows

TEMPLATE_FACES: Final = 3
ASKED: Final = 1_000  # of everybody, by the scan
NEIGHBOURS: Final = 100
BRUTE_ROWS: Final = 2_000
PART: Final = 20_000  # of everybody, compared by brute force, too


def templates_of(persons: int) -> HalfRows:
    """A template of each person, as an index keeps it."""
    return Crowd.drawn(persons, seed=0).enrolled(TEMPLATE_FACES).astype("<f2")


def compared(
    vectors: HalfRows, above: float, *, directions: Sequence[int] = DIRECTIONS
) -> tuple[Separability, float]:
    """All pairs, and the seconds of processor time."""
    everybody = np.arange(len(vectors))
    rows = Gathered(Rows(everybody, scales_of(vectors), vectors), everybody)
    began = time.process_time()
    found = separability(
        Identities(rows=rows, owners=everybody), threshold=above, directions=directions
    )
    return found, time.process_time() - began


def told(found: Separability, took: float) -> dict[str, Any]:
    """A line."""
    return {
        "persons": found.rows,
        "above": found.threshold,
        "pairs": len(found.ones),
        "persons_involved": found.involved,
        "highest": round(found.highest or 0.0, 4),
        "directions": found.directions,
        "scored_share": found.scored / max(found.compared, 1),
        "cpu_s": round(took, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def everything(persons: int, above: float) -> Iterator[dict[str, Any]]:
    """Everybody with everybody."""
    vectors = templates_of(persons)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    found, took = compared(vectors, above)
    line = told(found, took) | {"peak_mib_before": before}
    among = (found.ones < PART) & (found.others < PART)
    _, similarities, ones, others = brute(vectors[:PART], found.edges, above)
    equal = all(
        np.array_equal(got[among], wanted)
        for got, wanted in (
            (found.similarities, similarities), (found.ones, ones), (found.others, others),
        )
    )  # fmt: skip
    yield line | {"part": PART, "part_pairs": len(ones), "part_equals_brute_force": equal}


def part(persons: int, above: float) -> Iterator[dict[str, Any]]:
    """Fewer, in two ways, and by brute force."""
    vectors = templates_of(persons)
    found, took = compared(vectors, above)
    yield told(found, took) | {"equals_brute_force": equals_brute(found, vectors, above)}
    whole, took = compared(vectors, above, directions=())
    same = all(
        np.array_equal(getattr(whole, name), getattr(found, name))
        for name in ("ones", "others", "similarities", "counts")
    )
    yield told(whole, took) | {"equals_the_other": same}


def equals_brute(found: Separability, vectors: HalfRows, above: float) -> bool:
    """Whether pairs, similarities and counts are those of products in float64."""
    wanted = brute(vectors, found.edges, above)
    got = (found.counts, found.similarities, found.ones, found.others)
    return all(np.array_equal(one, other) for one, other in zip(got, wanted, strict=True))


def brute(
    vectors: HalfRows, edges: Doubles, above: float
) -> tuple[Numbers, Doubles, Numbers, Numbers]:
    """Pairs in each bin, and those that reach a similarity, by products in float64."""
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    counts = np.zeros(len(edges), np.int64)
    pairs = []
    for begin in range(0, len(wide), BRUTE_ROWS):
        block = wide[begin : begin + BRUTE_ROWS] @ wide.T
        block[np.arange(len(wide)) <= np.arange(begin, begin + len(block))[:, None]] = -2.0
        ones, others = np.nonzero(block >= edges[0] - 1e-9)
        similarities = paired_cosines(vectors[ones + begin], vectors[others])
        at = np.searchsorted(edges, similarities, side="right") - 1
        counts += np.bincount(at[at >= 0], minlength=len(counts))
        reached = similarities >= above
        pairs.append((similarities[reached], ones[reached] + begin, others[reached]))
    similarities, ones, others = map(np.concatenate, zip(*pairs, strict=True))
    order = np.lexsort((others, ones, -similarities))
    return counts, similarities[order], ones[order], others[order]


def scan(persons: int, above: float) -> Iterator[dict[str, Any]]:
    """Some of everybody asked, certified, with the similarity as the floor."""
    vectors = templates_of(persons)
    began = time.process_time()
    index = Index.build(vectors)
    built = time.process_time() - began
    some = vectors[:: max(1, persons // ASKED)].astype(np.float32)
    index.search(some[0], count=NEIGHBOURS, recall="certified", min_similarity=above)
    began = time.process_time()
    pairs = 0
    for query in some:
        answer = index.search(query, count=NEIGHBOURS, recall="certified", min_similarity=above)
        pairs += len(answer.ids) - 1
    each = (time.process_time() - began) / len(some)
    yield {
        "persons": persons,
        "above": above,
        "asked": len(some),
        "build_cpu_s": round(built, 1),
        "cpu_ms_each": round(1e3 * each, 3),
        "cpu_s_for_everybody": round(each * persons, 1),
        "pairs_of_those_asked": pairs,
    }


def main() -> None:
    """Print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = {"all": everything, "part": part, "scan": scan}
    parser.add_argument("what", choices=ways)
    parser.add_argument("--persons", type=int, default=300_000)
    parser.add_argument("--above", type=float, default=0.4)
    parser.add_argument("--home", type=Path, default=Path(".facedex"), help="Of compiled code.")
    chosen = parser.parse_args()
    use_cache(chosen.home)
    compared(templates_of(500), chosen.above)  # compiles
    for line in ways[chosen.what](chosen.persons, chosen.above):
        print(json.dumps({"what": f"separability {chosen.what}", **line}), flush=True)


if __name__ == "__main__":
    main()
