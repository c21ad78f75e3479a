"""Any network of open_clip, from local weights: what its `local-dir:` schema reads, and heads.

    open_clip_config.json, open_clip_model.safetensors, tokenizer files    as open_clip saves them
    heads.npz                                                              ours; may be missing

The networks see a portrait as any other picture, prepared as open_clip's own transform does it.
Tags are told by linear heads over the image vector. Weights are read from safetensors alone: a
pickle runs whatever its author wrote. Everything of torch is imported when a model is opened.
"""

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from retrieval.errors import DeviceUnavailableError, ModelUnavailableError, UsageError
from retrieval.limits import TEXT_BYTES_MAX, VECTOR_DIMENSION_MAX, within
from retrieval.models.catalogue import LOCAL_LICENCE
from retrieval.models.face_text.arrays import (
    logistic,
    read_arrays,
    require_shapes,
    write_arrays,
)
from retrieval.models.face_text.folder import (
    About,
    ModelFolder,
    ModelKind,
    folder_of,
    new_folder,
    read_folder,
    sha256_of,
)
from retrieval.models.face_text.gap import corrected, learned, no_gap
from retrieval.models.ports import FaceTextReading
from retrieval.models.session import Device
from retrieval.values import Floats, Pixels, UnitRows, unit_rows

CONFIG_FILE: Final = "open_clip_config.json"
WEIGHTS_FILE: Final = "open_clip_model.safetensors"
HEADS_FILE: Final = "heads.npz"
# What tokenizers of Hugging Face are made of; a folder may hold much else.
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
)
AT_ONCE: Final = 32  # portraits or sentences
_EXTRA: Final = "open_clip and torch are not installed: pip install 'facedex[captions]'"
_kept: list[Any] = []  # a library of schemas goes when nobody holds it


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipHeads:
    """What was learned over an open_clip model, float32: d dimensions, a tags."""

    gap_faces: Floats  # (d,) mean of unit vectors of faces
    gap_texts: Floats  # (d,) mean of unit vectors of sentences
    tags: tuple[str, ...]  # a names, may be none
    tag_weights: Floats  # (d, a) over unit vectors of faces, the gap still in them
    tag_bias: Floats  # (a,)
    tag_thresholds: Floats  # (a,) chance from which on the tag is given

    def chances(self, faces: UnitRows) -> Floats:
        """The chance of each tag, (n, a), of unit vectors (n, d) with their gap."""
        raw = faces @ self.tag_weights + self.tag_bias
        return logistic(raw)

    def write(self, folder: Path) -> None:
        """Write them into the folder of a model."""
        write_arrays(self, folder / HEADS_FILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClip:
    """A network of open_clip with what it is fed by."""

    network: Any  # torch.nn.Module in evaluation mode
    prepare: Any  # a PIL picture to a tensor
    tokenize: Any  # sentences to a tensor of tokens
    device: Device

    def faces(self, portraits: Pixels, *, dimension: int) -> UnitRows:
        """Vectors of portraits, (n, d), the gap still in them."""
        torch = torch_library()
        rows = [np.empty((0, dimension), np.float32)]
        for first in range(0, len(portraits), AT_ONCE):
            few = portraits[first : first + AT_ONCE]
            batch = torch.stack([self.prepare(Image.fromarray(one)) for one in few])
            with torch.inference_mode():
                found = self.network.encode_image(batch.to(str(self.device)))
            rows.append(found.float().cpu().numpy())
        return _units(np.concatenate(rows))

    def texts(self, texts: Sequence[str], *, dimension: int) -> UnitRows:
        """Vectors of sentences, (n, d), the gap still in them.

        Raises:
            LimitExceededError: a sentence has more than TEXT_BYTES_MAX bytes.
        """
        torch = torch_library()
        rows = [np.empty((0, dimension), np.float32)]
        readable = [text.encode("utf-8", "replace").decode() for text in texts]
        for text in readable:
            within(TEXT_BYTES_MAX, len(text.encode()), what="the size of a sentence in bytes")
        for first in range(0, len(readable), AT_ONCE):
            tokens = self.tokenize(readable[first : first + AT_ONCE])
            with torch.inference_mode():
                found = self.network.encode_text(tokens.to(str(self.device)))
            rows.append(found.float().cpu().numpy())
        return _units(np.concatenate(rows))


class OpenClipEncoder:
    """An open_clip model that was opened. Several threads may use it at once."""

    def __init__(self, folder: ModelFolder, *, threads: int, device: Device) -> None:
        """Open the network; `threads` is torch's for the whole process.

        Raises:
            ModelUnavailableError: open_clip is not installed, or a file is missing or damaged.
            DeviceUnavailableError: the GPU was asked for and is not there.
        """
        for name in folder.files:
            folder.checked(name)
        self.space = folder.space
        self.provenance = (folder.provenance,)
        self._heads = read_heads(folder)
        self.thresholds = self._heads.tag_thresholds
        self._clip = open_local(folder.path, device=device)
        torch_library().set_num_threads(threads)

    def of_faces(self, portraits: Pixels) -> FaceTextReading:
        """Vectors and tags of portraits (see `FaceTextEncoder`)."""
        heads = self._heads
        faces = self._clip.faces(portraits, dimension=self.space.dimension)
        return FaceTextReading(
            vectors=corrected(faces, heads.gap_faces), tags=heads.tags, chances=heads.chances(faces)
        )

    def of_texts(self, texts: Sequence[str]) -> UnitRows:
        """Vectors of sentences (see `FaceTextEncoder`)."""
        rows = self._clip.texts(texts, dimension=self.space.dimension)
        return corrected(rows, self._heads.gap_texts)


def open_local(path: Path, *, device: Device) -> OpenClip:
    """Open what lies in a folder of open_clip.

    Raises:
        ModelUnavailableError: open_clip is not installed, or cannot open it.
        DeviceUnavailableError: the GPU was asked for and is not there.
    """
    library, torch = clip_library(), torch_library()
    if device is Device.CUDA and not torch.cuda.is_available():
        raise DeviceUnavailableError
    if not (path / WEIGHTS_FILE).is_file():
        raise ModelUnavailableError(f"{path} holds no {WEIGHTS_FILE}")
    name = f"local-dir:{path}"
    try:
        network, prepare = library.create_model_from_pretrained(name, device=str(device))
        tokenize = library.get_tokenizer(name)
    except Exception as cause:  # whatever a network of somebody else's making raises
        raise ModelUnavailableError(f"open_clip cannot open {path}: {cause}") from cause
    return OpenClip(network=network.eval(), prepare=prepare, tokenize=tokenize, device=device)


def wrapped(
    source: Path,
    about: About,
    *,
    models: Path,
    sample: Callable[[], tuple[Pixels, Sequence[str]] | None],
) -> ModelFolder:
    """Make a folder of open_clip a model of ours below `models`.

    One of that name that was made of the same files is taken as it is.

    Args:
        source: holds open_clip_config.json and open_clip_model.safetensors.
        about: what is said of it.
        models: where models lie.
        sample: portraits and sentences that the gap is learned from; None: nothing is subtracted.

    Raises:
        ModelUnavailableError: the folder does not hold these files, or they do not fit together.
        UsageError: the name is no `NAME@VERSION`, or is another model's already.
    """
    if not (source / WEIGHTS_FILE).is_file():
        raise ModelUnavailableError(f"{source} holds no {WEIGHTS_FILE}")
    names = [
        name for name in (CONFIG_FILE, WEIGHTS_FILE, *TOKENIZER_FILES) if (source / name).is_file()
    ]
    place = folder_of(models, about.space)
    if place.is_dir() and _made_of(read_folder(place), source, names, about=about):
        return read_folder(place)
    clip = open_local(source, device=Device.CPU)  # what cannot be opened is no model
    given = sample()
    with new_folder(models, about) as folder:
        for name in names:
            shutil.copyfile(source / name, folder / name)
        if given is not None:
            portraits, texts = given
            faces = clip.faces(portraits, dimension=about.dimension)
            gap = learned(faces, clip.texts(texts, dimension=about.dimension))
            replace(no_heads(about.dimension), gap_faces=gap.faces, gap_texts=gap.texts).write(
                folder
            )
    return read_folder(place)


def about_local(source: Path, *, space: str, licence: str | None, commercial: bool) -> About:
    """What is known of a folder of open_clip.

    Args:
        source: holds open_clip_config.json.
        space: NAME@VERSION.
        licence: of the weights; None: nobody said.
        commercial: whether it allows commercial use.

    Raises:
        ModelUnavailableError: there is no such file, or it cannot be read.
    """
    return About(
        kind=ModelKind.OPEN_CLIP,
        space=space,
        dimension=_dimension(source),
        licence=licence or LOCAL_LICENCE,
        commercial=commercial,
    )


def _made_of(folder: ModelFolder, source: Path, names: Sequence[str], *, about: About) -> bool:
    """Whether a model of ours holds these files of a folder of open_clip."""
    if folder.about != about or set(folder.files) - {HEADS_FILE} != set(names):
        return False
    return all(folder.files[name] == sha256_of(source / name) for name in names)


def read_heads(folder: ModelFolder) -> ClipHeads:
    """The heads of an open_clip model; where none were learned, no gap and no tags.

    Raises:
        ModelUnavailableError: the file is damaged, or its arrays do not fit the model.
    """
    dimension = folder.about.dimension
    if HEADS_FILE not in folder.files:
        return no_heads(dimension)
    heads = ClipHeads(
        **read_arrays(folder, HEADS_FILE, [field.name for field in fields(ClipHeads)])
    )
    tags = heads.tags
    shapes = {
        "gap_faces": (dimension,),
        "gap_texts": (dimension,),
        "tag_weights": (dimension, len(tags)),
        "tag_bias": (len(tags),),
        "tag_thresholds": (len(tags),),
    }
    require_shapes(heads, shapes, folder=folder, file=HEADS_FILE)
    return heads


def no_heads(dimension: int) -> ClipHeads:
    """The heads of a model over which nothing was learned: no gap, no tags."""
    gap, none = no_gap(dimension), np.zeros(0, np.float32)
    return ClipHeads(
        gap_faces=gap.faces,
        gap_texts=gap.texts,
        tags=(),
        tag_weights=np.zeros((dimension, 0), np.float32),
        tag_bias=none,
        tag_thresholds=none,
    )


def _dimension(source: Path) -> int:
    try:
        config = json.loads((source / CONFIG_FILE).read_text(encoding="utf-8"))
        dimension = int(config["model_cfg"]["embed_dim"])
    except OSError as cause:
        raise ModelUnavailableError(f"{source} holds no {CONFIG_FILE}: {cause.strerror}") from cause
    except (ValueError, KeyError, TypeError) as cause:
        raise ModelUnavailableError(f"{source / CONFIG_FILE} cannot be read: {cause}") from cause
    if dimension < 1:
        raise UsageError(f"{source / CONFIG_FILE} tells of {dimension} dimensions")
    return within(VECTOR_DIMENSION_MAX, dimension, what="the dimension of the model")


def _units(rows: Floats) -> UnitRows:
    return unit_rows(rows) if len(rows) else UnitRows(rows)


def torch_library() -> Any:
    """Torch, or ModelUnavailableError with what to install."""
    try:
        import torch
    except ImportError as cause:
        raise ModelUnavailableError(_EXTRA) from cause
    return torch


def clip_library() -> Any:
    """The library; it imports torchvision, whose compiled part may be one for CUDA."""
    torch = torch_library()
    try:
        of_torch, of_vision = map(importlib.metadata.version, ("torch", "torchvision"))
        if of_torch.endswith("+cpu") and not of_vision.endswith("+cpu") and not _kept:
            # Its compiled part does not load then; its Python part asks for two operators of it.
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _kept.append(library)
        import open_clip
    except ImportError as cause:
        raise ModelUnavailableError(_EXTRA) from cause
    return open_clip
