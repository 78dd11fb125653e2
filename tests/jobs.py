"""Jobs, claims and rounds for tests: complete ones, so that a test names only what matters to it."""

import secrets
from dataclasses import dataclass
from typing import Any

from redis import Redis

from schemas.job import Job
from schemas.job_spec import EXAMPLE, JobSpec
from schemas.round import Checkpoint, Round
from schemas.wire import DeviceClass
from service.store.jobs import Claim, JobStore, new_job_id
from service.store.queues import Queues
from service.store.records import JobRecords
from service.store.scripts import PREFIX

ALL = (DeviceClass.cpu, DeviceClass.any)


def spec(**changes: Any) -> JobSpec:
    """A valid spec with these top-level fields changed."""
    return JobSpec.model_validate({**EXAMPLE, **changes})


def round_of(number: int, *, held: bool = True, metric: float = 0.9) -> Round:
    """The figures of one round."""
    return Round(
        number=number,
        attempt=1,
        sparsity=0.1 * number,
        metric=metric,
        metric_before_fine_tune=metric - 0.1,
        loss=0.3,
        epochs=1,
        held=held,
        seconds=1.0,
    )


def checkpoint_of(number: int) -> Checkpoint:
    """A pointer to a round's weights."""
    return Checkpoint(
        round=number, prefix=f"t/jobs/j/rounds/{number}/x/", sha256="0" * 64, bytes=1, dense_metric=0.91
    )


@dataclass
class Desk:
    """The store and its readers on one server."""

    redis: Redis
    store: JobStore
    records: JobRecords
    queues: Queues

    @classmethod
    def on(cls, url: str) -> "Desk":
        redis = Redis.from_url(url, decode_responses=True)
        return cls(redis, JobStore(redis), JobRecords(redis), Queues(redis))

    def submit(self, tenant: str = "acme", **changes: Any) -> str:
        """A new waiting job."""
        return self.store.submit(spec(**changes), id=new_job_id(), tenant=tenant).id

    def claim(self, worker: str = "w1") -> Claim:
        """The next job; there must be one."""
        claim = self.store.claim(worker, ALL, 30)
        assert claim is not None
        return claim

    def job(self, id: str, tenant: str = "acme") -> Job:
        return self.records.get(tenant, id)

    def lapse(self, id: str) -> None:
        """Let the job's lease run out now."""
        self.redis.zadd(f"{PREFIX}leases", {id: 1})

    def pass_deadline(self, id: str) -> None:
        """Let the job's deadline pass now."""
        self.redis.zadd(f"{PREFIX}deadlines", {id: 1})


def unique(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(4)}"
