"""Writing the files of a snapshot from faces that lie in memory or are mapped.

Rows are grouped into lists, coded, and measured; vectors and codes go to the disk block by block.
Who the faces belong to and when they were read is the caller's: this writes all but the manifest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval.fields import Fields
from retrieval.filters.column import Column
from retrieval.filters.columns import Columns
from retrieval.index.codes import Frame, encoded, frame_of, words_of
from retrieval.index.exact import BLOCK_ROWS, PADDING, Numbers, scales_of
from retrieval.index.fitting import fitted_rule
from retrieval.index.lists import (
    SAMPLE_PER_LIST,
    SEED,
    Lists,
    list_count,
    nearest_centroids,
    offsets_of,
    trained_centroids,
)
from retrieval.index.rule import Measured
from retrieval.index.snapshot import (
    COLUMNS,
    Coding,
    FileStamp,
    mapped_codes,
    mapped_rows,
    stamped,
    write_array,
)
from retrieval.index.trials import Fitted
from retrieval.values import FaceIds, Floats, HalfRows, UnitRows

GROWTH_MAX: Final = 2  # of the rows, up or down, before lists are trained and measured anew
FRAME_SAMPLE: Final = 65_536  # vectors that the mean is taken over, where lists need no training


@dataclass(frozen=True, slots=True)
class Faces:
    """What goes into a snapshot, in any order."""

    ids: FaceIds  # (n,) each once
    vectors: HalfRows  # (n, d)
    table: pa.Table  # (n rows) one column for each field
    fields: Fields


@dataclass(frozen=True, slots=True)
class Made:
    """What a manifest says of the files."""

    padded_rows: int
    lists: int
    measured: Measured
    files: tuple[FileStamp, ...]


def make(
    folder: Path,
    faces: Faces,
    *,
    like: Coding | None = None,
    asked: Callable[[], UnitRows | None] = lambda: None,
    count_lists: Callable[[int], int] = list_count,
) -> Made:
    """Write every file of a snapshot but the manifest into a folder that has the one of columns.

    Args:
        folder: where to write.
        faces: what to write, in any order.
        like: coding of an earlier snapshot, whose centroids, frame and rule are taken over: the
            work of training and measuring is saved. None: all are made anew.
        asked: gives vectors like questions, where these are unlike faces; they are measured with,
            too. Called where there are several lists: nothing else is left to a measured rule.
        count_lists: how many lists a number of rows gets.
    """
    if like is None:
        lists = count_lists(len(faces.ids))
        sample = _sample(faces.vectors, max(lists * SAMPLE_PER_LIST, FRAME_SAMPLE))
        centroids, frame = _centroids(faces, sample, lists), frame_of(sample, seed=SEED)
    else:
        centroids, frame = like.lists.centroids, like.frame
    sizes, sources = _arranged(faces, centroids)
    parts = _written(folder, faces, sources, frame, centroids, sizes)
    if like is None:
        rule = fitted_rule(parts, asked=asked() if len(sizes) > 1 else None)
    else:
        rule = like.rule
    write_array(folder / "chances.npy", rule.chances)
    written = [*folder.glob("*.npy"), *_columns(faces, sources).save(folder / COLUMNS)]
    return Made(len(sources), len(sizes), rule.measured, stamped(folder, written))


def worth_keeping(coding: Coding, *, rows: int) -> bool:
    """Whether centroids and rule still suit a number of rows."""
    measured = coding.rule.measured.rows
    return measured <= GROWTH_MAX * rows and rows <= GROWTH_MAX * measured


def _written(
    folder: Path,
    faces: Faces,
    sources: Numbers,
    frame: Frame,
    centroids: Floats,
    sizes: npt.NDArray[np.int64],
) -> Fitted:
    """Write rows, lists and codes, and map what fitting needs of them."""
    ids = np.where(sources >= 0, faces.ids[sources], PADDING) if len(faces.ids) else sources
    filled = np.flatnonzero(sources >= 0)
    lists = Lists(centroids, sizes, encoded(centroids, np.ones(len(sizes), np.float32), frame))
    for name, array in {
        "ids": ids,
        "order": filled[np.argsort(ids[filled])],
        "centroids": centroids,
        "sizes": sizes,
        "mean": frame.mean,
        "signs": frame.signs,
        "places": frame.places,
        "scales": _write_vectors(folder, faces.vectors, sources, frame),
        "list_codes": lists.codes.words,
        "list_factors": lists.codes.factors,
    }.items():
        write_array(folder / f"{name}.npy", array)
    shape = (len(ids), faces.vectors.shape[1])
    return Fitted(
        rows=mapped_rows(folder, shape),
        frame=frame,
        codes=mapped_codes(folder, "codes.npy", "factors.npy", shape),
        lists=lists,
    )


def _sample(vectors: HalfRows, size: int) -> Floats:
    """Some vectors at unit length, always the same ones."""
    chosen = np.random.default_rng(SEED).choice(
        len(vectors), min(len(vectors), size), replace=False
    )
    sample = vectors[np.sort(chosen)]
    scales = scales_of(sample)
    usable = scales > 0
    return sample[usable].astype(np.float32) * scales[usable, None]


def _centroids(faces: Faces, sample: Floats, lists: int) -> Floats:
    if lists > 1 and len(sample) >= lists:
        return trained_centroids(sample, lists=lists)
    return np.zeros((1, faces.vectors.shape[1]), np.float32)


def _arranged(faces: Faces, centroids: Floats) -> tuple[npt.NDArray[np.int64], Numbers]:
    """Sizes of lists, and for each row of the snapshot its face, -1 for padding."""
    rows = len(faces.ids)
    numbers = np.zeros(rows, np.int32)
    if len(centroids) > 1:
        numbers = nearest_centroids(faces.vectors, centroids)
    sizes = np.bincount(numbers, minlength=len(centroids))
    offsets = offsets_of(sizes)
    order = np.lexsort((faces.ids, numbers))
    shift = (offsets[:-1] - (np.cumsum(sizes) - sizes))[numbers[order]]
    sources = np.full(offsets[-1], -1)
    sources[np.arange(rows) + shift] = order
    return sizes, sources


def _write_vectors(folder: Path, vectors: HalfRows, sources: Numbers, frame: Frame) -> Floats:
    """Write vectors and codes in the snapshot's order, and give the scales."""
    rows, dimension = len(sources), vectors.shape[1]
    scales = np.zeros(rows, np.float32)
    with (
        _array_file(folder / "vectors.npy", "<f2", (rows, dimension)) as vector_file,
        _array_file(folder / "codes.npy", "<u8", (rows * words_of(dimension),)) as code_file,
        _array_file(folder / "factors.npy", "<u2", (rows * 2,)) as factor_file,
    ):
        for begin in range(0, rows, BLOCK_ROWS):
            places = sources[begin : begin + BLOCK_ROWS]
            block = vectors[places]
            block[places < 0] = 0
            part = scales[begin : begin + BLOCK_ROWS]
            part[:] = scales_of(block)
            codes = encoded(block, part, frame)
            vector_file.write(block.tobytes())
            code_file.write(codes.words.tobytes())
            factor_file.write(codes.factors.tobytes())
    return scales


def _array_file(path: Path, dtype: str, shape: tuple[int, ...]) -> BinaryIO:
    """A .npy file of this shape, open for its content."""
    file = path.open("wb")
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _columns(faces: Faces, sources: Numbers) -> Columns:
    """The fields in the snapshot's order, NULL in padding; one at a time, or they fill memory."""
    places = pa.array(sources, mask=sources < 0)
    columns: dict[str, Column] = {}
    for name, kind in faces.fields.items():
        taken = faces.table.select([name]).take(places)
        columns.update(Columns.from_arrow(taken, {name: kind}).by_name)
    return Columns(rows=len(sources), fields=faces.fields, by_name=columns)
