"""ONNX Runtime, on the CPU or on the first GPU."""

from pathlib import Path
from typing import ClassVar

import onnxruntime

from workers.benchmark.backends.backend import Feeds, Session
from workers.cpu import cpu_name

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


class OnnxRuntime:
    """The provider is asked for by name, and a node that it does not take is an error, not a slow detour."""

    suffix: ClassVar[str] = ".onnx"

    def __init__(self, provider: str = CPU) -> None:
        self.provider = provider

    def why_not(self) -> str | None:
        """The CPU is always there."""
        if self.provider in onnxruntime.get_available_providers():
            return None
        return f"this build of ONNX Runtime has no {self.provider}: install onnxruntime-gpu where CUDA is"

    def device(self) -> str:
        """The processor's name, or that of the provider."""
        return cpu_name() if self.provider == CPU else self.provider

    def open(self, model: Path, *, threads: int) -> Session:
        """A session with a fixed number of threads that wait instead of spinning.

        Spinning threads of one session would take the cores from the session whose turn it is.
        https://onnxruntime.ai/docs/performance/tune-performance/threading.html
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self.provider != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return OnnxRuntimeSession(onnxruntime.InferenceSession(model, options, providers=[self.provider]))


class OnnxRuntimeSession:
    """One `InferenceSession`."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def infer(self, feeds: Feeds) -> None:
        """One whole batch."""
        self.session.run(None, dict(feeds))
