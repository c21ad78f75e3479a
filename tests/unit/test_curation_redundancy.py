"""Which frames of a track are kept: laws of the choice, and planted tracks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.tracks import FRAMES, KINDS, figures, planted_faces
from retrieval.curation import redundancy
from retrieval.curation.redundancy import (
    POSE,
    VECTOR,
    Frames,
    bounds_of,
    covered,
    steps_of,
)
from retrieval.values import Floats, unit_rows


def vectors(rows: int, *, seed: int, modes: int, noise: float) -> Floats:
    """Rows that lie around some directions in turn, (rows, 64)."""
    random = np.random.default_rng(seed)
    centres = unit_rows(random.standard_normal((modes, 64)))
    away = random.standard_normal((rows, 64)) / 8
    return np.array(unit_rows(centres[np.arange(rows) % modes] + noise * away))


def poses(rows: int, *, seed: int) -> Floats:
    """Turned in any way, some unknown."""
    made = np.random.default_rng(seed).uniform(-40, 40, (rows, 3)).astype(np.float32)
    made[::9] = np.nan
    return made


def ratio(frames: Frames, bounds: dict[redundancy.Way, float], one: int, other: int) -> float:
    """The largest distance in units of its bound."""
    found = [
        np.linalg.norm(rows[one].astype(float) - rows[other].astype(float)) / bounds[way]
        for way, rows in frames.ways.items()
    ]
    return float(np.nanmax(found))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 90),
    modes=st.integers(1, 12),
    near=st.floats(0.05, 1.4),
    turned=st.floats(1, 60),
    together=st.integers(1, 100),
)
def test_what_goes_is_near_a_better_one_that_stays_and_those_that_stay_are_apart(
    seed: int, rows: int, modes: int, near: float, turned: float, together: int
) -> None:
    frames = Frames(
        ways={
            VECTOR: vectors(rows, seed=seed, modes=modes, noise=0.2),
            POSE: poses(rows, seed=seed),
        }
    )
    bounds = {VECTOR: near, POSE: turned}
    order = np.random.default_rng(seed).permutation(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redundancy, "TOGETHER", together)
        found = covered(frames, order, bounds)
    places = np.argsort(order)
    kept = np.flatnonzero(found.kept).tolist()
    assert kept
    for row, keeper in enumerate(found.by.tolist()):
        assert keeper in kept
        assert places[keeper] <= places[row]
        assert row == keeper or ratio(frames, bounds, row, keeper) <= 1 + 1e-6
    for row in kept:
        assert all(ratio(frames, bounds, row, other) > 1 - 1e-6 for other in kept if other != row)


def test_of_planted_tracks_an_eighth_is_kept_with_every_mode_of_everybody() -> None:
    planted = planted_faces(60, seed=3)
    frames = Frames(ways={VECTOR: planted.vectors, POSE: planted.pose})
    bounds = bounds_of(frames, steps_of(planted.tracks, seed=0))
    kept = np.zeros(len(planted.tracks), np.bool_)
    for rows in np.split(np.arange(len(kept)), 60):
        order = np.lexsort((rows, -planted.quality[rows]))
        found = covered(frames.some(rows), order, bounds)
        kept[rows] = found.kept
        best = planted.quality[rows]
        assert (best[found.by] >= best).all()
    told = figures(planted.tracks, planted.modes, kept)
    assert told["kept"] <= 0.12
    assert told["modes_kept"] >= 0.99
    assert told["tracks_kept"] == told["tracks"] == 60
    assert told["modes"] == 60 * len(KINDS)
    assert told["frames"] == told["modes"] * FRAMES


def bound(rows: Floats, tracks: list[int]) -> float:
    steps = steps_of(np.array(tracks), seed=1)
    return bounds_of(Frames(ways={VECTOR: rows}), steps)[VECTOR]


def test_the_bound_lies_between_noise_and_modes() -> None:
    rows = np.repeat(vectors(40, seed=1, modes=40, noise=0.0), 10, axis=0)
    random = np.random.default_rng(2)
    for noise in (0.02, 0.05, 0.1):
        noisy = rows + noise * random.standard_normal(rows.shape).astype(np.float32) / 8
        found = bound(noisy, [row // 100 for row in range(400)])
        assert 2 * noise < found < 0.447 + 1e-9


def test_a_still_track_makes_one_heap_and_its_noise_is_within_the_bound() -> None:
    rows = vectors(300, seed=4, modes=1, noise=0.05)
    found = bound(rows, [row // 100 for row in range(300)])
    steps = np.linalg.norm(rows[1:] - rows[:-1], axis=1)
    assert np.quantile(steps, 0.99) < found < 2 * np.median(steps)


def test_an_album_without_near_copies_keeps_everything() -> None:
    rows = vectors(300, seed=5, modes=3, noise=0.7)
    found = bound(rows, [row % 3 for row in np.argsort(np.arange(300) % 3, kind="stable")])
    assert found == VECTOR.farthest
    kept = covered(Frames(ways={VECTOR: rows}), np.arange(300), {VECTOR: found}).kept
    assert kept.all()


def test_too_few_frames_say_nothing_and_only_equal_ones_go() -> None:
    rows = vectors(4, seed=6, modes=4, noise=0.0)
    rows[2] = rows[1]
    found = bound(rows, [0, 0, 0, 0])
    assert found == VECTOR.nearest
    order = np.array([3, 2, 1, 0])
    assert covered(Frames(ways={VECTOR: rows}), order, {VECTOR: found}).by.tolist() == [0, 2, 2, 3]


def test_frames_that_differ_in_pose_alone_stay() -> None:
    rows = vectors(20, seed=7, modes=1, noise=0.01)
    turned = np.zeros((20, 3), np.float32)
    turned[10:, 0] = 30.0
    turned[19] = np.nan  # unknown: nothing tells it apart
    frames = Frames(ways={VECTOR: rows, POSE: turned})
    found = covered(frames, np.arange(20), {VECTOR: 0.3, POSE: 10.0})
    assert np.flatnonzero(found.kept).tolist() == [0, 10]
    assert np.isnan(found.distances[POSE][19])


def test_no_frames_are_none() -> None:
    assert steps_of(np.empty(0, np.int64), seed=0).successive[0].tolist() == []
    frames = Frames(ways={VECTOR: np.empty((0, 64), np.float32)})
    bounds = bounds_of(frames, steps_of(np.empty(0, np.int64), seed=0))
    assert covered(frames, np.empty(0, np.int64), bounds).by.tolist() == []
