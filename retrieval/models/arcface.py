"""ArcFace networks in InsightFace's packing, on onnxruntime: 112 x 112 crops to 512 numbers.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019. Feeding is
that of w600k_mbf, w600k_r50 and glintr100: RGB, (x - 127.5) / 127.5.
"""

from typing import Final

import cv2
import numpy as np

from retrieval.align import CROP_SIDE_PX
from retrieval.errors import ModelUnavailableError
from retrieval.models.catalogue import W600K_MBF
from retrieval.models.ports import Provenance
from retrieval.models.session import Device, Session
from retrieval.quality import Recognisability
from retrieval.values import Floats, Pixels, Space

# Fitted on LFW, by the hash of the weights; other networks have others.
RECOGNISABLE: Final = {
    W600K_MBF.sha256: Recognisability(
        typical_norm=24.0,
        full_score=0.6,
        norm=15.14,
        size=4.83,
        score=16.63,
        sharpness=2.45,
        best=6.09,
    )
}
# A processor gains nothing from batches (1: 21 ms a crop, 16: 23 ms), a GPU needs them.
CROPS_AT_ONCE: Final = {Device.CPU: 1, Device.CUDA: 64}
_SIZE: Final = (CROP_SIDE_PX, CROP_SIDE_PX)


class ArcFace:
    """An identity network of InsightFace."""

    def __init__(
        self, model: bytes, *, provenance: Provenance, space: Space, threads: int, device: Device
    ) -> None:
        self.provenance = provenance
        self.space = space
        self.recognisability = RECOGNISABLE.get(provenance.sha256)
        self._at_once = CROPS_AT_ONCE[device]
        self._session = Session(model, threads=threads, device=device)

    def embed(self, crops: Pixels) -> Floats:
        """Raw vectors (n, d) of crops (see `FaceEmbedder`)."""
        dimension = self.space.dimension
        vectors = np.empty((len(crops), dimension), np.float32)
        for first in range(0, len(crops), self._at_once):
            few = list(crops[first : first + self._at_once])
            batch = cv2.dnn.blobFromImages(few, 1 / 127.5, _SIZE, (127.5, 127.5, 127.5))
            found = self._session.run(batch)[0]
            if found.shape != (len(few), dimension):
                raise ModelUnavailableError(
                    f"{self.provenance.name} is no ArcFace network: it gives {found.shape}, not"
                    f" {(len(few), dimension)}"
                )
            vectors[first : first + len(few)] = found
        return vectors
