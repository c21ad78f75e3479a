"""Planted differences between groups are found, and none is found where none was planted."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import betainc

from retrieval.errors import UsageError
from retrieval.evaluation.groups import GroupsReport, compare_groups
from retrieval.evaluation.resampling import Measure
from retrieval.store.labelled import Labelled
from retrieval.values import unit_rows

DIMENSION = 24
PERSONS, FACES = 150, 3  # of each group
SEEDS = 100


def chance_above(threshold: float, dimension: int) -> float:
    """How often the cosine of two directions drawn evenly in so many dimensions is above."""
    return float(betainc((dimension - 1) / 2, 0.5, 1 - threshold**2) / 2)


def planted_threshold(ratio: float, *, narrow: int) -> float:
    """Where faces in `narrow` dimensions match falsely so many times as often as others."""
    return float(
        brentq(lambda t: chance_above(t, narrow) / chance_above(t, DIMENSION) - ratio, 0.01, 0.95)
    )


@dataclass(frozen=True)
class Made:
    """How the faces of one group are made."""

    dimension: int  # the directions that its persons use; fewer make them more alike
    noise: float


def faces(random: np.random.Generator, group: Made) -> np.ndarray:
    """FACES noisy faces of each of PERSONS persons, evenly distributed over directions."""
    persons = random.standard_normal((PERSONS, 1, group.dimension))
    own = persons + group.noise * random.standard_normal((PERSONS, FACES, group.dimension))
    padded = np.zeros((PERSONS * FACES, DIMENSION))
    padded[:, : group.dimension] = own.reshape(-1, group.dimension)
    return padded


def labelled(seed: int, groups: tuple[Made, ...]) -> Labelled:
    random = np.random.default_rng(seed)
    count = len(groups) * PERSONS * FACES
    return Labelled(
        vectors=unit_rows(np.concatenate([faces(random, group) for group in groups])),
        faces=np.arange(count),
        persons=np.repeat(np.arange(len(groups) * PERSONS), FACES),
        quality=np.full(count, np.nan),
        images=(None,) * count,
        groups=tuple(
            f"group {place}" for place in range(len(groups)) for _ in range(PERSONS * FACES)
        ),
    )


def covered(truth: float, measure: Measure | None) -> bool:
    """Whether the ratio of group 1 to group 0 lies in the interval."""
    assert measure is not None
    assert measure.low is not None
    assert measure.high is not None
    return measure.low <= truth <= measure.high


def one_to_zero(report: GroupsReport, truth: float, kind: str) -> bool:
    found = getattr(report, f"{kind}_differential")
    assert found is not None
    return covered(truth if found.worst == "group 1" else 1 / truth, found.ratio)


def missed(group: Made, threshold: float) -> float:
    """The chance of a miss, from two million pairs."""
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(20):
        person, one, other = random.standard_normal((3, 100_000, group.dimension))
        a, b = person + group.noise * one, person + group.noise * other
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        wrong += int((cosine < threshold).sum())
    return wrong / 2_000_000


def reports(groups: tuple[Made, ...], threshold: float) -> list[GroupsReport]:
    return [
        compare_groups(labelled(seed, groups), threshold=threshold, seed=seed, replicates=400)
        for seed in range(SEEDS)
    ]


def test_a_planted_difference_lies_in_the_interval_of_the_ratio() -> None:
    """Five times as many false matches, and a planted difference of misses."""
    threshold = planted_threshold(5, narrow=10)
    groups = (Made(DIMENSION, 0.9), Made(10, 0.9))
    misses = missed(groups[1], threshold) / missed(groups[0], threshold)
    found = reports(groups, threshold)
    assert sum(one_to_zero(report, 5, "fmr") for report in found) >= 90
    assert sum(one_to_zero(report, misses, "fnmr") for report in found) >= 90
    # An interval that holds everything would pass too: it must tell 5 from 3 and from 8.
    ratios = [report.fmr_differential.ratio for report in found if report.fmr_differential]
    assert np.median([ratio.low or 0 for ratio in ratios]) > 3
    assert np.median([ratio.high or np.inf for ratio in ratios]) < 8


def test_where_no_difference_was_planted_1_lies_in_the_interval() -> None:
    threshold = planted_threshold(5, narrow=10)
    found = reports((Made(DIMENSION, 0.9), Made(DIMENSION, 0.9)), threshold)
    for kind in ("fmr", "fnmr"):
        assert sum(one_to_zero(report, 1, kind) for report in found) >= 90
        of_groups = [getattr(one, f"{kind}_ratio") for report in found for one in report.groups]
        assert sum(covered(1, one) for one in of_groups) >= 180


def test_the_worst_of_six_equal_groups_is_not_called_worse() -> None:
    threshold = planted_threshold(5, narrow=10)
    found = [
        compare_groups(
            labelled(seed, (Made(DIMENSION, 0.9),) * 6), threshold=threshold, replicates=1000
        )
        for seed in range(20)
    ]
    assert (
        sum(covered(1, one.fmr_differential.ratio) for one in found if one.fmr_differential) >= 18
    )


def test_counts_are_those_of_all_pairs_one_by_one() -> None:
    faces_of = labelled(1, (Made(DIMENSION, 0.9), Made(10, 0.9)))
    report = compare_groups(faces_of, threshold=0.4)
    groups, persons = np.array(faces_of.groups), faces_of.persons
    similar = faces_of.vectors @ faces_of.vectors.T
    ahead = np.triu(np.ones_like(similar, bool), k=1) & (groups[:, None] == groups)
    same = persons[:, None] == persons
    for one in report.groups:
        mine = ahead & (groups == one.name)[:, None]
        assert one.genuine == (mine & same).sum()
        assert one.impostors == (mine & ~same).sum()
        assert abs(one.false_matches - (mine & ~same & (similar >= 0.4)).sum()) <= 1
        assert abs(one.false_non_matches - (mine & same & (similar < 0.4)).sum()) <= 1
        assert one.fmr.value == one.false_matches / one.impostors
    assert report.whole.false_matches == sum(one.false_matches for one in report.groups)


def test_the_threshold_of_an_fmr_keeps_it_over_the_whole() -> None:
    faces_of = labelled(2, (Made(DIMENSION, 0.9), Made(10, 0.9)))
    report = compare_groups(faces_of, fmr=0.01)
    assert 0.0095 < report.whole.fmr.value <= 0.01


def test_a_small_group_is_left_out_with_the_reason_and_none_left_is_an_error() -> None:
    faces_of = labelled(3, (Made(DIMENSION, 0.9), Made(10, 0.9)))
    few = [group if place < 460 else "tiny" for place, group in enumerate(faces_of.groups)]
    few[0] = None  # type: ignore[call-overload]
    mixed = Labelled(
        vectors=faces_of.vectors,
        faces=faces_of.faces,
        persons=faces_of.persons,
        quality=faces_of.quality,
        images=faces_of.images,
        groups=tuple(few[:480] + [None] * (len(few) - 480)),
    )
    report = compare_groups(mixed, threshold=0.4)
    assert [one.name for one in report.groups] == ["group 0"]
    assert len(report.refused) == 2
    assert "group 'tiny' has 7 persons" in report.refused[1]
    assert report.without_group == 1 + len(few) - 480
    assert report.fmr_differential is None
    with pytest.raises(UsageError, match="no group is large enough: group 'group 0' has 150"):
        compare_groups(mixed, threshold=0.4, persons_min=1000)
