"""Build a TensorRT engine from an ONNX file, 10.x or 11.x, for exactly the shapes that are measured.

`trt` is the module `tensorrt`, handed in: the worker image has it, other machines do not. Networks are
strongly typed, so the precision is the ONNX file's own; numbers of enumerations differ between versions and
are never stored. Source: the API pages of TensorRT 10.16 and 11.4, and the migration guide from 10 to 11.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.benchmark.tensorrt.sparsity_log import MARK, SparsityLog, read_sparsity_log

Shapes = Mapping[str, Sequence[int]]
"""Shape by input name; the smallest, the best and the largest of the profile are this one."""

OPTIMIZATION_LEVEL = 3
AVERAGE_TIMING = 8
"""Timings of one tactic that are averaged, as in trtexec; the API's default is one."""

_TAIL = 5
_FIRST_WITHOUT_WEAK_TYPES = 11


class BuildFailed(Exception):
    """No engine came of it; the message says which node, or what the builder said last."""


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine, and what is known of how it was made."""

    plan: bytes
    timing_cache: bytes
    seconds: float
    flags: tuple[str, ...]
    """Names of the builder's flags that were set."""
    sparsity: SparsityLog
    log: tuple[str, ...]


def major_of(trt: Any) -> int:
    """10 or 11."""
    return int(str(trt.__version__).partition(".")[0])


def capture_logger(trt: Any) -> Any:
    """A logger that keeps what the builder says of sparsity, and all that is not verbose, in `lines`."""

    class Capture(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if MARK in message or int(severity) <= int(trt.ILogger.Severity.INFO):
                self.lines.append(message)

    return Capture()


def build_engine(
    trt: Any,
    onnx: Path,
    *,
    shapes: Shapes,
    sparse: bool,
    timing_cache: bytes = b"",
    workspace_bytes: int = 4 * 2**30,
) -> BuiltEngine:
    """Build with sparse tactics allowed or not; all arms begin with the same `timing_cache`.

    Raises BuildFailed: the parser does not take a node, or no engine fits device and workspace.
    """
    logger = capture_logger(trt)
    began = time.monotonic()
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    _parse(trt, network, onnx, logger)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = OPTIMIZATION_LEVEL
    config.avg_timing_iterations = AVERAGE_TIMING
    config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
    if sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    config.clear_flag(trt.BuilderFlag.TF32)
    cache = config.create_timing_cache(timing_cache)
    config.set_timing_cache(cache, False)
    _add_profile(builder, config, network, shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailed(f"TensorRT built no engine of {onnx.name}: {_last(logger)}")
    return BuiltEngine(
        plan=bytes(plan),
        timing_cache=bytes(config.get_timing_cache().serialize()),
        seconds=time.monotonic() - began,
        flags=tuple(name for name, flag in trt.BuilderFlag.__members__.items() if config.get_flag(flag)),
        sparsity=read_sparsity_log(logger.lines),
        log=tuple(logger.lines),
    )


def _network_flags(trt: Any) -> int:
    if major_of(trt) >= _FIRST_WITHOUT_WEAK_TYPES:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _parse(trt: Any, network: Any, onnx: Path, logger: Any) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(onnx)):
        return
    errors = [_sentence(parser.get_error(index)) for index in range(parser.num_errors)]
    raise BuildFailed(f"TensorRT does not take {onnx.name}: {'; '.join(errors) or _last(logger)}")


def _sentence(error: Any) -> str:
    """Which node, which operator, and why."""
    node = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    where = f"node '{node}' ({operator}): " if node or operator else ""
    return f"{where}{error.desc()}"


def _add_profile(builder: Any, config: Any, network: Any, shapes: Shapes) -> None:
    """Raises BuildFailed where the network has an input of free shape that `shapes` does not name."""
    free = []
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if all(side >= 0 for side in tensor.shape):
            continue
        if tensor.name not in shapes:
            raise BuildFailed(
                f"the input '{tensor.name}' has a free shape {tuple(tensor.shape)} and no profile"
            )
        free.append(tensor.name)
    if not free:
        return
    profile = builder.create_optimization_profile()
    for name in free:
        shape = tuple(shapes[name])
        profile.set_shape(name, shape, shape, shape)
    config.add_optimization_profile(profile)


def _last(logger: Any) -> str:
    return " | ".join(logger.lines[-_TAIL:]) or "it said nothing"
