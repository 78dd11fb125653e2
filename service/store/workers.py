"""The registry of workers: each announces itself every few seconds and is forgotten when it stops."""

import time

from redis import Redis

from schemas.fleet import Worker
from service.store.scripts import PREFIX

FORGET_AFTER_S = 30


class Workers:
    """Who is there. Not job state: a lost entry costs nothing but a ring."""

    def __init__(self, redis: Redis, prefix: str = PREFIX) -> None:
        self._redis = redis
        self._prefix = prefix

    def announce(self, worker: Worker) -> None:
        """Say that this worker lives."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(f"{self._prefix}worker:{worker.id}", worker.model_dump_json(), ex=FORGET_AFTER_S)
        pipe.zadd(f"{self._prefix}workers", {worker.id: time.time()})
        pipe.execute()

    def leave(self, id: str) -> None:
        """This worker stops."""
        self._redis.delete(f"{self._prefix}worker:{id}")
        self._redis.zrem(f"{self._prefix}workers", id)

    def living(self) -> list[Worker]:
        """The workers that announced themselves lately, by id."""
        ids = self._redis.zrange(f"{self._prefix}workers", 0, -1)
        if not ids:
            return []
        stored = self._redis.mget([f"{self._prefix}worker:{id}" for id in ids])
        gone = [id for id, text in zip(ids, stored, strict=True) if text is None]
        if gone:
            self._redis.zrem(f"{self._prefix}workers", *gone)
        return sorted((Worker.model_validate_json(text) for text in stored if text), key=lambda one: one.id)
