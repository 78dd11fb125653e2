"""A job's events as they happen, from its Redis stream to server-sent events."""

from collections.abc import AsyncIterator

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sse_starlette import ServerSentEvent

from schemas.event import Event, EventType
from schemas.job import Status
from service.store.records import event_from
from service.store.scripts import PREFIX

_log = structlog.get_logger("service.events")

_BLOCK_MS = 2000  # below redis-py's own read timeout, 5 s
_BATCH = 100


class EventStreams:
    """Reads streams without a thread for each. Each open stream holds one of the pool's 100 connections."""

    def __init__(self, redis: Redis, prefix: str = PREFIX) -> None:
        self._redis = redis
        self._prefix = prefix

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()

    async def is_over(self, job: str, after: str) -> bool:
        """Whether the event `after` was the job's last: then there is nothing to wait for.

        `after` is a Redis stream id. Raises redis-py's errors.
        """
        newest = await self._redis.xrevrange(f"{self._prefix}events:{job}", count=1)
        return bool(newest) and _is_end(event_from(job, *newest[0])) and _order(after) >= _order(newest[0][0])

    async def follow(self, job: str, after: str) -> AsyncIterator[ServerSentEvent]:
        """The events after `after`, until the job has ended or is deleted.

        When Redis goes away the stream ends too: the client comes back with `Last-Event-ID`.
        """
        try:
            async for event in self._events(job, after):
                yield ServerSentEvent(data=event.model_dump_json(), event=event.type.value, id=event.id)
        except (RedisError, OSError) as error:
            _log.warning("event_stream_broken", job=job, error=str(error))

    async def _events(self, job: str, after: str) -> AsyncIterator[Event]:
        key = f"{self._prefix}events:{job}"
        while True:
            answer = await self._redis.xread({key: after}, count=_BATCH, block=_BLOCK_MS)
            if not answer and not await self._redis.exists(key):
                return
            for after, fields in answer[0][1] if answer else ():
                event = event_from(job, after, fields)
                yield event
                # a retried job has an end in the middle of its stream
                if _is_end(event) and await self.is_over(job, after):
                    return


def _is_end(event: Event) -> bool:
    return event.type is EventType.state and Status(event.data["status"]).is_terminal


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, serial = stream_id.partition("-")
    return int(milliseconds), int(serial or 0)
