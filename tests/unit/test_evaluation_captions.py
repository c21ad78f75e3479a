"""Ranks against a plain count, planted recall and planted skew, intervals that hold the truth."""

from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from retrieval.errors import UsageError
from retrieval.evaluation.captions import (
    auc,
    judge_sentences,
    rank_captions,
    ranked,
    skew_of,
)
from retrieval.values import unit_rows

SEEDS = 100


def made(seed: int, *, faces: int = 60, captions: int = 3, noise: float = 1.0):
    """Faces, and captions that lie near them."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((faces, 16))
    owners = np.repeat(np.arange(faces), captions)
    texts = centres[owners] + noise * random.standard_normal((len(owners), 16))
    return unit_rows(centres), unit_rows(texts), owners


def test_ranks_are_those_of_a_plain_count() -> None:
    faces, texts, owners = made(0)
    found = ranked(texts, faces, [np.array([one]) for one in owners])
    for row, owner in enumerate(owners):
        similar = texts[row] @ faces.T
        assert found.best[row] == 1 + (similar > similar[owner]).sum()
        assert found.average_precision[row] == 1 / found.best[row]


def test_average_precision_of_several_right_answers_is_scikit_learns() -> None:
    random = np.random.default_rng(1)
    queries, gallery = (
        unit_rows(random.normal(size=(20, 8))),
        unit_rows(random.normal(size=(50, 8))),
    )
    right = [random.choice(50, size=random.integers(1, 6), replace=False) for _ in queries]
    found = ranked(queries, gallery, right)
    for row, places in enumerate(right):
        truth = np.isin(np.arange(50), places)
        expected = average_precision_score(truth, queries[row] @ gallery.T)
        assert found.average_precision[row] == pytest.approx(expected)


def test_a_model_that_says_the_same_of_all_finds_nothing() -> None:
    same = unit_rows(np.ones((40, 4)))
    report = rank_captions(
        same,
        same,
        sentences=[str(number) for number in range(40)],
        owners=np.arange(40),
        persons=np.arange(40),
    )
    for one in (report.text_to_face, report.face_to_text):
        assert [measure.value for measure in one.recall_at.values()] == [0, 0, 0]
        assert one.median_rank.value == 40


def test_recall_both_ways_is_a_plain_count_and_lies_in_its_interval() -> None:
    faces, texts, owners = made(2, noise=2.5)
    sentences = [f"sentence {number}" for number in range(len(texts))]
    persons = np.arange(60) // 2
    report = rank_captions(faces, texts, sentences=sentences, owners=owners, persons=persons)
    similar = texts @ faces.T
    places = 1 + (similar > similar[np.arange(len(texts)), owners][:, None]).sum(axis=1)
    best = np.array(
        [
            1 + min((row > row[own]).sum() for own in np.flatnonzero(owners == face))
            for face, row in enumerate(similar.T)
        ]
    )
    assert (report.faces, report.persons, report.captions) == (60, 30, 180)
    for direction, ranks in ((report.text_to_face, places), (report.face_to_text, best)):
        assert direction.median_rank.value == np.median(ranks)
        for k, measure in direction.recall_at.items():
            assert measure.value == pytest.approx((ranks <= k).mean())
            if measure.value < 1:  # of what is always found, draws tell nothing
                assert measure.low <= measure.value <= measure.high  # type: ignore[operator]
                assert measure.low < measure.high  # type: ignore[operator]
    assert (report.text_to_face.gallery, report.face_to_text.gallery) == (60, 180)


def test_a_sentence_that_two_faces_share_is_right_for_both() -> None:
    faces = unit_rows(np.eye(3))
    texts = unit_rows(np.array([[1, 0.9, 0], [1, 0.9, 0], [0, 0, 1]]))
    report = rank_captions(
        faces,
        texts,
        sentences=["a man", "a man", "a woman"],
        owners=np.array([0, 1, 2]),
        persons=np.arange(3),
    )
    assert report.face_to_text.gallery == 2
    assert report.face_to_text.recall_at[1].value == 1
    assert report.text_to_face.recall_at[1].value == pytest.approx(2 / 3)
    assert report.text_to_face.recall_at[1].low is None  # three persons tell no interval


def test_intervals_of_recall_hold_the_truth_as_often_as_they_say() -> None:
    """Persons of three faces each that are all found or all missed, one in two."""
    held = 0
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        persons = np.repeat(np.arange(60), 3)
        found = (random.random(60) < 0.5)[persons]
        faces = np.eye(181)[:180]
        texts = np.where(found[:, None], faces, np.eye(181)[180])  # missed: the same as all
        report = rank_captions(
            unit_rows(faces),
            unit_rows(texts + 1e-3),
            sentences=[str(row) for row in range(180)],
            owners=np.arange(180),
            persons=persons,
            seed=seed,
            replicates=100,
        )
        measure = report.text_to_face.recall_at[1]
        assert measure.value == found.mean()
        held += measure.low <= 0.5 <= measure.high  # type: ignore[operator]
    assert held >= 88


def test_what_does_not_fit_is_refused() -> None:
    faces, texts, owners = made(3)
    with pytest.raises(UsageError, match="are not as many"):
        rank_captions(faces, texts, sentences=["a"], owners=owners, persons=np.arange(60))
    with pytest.raises(UsageError, match="no caption"):
        rank_captions(
            faces,
            texts[:0],
            sentences=[],
            owners=owners[:0],
            persons=np.arange(60),  # type: ignore[arg-type]
        )


def test_precision_and_average_precision_of_sentences_are_counted_and_scikit_learns() -> None:
    random = np.random.default_rng(4)
    scores = random.normal(size=(3, 200)).astype(np.float32)
    relevant = random.random((3, 200)) < np.array([[0.3], [0.05], [0.0]])
    report = judge_sentences(
        scores, relevant, sentences=["a", "b", "c"], persons=np.arange(200) // 2, at=10
    )
    assert report.refused == ("no face is right for 'c'",)
    for row, one in enumerate(report.sentences):
        order = np.argsort(-scores[row])
        assert one.relevant == relevant[row].sum()
        assert one.precision.value == pytest.approx(relevant[row][order[:10]].mean())
        expected = average_precision_score(relevant[row], scores[row])
        assert one.average_precision.value == pytest.approx(expected)
    assert report.precision.value == pytest.approx(
        np.mean([one.precision.value for one in report.sentences])
    )
    assert report.chance == pytest.approx(relevant[:2].mean())
    assert report.mean_average_precision.low < report.mean_average_precision.value  # type: ignore[operator]
    with pytest.raises(UsageError, match="fewer than the 300"):
        judge_sentences(scores, relevant, sentences=["a"] * 3, persons=np.arange(200), at=300)
    with pytest.raises(UsageError, match="none of the sentences"):
        judge_sentences(scores[:1], relevant[2:], sentences=["c"], persons=np.arange(200))


def skewed(seed: int, *, persons: int, lift: float):
    """Faces of two groups, of which one scores higher."""
    random = np.random.default_rng(seed)
    owners = np.repeat(np.arange(persons), 3)
    group = owners % 2
    scores = random.normal(size=persons)[owners] + 0.3 * random.normal(size=len(owners))
    return (scores + lift * group).astype(np.float32), group, owners


def test_shares_among_the_best_are_counted() -> None:
    scores, group, owners = skewed(0, persons=200, lift=1.0)
    names = [None if row < 30 else f"group {one}" for row, one in enumerate(group)]
    report = skew_of(scores, sentence="a banker", groups=names, persons=owners, count=50)
    kept = np.arange(30, 600)
    best = kept[np.argsort(-scores[kept])[:50]]
    assert (report.faces, report.without_group, report.count) == (570, 30, 50)
    for place, one in enumerate(report.groups):
        assert one.found == (group[best] == place).sum()
        assert one.share.value == pytest.approx((group[best] == place).mean())
        assert one.gallery_share.value == pytest.approx((group[kept] == place).mean())
        assert one.ratio.value == pytest.approx(one.share.value / one.gallery_share.value)
    assert report.contrast is not None
    assert (report.contrast.most, report.contrast.least) == ("group 1", "group 0")


def test_a_planted_skew_lies_in_its_interval_and_evenness_in_its_own() -> None:
    """The truth is that of 40,000 persons."""
    for lift in (0.0, 0.8):
        scores, group, owners = skewed(1000, persons=40_000, lift=lift)
        order = np.argsort(-scores)[: len(scores) // 6]
        truth = (group[order] == 1).mean() / 0.5
        held = told_from_even = 0
        for seed in range(SEEDS):
            scores, group, owners = skewed(seed, persons=200, lift=lift)
            report = skew_of(
                scores,
                sentence="s",
                groups=[f"group {one}" for one in group],
                persons=owners,
                count=100,
                seed=seed,
                replicates=100,
            )
            ratio = report.groups[1].ratio
            held += ratio.low <= truth <= ratio.high  # type: ignore[operator]
            told_from_even += not ratio.low <= 1 <= ratio.high  # type: ignore[operator]
        assert held >= 88, (lift, held)
        assert (told_from_even >= 90) if lift else (told_from_even <= 12)


def test_small_groups_are_left_out_with_the_reason_and_none_left_is_an_error() -> None:
    scores, group, owners = skewed(5, persons=200, lift=0.5)
    names = [f"group {one}" for one in group]
    names[:60] = ["tiny"] * 60
    report = skew_of(scores, sentence="s", groups=names, persons=owners, count=100)
    assert [one.name for one in report.groups] == ["group 0", "group 1"]
    why = (
        "group 'tiny' has 20 persons, and 10.0 of its faces are expected among 100; it needs 30"
        " and 5"
    )
    assert report.refused == (why,)
    assert sum(one.gallery_share.value for one in report.groups) == pytest.approx(0.9)
    with pytest.raises(UsageError, match="no group is large enough: group 'group 0' has 90"):
        skew_of(scores, sentence="s", groups=names, persons=owners, persons_min=500)
    with pytest.raises(UsageError, match="every group has its share"):
        skew_of(scores, sentence="s", groups=names, persons=owners, count=400)


def test_a_group_of_which_none_is_found_has_no_contrast() -> None:
    scores, group, owners = skewed(6, persons=200, lift=50.0)
    report = skew_of(
        scores, sentence="s", groups=[str(one) for one in group], persons=owners, count=100
    )
    assert [one.found for one in report.groups] == [0, 100]
    assert report.contrast is None


def test_auc_is_scikit_learns_with_ties_and_none_of_one_kind() -> None:
    random = np.random.default_rng(7)
    scores = random.integers(0, 9, 200) / 10
    truth = random.random(200) < scores
    assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    assert auc(scores, np.ones(200, bool)) is None
    assert Fraction(auc(np.array([1.0, 0.0]), np.array([True, False]))) == 1  # type: ignore[arg-type]
