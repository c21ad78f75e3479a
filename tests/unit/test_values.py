import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrieval.errors import UnusableVectorError
from retrieval.values import unit_rows

ROWS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    elements=st.floats(0.01, 100) | st.floats(-100, -0.01),
)


@given(ROWS, st.floats(0.001, 1000))
def test_scaling_a_vector_changes_nothing(rows: np.ndarray, factor: float) -> None:
    assert unit_rows(rows * factor) == pytest.approx(unit_rows(rows), abs=1e-6)


@given(ROWS)
def test_every_row_has_length_one_and_the_callers_array_is_left_alone(rows: np.ndarray) -> None:
    before = rows.copy()
    unit = unit_rows(rows)
    assert np.linalg.norm(unit, axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-6)
    assert (rows == before).all()
    assert not unit.flags.writeable


@pytest.mark.parametrize("bad", [[[np.nan, 1]], [[np.inf, 1]], [[0, 0]], [[1, 0], [0, 0]]])
def test_a_vector_that_points_nowhere_is_refused(bad: list[list[float]]) -> None:
    with pytest.raises(UnusableVectorError, match="vector"):
        unit_rows(bad)


def test_another_dimension_is_refused() -> None:
    with pytest.raises(UnusableVectorError, match="3 dimensions; the space has 2"):
        unit_rows([[1, 0, 0]], dimension=2)
