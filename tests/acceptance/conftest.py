"""The command line from outside, on an embedded PostgreSQL of its own."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Facedex = Callable[..., Ran]


def run(home: Path, *words: str, folder: Path | None = None, timeout_s: float = 110) -> Ran:
    """Run `facedex` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "facedex", "--home", str(home), *words],
        capture_output=True,
        cwd=folder,
        timeout=timeout_s,
        check=False,
    )
    return Ran(
        status=done.returncode,
        out=done.stdout.decode(errors="replace"),
        err=done.stderr.decode(errors="replace"),
    )


@pytest.fixture
def facedex(home: Path) -> Facedex:
    """The command, on a home of the test's own."""
    return lambda *words, **options: run(home, *words, **options)
