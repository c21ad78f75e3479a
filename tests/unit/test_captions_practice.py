"""Sentences to learn the language of attributes from."""

import numpy as np

from retrieval.captions.grammar import attributes_of
from retrieval.captions.practice import practice

TAGS = ("male", "female", "smiling", "glasses", "hat", "beard")
TRUTH = np.array([[1, 0, 1, 1, 0, 1], [0, 1, np.nan, 0, 1, 0]], np.float32)


def test_the_same_arguments_give_the_same_sentences():
    assert practice(TAGS, TRUTH, count=50, seed=3) == practice(TAGS, TRUTH, count=50, seed=3)
    assert practice(TAGS, TRUTH, count=50, seed=3) != practice(TAGS, TRUTH, count=50, seed=4)


def test_every_attribute_is_spoken_of_and_nothing_else():
    said = [attributes_of(one) for one in practice(TAGS, TRUTH, count=400, seed=0)]
    assert {tag for one in said for tag, truth in one.items() if truth} >= set(TAGS)
    assert {tag for one in said for tag in one} <= set(TAGS)


def test_what_is_said_of_somebody_is_true_of_somebody():
    sentences = practice(("smiling", "glasses"), TRUTH[:1, 2:4], count=200, seed=0)
    assert len(sentences) == len(set(sentences)) > 20
    assert not any(truth is False for one in sentences for truth in attributes_of(one).values())


def test_without_known_attributes_there_is_nothing_to_say():
    assert practice((), np.empty((3, 0), np.float32), count=10, seed=0) == []
    assert practice(TAGS, np.full((3, 6), np.nan, np.float32), count=10, seed=0) == []
