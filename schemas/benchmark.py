"""What is measured of dense against pruned, and what came out."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Resource, Spec, not_delivered

_LATER_BACKENDS = dict.fromkeys(
    ("tensorrt", "torch", "torch-compile", "torch-sparse"), "use 'onnxruntime' or 'openvino'"
)
RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
"""Backends, for a reader."""

BatchSize = Annotated[int, Field(ge=1, le=4096)]


class BenchmarkSpec(Spec):
    """An interleaved pair: dense and pruned take turns in random order on the same device."""

    backend: Annotated[
        Literal["auto", "onnxruntime", "openvino", "none"],
        not_delivered("benchmark backend", _LATER_BACKENDS),
    ] = Field("auto", description="auto: ONNX Runtime on the CPU. none: measure nothing.")
    batch_sizes: tuple[BatchSize, ...] = Field((1, 32), min_length=1, max_length=8)
    precision: Annotated[
        Literal["fp32"], not_delivered("benchmark precision", {"fp16": "use 'fp32'", "int8": "use 'fp32'"})
    ] = "fp32"
    rounds: int = Field(
        20, ge=5, le=1000, description="Interleaved rounds; each arm is opened anew and runs once in each."
    )
    round_seconds: float = Field(0.1, gt=0, le=60, description="Seconds of one arm in one round.")
    warmup_seconds: float = Field(
        0.5, ge=0, le=60, description="Seconds of warm-up of one arm, spread over the rounds."
    )


class Verdict(StrEnum):
    """What the interval shows, and nothing more."""

    faster = "faster"
    slower = "slower"
    no_difference = "no_difference"
    unstable = "unstable"


class Latency(Resource):
    """Milliseconds of one inference of a whole batch."""

    p50_ms: float = Field(description="Median of the medians of the rounds.")
    p90_ms: float
    p99_ms: float
    cpu_p50_ms: float = Field(description="Process CPU time of one inference; it ignores other processes.")
    samples: int


class TimeStatistics(Resource):
    """Milliseconds of one part of an inference, as trtexec has them. Null: it was not stated."""

    min_ms: float
    max_ms: float
    mean_ms: float
    median_ms: float
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Comparison(Resource):
    """Dense against pruned at one batch size."""

    batch_size: int
    dense: Latency
    pruned: Latency
    speedup: float = Field(description="Dense over pruned latency: above 1 the pruned model is faster.")
    speedup_low: float = Field(description="Lower end of the 95 % bootstrap interval of the speed-up.")
    speedup_high: float = Field(description="Upper end of the interval.")
    noise: float = Field(
        description="How far from 1 the interval of dense against dense reaches, in the same rounds."
    )
    verdict: Verdict
    sentence: str


class BenchmarkResult(Resource):
    """All comparisons of one job, with the ground they stand on."""

    backend: Literal["onnxruntime", "openvino"]
    device: str
    threads: int
    precision: str
    rounds: int
    comparisons: list[Comparison]
    note: str = Field(description="What zeros mean for this backend.")
