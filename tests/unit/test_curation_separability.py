"""All pairs above a similarity, and samples without any, against brute force in float64."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.curation import separability as module
from retrieval.curation.sampling import sampled_apart
from retrieval.curation.separability import Identities, Separability, separability
from retrieval.errors import LimitExceededError
from retrieval.graph.gathering import Gathered
from retrieval.index.exact import Doubles, HalfRows, Numbers, Rows, paired_cosines, scales_of
from tests.galleries import clustered_vectors

ROWS, DIMENSION = 800, 40


def crowd(seed: int, *, rows: int = ROWS, dimension: int = DIMENSION) -> HalfRows:
    """Vectors near few directions, some equal, of any length."""
    random = np.random.default_rng(seed)
    made = clustered_vectors(rows, dimension=dimension, clusters=60, seed=seed).astype(np.float64)
    made[:, dimension // 2 :] *= random.choice([0.0, 0.2, 1.0])
    made[rows // 2 : rows // 2 + 9] = made[0]
    return (made * random.uniform(0.1, 8.0, (rows, 1))).astype("<f2")


def gathered(vectors: HalfRows, ids: Numbers | None = None) -> Gathered:
    numbers = np.arange(len(vectors))
    return Gathered(
        Rows(numbers * 3 + 7 if ids is None else ids, scales_of(vectors), vectors), numbers
    )


def all_cosines(vectors: HalfRows) -> Doubles:
    """(n, n), each summed as searches sum it."""
    return np.array([paired_cosines(vectors, vectors[row][None]) for row in range(len(vectors))])


def brute(vectors: HalfRows, owners: Numbers, threshold: float) -> list[tuple[float, int, int]]:
    apart = np.triu(owners[:, None] != owners, k=1)
    found = all_cosines(vectors)
    pairs = np.argwhere(apart & (found >= threshold)).tolist()
    return sorted((-float(found[one, other]), one * 3 + 7, other * 3 + 7) for one, other in pairs)


def told(found: Separability) -> list[tuple[float, int, int]]:
    return list(
        zip((-found.similarities).tolist(), found.ones.tolist(), found.others.tolist(), strict=True)
    )


@pytest.fixture
def in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rows in (("STRIPE_ROWS", 300), ("COLUMNS_AT_ONCE", 170), ("ROWS_AT_ONCE", 64)):
        monkeypatch.setattr(module, name, rows)


@pytest.mark.usefixtures("in_small_blocks")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.999, 0.8, 0.35])
def test_every_pair_of_two_identities_is_found_with_its_similarity_to_the_bit(
    seed: int, threshold: float
) -> None:
    vectors = crowd(seed)
    owners = np.random.default_rng(seed).integers(0, 500, ROWS)
    found = separability(Identities(rows=gathered(vectors), owners=owners), threshold=threshold)
    wanted = brute(vectors, owners, threshold)
    assert told(found) == wanted
    apart = np.triu(owners[:, None] != owners, k=1)
    cosines = all_cosines(vectors)[apart]
    assert found.highest == cosines.max()
    assert found.compared == np.count_nonzero(apart)
    assert found.identities == len(set(owners.tolist()))
    places = (np.array([[one, other] for _, one, other in wanted] or [[7, 7]]) - 7) // 3
    assert found.involved == (len(set(owners[places].ravel().tolist())) if wanted else 0)
    uppers = [*found.edges[1:], np.inf]
    for low, high, count in zip(found.edges, uppers, found.counts, strict=True):
        assert count == np.count_nonzero((cosines >= low) & (cosines < high)), low
    assert found.edges[0] == pytest.approx(threshold - 0.1)
    assert threshold in found.edges


def test_few_directions_are_enough_where_vectors_lie_near_them() -> None:
    vectors = np.zeros((ROWS, 128), "<f2")
    vectors[:, :30] = crowd(1, dimension=30)
    flat = separability(Identities(rows=gathered(vectors), owners=np.arange(ROWS)), threshold=0.9)
    assert flat.directions == 32
    assert told(flat) == brute(vectors, np.arange(ROWS), 0.9)


@pytest.mark.usefixtures("in_small_blocks")
def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    identities = Identities(rows=gathered(crowd(2)), owners=np.arange(ROWS))
    whole = separability(identities, threshold=0.7)

    class Cut(Exception):  # noqa: N818
        pass

    def cut(done: int, _: int) -> None:
        if done == 2:
            raise Cut

    with pytest.raises(Cut):
        separability(identities, threshold=0.7, folder=tmp_path / "work", progress=cut)
    kept = sorted((tmp_path / "work").iterdir())
    assert len(kept) == 2
    seen = [path.stat().st_mtime_ns for path in kept]

    def looks(done: int, _: int) -> None:
        if done == 2:
            assert [path.stat().st_mtime_ns for path in kept] == seen

    again = separability(identities, threshold=0.7, folder=tmp_path / "work", progress=looks)
    assert told(again) == told(whole)
    assert again.counts.tolist() == whole.counts.tolist()
    assert not (tmp_path / "work").exists()


@pytest.mark.usefixtures("in_small_blocks")
def test_work_of_other_rows_is_not_gone_on_with(tmp_path: Path) -> None:
    def cut(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    before = Identities(rows=gathered(crowd(2)), owners=np.arange(ROWS))
    with pytest.raises(KeyboardInterrupt):
        separability(before, threshold=0.7, folder=tmp_path / "work", progress=cut)
    vectors = crowd(3)
    after = Identities(rows=gathered(vectors), owners=np.arange(ROWS))
    found = separability(after, threshold=0.7, folder=tmp_path / "work")
    assert told(found) == brute(vectors, np.arange(ROWS), 0.7)


def test_too_many_pairs_are_refused_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS_MAX", 100)
    identities = Identities(rows=gathered(crowd(4)), owners=np.arange(ROWS))
    with pytest.raises(LimitExceededError, match=r"reach 0\.0000"):
        separability(identities, threshold=0.0)


@pytest.mark.parametrize("rows", [0, 1])
def test_nobody_and_one_alone_make_no_pair(rows: int) -> None:
    found = separability(
        Identities(rows=gathered(crowd(0)[:rows]), owners=np.arange(rows)), threshold=0.5
    )
    assert (found.compared, found.highest, len(found.ones)) == (0, None, 0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 5),
    below=st.floats(0.05, 0.999),
    count=st.integers(1, 400),
    shuffle=st.integers(0, 2**16),
)
def test_a_sample_is_what_greedy_choice_gives(
    seed: int, below: float, count: int, shuffle: int
) -> None:
    vectors = crowd(seed, rows=300)
    order = np.random.default_rng(shuffle).permutation(300)
    cosines = all_cosines(vectors)
    wanted: list[int] = []
    for row in order.tolist():
        if len(wanted) < count and not (cosines[row, wanted] >= below).any():
            wanted.append(row)
    found = sampled_apart(gathered(vectors), order, count=count, below=below)
    assert found.tolist() == wanted


def test_a_sample_of_more_blocks_than_one_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, order = crowd(5), np.random.default_rng(1).permutation(ROWS)
    whole = sampled_apart(gathered(vectors), order, count=ROWS, below=0.6)
    monkeypatch.setattr("retrieval.curation.sampling.TOGETHER", 37)
    monkeypatch.setattr("retrieval.curation.sampling.BLOCK_ROWS", 50)
    assert sampled_apart(gathered(vectors), order, count=ROWS, below=0.6).tolist() == whole.tolist()
    assert len(whole) > 50
    left = np.setdiff1d(np.arange(ROWS), whole)
    assert (all_cosines(vectors)[np.ix_(left, whole)].max(axis=1) >= 0.6).all()


def test_a_pair_at_the_threshold_to_the_bit_reaches_it() -> None:
    vectors = crowd(0)[:2]
    between = float(all_cosines(vectors)[0, 1])
    for below, kept in ((between, 1), (float(np.nextafter(between, 2)), 2)):
        found = sampled_apart(gathered(vectors), np.arange(2), count=2, below=below)
        assert len(found) == kept
        pairs = separability(
            Identities(rows=gathered(vectors), owners=np.arange(2)), threshold=below
        )
        assert len(pairs.ones) == 2 - kept
