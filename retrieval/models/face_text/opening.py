"""Opening the folder of a face-text model, whichever kind it is."""

from pathlib import Path
from typing import assert_never

from retrieval.models.face_text.folder import ModelKind, read_folder, require_licence
from retrieval.models.ports import FaceTextEncoder
from retrieval.models.session import Device
from retrieval.settings import Use


def load_face_text(path: Path, *, use: Use, threads: int, device: Device) -> FaceTextEncoder:
    """Open a model's folder.

    Raises:
        LicenceError: the use is commercial and the model is for research only.
        ModelUnavailableError: a file is missing or damaged, or a library is not installed.
        DeviceUnavailableError: the GPU was asked for and is not there.
    """
    folder = read_folder(path)
    require_licence(folder, use)
    match folder.about.kind:
        case ModelKind.LIGHT:
            from retrieval.models.face_text.light import LightEncoder

            return LightEncoder(folder, threads=threads, device=device)
        case ModelKind.OPEN_CLIP:
            from retrieval.models.face_text.open_clip import OpenClipEncoder

            return OpenClipEncoder(folder, threads=threads, device=device)
        case _:
            assert_never(folder.about.kind)
