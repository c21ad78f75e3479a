"""Files that appear under their name when they are whole, or not at all."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retrieval.errors import FacedexError, UsageError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place at the end; gone if anything fails."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield staged
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FacedexError(f"{path.parent} is full: free space, and try again") from cause
        told = os.strerror(cause.errno) if cause.errno else cause.strerror
        raise UsageError(f"{path} cannot be written: {told}") from cause
    finally:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
