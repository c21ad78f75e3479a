"""The arithmetic of `benchmarks.quality` against oracles, on made-up numbers."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from benchmarks.degraded import GRID, ROW, degraded
from benchmarks.quality import (
    FMR,
    Faces,
    _kept,
    _logistic,
    auc,
    compared_with,
    interval,
    threshold_of,
)
from retrieval.values import Box

RANDOM = np.random.default_rng(3)


def test_auc_is_the_statistic_of_mann_and_whitney_with_ties() -> None:
    score = RANDOM.integers(0, 20, 300).astype(float)
    missed = RANDOM.random(300) < 0.4
    oracle = mannwhitneyu(score[~missed], score[missed]).statistic / (
        missed.sum() * (~missed).sum()
    )
    assert auc(score, missed, np.ones(300)) == pytest.approx(oracle)


def test_a_weight_counts_like_repeated_rows() -> None:
    score, missed = RANDOM.random(50), RANDOM.random(50) < 0.5
    weight = RANDOM.integers(0, 4, 50)
    repeated = np.repeat(np.arange(50), weight)
    oracle = auc(score[repeated], missed[repeated], np.ones(len(repeated)))
    assert auc(score, missed, weight.astype(float)) == pytest.approx(oracle)


def test_at_most_the_asked_share_of_impostors_exceeds_the_threshold() -> None:
    impostor = RANDOM.standard_normal(50_000)
    assert (impostor > threshold_of(impostor)).sum() == 50_000 * FMR


def test_the_interval_of_a_mean_over_people_is_that_of_the_normal_law() -> None:
    persons = np.repeat(np.arange(400), 5)
    values = np.repeat(RANDOM.standard_normal(400), 5)  # five faces tell no more than one
    low, high = interval(persons, lambda w: float((values * w).sum() / w.sum()))
    error = values.std() / np.sqrt(400)
    assert [low, high] == pytest.approx(
        [values.mean() - 1.96 * error, values.mean() + 1.96 * error], abs=0.15 * error
    )


def test_the_fit_finds_the_coefficients_that_made_the_data() -> None:
    truth = np.array([2.0, -1.0, 0.5])
    known = np.column_stack([RANDOM.standard_normal((60_000, 2)), np.ones(60_000)])
    hits = (RANDOM.random(60_000) < 1 / (1 + np.exp(-known @ truth))).astype(float)
    assert _logistic(known, hits) == pytest.approx(truth, abs=0.06)


def test_the_worst_are_dropped_first() -> None:
    quality = np.array([0.9, 0.1, 0.5, 0.3])
    assert _kept(quality, 0.5).tolist() == [2, 0]


def test_probes_are_split_into_their_own_person_and_all_others() -> None:
    rows = np.zeros(5, ROW)
    rows["person"] = [4, 9, 9, 4, 7]  # two enrolled of 9, one of 4; a probe of 4, one of nobody
    unit = np.eye(5)
    unit[3] = [0.6, 0.8, 0, 0, 0]
    faces = Faces(rows=rows, unit=unit, norm=np.ones(5), quality=np.ones(5))
    found = compared_with(faces, np.array([3, 4]), np.array([0, 1, 2]), weight=np.ones(3))
    assert found.probes.tolist() == [3]
    assert found.genuine == pytest.approx([0.6])
    assert found.impostor == pytest.approx([0.8 / np.sqrt(2)])


@pytest.mark.parametrize("kind", list(GRID))
def test_each_level_of_the_grid_is_worse_than_the_one_before(kind: str) -> None:
    pixels = np.asarray(RANDOM.integers(0, 256, (250, 250, 3)), np.uint8)
    pixels[:] = np.linspace(0, 255, 250).astype(np.uint8)[None, :, None] // 2 + pixels // 4
    face = Box(left=80.0, top=70.0, right=170.0, bottom=180.0)
    off = []
    for level in GRID[kind]:
        seen = degraded(pixels, kind=kind, level=level, face=face, seed=1)
        if kind == "down-sampling":
            off.append(-seen.shape[0])
        else:
            off.append(int((seen.astype(int) - pixels.astype(int)).__abs__().sum()))
    assert off == sorted(set(off))
