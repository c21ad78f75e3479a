"""Protected lists: how often strangers raise an alert, how many members do, and what it costs.

    python -m benchmarks.protected errors --persons 100 --strangers 500000
    python -m benchmarks.protected costs --home HOME --faces 100000

Faces are those of the generator (benchmarks/filtered/data/generator.py), as in
benchmarks/people.py. `errors` calibrates on other people than those of the list and those that are
strangers. `costs` works in a new home: matching with a list and without one, and what the trigger
that takes deleted faces off alerts adds to deleting. One JSON line a figure.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import stats
from sqlalchemy import text

from benchmarks.people import Crowd, searched
from facedex.handle import Facedex, open_facedex
from indexer.protecting import BATCH_ROWS, follow, found_in
from retrieval.library import Index
from retrieval.people.calibration import Calibration, Threshold, tail_of_counts
from retrieval.people.template import templates
from retrieval.store import collections as tenants
from retrieval.store.calibrations import keep_calibration
from retrieval.store.database import copy
from retrieval.store.protected import gallery as members
from retrieval.store.protected import lists
from retrieval.store.protected.alerts import NewFaces
from retrieval.store.protected.gallery import Gallery, NewPicture
from retrieval.values import Space, SpaceId, UnitRows

FPIR: Final = 1e-3
PICTURES: Final = 3  # of each person on the list
CALIBRATED_ON: Final = 2_000  # persons
SEARCHES: Final = 200_000
REPEATS: Final = 200


def main() -> None:
    """Print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    errors = commands.add_parser("errors")
    errors.add_argument("--strangers", type=int, default=500_000)
    costs = commands.add_parser("costs")
    costs.add_argument("--home", type=Path, required=True)
    costs.add_argument("--faces", type=int, default=100_000)
    for one in (errors, costs):
        one.add_argument("--persons", type=int, default=100)
    chosen = parser.parse_args()
    if chosen.command == "errors":
        lines = [measured(chosen.persons, chosen.strangers)]
    else:
        lines = costs_of(chosen.home, chosen.persons, chosen.faces)
    for line in lines:
        print(json.dumps({"what": chosen.command, **line}), flush=True)


def measured(persons: int, strangers: int) -> dict[str, Any]:
    """FPIR and FNIR of a list, each face of a member and each stranger's being one probe."""
    threshold = calibrated().for_fpir(FPIR, gallery=persons)
    listed = Crowd.drawn(persons, seed=5)
    gallery = listed_gallery(listed)
    mated, _ = listed.faces(np.repeat(np.arange(persons), 100))
    unknown = Crowd.drawn(strangers, seed=1)
    strange, _ = unknown.faces(np.arange(strangers))
    false = len({face for face, _ in reached(gallery, strange, threshold)})
    found = reached(gallery, mated, threshold)
    right = sum(face // 100 == person for face, person in found)
    low, high = stats.chi2.ppf([0.025, 0.975], [2 * false, 2 * false + 2]) / 2 / strangers
    return {
        "persons": persons,
        "asked": FPIR,
        "threshold": round(float(threshold.similarity), 4),
        "strangers": strangers,
        "fpir": false / strangers,
        "fpir_low": float(low),
        "fpir_high": float(high),
        "fnir": 1 - right / len(mated),
    }


def calibrated() -> Calibration:
    """What is known of strangers, from people that are nobody else here."""
    people = Crowd.drawn(CALIBRATED_ON, seed=0)
    tail = searched(Index.build(people.enrolled(PICTURES)), people, SEARCHES)
    at = np.linspace(0.0, 0.8, 100)
    rates = np.exp(-10 - 10 * at)  # comparisons are not asked for here
    counted = tail_of_counts(at, rates, rates, rates, trials=10**12)
    return Calibration(
        space="made@1", model_sha256=None, data="numbers", comparisons=counted, searches=tail
    )


def listed_gallery(listed: Crowd) -> Gallery:
    """The list as matching reads it."""
    owners = np.repeat(np.arange(len(listed.centres)), PICTURES)
    vectors, quality = listed.faces(owners)
    persons, made = templates(vectors.astype("<f2"), quality, owners)
    return Gallery(
        persons=persons,
        templates=made.astype("<f2"),
        pictures=np.arange(len(owners)),
        owners=owners,
        vectors=vectors.astype("<f2"),
    )


def reached(gallery: Gallery, vectors: UnitRows, threshold: Threshold) -> list[tuple[int, int]]:
    """Which faces raise an alert for which person."""
    alerts = []
    for begin in range(0, len(vectors), BATCH_ROWS):
        rows = vectors[begin : begin + BATCH_ROWS]
        faces = NewFaces(
            ids=np.arange(begin, begin + len(rows)),
            vectors=rows.astype("<f2"),
            quality=np.ones(len(rows)),
            changed=np.zeros(len(rows), np.int64),
        )
        alerts += found_in(gallery, faces, threshold=threshold)
    return [(int(one.face), int(one.person)) for one in alerts]


def costs_of(home: Path, persons: int, faces: int) -> Iterator[dict[str, Any]]:
    """Seconds of matching and of deleting, in a home that is made for it."""
    with open_facedex(home=home) as facedex:
        tenant = prepared(facedex, faces)
        took = [timed(lambda: follow(facedex.store, tenant)) for _ in range(REPEATS)]
        yield {"step": "match without a list", "median_ms": 1e3 * float(np.median(took))}
        facedex.protected.on(purpose="measure", basis="numbers")
        enlist(facedex, persons)
        yield {
            "step": "match all",
            "persons": persons,
            "faces_a_second": faces / timed(lambda: follow(facedex.store, tenant)),
        }
        took = [timed(lambda: follow(facedex.store, tenant)) for _ in range(REPEATS)]
        yield {"step": "match nothing", "median_ms": 1e3 * float(np.median(took))}
        facedex.protected.off()
        yield {"step": "delete", "faces": faces, **deleting(facedex)}


def deleting(facedex: Facedex) -> dict[str, Any]:
    """What deleting all faces by one statement takes, and the trigger of alerts of that."""
    with facedex.store.writing() as connection:
        connection.execute(text("DELETE FROM face WHERE id = 1"))  # compiles the trigger
        explained = connection.scalar(
            text("EXPLAIN (ANALYZE, FORMAT JSON) DELETE FROM face WHERE id > 1")
        )
    [plan] = explained
    times = {one["Trigger Name"]: one["Time"] for one in plan["Triggers"] if "Time" in one}
    return {"all_ms": plan["Execution Time"], "trigger_ms": times["face_deleted_of_alert"]}


def timed(act: Any) -> float:
    """Seconds."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def prepared(facedex: Facedex, faces: int) -> tenants.Collection:
    """A collection of strangers, by COPY, with a calibration."""
    wanted = Space(
        id=SpaceId(0),
        name="made@1",
        dimension=512,
        model_sha256=None,
        licence="none",
        commercial=True,
    )
    unknown = Crowd.drawn(faces, seed=1)
    vectors, _ = unknown.faces(np.arange(faces))
    with facedex.store.writing() as connection:
        space = tenants.space_or_new(connection, wanted)
        tenant = tenants.collection_or_new(connection, "default")
        tenant = tenants.search_in(connection, tenant, space)
        keep_calibration(connection, calibrated(), collection=tenant, space=space)
        with copy(connection).copy("COPY face (id, collection_id) FROM STDIN") as rows:
            for number in range(1, faces + 1):
                rows.write_row((number, tenant.id))
        with copy(connection).copy(
            "COPY vector (face_id, space_id, data) FROM STDIN (FORMAT binary)"
        ) as rows:
            rows.set_types(["int8", "int8", "bytea"])
            for number, row in enumerate(vectors.astype("<f2"), start=1):
                rows.write_row((number, space.id, row.tobytes()))
    return tenant


def enlist(facedex: Facedex, persons: int) -> None:
    """Put people on the list, by vectors as their pictures would give them."""
    tenant = facedex.collection()
    listed = Crowd.drawn(persons, seed=5)
    with facedex.store.writing() as connection:
        space = tenants.space_of(connection, tenant)
        lists.start_anew(connection, tenant)
        for person in range(persons):
            vectors, quality = listed.faces(np.full(PICTURES, person))
            new = [
                NewPicture(
                    sha256=(PICTURES * person + place).to_bytes(32, "big"),
                    path=b"made",
                    quality=float(quality[place]),
                    vector=vector,
                )
                for place, vector in enumerate(vectors)
            ]
            members.add_pictures(connection, new, f"P{person}", collection=tenant, space=space)


if __name__ == "__main__":
    main()
