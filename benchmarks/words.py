"""Sentences asked of an index of looks, and faces and words together: recall, work, time.

    python -m benchmarks.words filters  --file list_attr_celeba01.csv.zip
    python -m benchmarks.words composed --file list_attr_celeba01.csv.zip
    python -m benchmarks.words person   --home HOME --collection lfw

Looks are made of CelebA's real attribute rows: a direction for each attribute, of which a face
shows as much as a head tells (rho), and `rest` times as much of its own that no sentence says. A
sentence names all, 45 % or three of somebody's attributes. So sentences are as unlike faces as in a
trained space: the cosine of a full sentence and its face is .58 at rho .7, rest .5, and .31 at .6,
1.5 (CLIP's are about .3); strangers' are about 0. Identities beside them are the generator's.

`filters` asks sentences and faces under filters, of an index that was told of sentences and of one
that was not, and of identities; `composed` asks for a face and a sentence by the threshold
algorithm, and compares with exact answers. `person` asks a real collection with a face-text space
for the pictures of a person who smiles (or what else --tag and --text say): how many of the best
five are of the same person, and have the tag, by weight. Times are CPU time of the one thread. One
JSON line a figure.
"""

import argparse
import csv
import functools
import io
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.filtered.data import generator
from facedex.handle import open_facedex
from retrieval.composing import Composed, Part, compose, spread, weights
from retrieval.filters.tree import Filter
from retrieval.kernels.compiled import use_cache
from retrieval.library import Found, Index
from retrieval.plan import Recall
from retrieval.search import Question
from retrieval.values import Floats, UnitRows, unit_rows

Doubles = npt.NDArray[np.float64]

DIMENSION: Final = 256
WORLDS: Final = ((0.7, 0.5), (0.6, 1.5))  # rho, rest
SHARES: Final = {"full": 1.0, "45 %": 0.45, "three": 0.0}
NAMED_MIN: Final = 3
TOLD: Final = 1_200  # sentences that an index is told of
CELLS: Final = (None, "slot < 0.3", "slot < 0.1", "slot < 0.01", "Male = TRUE",
                "Smiling = TRUE AND slot < 0.2")  # fmt: skip
COUNT: Final = 10
BOUND: Final = 1.645  # of the normal distribution, 95 % on one side
FACES_A_PERSON: Final = 20
PERSON_COUNT: Final = 5
OTHERS_MIN: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Faces with attributes, and what is said of them."""

    names: list[str]
    shown: Floats  # (n, a) standardised
    attributes: npt.NDArray[np.bool_]  # (n, a)
    looks: UnitRows  # (n, DIMENSION)
    directions: Floats  # (a, DIMENSION)

    def sentences(self, count: int, share: float, *, seed: int) -> UnitRows:
        """Vectors of sentences about random faces."""
        random = np.random.default_rng(seed)
        faces = random.integers(0, len(self.looks), count)
        named = random.random((count, len(self.names))) < share
        for row in named:
            row[random.choice(len(row), NAMED_MIN, replace=False)] = True
        said = unit_rows((self.shown[faces] * named) @ self.directions)
        noise = unit_rows(random.standard_normal((count, DIMENSION)))
        return unit_rows(said + 0.3 * noise)

    def table(self) -> dict[str, Any]:
        """What filters may name."""
        slot = np.random.default_rng(5).random(len(self.looks))
        return {name: self.attributes[:, place] for place, name in enumerate(self.names)} | {
            "slot": slot
        }


def world(file: Path, rho: float, rest: float, *, rows: int) -> World:
    """The faces of CelebA's rows."""
    names, attributes = read(file)
    attributes = attributes[:rows]
    random = np.random.default_rng(0)
    means = attributes.mean(axis=0)
    deviations = np.sqrt(means * (1 - means))
    shown = np.clip((attributes - means) / deviations, -4, 4).astype(np.float32)
    noise = random.standard_normal(shown.shape, dtype=np.float32)
    told = rho * shown + np.sqrt(1 - rho**2) * noise
    frame = np.linalg.qr(random.standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
    directions, others = frame[: len(names)], frame[len(names) :]
    order = np.lexsort((random.random(len(shown)), attributes[:, names.index("Male")]))
    persons = np.empty(len(shown), np.int64)
    persons[order] = np.arange(len(shown)) // FACES_A_PERSON
    sizes = (np.arange(1, len(others) + 1) ** -0.5).astype(np.float32)
    sizes /= np.sqrt((sizes**2).sum())
    own = random.standard_normal((persons.max() + 1, len(others)), dtype=np.float32)[persons]
    own = 0.8 * own + 0.6 * random.standard_normal(own.shape, dtype=np.float32)
    looks = told @ directions / np.sqrt(len(names)) + rest * ((own * sizes) @ others)
    return World(names, shown, attributes, unit_rows(looks), directions)


def read(file: Path) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Names of attributes, and the rows, from the CSV file inside a zip file."""
    with zipfile.ZipFile(file) as archive:
        lines = io.StringIO(archive.read(archive.namelist()[0]).decode())
    names, *rows = csv.reader(lines)
    return names[1:], np.array([[value == "1" for value in row[1:]] for row in rows])


def filters(chosen: argparse.Namespace) -> None:
    """Recall at .95, work and time under filters."""
    for rho, rest in WORLDS:
        made = world(chosen.file, rho, rest, rows=chosen.rows)
        told = np.concatenate(
            [made.sentences(TOLD // 3, share, seed=9) for share in SHARES.values()]
        )
        asked = {
            name: made.sentences(chosen.queries, share, seed=1) for name, share in SHARES.items()
        }
        random = np.random.default_rng(2)
        near = random.integers(0, len(made.looks), chosen.queries)
        noise = unit_rows(random.standard_normal((chosen.queries, DIMENSION)))
        asked["face"] = unit_rows(made.looks[near] + 0.5 * noise)
        for name, questions in (("rows", None), ("rows and sentences", told)):
            index, cpu_s = built(made.looks, made.table(), questions)
            for kind, queries in asked.items():
                for where in CELLS:
                    say(rho=rho, rest=rest, measured_with=name, build_cpu_s=cpu_s, asked=kind,
                        where=where, **answered(index, queries, where))  # fmt: skip
    faces = generator.faces(chosen.rows, seed=0, queries=chosen.queries, tuning=1)
    index, cpu_s = built(faces.vectors, made.table(), None)
    for where in CELLS:
        say(identities=True, build_cpu_s=cpu_s, where=where,
            **answered(index, faces.queries, where))  # fmt: skip


def built(
    vectors: UnitRows, table: dict[str, Any], questions: UnitRows | None
) -> tuple[Index, float]:
    """An index, and the CPU seconds that it took."""
    began = time.process_time()
    index = Index.build(vectors, table, questions=questions)
    return index, time.process_time() - began


def answered(index: Index, queries: UnitRows, where: str | None) -> dict[str, Any]:
    """What answers at the shipped recall hold of exact ones, and what they took."""
    prepared = None if where is None else index.prepare(where)
    recalls, times, seen = [], [], []
    ways: dict[str, int] = {}
    for query in queries:
        began = time.thread_time()
        found = index.search(query, where=prepared, count=COUNT)
        times.append(time.thread_time() - began)
        true = index.search(query, where=prepared, count=COUNT, recall="exact")
        recalls.append(share_found(found, true))
        seen.append(found.answer.work.by_code / max(found.answer.survivors, 1))
        way = str(found.answer.plan.strategy)
        ways[way] = ways.get(way, 0) + 1
    error = float(np.std(recalls)) / np.sqrt(len(recalls))
    return {
        "survivors": found.answer.survivors,
        "recall": float(np.mean(recalls)),
        "recall_low": float(np.mean(recalls)) - BOUND * error,
        "seen": float(np.mean(seen)),
        "cpu_us": 1e6 * float(np.median(times)),
        "ways": ways,
    }


def share_found(found: Found, true: Found) -> float:
    """By similarity: equal faces count as one another."""
    kept = np.count_nonzero(found.similarities >= true.similarities[-1] - 1e-12)
    return float(kept) / len(true.ids)


def composed(chosen: argparse.Namespace) -> None:
    """A face and a sentence at once, by weight: rounds, candidates, recall, time."""
    made = world(chosen.file, *WORLDS[0], rows=chosen.rows)
    faces = generator.faces(chosen.rows, seed=0, queries=chosen.queries, tuning=1)
    told = np.concatenate([made.sentences(TOLD // 3, share, seed=9) for share in SHARES.values()])
    identities, _ = built(faces.vectors, made.table(), None)
    looks, _ = built(made.looks, made.table(), told)
    said = made.sentences(chosen.queries, 0.0, seed=1)
    spreads = (spread(identities.view), spread(looks.view))
    say(spread_identities=spreads[0], spread_looks=spreads[1])
    for where in (None, "slot < 0.1", "slot < 0.01"):
        filter_ = None if where is None else identities.prepare(where).bind({})
        for share in (0.1, 0.5, 0.9):
            ask = functools.partial(_both, (identities, looks), weights(share, spreads), filter_)
            say(where=where, weight=share, **together(ask, faces.queries, said))


def _both(
    indexes: tuple[Index, Index],
    shares: tuple[float, float],
    filter_: Filter | None,
    asked: tuple[UnitRows, UnitRows],
    recall: Recall,
) -> Composed:
    parts = [
        Part(view=index.view, vector=vector, weight=share)
        for index, vector, share in zip(indexes, asked, shares, strict=True)
    ]
    return compose(parts, Question(vectors=asked[0], count=COUNT, filter=filter_, recall=recall))


def together(
    ask: Callable[[tuple[UnitRows, UnitRows], Recall], Composed], faces: UnitRows, said: UnitRows
) -> dict[str, Any]:
    """Answers at the shipped recall and certified, against everything scored."""
    figures: dict[str, Any] = {}
    recalls: tuple[Recall, ...] = (0.95, "certified")
    for recall in recalls:
        shares, times, rounds, candidates, scans = [], [], [], [], 0
        for face, words in zip(faces, said, strict=True):
            asked = UnitRows(face[None]), UnitRows(words[None])
            began = time.thread_time()
            found = ask(asked, recall)
            times.append(time.thread_time() - began)
            true = ask(asked, "exact")
            kept = found.hits.similarities >= true.hits.similarities[-1] - 1e-12
            shares.append(np.count_nonzero(kept) / len(true.hits.ids))
            rounds.append(found.rounds)
            candidates.append(found.candidates)
            scans += found.scanned
        figures[str(recall)] = {
            "recall": float(np.mean(shares)),
            "cpu_us": 1e6 * float(np.median(times)),
            "rounds": float(np.mean(rounds)),
            "candidates": float(np.median(candidates)),
            "scanned": scans / len(said),
        }
    return figures


def person(chosen: argparse.Namespace) -> None:
    """The same person with a tag: shares of the best five of each probe, by weight."""
    with open_facedex(home=chosen.home, collection=chosen.collection) as facedex:
        mine: dict[str, list[Any]] = {}
        for record in facedex.faces(limit=1_000_000):
            if record.person is not None:
                mine.setdefault(record.person, []).append(record)
        probes = [one for faces in mine.values() for one in _probes(faces, chosen.tag)]
        say(persons=len({one.person for one in probes}), probes=len(probes), possible=fmean(
            min(sum(_has(face, chosen.tag) for face in mine[one.person]) / PERSON_COUNT, 1.0)
            for one in probes))  # fmt: skip
        for weight in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
            shares = []
            for probe in tqdm(probes, desc=f"weight {weight}", disable=None):
                found = facedex.search(
                    facedex.probe_of_face(probe.face),
                    text=chosen.text,
                    weight=weight,
                    where=f"face <> {probe.face}",
                    count=PERSON_COUNT,
                )
                hits = [hit.record for hit in found.hits[0]]
                same = np.array([hit.person == probe.person for hit in hits])
                tagged = np.array([_has(hit, chosen.tag) for hit in hits])
                shares.append((same.mean(), tagged.mean(), (same & tagged).mean()))
            means = np.mean(shares, axis=0)
            say(text=chosen.text, weight=weight, same_person=float(means[0]),
                with_tag=float(means[1]), both=float(means[2]))  # fmt: skip


def _probes(faces: list[Any], tag: str) -> list[Any]:
    """The faces without the tag of a person who has two others of either kind."""
    without = [face for face in faces if not _has(face, tag)]
    having = len(faces) - len(without)
    enough = len(faces) > PERSON_COUNT and having >= OTHERS_MIN and len(without) >= OTHERS_MIN
    return without if enough else []


def _has(record: Any, tag: str) -> bool:
    value = record.attributes.get(tag)
    return bool(value) if value is not None else tag in (record.attributes.get("tags") or ())


def say(**values: Any) -> None:
    """One line."""
    print(json.dumps(_rounded(values)), flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return round(value, 5) if isinstance(value, float) else value


COMMANDS: Final = {"filters": filters, "composed": composed, "person": person}


def main(words: Sequence[str] | None = None) -> None:
    """Run one command."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("command", choices=list(COMMANDS))
    options.add_argument("--file", type=Path, help="CelebA's attributes: a CSV file in a zip file")
    options.add_argument("--rows", type=int, default=200_000)
    options.add_argument("--queries", type=int, default=300)
    options.add_argument("--home", type=Path, default=Path(".facedex"))
    options.add_argument("--collection", default="lfw")
    options.add_argument("--text", default="a smiling person")
    options.add_argument("--tag", default="Smiling", help="a boolean attribute, or a tag")
    options.add_argument("--cache", type=Path, default=Path(".facedex/bench"))
    chosen = options.parse_args(words)
    use_cache(chosen.cache)
    COMMANDS[chosen.command](chosen)


if __name__ == "__main__":
    main()
