"""Accepting a job: checked, durable in S3, recorded in Redis, in this order."""

from dataclasses import dataclass

import structlog

from schemas.job import Job
from schemas.job_spec import JobSpec
from service.auth import check_uris
from service.deps import Services
from service.errors import IdempotencyKeyReused
from service.memory import require_memory
from service.store.api_keys import Principal
from service.store.blobs import BlobError
from service.store.errors import IdempotencyMismatch, JobNotFound
from service.store.jobs import new_job_id, request_hash

_log = structlog.get_logger("service.submit")


@dataclass(frozen=True)
class Accepted:
    """A job, and whether this request made it."""

    job: Job
    created: bool


def submit(services: Services, caller: Principal, spec: JobSpec, idempotency_key: str) -> Accepted:
    """Accept a spec once for each idempotency key; '' means that every call makes a job.

    The same key must come with an equal spec; how its JSON is written does not matter. Raises
    PrefixNotAllowed, IdempotencyMismatch, IdempotencyKeyReused, NotEnoughMemory, BlobError, and redis-py's
    errors.
    """
    check_uris(caller, spec, services.settings.bucket)
    body = spec.model_dump_json().encode()
    digest = request_hash(body) if idempotency_key else ""
    if idempotency_key:
        seen = services.jobs.replayed(caller.tenant, idempotency_key, digest)
        if seen is not None:
            return Accepted(_replayed(services, caller, seen), created=False)
    require_memory(services, spec)
    id = new_job_id()
    folder = f"{caller.tenant}/jobs/{id}/"
    with services.metrics.s3_put.time():
        services.blobs.put_bytes(folder + "spec.json", body)
    try:
        submitted = services.jobs.submit(
            spec,
            id=id,
            tenant=caller.tenant,
            idempotency_key=idempotency_key,
            request_hash=digest,
            idempotency_ttl_s=services.settings.idempotency_ttl_s,
        )
    except IdempotencyMismatch:
        _discard(services, folder)
        raise
    if submitted.id != id:  # an equal request was faster
        _discard(services, folder)
        return Accepted(_replayed(services, caller, submitted.id), created=False)
    return Accepted(services.records.get(caller.tenant, id), created=True)


def _replayed(services: Services, caller: Principal, id: str) -> Job:
    try:
        return services.records.get(caller.tenant, id)
    except JobNotFound:
        raise IdempotencyKeyReused(
            f"This Idempotency-Key made job {id}, which has been deleted: use a new key.", job=id
        ) from None


def _discard(services: Services, folder: str) -> None:
    """Take a spec back that became no job. After any other failure it stays: its job may exist."""
    try:
        services.blobs.delete_prefix(folder)
    except BlobError as error:
        _log.warning("orphan_spec", folder=folder, error=str(error))
