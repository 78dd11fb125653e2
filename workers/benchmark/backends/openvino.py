"""OpenVINO on the CPU, where the optional package is installed."""

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

from workers.benchmark.backends.backend import Feeds, Session
from workers.cpu import cpu_name


class OpenVino:
    """Latency mode, float32: the same precision in every arm."""

    suffix: ClassVar[str] = ".onnx"

    def why_not(self) -> str | None:
        """The package is an extra."""
        if importlib.util.find_spec("openvino") is not None:
            return None
        return "the package openvino is not installed: pip install 'secateur[openvino]'"

    def device(self) -> str:
        """The processor's name."""
        return cpu_name()

    def open(self, model: Path, *, threads: int) -> Session:
        """Compile the file for the CPU with so many threads and one stream."""
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        return OpenVinoSession(core.compile_model(core.read_model(model), "CPU", settings))


class OpenVinoSession:
    """One compiled model with one request."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def infer(self, feeds: Feeds) -> None:
        """One whole batch; the arrays are read where they are."""
        self._request.infer(dict(feeds), share_inputs=True, share_outputs=True)
