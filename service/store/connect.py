"""Connections to Redis, the same for every process."""

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    TimeoutError,
    TryAgainError,
)
from redis.retry import Retry

_OPTIONS = {
    "decode_responses": True,
    "socket_connect_timeout": 3,
    "socket_timeout": 10,
    "health_check_interval": 30,
}

UNREACHABLE = (
    ConnectionError,
    TimeoutError,
    OSError,
    OutOfMemoryError,
    ReadOnlyError,
    MasterDownError,
    ClusterDownError,
    TryAgainError,
)
"""What a call raises while Redis is away, or takes no writes."""


def connect(url: str, *, retries: int = 2) -> Redis:
    """A thread-safe client. It connects on first use, and repeats a call that met a broken connection."""
    return Redis.from_url(url, retry=Retry(ExponentialBackoff(cap=1, base=0.05), retries), **_OPTIONS)


def connect_async(url: str) -> AsyncRedis:
    """For the event streams, which wait for a long time."""
    return AsyncRedis.from_url(url, decode_responses=True, socket_connect_timeout=3)
