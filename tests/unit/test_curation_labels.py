"""Faces under a wrong label: laws against the definition, and planted ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.curation.labels import (
    Kind,
    LabelledFaces,
    Limits,
    cleaned_templates,
    conflicting,
    doubted,
    leave_one_out,
)
from retrieval.people.template import templates, weights
from retrieval.values import UnitRows
from tests.labelled import people

LIMITS = Limits(own=0.35, other=0.6, quality=0.1)


def faces_of(counts, *, noise=0.5, seed=0, dimension=64) -> LabelledFaces:
    made = people(counts, noise=noise, seed=seed, dimension=dimension)
    return LabelledFaces(vectors=made.vectors, quality=made.quality, persons=made.persons)


def with_persons(faces: LabelledFaces, persons) -> LabelledFaces:
    """The same faces under other labels."""
    order = np.lexsort((np.arange(len(persons)), persons))
    return LabelledFaces(
        vectors=UnitRows(faces.vectors[order]),
        quality=faces.quality[order],
        persons=np.asarray(persons)[order],
    )


def nearest_of(faces: LabelledFaces):
    names, rows = templates(faces.vectors, faces.quality, faces.persons)

    def nearest(vectors: UnitRows) -> tuple[np.ndarray, np.ndarray]:
        similarities = vectors.astype(np.float64) @ rows.T.astype(np.float64)
        order = np.argsort(-similarities, axis=1)[:, :4]
        return names[order], np.take_along_axis(similarities, order, axis=1)

    return nearest


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 1_000))
def test_each_face_is_compared_with_the_template_of_the_others(counts, seed):
    faces = faces_of(counts, seed=seed, dimension=4)
    out = np.random.default_rng(seed).random(len(faces.persons)) < 0.3
    found = leave_one_out(faces, out)
    for row in range(len(found)):
        others = (faces.persons == faces.persons[row]) & ~out
        others[row] = False
        if not others.any():
            assert np.isnan(found[row])
            continue
        total = weights(faces.quality[others]) @ faces.vectors[others].astype(np.float64)
        assert found[row] == pytest.approx(
            total @ faces.vectors[row] / np.linalg.norm(total), abs=1e-6
        )


def test_blocks_end_between_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = faces_of([3, 1, 7, 2, 2])
    nobody = np.zeros(15, np.bool_)
    whole = leave_one_out(faces, nobody)
    monkeypatch.setattr("retrieval.curation.labels.BLOCK_ROWS", 4)
    np.testing.assert_array_equal(leave_one_out(faces, nobody), whole)


def test_swapped_labels_are_found_with_whose_they_are() -> None:
    faces = faces_of([8] * 100, seed=3)
    random = np.random.default_rng(4)
    swapped = random.choice(800, 16, replace=False)
    persons = faces.persons.copy()
    persons[swapped] = (persons[swapped] + random.integers(1, 100, 16)) % 100
    # Labels are in no order any more; a face keeps its quality as a mark of who it is.
    noisy = with_persons(faces, persons)
    truth = {float(faces.quality[row]): int(faces.persons[row]) for row in swapped}
    found = doubted(noisy, Limits(own=0.35, other=0.5, quality=0.0), nearest_of(noisy), one={})
    proposed = {
        float(noisy.quality[doubt.row]): doubt.other
        for doubt in found
        if doubt.kind is Kind.MISLABELLED
    }
    assert proposed == truth
    assert all(doubt.kind is Kind.MISLABELLED for doubt in found)


def test_of_two_faces_the_right_one_is_not_blamed_for_the_wrong_one() -> None:
    faces = faces_of([5, 5, 1], noise=0.3)
    persons = faces.persons.copy()
    persons[0] = 2  # beside the one face of the third person
    noisy = with_persons(faces, persons)
    found = doubted(noisy, LIMITS, nearest_of(noisy), one={})
    assert [(doubt.kind, doubt.other) for doubt in found] == [(Kind.MISLABELLED, 0)]


def test_poor_faces_are_told_as_poor_and_persons_that_are_linked_are_one() -> None:
    faces = faces_of([6, 6, 6], noise=0.3)
    persons = faces.persons.copy()
    persons[0] = 1
    noisy = with_persons(faces, persons)
    row = int(np.flatnonzero(noisy.quality == faces.quality[0])[0])
    quality = noisy.quality.copy()
    quality[row] = 0.05
    poor = LabelledFaces(vectors=noisy.vectors, quality=quality, persons=noisy.persons)
    assert [(one.kind, one.row) for one in doubted(poor, LIMITS, nearest_of(poor), one={})] == [
        (Kind.POOR, row)
    ]
    linked = doubted(noisy, LIMITS, nearest_of(noisy), one={0: 0, 1: 0})
    assert [one.kind for one in linked] == [Kind.UNLIKE]


def test_a_template_is_made_again_without_what_is_out() -> None:
    faces = faces_of([3, 2])
    out = np.array([False, True, False, True, True])
    made = cleaned_templates(faces, out, np.array([0, 1]))
    left = [0, 2]
    truth = templates(faces.vectors[left], faces.quality[left], faces.persons[left])[1][0]
    assert list(made) == [0]
    np.testing.assert_allclose(made[0], truth, atol=1e-6)


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("female", "male", True),
        ("female", "female", False),
        (None, "male", False),
        (30.0, 41.0, True),
        (30.0, 40.0, False),
        (True, False, True),
        (["hat"], ["hat", "duplicate"], False),
        (["hat"], ["beard"], True),
    ],
)
def test_what_cannot_both_be_right_is_a_conflict(one, other, conflict) -> None:
    assert conflicting(one, other, ignored=frozenset({"duplicate"})) is conflict
