"""What pictures show is kept between trainings, and a run that was cut off leaves no half row."""

import numpy as np

from indexer.teaching import Kept
from retrieval.models.face_text.base import FEATURES
from retrieval.values import FaceId

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.standard_normal((5, FEATURES)).astype(np.float32)


def seen(*faces: int):
    return {FaceId(10 + face): ROWS[face] for face in faces}


def test_what_was_added_is_there_when_it_is_opened_again(tmp_path):
    kept = Kept(tmp_path / "one")
    assert kept.add(seen(0, 1)) == {10: 0, 11: 1}
    assert kept.add(seen(2)) == {12: 2}
    again = Kept(tmp_path / "one")
    assert again.rows() == {10: 0, 11: 1, 12: 2}
    assert np.array_equal(again.features(), ROWS[:3].astype("<f2"))


def test_a_half_written_row_is_forgotten_and_its_face_looked_at_again(tmp_path):
    kept = Kept(tmp_path / "one")
    kept.add(seen(0, 1))
    with (tmp_path / "one.features").open("ab") as file:
        file.write(ROWS[2].astype("<f2").tobytes()[:100])  # killed while it wrote
    again = Kept(tmp_path / "one")
    assert again.rows() == {10: 0, 11: 1}
    assert again.add(seen(3)) == {13: 2}
    assert np.array_equal(Kept(tmp_path / "one").features()[2], ROWS[3].astype("<f2"))


def test_features_without_their_face_are_forgotten(tmp_path):
    kept = Kept(tmp_path / "one")
    kept.add(seen(0))
    with (tmp_path / "one.features").open("ab") as file:
        file.write(ROWS[1].astype("<f2").tobytes())  # killed before the face was written
    assert Kept(tmp_path / "one").rows() == {10: 0}
    assert Kept(tmp_path / "one").features().shape == (1, FEATURES)
