"""Writes to Redis in order, kept and repeated while Redis is away."""

import time
from collections import deque
from collections.abc import Callable

import structlog

from service.store.connect import UNREACHABLE

log = structlog.get_logger(__name__)
MAX_REPORTS = 1000

Write = Callable[[], None]


class Outbox:
    """`urgent` writes are never dropped; of the others the newest thousand are kept.

    After a failure nothing is tried for `again_after_s`: a hung server must not hold up the caller.
    """

    def __init__(self, again_after_s: float = 1.0) -> None:
        self._writes: deque[tuple[bool, Write]] = deque()
        self._again_after_s = again_after_s
        self._not_before = 0.0

    def add(self, write: Write, *, urgent: bool = False) -> None:
        """Put a write at the end, and try to send all."""
        self._writes.append((urgent, write))
        if len(self._writes) > MAX_REPORTS:
            oldest = next((item for item in self._writes if not item[0]), None)
            if oldest is not None:
                self._writes.remove(oldest)
        self.flush()

    def flush(self) -> bool:
        """Send what waits; False: Redis is away, call again. Raises what the store raises (LeaseLost)."""
        if time.monotonic() < self._not_before:
            return not self._writes
        while self._writes:
            try:
                self._writes[0][1]()
            except UNREACHABLE as error:
                log.warning("redis_unreachable", error=str(error), waiting=len(self._writes))
                self._not_before = time.monotonic() + self._again_after_s
                return False
            self._writes.popleft()
        return True
