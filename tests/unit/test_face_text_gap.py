"""The modality gap: what is planted between faces and sentences is taken away again."""

from statistics import fmean

import numpy as np
import numpy.typing as npt
import pytest

from retrieval.errors import UnusableVectorError
from retrieval.models.face_text.gap import Gap, corrected, learned, no_gap
from retrieval.values import UnitRows, unit_rows

DIMENSION, SAMPLE, GALLERY = 256, 2_000, 1_000
GALLERIES = range(10, 18)  # one alone has an error of a point


def pairs(count: int, *, seed: int) -> tuple[UnitRows, UnitRows]:
    """Faces and the sentences about them: what both tell, and as much noise of each."""
    random = np.random.default_rng(seed)
    told = random.normal(size=(count, DIMENSION))
    noise = 2.4
    faces, texts = (told + noise * random.normal(size=told.shape) for _ in range(2))
    return unit_rows(faces), unit_rows(texts)


def r_at_10(faces: UnitRows, texts: UnitRows) -> float:
    """Share of sentences whose own face is among the ten nearest."""
    scores: npt.NDArray[np.float32] = texts @ faces.T
    own = scores[np.arange(len(scores)), np.arange(len(scores))]
    better = (scores > own[:, None]).sum(axis=1)
    return float((better < 10).mean())


def moved(rows: UnitRows, by: npt.NDArray[np.float64]) -> UnitRows:
    return unit_rows(rows + by)


def planted(length: float, *, seed: int) -> npt.NDArray[np.float64]:
    direction = np.random.default_rng(seed).normal(size=DIMENSION)
    return length * direction / np.linalg.norm(direction)


@pytest.mark.parametrize("length", [0.5, 1.0, 3.0])
def test_a_planted_constant_offset_costs_less_than_one_point_of_recall(length: float) -> None:
    # One offset for each kind, partly the same: then even the order of answers suffers.
    both = planted(length, seed=3)
    offsets = (both + planted(length, seed=4), both + planted(length, seed=5))
    gap = learned(
        *(moved(rows, by) for rows, by in zip(pairs(SAMPLE, seed=1), offsets, strict=True))
    )
    without, apart, again = [], [], []
    for seed in GALLERIES:
        gallery = pairs(GALLERY, seed=seed)
        faces, texts = (moved(rows, by) for rows, by in zip(gallery, offsets, strict=True))
        without.append(r_at_10(*gallery))
        apart.append(r_at_10(faces, texts))
        again.append(r_at_10(corrected(faces, gap.faces), corrected(texts, gap.texts)))
    assert 0.3 < fmean(without) < 0.9
    assert fmean(apart) < fmean(without) - 0.1  # it did harm
    assert fmean(again) == pytest.approx(fmean(without), abs=0.01)


def test_where_no_offset_was_planted_the_correction_changes_less_than_one_point() -> None:
    faces, texts = pairs(GALLERY, seed=2)
    gap = learned(*pairs(SAMPLE, seed=1))
    assert r_at_10(corrected(faces, gap.faces), corrected(texts, gap.texts)) == pytest.approx(
        r_at_10(faces, texts), abs=0.01
    )


def test_the_means_of_corrected_samples_are_near_zero() -> None:
    faces, texts = (moved(rows, planted(2.0, seed=6)) for rows in pairs(SAMPLE, seed=1))
    gap = learned(faces, texts)
    np.testing.assert_allclose(gap.faces, faces.mean(axis=0), atol=1e-6)
    for rows, mean in ((faces, gap.faces), (texts, gap.texts)):
        middle = np.linalg.norm(corrected(rows, mean).mean(axis=0))
        assert middle < 0.05 * np.linalg.norm(rows.mean(axis=0))


def test_without_a_gap_nothing_changes() -> None:
    faces, _ = pairs(10, seed=1)
    gap: Gap = no_gap(DIMENSION)
    np.testing.assert_allclose(corrected(faces, gap.faces), faces, atol=1e-7)


def test_no_faces_stay_no_faces() -> None:
    empty = UnitRows(np.empty((0, DIMENSION), np.float32))
    assert corrected(empty, no_gap(DIMENSION).faces).shape == (0, DIMENSION)


def test_nothing_is_learned_from_nothing() -> None:
    faces, texts = pairs(10, seed=1)
    with pytest.raises(UnusableVectorError, match="at least one"):
        learned(faces, UnitRows(texts[:0]))
