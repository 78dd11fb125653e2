"""Sizes of the queues, totals, and what the steward has still to do; all read in O(log n) or better."""

import time
from dataclasses import dataclass

from redis import Redis

from schemas.wire import DeviceClass
from service.store.scripts import PREFIX, Scripts


@dataclass(frozen=True)
class QueueSize:
    """One device class."""

    waiting: int
    demand: int
    oldest_ms: int | None

    @property
    def running(self) -> int:
        return self.demand - self.waiting


class Queues:
    """Read-only, but for the chores that the steward ticks off."""

    def __init__(self, redis: Redis, prefix: str = PREFIX) -> None:
        self._redis = redis
        self._prefix = prefix
        self._scripts = Scripts(redis, prefix)

    def size(self, device: DeviceClass) -> QueueSize:
        """What waits and runs in one class."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.zcard(f"{self._prefix}waiting:{device}")
        pipe.zcard(f"{self._prefix}demand:{device}")
        pipe.zrange(f"{self._prefix}waiting:{device}", 0, 0, withscores=True)
        waiting, demand, oldest = pipe.execute()
        return QueueSize(waiting, demand, int(oldest[0][1]) if oldest else None)

    def counts(self) -> dict[str, int]:
        """Jobs now in each status."""
        return self._hash("counts")

    def totals(self) -> dict[str, int]:
        """Counters: `submitted`, `recoveries`, `leases_lost`, `finished:STATUS:CLASS`."""
        return self._hash("totals")

    def _hash(self, name: str) -> dict[str, int]:
        return {k: int(v) for k, v in self._redis.hgetall(self._prefix + name).items()}

    def due(self, chore: str, limit: int) -> list[tuple[str, float]]:
        """Of `archive` (ended jobs) or `trash` (S3 prefixes of deleted ones): what is due, and since when."""
        now = time.time() * 1000
        found = self._redis.zrangebyscore(
            f"{self._prefix}{chore}", "-inf", now, start=0, num=limit, withscores=True
        )
        return [(name, score) for name, score in found]

    def done(self, chore: str, name: str, since: float) -> None:
        """Tick a chore off, unless it came up anew meanwhile (a retried job that ended again)."""
        self._scripts.call("done", chore, name, since)

    def postpone(self, chore: str, name: str, since: float, seconds: float) -> None:
        """Have a chore come up again later."""
        self._redis.zadd(f"{self._prefix}{chore}", {name: since + seconds * 1000}, xx=True)
