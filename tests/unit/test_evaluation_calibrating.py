"""A calibration from labelled faces gives the error rates that it promises, to fresh strangers."""

import numpy as np
import pytest
from scipy import stats

from retrieval.evaluation.calibrating import calibrate
from retrieval.people.template import templates
from retrieval.store.labelled import Labelled
from retrieval.values import Space, SpaceId, UnitRows, unit_rows
from tests.labelled import people as people_of

DIMENSION, PERSONS, EACH = 64, 1_200, 3
SPACE = Space(
    id=SpaceId(1), name="made@1", dimension=DIMENSION, model_sha256=None, licence="-",
    commercial=True,
)  # fmt: skip
RANDOM = np.random.default_rng(5)


def faces(centres: np.ndarray) -> UnitRows:
    noise = RANDOM.standard_normal(centres.shape) * RANDOM.uniform(0.03, 0.12, (len(centres), 1))
    return unit_rows(centres + noise)


def crowd(persons: int) -> UnitRows:
    return unit_rows(RANDOM.standard_normal((persons, DIMENSION)))


def labelled(vectors: UnitRows, persons: np.ndarray) -> Labelled:
    count = len(vectors)
    return Labelled(
        vectors=vectors,
        faces=np.arange(count),
        persons=persons,
        quality=np.full(count, np.nan),
        images=(None,) * count,
        groups=(None,) * count,
    )


@pytest.fixture(scope="module")
def people() -> UnitRows:
    return crowd(PERSONS)


@pytest.fixture(scope="module")
def known(people: UnitRows) -> Labelled:
    owners = np.repeat(np.arange(PERSONS), EACH)
    return labelled(faces(people[owners]), owners)


def test_strangers_reach_the_thresholds_as_often_as_asked(known: Labelled) -> None:
    found = calibrate(known, space=SPACE, data="numbers").calibration
    strangers = faces(crowd(20_000))
    similarities = strangers @ known.vectors.T
    for fmr in (1e-2, 1e-3, 1e-4):
        measured = float((similarities >= found.for_fmr(fmr).similarity).mean())
        assert measured == pytest.approx(fmr, rel=0.15)
    _, gallery = templates(known.vectors, known.quality, known.persons)
    highest = (strangers @ gallery.T).max(axis=1)
    for fpir in (0.1, 0.01):
        threshold = found.for_fpir(fpir, gallery=PERSONS)
        assert float((highest >= threshold.similarity).mean()) == pytest.approx(fpir, rel=0.3)
        assert threshold.expected.low is not None
        assert threshold.expected.high is not None
        assert threshold.expected.low <= fpir <= threshold.expected.high


def test_one_person_under_two_names_does_not_spoil_the_thresholds(
    known: Labelled, people: UnitRows
) -> None:
    clean = calibrate(known, space=SPACE, data="numbers")
    assert len(clean.joined) <= 3  # strangers by chance
    again = np.repeat(np.arange(20), EACH)
    spoilt = labelled(
        UnitRows(np.concatenate([known.vectors, faces(people[again])])),
        np.concatenate([known.persons, PERSONS + again]),
    )
    found = calibrate(spoilt, space=SPACE, data="numbers")
    planted = {(person, PERSONS + person) for person in range(20)}
    assert planted <= set(found.joined)
    assert len(found.joined) <= len(planted) + 3
    for fmr in (1e-3, 1e-5):
        assert found.calibration.for_fmr(fmr).similarity == pytest.approx(
            clean.calibration.for_fmr(fmr).similarity, abs=0.02
        )


def test_people_whose_faces_are_often_as_unlike_as_strangers_are_not_taken_for_one() -> None:
    hard = people_of([6] * 300, dimension=126, noise=1.3, seed=4)
    found = calibrate(hard, space=SPACE, data="numbers")
    assert len(found.joined) <= 6
    # Strangers of so many dimensions are as alike as directions are.
    at = found.calibration.for_fmr(1e-4).similarity
    assert at == pytest.approx(stats.beta(62.5, 62.5, loc=-1, scale=2).isf(1e-4), abs=0.01)
