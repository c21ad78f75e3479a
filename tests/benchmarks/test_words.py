"""The made-up looks of the benchmark of words say what is said of them."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.words import answered, built, read, world

NAMES = ["Male", "Smiling", "Bald", "Eyeglasses", "Young", "Chubby", "Goatee", "Bangs"]
ROWS = 600


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Random attributes in the form of CelebA's."""
    values = np.random.default_rng(0).random((ROWS, len(NAMES))) < 0.4
    lines = [",".join(["image_id", *NAMES])]
    lines += [
        ",".join([f"{row:06}.jpg", *map(str, one.astype(int))]) for row, one in enumerate(values)
    ]
    path = tmp_path / "attributes.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("attributes.csv", "\n".join(lines))
    return path


def test_attributes_are_read_as_they_were_written(file: Path) -> None:
    names, values = read(file)
    assert names == NAMES
    assert values.tolist() == (np.random.default_rng(0).random((ROWS, 8)) < 0.4).tolist()


def test_sentences_are_nearer_to_faces_that_they_fit(file: Path) -> None:
    made = world(file, 0.7, 0.5, rows=ROWS)
    said = made.sentences(200, 1.0, seed=1)
    cosines = said @ made.looks.T
    told = (said @ made.directions.T > 0)[:, None, :]
    agreeing = (told == made.attributes[None]).sum(axis=2)
    means = [float(cosines[agreeing == count].mean()) for count in range(len(NAMES) + 1)]
    assert means == sorted(means)
    assert means[-1] > 0.5
    assert abs(cosines.mean()) < 0.1


def test_what_answers_hold_and_looked_at_is_told(file: Path) -> None:
    made = world(file, 0.7, 0.5, rows=ROWS)
    index, _ = built(made.looks, made.table(), None)
    told = answered(index, made.sentences(5, 1.0, seed=1), "Male = TRUE")
    assert told["survivors"] == made.attributes[:, 0].sum()
    assert told["recall"] == 1.0
