"""The pairs of a list, in folds: accuracy as papers on LFW report it.

The threshold of each fold is the best of the other folds (Huang et al. 2007, LFW, "view 2"). A pair
of which a picture has no face counts as wrong, whatever it shows.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.evaluation.curves import FMRS, Curve, carried, curve_of
from retrieval.evaluation.pairs import BINS, bins_of
from retrieval.evaluation.resampling import (
    REPLICATES,
    Doubles,
    Measure,
    draws,
    measured,
)
from retrieval.store.labelled import Labelled

_HEAD: Final = re.compile(r"(\d+)(?:\s+(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPair:
    """Two pictures, named by their file names without the ending."""

    one: str
    other: str
    same: bool
    fold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedReport:
    """What a list of pairs gave; intervals from draws of persons."""

    pairs: int
    unscored: int  # pairs of which a picture has no face here: counted as wrong
    accuracy: Measure  # mean over folds
    accuracy_error: float | None  # standard error of that mean; None: one fold
    folds: tuple[float, ...]  # accuracy of each
    thresholds: tuple[float, ...]
    auc: Measure
    tar_at: Mapping[float, Measure]  # by FMR, those that the list carries
    curve: Curve


def read_pairs(path: Path) -> list[ListedPair]:
    """Read a list in LFW's format.

    The first line says how many folds and how many pairs of each kind a fold has (`10 300`), or of
    one fold only the latter. A line `NAME I J` is a genuine pair, `NAME I NAME J` an impostor pair;
    `NAME I` is the picture NAME/NAME_000I.

    Raises:
        UsageError: a line cannot be read (it is named by its number), or lines are missing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(f"{path} cannot be read as text") from cause
    head = _HEAD.fullmatch(lines[0].strip()) if lines else None
    if head is None:
        raise UsageError(f"{path} does not begin with a line such as `10 300`: folds and pairs")
    folds, each = (int(head[1]), int(head[2])) if head[2] else (1, int(head[1]))
    body = [(number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if not each or len(body) != folds * each * 2:
        raise UsageError(
            f"{path} has {len(body)} pairs; its first line promises {folds} folds of {each} genuine"
            f" and {each} impostor pairs"
        )
    return [
        _pair(path, number, line.split(), fold=place // (2 * each))
        for place, (number, line) in enumerate(body)
    ]


def verify_listed(
    labelled: Labelled,
    pairs: Sequence[ListedPair],
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> ListedReport:
    """Score the pairs of a list among the faces of a collection.

    Raises:
        UsageError: no picture of the list has a face here, or two have the same name.
    """
    rows = _rows(labelled, {name for pair in pairs for name in (pair.one, pair.other)})
    found = np.array([(rows.get(p.one, -1), rows.get(p.other, -1)) for p in pairs])
    scored = (found >= 0).all(axis=1)
    same = np.array([pair.same for pair in pairs])
    folds = np.array([pair.fold for pair in pairs])
    if not (scored & same).any() or not (scored & ~same).any():
        raise UsageError(
            "none of the listed pairs has faces here: is it the list of these pictures, and do"
            " their files have the names that it gives (NAME_0001)?"
        )
    similarities = np.full(len(pairs), np.nan)
    one, other = labelled.vectors[found[scored, 0]], labelled.vectors[found[scored, 1]]
    similarities[scored] = np.einsum("nd,nd->n", one, other, dtype=np.float64)
    right, thresholds = _judged(similarities, same, folds)
    of_folds = np.array([right[folds == fold].mean() for fold in np.unique(folds)])
    bins, between = bins_of(similarities[scored]), _persons(labelled, found[scored])
    curve = curve_of(*_histograms(bins, same[scored], np.ones(len(bins))))
    asked = carried(FMRS, int((scored & ~same).sum()))
    drawn = []
    for weights in draws(int(between.max()) + 1, seed=seed, count=replicates):
        counted = _weights(weights, between, same[scored])
        one_curve = curve_of(*_histograms(bins, same[scored], counted))
        accuracy = np.average(right[scored], weights=counted) * scored.mean()
        drawn.append([accuracy, one_curve.auc, *map(one_curve.tar_at, asked)])
    figures: Doubles = np.array(drawn)
    return ListedReport(
        pairs=len(pairs),
        unscored=int((~scored).sum()),
        accuracy=measured(of_folds.mean(), figures[:, 0]),
        accuracy_error=_standard_error(of_folds),
        folds=tuple(of_folds.tolist()),
        thresholds=thresholds,
        auc=measured(curve.auc, figures[:, 1]),
        tar_at={
            fmr: measured(curve.tar_at(fmr), figures[:, 2 + place])
            for place, fmr in enumerate(asked)
        },
        curve=curve,
    )


def best_threshold(similarities: Doubles, same: npt.NDArray[np.bool_]) -> float:
    """The threshold that judges most pairs rightly, in the middle of its gap.

    >>> best_threshold(np.array([0.9, 0.5, 0.3, 0.1]), np.array([True, True, False, False]))
    0.4
    """
    order = np.argsort(-similarities)
    ranked, genuine = similarities[order], same[order]
    # Entry k: the first k are called genuine.
    right = np.concatenate([[0], np.cumsum(np.where(genuine, 1, -1))])
    edges = np.concatenate([[np.inf], ranked, [-np.inf]])
    right = np.where(edges[:-1] > edges[1:], right, -len(same) - 1)  # equal ones go together
    best = int(np.argmax(right))
    if best in (0, len(ranked)):
        return float(ranked[0] + 1e-6 if best == 0 else ranked[-1])
    return float(ranked[best - 1] + ranked[best]) / 2


def _judged(
    similarities: Doubles, same: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], tuple[float, ...]]:
    """Which pairs are judged rightly, and the threshold of each fold."""
    scored = ~np.isnan(similarities)
    right = np.zeros(len(same), np.bool_)
    thresholds = []
    numbers = np.unique(folds)
    for fold in numbers:
        inside = folds == fold
        others = scored & (~inside if len(numbers) > 1 else inside)
        threshold = best_threshold(similarities[others], same[others])
        called = similarities >= threshold  # False for NaN, and `scored` decides
        right |= inside & scored & (called == same)
        thresholds.append(threshold)
    return right, tuple(thresholds)


def _histograms(
    bins: npt.NDArray[np.int32], same: npt.NDArray[np.bool_], weights: Doubles
) -> Iterator[Doubles]:
    for kind in (same, ~same):
        yield np.bincount(bins[kind], weights[kind], minlength=BINS).astype(np.float64)


def _weights(
    drawn: Doubles, between: npt.NDArray[np.int64], same: npt.NDArray[np.bool_]
) -> Doubles:
    """How often each pair stands in a draw of persons."""
    one, other = drawn[between[:, 0]], drawn[between[:, 1]]
    return np.where(same, one, one * other)


def _persons(labelled: Labelled, found: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The persons of each pair, numbered from 0, (m, 2)."""
    flat = np.unique(labelled.persons[found.ravel()], return_inverse=True)[1]
    return flat.reshape(found.shape)


def _rows(labelled: Labelled, wanted: AbstractSet[str]) -> dict[str, int]:
    """The row of each wanted picture, by its file name without the ending."""
    rows: dict[str, int] = {}
    for row, image in enumerate(labelled.images):
        name = None if image is None else PurePosixPath(image.rpartition("!")[2]).stem
        if name is None or name not in wanted:
            continue
        if name in rows:
            raise UsageError(
                "two pictures have the same file name, which the list names: choose with --where,"
                " or put one of them into another collection"
            )
        rows[name] = row
    return rows


def _standard_error(folds: Doubles) -> float | None:
    return float(folds.std(ddof=1) / np.sqrt(len(folds))) if len(folds) > 1 else None


def _pair(path: Path, number: int, words: list[str], *, fold: int) -> ListedPair:
    match words:
        case [name, one, other] if one.isdecimal() and other.isdecimal():
            return ListedPair(one=_file(name, one), other=_file(name, other), same=True, fold=fold)
        case [name, one, name_2, other] if one.isdecimal() and other.isdecimal():
            return ListedPair(
                one=_file(name, one), other=_file(name_2, other), same=False, fold=fold
            )
        case _:
            # The line itself is left out: it holds names of people.
            raise UsageError(f"{path}, line {number}: neither `NAME I J` nor `NAME I NAME J`")


def _file(name: str, number: str) -> str:
    return f"{name}_{int(number):04d}"
