"""The job store: each method is one Lua script, so each change is atomic."""

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

from redis import Redis

from schemas.event import EventType, Level
from schemas.job import FailureClass, JobPatch, Progress, Status, Step
from schemas.job_spec import JobSpec
from schemas.round import Checkpoint, Round
from schemas.wire import RECORD_VERSION, DeviceClass
from service.store.errors import IdempotencyMismatch, JobNotFound, LeaseLost, StateConflict
from service.store.scripts import PREFIX, Scripts


def new_job_id() -> str:
    """A fresh, unguessable id."""
    return "job_" + secrets.token_hex(10)


@dataclass(frozen=True)
class Submitted:
    """The id under which a spec runs, and whether this call created it."""

    id: str
    created: bool


@dataclass(frozen=True)
class Claim:
    """The right to run one job until the lease runs out."""

    id: str
    token: str
    attempt: int
    waited_ms: int


@dataclass(frozen=True)
class EventDraft:
    """An event that the owner of a job reports."""

    type: EventType
    message: str
    level: Level = Level.info
    data: dict[str, Any] = field(default_factory=dict)


Order = Literal["ok", "cancel", "timeout", "lost"]


class JobStore:
    """Changes of job state. Times come from the Redis server, never from a worker's clock."""

    def __init__(self, redis: Redis, prefix: str = PREFIX) -> None:
        self._redis = redis
        self._prefix = prefix
        self._scripts = Scripts(redis, prefix)

    def submit(
        self,
        spec: JobSpec,
        *,
        id: str,
        tenant: str,
        idempotency_key: str = "",
        request_hash: str = "",
        idempotency_ttl_s: int = 86_400,
    ) -> Submitted:
        """Record and queue a job.

        Raises:
            IdempotencyMismatch: the key was used with another body.
        """
        fields = {
            "id": id,
            "v": RECORD_VERSION,
            "tenant": tenant,
            "spec": spec.model_dump_json(),
            "device": spec.placement.device.value,
            "priority": spec.placement.priority,
            "tags": json.dumps(spec.tags),
            "metadata": json.dumps(spec.metadata),
            "wall_ms": spec.budget.wall_time_s * 1000,
            "max_recoveries": spec.retry.max_recoveries,
        }
        answer = self._scripts.call(
            "submit",
            json.dumps(
                {
                    "fields": fields,
                    "tags": spec.tags,
                    "reason": "Waiting for a worker.",
                    "start_within_ms": (spec.budget.start_within_s or 0) * 1000,
                    "idempotency_key": idempotency_key,
                    "request_hash": request_hash,
                    "idempotency_ttl_ms": idempotency_ttl_s * 1000,
                }
            ),
        )
        if answer[0] == "mismatch":
            raise IdempotencyMismatch(answer[1])
        return Submitted(id=answer[1], created=answer[0] == "created")

    def replayed(self, tenant: str, idempotency_key: str, request_hash: str) -> str | None:
        """The job that this idempotency key already made, if any.

        Raises:
            IdempotencyMismatch: the key was used with another body.
        """
        key = f"{self._prefix}idem:{tenant}:{idempotency_key}"
        seen_hash, seen_id = self._redis.hmget(key, ["hash", "id"])
        if seen_id is None:
            return None
        if seen_hash != request_hash:
            raise IdempotencyMismatch(str(seen_id))
        return str(seen_id)

    def claim(self, worker: str, classes: tuple[DeviceClass, ...], lease_s: float) -> Claim | None:
        """Take the next waiting job of these device classes, the first class first; None: nothing waits."""
        answer = self._scripts.call(
            "claim", worker, int(lease_s * 1000), secrets.token_hex(8), *(one.value for one in classes)
        )
        return Claim(*answer) if answer else None

    def heartbeat(self, claim: Claim, lease_s: float) -> Order:
        """Renew the lease, and learn whether to go on."""
        order: Order = self._scripts.call("heartbeat", claim.id, claim.token, int(lease_s * 1000))
        return order

    def report(
        self,
        claim: Claim,
        *,
        progress: Progress | None = None,
        steps: list[Step] | None = None,
        events: tuple[EventDraft, ...] = (),
        lines: tuple[str, ...] = (),
    ) -> Order:
        """Tell how far the job is, and learn whether to go on. Raises LeaseLost."""
        body = {
            "id": claim.id,
            "token": claim.token,
            "progress": progress.model_dump_json() if progress else "",
            "steps": json.dumps([step.model_dump(mode="json") for step in steps]) if steps else "",
            "events": [
                {"type": one.type, "level": one.level, "message": one.message, "data": json.dumps(one.data)}
                for one in events
            ],
            "lines": list(lines),
        }
        order: Order = self._scripts.call("report", json.dumps(body))
        if order == "lost":
            raise LeaseLost(claim.id)
        return order

    def commit(self, claim: Claim, round: Round, checkpoint: Checkpoint | None) -> None:
        """Add a round; with a checkpoint, the job resumes from it. Raises LeaseLost."""
        outcome = "held" if round.held else "fell below the floor and was rolled back"
        message = (
            f"Round {round.number}: sparsity {round.sparsity:.1%}, metric {round.metric:.4f}: {outcome}."
        )
        committed = self._scripts.call(
            "commit",
            claim.id,
            claim.token,
            round.number,
            round.model_dump_json(),
            checkpoint.model_dump_json() if checkpoint else "",
            message,
        )
        if not committed:
            raise LeaseLost(claim.id)

    def finish(
        self,
        claim: Claim,
        status: Status,
        reason: str,
        *,
        failure_class: FailureClass | None = None,
        summary: dict[str, Any] | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> Status:
        """End the job for good. A cancel that came first wins: see the answer. Raises LeaseLost."""
        answer = self._scripts.call(
            "finish",
            json.dumps(
                {
                    "id": claim.id,
                    "token": claim.token,
                    "status": status.value,
                    "reason": reason,
                    "failure_class": failure_class.value if failure_class else "",
                    "summary": json.dumps(summary or {}),
                    "manifest": json.dumps(manifest or {}),
                }
            ),
        )
        return self._status_or_lost(claim, answer)

    def release(self, claim: Claim, outcome: Literal["released", "worker_lost"], reason: str) -> Status:
        """Give the job back; it waits again, or ends if it must. Raises LeaseLost."""
        return self._status_or_lost(
            claim, self._scripts.call("release", claim.id, claim.token, outcome, reason)
        )

    def reap(self, limit: int = 100) -> list[str]:
        """Take back the jobs whose lease ran out."""
        return list(self._scripts.call("reap", limit))

    def expire(self, limit: int = 100) -> list[str]:
        """Act on the deadlines that have passed."""
        return list(self._scripts.call("expire", limit))

    def cancel(self, id: str) -> Status:
        """Cancel a job, at once if it waits. Raises StateConflict."""
        return _status_or_conflict(self._scripts.call("cancel", id))

    def retry(self, id: str) -> Status:
        """Queue a failed, cancelled or expired job again, as a new attempt. Raises StateConflict."""
        return _status_or_conflict(self._scripts.call("retry", id))

    def patch(self, id: str, patch: JobPatch, old_tags: list[str]) -> None:
        """Change tags and priority. Raises StateConflict: the priority of a job that no longer waits."""
        body = {
            "id": id,
            "priority": -1 if patch.priority is None else patch.priority,
            "set_tags": patch.tags is not None,
            "old_tags": old_tags,
            "tags": patch.tags or [],
            "tags_json": json.dumps(patch.tags or []),
        }
        _status_or_conflict(self._scripts.call("patch", json.dumps(body)))

    def delete(self, id: str, tags: list[str]) -> None:
        """Forget a terminal job; the steward deletes its folder in S3. Raises StateConflict."""
        _status_or_conflict(self._scripts.call("delete", json.dumps({"id": id, "tags": tags})))

    def _status_or_lost(self, claim: Claim, answer: str) -> Status:
        if answer == "lost":
            raise LeaseLost(claim.id)
        return Status(answer)


def _status_or_conflict(answer: list[str | None]) -> Status:
    kind, status = answer
    if status is None:
        raise JobNotFound()
    if kind == "conflict":
        raise StateConflict(Status(status))
    return Status(status)


def request_hash(body: bytes) -> str:
    """What an idempotency key is bound to."""
    return hashlib.sha256(body).hexdigest()
