"""A stand-in for the module `tensorrt` and for torch's CUDA: it notes what it is asked, and answers as told.

It is here since no GPU is: the names that it has are checked against the real bindings in test_bindings.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np


class Flag(IntEnum):
    SPARSE_WEIGHTS = 7
    TF32 = 6
    REFIT = 4


class Mode(IntEnum):
    INPUT = 1
    OUTPUT = 2


@dataclass
class Told:
    """What the code under test did, and what it is to meet."""

    version: str = "10.13.3.9"
    log: tuple[tuple[int, str], ...] = ()
    parse_errors: tuple[Any, ...] = ()
    plan: bytes | None = b"plan"
    input_shape: tuple[int, ...] = (-1, 3)
    takes_engine: bool = True
    has_memory: bool = True
    missing_shapes: tuple[str, ...] = ()
    enqueue_works: Callable[[int], bool] = lambda number: True
    capture_works: bool = True
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    enqueued: int = 0


class Logger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

    def __init__(self) -> None:
        pass

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class Config:
    def __init__(self, told: Told) -> None:
        self._told, self._flags = told, {Flag.TF32}

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._told.calls.append((name, value))
        object.__setattr__(self, name, value)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self._told.calls.append(("workspace", pool, size))

    def set_flag(self, flag: Flag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Flag) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Flag) -> bool:
        return flag in self._flags

    def create_timing_cache(self, data: bytes) -> Any:
        self._cache = SimpleNamespace(serialize=lambda: data + b"+new")
        return self._cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
        self._told.calls.append(("timing cache", ignore_mismatch))

    def get_timing_cache(self) -> Any:
        return self._cache

    def add_optimization_profile(self, profile: Any) -> None:
        self._told.calls.append(("profile", *profile.shapes))


class Profile:
    def __init__(self) -> None:
        self.shapes: list[tuple[Any, ...]] = []

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes.append((name, *shapes))


class Context:
    def __init__(self, told: Told) -> None:
        self._told = told
        self.profiler: Any = None
        self.enqueue_emits_profile = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        return shape[-1] == self._told.input_shape[-1]

    def infer_shapes(self) -> list[str]:
        return list(self._told.missing_shapes)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self._told.calls.append(("address", name))

    def execute_async_v3(self, stream: int) -> bool:
        self._told.enqueued += 1
        if self.profiler is not None:
            self.profiler.report_layer_time("conv", 2.0)
            self.profiler.report_layer_time("fc", 0.5)
        return self._told.enqueue_works(self._told.enqueued)


class Engine:
    num_io_tensors = 2

    def __init__(self, told: Told) -> None:
        self._told = told

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y")[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name == "x" else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return "float32"

    def create_execution_context(self) -> Context | None:
        return Context(self._told) if self._told.has_memory else None

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda form: f'{{"Layers": [], "form": "{form}"}}')


class Builder:
    def __init__(self, told: Told, logger: Any) -> None:
        self._told, self._logger = told, logger

    def create_network(self, flags: int) -> Any:
        self._told.calls.append(("network", flags))
        tensor = SimpleNamespace(name="x", shape=self._told.input_shape)
        return SimpleNamespace(num_inputs=1, get_input=lambda index: tensor)

    def create_builder_config(self) -> Config:
        return Config(self._told)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
        for severity, message in self._told.log:
            self._logger.log(severity, message)
        return self._told.plan


class Parser:
    def __init__(self, told: Told, network: Any, logger: Any) -> None:
        self._errors = told.parse_errors
        self.num_errors = len(self._errors)

    def parse_from_file(self, path: str) -> bool:
        return not self._errors

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class Runtime:
    def __init__(self, told: Told, logger: Any) -> None:
        self._told = told

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        return Engine(self._told) if self._told.takes_engine else None


def fake_trt(told: Told) -> Any:
    """The module, which behaves as `told`."""
    return SimpleNamespace(
        __version__=told.version,
        Builder=partial(Builder, told),
        BuilderFlag=Flag,
        HardwareCompatibilityLevel=SimpleNamespace(NONE="none"),
        ILogger=Logger,
        IProfiler=type("IProfiler", (), {}),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        OnnxParser=partial(Parser, told),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        Runtime=partial(Runtime, told),
        TensorIOMode=Mode,
        nptype=np.dtype,
    )


class FakeTensor:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def to(self, device: str) -> "FakeTensor":
        return FakeTensor(self.array.copy())

    def copy_(self, other: "FakeTensor") -> None:
        self.array[...] = other.array

    def cpu(self) -> "FakeTensor":
        return self

    def numpy(self) -> np.ndarray:
        return self.array

    def data_ptr(self) -> int:
        return id(self.array)


def fake_torch(told: Told, *, device_ms: float = 1.5) -> Any:
    """torch's CUDA part, on which each inference takes `device_ms`."""

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: Any) -> None:
            told.calls.append(("event",))

        def synchronize(self) -> None:
            told.calls.append(("wait",))

        def elapsed_time(self, end: "Event") -> float:
            return device_ms

    class Graph:
        def replay(self) -> None:
            told.calls.append(("replay",))

    @contextmanager
    def capture(graph: Graph, stream: Any) -> Iterator[None]:
        yield
        if not told.capture_works:
            raise RuntimeError("operation not permitted when stream is capturing")

    @contextmanager
    def on(stream: Any) -> Iterator[None]:
        yield

    def make_stream() -> Any:
        return SimpleNamespace(cuda_stream=7, synchronize=lambda: None)

    cuda = SimpleNamespace(
        CUDAGraph=Graph, Event=Event, Stream=make_stream, graph=capture, stream=on, synchronize=lambda: None
    )
    return SimpleNamespace(cuda=cuda, from_numpy=FakeTensor)
