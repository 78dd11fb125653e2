"""`trtexec` as a cross-check, where it is installed: its command lines by version, and what it prints.

Its defaults turned round in 11.0 (CUDA graph, spin wait, transfers), so every flag is given; precision flags
went in 11.0, and engines are strongly typed there. Source: samples/common of NVIDIA/TensorRT, tags v10.16 and
v11.1.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.benchmark import TimeStatistics

STRONGLY_TYPED_ALWAYS = 11
"""Major version from which there is no other kind of network."""

PERCENTILES = (50, 90, 95, 99)
_TIMES = {
    "Latency": "latency",
    "Enqueue Time": "enqueue",
    "H2D Latency": "h2d",
    "GPU Compute Time": "gpu_compute",
    "D2H Latency": "d2h",
}
_LINE = re.compile(r"\[I\] (?P<name>[\w0-9 ]+): min = (?P<rest>.*)$")
_PAIR = re.compile(r"(min|max|mean|median|percentile\((\d+)%\)) = ([\d.]+(?:e[-+]?\d+)?) ms")
_THROUGHPUT = re.compile(r"\[I\] Throughput: ([\d.]+(?:e[-+]?\d+)?) qps")


@dataclass(frozen=True)
class TrtexecResult:
    """The summary that it prints; milliseconds."""

    throughput_qps: float
    times: Mapping[str, TimeStatistics]
    """By `latency`, `enqueue`, `h2d`, `gpu_compute`, `d2h`; those of transfers only where they were made."""


def build_command(
    onnx: Path,
    engine: Path,
    *,
    major: int,
    sparse: bool,
    shapes: Mapping[str, Sequence[int]],
    timing_cache: Path,
    workspace_mib: int,
) -> list[str]:
    """Arguments that build an engine for exactly these shapes; the smallest, best and largest are one."""
    at = _shapes(shapes)
    command = [
        "trtexec",
        f"--onnx={onnx}",
        f"--saveEngine={engine}",
        "--skipInference",
        f"--sparsity={'enable' if sparse else 'disable'}",
        "--profilingVerbosity=detailed",
        "--builderOptimizationLevel=3",
        "--avgTiming=8",
        f"--timingCacheFile={timing_cache}",
        f"--memPoolSize=workspace:{workspace_mib}",
        "--verbose",  # the lines on sparsity are verbose ones
        f"--minShapes={at}",
        f"--optShapes={at}",
        f"--maxShapes={at}",
    ]
    return command if major >= STRONGLY_TYPED_ALWAYS else [*command, "--stronglyTyped"]


def run_command(
    engine: Path,
    *,
    shapes: Mapping[str, Sequence[int]],
    warmup_ms: int,
    seconds: float,
    times: Path,
    layers: Path,
) -> list[str]:
    """Arguments that time an engine; right for every version, since no default is left to it."""
    return [
        "trtexec",
        f"--loadEngine={engine}",
        f"--shapes={_shapes(shapes)}",
        f"--warmUp={warmup_ms}",
        f"--duration={seconds:g}",
        "--iterations=100",
        "--noDataTransfers",
        "--useCudaGraph",
        "--useSpinWait",
        f"--percentile={','.join(map(str, PERCENTILES))}",
        f"--exportTimes={times}",
        f"--exportLayerInfo={layers}",
    ]


def read_summary(text: str) -> TrtexecResult:
    """The summary in its standard output. Raises ValueError where there is none."""
    throughput = _THROUGHPUT.search(text)
    times = {}
    for line in text.splitlines():
        found = _LINE.search(line)
        if found and found["name"].strip() in _TIMES:
            times[_TIMES[found["name"].strip()]] = _statistics("min = " + found["rest"])
    if throughput is None or "gpu_compute" not in times:
        raise ValueError("trtexec printed no performance summary")
    return TrtexecResult(float(throughput[1]), times)


def read_times(text: str) -> list[float]:
    """Milliseconds of computing of each inference, from `--exportTimes`. Raises ValueError for other text."""
    stated = json.loads(text)
    if not isinstance(stated, list) or not all(
        isinstance(one, dict) and "computeMs" in one for one in stated
    ):
        raise ValueError("the exported times are not a list of inferences with 'computeMs'")
    return [float(one["computeMs"]) for one in stated]


def read_profile(text: str) -> dict[str, float]:
    """Mean milliseconds by layer, from `--exportProfile`. Raises ValueError for other text."""
    stated = json.loads(text)
    if not isinstance(stated, list) or not stated or "count" not in stated[0]:
        raise ValueError("the exported profile is not a list that begins with its count")
    return {str(one["name"]): float(one["averageMs"]) for one in stated[1:]}


def percentile(times: Sequence[float], percent: float) -> float:
    """As trtexec has it: the sorted time at n - 1 - int((1 - percent / 100) n), not below the first."""
    ordered = sorted(times)
    return ordered[max(len(ordered) - 1 - int((1 - percent / 100) * len(ordered)), 0)]


def _statistics(text: str) -> TimeStatistics:
    values = {
        (f"p{percent}" if percent else name): float(number) for name, percent, number in _PAIR.findall(text)
    }
    return TimeStatistics(
        min_ms=values["min"],
        max_ms=values["max"],
        mean_ms=values["mean"],
        median_ms=values["median"],
        p90_ms=values.get("p90"),
        p95_ms=values.get("p95"),
        p99_ms=values.get("p99"),
    )


def _shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
