"""What a job left behind: rounds, attempts, log, report, artifacts."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from pydantic import Field

from schemas.artifact import Artifact
from schemas.base import Spec
from schemas.job import Attempt
from schemas.page import Page
from schemas.report import Report
from schemas.round import Round
from service.deps import Caller, Services, ServicesOf
from service.errors import NoReport, NoSuchArtifact
from service.routes.responses import JobId, problems
from service.store.api_keys import Principal
from service.store.blobs import BlobNotFound

router = APIRouter(prefix="/v1/jobs/{id}", tags=["results"])

_HTML = "text/html"
_HTML_HEADERS = {
    # the page is made of a user's names and numbers: it may draw, and reach nobody
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; sandbox allow-scripts",
    "X-Content-Type-Options": "nosniff",
}


class LogQuery(Spec):
    """The query of a log."""

    limit: int = Field(1000, ge=1, le=5000, description="The newest lines, so many.")


@router.get("/rounds", responses=problems(401, 404), summary="Rounds of a job")
def list_rounds(id: JobId, services: ServicesOf, caller: Caller) -> Page[Round]:
    """The committed rounds, in order. A round that broke the floor is here, but is not the result."""
    services.records.get(caller.tenant, id)
    return Page(data=services.records.rounds(id))


@router.get("/attempts", responses=problems(401, 404), summary="Attempts of a job")
def list_attempts(id: JobId, services: ServicesOf, caller: Caller) -> Page[Attempt]:
    """Each start of the job, with its steps, their seconds, and how it ended."""
    job = services.records.get(caller.tenant, id)
    return Page(data=services.records.attempts(id, job.attempt))


@router.get("/logs", response_class=PlainTextResponse, responses=problems(401, 404), summary="Log of a job")
def show_log(
    id: JobId, query: Annotated[LogQuery, Query()], services: ServicesOf, caller: Caller
) -> PlainTextResponse:
    """The newest lines, oldest first."""
    services.records.get(caller.tenant, id)
    lines = services.records.log_lines(id, limit=query.limit)
    return PlainTextResponse("".join(line + "\n" for line in lines))


@router.get(
    "/report",
    response_model=Report,
    responses={200: {"content": {_HTML: {"schema": {"type": "string"}}}}, **problems(401, 404)},
    summary="Report of a job",
)
def show_report(id: JobId, request: Request, services: ServicesOf, caller: Caller) -> Response:
    """All figures of a job that succeeded; with `Accept: text/html` as a page that needs no other file."""
    job = services.records.get(caller.tenant, id)
    wants_html = _HTML in request.headers.get("accept", "")
    name = "report.html" if wants_html else "report.json"
    try:
        content = services.blobs.get_bytes(_key(services, caller, id, name))
    except (NoSuchArtifact, BlobNotFound):
        raise NoReport(
            f"The job is {job.status} and has no {name}: a job has a report when it has succeeded.",
            status=job.status,
        ) from None
    if wants_html:
        return Response(content, media_type=_HTML, headers=_HTML_HEADERS)
    return Response(content, media_type="application/json")


@router.get("/artifacts", responses=problems(401, 404), summary="Artifacts of a job")
def list_artifacts(id: JobId, services: ServicesOf, caller: Caller) -> Page[Artifact]:
    """The files of a job that succeeded, each with its size and SHA-256; empty until then."""
    manifest = services.records.manifest(caller.tenant, id)
    return Page(data=_artifacts(manifest))


@router.get(
    "/artifacts/{name:path}",
    status_code=307,
    response_class=RedirectResponse,
    responses=problems(401, 404),
    summary="Download an artifact",
)
def download_artifact(id: JobId, name: str, services: ServicesOf, caller: Caller) -> RedirectResponse:
    """Redirects to a link into S3 that needs no key and is valid for some minutes."""
    key = _key(services, caller, id, name)
    link = services.blobs.presign_get(key, name.rpartition("/")[2], services.settings.presign_seconds)
    return RedirectResponse(link, 307, headers={"Cache-Control": "no-store"})


def _key(services: Services, caller: Principal, id: str, name: str) -> str:
    """Where the file lies in the service's bucket. Only names in the manifest are found."""
    manifest = services.records.manifest(caller.tenant, id)
    names = [artifact.name for artifact in _artifacts(manifest)]
    if manifest is None or name not in names:
        known = ", ".join(names) or "none: it has no files before it has succeeded"
        raise NoSuchArtifact(f"The job has no artifact '{name}'. It has {known}.")
    return str(manifest["prefix"]) + name


def _artifacts(manifest: dict[str, Any] | None) -> list[Artifact]:
    return [Artifact.model_validate(one) for one in (manifest or {}).get("artifacts", [])]
