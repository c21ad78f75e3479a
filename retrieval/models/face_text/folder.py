"""A face-text model is a folder, named like its space: `model.json` and the files that it names.

    FACEDEX_HOME/models/looks@1/
      model.json   format, kind, space, dimension, licence, commercial, sha256 of every other file
      light.npz, image.onnx                                          kind light (light.py)
      open_clip_config.json, open_clip_model.safetensors, heads.npz   kind open_clip (open_clip.py)

The sha256 of model.json is the space's: it covers all files, so equal spaces are equal models. A
folder is written beside its place and renamed, and never changed afterwards.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from retrieval.errors import LicenceError, ModelUnavailableError, UsageError
from retrieval.limits import VECTOR_DIMENSION_MAX
from retrieval.models.ports import Provenance
from retrieval.settings import Use
from retrieval.values import Space, SpaceId

FORMAT: Final = 1
MODEL_FILE: Final = "model.json"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,48}@[1-9][0-9]{0,8}")


class ModelKind(StrEnum):
    """What reads the folder."""

    LIGHT = "light"
    OPEN_CLIP = "open_clip"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a folder says of its model."""

    kind: ModelKind
    space: str  # looks@1
    dimension: int
    licence: str
    commercial: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A folder that was read; its files are checked when they are opened."""

    path: Path
    about: About
    files: Mapping[str, str]  # name -> sha256
    sha256: str  # of model.json

    @property
    def space(self) -> Space:
        """The space of the model's vectors; the id is 0, for the store gives ids."""
        return Space(
            id=SpaceId(0),
            name=self.about.space,
            dimension=self.about.dimension,
            model_sha256=self.sha256,
            licence=self.about.licence,
            commercial=self.about.commercial,
        )

    @property
    def provenance(self) -> Provenance:
        """What `doctor` and the notice of an ingest show."""
        return Provenance(
            name=self.about.space,
            sha256=self.sha256,
            licence=self.about.licence,
            commercial=self.about.commercial,
        )

    def read(self, name: str) -> bytes:
        """A file of the model, its hash compared.

        Raises:
            ModelUnavailableError: it is missing, or is another file than the one that was written.
        """
        try:
            content = (self.path / name).read_bytes()
        except OSError as cause:
            raise ModelUnavailableError(
                f"{self.path / name} cannot be read: {cause.strerror}"
            ) from cause
        self._compare(name, hashlib.sha256(content).hexdigest())
        return content

    def checked(self, name: str) -> Path:
        """Where a file lies that its library opens itself; errors are those of `read`."""
        path = self.path / name
        self._compare(name, sha256_of(path))
        return path

    def _compare(self, name: str, sha256: str) -> None:
        if self.files.get(name) != sha256:
            raise ModelUnavailableError(
                f"{self.path / name} is not the file that {MODEL_FILE} names: the model is damaged"
            )


def models_of(home: Path) -> Path:
    """Where the models of a home lie."""
    return home / "models"


def folder_of(models: Path, space: str) -> Path:
    """Where the model of a space lies below `FACEDEX_HOME/models`, if it is there."""
    return models / space


def next_version(models: Path, name: str) -> str:
    """The space name for one more version of a model: the first is NAME@1.

    Raises:
        UsageError: the name cannot be that of a model.
    """
    versions = (path.name.removeprefix(f"{name}@") for path in models.glob(f"{name}@*"))
    taken = [int(version) for version in versions if version.isdecimal()]
    return _checked_name(f"{name}@{max(taken, default=0) + 1}")


def model_folders(models: Path) -> list[Path]:
    """Every folder of a model below `FACEDEX_HOME/models`, by name."""
    return sorted(path.parent for path in models.glob(f"*/{MODEL_FILE}"))


def read_folder(path: Path) -> ModelFolder:
    """Read what a folder says of its model.

    Raises:
        ModelUnavailableError: it is no folder of a model, or of a newer format.
    """
    try:
        content = (path / MODEL_FILE).read_bytes()
        told: dict[str, Any] = json.loads(content)
        if told["format"] != FORMAT:
            raise ModelUnavailableError(
                f"{path} has format {told['format']}; this program reads {FORMAT}"
            )
        about = About(
            kind=ModelKind(told["kind"]),
            space=_checked_name(str(told["space"])),
            dimension=_checked_dimension(told["dimension"]),
            licence=str(told["licence"]),
            commercial=bool(told["commercial"]),
        )
        files = {_checked_file(name): str(digest) for name, digest in told["files"].items()}
    except OSError as cause:
        raise ModelUnavailableError(f"{path} holds no face-text model: {cause.strerror}") from cause
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as cause:
        raise ModelUnavailableError(f"{path / MODEL_FILE} cannot be read: {cause}") from cause
    sha256 = hashlib.sha256(content).hexdigest()
    return ModelFolder(path=path, about=about, files=files, sha256=sha256)


@contextmanager
def new_folder(models: Path, about: About) -> Iterator[Path]:
    """A folder to write a model's files into; it becomes `models/SPACE` when the block ends.

    Where the block raises, nothing is left.

    Raises:
        UsageError: the name is no `NAME@VERSION`, or is another model's already.
    """
    place = folder_of(models, _checked_name(about.space))
    models.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=models))
    try:
        yield staged
        _describe(staged, about)
        _publish(staged, place)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def installed(source: ModelFolder, *, models: Path) -> ModelFolder:
    """The same model below `models`, copied there if it lies elsewhere; hashes are compared.

    Raises:
        ModelUnavailableError: a file is damaged.
        UsageError: another model has this name there.
    """
    place = folder_of(models, source.about.space)
    if source.path.resolve() != place.resolve():
        with new_folder(models, source.about) as folder:
            for name in source.files:
                shutil.copyfile(source.checked(name), folder / name)
    return read_folder(place)


def require_licence(folder: ModelFolder, use: Use) -> None:
    """Raise LicenceError where the model may not be used so."""
    if use == "commercial" and not folder.about.commercial:
        raise LicenceError(
            f"the face-text model {folder.about.space} may not be used commercially"
            f" ({folder.about.licence}): train one on pictures of your own, or take the space away"
        )


def sha256_of(path: Path) -> str:
    """Of a file, in hex; ModelUnavailableError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as cause:
        raise ModelUnavailableError(f"{path} cannot be read: {cause.strerror}") from cause


def _describe(folder: Path, about: About) -> None:
    """Write model.json over the files that lie there, all of them on the disk."""
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    described = {"format": FORMAT, **asdict(about), "files": files}
    path = folder / MODEL_FILE
    path.write_text(json.dumps(described, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for one in (*folder.iterdir(), folder):
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _publish(staged: Path, place: Path) -> None:
    staged.chmod(0o755)  # mkdtemp lets nobody else in
    try:
        staged.rename(place)  # onto a folder that holds files it fails: nothing is replaced
    except OSError as cause:
        try:
            same = read_folder(place).sha256 == sha256_of(staged / MODEL_FILE)
        except ModelUnavailableError:
            same = False
        if not same:
            raise UsageError(
                f"{place} is there already and holds another model: take another version"
            ) from cause


def _checked_name(space: str) -> str:
    if not _NAME.fullmatch(space):
        raise UsageError(
            f"'{space}' cannot name a face-text space: write NAME@VERSION, such as looks@1"
        )
    return space


def _checked_dimension(dimension: Any) -> int:
    if not 1 <= int(dimension) <= VECTOR_DIMENSION_MAX:
        raise ValueError(f"a dimension of {dimension}")
    return int(dimension)


def _checked_file(name: str) -> str:
    # What a stranger's folder lists must not lead out of it.
    if Path(name).name != name or name in {"", ".", "..", MODEL_FILE}:
        raise ValueError(f"a file called '{name}'")
    return name
