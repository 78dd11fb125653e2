"""Run a TensorRT engine as trtexec does: a CUDA graph, events around each inference, two in flight.

`trt` is the module `tensorrt` and `torch` brings the device's memory, streams, events and graphs. Source:
samples/common/sampleInference.cpp of NVIDIA/TensorRT; the capture is that of torch-tensorrt's engine module.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.benchmark.tensorrt.engine import Shapes, capture_logger

IN_FLIGHT = 2
_DEVICE = "cuda"


class RunFailed(Exception):
    """The engine does not run on this device with these shapes."""


class Execution:
    """One engine on one device, its inputs and outputs in device memory. Raises RunFailed."""

    def __init__(self, trt: Any, torch: Any, plan: bytes, shapes: Shapes) -> None:
        self._trt, self._torch = trt, torch
        self._logger = capture_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise RunFailed(
                "the engine was built for another GPU, driver or version of TensorRT: build it anew"
            )
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise RunFailed("the engine does not fit into the memory of the device: take a smaller batch")
        self.tensors = self._bind(shapes)
        self.stream = torch.cuda.Stream()
        self._graph = self._captured()

    @property
    def uses_graph(self) -> bool:
        """Inferences are launched as one CUDA graph; where that cannot be, each is enqueued."""
        return self._graph is not None

    def infer(self, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Outputs of one batch, on the host."""
        for name, value in feeds.items():
            self.tensors[name].copy_(self._torch.from_numpy(value))
        self._launch()
        self.stream.synchronize()
        return {name: self.tensors[name].cpu().numpy() for name in self._names(self._trt.TensorIOMode.OUTPUT)}

    def times(self, *, warmup_s: float, seconds: float, fewest: int) -> Iterator[tuple[float, float]]:
        """(milliseconds on the device, milliseconds of enqueueing) of each inference after the warm-up."""
        waiting: deque[tuple[Any, Any, float, bool]] = deque()
        began, done = time.perf_counter(), 0
        while done < fewest or time.perf_counter() - began < warmup_s + seconds:
            counts = time.perf_counter() - began >= warmup_s
            waiting.append((*self._timed(), counts))
            done += counts
            if len(waiting) >= IN_FLIGHT:
                yield from self._settled(waiting.popleft())
        while waiting:
            yield from self._settled(waiting.popleft())

    def profile(self, runs: int) -> dict[str, float]:
        """Mean milliseconds by layer, in runs of their own: it slows them, and takes no graph."""
        trt = self._trt

        class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)
                self.sums: dict[str, float] = {}

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                self.sums[layer_name] = self.sums.get(layer_name, 0.0) + ms

        profiler = Profiler()
        self.context.profiler = profiler
        self.context.enqueue_emits_profile = True
        for _ in range(runs):
            self._enqueue()
            self.stream.synchronize()
        return {name: total / runs for name, total in profiler.sums.items()}

    def inspect(self) -> str:
        """The inspector's JSON of all layers."""
        inspector = self.engine.create_engine_inspector()
        inspector.execution_context = self.context
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def _bind(self, shapes: Shapes) -> dict[str, Any]:
        """Set the inputs' shapes, and give every tensor its place on the device."""
        for name in self._names(self._trt.TensorIOMode.INPUT):
            if not self.context.set_input_shape(name, tuple(shapes[name])):
                raise RunFailed(f"the engine does not take '{name}' as {tuple(shapes[name])}")
        missing = self.context.infer_shapes()
        if missing:
            raise RunFailed(f"shapes of {', '.join(missing)} are not known")
        tensors = {}
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            dtype = np.dtype(self._trt.nptype(self.engine.get_tensor_dtype(name)))
            host = np.zeros(tuple(self.context.get_tensor_shape(name)), dtype)
            tensors[name] = self._torch.from_numpy(host).to(_DEVICE)
            self.context.set_tensor_address(name, tensors[name].data_ptr())
        return tensors

    def _names(self, mode: Any) -> list[str]:
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        return [name for name in names if self.engine.get_tensor_mode(name) == mode]

    def _captured(self) -> Any | None:
        """The graph of one inference; None where the engine has operations that a graph cannot hold."""
        self._enqueue()  # plans its memory outside of the capture
        self.stream.synchronize()
        graph = self._torch.cuda.CUDAGraph()
        try:
            with self._torch.cuda.graph(graph, stream=self.stream):
                self._enqueue()
        except (RuntimeError, RunFailed):
            self._torch.cuda.synchronize()
            return None
        return graph

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(self.stream.cuda_stream):
            raise RunFailed("TensorRT could not enqueue the inference")

    def _launch(self) -> None:
        if self._graph is None:
            self._enqueue()
            return
        with self._torch.cuda.stream(self.stream):
            self._graph.replay()

    def _timed(self) -> tuple[Any, Any, float]:
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(self.stream)
        before = time.perf_counter()
        self._launch()
        enqueue_ms = (time.perf_counter() - before) * 1e3
        end.record(self.stream)
        return start, end, enqueue_ms

    @staticmethod
    def _settled(one: tuple[Any, Any, float, bool]) -> Iterator[tuple[float, float]]:
        start, end, enqueue_ms, counts = one
        end.synchronize()
        if counts:
            yield float(start.elapsed_time(end)), enqueue_ms
