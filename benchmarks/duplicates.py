"""How many planted copies does `facedex dedup` find, and what does it take for one that is none?

    python -m benchmarks.duplicates lfw --data ../shared/data --work WORK
    python -m benchmarks.duplicates lfw --data ../shared/data --work WORK --own own.txt
    VENV/bin/python benchmarks/duplicates_rivals.py WORK phash > found.json
    python -m benchmarks.duplicates score --work WORK --found found.json --own own.txt

`lfw` plants 2,000 copies of each of six kinds (planted.py) beside all 13,233 pictures of LFW, each
made of another picture, and finds them with the whole pipeline. All other pictures distract: LFW
has up to 530 of one person, many of one event. LFW has copies of its own; those that somebody
looked at and named in `--own` (two file names a line) count as true. What is found besides is
written to WORK/unexplained.csv, to be looked at. A pair counts where both are in one group.
"""

import argparse
import csv
import json
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.planted import KINDS, plant
from facedex.duplicates_report import write
from facedex.handle import Facedex, open_facedex

Pair = tuple[str, str]  # paths below the working folder, the lower first
EACH = 2_000
ARCHIVE = "lfw/lfw_deepfunneled.tar.gz"


def main() -> None:
    """Print a JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=["lfw", "score"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True, help="Folder for pictures and home.")
    parser.add_argument("--each", type=int, default=EACH)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="A set of copies each.")
    parser.add_argument("--people", type=int, help="Only the first people of LFW.")
    parser.add_argument("--own", type=Path, help="LFW's own copies: two file names a line.")
    parser.add_argument("--found", type=Path, help="Pairs that another program found, as JSON.")
    chosen = parser.parse_args()
    work = chosen.work.resolve()
    pictures = unpacked(chosen.data / ARCHIVE, work, people=chosen.people)
    origin = {
        below(copy, work): below(one, work)
        for seed in chosen.seeds
        for copy, one in plant(pictures, planted(work, seed), each=chosen.each, seed=seed).items()
    }
    own = set() if chosen.own is None else read_own(chosen.own)
    if chosen.command == "score":
        told = json.loads(chosen.found.read_text())
        found = {pair(one, other) for one, other in told["pairs"]}
        line = {"what": told["what"], **scored(found, origin, own, stored=None, work=work)}
    else:
        line = {"what": "facedex", **ours(work, origin, own, seeds=chosen.seeds)}
    print(json.dumps(line))


def ours(work: Path, origin: dict[str, str], own: set[Pair], *, seeds: list[int]) -> dict[str, Any]:
    """Ingest everything, find duplicates, and score them."""
    with open_facedex(home=work / "home", workers=1) as facedex:
        facedex.ingest([work / "lfw", *(planted(work, seed) for seed in seeds)])
        began, used = time.perf_counter(), time.process_time()
        found = facedex.duplicates.images()
        seconds = {
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(time.process_time() - used, 1),
        }
        write(found, work / "report")
        stored = stored_paths(facedex, work)
    groups: dict[int, list[str]] = {}
    for row in pq.read_table(work / "report" / "groups.parquet").to_pylist():
        groups.setdefault(row["group"], []).append(below(Path(row["path"]), work))
    pairs = {pair(*two) for members in groups.values() for two in combinations(members, 2)}
    return {**scored(pairs, origin, own, stored=stored, work=work), **seconds}


def scored(
    found: set[Pair], origin: dict[str, str], own: set[Pair], *, stored: set[str] | None, work: Path
) -> dict[str, Any]:
    """Recall by kind and precision.

    Args:
        found: pairs.
        origin: of each planted copy.
        own: pairs of names that are copies in LFW itself.
        stored: what is in the collection; None: everything. A copy in which no face is found any
            more is not there, and is counted as refused.
        work: where what nothing explains is written.
    """
    there, hit = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for copy, one in origin.items():
        if stored is None or {copy, one} <= stored:
            folder, kind, _ = copy.split("/")
            there[folder, kind] += 1
            hit[folder, kind] += pair(copy, one) in found
    explained, unexplained = split(found, origin, own)
    with (work / "unexplained.csv").open("w", newline="") as file:
        csv.writer(file).writerows(sorted(unexplained))
    return {
        "pairs": len(found),
        "precision": round(len(explained) / len(found), 5) if found else None,
        "unexplained": len(unexplained),
        "recall": {
            folder: {
                kind: round(hit[folder, kind] / there[folder, kind], 5)
                for kind in KINDS
                if there[folder, kind]
            }
            for folder in sorted({folder for folder, _ in there})
        },
        "missed": {"/".join(place): there[place] - hit[place] for place in sorted(there)},
        "refused": len(origin) - there.total(),
    }


def split(
    found: Iterable[Pair], origin: dict[str, str], own: set[Pair]
) -> tuple[list[Pair], list[Pair]]:
    """Pairs of copies of one picture, or of two that are copies themselves; and all others."""
    explained, unexplained = [], []
    for one, other in found:
        names = pair(*(Path(origin.get(each, each)).name for each in (one, other)))
        true = names[0] == names[1] or names in own
        (explained if true else unexplained).append((one, other))
    return explained, unexplained


def unpacked(archive: Path, work: Path, *, people: int | None) -> list[Path]:
    """LFW's pictures below work/lfw, in order."""
    folder = work / "lfw"
    if not folder.is_dir():
        with tarfile.open(archive) as tar:
            members = [member for member in tar if member.name.endswith(".jpg")]
            names = sorted({Path(member.name).parent.name for member in members})[:people]
            chosen = set(names)
            for member in members:
                if Path(member.name).parent.name in chosen:
                    member.name = "/".join(("lfw", *Path(member.name).parts[-2:]))
                    tar.extract(member, work, filter="data")
    return sorted(folder.glob("*/*.jpg"))


def stored_paths(facedex: Facedex, work: Path) -> set[str]:
    """Every picture of the collection."""
    return set(_paths(facedex, work))


def _paths(facedex: Facedex, work: Path) -> Iterator[str]:
    after = 0
    while page := facedex.faces(after=after, limit=10_000):
        after = page[-1].face
        for record in page:
            if record.image is not None:
                yield below(Path(record.image.decode()), work)


def planted(work: Path, seed: int) -> Path:
    """Where the copies of a seed lie."""
    return work / f"planted{seed}"


def read_own(path: Path) -> set[Pair]:
    """Pairs of file names."""
    lines = path.read_text().splitlines()
    return {pair(*line.split()[:2]) for line in lines if line.strip()}


def below(path: Path, work: Path) -> str:
    """The path below the working folder."""
    return path.relative_to(work).as_posix()


def pair(one: str, other: str) -> Pair:
    """Two in order."""
    return (one, other) if one < other else (other, one)


if __name__ == "__main__":
    main()
