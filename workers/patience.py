"""Calls that outlast a short outage of S3: hours of work are not thrown away for one lost request."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from service.store.blobs import BlobError, BlobUnavailable
from workers.errors import StorageError, StorageUnavailable

log = structlog.get_logger(__name__)
PATIENCE_S = 300.0
Answer = TypeVar("Answer")


def patiently(
    call: Callable[[], Answer], heard: Callable[[], None], patience_s: float = PATIENCE_S
) -> Answer:
    """Repeat `call` with back-off while S3 does not answer; `heard` runs between tries and may raise Stopped.

    Raises StorageError after `patience_s` seconds, or at once where S3 refuses.
    """
    deadline = time.monotonic() + patience_s
    pause = 1.0
    while True:
        try:
            return call()
        except (BlobUnavailable, StorageUnavailable) as error:
            if time.monotonic() >= deadline:
                raise StorageError(f"S3 did not answer for {patience_s:.0f} s: {error}") from error
            log.warning("s3_unavailable", error=str(error), pause_s=pause)
        except BlobError as error:
            raise StorageError(str(error)) from error
        _wait(pause, heard)
        pause = min(pause * 2, 30.0)


def _wait(seconds: float, heard: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        heard()
        time.sleep(0.1)
