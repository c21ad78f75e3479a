"""Verification and errors against discard, one by one and where the truth is planted."""

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.evaluation.discard import discard_worst
from retrieval.evaluation.verification import verify_all
from tests.labelled import people, with_quality

FACES = people([4] * 150, noise=1.2, dimension=24, seed=3)


def all_pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarity, whether genuine, and the lower quality of every pair."""
    one, other = np.triu_indices(len(FACES), k=1)
    similar = (FACES.vectors @ FACES.vectors.T)[one, other]
    same = FACES.persons[one] == FACES.persons[other]
    return similar, same, np.minimum(FACES.quality[one], FACES.quality[other])


def test_verification_gives_what_all_pairs_give_one_by_one() -> None:
    from sklearn.metrics import roc_auc_score

    similar, same, _ = all_pairs()
    report = verify_all(FACES, replicates=200)
    assert (report.genuine, report.impostors) == (same.sum(), (~same).sum())
    assert report.auc.value == pytest.approx(roc_auc_score(same, similar), abs=1e-5)
    assert [one.fmr for one in report.at_fmr] == [1e-2, 1e-3]
    assert report.not_carried == (1e-4, 1e-5, 1e-6)
    for one in report.at_fmr:
        assert (similar[~same] >= one.threshold).mean() == pytest.approx(one.fmr, rel=0.01)
        assert one.tar.value == pytest.approx((similar[same] >= one.threshold).mean(), abs=2e-3)
        assert one.tar.low is not None
        assert one.tar.high is not None
        assert one.tar.low < one.tar.value < one.tar.high


def test_the_interval_of_tar_holds_what_other_persons_give() -> None:
    """Truth: 15 times as many persons. Faces of one person depend on one another."""
    truth = verify_all(people([4] * 1500, noise=1.2, dimension=24, seed=99), replicates=2)
    inside = 0
    for seed in range(25):
        few = people([4] * 100, noise=1.2, dimension=24, seed=seed)
        tar = verify_all(few, replicates=200, fmrs=(1e-2,)).at_fmr[0].tar
        assert tar.low is not None
        assert tar.high is not None
        inside += tar.low <= truth.at_fmr[0].tar.value <= tar.high
    assert inside >= 21


def test_fnmr_is_that_of_the_faces_left() -> None:
    similar, same, quality = all_pairs()
    report = discard_worst(FACES, fmr=1e-3, replicates=200)
    assert (similar[~same] >= report.threshold).mean() == pytest.approx(1e-3, rel=0.03)
    for one in report.shares:
        left = same & (quality >= np.sort(FACES.quality)[int(one.share * len(FACES))])
        assert one.genuine == left.sum()
        assert one.faces == len(FACES) - int(one.share * len(FACES))
        assert one.fnmr.value == pytest.approx((similar[left] < report.threshold).mean(), abs=2e-3)


def test_a_quality_that_foretells_misses_lowers_them_and_one_by_lot_does_not() -> None:
    told = discard_worst(FACES, fmr=1e-3, replicates=300).shares[-1].change
    assert told is not None
    assert told.high is not None
    assert told.high < -0.02
    lot = np.random.default_rng(1).random(len(FACES))
    nothing = discard_worst(with_quality(FACES, lot), fmr=1e-3, replicates=300).shares[-1].change
    assert nothing is not None
    assert nothing.low is not None
    assert nothing.high is not None
    assert nothing.low < 0 < nothing.high


def test_faces_without_quality_and_rates_that_are_not_carried_are_errors() -> None:
    with pytest.raises(UsageError, match="no face has a quality"):
        discard_worst(with_quality(FACES, np.full(len(FACES), np.nan)))
    with pytest.raises(UsageError, match=r"do not carry an FMR of 0\.0001"):
        discard_worst(FACES, fmr=1e-4)
    with pytest.raises(UsageError, match="9 persons have two faces or more"):
        verify_all(people([2] * 9 + [1] * 50))
