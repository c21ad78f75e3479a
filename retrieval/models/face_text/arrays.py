"""Trained heads as one file of arrays, whichever model they belong to."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from retrieval.errors import ModelUnavailableError
from retrieval.models.face_text.folder import ModelFolder
from retrieval.values import Floats

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def write_arrays(heads: "DataclassInstance", path: Path) -> None:
    """Write every field under its name."""
    arrays = {name: np.asarray(value) for name, value in asdict(heads).items()}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def read_arrays(folder: ModelFolder, file: str, names: Sequence[str]) -> dict[str, Any]:
    """The arrays of these names: float32, and tuples of text.

    Raises:
        ModelUnavailableError: the file is missing or damaged, or lacks one.
    """
    content = folder.read(file)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: _value(stored[name]) for name in names}
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as cause:
        raise ModelUnavailableError(f"{file} of {folder.path} is unreadable") from cause


def require_shapes(
    heads: object, shapes: Mapping[str, tuple[int, ...]], *, folder: ModelFolder, file: str
) -> None:
    """Raise ModelUnavailableError where a field has another shape."""
    for name, shape in shapes.items():
        found: Floats = getattr(heads, name)
        if found.shape != shape:
            raise ModelUnavailableError(
                f"{name} in {file} of {folder.path} is {found.shape}, not {shape}"
            )


def logistic(raw: Floats) -> Floats:
    """Chances of log odds; the tanh form does not overflow."""
    chances: Floats = (0.5 + 0.5 * np.tanh(raw / 2)).astype(np.float32)
    return chances


def _value(stored: npt.NDArray[Any]) -> Floats | tuple[str, ...]:
    if stored.dtype.kind == "U":
        return tuple(map(str, stored))
    return stored.astype(np.float32)
