"""The one place that opens onnxruntime sessions.

onnxruntime 1.31 keeps a device identifier and a telemetry store under ~/.cache and uploads events.
Only the environment variable, set before the first import, prevents that: the function of the same
purpose comes too late (tried). So nothing else in this program imports onnxruntime, and it is
imported when the first network is opened.
"""

import os
from enum import StrEnum
from types import ModuleType
from typing import Any, Final, assert_never

from retrieval.errors import DeviceUnavailableError, ModelUnavailableError
from retrieval.values import Floats

_ERRORS_ONLY: Final = 3


class Device(StrEnum):
    """What a network runs on."""

    CPU = "cpu"
    CUDA = "cuda"


class Session:
    """An open network with one input. Several threads may use it at once."""

    def __init__(self, model: bytes, *, threads: int, device: Device) -> None:
        """Open a network from the bytes of its ONNX file.

        Args:
            model: the bytes themselves, so that what was hashed is what runs.
            threads: threads for one run.
            device: where it runs; there is no silent fall-back.

        Raises:
            DeviceUnavailableError: the GPU was asked for and is not there.
            ModelUnavailableError: onnxruntime cannot open the file.
        """
        runtime = _runtime()
        provider = _provider(device, runtime.get_available_providers())
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # Idle threads that spin take the processor from the other processes of an ingest.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Weights that are stored in 8 bits are unpacked once, not in each run: SFace 50 -> 24 ms.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            opened = runtime.InferenceSession(model, options, providers=[provider])
        except Exception as cause:  # onnxruntime has no common base class
            raise ModelUnavailableError(f"onnxruntime cannot open a network: {cause}") from cause
        if provider not in opened.get_providers():
            raise DeviceUnavailableError(f"onnxruntime fell back from {provider} to the processor")
        self._opened: Any = opened
        self._input: str = opened.get_inputs()[0].name
        # Text stands for a side that is not fixed.
        self.input_shape: list[int | str] = opened.get_inputs()[0].shape

    def run(self, batch: Floats) -> list[Floats]:
        """The outputs for a batch, in the order of the network."""
        outputs: list[Floats] = self._opened.run(None, {self._input: batch})
        return outputs


def _runtime() -> ModuleType:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # noqa: TID251  # written for the library, not read
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    module: ModuleType = onnxruntime
    return module


def _provider(device: Device, available: list[str]) -> str:
    match device:
        case Device.CPU:
            return "CPUExecutionProvider"
        case Device.CUDA:
            if "CUDAExecutionProvider" not in available:
                raise DeviceUnavailableError
            return "CUDAExecutionProvider"
        case _:
            assert_never(device)
