"""Groups of duplicates: what is dropped was compared with what is kept, and nothing goes twice."""

import re
from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.curation.duplicates import Decision, Worth, stars
from retrieval.curation.duplicates_page import Card, Cards, page
from retrieval.curation.hashes import close_pairs, distance

POINTS = st.lists(st.integers(0, 60), min_size=1, max_size=24)


def near(points: list[int]):
    """Alike are points at most two apart: a chain of them is not all alike."""

    def compare(one: int, other: int) -> int | None:
        apart = abs(points[one] - points[other])
        return apart if apart <= 2 else None

    return compare


def all_pairs(points: list[int]) -> list[tuple[int, int]]:
    return list(combinations(range(len(points)), 2))


@given(POINTS, st.randoms(use_true_random=False))
def test_each_dropped_thing_is_like_a_better_one_that_stays(points: list[int], random) -> None:
    best_first = list(range(len(points)))
    random.shuffle(best_first)
    rank = {one: place for place, one in enumerate(best_first)}
    found = stars(best_first, all_pairs(points), near(points))
    dropped = [one for star in found for one, _ in star.dropped]
    kept = {star.kept for star in found}
    assert len(dropped) == len(set(dropped))
    assert not kept & set(dropped)
    for star in found:
        for one, apart in star.dropped:
            assert apart == abs(points[one] - points[star.kept]) <= 2
            assert rank[star.kept] < rank[one]
    # What stays, in a group or alone, is like nothing else that stays.
    stays = set(range(len(points))) - set(dropped)
    assert all(near(points)(*two) is None for two in combinations(sorted(stays), 2))


@given(POINTS, st.randoms(use_true_random=False))
def test_the_order_of_candidates_changes_nothing(points: list[int], random) -> None:
    pairs = [two if random.random() < 0.5 else two[::-1] for two in all_pairs(points)]
    random.shuffle(pairs)
    in_order = stars(range(len(points)), all_pairs(points), near(points))
    assert stars(range(len(points)), pairs, near(points)) == in_order


def test_what_hangs_together_is_not_compared_pair_by_pair() -> None:
    asked = []

    def compare(one: int, other: int) -> int:
        asked.append((one, other))
        return 0

    [star] = stars(range(40), combinations(range(40), 2), compare)
    assert (star.kept, len(star.dropped)) == (0, 39)
    assert len(asked) == len(set(asked)) == 39


def test_a_preferred_source_outweighs_quality_and_quality_outweighs_pixels() -> None:
    def worth(number: int, **more: object) -> Worth:
        told = {"source": None, "quality": 0.5, "pixels": 100, **more}
        return Worth(number=number, **told)  # type: ignore[arg-type]

    things = [
        worth(1, source="web", quality=0.9, pixels=900),
        worth(2, source="archive", quality=0.1),
        worth(3, quality=0.72, pixels=50),
        worth(4, quality=0.69, pixels=200),  # as good as 0.72, for what quality is worth
        worth(5, quality=None, pixels=900),
        worth(6, quality=0.72, pixels=50),
    ]

    def order(*prefer: str) -> list[int]:
        ranked = sorted(things, key=lambda one: one.rank(prefer), reverse=True)
        return [one.number for one in ranked]

    assert order("archive", "web") == [2, 1, 4, 3, 6, 5]
    assert order() == [1, 4, 3, 6, 2, 5]


def test_close_hashes_are_those_of_all_pairs() -> None:
    random = np.random.default_rng(3)
    hashes = random.integers(0, 2**63, 700, dtype=np.uint64)
    hashes[100:130] = hashes[:30] ^ np.uint64(0b1011)
    mirrored = random.integers(0, 2**63, 700, dtype=np.uint64)
    mirrored[600] = hashes[5] ^ np.uint64(1 << 40)
    told = [int(one) for one in hashes]
    turned = [int(one) for one in mirrored]
    expected = [
        (one, other)
        for one, other in combinations(range(700), 2)
        if min(distance(told[one], told[other]), distance(told[one], turned[other])) <= 3
    ]
    assert len(expected) == 31
    assert list(close_pairs(hashes, mirrored, bits=3)) == expected


def test_a_page_escapes_names_and_tells_each_picture_in_words() -> None:
    card = Card(
        decision=Decision.DROP,
        title='person #3, <b>"Eve"',
        reason="1 < 2",
        where="/a&b/c.jpg",
        pictures=(b"\xff\xd8",),
    )
    told = page(
        "A & B", ["<i>"], [Cards(title="<u>", cards=(card,), left_out=2)], number=2, pages=3
    )
    assert "<i>" not in told
    assert "<u>" not in told
    assert '<b>"Eve"' not in told
    assert re.findall(r'<img alt="([^"]*)"', told) == ["drop: person #3, &lt;b&gt;&quot;Eve&quot;"]
    assert "/<wbr>a&amp;b/<wbr>c.jpg" in told
    assert re.findall(r'href="(report[^"]*)"', told) == ["report.html", "report-3.html"] * 2
    assert 'lang="en"' in told
    assert "and 2 more" in told


def test_a_page_without_groups_says_so() -> None:
    told = page("Duplicates", [], [], number=1, pages=1)
    assert "No duplicates were found." in told
    assert "<nav" not in told
