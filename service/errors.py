"""Errors that a request can end in: the class fixes status and code, the message names cause and remedy."""

from typing import Any, ClassVar

from schemas.problem import FieldError


class ServiceError(Exception):
    """The request cannot be served."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, detail: str, *, errors: tuple[FieldError, ...] = (), **context: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.context = context


class Unauthorized(ServiceError):
    """No API key, or one that nobody owns."""

    status = 401
    code = "unauthorized"
    headers = {"WWW-Authenticate": 'Bearer realm="secateur"'}


class PrefixNotAllowed(ServiceError):
    """The spec names an S3 URI that this key may not read."""

    status = 403
    code = "prefix_not_allowed"


class NoSuchJob(ServiceError):
    """There is none with this id, or another tenant owns it."""

    status = 404
    code = "job_not_found"


class NoSuchArtifact(ServiceError):
    """The job has no file of that name."""

    status = 404
    code = "artifact_not_found"


class NoReport(ServiceError):
    """The job has no report, or not yet."""

    status = 404
    code = "report_not_found"


class NoSuchSchema(ServiceError):
    """There is no schema of that name."""

    status = 404
    code = "schema_not_found"


class JobNotTerminal(ServiceError):
    """A worker may still touch the job."""

    status = 409
    code = "job_not_terminal"


class JobCannotBeCancelled(ServiceError):
    """The job has ended."""

    status = 409
    code = "job_cannot_be_cancelled"


class JobCannotBeRetried(ServiceError):
    """The job has not ended, or it succeeded."""

    status = 409
    code = "job_cannot_be_retried"


class PriorityIsFixed(ServiceError):
    """The job no longer waits."""

    status = 409
    code = "job_priority_is_fixed"


class IdempotencyKeyReused(ServiceError):
    """The key was sent before with another body, or what it made is gone."""

    status = 409
    code = "idempotency_key_reused"


class BodyTooLarge(ServiceError):
    """More bytes than the settings allow."""

    status = 413
    code = "body_too_large"


class UnsupportedMediaType(ServiceError):
    """The body is not JSON."""

    status = 415
    code = "unsupported_media_type"


class InvalidRequest(ServiceError):
    """A query parameter, a header or a path is wrong."""

    status = 422
    code = "invalid_request"


class NoSuchBucket(InvalidRequest):
    """The request names a bucket that S3 does not have."""

    code = "bucket_not_found"


class BucketForbidden(InvalidRequest):
    """The request names a bucket that the service's own S3 credentials may not list."""

    code = "bucket_forbidden"


class InvalidSpec(InvalidRequest):
    """The body does not fit its schema."""

    code = "invalid_spec"


class NotEnoughMemory(InvalidRequest):
    """No living worker has the memory that the job takes at least."""

    code = "not_enough_memory"


class InvalidJson(InvalidRequest):
    """The body cannot be parsed."""

    code = "invalid_json"


class Overloaded(ServiceError):
    """This process has as many open event streams as it can carry."""

    status = 429
    code = "too_many_streams"
    headers = {"Retry-After": "5"}


class NotAvailable(ServiceError):
    """The product will have it, this version has not."""

    status = 501
    code = "not_available"


class RedisUnavailable(ServiceError):
    """Redis does not answer, or takes no writes."""

    status = 503
    code = "redis_unavailable"
    headers = {"Retry-After": "5"}


class StorageUnavailable(ServiceError):
    """S3 does not answer, or refuses us."""

    status = 503
    code = "storage_unavailable"
    headers = {"Retry-After": "5"}
