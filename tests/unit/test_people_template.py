"""Templates: the weighted mean of a person's faces."""

import numpy as np
import pytest

from retrieval.people.template import templates, weights
from retrieval.values import unit_rows

RANDOM = np.random.default_rng(4)


def test_a_template_is_the_weighted_mean_of_each_persons_faces() -> None:
    vectors = unit_rows(RANDOM.standard_normal((7, 16)))
    quality = RANDOM.uniform(0.1, 1, 7)
    persons = np.array([3, 3, 3, 5, 9, 9, 9])
    names, made = templates(vectors, quality, persons)
    assert names.tolist() == [3, 5, 9]
    for name, template in zip(names, made, strict=True):
        mine = persons == name
        mean = (vectors[mine] * quality[mine, None]).sum(axis=0)
        assert template == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_the_template_of_one_face_is_the_face() -> None:
    vectors = unit_rows(RANDOM.standard_normal((1, 16)))
    _, made = templates(vectors, np.array([0.2]), np.array([1]))
    assert made == pytest.approx(vectors, abs=1e-7)


def test_a_person_next_to_others_has_the_same_template_to_the_bit() -> None:
    vectors = unit_rows(RANDOM.standard_normal((40, 64)))
    quality, persons = RANDOM.random(40), np.repeat(np.arange(8), 5)
    _, together = templates(vectors, quality, persons)
    mine = slice(15, 20)
    _, alone = templates(vectors[mine], quality[mine], persons[mine])
    assert alone.tobytes() == together[3:4].tobytes()


def test_unknown_quality_counts_like_a_middling_one_and_none_counts_nothing() -> None:
    found = weights(np.array([np.nan, 0.0, 1.0, 7.0]))
    assert found.tolist() == [0.5, 0.01, 1.0, 1.0]


def test_faces_that_cancel_each_other_out_give_a_row_of_zeros() -> None:
    vectors = unit_rows([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    _, made = templates(vectors, np.ones(3), np.array([1, 1, 2]))
    assert made.tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_no_face_gives_no_template() -> None:
    names, made = templates(unit_rows(np.ones((1, 8)))[:0], np.empty(0), np.empty(0, np.int64))
    assert (len(names), made.shape) == (0, (0, 8))
