"""The frozen test of captions on LFW, with models whose figures are known."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.captions import (
    Lfw,
    asked,
    frozen_test,
    lfw_attributes,
    means,
    person_of,
    round_trip,
)
from retrieval.captions.grammar import attributes_of
from retrieval.captions.vocabulary import BY_TAG
from retrieval.models.ports import FaceTextReading
from retrieval.values import UnitRows, unit_rows

TAGS = tuple(BY_TAG)
RANDOM = np.random.default_rng(0)
# A direction for each attribute, so that a set of attributes is a vector.
DIRECTIONS = RANDOM.normal(size=(len(TAGS), 128))


def vector_of(attributes: dict[str, bool]) -> np.ndarray:
    chosen = [place for place, tag in enumerate(TAGS) if attributes.get(tag)]
    return DIRECTIONS[chosen].sum(axis=0) + 1e-3


class Knowing:
    """Knows the labels of each picture, and reads sentences by the table of words."""

    def __init__(self, lfw: Lfw) -> None:
        self.labels = lfw_attributes(lfw.data)

    def of_faces(self, images: Sequence[str]) -> FaceTextReading:
        told = [self.labels[image] for image in images]
        return FaceTextReading(
            vectors=unit_rows([vector_of(one) for one in told]),
            tags=TAGS,
            chances=np.array([[one.get(tag, False) for tag in TAGS] for one in told], np.float32),
        )

    def of_texts(self, texts: Sequence[str]) -> UnitRows:
        return unit_rows([vector_of(attributes_of(text)) for text in texts])


class Guessing:
    """Says something else of everything."""

    def of_faces(self, images: Sequence[str]) -> FaceTextReading:
        random = np.random.default_rng(len(images))
        return FaceTextReading(
            vectors=unit_rows(random.normal(size=(len(images), 16))),
            tags=("hat",),
            chances=random.random((len(images), 1)).astype(np.float32),
        )

    def of_texts(self, texts: Sequence[str]) -> UnitRows:
        return unit_rows(np.random.default_rng(1).normal(size=(len(texts), 16)))


@pytest.fixture(scope="module")
def lfw(data_dir: Path) -> Lfw:
    return Lfw(data_dir)


@pytest.mark.data
def test_nobody_is_trained_on_who_is_asked_for(lfw: Lfw) -> None:
    for split in lfw.splits:
        assert not {*map(person_of, split.train)} & {*map(person_of, split.test)}
        assert len(split.train) + len(split.test) == len(lfw.captions) == 13_143
        assert [len(set(gallery)) for gallery in split.galleries] == [1000] * 5
        assert all(set(gallery) <= set(split.test) for gallery in split.galleries)


@pytest.mark.data
def test_a_model_that_knows_the_labels_is_nearly_right_and_a_guess_is_chance(lfw: Lfw) -> None:
    split = lfw.splits[0]
    knowing = means(list(asked(lfw, Knowing(lfw), split)))
    assert knowing["full_galleries"] == 5
    assert knowing["full_recall_at_10"] > 0.5
    assert knowing["full_recall_at_10"] > knowing["half_recall_at_10"]
    assert knowing["sentences_map"] > 0.6
    assert knowing["auc_median"] == 1
    guessing = means(list(asked(lfw, Guessing(), split)))
    assert guessing["full_recall_at_10"] == pytest.approx(0.01, abs=0.01)
    assert guessing["auc_median"] == pytest.approx(0.5, abs=0.05)
    assert guessing["sentences_map"] < 0.3


@pytest.mark.data
def test_each_split_is_trained_on_its_own_pictures_and_a_sheet_stays_outside(
    lfw: Lfw, tmp_path: Path
) -> None:
    given: list[tuple[str, ...]] = []

    def train(_data: Path, images: Sequence[str]) -> Guessing:
        given.append(tuple(images))
        return Guessing()

    lines = list(frozen_test(lfw, train, [1], sheet=tmp_path))
    assert given == [lfw.splits[1].train]
    assert json.loads(json.dumps(lines)) == lines
    assert (tmp_path / "sheet_1.png").read_bytes().startswith(b"\x89PNG")
    assert set(lines[-1]["mean"]) >= {"full_recall_at_10", "half_recall_at_10", "sentences_map"}
    with pytest.raises(SystemExit, match="lies in the repository"):
        list(frozen_test(lfw, train, [1], sheet=Path(__file__).parent / "sheets"))


def test_a_round_trip_counts_what_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "attributes.csv"
    path.write_text("image_id,Male,Smiling,Attractive\n1.jpg,1,-1,1\n2.jpg,-1,1,1\n")
    (line,) = round_trip(path, denied=0)
    assert (line["rows"], line["attributes_right"], line["left_out"]) == (2, 1.0, ["Attractive"])
