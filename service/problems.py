"""Every error as `application/problem+json`: one translation, one handler, one renderer."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from redis.exceptions import (
    ConnectionError,
    MaxConnectionsError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from schemas.problem import FieldError, Problem
from schemas.wire import PROBLEM_JSON
from service.errors import (
    IdempotencyKeyReused,
    InvalidJson,
    InvalidRequest,
    InvalidSpec,
    NoSuchJob,
    Overloaded,
    RedisUnavailable,
    ServiceError,
    StorageUnavailable,
)
from service.store.blobs import BlobError
from service.store.errors import IdempotencyMismatch, JobNotFound, StoreError

_log = structlog.get_logger("service.problems")

_SHOWN_ERRORS = 50
_ABSENT = (ConnectionError, TimeoutError, OutOfMemoryError, ReadOnlyError)
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # RFC 9110; Python learns them in 3.13
_UNKNOWN = {
    "body": "there is no such field: GET /v1/schemas lists the schemas",
    "query": "there is no such parameter: GET /openapi.json lists them",
}
_HTTP = {
    400: ("bad_request", "The body could not be read: send one JSON object in UTF-8, not too deeply nested."),
    404: ("not_found", "There is nothing at this path: GET /openapi.json lists all of them."),
    405: (
        "method_not_allowed",
        "This path takes other methods: the header Allow names them.",
    ),
}


def install(app: FastAPI) -> None:
    """Answer every foreseen error of this app with a problem."""
    for kind in (ServiceError, StoreError, BlobError, RedisError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        # Starlette raises 400, 404 and 405, our BodyLimit 413
        code, detail = _HTTP.get(error.status_code, ("body_too_large", str(error.detail)))
        return problem_response(request.scope, error.status_code, code, detail, headers=error.headers)
    return render(request.scope, as_service_error(error))


def as_service_error(error: Exception) -> ServiceError:
    """What this error means to a caller. What nobody foresaw is raised again."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestValidationError):
        return invalid(error.errors())
    if isinstance(error, JobNotFound):
        return NoSuchJob("There is no job with this id: GET /v1/jobs lists yours.")
    if isinstance(error, IdempotencyMismatch):
        return IdempotencyKeyReused(
            f"This Idempotency-Key was sent before with another body, and made job {error}: use a new key.",
            job=str(error),
        )
    return _unavailable(error)


def _unavailable(error: Exception) -> ServiceError:
    if isinstance(error, BlobError):
        _log.warning("storage_failed", error=str(error))
        return StorageUnavailable("The object storage does not answer as it should: try again in a moment.")
    if isinstance(error, MaxConnectionsError):  # many streams were opened at the same moment
        return Overloaded("This server has too many open event streams: close some, or try again later.")
    if isinstance(error, _ABSENT):
        _log.warning("redis_failed", error=str(error))
        return RedisUnavailable("The job store does not answer as it should: try again in a moment.")
    raise error


def invalid(found: Any) -> InvalidRequest:
    """The error for what pydantic found wrong with a request."""
    errors = tuple(_field_error(one) for one in found[:_SHOWN_ERRORS])
    if any(error.type == "json_invalid" for error in errors):
        return InvalidJson(f"The body is not JSON: {found[0]['ctx']['error']}.", errors=errors)
    shown = "; ".join(f"{_where(error.loc)}: {error.msg}" for error in errors[:3])
    detail = shown if len(found) <= 3 else f"{shown}; and {len(found) - 3} more"
    kind = InvalidSpec if errors[0].loc[:1] == ["body"] else InvalidRequest
    return kind(detail, errors=errors)


def _field_error(found: dict[str, Any]) -> FieldError:
    loc = [part if isinstance(part, int) else _clean(part) for part in found["loc"]]
    msg = _clean(found["msg"].removeprefix("Value error, "))
    if found["type"] == "extra_forbidden":
        msg = _UNKNOWN.get(str(loc[0]), msg)
    return FieldError(loc=loc, msg=msg, type=found["type"])


def _where(loc: list[str | int]) -> str:
    inner = loc[1:] if loc[:1] in (["body"], ["query"], ["header"], ["path"]) else loc
    return ".".join(str(part) for part in inner) or "body"


def _clean(text: str) -> str:
    """A user's text may hold lone surrogates, which no JSON answer could carry."""
    return text[:500].encode("utf-8", "backslashreplace").decode()


def render(scope: Scope, error: ServiceError) -> Response:
    """The response to this error."""
    return problem_response(
        scope,
        error.status,
        error.code,
        error.detail,
        errors=error.errors,
        context=error.context,
        headers=error.headers,
    )


def problem_response(
    scope: Scope,
    status: int,
    code: str,
    detail: str,
    *,
    errors: tuple[FieldError, ...] = (),
    context: dict[str, Any] | None = None,
    headers: Any = None,
) -> Response:
    """A problem under the id of this request."""
    problem = Problem(
        title=_TITLES.get(status) or HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=_clean_long(detail),
        errors=list(errors),
        request_id=scope.get("state", {}).get("request_id"),
        context=context or {},
    )
    return Response(problem.model_dump_json(), status, headers=headers, media_type=PROBLEM_JSON)


def _clean_long(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
