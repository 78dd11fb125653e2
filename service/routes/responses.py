"""How the routes document their errors, and the path parameter that most of them share."""

from typing import Annotated, Any

from fastapi import Path

from schemas.problem import Problem

_WHY = {
    401: "No API key, or an unknown one.",
    403: "The spec names an S3 URI that this key may not read.",
    404: "There is none, or another tenant owns it.",
    409: "The state of the job, or an earlier request, forbids it.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The request does not fit its schema.",
    429: "Too many open event streams.",
    501: "Not available in this version.",
    503: "Redis or S3 does not answer: try again.",
}

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """These errors, for OpenAPI; any route may also answer 422 and 503."""
    return {
        status: {"model": Problem, "description": _WHY[status]} for status in sorted({*statuses, 422, 503})
    }


JobId = Annotated[str, Path(description="The job's id.", examples=["job_01jdf3q8v7e0x9m4a1b2"])]
