"""Sizes of the queues, totals, and what the steward has still to do; all read in O(log n) or better."""

from dataclasses import dataclass

from redis import Redis

from schemas.wire import DeviceClass
from service.store.scripts import PREFIX


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

    def to_archive(self, limit: int) -> list[str]:
        """Terminal jobs whose record is not in S3 yet."""
        return list(self._redis.zrange(f"{self._prefix}archive", 0, limit - 1))

    def archived(self, id: str) -> None:
        self._redis.zrem(f"{self._prefix}archive", id)

    def trash(self, limit: int) -> list[str]:
        """Prefixes in S3 of deleted jobs."""
        return list(self._redis.zrange(f"{self._prefix}trash", 0, limit - 1))

    def emptied(self, prefix: str) -> None:
        self._redis.zrem(f"{self._prefix}trash", prefix)
