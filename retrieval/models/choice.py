"""Which models run, by name, by folder or by what the licence allows; and opening them.

    name      detector     identity           space              licence
    --------  -----------  -----------------  -----------------  -----------------------
    arcface   SCRFD-500m   w600k_mbf          arcface-mbf@1      non-commercial research
    sface     YuNet        SFace              sface@1            Apache-2.0
    a folder  det_, scrfd_ w600k_, glintr100  FILE-SHA256[:8]@1  taken as research only

Weights are recognised by their hash, not by where they lie: a folder that holds the packaged files
gives vectors of the packaged space.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from retrieval.errors import LicenceError, ModelUnavailableError, UsageError
from retrieval.models import catalogue
from retrieval.models.catalogue import KnownWeights, ReadWeights
from retrieval.models.ports import (
    AttributeEstimator,
    FaceDetector,
    FaceEmbedder,
    FaceTextEncoder,
    Provenance,
)
from retrieval.models.session import Device
from retrieval.settings import Use
from retrieval.values import Space, SpaceId

if TYPE_CHECKING:
    from retrieval.models.reader import FaceReader

RESEARCH_DEFAULT: Final = "arcface"
COMMERCIAL_DEFAULT: Final = "sface"
# What InsightFace's packs call their files: buffalo_l, buffalo_s, antelopev2.
_DETECTORS: Final = ("det_*.onnx", "scrfd_*.onnx")
_EMBEDDERS: Final = ("w600k_*.onnx", "glintr100.onnx")
_SPACES: Final = {
    catalogue.W600K_MBF.sha256: ("arcface-mbf@1", 512),
    catalogue.SFACE.sha256: ("sface@1", 128),
}
_PACK_DIMENSION: Final = 512  # of every identity network in InsightFace's packs
_UNSAVED: Final = SpaceId(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """What is asked for; equal choices load equal models."""

    name: str = ""  # arcface, sface or a folder; "": what `use` allows
    use: Use = "research"
    demographics: bool = False  # whether age and gender are estimated too
    threads: int = 1  # for one picture; two processes take 12 % less CPU than two threads
    device: Device = Device.CPU
    face_text: Path | None = None  # folder of a face-text model that reads the faces too


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    detector: ReadWeights
    embedder: ReadWeights


def load_models(choice: ModelChoice) -> "FaceReader":
    """Open the networks that were chosen; takes 0.5 s, libraries included.

    Raises:
        UsageError: the name is neither known nor a folder.
        LicenceError: the use is commercial and the weights are for research only.
        ModelUnavailableError: weights are missing, or are not the pinned ones.
        DeviceUnavailableError: the GPU was asked for and is not there.
    """
    from retrieval.models.reader import FaceReader

    pair = _chosen(choice)
    return FaceReader(
        detector=_detector(pair.detector, choice),
        embedder=_embedder(pair.embedder, choice),
        estimator=_estimator(choice) if choice.demographics else None,
        face_text=None if choice.face_text is None else load_face_text_model(choice),
    )


def load_face_text_model(choice: ModelChoice) -> FaceTextEncoder:
    """Open the face-text model that was chosen, alone; errors are those of `load_models`."""
    from retrieval.models.face_text.opening import load_face_text

    if choice.face_text is None:
        raise UsageError("no face-text model was chosen")
    return load_face_text(
        choice.face_text, use=choice.use, threads=choice.threads, device=choice.device
    )


def space_of_models(choice: ModelChoice) -> Space:
    """The space that `load_models` would read faces into; opens no network. Its id is 0."""
    return _space(_chosen(choice).embedder.provenance)


def _detector(weights: ReadWeights, choice: ModelChoice) -> FaceDetector:
    from retrieval.models.scrfd import Scrfd
    from retrieval.models.yunet import YuNet

    kind = YuNet if weights.provenance.sha256 == catalogue.YUNET.sha256 else Scrfd
    return kind(
        weights.model,
        provenance=weights.provenance,
        threads=choice.threads,
        device=choice.device,
    )


def _embedder(weights: ReadWeights, choice: ModelChoice) -> FaceEmbedder:
    from retrieval.models.arcface import ArcFace
    from retrieval.models.sface import SFace

    kind = SFace if weights.provenance.sha256 == catalogue.SFACE.sha256 else ArcFace
    return kind(
        weights.model,
        provenance=weights.provenance,
        space=_space(weights.provenance),
        threads=choice.threads,
        device=choice.device,
    )


def _estimator(choice: ModelChoice) -> AttributeEstimator:
    from retrieval.models.age_gender import AgeGender

    return AgeGender(
        age=catalogue.read_known(catalogue.AGE),
        gender=catalogue.read_known(catalogue.GENDER),
        threads=choice.threads,
        device=choice.device,
    )


def _space(provenance: Provenance) -> Space:
    stem = provenance.name.removesuffix(".onnx")
    own = (f"{stem}-{provenance.sha256[:8]}@1", _PACK_DIMENSION)
    name, dimension = _SPACES.get(provenance.sha256, own)
    return Space(
        id=_UNSAVED,
        name=name,
        dimension=dimension,
        model_sha256=provenance.sha256,
        licence=provenance.licence,
        commercial=provenance.commercial,
    )


def _chosen(choice: ModelChoice) -> _Pair:
    default = COMMERCIAL_DEFAULT if choice.use == "commercial" else RESEARCH_DEFAULT
    match choice.name or default:
        case "arcface":
            return _packaged(catalogue.SCRFD_500M, catalogue.W600K_MBF, choice)
        case "sface":
            return _packaged(catalogue.YUNET, catalogue.SFACE, choice)
        case name if Path(name).is_dir():
            return _in_folder(Path(name), choice)
        case name:
            raise UsageError(
                f"no models are called '{name}', and it is no folder: choose arcface, sface, or a"
                " folder with an InsightFace pack"
            )


def _packaged(detector: KnownWeights, embedder: KnownWeights, choice: ModelChoice) -> _Pair:
    # Asked first: whoever may not use them need not install them.
    _require_licence(choice, detector.name, permitted=detector.commercial)
    _require_licence(choice, embedder.name, permitted=embedder.commercial)
    return _Pair(detector=catalogue.read_known(detector), embedder=catalogue.read_known(embedder))


def _in_folder(folder: Path, choice: ModelChoice) -> _Pair:
    pair = _Pair(
        detector=catalogue.read_local(_only(folder, _DETECTORS)),
        embedder=catalogue.read_local(_only(folder, _EMBEDDERS)),
    )
    for weights in (pair.detector.provenance, pair.embedder.provenance):
        _require_licence(choice, weights.name, permitted=weights.commercial)
    return pair


def _only(folder: Path, patterns: tuple[str, ...]) -> Path:
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise ModelUnavailableError(
            f"{folder} must hold exactly one {' or '.join(patterns)}; there are: {listed}"
        )
    return found[0]


def _require_licence(choice: ModelChoice, name: str, *, permitted: bool) -> None:
    if choice.use == "commercial" and not permitted:
        raise LicenceError(
            f"the weights {name} may not be used commercially: choose --models sface"
        )
