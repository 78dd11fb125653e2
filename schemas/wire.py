"""Names that two processes must agree on: Celery tasks and queues, headers, exit codes."""

from enum import StrEnum

RING_TASK = "secateur.ring"
"""The doorbell: "there may be work in this queue". It bears no job id."""

REQUEST_ID_HEADER = "X-Request-ID"
IDEMPOTENCY_HEADER = "Idempotency-Key"
PROBLEM_JSON = "application/problem+json"

RECORD_VERSION = 1
"""Version of the job record in Redis and of `job.json` in S3."""


class DeviceClass(StrEnum):
    """What a job asks for, and the queue it waits in. `any` is served by every worker."""

    any = "any"
    cpu = "cpu"
    cuda = "cuda"
    ampere = "ampere"

    @property
    def queue(self) -> str:
        """The Celery queue in which this class is rung."""
        return f"secateur.{self.value}"


SERVED_BY: dict[DeviceClass, tuple[DeviceClass, ...]] = {
    DeviceClass.cpu: (DeviceClass.cpu, DeviceClass.any),
    DeviceClass.cuda: (DeviceClass.cuda, DeviceClass.any),
    DeviceClass.ampere: (DeviceClass.ampere, DeviceClass.cuda, DeviceClass.any),
}
"""Which waiting jobs a worker's device may take, the scarcest class first."""
