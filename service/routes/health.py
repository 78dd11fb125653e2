"""For machines that watch the service: alive, ready, metrics. None asks for a key."""

from typing import Literal

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder
from redis.exceptions import RedisError

from schemas.base import Resource
from service.deps import Services, ServicesOf
from service.store.blobs import BlobError

router = APIRouter(tags=["operations"])
_log = structlog.get_logger("service.health")

State = Literal["ok", "unavailable"]


class Alive(Resource):
    """This process answers."""

    status: Literal["ok"] = "ok"


class Ready(Resource):
    """Whether this process could take a job now."""

    status: Literal["ready", "unavailable"]
    redis: State
    s3: State


@router.get("/healthz", summary="Alive")
async def alive() -> Alive:
    """Asks nobody else: a restart would not help against a Redis that is down."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses={503: {"model": Ready}}, summary="Ready for requests")
def ready(services: ServicesOf) -> Response:
    """Asks Redis and S3."""
    redis, s3 = _redis(services), _s3(services)
    fine = redis == s3 == "ok"
    body = Ready(status="ready" if fine else "unavailable", redis=redis, s3=s3)
    return Response(body.model_dump_json(), 200 if fine else 503, media_type="application/json")


def _redis(services: Services) -> State:
    try:
        services.redis.ping()
    except (RedisError, OSError) as error:
        _log.warning("not_ready", redis=str(error))
        return "unavailable"
    return "ok"


def _s3(services: Services) -> State:
    try:
        next(services.blobs.list("readyz/"), None)  # one request; a missing bucket is an error
    except BlobError as error:
        _log.warning("not_ready", s3=str(error))
        return "unavailable"
    return "ok"


@router.get("/metrics", response_class=Response, summary="Prometheus metrics")
def metrics(request: Request, services: ServicesOf) -> Response:
    """Aggregates only, no ids. In OpenMetrics or the text format, as `Accept` asks."""
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(services.registry), headers={"Content-Type": media_type})
