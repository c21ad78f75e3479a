"""A list of pairs in folds: LFW's format and its accuracy."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.evaluation.listed import best_threshold, read_pairs, verify_listed
from retrieval.store.labelled import Labelled
from tests.labelled import people

RANDOM = np.random.default_rng(5)
FACES = people([4] * 40, noise=1.3, seed=2)
FOLDS, EACH = 5, 30


def lines(random: np.random.Generator) -> list[str]:
    """FOLDS folds of EACH genuine, then EACH impostor pairs, each fold of persons of its own."""
    told = [f"{FOLDS}\t{EACH}"]
    for fold in range(FOLDS):
        persons = np.arange(fold * 8, fold * 8 + 8)
        for _ in range(EACH):
            one, other = random.choice(4, 2, replace=False) + 1
            told.append(f"P{random.choice(persons)}\t{one}\t{other}")
        for _ in range(EACH):
            a, b = random.choice(persons, 2, replace=False)
            told.append(f"P{a}\t{random.integers(4) + 1}\tP{b}\t{random.integers(4) + 1}")
    return told


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join(lines(np.random.default_rng(1))) + "\n")
    return path


def vector_of(faces: Labelled, picture: str) -> np.ndarray:
    row = [place for place, path in enumerate(faces.images) if path and f"/{picture}." in path]
    return faces.vectors[row[0]]


def test_accuracy_is_that_of_thresholds_tried_one_by_one(listed: Path) -> None:
    pairs = read_pairs(listed)
    scores = np.array([vector_of(FACES, p.one) @ vector_of(FACES, p.other) for p in pairs])
    same, folds = np.array([p.same for p in pairs]), np.array([p.fold for p in pairs])
    assert (np.bincount(folds) == 2 * EACH).all()
    assert same.sum() == FOLDS * EACH
    accuracies = []
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        tried = np.unique(scores[train])
        right = [((scores[train] >= t) == same[train]).mean() for t in tried]
        best = max(right)
        # Any threshold between the best one and the next lower score judges the others alike.
        high = tried[np.flatnonzero(np.array(right) == best)[-1]]
        low = tried[tried < high].max()
        accuracies.append(((scores[test] >= (low + high) / 2) == same[test]).mean())
    report = verify_listed(FACES, pairs)
    assert report.folds == pytest.approx(accuracies)
    assert report.accuracy.value == pytest.approx(np.mean(accuracies))
    assert report.accuracy_error == pytest.approx(np.std(accuracies, ddof=1) / np.sqrt(FOLDS))
    assert report.unscored == 0
    assert report.accuracy.low is not None
    assert report.accuracy.high is not None
    assert report.accuracy.low < report.accuracy.value < report.accuracy.high < 1


def test_auc_is_that_of_scikit_learn(listed: Path) -> None:
    from sklearn.metrics import roc_auc_score

    pairs = read_pairs(listed)
    scores = [vector_of(FACES, p.one) @ vector_of(FACES, p.other) for p in pairs]
    report = verify_listed(FACES, pairs)
    assert report.auc.value == pytest.approx(
        roc_auc_score([p.same for p in pairs], scores), abs=1e-4
    )


def test_a_list_says_nothing_of_rates_that_it_does_not_carry(listed: Path) -> None:
    assert verify_listed(FACES, read_pairs(listed)).tar_at == {}  # 150 impostor pairs


def test_a_pair_without_a_face_is_wrong_whatever_it_shows(listed: Path) -> None:
    without = people([4] * 39, noise=1.3, seed=2)  # the last person has no face here
    pairs = read_pairs(listed)
    missing = sum("P39_" in pair.one or "P39_" in pair.other for pair in pairs)
    report = verify_listed(without, pairs)
    assert report.unscored == missing > 10
    assert report.folds[-1] <= 1 - missing / (2 * EACH)
    assert report.accuracy.value == pytest.approx(np.mean(report.folds))


def test_the_best_threshold_is_that_of_all_tried() -> None:
    for _ in range(50):
        scores = RANDOM.normal(size=30).round(1)  # with ties
        same = RANDOM.random(30) < 0.5
        tried = [((scores >= t) == same).mean() for t in [*np.unique(scores), np.inf]]
        found = best_threshold(scores, same)
        assert ((scores >= found) == same).mean() == pytest.approx(max(tried))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "does not begin with a line such as `10 300`"),
        ("names\nAnn 1 2", "does not begin"),
        ("1 2\nAnn 1 2", "has 1 pairs; its first line promises 1 folds of 2 genuine"),
        ("1\nAnn 1 2\nAnn 1 Bob", "line 3: neither `NAME I J` nor"),
    ],
)
def test_a_broken_list_is_an_error_that_names_no_person(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=told) as raised:
        read_pairs(path)
    assert "Ann" not in str(raised.value)


def test_a_list_of_other_pictures_is_an_error(listed: Path) -> None:
    pairs = read_pairs(listed)
    nobody = people([2] * 3)
    others = Labelled(
        vectors=nobody.vectors,
        faces=nobody.faces,
        persons=nobody.persons,
        quality=nobody.quality,
        images=(None,) * len(nobody),
        groups=nobody.groups,
    )
    with pytest.raises(UsageError, match="none of the listed pairs has faces here"):
        verify_listed(others, pairs)


def test_pictures_in_archives_are_found_and_two_of_one_name_are_an_error(listed: Path) -> None:
    pairs = read_pairs(listed)
    archived = Labelled(
        vectors=FACES.vectors,
        faces=FACES.faces,
        persons=FACES.persons,
        quality=FACES.quality,
        images=tuple(f"/data/lfw.tar!{image}" for image in FACES.images),
        groups=FACES.groups,
    )
    assert verify_listed(archived, pairs).folds == verify_listed(FACES, pairs).folds
    doubled = Labelled(
        vectors=FACES.vectors,
        faces=FACES.faces,
        persons=FACES.persons,
        quality=FACES.quality,
        images=("other/P5_0001.jpg", *FACES.images[1:]),
        groups=FACES.groups,
    )
    with pytest.raises(UsageError, match="two pictures have the same file name"):
        verify_listed(doubled, pairs)
