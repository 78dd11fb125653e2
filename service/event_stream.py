"""A job's events as they happen, from its Redis stream to server-sent events."""

from collections.abc import AsyncIterator

import anyio
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sse_starlette import ServerSentEvent

from schemas.event import Event, EventType
from schemas.job import Status
from service.errors import Overloaded
from service.store.records import event_from
from service.store.scripts import PREFIX

_log = structlog.get_logger("service.events")

_BLOCK_MS = 2000  # below redis-py's own read timeout, 5 s; a stopping server waits for no more than that
_BATCH = 100
MOST_STREAMS = 90
"""Open streams of one process. Each holds a connection to Redis, of which redis-py opens 100."""


class EventStreams:
    """Reads streams without a thread for each."""

    def __init__(self, redis: Redis, prefix: str = PREFIX) -> None:
        self._redis = redis
        self._prefix = prefix
        self._open = 0

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()

    async def is_over(self, job: str, after: str) -> bool:
        """Whether the event `after` was the job's last: then there is nothing to wait for.

        `after` is a Redis stream id. Raises redis-py's errors.
        """
        newest = await self._redis.xrevrange(f"{self._prefix}events:{job}", count=1)
        return bool(newest) and _is_end(event_from(job, *newest[0])) and _order(after) >= _order(newest[0][0])

    def raise_if_full(self) -> None:
        """Raises Overloaded while as many streams are open as this process can carry."""
        if self._open >= MOST_STREAMS:
            raise Overloaded(
                f"This server has {self._open} open event streams: close some, or try again later."
            )

    async def follow(self, job: str, after: str, stopping: anyio.Event) -> AsyncIterator[ServerSentEvent]:
        """The events after `after`, until the job has ended or is deleted, or the server is `stopping`.

        When Redis goes away the stream ends too: the client comes back with `Last-Event-ID`.
        """
        self._open += 1
        try:
            async for event in self._events(job, after, stopping):
                yield ServerSentEvent(data=event.model_dump_json(), event=event.type.value, id=event.id)
        except (RedisError, OSError) as error:
            _log.warning("event_stream_broken", job=job, error=str(error))
        finally:
            self._open -= 1

    async def _events(self, job: str, after: str, stopping: anyio.Event) -> AsyncIterator[Event]:
        key = f"{self._prefix}events:{job}"
        while not stopping.is_set():
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
