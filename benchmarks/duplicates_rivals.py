"""What other programs take for copies, as JSON for `benchmarks.duplicates score`.

    VENV/bin/python benchmarks/duplicates_rivals.py WORK phash > found.json

Each runs in an environment of its own (`pip install imagededup`,
`pip install fastdup`), with its own thresholds, over
WORK/lfw and WORK/planted0. Nothing of this project is imported.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

FASTDUP_MIN: Final = 0.96  # its default for components


def main() -> None:
    """Print one JSON object."""
    work, method = Path(sys.argv[1]).resolve(), sys.argv[2]
    folder = work / "flat"
    names = flattened(work, folder)
    began, used = time.perf_counter(), cpu_seconds()
    found = by_fastdup(folder, work) if method == "fastdup" else by_imagededup(folder, method)
    seconds = {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(cpu_seconds() - used, 1),
    }
    pairs = sorted({tuple(sorted((names[one], names[other]))) for one, other in found})
    print(json.dumps({"what": method, **seconds, "pairs": pairs}))


def cpu_seconds() -> float:
    """Of this process and its children."""
    return sum(os.times()[:4])


def by_imagededup(folder: Path, method: str) -> list[tuple[str, str]]:
    """Pairs of names, at the method's own threshold."""
    found: dict[str, list[str]] = finder(method).find_duplicates(image_dir=str(folder))
    return [(one, other) for one, others in found.items() for other in others]


def by_fastdup(folder: Path, work: Path) -> list[tuple[str, str]]:
    """Pairs of names at least as alike as fastdup's components of duplicates are."""
    import fastdup  # type: ignore[import-not-found,unused-ignore]

    run = fastdup.create(input_dir=str(folder), work_dir=str(work / "fastdup"))
    run.run(ccthreshold=FASTDUP_MIN, overwrite=True, num_threads=1)
    table = run.similarity()
    alike = table[table["distance"] >= FASTDUP_MIN]
    names = (alike["filename_from"], alike["filename_to"])
    return [(Path(one).name, Path(other).name) for one, other in zip(*names, strict=True)]


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
