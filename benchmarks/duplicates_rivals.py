"""What other programs take for copies, as JSON for `benchmarks.duplicates score`.

    VENV/bin/python benchmarks/duplicates_rivals.py WORK phash > found.json

Each runs in an environment of its own (`pip install imagededup`), with its own thresholds, over
WORK/lfw and WORK/planted0. Nothing of this project is imported.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Print one JSON object."""
    work, method = Path(sys.argv[1]).resolve(), sys.argv[2]
    folder = work / "flat"
    names = flattened(work, folder)
    began, used = time.perf_counter(), time.process_time()
    found: dict[str, list[str]] = finder(method).find_duplicates(image_dir=str(folder))
    pairs = sorted(
        {
            tuple(sorted((names[one], names[other])))
            for one, others in found.items()
            for other in others
        }
    )
    print(
        json.dumps(
            {
                "what": f"imagededup {method}",
                "seconds": round(time.perf_counter() - began, 1),
                "cpu_seconds": round(time.process_time() - used, 1),
                "pairs": pairs,
            }
        )
    )


def flattened(work: Path, folder: Path) -> dict[str, str]:
    """Links to all pictures in one folder, by names that tell them apart."""
    folder.mkdir(exist_ok=True)
    names: dict[str, str] = {}
    for path in sorted((*work.glob("lfw/*/*.jpg"), *work.glob("planted0/*/*.jpg"))):
        told = path.relative_to(work).as_posix()
        names[told.replace("/", "__")] = told
        link = folder / told.replace("/", "__")
        if not link.exists():
            link.symlink_to(path)
    return names


def finder(method: str) -> Any:
    """The class of imagededup that finds by a method."""
    from imagededup import methods  # type: ignore[import-not-found,unused-ignore]

    return {
        "phash": methods.PHash,
        "dhash": methods.DHash,
        "ahash": methods.AHash,
        "whash": methods.WHash,
        "cnn": methods.CNN,
    }[method]()


if __name__ == "__main__":
    main()
