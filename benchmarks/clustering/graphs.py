"""The nearest faces of every face, as pairs that are told once, kept on disk."""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.graph import making
from retrieval.graph.edges import edges_of
from retrieval.graph.gathering import Gathered
from retrieval.index.exact import Rows, scales_of
from retrieval.values import Floats, HalfRows, unit_rows

COUNT: Final = 80
RECALL: Final = 0.95
FLOOR: Final = 0.2  # a little below where one of 1,000 strangers is, at any noise
EXACT_ROWS_MAX: Final = 20_000
BLOCK_ROWS: Final = 2_048


class Pairs(NamedTuple):
    """Pairs of rows, each told once, most alike first (equals by row)."""

    ones: npt.NDArray[np.int32]  # (m,) the lesser row of each
    others: npt.NDArray[np.int32]  # (m,)
    similarities: Floats  # (m,)

    def above(self, threshold: float) -> "Pairs":
        """The pairs at least so alike."""
        count = int(np.searchsorted(-self.similarities, -threshold, side="right"))
        return Pairs(*(each[:count] for each in self))


def pairs_of(
    vectors: HalfRows,
    folder: Path,
    *,
    count: int = COUNT,
    recall: float = RECALL,
    floor: float = FLOOR,
) -> Pairs:
    """The graph of rows, made in a folder where it is not there yet."""
    names = ("ones", "others", "similarities")
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name, each in zip(names, _made(vectors, count, recall, floor), strict=True):
            np.save(folder / f"{name}.npy", each)
        (folder / "done").touch()
    return Pairs(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


def _made(vectors: HalfRows, count: int, recall: float, floor: float) -> Pairs:
    rows = np.ascontiguousarray(vectors)
    if len(rows) <= EXACT_ROWS_MAX:
        return told_once(*_exact(rows, count, floor))
    gathered = Gathered(Rows(np.arange(len(rows)), scales_of(rows), rows), np.arange(len(rows)))
    # What `making.plan` does with the rows of an index, of which there is none here.
    planned = making._measured(
        gathered, count=count, kept=int(making.SPARE * count), recall=recall, floor=floor
    )
    blocks = [edges_of(block) for block in making.made(planned, folder=None, progress=_silent)]
    return told_once(*map(np.concatenate, zip(*blocks, strict=True)))


def _exact(
    rows: HalfRows, count: int, floor: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """The nearest of each row by products with all rows."""
    unit = unit_rows(rows)
    found = []
    for begin in range(0, len(unit), BLOCK_ROWS):
        scores = unit[begin : begin + BLOCK_ROWS] @ unit.T
        mine = np.arange(begin, begin + len(scores))
        scores[np.arange(len(scores)), mine] = -2
        near = np.argpartition(-scores, min(count, len(unit) - 1) - 1, axis=1)[:, :count]
        values = np.take_along_axis(scores, near, axis=1)
        told = values >= floor
        found.append((np.repeat(mine, told.sum(axis=1)), near[told], values[told]))
    faces, neighbours, similarities = map(np.concatenate, zip(*found, strict=True))
    return faces, neighbours, similarities


def told_once(
    faces: npt.NDArray[np.int64], neighbours: npt.NDArray[np.int64], similarities: Floats
) -> Pairs:
    """Each pair of a graph once, most alike first."""
    ones, others = np.minimum(faces, neighbours), np.maximum(faces, neighbours)
    keys, first = np.unique(ones << 32 | others, return_index=True)
    kept = similarities[first]
    order = np.argsort(-kept, kind="stable")
    keys = keys[order]
    return Pairs((keys >> 32).astype(np.int32), (keys & 0xFFFFFFFF).astype(np.int32), kept[order])


def _silent(_done: int, _all: int) -> None:
    """Print nothing."""
