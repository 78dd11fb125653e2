"""The pruning spec: what a user asks for. Four lines are enough; the rest has defaults."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from schemas.agreement import ONNX_SUFFIX, refuse_what_does_not_go_together
from schemas.base import Metadata, Spec, Tag, not_delivered
from schemas.benchmark import BenchmarkSpec
from schemas.fine_tune import FineTune
from schemas.goal import QUANTITIES, Floor, Goal
from schemas.method import Method, Structured, Unstructured
from schemas.quantize import NoQuantization, Quantize
from schemas.refs import DataRef, ModelRef
from schemas.round import Round
from schemas.schedule import Iterative, Schedule, Search
from schemas.task import Task
from schemas.wire import DeviceClass

ExportFormat = Annotated[
    Literal["safetensors", "onnx", "torch_export"],
    not_delivered("export", {"tensorrt": "use 'safetensors' and 'onnx'"}),
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

_WITH_ADAMW = frozenset(Task) - {Task.image_classification, Task.segmentation}

_LATER_FIELDS = {
    "webhook": "poll the job or read its event stream",
    "retention": "delete finished jobs with DELETE /v1/jobs/{id}",
}


class JobSpec(Spec):
    """One model, one recipe: prune it to the goal, and stop at the floor or the budget."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE, ONE_SHOT_EXAMPLE]})

    model: ModelRef
    data: DataRef
    recipe: Literal["auto"] | None = Field(
        None,
        description="auto: measure how much each layer and the whole model bear, prune channels to that "
        "budget, fine-tune, quantize to INT8, and say why. It chooses method, goal, schedule and quantize "
        "itself.",
    )
    goal: Goal | None = Field(None, description="Null: as much as the floor allows (schedule `search`).")
    floor: Floor = Field(
        default_factory=lambda: Floor(max_drop=0.01), description="Default: one point may be lost."
    )
    method: Method = Unstructured()
    schedule: Schedule = Field(default_factory=Iterative)
    fine_tune: FineTune = FineTune()
    quantize: Quantize = NoQuantization()
    export: tuple[ExportFormat, ...] = Field(("safetensors", "onnx"), min_length=1, max_length=3)
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
        value = _without_data(value)
        return _with_default_schedule(_with_default_optimizer(_with_default_epochs(value)))

    @model_validator(mode="after")
    def _parts_agree(self) -> "JobSpec":
        refuse_what_does_not_go_together(self)
        return self

    @model_validator(mode="after")
    def _benchmark_needs_onnx(self) -> "JobSpec":
        if "safetensors" not in self.export:
            raise ValueError("export must contain 'safetensors': it is the result")
        if self.benchmark.backend != "none" and "onnx" not in self.export:
            raise ValueError(
                "the benchmark runs the ONNX file: add 'onnx' to export or set benchmark.backend: none"
            )
        if self.quantize.kind.startswith("int8") and "onnx" not in self.export:
            raise ValueError("quantize makes an ONNX file: add 'onnx' to export")
        return self

    @property
    def trains(self) -> bool:
        """Whether any round fine-tunes."""
        return self.fine_tune.epochs + self.fine_tune.final_epochs > 0

    @property
    def learns(self) -> bool:
        """Whether anything is trained, measured or calibrated on training samples."""
        measures = isinstance(self.method, Unstructured) and self.method.allocation.kind == "sensitivity"
        return (
            self.trains
            or self.recipe is not None
            or self.method.criterion.needs_data
            or measures
            or self.quantize.kind == "int8_static"
        )

    def rounds_in_all(self) -> int:
        """Rounds that this job runs if every one holds."""
        planned = self.schedule.rounds_in_all()
        return planned if self.budget.max_rounds is None else min(planned, self.budget.max_rounds)

    @property
    def quantity(self) -> str:
        """What is counted, in words: the goal's quantity, or that of a search."""
        if self.goal is not None:
            return self.goal.quantity
        return QUANTITIES["macs" if isinstance(self.method, Structured) else "sparsity"]

    def goal_in_words(self) -> str:
        """For a reader: `80 % of the weights of the pruned layers go`."""
        if self.recipe is not None:
            return f"recipe '{self.recipe}'"
        if self.goal is None:
            return f"as much of the {self.quantity} as the floor allows"
        return f"{100 * self.goal.removed:.4g} % of the {self.quantity} go"

    def removed_after(self, done: int) -> float:
        """What is removed after round `done` (1-based), as a share of the goal's quantity.

        A search decides on the way: the most that it may try.
        """
        if isinstance(self.schedule, Search):
            return self.schedule.most
        return 0.0 if self.goal is None else self.schedule.removed_after(done, self.goal.removed)

    def next_share(self, rounds: Sequence[Round]) -> float | None:
        """The share of the goal's quantity that is gone after the next round; None: the rounds are over."""
        if len(rounds) >= self.rounds_in_all():
            return None
        if isinstance(self.schedule, Search):
            held = max((one.target for one in rounds if one.held), default=0.0)
            broken = min((one.target for one in rounds if not one.held), default=None)
            return self.schedule.next_share(held, broken)
        return None if any(not one.held for one in rounds) else self.removed_after(len(rounds) + 1)


def _without_data(value: dict[str, Any]) -> dict[str, Any]:
    """With synthetic data: pruned at once, nothing trained, no floor, unless the spec says otherwise."""
    data, fine_tune = value.get("data"), value.get("fine_tune", {})
    if not isinstance(data, dict) or data.get("synthetic") is not True or not isinstance(fine_tune, dict):
        return value
    once = {"schedule": {"kind": "one_shot"}} if value.get("goal") is not None else {}
    return {"floor": {"min_value": 0.0}, **once, **value, "fine_tune": {"epochs": 0, **fine_tune}}


def _with_default_epochs(value: dict[str, Any]) -> dict[str, Any]:
    """An ONNX file is not fine-tuned."""
    model, fine_tune = value.get("model"), value.get("fine_tune", {})
    is_onnx = isinstance(model, dict) and str(model.get("uri", "")).endswith(ONNX_SUFFIX)
    if is_onnx and isinstance(fine_tune, dict) and "epochs" not in fine_tune:
        return {**value, "fine_tune": {**fine_tune, "epochs": 0}}
    return value


def _with_default_optimizer(value: dict[str, Any]) -> dict[str, Any]:
    """Models of text, sound and boxes are fine-tuned with AdamW where the spec does not say otherwise."""
    data, fine_tune = value.get("data"), value.get("fine_tune", {})
    task = data.get("task") if isinstance(data, dict) else None
    adapts = isinstance(task, str) and task in _WITH_ADAMW
    if adapts and isinstance(fine_tune, dict) and "optimizer" not in fine_tune:
        return {**value, "fine_tune": {**fine_tune, "optimizer": {"kind": "adamw"}}}
    return value


def _with_default_schedule(value: dict[str, Any]) -> dict[str, Any]:
    """No goal: search. A pattern of N:M is made at once, unless the spec says otherwise."""
    if value.get("schedule") is not None or value.get("recipe") is not None:
        return value
    method = value.get("method")
    if value.get("goal") is None:
        return {**value, "schedule": {"kind": "search"}}
    if isinstance(method, dict) and method.get("pattern") == "semi_structured":
        return {**value, "schedule": {"kind": "one_shot"}}
    return value
