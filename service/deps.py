"""What the routes need: the connections of the process, and the caller of the request."""

from dataclasses import dataclass
from typing import Annotated, Self, cast

import structlog
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry
from redis import Redis

from service.auth import ANYBODY, KeyRing
from service.errors import Unauthorized, UnsupportedMediaType
from service.event_stream import EventStreams
from service.metrics import HttpMetrics, StoreCollector
from service.settings import Settings
from service.store.api_keys import ApiKeys, Principal
from service.store.blobs import Blobs
from service.store.connect import connect, connect_async
from service.store.jobs import JobStore
from service.store.queues import Queues
from service.store.records import JobRecords
from service.store.workers import Workers
from service.zoo.read import Zoo


@dataclass(frozen=True)
class Services:
    """One set for each app, shared by its threads. Nothing connects before the first use."""

    settings: Settings
    redis: Redis
    jobs: JobStore
    records: JobRecords
    queues: Queues
    workers: Workers
    keys: KeyRing
    blobs: Blobs
    zoo: Zoo
    streams: EventStreams
    registry: CollectorRegistry
    metrics: HttpMetrics

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """The services that these settings name."""
        redis = connect(settings.redis_url)
        registry = CollectorRegistry(auto_describe=False)
        queues = Queues(redis)
        blobs = Blobs.connect(settings, attempts=2)
        registry.register(StoreCollector(queues))
        return cls(
            settings=settings,
            redis=redis,
            jobs=JobStore(redis),
            records=JobRecords(redis),
            queues=queues,
            workers=Workers(redis),
            keys=KeyRing(ApiKeys(redis)),
            blobs=blobs,
            zoo=Zoo(blobs),
            streams=EventStreams(connect_async(settings.redis_url)),
            registry=registry,
            metrics=HttpMetrics(registry),
        )

    async def close(self) -> None:
        """Give all connections back."""
        await self.streams.close()
        self.redis.close()
        self.zoo.close()
        self.blobs.client.close()


async def services_of(request: Request) -> Services:
    """The services of the app that serves this request. It is async only to save a change of threads."""
    return cast(Services, request.app.state.services)


ServicesOf = Annotated[Services, Depends(services_of)]

_bearer = HTTPBearer(auto_error=False, description="An API key: `secateur keys create` prints one.")


async def caller_of(
    services: ServicesOf, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """The owner of the API key that the request bears. Raises Unauthorized."""
    if not services.settings.auth:
        return ANYBODY
    if credentials is None:
        raise Unauthorized(
            "Send an API key: `Authorization: Bearer sct_…`. `secateur keys create` makes one."
        )
    secret = credentials.credentials
    caller = services.keys.recall(secret) or await run_in_threadpool(services.keys.find, secret)
    if caller is None:
        raise Unauthorized("This API key is unknown, or was revoked: `secateur keys create` makes a new one.")
    structlog.contextvars.bind_contextvars(tenant=caller.tenant)
    return caller


Caller = Annotated[Principal, Depends(caller_of)]


async def json_only(request: Request) -> None:
    """Raises UnsupportedMediaType unless the body says that it is JSON."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != "application/json":
        raise UnsupportedMediaType(
            f"The body must be JSON: send `Content-Type: application/json`, not '{given}'. "
            "`secateur submit` converts YAML."
        )
