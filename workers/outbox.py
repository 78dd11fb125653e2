"""Writes to Redis in order, kept and repeated while Redis is away."""

from collections import deque
from collections.abc import Callable

import structlog

from service.store.connect import UNREACHABLE

log = structlog.get_logger(__name__)
MAX_REPORTS = 1000

Write = Callable[[], None]


class Outbox:
    """`urgent` writes are never dropped; of the others the newest thousand are kept."""

    def __init__(self) -> None:
        self._writes: deque[tuple[bool, Write]] = deque()

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
        while self._writes:
            try:
                self._writes[0][1]()
            except UNREACHABLE as error:
                log.warning("redis_unreachable", error=str(error), waiting=len(self._writes))
                return False
            self._writes.popleft()
        return True
