"""Every setting of every process, read once from the environment (`SECATEUR_…`)."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit, urlunsplit

from pydantic import AfterValidator, AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MiB = 1024**2
GiB = 1024**3


def _redis_url(url: str) -> str:
    if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("a Redis URL starts with redis://, rediss:// or unix://")
    database_of(url)
    return url


def database_of(url: str) -> int:
    """The database number that a Redis URL names: `redis://host/2`, `unix:///path?db=2`; 0 if none."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    named = query.get("db") or query.get("virtual_host")
    path = "" if parts.scheme in ("unix", "redis+socket") else parts.path.strip("/")
    number = named[0] if named else path or "0"
    if not number.isdecimal():
        raise ValueError(
            f"'{number}' in the Redis URL is not a database number; use a URL like redis://host/0"
        )
    return int(number)


def with_database(url: str, number: int) -> str:
    """The same Redis server, another database; every other part of the URL stays."""
    parts = urlsplit(url)
    key = "virtual_host" if parts.scheme == "redis+socket" else "db"
    kept = [item for item in parts.query.split("&") if item and not item.startswith((f"{key}=", "db="))]
    path = parts.path
    if parts.scheme in ("unix", "redis+socket"):
        kept.append(f"{key}={number}")
    else:
        path = f"/{number}"
    # urlunsplit would drop the empty authority of unix:///path
    rest = urlunsplit(("", "", path, "&".join(kept), ""))
    return f"{parts.scheme}://{parts.netloc}{rest}"


def for_celery(url: str) -> str:
    """A Redis URL as Celery spells it: redis-py's `unix:///path?db=1` is `redis+socket:///path?virtual_host=1`."""
    if urlsplit(url).scheme != "unix":
        return url
    return with_database(url.replace("unix://", "redis+socket://", 1), database_of(url))


def _default_broker(data: dict[str, Any]) -> str:
    redis_url = data["redis_url"]
    return with_database(redis_url, database_of(redis_url) + 1)


class Settings(BaseSettings):
    """One instance serves the API, the steward and the workers; each reads what concerns it.

    S3 credentials are not here: boto3 finds them itself (AWS_ACCESS_KEY_ID, a profile, the machine's role).
    """

    model_config = SettingsConfigDict(env_prefix="SECATEUR_", frozen=True, populate_by_name=True)

    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,  # it may hold a password
        validation_alias=AliasChoices("SECATEUR_REDIS_URL", "REDIS_URL"),
        description="The records of jobs, workers and keys. REDIS_URL is read too.",
    )
    broker_url: Annotated[str, AfterValidator(for_celery)] = Field(
        default_factory=_default_broker,
        validate_default=True,
        repr=False,
        description="Celery's broker. By default the same server as redis_url, in the next database.",
    )

    s3_endpoint_url: str | None = Field(
        None,
        validation_alias=AliasChoices(
            "SECATEUR_S3_ENDPOINT_URL", "S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"
        ),
        description="An S3-compatible server. Null: AWS. S3_ENDPOINT_URL, AWS_ENDPOINT_URL_S3 are read too.",
    )
    s3_public_url: str | None = Field(
        None, description="The same server as users reach it, for download links. Null: s3_endpoint_url."
    )
    s3_region: str = Field(
        "us-east-1",
        validation_alias=AliasChoices("SECATEUR_S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
        description="The region that requests are signed for. AWS_REGION is read too.",
    )
    bucket: str = Field(
        "secateur", min_length=3, max_length=63, description="Where specs, rounds, artifacts and reports go."
    )
    s3_checksums: Literal["when_supported", "when_required"] = Field(
        "when_supported", description="when_required: for servers that refuse the newer checksum headers."
    )
    presign_seconds: int = Field(
        900, ge=1, le=604_800, description="How long a download link of an artifact is valid."
    )

    api_host: str = Field("127.0.0.1", description="The address that the API listens on.")
    api_port: int = Field(8080, ge=0, le=65_535, description="The API's port; 0: any free one.")
    max_body_bytes: int = Field(MiB, ge=1024, description="A larger request body is refused with 413.")
    auth: bool = Field(True, description="Ask for an API key. Off: every caller is the tenant 'default'.")
    check_memory: bool = Field(
        True,
        description="Refuse jobs whose weights alone need more memory than any living worker has, or than "
        "is free on the worker that got them.",
    )
    idempotency_ttl_s: int = Field(
        86_400, ge=1, description="How long the answer to an Idempotency-Key is remembered."
    )

    lease_seconds: float = Field(
        30.0, gt=0, le=3600, description="A job whose worker was silent for so long is given to another."
    )
    heartbeat_seconds: float = Field(5.0, gt=0, le=600, description="How often a worker renews its lease.")
    child_module: str = Field(
        "workers.child", description="The Python module that runs one job; it speaks workers.messages."
    )
    stall_seconds: float = Field(
        1800.0, gt=0, le=86_400, description="A job that says nothing for so long is started again elsewhere."
    )
    steward_tick_seconds: float = Field(1.0, gt=0, le=60, description="How often the steward looks around.")

    worker_slots: int = Field(
        0,
        ge=0,
        le=64,
        description="Jobs at once on one worker; 0: one for each GPU; without a GPU one.",
    )
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of one job; 0: the machine's cores shared among the slots."
    )
    cache_dir: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        Path("~/.cache/secateur"),
        validate_default=True,
        description="Where workers keep downloaded models and data sets.",
    )
    cache_bytes: int = Field(
        50 * GiB, ge=0, description="The cache's size; what was used longest ago goes first."
    )

    stream_bytes: int = Field(
        2 * GiB,
        ge=0,
        description="Images that take more than this once decoded are read while the job trains, not before.",
    )

    worker_metrics_port: int = Field(9101, ge=0, le=65_535, description="A worker's /metrics; 0: none.")
    steward_metrics_port: int = Field(9102, ge=0, le=65_535, description="The steward's /metrics; 0: none.")
    metrics_host: str = Field("127.0.0.1", description="The address that /metrics of both listens on.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")
    log_format: Literal["json", "console"] = Field("json", description="console: for reading in a terminal.")


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """This process's settings. Raises pydantic's ValidationError, which names the variable that is wrong."""
    return Settings()
