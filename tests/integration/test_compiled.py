"""Compiled kernels are kept between processes, or it is said why not and all works the same."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import retrieval.kernels
from retrieval.kernels import compiled

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from retrieval.kernels import compiled
from retrieval.kernels.bits import count_bits, numbers_of
reason = compiled.use_cache(Path(sys.argv[1]))
again = compiled.use_cache(Path(sys.argv[1]))
words = np.array([5, 0, 1 << 63], np.uint64)
words.setflags(write=False)
rows = np.empty(3, np.int32)
numbers_of(words, rows)
kernels = (count_bits, numbers_of)
print(json.dumps({
    "reason": reason,
    "again": again,
    "count": count_bits(words),
    "rows": rows.tolist(),
    "hits": sum(sum(one.stats.cache_hits.values()) for one in kernels),
    "misses": sum(sum(one.stats.cache_misses.values()) for one in kernels),
}))
"""
RIGHT = {"count": 3, "rows": [0, 2, 191]}


def run(home: Path, *, sources: Path | None = None) -> dict[str, object]:
    """What a fresh process says of itself; `sources` holds the package to import."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(home)],
        capture_output=True,
        check=True,
        cwd=sources,
    )
    told: dict[str, object] = json.loads(done.stdout)
    return told


def compiled_files(home: Path) -> dict[str, int]:
    return {
        path.relative_to(home).as_posix(): path.stat().st_mtime_ns
        for path in (home / "kernels").rglob("*.nb*")
    }


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert first == {**RIGHT, "reason": None, "again": None, "hits": 0, "misses": 2}
    [folder] = (tmp_path / "kernels").iterdir()
    assert folder.name == compiled._fingerprint()
    kept = compiled_files(tmp_path)
    assert len(kept) >= 2
    assert run(tmp_path) == {**RIGHT, "reason": None, "again": None, "hits": 2, "misses": 0}
    assert compiled_files(tmp_path) == kept


def test_a_folder_that_cannot_be_made_is_named_and_everything_works(tmp_path: Path) -> None:
    plain = tmp_path / "file"
    plain.write_text("no folder")
    told = run(plain / "home")
    assert {name: told[name] for name in RIGHT} == RIGHT
    for reason in (told["reason"], told["again"]):
        assert "compiled code is not kept" in str(reason)
        assert str(plain) in str(reason)
    assert plain.read_text() == "no folder"
    assert list(tmp_path.iterdir()) == [plain]


def test_compiled_code_of_other_sources_is_not_used(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    package = Path(retrieval.__file__).parent
    shutil.copytree(package, sources / "retrieval", ignore=shutil.ignore_patterns("__pycache__"))
    home = tmp_path / "home"
    run(home, sources=sources)
    bits = sources / "retrieval" / "kernels" / "bits.py"
    before = compiled_files(home)
    with bits.open("a") as file:
        file.write("\n# another source\n")
    assert run(home, sources=sources) == {
        **RIGHT, "reason": None, "again": None, "hits": 0, "misses": 2
    }  # fmt: skip
    assert len(list((home / "kernels").iterdir())) == 2
    assert before.items() <= compiled_files(home).items()


def test_the_fingerprint_is_that_of_every_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in Path(retrieval.kernels.__file__).parent.glob("*.py"):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    seen = {compiled._fingerprint()}
    assert seen == {compiled._fingerprint()}
    names = sorted(tmp_path.glob("*.py"))
    for source in names:
        source.write_text(source.read_text() + "\n")
        seen.add(compiled._fingerprint())
    assert len(seen) == len(names) + 1


def test_two_processes_may_try_the_folder_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_cached_in", None)
    monkeypatch.setattr(compiled, "_kernels", [])
    monkeypatch.setattr(compiled.config, "CACHE_DIR", compiled.config.CACHE_DIR)
    monkeypatch.setattr(Path, "touch", lambda _: None)  # the other one has removed it again
    assert compiled.use_cache(tmp_path) is None


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
compiled.use_cache(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""


def test_a_disk_that_is_full_keeps_no_kernel_from_working(tmp_path: Path) -> None:
    head, rest = PROGRAM.split("reason = ", 1)
    program = f"{head}{FULL}reason = {rest}"
    words = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-300:]
    told = json.loads(done.stdout)
    assert {name: told[name] for name in RIGHT} == RIGHT


def test_damaged_compiled_code_is_compiled_anew(tmp_path: Path) -> None:
    run(tmp_path)
    for path in (tmp_path / "kernels").rglob("*.nb*"):
        path.write_bytes(path.read_bytes()[:40])
    told = run(tmp_path)
    assert {name: told[name] for name in RIGHT} == RIGHT
