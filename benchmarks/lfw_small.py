"""LFW small: is the right person first, and does a filter hold?

1,580 pictures of 158 people, one picture of each held out as a probe, the others ingested with
`--person-from folder` and an attribute by manifest. Each probe is asked as `facedex search --image`
does it, without and with a filter.

    python -m benchmarks.lfw_small ../shared/data/lfw
"""

import argparse
import csv
import json
import shutil
import tarfile
import tempfile
import time
from pathlib import Path

from facedex.handle import open_facedex
from retrieval.store import embedded

SHELVES = 5
WHERE = "shelf IN (1, 3) AND quality >= 0.05"


def main() -> None:
    """Print one JSON line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("lfw", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        people = _unpacked(chosen.lfw, folder)
        probes = _held_out(people, folder / "probes")
        manifest = people / "shelves.csv"
        with manifest.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "shelf"])
            rows.writerows(
                [path.relative_to(people), number % SHELVES]
                for number, path in enumerate(sorted(people.rglob("*.jpg")))
            )
        try:
            with open_facedex(home=folder / "home") as facedex:
                begun = time.perf_counter()
                report = facedex.ingest([people], metadata=str(manifest), person_from_folder=True)
                seconds = time.perf_counter() - begun
                first = filtered_first = violations = 0
                for person, path in probes:
                    probe = facedex.probe_of_picture(path)
                    hits = facedex.search(probe, count=10).hits[0]
                    first += hits[0].record.person == person
                    hits = facedex.search(probe, count=10, where=WHERE).hits[0]
                    filtered_first += hits[0].record.person == person
                    violations += sum(
                        hit.record.attributes["shelf"] not in (1, 3)
                        or hit.record.attributes["quality"] < 0.05
                        for hit in hits
                    )
        finally:
            embedded.stop(folder / "home")
    print(
        json.dumps(
            {
                "images": report.images,
                "faces": report.faces,
                "refused": len(report.refused),
                "ingest_s": round(seconds, 1),
                "probes": len(probes),
                "right_person_first": first / len(probes),
                "right_person_first_filtered": filtered_first / len(probes),
                "filter_violations": violations,
            }
        )
    )


def _unpacked(lfw: Path, folder: Path) -> Path:
    wanted = set((lfw / "lfw_small.txt").read_text(encoding="utf-8").split())
    with tarfile.open(lfw / "lfw_deepfunneled.tar.gz") as archive:
        members = [member for member in archive if member.name in wanted]
        archive.extractall(folder, members=members, filter="data")
    return folder / "lfw"


def _held_out(people: Path, probes: Path) -> list[tuple[str, Path]]:
    """Move one picture of each person away."""
    probes.mkdir()
    moved = []
    for person in sorted(path for path in people.iterdir() if path.is_dir()):
        last = max(person.iterdir())
        moved.append((person.name, Path(shutil.move(last, probes / last.name))))
    return moved


if __name__ == "__main__":
    main()
