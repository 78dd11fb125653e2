"""`report.json`: all figures of a finished job."""

from typing import Literal

from pydantic import Field

from schemas.artifact import Artifact
from schemas.base import Resource, Timestamp
from schemas.benchmark import BenchmarkResult
from schemas.goal import QUANTITIES
from schemas.job import Step
from schemas.job_spec import JobSpec
from schemas.round import Round


class ModelFigures(Resource):
    """Size and quality of one model."""

    metric: float
    metrics: dict[str, float] = Field(
        default_factory=dict, description="What else was measured, by name: top-5 accuracy, perplexity, …."
    )
    parameters: int
    nonzeros: int = Field(description="Parameters that are not zero.")
    bytes: int = Field(description="Size of `model.safetensors`.")
    compressed_bytes: int = Field(description="The same file after gzip, level 6.")
    macs: int | None = Field(
        None, description="Multiply-accumulates of one sample, zeros counted; null: could not be counted."
    )
    effective_macs: int | None = Field(None, description="Multiply-accumulates with a non-zero weight.")


class LayerFigures(Resource):
    """One layer with prunable weights."""

    name: str
    kind: str = Field(examples=["Conv2d"])
    shape: list[int]
    weights: int
    zeros: int
    sparsity: float
    pruned: bool = Field(description="Chosen by include and exclude; a layer left dense says why.")
    reason: str | None = None


class OnnxCheck(Resource):
    """PyTorch against ONNX Runtime, on the same input."""

    opset: int
    bytes: int
    max_abs_diff: float
    max_abs_output: float
    tolerance: float
    matches: bool


class GroupFigures(Resource):
    """Units that go together in a structured job: a width of the model."""

    name: str = Field(description="The layer that makes them.", examples=["layer1.0.conv1"])
    kind: str = Field(description="channels, neurons, heads or hidden")
    before: int
    after: int
    reason: str | None = Field(None, description="Why the width stayed, where it was not to be touched.")


class Stage(Resource):
    """The model after one kind of work on it."""

    name: Literal["dense", "pruned", "quantized"]
    metric: float
    file: str = Field(examples=["model.int8.onnx"])
    bytes: int
    compressed_bytes: int
    latency_ms: dict[str, float] = Field(
        default_factory=dict, description="Median milliseconds by batch size, measured in turns."
    )
    note: str | None = None


class Curve(Resource):
    """The metric of one layer, or of all (`name` is `*`), cut to several shares, without fine-tuning."""

    name: str
    shares: list[float]
    metrics: list[float]


class Environment(Resource):
    """Where the figures were taken."""

    versions: dict[str, str]
    device: str
    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    platform: str


class Report(Resource):
    """The result of a job, with its evidence."""

    object: Literal["report"] = "report"
    job: str
    created_at: Timestamp
    verdict: str = Field(description="One sentence: what was reached.")
    goal_reached: bool
    metric_name: str
    floor: float = Field(description="The smallest metric that held.")
    seed: int
    architecture: str
    train_samples: int
    validation_samples: int
    dense: ModelFigures
    pruned: ModelFigures
    quantity: str = Field(QUANTITIES["sparsity"], description="What the goal counts, in words.")
    removed: float = Field(0.0, description="Share of that quantity that is gone.")
    sparsity: float = Field(
        description="Share of zeros in the pruned layers; for a structured job, of parameters that are gone."
    )
    rounds: list[Round]
    layers: list[LayerFigures]
    groups: list[GroupFigures] = Field(default_factory=list, description="Widths, for a structured job.")
    stages: list[Stage] = Field(
        default_factory=list, description="Dense, pruned, quantized, where quantized."
    )
    curves: list[Curve] = Field(default_factory=list, description="Measured sensitivity, where asked for.")
    decisions: list[str] = Field(default_factory=list, description="What recipe `auto` chose, and why.")
    onnx: OnnxCheck | None = None
    benchmark: BenchmarkResult | None = None
    steps: list[Step]
    seconds: float
    device_seconds: float
    environment: Environment
    artifacts: list[Artifact]
    notes: list[str] = Field(
        default_factory=list, description="What a reader must know to read the figures right."
    )
    spec: JobSpec
