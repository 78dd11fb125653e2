"""What may be done to a job: cancel, retry; later pause and resume."""

from typing import NoReturn

from fastapi import APIRouter

from schemas.job import Job
from service.deps import Caller, ServicesOf
from service.errors import JobCannotBeCancelled, JobCannotBeRetried, NotAvailable
from service.routes.responses import JobId, problems
from service.store.errors import StateConflict

router = APIRouter(prefix="/v1/jobs/{id}", tags=["jobs"])


@router.post("/cancel", status_code=202, responses=problems(401, 404, 409), summary="Cancel a job")
def cancel_job(id: JobId, services: ServicesOf, caller: Caller) -> Job:
    """A waiting job is cancelled at once, a running one stops at its next batch. A repeat changes nothing."""
    services.records.get(caller.tenant, id)
    try:
        services.jobs.cancel(id)
    except StateConflict as error:
        raise JobCannotBeCancelled(
            f"The job is {error.status}: only a job that has not ended can be cancelled.", status=error.status
        ) from None
    return services.records.get(caller.tenant, id)


@router.post("/retry", status_code=202, responses=problems(401, 404, 409), summary="Retry a job")
def retry_job(id: JobId, services: ServicesOf, caller: Caller) -> Job:
    """Queue a failed, cancelled or expired job again: it goes on after its last committed round."""
    services.records.get(caller.tenant, id)
    try:
        services.jobs.retry(id)
    except StateConflict as error:
        raise JobCannotBeRetried(
            f"The job is {error.status}: only a failed, cancelled or expired job can be retried.",
            status=error.status,
        ) from None
    return services.records.get(caller.tenant, id)


@router.post("/pause", responses=problems(401, 404, 501), summary="Pause a job (not available yet)")
def pause_job(id: JobId, services: ServicesOf, caller: Caller) -> Job:
    """Not available in this version: cancel the job and retry it later, it keeps its committed rounds."""
    return _not_available("pause", id, services, caller)


@router.post("/resume", responses=problems(401, 404, 501), summary="Resume a job (not available yet)")
def resume_job(id: JobId, services: ServicesOf, caller: Caller) -> Job:
    """Not available in this version: see pause."""
    return _not_available("resume", id, services, caller)


def _not_available(verb: str, id: str, services: ServicesOf, caller: Caller) -> NoReturn:
    services.records.get(caller.tenant, id)
    raise NotAvailable(
        f"'{verb}' is not available in this version: cancel the job and retry it later; "
        "it goes on after its last committed round."
    )
