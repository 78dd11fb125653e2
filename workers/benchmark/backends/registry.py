"""The backends by their names in a spec."""

from collections.abc import Callable

from workers.benchmark.backends.backend import Availability, Backend
from workers.benchmark.backends.onnx_runtime import CPU, CUDA, OnnxRuntime
from workers.benchmark.backends.openvino import OpenVino

AUTO = "onnxruntime"
"""What `auto` means: it runs on every machine, and its file is the one that is delivered."""


def backend_of(name: str, device: str) -> Backend:
    """The backend `name` on `device`, `cpu` or `cuda`. Raises KeyError for another name."""
    return _MAKERS[AUTO if name == "auto" else name](device)


def availability(device: str) -> list[Availability]:
    """Of every backend, whether it can run here and why not."""
    return [Availability(name, backend_of(name, device).why_not()) for name in _MAKERS]


def _torch(mode: str) -> Callable[[str], Backend]:
    def make(device: str) -> Backend:
        from workers.benchmark.backends.torch_program import TorchProgram  # heavy: only where asked for

        return TorchProgram(mode, device)  # type: ignore[arg-type]

    return make


_MAKERS: dict[str, Callable[[str], Backend]] = {
    "onnxruntime": lambda device: OnnxRuntime(CUDA if device == "cuda" else CPU),
    "openvino": lambda device: OpenVino(),
    "torch": _torch("eager"),
    "torch-compile": _torch("compile"),
    "torch-sparse": _torch("sparse"),
}
