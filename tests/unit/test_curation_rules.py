"""Declared rules: what is read, and what becomes of each face."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.curation.rules import (
    KEPT,
    NOTHING,
    Best,
    Bounds,
    Facts,
    Group,
    Measure,
    NoDuplicate,
    Rule,
    Told,
    Where,
    applied,
    read_rules,
)
from retrieval.errors import UsageError

TESTS = st.one_of(
    st.builds(
        Bounds,
        st.sampled_from(list(Measure)),
        st.integers(0, 2).map(float),
        st.integers(2, 4).map(float),
    ),
    st.builds(Best, st.sampled_from(list(Group)), st.integers(1, 3)),
    st.just(NoDuplicate()),
    st.just(Where("quality > 0.5")),
)
RULES = st.lists(st.tuples(TESTS, st.booleans()), max_size=5)


def facts(size: int, seed: int, rules: int) -> Facts:
    """Some faces, of which much is unknown and much is equal."""
    random = np.random.default_rng(seed)
    few = [NOTHING, *range(max(size // 3, 1))]
    values = [np.nan, 0.0, 1.0, 2.0, 3.0]
    return Facts(
        faces=np.arange(size) * 3 + 5,
        images=random.choice(few, size),
        persons=random.choice(few, size),
        tracks=random.choice(few, size),
        measures={one: random.choice(values, size) for one in list(Measure)[:4]},
        duplicate=random.random(size) < 0.3,
        passing={number: random.random(size) < 0.7 for number in range(rules)},
    )


def passes(test, of: Facts, left: list[int], face: int, number: int) -> bool:
    """The same by the words of the guide, face by face."""
    groups = {Group.TRACK: of.tracks, Group.PERSON: of.persons, Group.IMAGE: of.images}
    counted = {Measure.FACES_PER_IMAGE: of.images, Measure.FACES_PER_PERSON: of.persons}
    if isinstance(test, Where):
        return bool(of.passing[number][face])
    if isinstance(test, NoDuplicate):
        return not of.duplicate[face]
    if isinstance(test, Best):
        mine = groups[test.of]
        rank = lambda one: tuple(  # noqa: E731
            -np.inf if np.isnan(of.measures[by][one]) else of.measures[by][one]
            for by in (Measure.QUALITY, Measure.SIZE_PX)
        )
        better = [
            one
            for one in left
            if mine[one] == mine[face] and (rank(one), -one) > (rank(face), -face)
        ]
        return mine[face] == NOTHING or len(better) < test.count
    if test.measure in counted:
        mine = counted[test.measure]
        count = sum(mine[one] == mine[face] for one in left)
        return bool(mine[face] != NOTHING and test.least <= count <= test.most)
    return bool(test.least <= of.measures[test.measure][face] <= test.most)


@given(st.integers(0, 25), st.integers(0, 2**32 - 1), RULES)
def test_each_face_goes_by_the_first_rule_that_it_fails_and_the_counts_add_up(size, seed, listed):
    rules = [
        Rule(name=str(place), test=test, whole_image=whole)
        for place, (test, whole) in enumerate(listed)
    ]
    of = facts(size, seed, len(rules))
    found = applied(rules, of)
    left, fates = list(range(size)), [KEPT] * size
    for number, rule in enumerate(rules):
        gone = {one for one in left if not passes(rule.test, of, left, one, number)}
        if rule.whole_image:
            torn = {of.images[one] for one in gone} - {NOTHING}
            gone |= {one for one in left if of.images[one] in torn}
        for one in gone:
            fates[one] = number
        count = found.counts[number]
        assert (count.came, count.dropped, count.left) == (
            len(left),
            len(gone),
            len(left) - len(gone),
        )
        left = [one for one in left if one not in gone]
    assert found.fates.tolist() == fates
    assert size == found.kept.sum() + sum(one.dropped for one in found.counts)


def test_every_kind_of_rule_is_read() -> None:
    rules = read_rules("""
        [[rule]]
        name = "a"
        where = "quality >= 0.5"
        whole_image = true
        [[rule]]
        name = "b"
        captions = "man or woman"
        [[rule]]
        name = "c"
        faces_per_image = 1
        [[rule]]
        name = "d"
        faces_per_image = {max = 3}
        [[rule]]
        name = "e"
        image_side_px = {min = 512, max = 4096}
        [[rule]]
        name = "f"
        duplicates = false
        [[rule]]
        name = "g"
        best_per_track = 1
    """)
    assert [(rule.name, rule.test, rule.whole_image) for rule in rules] == [
        ("a", Where("quality >= 0.5"), True),
        ("b", Told("man or woman"), False),
        ("c", Bounds(Measure.FACES_PER_IMAGE, 1, 1), False),
        ("d", Bounds(Measure.FACES_PER_IMAGE, -np.inf, 3), False),
        ("e", Bounds(Measure.IMAGE_SIDE_PX, 512, 4096), False),
        ("f", NoDuplicate(), False),
        ("g", Best(Group.TRACK, 1), False),
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("x", "no TOML"),
        ("", "there is no rule"),
        ("[[rules]]\nname='a'", "'rules' is no part"),
        ("[rule]\nname='a'", "there is no rule"),
        ("[[rule]]\nquality={min=1}", "rule 1 has no name"),
        ("[[rule]]\nname='a'", "'a' has 0 tests"),
        ("[[rule]]\nname='a'\nquality={min=1}\nwhere='x'", "'a' has 2 tests"),
        ("[[rule]]\nname='a'\nqualty={min=1}", "did you mean quality"),
        ("[[rule]]\nname='a'\nquality={least=1}", "{min = ..., max = ...}"),
        ("[[rule]]\nname='a'\nquality=1", "{min = ..., max = ...}"),
        ("[[rule]]\nname='a'\nquality={min=2, max=1}", "no face passes"),
        ("[[rule]]\nname='a'\nbest_per_track=0", "at least 1"),
        ("[[rule]]\nname='a'\nbest_per_track=true", "at least 1"),
        ("[[rule]]\nname='a'\nduplicates=true", "duplicates = false"),
        ("[[rule]]\nname='a'\nwhere=1", "where is text"),
        ("[[rule]]\nname='a'\nwhole_image=1\nwhere='x'", "true or false"),
        (2 * "[[rule]]\nname='a'\nwhere='x'\n", "two rules are called 'a'"),
    ],
)
def test_what_is_no_rule_is_refused_by_its_name(written: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_rules(written)
    assert said in str(refused.value)
