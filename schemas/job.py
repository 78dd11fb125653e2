"""A job as the API shows it: its status, attempts, steps and progress."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, computed_field

from schemas.base import Metadata, Resource, Spec, Tag, Timestamp
from schemas.job_spec import JobSpec
from schemas.wire import DeviceClass


class Status(StrEnum):
    """Where a job stands. A terminal status changes only when the user retries the job."""

    queued = "queued"
    running = "running"
    recovering = "recovering"
    pausing = "pausing"
    paused = "paused"
    cancelling = "cancelling"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    expired = "expired"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL

    @property
    def is_waiting(self) -> bool:
        """A worker may claim it."""
        return self in (Status.queued, Status.recovering)


_TERMINAL = frozenset({Status.succeeded, Status.failed, Status.cancelled, Status.expired})


class FailureClass(StrEnum):
    """Why a job failed, for programs; `status_reason` says it for people."""

    preflight = "preflight"
    data = "data"
    model = "model"
    accuracy_floor = "accuracy_floor"
    out_of_memory = "out_of_memory"
    no_device = "no_device"
    timeout = "timeout"
    worker_lost = "worker_lost"
    storage = "storage"
    internal = "internal"


class StepState(StrEnum):
    """How far one step of an attempt is."""

    running = "running"
    finished = "finished"
    failed = "failed"
    stopped = "stopped"


class Step(Resource):
    """One step of an attempt: `pull`, `preflight`, `baseline`, `prune#k`, `finetune#k`, … `publish`."""

    name: str
    state: StepState
    started_at: Timestamp
    seconds: float | None = Field(None, description="Wall seconds; null while it runs.")
    device_seconds: float | None = Field(None, description="Seconds in which the step held the device.")
    message: str | None = None


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    released = "released"
    worker_lost = "worker_lost"


class Attempt(Resource):
    """One start of a job on one worker."""

    object: Literal["attempt"] = "attempt"
    number: int
    worker: str
    started_at: Timestamp
    ended_at: Timestamp | None = None
    outcome: AttemptOutcome = AttemptOutcome.running
    reason: str | None = None
    first_round: int = Field(1, description="The round with which this attempt began.")
    steps: list[Step] = Field(default_factory=list)


class Progress(Resource):
    """How far a running job is."""

    percent: float = Field(0.0, ge=0, le=100)
    step: str | None = None
    step_percent: float = Field(0.0, ge=0, le=100)
    round: int = Field(0, description="The round at work; 0 before the first.")
    rounds: int = 0
    metric: float | None = Field(None, description="The last metric measured.")
    loss: float | None = None
    eta_s: float | None = Field(None, description="Estimated seconds to the end.")


class Job(Resource):
    """One pruning job."""

    object: Literal["job"] = "job"
    id: str = Field(examples=["job_01jdf3q8v7e0x9m4"])
    status: Status
    status_reason: str | None = None
    failure_class: FailureClass | None = None
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    device: DeviceClass
    priority: int
    attempt: int = Field(0, description="Starts so far.")
    recoveries: int = Field(0, description="Starts made necessary by a lost worker.")
    rounds_done: int = Field(0, description="Rounds committed.")
    worker: str | None = None
    progress: Progress = Progress()
    tags: list[Tag] = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    summary: dict[str, Any] | None = Field(None, description="The headline figures of a finished job.")
    spec: JobSpec

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_terminal(self) -> bool:
        """No worker will touch the job again unless it is retried."""
        return self.status.is_terminal


class JobPatch(Spec):
    """What may change after a job was accepted."""

    tags: tuple[Tag, ...] | None = Field(None, max_length=16)
    priority: int | None = Field(None, ge=0, le=9, description="Only while the job waits.")


class Estimate(Resource):
    """What a spec would cost, from its own figures and the sizes in S3. Never a measurement."""

    object: Literal["estimate"] = "estimate"
    rounds: int
    epochs: int = Field(description="Fine-tuning epochs over all rounds.")
    model_bytes: int | None = Field(None, description="Null where the bucket could not be read.")
    data_bytes: int | None = None
    memory_bytes: int | None = Field(
        None,
        description="What the job takes on its device at least: copies of the weights, gradients and states "
        "of the optimizer; without activations and data. Null where the weights could not be read.",
    )
    warnings: list[str] = Field(default_factory=list)
    spec: JobSpec = Field(description="The spec with every default filled in.")
