"""Grouping: people are found, and what was said of them is never broken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.clusters.grouping import Constraints, Pairs, group
from retrieval.errors import UsageError
from retrieval.evaluation.clustering import figures
from retrieval.people.calibration import Calibration, Tail

DIMENSION = 126


def calibration() -> Calibration:
    """What is known of strangers that point anywhere in so many dimensions."""
    random = np.random.default_rng(0)
    ones, others = (random.standard_normal((400_000, DIMENSION)) for _ in range(2))
    lengths = np.linalg.norm(ones, axis=1) * np.linalg.norm(others, axis=1)
    similarities = np.sort(np.einsum("ij,ij->i", ones, others) / lengths)
    counts = np.unique(np.geomspace(20, len(ones) / 2, 60).astype(int))[::-1]
    rates = counts / len(ones)
    tail = Tail(
        similarities=similarities[-counts],
        rates=rates,
        lows=rates,
        highs=rates,
        trials=len(ones),
        size=1,
    )
    return Calibration(space="made up", model_sha256=None, data="", comparisons=tail, searches=tail)


@pytest.fixture(scope="module")
def strangers() -> Calibration:
    return calibration()


def crowd(persons: int, faces: int, *, noise: float, seed: int = 1):
    """Vectors, their persons, and all pairs."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((persons, DIMENSION))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    owners = random.permutation(np.repeat(np.arange(persons), faces))
    spread = noise / np.sqrt(DIMENSION)
    vectors = centres[owners] + spread * random.standard_normal((len(owners), DIMENSION))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return vectors, owners


def all_pairs(vectors, *, above: float = 0.15) -> Pairs:
    scores = np.triu(vectors @ vectors.T, 1)
    ones, others = np.nonzero(scores > above)
    return Pairs(ones.astype(np.int32), others.astype(np.int32), scores[ones, others])


def unknown(vectors):
    return np.full(len(vectors), np.nan)


def test_people_of_many_noisy_faces_are_found_where_components_of_any_threshold_fail(strangers):
    vectors, owners = crowd(60, 30, noise=1.2)
    pairs = all_pairs(vectors)
    found = group(vectors, unknown(vectors), pairs, calibration=strangers)
    f = figures(owners, found.groups).bcubed_f
    assert f >= 0.97
    assert f > max(figures(owners, components(len(vectors), pairs, t)).bcubed_f for t in THRESHOLDS)


THRESHOLDS = np.arange(0.3, 0.7, 0.02)


def components(size, pairs, threshold):
    labels = np.arange(size)
    kept = pairs.similarities >= threshold
    ones, others = pairs.ones[kept], pairs.others[kept]
    while True:
        before = labels.copy()
        np.minimum.at(labels, ones, labels[others])
        np.minimum.at(labels, others, labels[ones])
        if (labels == before).all():
            return labels


def test_strangers_stay_alone(strangers):
    vectors, _ = crowd(600, 1, noise=1.0)
    found = group(vectors, unknown(vectors), all_pairs(vectors), calibration=strangers)
    assert len(np.unique(found.groups)) >= 598
    alone = np.isnan(found.confidence)
    assert (alone == np.isnan(found.similarities)).all()
    assert alone.sum() >= 596


def test_a_group_is_named_by_its_lowest_place_and_similarity_is_to_the_rest_of_the_group(strangers):
    vectors, _ = crowd(20, 6, noise=0.7)
    quality = np.random.default_rng(3).uniform(0.1, 1.0, len(vectors))
    found = group(vectors, quality, all_pairs(vectors), calibration=strangers)
    for name in np.unique(found.groups):
        places = np.flatnonzero(found.groups == name)
        assert name == places[0]
        for place in places[: 2 * (len(places) > 1)]:
            rest = places[places != place]
            template = (vectors[rest] * quality[rest, None]).sum(axis=0)
            template /= np.linalg.norm(template)
            assert found.similarities[place] == pytest.approx(vectors[place] @ template, abs=1e-5)


def test_the_order_of_pairs_does_not_matter(strangers):
    vectors, _ = crowd(30, 8, noise=1.1)
    pairs = all_pairs(vectors)
    order = np.random.default_rng(5).permutation(len(pairs.ones))
    shuffled = Pairs(pairs.ones[order], pairs.others[order], pairs.similarities[order])
    one, two = (
        group(vectors, unknown(vectors), given, calibration=strangers)
        for given in (pairs, shuffled)
    )
    assert (one.groups == two.groups).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 60))
def test_no_constraint_is_ever_broken(strangers, seed, count):
    vectors, _ = crowd(12, 6, noise=1.0, seed=2)
    random = np.random.default_rng(seed)
    owners = np.where(random.random(len(vectors)) < 0.2, random.integers(0, 4, len(vectors)), -1)
    drawn = random.integers(0, len(vectors), (count, 2))
    together, apart = compatible(drawn, owners)
    found = group(
        vectors,
        unknown(vectors),
        all_pairs(vectors),
        calibration=strangers,
        constraints=Constraints(together=together, apart=apart, owners=owners),
    ).groups
    assert (found[together[:, 0]] == found[together[:, 1]]).all()
    assert (found[apart[:, 0]] != found[apart[:, 1]]).all()
    owned = np.flatnonzero(owners >= 0)
    same = owners[owned][:, None] == owners[owned]
    assert ((found[owned][:, None] == found[owned]) == same).all()


def compatible(drawn, owners):
    """Pairs by turns together and apart, those left out that contradict others."""
    labels = np.arange(len(owners))
    for owner in range(4):
        mine = np.flatnonzero(owners == owner)
        labels[mine] = mine.min(initial=len(owners))
    together, apart = [], []
    for number, (one, two) in enumerate(drawn):
        if number % 2 == 0:
            joined = np.where(labels == labels[two], labels[one], labels)
            held = {}
            for place in np.flatnonzero(owners >= 0):
                held.setdefault(joined[place], set()).add(owners[place])
            if all(len(some) == 1 for some in held.values()):
                labels = joined
                together.append((one, two))
        else:
            apart.append((one, two))
    apart = [(one, two) for one, two in apart if labels[one] != labels[two]]
    return (np.array(pairs, np.int64).reshape(-1, 2) for pairs in (together, apart))


def test_what_must_be_together_and_apart_at_once_is_an_error(strangers):
    vectors, _ = crowd(3, 3, noise=0.5)
    pair = np.array([[0, 1]])
    with pytest.raises(UsageError, match="must not"):
        group(
            vectors,
            unknown(vectors),
            all_pairs(vectors),
            calibration=strangers,
            constraints=Constraints(together=pair, apart=pair[:, ::-1]),
        )


def test_doubts_are_pairs_of_groups_that_are_not_one_and_may_be(strangers):
    vectors, owners = crowd(150, 6, noise=1.5)
    wall = np.array([np.flatnonzero(owners == 0)[:2]])
    found = group(
        vectors,
        unknown(vectors),
        all_pairs(vectors),
        calibration=strangers,
        constraints=Constraints(apart=wall),
    )
    doubts = found.doubts
    assert len(doubts.ones) > 0
    assert (found.groups[doubts.ones] != found.groups[doubts.others]).all()
    told = {
        frozenset(pair) for pair in found.groups[np.stack([doubts.ones, doubts.others], 1)].tolist()
    }
    assert len(told) == len(doubts.ones)
    assert frozenset(found.groups[wall[0]].tolist()) not in told  # people decided that already


def test_confidence_is_the_share_that_is_right_or_less(strangers):
    vectors, owners = crowd(150, 12, noise=1.4)
    found = group(vectors, unknown(vectors), all_pairs(vectors), calibration=strangers)
    majority = {name: np.bincount(owners[found.groups == name]).argmax() for name in found.groups}
    right = np.array([majority[name] for name in found.groups]) == owners
    some = ~np.isnan(found.confidence)
    assert right[some].mean() >= found.confidence[some].mean() - 0.01
    sure = some & (found.confidence > 0.99)
    assert right[sure].mean() >= 0.99


def test_nothing_and_one_face_are_grouped(strangers):
    for size in (0, 1):
        vectors = np.eye(DIMENSION, dtype=np.float32)[:size]
        found = group(vectors, unknown(vectors), all_pairs(vectors), calibration=strangers)
        assert found.groups.tolist() == list(range(size))
