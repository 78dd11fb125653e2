"""What the child and its supervisor say to each other: one JSON object a line, over pipes.

The child has no connection to Redis: its supervisor holds the lease, so only the supervisor can commit.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

from schemas.event import Level
from schemas.job import FailureClass, Progress, Step
from schemas.job_spec import JobSpec
from schemas.round import Checkpoint, Round

EXIT_DONE = 0
EXIT_STOPPED = 75
"""The child stopped because it was told to; nothing is wrong with the job."""


class JobOrder(BaseModel):
    """The first line on the child's standard input: all it needs to know of the job."""

    id: str
    tenant: str
    token: str
    attempt: int
    spec: JobSpec
    device: str = Field(description="`cpu` or `cuda`")
    threads: int
    checkpoint: Checkpoint | None = None
    rounds: list[Round] = Field(default_factory=list)
    steps_before: list[Step] = Field(default_factory=list, description="Of the earlier attempts.")

    @property
    def prefix(self) -> str:
        """The job's folder in the service's bucket."""
        return f"{self.tenant}/jobs/{self.id}/"


class StepMessage(BaseModel):
    """A step began or ended."""

    kind: Literal["step"] = "step"
    step: Step


class ProgressMessage(BaseModel):
    """How far the job is. Each one also proves that the child is alive and at work."""

    kind: Literal["progress"] = "progress"
    progress: Progress


class NoteMessage(BaseModel):
    """A sentence for the event list."""

    kind: Literal["note"] = "note"
    level: Level = Level.info
    message: str
    data: dict[str, Any] = Field(default_factory=dict)


class CommitMessage(BaseModel):
    """Please commit this round. The child waits for one line in answer."""

    kind: Literal["commit"] = "commit"
    round: Round
    checkpoint: Checkpoint | None


class DoneMessage(BaseModel):
    """The job is done and its artifacts are uploaded."""

    kind: Literal["done"] = "done"
    reason: str
    summary: dict[str, Any]
    manifest: dict[str, Any]


class FailedMessage(BaseModel):
    """The job failed and would fail again."""

    kind: Literal["failed"] = "failed"
    failure_class: FailureClass
    reason: str


Message = Annotated[
    StepMessage | ProgressMessage | NoteMessage | CommitMessage | DoneMessage | FailedMessage,
    Field(discriminator="kind"),
]
MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)
