"""Workers and queues: who serves what, and what waits."""

from typing import Literal

from pydantic import Field

from schemas.base import Resource, Timestamp
from schemas.wire import DeviceClass


class Worker(Resource):
    """A worker as it last reported itself."""

    object: Literal["worker"] = "worker"
    id: str
    hostname: str
    version: str
    device: DeviceClass
    device_name: str
    memory_bytes: int | None = Field(
        None,
        description="What one job can have at most: the memory of the largest GPU or, without one, the "
        "host's RAM within its cgroup's limit, which the slots share. Null: not stated.",
    )
    serves: list[DeviceClass]
    slots: int
    busy: int
    jobs: list[str] = Field(default_factory=list, description="The tenant's own jobs that run here.")
    draining: bool = False
    model_plugins: list[str] = Field(
        default_factory=list, description="Architectures that its operator added: values of `library_name`."
    )
    task_plugins: list[str] = Field(
        default_factory=list, description="Metrics that its operator added: values of `data.plugin`."
    )
    started_at: Timestamp
    seen_at: Timestamp


class Queue(Resource):
    """One device class."""

    object: Literal["queue"] = "queue"
    name: DeviceClass
    waiting: int
    running: int
    demand: int = Field(description="Waiting and running: what an autoscaler should read.")
    workers: int = Field(description="Workers that serve this class.")
    free_slots: int
    oldest_wait_s: float | None = None
    reason: str = Field(description="Why the waiting jobs wait.")
