"""Reading jobs: from the hashes, sets and streams in Redis to the resources of the API."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from redis import Redis

from schemas.event import Event
from schemas.job import Attempt, AttemptOutcome, Job, Progress, Status, Step
from schemas.round import Checkpoint, Round
from service.store.errors import JobNotFound
from service.store.scripts import PREFIX

SCAN_BATCH = 100


def when(ms: str | int | None) -> datetime | None:
    """A timestamp from Redis milliseconds; None and '' stay None."""
    return datetime.fromtimestamp(int(ms) / 1000, UTC) if ms else None


@dataclass(frozen=True)
class Filter:
    """What a list call asks for; empty means all."""

    statuses: tuple[Status, ...] = ()
    tag: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def matches(self, job: Job) -> bool:
        return (
            (not self.statuses or job.status in self.statuses)
            and (self.tag is None or self.tag in job.tags)
            and all(job.metadata.get(key) == value for key, value in self.metadata.items())
        )


class JobRecords:
    """Read-only view of the jobs. Tenant-scoped methods raise JobNotFound for another tenant's job."""

    def __init__(self, redis: Redis, prefix: str = PREFIX) -> None:
        self._redis = redis
        self._prefix = prefix

    def _key(self, name: str) -> str:
        return self._prefix + name

    def raw(self, id: str) -> dict[str, str]:
        """All fields of one record; empty if there is none."""
        return dict(self._redis.hgetall(self._key(f"job:{id}")))

    def get(self, tenant: str, id: str) -> Job:
        """One job of this tenant."""
        return job_from(self._owned(tenant, id))

    def manifest(self, tenant: str, id: str) -> dict[str, Any] | None:
        """Where the artifacts of a finished job lie; None while it is not."""
        text = self._owned(tenant, id).get("manifest")
        return json.loads(text) if text else None

    def _owned(self, tenant: str, id: str) -> dict[str, str]:
        record = self.raw(id)
        if not record or record["tenant"] != tenant:
            raise JobNotFound(id)
        return record

    def page(self, tenant: str, wanted: Filter, *, limit: int, after: str | None) -> tuple[list[Job], bool]:
        """Jobs, newest first, after the job `after`; and whether there are more."""
        found: list[Job] = []
        for job in self._walk(tenant, wanted, after):
            if len(found) == limit:
                return found, True
            if wanted.matches(job):
                found.append(job)
        return found, False

    def _walk(self, tenant: str, wanted: Filter, after: str | None) -> Iterator[Job]:
        index = self._index(tenant, wanted)
        start = 0
        if after is not None:
            start = self._start_after(tenant, index, after)
        for offset in count(start, SCAN_BATCH):
            ids = self._redis.zrevrange(index, offset, offset + SCAN_BATCH - 1)
            pipe = self._redis.pipeline(transaction=False)
            for id in ids:
                pipe.hgetall(self._key(f"job:{id}"))
            for fields in pipe.execute():
                if fields:
                    yield job_from(fields)
            if len(ids) < SCAN_BATCH:
                return

    def _index(self, tenant: str, wanted: Filter) -> str:
        if wanted.tag is not None:
            return self._key(f"idx:{tenant}:tag:{wanted.tag}")
        if len(wanted.statuses) == 1:
            return self._key(f"idx:{tenant}:status:{wanted.statuses[0]}")
        return self._key(f"idx:{tenant}")

    def _start_after(self, tenant: str, index: str, after: str) -> int:
        """The rank behind `after`; by its age where it has left this index since."""
        rank = self._redis.zrevrank(index, after)
        if rank is not None:
            return int(rank) + 1
        created = self._redis.zscore(self._key(f"idx:{tenant}"), after)
        if created is None:
            raise JobNotFound(after)
        return int(self._redis.zcount(index, created, "+inf"))

    def rounds(self, id: str) -> list[Round]:
        """The rounds of a job, in order."""
        stored = self._redis.hgetall(self._key(f"rounds:{id}"))
        rounds = [_round(value) for value in stored.values()]
        return sorted(rounds, key=lambda one: one.number)

    def checkpoint(self, id: str) -> Checkpoint | None:
        """Where the job goes on."""
        text = self._redis.hget(self._key(f"job:{id}"), "checkpoint")
        return Checkpoint.model_validate_json(text) if text else None

    def attempts(self, id: str, number: int) -> list[Attempt]:
        """The first `number` attempts of a job."""
        pipe = self._redis.pipeline(transaction=False)
        for one in range(1, number + 1):
            pipe.hgetall(self._key(f"attempt:{id}:{one}"))
        return [_attempt(number, fields) for number, fields in enumerate(pipe.execute(), 1) if fields]

    def events(self, id: str, *, after: str | None = None, limit: int = 100) -> list[Event]:
        """Events after the event `after`, oldest first."""
        start = "-" if after is None else "(" + stream_id(after)
        found = self._redis.xrange(self._key(f"events:{id}"), min=start, count=limit)
        return [event_from(id, key, fields) for key, fields in found]

    def log_lines(self, id: str, *, limit: int = 5000) -> list[str]:
        """The newest lines of a job's log, oldest first."""
        found = self._redis.xrevrange(self._key(f"logs:{id}"), count=limit)
        return [fields["line"] for _, fields in reversed(found)]


def stream_id(event_id: str) -> str:
    """The Redis stream id of an event. Raises ValueError for what is not one."""
    milliseconds, _, serial = event_id.removeprefix("evt_").partition("-")
    return f"{int(milliseconds)}-{int(serial or 0)}"


def event_from(job: str, id: str, fields: Mapping[str, str]) -> Event:
    """An event from one stream entry."""
    created = datetime.fromtimestamp(int(id.partition("-")[0]) / 1000, UTC)
    return Event.model_validate(
        {
            "id": f"evt_{id}",
            "job": job,
            "created_at": created,
            "type": fields["type"],
            "level": fields["level"],
            "message": fields["message"],
            "data": json.loads(fields["data"]),
        }
    )


def job_from(record: Mapping[str, str]) -> Job:
    """The resource from the record's fields."""
    status = Status(record["status"])
    return Job.model_validate(
        {
            "id": record["id"],
            "status": status,
            "status_reason": record.get("status_reason"),
            "failure_class": record.get("failure_class") or None,
            "created_at": when(record["created_at"]),
            "started_at": when(record.get("started_at")),
            "finished_at": when(record.get("finished_at")),
            "device": record["device"],
            "priority": int(record["priority"]),
            "attempt": int(record["attempt"]),
            "recoveries": int(record["recoveries"]),
            "rounds_done": int(record["round"]),
            "worker": record.get("worker") or None,
            "progress": _progress(status, record),
            "tags": json.loads(record["tags"]),
            "metadata": json.loads(record["metadata"]),
            "summary": json.loads(record["summary"]) if record.get("summary") else None,
            "spec": json.loads(record["spec"]),
        }
    )


def _progress(status: Status, record: Mapping[str, str]) -> Progress:
    stored = record.get("progress")
    progress = Progress.model_validate_json(stored) if stored else Progress()
    if status is Status.succeeded:
        return progress.model_copy(
            update={"percent": 100.0, "step": None, "step_percent": 100.0, "eta_s": 0.0}
        )
    return progress


def _round(stored: str) -> Round:
    committed, _, text = stored.partition("|")
    return Round.model_validate_json(text).model_copy(update={"committed_at": when(committed)})


def _attempt(number: int, fields: Mapping[str, str]) -> Attempt:
    started = when(fields["started_at"])
    assert started is not None
    return Attempt(
        number=number,
        worker=fields["worker"],
        started_at=started,
        ended_at=when(fields.get("ended_at")),
        outcome=AttemptOutcome(fields["outcome"]),
        reason=fields.get("reason"),
        first_round=int(fields["first_round"]),
        steps=[Step.model_validate(one) for one in json.loads(fields.get("steps") or "[]")],
    )
