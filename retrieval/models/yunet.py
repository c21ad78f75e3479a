"""YuNet: boxes and five landmarks, on OpenCV.

Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023; Apache-2.0. OpenCV has the
decoding built in, and runs the 8-bit file that the package carries; onnxruntime refuses to (it has
scales in blocks on single numbers).
"""

import threading
from typing import Final

import cv2
import numpy as np

from retrieval.errors import DeviceUnavailableError, ModelUnavailableError
from retrieval.models.ports import Provenance
from retrieval.models.session import Device
from retrieval.values import Box, Detection, Floats, Pixels

# The main face of 1,580 LFW pictures never scores below 0.85. Of the 46 other finds that score 0.6
# to 0.7, 44 have vectors as short as those of no face. OpenCV's class says 0.6, its sample 0.9.
SCORE_MIN: Final = 0.7
OVERLAP_MAX: Final = 0.3  # the default of OpenCV's class
CANDIDATES_MAX: Final = 5_000  # before overlapping ones are dropped; OpenCV's default


class YuNet:
    """OpenCV's face detector."""

    def __init__(
        self, model: bytes, *, provenance: Provenance, threads: int, device: Device
    ) -> None:
        if device is not Device.CPU:
            raise DeviceUnavailableError("YuNet runs on the processor only")
        self.provenance = provenance
        # OpenCV has one number of threads for the whole process.
        cv2.setNumThreads(threads)
        # OpenCV 5 warns at each opening that it chooses its target itself.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._detector = cv2.FaceDetectorYN.create(
                "onnx",
                np.frombuffer(model, np.uint8),
                np.empty(0, np.uint8),
                (320, 320),
                SCORE_MIN,
                OVERLAP_MAX,
                CANDIDATES_MAX,
            )
        except cv2.error as cause:
            raise ModelUnavailableError(f"OpenCV cannot open {provenance.name}") from cause
        # The detector keeps the size of its input between two calls.
        self._lock = threading.Lock()

    def detect(self, pixels: Pixels) -> list[Detection]:
        """The faces of one picture (see `FaceDetector`)."""
        height, width = pixels.shape[:2]
        blue_first = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        with self._lock:
            self._detector.setInputSize((width, height))
            _, rows = self._detector.detect(blue_first)
        return [] if rows is None else [_detection(row) for row in rows]


def _detection(row: Floats) -> Detection:
    """From OpenCV's row: left, top, width, height, five landmarks, score."""
    left, top, width, height = (float(number) for number in row[:4])
    landmarks = row[4:14].reshape(5, 2).astype(np.float32)
    landmarks.setflags(write=False)
    return Detection(
        box=Box(left=left, top=top, right=left + width, bottom=top + height),
        landmarks=landmarks,
        score=float(row[14]),
    )
