"""Jobs: create, check, list, show, change, delete."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import Field, model_validator

from schemas.base import Metadata, Spec, Tag
from schemas.job import Estimate, Job, JobPatch, Status
from schemas.job_spec import JobSpec
from schemas.page import Page
from schemas.problem import FieldError
from schemas.wire import IDEMPOTENCY_HEADER
from service.deps import Caller, ServicesOf, json_only
from service.errors import InvalidRequest, JobNotTerminal, PriorityIsFixed
from service.estimate import estimate
from service.routes.responses import JobId, problems
from service.store.errors import JobNotFound, StateConflict
from service.store.records import Filter
from service.submit import submit

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_METADATA = re.compile(r"metadata\[.*\]")

IdempotencyKey = Annotated[
    str,
    Header(
        alias=IDEMPOTENCY_HEADER,
        max_length=255,
        pattern=r"^[\x21-\x7e]*$",
        description="Send the same key and body again, and the same job is answered. Remembered for a day.",
    ),
]


class JobQuery(Spec):
    """The query of a list of jobs; a parameter that is not here is refused."""

    limit: int = Field(20, ge=1, le=100, description="Jobs on a page.")
    after: str | None = Field(None, max_length=128, description="The last id of the page before.")
    status: list[Status] = Field(
        default_factory=list, max_length=10, description="May be repeated: any of them."
    )
    tag: Tag | None = Field(None, description="Only jobs with this tag.")
    metadata: Metadata = Field(
        default_factory=dict, description="Written `metadata[key]=value`: only jobs with this pair."
    )

    @model_validator(mode="before")
    @classmethod
    def _gather_metadata(cls, value: dict[str, Any]) -> dict[str, Any]:
        pairs = {name: name[len("metadata[") : -1] for name in value if _METADATA.fullmatch(name)}
        rest = {name: value[name] for name in value if name not in pairs}
        return {**rest, "metadata": {key: value[name] for name, key in pairs.items()}} if pairs else rest


@router.post(
    "",
    status_code=201,
    response_model=Job,
    dependencies=[Depends(json_only)],
    responses={
        200: {"model": Job, "description": "This Idempotency-Key made the job before."},
        **problems(401, 403, 409, 413, 415),
    },
    summary="Submit a job",
)
def create_job(
    spec: JobSpec, services: ServicesOf, caller: Caller, idempotency_key: IdempotencyKey = ""
) -> Response:
    """Accept a pruning job. Once this answers, the job is durable: it survives the loss of any process.

    Four lines of JSON are enough; `POST /v1/jobs/validate` shows all the defaults that they get.
    """
    accepted = submit(services, caller, spec, idempotency_key)
    headers = {"Location": f"/v1/jobs/{accepted.job.id}"}
    if not accepted.created:
        headers["Idempotent-Replayed"] = "true"
    # our own model: FastAPI would validate it again, in one more thread
    return Response(
        accepted.job.model_dump_json(),
        201 if accepted.created else 200,
        headers=headers,
        media_type="application/json",
    )


@router.post(
    "/validate",
    dependencies=[Depends(json_only)],
    responses=problems(401, 403, 413, 415),
    summary="Check a spec without running it",
)
def validate_job(spec: JobSpec, services: ServicesOf, caller: Caller) -> Estimate:
    """Everything that submitting checks, the sizes in S3, the spec with all its defaults; creates nothing."""
    return estimate(services, caller, spec)


@router.get("", responses=problems(401), summary="List jobs")
def list_jobs(query: Annotated[JobQuery, Query()], services: ServicesOf, caller: Caller) -> Page[Job]:
    """Your jobs, newest first. The next page: `?after=` with this one's `last_id`, as long as `has_more`."""
    wanted = Filter(tuple(query.status), query.tag, query.metadata)
    try:
        jobs, more = services.records.page(caller.tenant, wanted, limit=query.limit, after=query.after)
    except JobNotFound:
        raise InvalidRequest(
            f"after: there is no job '{query.after}' (any more): begin again without `after`.",
            errors=(FieldError(loc=["query", "after"], msg="no such job", type="job_not_found"),),
        ) from None
    return Page(data=jobs, has_more=more, last_id=jobs[-1].id if jobs else None)


@router.get("/{id}", responses=problems(401, 404), summary="Show a job")
def show_job(id: JobId, services: ServicesOf, caller: Caller) -> Job:
    """One job: its status and why, progress, and the spec with all defaults."""
    return services.records.get(caller.tenant, id)


@router.patch(
    "/{id}",
    dependencies=[Depends(json_only)],
    responses=problems(401, 404, 409, 413, 415),
    summary="Change tags or priority",
)
def change_job(id: JobId, patch: JobPatch, services: ServicesOf, caller: Caller) -> Job:
    """Tags may change at any time, the priority while the job waits. The spec never changes."""
    job = services.records.get(caller.tenant, id)
    try:
        services.jobs.patch(id, patch, job.tags)
    except StateConflict as error:
        raise PriorityIsFixed(
            f"The job is {error.status}: its priority may change only while it waits.", status=error.status
        ) from None
    return services.records.get(caller.tenant, id)


@router.delete("/{id}", status_code=204, responses=problems(401, 404, 409), summary="Delete a job")
def delete_job(id: JobId, services: ServicesOf, caller: Caller) -> None:
    """Forget a job that has ended, and remove its files from S3 soon after."""
    job = services.records.get(caller.tenant, id)
    try:
        services.jobs.delete(id, job.tags)
    except StateConflict as error:
        raise JobNotTerminal(
            f"The job is {error.status}: cancel it, and delete it when it has ended.", status=error.status
        ) from None
