"""Lists of packages become texts with attributes, each text once, and pieces are computed once."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from benchmarks.filtered.data import embedding, lists, text
from retrieval.errors import UsageError
from retrieval.values import FieldType, HalfRows

DEBIAN = """Package: 0ad
Installed-Size: 28591
Description: Real-time strategy game of ancient warfare
 and this is the long description.
Tag: game::strategy, role::program,
 use::gameplaying
Section: games
Priority: optional

Package: nameless
Description: short

Package: zlib
Description: compression library, for those who compress
Section: libs

"""
PYPI = "name\tversion\tmonth\trank\tsummary\n" + "".join(
    f"pip-{n}\t1.0\t2024-{1 + n % 12:02d}\t{n if n % 2 else ''}\tA summary with {n} in the middle\n"
    for n in range(60)
)
NPM = (
    "name\tversion\tdownloads\tsummary\n"
    "left-pad\t1\t500\tPads a string on its left side\n"
    "copy\t1\t5\treal-time strategy game of ANCIENT warfare\n"
    "broken line\n"
)


def _packages(folder: Path) -> list[lists.Package]:
    for name, said in (("debian", DEBIAN), ("pypi", PYPI), ("npm", NPM)):
        (folder / name).write_text(said, encoding="utf-8")
    read = (lists.debian(folder / "debian"), lists.pypi(folder / "pypi"), lists.npm(folder / "npm"))
    return list(chain(*read))


def _encoder(texts: Sequence[str]) -> HalfRows:
    """A vector that depends on the text alone."""
    seeds = [np.frombuffer(said.encode(), np.uint8) for said in texts]
    rows = [np.random.default_rng(seed).standard_normal(8) for seed in seeds]
    return np.stack(rows).astype(np.float16)


def test_lists_are_read_as_they_are_written(tmp_path: Path):
    packages = _packages(tmp_path)
    assert packages[0] == lists.Package(
        registry="debian",
        name="0ad",
        summary="Real-time strategy game of ancient warfare",
        section="games",
        priority="optional",
        size_kib=28591,
        tags=("game::strategy", "role::program", "use::gameplaying"),
    )
    assert packages[3].released_at == datetime(2024, 1, 1, tzinfo=UTC)
    assert [p.rank for p in packages[3:6]] == [None, 1, None]
    assert packages[-2].downloads == 500


def test_each_text_is_taken_once_and_fewer_are_the_beginning_of_more(tmp_path: Path):
    packages = _packages(tmp_path)
    every = lists.chosen(packages, count=1000)
    assert len(every) == 63  # no short text, and one that two registries tell
    assert {p.registry for p in every[:3]} == {"debian", "npm", "pypi"}
    assert lists.chosen([*packages[:2], *reversed(packages[2:])], count=1000) == every
    assert lists.chosen(packages, count=10) == every[:10]


def test_the_order_of_texts_survives_batches_of_like_length():
    texts = ["x" * (1 + 7 * n % 50) + str(n) for n in range(100)]
    assert np.array_equal(embedding.encoded(texts, _encoder), _encoder(texts))


def test_a_stopped_job_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedding, "PIECE_TEXTS", 10)
    (tmp_path / "model.onnx").write_bytes(b"weights")
    texts = [f"text {n}" for n in range(35)]
    asked: list[str] = []

    def opened(_: Path) -> embedding.Encoder:
        def encode(some: Sequence[str]) -> HalfRows:
            asked.extend(some)
            return _encoder(some)

        return encode

    def vectors(of: list[str]) -> np.ndarray:
        return embedding.embedded(of, model=tmp_path, folder=tmp_path / "p", encoder=opened)

    vectors(texts[:20])
    assert len(asked) == 20
    all_vectors = vectors(texts)
    assert sorted(asked) == sorted(texts)
    assert np.array_equal(vectors(texts), all_vectors)
    assert len(asked) == 35


def test_texts_become_a_set_whose_queries_are_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        text,
        "embedded",
        lambda texts, **_: embedding.unit_rows(_encoder(texts)),
    )
    data = text.text_set(
        _packages(tmp_path), count=100, model=tmp_path, folder=tmp_path, queries=8, tuning=5
    )
    assert (len(data.vectors), len(data.queries), len(data.tuning)) == (50, 8, 5)
    names = [set(t["name"].to_pylist()) for t in (data.table, data.query_table, data.tuning_table)]
    assert sum(map(len, names)) == len(set.union(*names)) == 63
    assert set(data.fields.values()) == set(FieldType) - {FieldType.BOOLEAN}
    assert data.query_table.schema == data.table.schema
    assert data.query_table["position"].null_count == 0


def test_too_few_texts_and_a_folder_without_an_encoder_are_refused(tmp_path: Path):
    packages = _packages(tmp_path)
    with pytest.raises(UsageError, match="63 texts cannot give"):
        text.text_set(packages, count=100, model=tmp_path, folder=tmp_path)
    with pytest.raises(UsageError, match=r"holds no model\.onnx"):
        embedding.model_folder(tmp_path, scratch=tmp_path)
