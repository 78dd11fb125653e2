"""The pruning spec: what a user asks for. Four lines are enough; the rest has defaults."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from schemas.base import Metadata, S3Prefix, Spec, Tag, not_delivered
from schemas.benchmark import BenchmarkSpec
from schemas.fine_tune import FineTune
from schemas.pruning import Floor, Goal, Iterative, Method, Schedule
from schemas.wire import DeviceClass


class Task(StrEnum):
    """What the model does. Its metric is the standard one: top-1 accuracy for both."""

    image_classification = "image-classification"
    text_classification = "text-classification"


_LATER_TASKS = {
    name: "use 'image-classification' or 'text-classification'"
    for name in ("token-classification", "regression", "causal-lm", "segmentation", "detection")
}


class ModelRef(Spec):
    """A folder in the layout of the Hugging Face hub: `config.json` and `*.safetensors`."""

    uri: S3Prefix = Field(examples=["s3://zoo/fashion-resnet/"])


class DataRef(Spec):
    """A folder with the splits `train` and `validation`, as parquet or `.npz`."""

    uri: S3Prefix = Field(examples=["s3://data/fashion-mnist/"])
    task: Annotated[Task, not_delivered("task", _LATER_TASKS)] = Task.image_classification
    input_column: str | None = Field(
        None, max_length=128, description="Column of the images or texts. Null: 'image' or 'text'."
    )
    label_column: str = Field("label", max_length=128)
    max_length: int = Field(128, ge=1, le=8192, description="Tokens of a text; longer ones are cut.")
    max_train_samples: int | None = Field(
        None, ge=1, description="Use this many training samples, drawn with the seed. Null: all."
    )

    @property
    def input_name(self) -> str:
        """The column of the inputs."""
        if self.input_column is not None:
            return self.input_column
        return "image" if self.task is Task.image_classification else "text"


class Quantize(Spec):
    """Quantization after pruning."""

    kind: Annotated[
        Literal["none"],
        not_delivered("quantize", {"int8_dynamic": "use 'none'", "int8_static": "use 'none'"}),
    ] = "none"


ExportFormat = Annotated[
    Literal["safetensors", "onnx"],
    not_delivered(
        "export", {"torch_export": "use 'safetensors' and 'onnx'", "tensorrt": "use 'safetensors' and 'onnx'"}
    ),
]


class Placement(Spec):
    """Where the job may run, and who goes first."""

    device: DeviceClass = Field(
        DeviceClass.any, description="any: whatever worker is free. ampere: compute capability 8.0 or newer."
    )
    priority: int = Field(4, ge=0, le=9, description="9 goes first, within the tenant's own jobs.")


class Budget(Spec):
    """When to stop although the goal is not reached."""

    wall_time_s: int = Field(
        86_400, ge=1, le=30 * 86_400, description="Seconds of running, over all attempts; then the job fails."
    )
    max_rounds: int | None = Field(
        None, ge=1, le=100, description="Stop after this many rounds with the best so far. Null: all rounds."
    )
    start_within_s: int | None = Field(
        None, ge=1, le=30 * 86_400, description="Seconds of waiting after which the job expires. Null: never."
    )


class Retry(Spec):
    """What happens when a machine, not the job, fails."""

    max_recoveries: int = Field(
        5, ge=0, le=100, description="Lost workers after which the job counts as poison."
    )


EXAMPLE: dict[str, Any] = {
    "model": {"uri": "s3://zoo/fashion-resnet/"},
    "data": {"uri": "s3://data/fashion-mnist/", "task": "image-classification"},
    "goal": {"sparsity": 0.8},
    "floor": {"max_drop": 0.01},
    "schedule": {"kind": "iterative", "rounds": 5, "curve": "cubic"},
    "fine_tune": {"epochs": 1, "batch_size": 64},
    "tags": ["demo"],
}
ONE_SHOT_EXAMPLE: dict[str, Any] = {
    "model": {"uri": "s3://zoo/fashion-resnet/"},
    "data": {"uri": "s3://data/fashion-mnist/"},
    "goal": {"sparsity": 0.8},
    "floor": {"min_value": 0.0},
    "schedule": {"kind": "one_shot"},
    "fine_tune": {"epochs": 0},
}

_LATER_FIELDS = {
    "webhook": "poll the job or read its event stream",
    "retention": "delete finished jobs with DELETE /v1/jobs/{id}",
}


class JobSpec(Spec):
    """One model, one recipe: prune it to the goal, and stop at the floor or the budget."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE, ONE_SHOT_EXAMPLE]})

    model: ModelRef
    data: DataRef
    goal: Goal
    floor: Floor = Field(
        default_factory=lambda: Floor(max_drop=0.01), description="Default: one point may be lost."
    )
    method: Method = Method()
    schedule: Schedule = Field(default_factory=Iterative)
    fine_tune: FineTune = FineTune()
    quantize: Quantize = Quantize()
    export: tuple[ExportFormat, ...] = Field(("safetensors", "onnx"), min_length=1, max_length=2)
    benchmark: BenchmarkSpec = BenchmarkSpec()
    placement: Placement = Placement()
    budget: Budget = Budget()
    retry: Retry = Retry()
    tags: tuple[Tag, ...] = Field((), max_length=16)
    metadata: Metadata = Field(default_factory=dict)
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="before")
    @classmethod
    def _fill_and_refuse(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name, remedy in _LATER_FIELDS.items():
            if name in value:
                raise ValueError(f"'{name}' is not available in this version: {remedy}")
        return _with_default_optimizer(value)

    @model_validator(mode="after")
    def _benchmark_needs_onnx(self) -> "JobSpec":
        if "safetensors" not in self.export:
            raise ValueError("export must contain 'safetensors': it is the result")
        if self.benchmark.backend != "none" and "onnx" not in self.export:
            raise ValueError(
                "the benchmark runs the ONNX file: add 'onnx' to export or set benchmark.backend: none"
            )
        return self

    def rounds_in_all(self) -> int:
        """Rounds that this job runs if every one holds."""
        planned = self.schedule.rounds_in_all()
        return planned if self.budget.max_rounds is None else min(planned, self.budget.max_rounds)

    def sparsity_after(self, done: int) -> float:
        """Sparsity after round `done` (1-based)."""
        return self.schedule.sparsity_after(done, self.goal.sparsity)


def _with_default_optimizer(value: dict[str, Any]) -> dict[str, Any]:
    """Text models are fine-tuned with AdamW where the spec does not say otherwise."""
    data, fine_tune = value.get("data"), value.get("fine_tune", {})
    is_text = isinstance(data, dict) and data.get("task") == Task.text_classification
    if is_text and isinstance(fine_tune, dict) and "optimizer" not in fine_tune:
        return {**value, "fine_tune": {**fine_tune, "optimizer": {"kind": "adamw"}}}
    return value
