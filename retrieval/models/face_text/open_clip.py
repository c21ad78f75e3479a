"""Any network of open_clip, from local weights: what its `local-dir:` schema reads, and heads.

    open_clip_config.json, open_clip_model.safetensors, tokenizer files    as open_clip saves them
    heads.npz                                                              ours; may be missing

The networks see a portrait as any other picture, prepared as open_clip's own transform does it.
Tags are told by linear heads over the image vector. Weights are read from safetensors alone: a
pickle runs whatever its author wrote. Everything of torch is imported when a model is opened.
"""

import importlib.metadata
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from retrieval.errors import DeviceUnavailableError, ModelUnavailableError, UsageError
from retrieval.limits import TEXT_BYTES_MAX, VECTOR_DIMENSION_MAX, within
from retrieval.models.catalogue import LOCAL_LICENCE
from retrieval.models.face_text.folder import (
    About,
    ModelFolder,
    ModelKind,
    new_folder,
    read_folder,
)
from retrieval.models.face_text.gap import corrected, no_gap
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
        # The tanh form of the logistic function does not overflow.
        chances: Floats = (0.5 + 0.5 * np.tanh(raw / 2)).astype(np.float32)
        return chances

    def write(self, folder: Path) -> None:
        """Write them into the folder of a model."""
        arrays = {name: np.asarray(value) for name, value in asdict(self).items()}
        np.savez(folder / HEADS_FILE, **arrays)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClip:
    """A network of open_clip with what it is fed by."""

    network: Any  # torch.nn.Module in evaluation mode
    prepare: Any  # a PIL picture to a tensor
    tokenize: Any  # sentences to a tensor of tokens


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
        self._device = device
        self._clip = open_local(folder.path, device=device)
        _torch().set_num_threads(threads)

    def of_faces(self, portraits: Pixels) -> FaceTextReading:
        """Vectors and tags of portraits (see `FaceTextEncoder`)."""
        torch, clip, heads = _torch(), self._clip, self._heads
        rows = [np.empty((0, self.space.dimension), np.float32)]
        for first in range(0, len(portraits), AT_ONCE):
            few = portraits[first : first + AT_ONCE]
            batch = torch.stack([clip.prepare(Image.fromarray(one)) for one in few])
            with torch.inference_mode():
                found = clip.network.encode_image(batch.to(str(self._device)))
            rows.append(found.float().cpu().numpy())
        faces = _units(np.concatenate(rows))
        return FaceTextReading(
            vectors=corrected(faces, heads.gap_faces), tags=heads.tags, chances=heads.chances(faces)
        )

    def of_texts(self, texts: Sequence[str]) -> UnitRows:
        """Vectors of sentences (see `FaceTextEncoder`)."""
        torch, clip = _torch(), self._clip
        rows = [np.empty((0, self.space.dimension), np.float32)]
        readable = [text.encode("utf-8", "replace").decode() for text in texts]
        for text in readable:
            within(TEXT_BYTES_MAX, len(text.encode()), what="the size of a sentence in bytes")
        for first in range(0, len(readable), AT_ONCE):
            tokens = clip.tokenize(readable[first : first + AT_ONCE])
            with torch.inference_mode():
                found = clip.network.encode_text(tokens.to(str(self._device)))
            rows.append(found.float().cpu().numpy())
        return corrected(_units(np.concatenate(rows)), self._heads.gap_texts)


def open_local(path: Path, *, device: Device) -> OpenClip:
    """Open what lies in a folder of open_clip.

    Raises:
        ModelUnavailableError: open_clip is not installed, or cannot open it.
        DeviceUnavailableError: the GPU was asked for and is not there.
    """
    library, torch = _open_clip(), _torch()
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
    return OpenClip(network=network.eval(), prepare=prepare, tokenize=tokenize)


def wrapped(
    source: Path, *, space: str, licence: str | None, commercial: bool, models: Path
) -> ModelFolder:
    """Make a folder of open_clip a model of ours below `models`; nothing is learned.

    Args:
        source: holds open_clip_config.json and open_clip_model.safetensors.
        space: NAME@VERSION.
        licence: of the weights; None: nobody said.
        commercial: whether it allows commercial use.
        models: where models lie.

    Raises:
        ModelUnavailableError: the folder does not hold these files, or they do not fit together.
        UsageError: the name is no `NAME@VERSION`, or is another model's already.
    """
    about = About(
        kind=ModelKind.OPEN_CLIP,
        space=space,
        dimension=_dimension(source),
        licence=licence or LOCAL_LICENCE,
        commercial=commercial,
    )
    if not (source / WEIGHTS_FILE).is_file():
        raise ModelUnavailableError(f"{source} holds no {WEIGHTS_FILE}")
    open_local(source, device=Device.CPU)  # what cannot be opened is no model
    with new_folder(models, about) as folder:
        for name in (CONFIG_FILE, WEIGHTS_FILE, *TOKENIZER_FILES):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    return read_folder(models / space)


def read_heads(folder: ModelFolder) -> ClipHeads:
    """The heads of an open_clip model; where none were learned, no gap and no tags.

    Raises:
        ModelUnavailableError: the file is damaged, or its arrays do not fit the model.
    """
    dimension = folder.about.dimension
    if HEADS_FILE not in folder.files:
        gap, none = no_gap(dimension), np.zeros(0, np.float32)
        return ClipHeads(
            gap_faces=gap.faces,
            gap_texts=gap.texts,
            tags=(),
            tag_weights=np.zeros((dimension, 0), np.float32),
            tag_bias=none,
            tag_thresholds=none,
        )
    try:
        with np.load(io.BytesIO(folder.read(HEADS_FILE)), allow_pickle=False) as stored:
            arrays = {field.name: stored[field.name] for field in fields(ClipHeads)}
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as cause:
        raise ModelUnavailableError(f"{HEADS_FILE} of {folder.path} is unreadable") from cause
    tags = tuple(str(tag) for tag in arrays.pop("tags"))
    heads = ClipHeads(tags=tags, **{n: a.astype(np.float32) for n, a in arrays.items()})
    expected = {
        "gap_faces": (dimension,),
        "gap_texts": (dimension,),
        "tag_weights": (dimension, len(tags)),
        "tag_bias": (len(tags),),
        "tag_thresholds": (len(tags),),
    }
    for name, shape in expected.items():
        found: Floats = getattr(heads, name)
        if found.shape != shape:
            raise ModelUnavailableError(
                f"{name} in {HEADS_FILE} of {folder.path} is {found.shape}, not {shape}"
            )
    return heads


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


def _torch() -> Any:
    try:
        import torch
    except ImportError as cause:
        raise ModelUnavailableError(_EXTRA) from cause
    return torch


def _open_clip() -> Any:
    """The library; it imports torchvision, whose compiled part may be one for CUDA."""
    torch = _torch()
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
