"""Ingest against the bare models: how much of the models' rate reaches the store.

The bare models are detector, aligner and embedder in a loop over arrays that were decoded before,
in as many processes, opened by the same function with the same session options, one picture at a
time as ingest does. Both take the same pictures in turns, half by half, in one run.

    python -m benchmarks.ingest_rate ../shared/data/lfw/lfw_deepfunneled.tar.gz --workers 2
"""

import argparse
import json
import multiprocessing
import platform
import tarfile
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from facedex.handle import open_facedex
from retrieval.image import decode
from retrieval.models.choice import ModelChoice, load_models
from retrieval.store import embedded


def bare_loop(paths: list[Path], ready: Barrier) -> None:
    """Find and embed the faces of these pictures; decoding is not counted."""
    reader = load_models(ModelChoice())
    arrays = [decode(path.read_bytes()).pixels for path in paths]
    embed = reader._embedder.embed
    embed(reader.find(arrays[0]).crops)
    ready.wait()
    for pixels in arrays:
        embed(reader.find(pixels).crops)
    ready.wait()


def bare_seconds(paths: list[Path], *, workers: int) -> float:
    """Wall time of the bare models over these pictures."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(workers + 1)
    parts = [paths[number::workers] for number in range(workers)]
    processes = [context.Process(target=bare_loop, args=(part, ready)) for part in parts]
    for process in processes:
        process.start()
    ready.wait()
    begun = time.perf_counter()
    ready.wait()
    seconds = time.perf_counter() - begun
    for process in processes:
        process.join()
    return seconds


def main() -> None:
    """Print one JSON line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("archive", type=Path)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--pictures", type=int, default=None, help="only so many")
    options.add_argument("--turns", type=int, default=2)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        with tarfile.open(chosen.archive) as archive:
            archive.extractall(folder / "pictures", filter="data")
        paths = sorted((folder / "pictures").rglob("*.jpg"))[: chosen.pictures]
        bare, ingest, faces = 0.0, 0.0, 0
        try:
            with open_facedex(home=folder / "home", workers=chosen.workers) as facedex:
                for turn in range(chosen.turns):
                    part = paths[turn :: chosen.turns]
                    bare += bare_seconds(part, workers=chosen.workers)
                    report = facedex.ingest(part)
                    ingest += report.seconds
                    faces += report.faces
        finally:
            embedded.stop(folder / "home")
    print(
        json.dumps(
            {
                "pictures": len(paths),
                "faces": faces,
                "workers": chosen.workers,
                "bare_per_s": round(len(paths) / bare, 1),
                "ingest_per_s": round(len(paths) / ingest, 1),
                "ratio": round(bare / ingest, 3),
                "machine": platform.machine(),
                "python": platform.python_version(),
                "numpy": np.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
