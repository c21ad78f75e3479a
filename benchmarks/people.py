"""Does open-set identification err as often as asked, whatever the gallery and however many faces?

    python -m benchmarks.people fpir --gallery 1000 10000 100000 --strangers 100000
    python -m benchmarks.people drift --persons 2000 --strangers 100000
    python -m benchmarks.people identify --persons 1000000
    python -m benchmarks.people codes --home HOME --collection lfw

Faces are those of the generator (benchmarks/filtered/data/generator.py). `fpir` calibrates on
searches for enrolled people's own faces, each person left out of its own search, and asks with
fresh strangers. `drift` holds one threshold while persons get more faces, scored by template and by
best face. `identify` times single questions, certified, on one core. `codes` verifies real faces by
the codes that an index holds in memory, alone and with the doubtful pairs scored in full. One JSON
line a figure.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.filtered.data.generator import LATENT, NOISE, NOISE_SPREAD, frame
from facedex.handle import open_facedex
from retrieval.index.codes import Frame, encoded, frame_of, words_of
from retrieval.kernels.coded import turned
from retrieval.library import Index
from retrieval.people.calibration import Tail, tail_of_maxima
from retrieval.people.template import templates
from retrieval.store.collections import space_of
from retrieval.store.labelled import read_labelled
from retrieval.values import Floats, UnitRows

Doubles = npt.NDArray[np.float64]

ASKED_AT_ONCE: Final = 512
FPIRS: Final = (0.01, 0.001)
DRIFT_FACES: Final = (1, 2, 5, 10, 20)
DRIFT_FPIR: Final = 0.01
BLOCK_ROWS: Final = 65_536
FLOORED_ROWS_MIN: Final = 500_000
FLOOR_SEARCHES: Final = 1_024
FLOOR_SHARE: Final = 0.2  # of searches reach the floor: twenty times the highest rate asked for
P99_QUERIES: Final = 2_000
DOUBTS: Final = 3.0  # standard errors of a code below the threshold that are scored in full


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """People, and what their pictures look like."""

    random: np.random.Generator
    centres: Floats  # (p, LATENT)

    @classmethod
    def drawn(cls, count: int, *, seed: int) -> "Crowd":
        """So many people, always the same for a seed."""
        random = np.random.default_rng([seed, count])
        centres = random.standard_normal((count, LATENT), dtype=np.float32)
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        return cls(random, centres)

    def faces(
        self, owners: npt.NDArray[np.int64], *, noise: float = NOISE
    ) -> tuple[UnitRows, Doubles]:
        """A picture of each owner: vectors (n, 512) and quality (n,)."""
        scale = noise * self.random.lognormal(0, NOISE_SPREAD, len(owners))
        away = self.random.standard_normal((len(owners), LATENT), dtype=np.float32)
        latent = self.centres[owners] + away * (scale / np.sqrt(LATENT)).astype(np.float32)[:, None]
        vectors = latent @ frame().T
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return UnitRows(vectors), 1 / (1 + (scale / NOISE) ** 2)

    def enrolled(self, faces: int) -> UnitRows:
        """A template of so many faces for each of the people."""
        everybody = np.arange(len(self.centres))
        made = []
        for block in np.array_split(everybody, -(-len(everybody) // (BLOCK_ROWS // faces))):
            owners = np.repeat(block, faces)
            vectors, quality = self.faces(owners)
            made.append(templates(vectors, quality, owners)[1])
        return UnitRows(np.concatenate(made))


def main() -> None:
    """Print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    fpir = commands.add_parser("fpir")
    fpir.add_argument("--gallery", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    drift = commands.add_parser("drift")
    drift.add_argument("--persons", type=int, default=2_000)
    fpir.add_argument("--searches", type=int, default=200_000, help="To calibrate with.")
    for one in (fpir, drift):
        one.add_argument("--strangers", type=int, default=200_000)
    identify = commands.add_parser("identify")
    identify.add_argument("--persons", type=int, default=1_000_000)
    codes = commands.add_parser("codes")
    codes.add_argument("--home", type=Path, required=True)
    codes.add_argument("--collection", required=True)
    chosen = parser.parse_args()
    lines = {
        "fpir": lambda: measured_fpir(chosen.gallery, chosen.strangers, chosen.searches),
        "drift": lambda: drifted(chosen.persons, chosen.strangers),
        "identify": lambda: timed(chosen.persons),
        "codes": lambda: coded(chosen.home, chosen.collection),
    }
    for line in lines[chosen.command]():
        print(json.dumps({"what": chosen.command, **line}), flush=True)


def measured_fpir(galleries: list[int], strangers: int, searches: int) -> Iterator[dict[str, Any]]:
    """Asked and measured FPIR for each size of gallery."""
    unknown = Crowd.drawn(strangers, seed=1)
    probes, _ = unknown.faces(np.arange(strangers))
    for size in galleries:
        people = Crowd.drawn(size, seed=0)
        index = Index.build(people.enrolled(3))
        tail = searched(index, people, searches)
        maxima = highest(index, probes, floor=floor_of(index, probes))
        for fpir in FPIRS:
            threshold = tail.threshold(-np.log1p(-fpir) * (size / tail.size))
            errors = int((maxima >= threshold).sum())
            yield {
                "gallery": size,
                "strangers": strangers,
                "asked": fpir,
                "threshold": round(threshold, 4),
                "measured": errors / strangers,
                "ratio": round(errors / strangers / fpir, 3),
            }


def searched(index: Index, people: Crowd, count: int) -> Tail:
    """The calibration of a gallery by itself: what its own people's faces meet of others."""
    size = len(index)
    owners = people.random.permutation(np.arange(count) % size)
    vectors, _ = people.faces(owners)
    maxima = highest(index, vectors, without=owners, floor=floor_of(index, vectors, owners))
    return tail_of_maxima(maxima, size=size - 1)


def floor_of(
    index: Index, probes: UnitRows, without: npt.NDArray[np.int64] | None = None
) -> float | None:
    """What few searches reach; None where a gallery is small enough to tell all similarities."""
    if len(index) < FLOORED_ROWS_MIN:
        return None
    few = slice(0, FLOOR_SEARCHES)
    maxima = highest(
        index, UnitRows(probes[few]), without=None if without is None else without[few]
    )
    return float(np.quantile(maxima, 1 - FLOOR_SHARE))


def highest(
    index: Index,
    probes: UnitRows,
    *,
    without: npt.NDArray[np.int64] | None = None,
    floor: float | None = None,
) -> Doubles:
    """The similarity of the most similar template to each probe, but its own person's.

    Below `floor` it is not looked for, and the floor is told: a code's bound then rules nearly
    every row out, which is five times as fast as multiplying at a million rows.
    """
    if floor is not None:
        return _above(index, probes, without, floor)
    maxima = np.empty(len(probes))
    for begin in tqdm(range(0, len(probes), ASKED_AT_ONCE), desc="searches", disable=None):
        block = probes[begin : begin + ASKED_AT_ONCE]
        for place, found in enumerate(index.search_many(block, count=2, recall="certified"), begin):
            own = None if without is None else without[place]
            maxima[place] = next(
                similarity
                for person, similarity in zip(found.ids, found.similarities, strict=True)
                if person != own
            )
    return maxima


def _above(
    index: Index, probes: UnitRows, without: npt.NDArray[np.int64] | None, floor: float
) -> Doubles:
    maxima = np.full(len(probes), floor)
    for place, probe in enumerate(tqdm(probes, desc="searches", disable=None)):
        found = index.search(probe, count=2, recall="certified", min_similarity=floor)
        others = (
            found.similarities
            if without is None
            else found.similarities[found.ids != without[place]]
        )
        maxima[place] = max([floor, *others[:1]])
    return maxima


def drifted(persons: int, strangers: int) -> Iterator[dict[str, Any]]:
    """FPIR and FNIR at the threshold of one face a person, as persons get more faces.

    `fnir_at_fpir` is at the threshold that gives the asked FPIR to that number of faces.
    """
    people, unknown = Crowd.drawn(persons, seed=0), Crowd.drawn(strangers, seed=1)
    probes, _ = unknown.faces(np.arange(strangers))
    mated, _ = people.faces(np.arange(persons))
    threshold: dict[str, float] = {}
    for faces in DRIFT_FACES:
        owners = np.repeat(np.arange(persons), faces)
        vectors, quality = people.faces(owners)
        made = templates(vectors, quality, owners)[1]
        for scoring, gallery in (("template", made), ("best of n", vectors)):
            false = np.concatenate([one.max(axis=1) for one in _scores(probes, gallery, persons)])
            own = np.concatenate(list(_scores(mated, gallery, persons)))[
                np.arange(persons), np.arange(persons)
            ]
            asked = float(np.quantile(false, 1 - DRIFT_FPIR))
            at = threshold.setdefault(scoring, asked)
            share = float((false >= at).mean())
            yield {
                "faces": faces,
                "scoring": scoring,
                "threshold": round(at, 4),
                "fpir": share,
                "fpir_high": share + 1.96 * float(np.sqrt(share * (1 - share) / strangers)),
                "fnir": float((own < at).mean()),
                "fnir_at_fpir": float((own < asked).mean()),
            }


def _scores(probes: UnitRows, gallery: UnitRows, persons: int) -> Iterator[Floats]:
    """The similarity of probes to persons, (b, persons) a block: to the best of their rows."""
    for begin in range(0, len(probes), ASKED_AT_ONCE):
        products = probes[begin : begin + ASKED_AT_ONCE] @ gallery.T
        yield products.reshape(len(products), persons, -1).max(axis=2)


def timed(persons: int) -> Iterator[dict[str, Any]]:
    """Single certified questions on one core: time, and whether the first is the exact first."""
    people, unknown = Crowd.drawn(persons, seed=0), Crowd.drawn(P99_QUERIES // 2, seed=1)
    began = time.process_time()
    index = Index.build(people.enrolled(1))
    yield {"persons": persons, "build_cpu_s": round(time.process_time() - began, 1)}
    mated, _ = people.faces(people.random.integers(0, persons, P99_QUERIES // 2))
    strange, _ = unknown.faces(np.arange(P99_QUERIES // 2))
    tail = tail_of_maxima(highest(index, strange), size=persons)
    threshold = tail.threshold(0.001)
    for kind, probes in (("mated", mated), ("unmated", strange)):
        took, busy, right, above = [], [], 0, 0
        for probe in tqdm(probes, desc=kind, disable=None):
            began, cpu = time.perf_counter(), time.thread_time()
            found = index.search(probe, count=16, recall="certified", min_similarity=threshold)
            took.append(1e3 * (time.perf_counter() - began))
            busy.append(1e3 * (time.thread_time() - cpu))
            exact = index.search(probe, count=1, recall="exact")
            if exact.similarities[0] >= threshold:
                above += 1
                right += int(found.ids[:1].tolist() == exact.ids.tolist())
        yield {
            "persons": persons,
            "probes": kind,
            "p50_ms": round(float(np.median(took)), 2),
            "p99_ms": round(float(np.quantile(took, 0.99)), 2),
            "p99_cpu_ms": round(float(np.quantile(busy, 0.99)), 2),
            "above_threshold": above,
            "recall_at_1": right / above if above else None,
        }


def coded(home: Path, collection: str) -> Iterator[dict[str, Any]]:
    """TAR at an FMR of 1e-4 by codes whose frame comes from the other half of the persons."""
    with open_facedex(home=home, collection=collection) as facedex:
        tenant = facedex.collection()
        with facedex.store.reading() as connection:
            space = space_of(connection, tenant)
        faces = read_labelled(facedex.store, collection=tenant, space=space, filter_=None)
    mixed = np.random.default_rng(0).permutation(np.unique(faces.persons))
    half = np.isin(faces.persons, mixed[::2])
    for trained, tested in ((half, ~half), (~half, half)):
        vectors, persons = UnitRows(faces.vectors[tested]), faces.persons[tested]
        made = frame_of(faces.vectors[trained], seed=1)
        true, coded_ = vectors @ vectors.T, _estimates(vectors, made)
        genuine = persons[:, None] == persons
        threshold, tar = _tar(true, genuine)
        doubtful = coded_ >= threshold - DOUBTS * float((coded_ - true).std())
        _, by_code = _tar(coded_, genuine)
        _, rescored = _tar(np.where(doubtful, true, coded_), genuine)
        yield {
            "faces": len(vectors),
            "bytes_a_vector": encoded_bytes(vectors.shape[1]),
            "tar": tar,
            "tar_by_code": by_code,
            "tar_rescored": rescored,
            "rescored_share": float(doubtful.mean()),
        }


def encoded_bytes(dimension: int) -> int:
    """What an index holds of a vector in memory: a bit a dimension, and two factors."""
    return 8 * words_of(dimension) + 4


def _estimates(vectors: UnitRows, made: Frame) -> Floats:
    """The similarity of each row, of which only the code is known, and each query, (n, n)."""
    codes = encoded(vectors, np.ones(len(vectors), np.float32), made)
    words = codes.words.reshape(len(vectors), -1)
    bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, : vectors.shape[1]]
    factors = codes.factors.view(np.float16).reshape(-1, 2).astype(np.float32)
    rotation = np.eye(vectors.shape[1], dtype=np.float32)
    turned(rotation, made.signs, made.places)
    products = (2 * bits.astype(np.float32) - 1) @ ((vectors - made.mean) @ rotation).T
    found: Floats = products * factors[:, :1] + factors[:, 1:] + vectors @ made.mean
    return found


def _tar(similarities: Floats, genuine: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The threshold of an FMR of 1e-4, and the share of genuine pairs that reach it."""
    threshold = float(np.quantile(similarities[~genuine], 1 - 1e-4))
    pairs = genuine & ~np.eye(len(genuine), dtype=np.bool_)
    return threshold, float((similarities[pairs] >= threshold).mean())


if __name__ == "__main__":
    main()
