"""Parts of a data set: laws of groups and shares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.curation.partition import dealt, groups_of, majority, read_parts
from retrieval.errors import UsageError

SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=80),
    st.lists(st.integers(1, 20), min_size=1, max_size=5),
    st.integers(0, 99),
)
def test_no_part_is_further_from_its_share_than_the_largest_group_is_large(sizes, weights, seed):
    shares = {str(place): one / sum(weights) for place, one in enumerate(weights)}
    groups = np.array(sizes)
    parts = dealt(groups, shares, seed=seed)
    faces = np.bincount(parts, weights=groups, minlength=len(shares))
    wanted = np.array(list(shares.values())) * groups.sum()
    assert np.abs(faces - wanted).max() <= groups.max() + 1e-6
    assert parts.tolist() == dealt(groups, shares, seed=seed).tolist()


def test_every_value_gets_the_same_shares_and_so_does_the_whole() -> None:
    random = np.random.default_rng(0)
    sizes = random.geometric(0.1, 4_000)
    values = random.choice(3, 4_000, p=[0.9, 0.08, 0.02])
    parts = dealt(sizes, SHARES, seed=1, values=values)
    for mine in (values >= 0, values == 0, values == 1, values == 2):
        faces = np.bincount(parts[mine], weights=sizes[mine], minlength=3)
        wanted = np.array(list(SHARES.values())) * sizes[mine].sum()
        assert np.abs(faces - wanted).max() <= 2 * sizes.max()


def test_many_rare_values_do_not_all_end_in_the_largest_part() -> None:
    parts = dealt(np.ones(1_000, np.int64), SHARES, seed=0, values=np.arange(1_000))
    assert np.bincount(parts).tolist() == [700, 200, 100]


def test_parts_have_large_and_small_groups_alike() -> None:
    sizes = np.random.default_rng(0).geometric(0.05, 5_000)
    parts = dealt(sizes, SHARES, seed=3)
    means = np.array([sizes[parts == one].mean() for one in range(3)])
    assert np.abs(means / sizes.mean() - 1).max() < 0.1


def test_another_seed_deals_otherwise() -> None:
    sizes = np.ones(100, np.int64)
    assert (dealt(sizes, SHARES, seed=0) != dealt(sizes, SHARES, seed=1)).any()


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12))
def test_groups_are_what_a_walk_along_the_pairs_reaches(size, pairs):
    pairs = [(one % size, other % size) for one, other in pairs]
    found = groups_of(size, np.array(pairs, np.int64).reshape(-1, 2))
    reached = np.eye(size, dtype=bool)
    for one, other in pairs:
        reached[one, other] = reached[other, one] = True
    for _ in range(size):
        reached = reached @ reached
    assert ((found[:, None] == found) == reached).all()
    assert found[0] == 0


def test_the_majority_is_the_most_frequent_value() -> None:
    groups, values = np.array([1, 0, 1, 1, 0]), np.array([4, 9, 4, 2, 9])
    assert majority(groups, values).tolist() == [9, 4]


@pytest.mark.parametrize(
    "written", ["", "train", "train=.5", "a=.5,a=.5", "a=x,b=1", "a=0,b=1", "a=-1,b=2", "a b=1"]
)
def test_what_is_no_list_of_shares_is_refused(written: str) -> None:
    with pytest.raises(UsageError):
        read_parts(written)
