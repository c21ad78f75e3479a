"""What pictures show is kept between trainings, and a run that was cut off leaves no half row."""

from contextlib import closing

import numpy as np
import pytest

from indexer.teaching import Kept
from retrieval.errors import LicenceError, StoreConflictError
from retrieval.models.face_text.base import FEATURES, identity_base
from retrieval.values import FaceId

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.standard_normal((5, FEATURES)).astype(np.float32)


def seen(*faces: int):
    return {FaceId(10 + face): ROWS[face] for face in faces}


def test_what_was_added_is_there_when_it_is_opened_again(tmp_path):
    with closing(Kept(tmp_path / "one")) as kept:
        assert kept.add(seen(0, 1)) == {10: 0, 11: 1}
        assert kept.add(seen(2)) == {12: 2}
    with closing(Kept(tmp_path / "one")) as again:
        assert again.rows() == {10: 0, 11: 1, 12: 2}
        assert np.array_equal(again.features(), ROWS[:3].astype("<f2"))


def test_a_half_written_row_is_forgotten_and_its_face_looked_at_again(tmp_path):
    with closing(Kept(tmp_path / "one")) as kept:
        kept.add(seen(0, 1))
    with (tmp_path / "one.features").open("ab") as file:
        file.write(ROWS[2].astype("<f2").tobytes()[:100])  # killed while it wrote
    with closing(Kept(tmp_path / "one")) as again:
        assert again.rows() == {10: 0, 11: 1}
        assert again.add(seen(3)) == {13: 2}
        assert np.array_equal(again.features()[2], ROWS[3].astype("<f2"))


def test_features_without_their_face_are_forgotten(tmp_path):
    with closing(Kept(tmp_path / "one")) as kept:
        kept.add(seen(0))
    with (tmp_path / "one.features").open("ab") as file:
        file.write(ROWS[1].astype("<f2").tobytes())  # killed before the face was written
    with closing(Kept(tmp_path / "one")) as again:
        assert again.rows() == {10: 0}
        assert again.features().shape == (1, FEATURES)


def test_two_trainings_at_once_are_refused_and_one_after_the_other_is_not(tmp_path):
    with closing(Kept(tmp_path / "one")), pytest.raises(StoreConflictError, match="wait"):
        Kept(tmp_path / "one")
    Kept(tmp_path / "one").close()


def test_what_is_forgotten_leaves_no_file(tmp_path):
    with closing(Kept(tmp_path / "one")) as kept:
        kept.add(seen(0))
        kept.forget()
    assert not list(tmp_path.iterdir())


def test_models_for_research_are_not_built_on_for_commercial_use():
    with pytest.raises(LicenceError, match="commercially"):
        identity_base("commercial")
