"""A job's events: a list, or a live stream."""

from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AfterValidator, Field
from sse_starlette import EventSourceResponse

from schemas.base import Spec
from schemas.event import Event
from schemas.page import Page
from service.deps import Caller, ServicesOf
from service.routes.responses import JobId, problems
from service.store.records import stream_id

router = APIRouter(prefix="/v1/jobs/{id}", tags=["results"])

PING_S = 15
STOP_S = 5  # a stream that ends in order is no error to its client
_STREAM = "text/event-stream"


def _parseable(value: str) -> str:
    if value:
        stream_id(value)
    return value


EventId = Annotated[str, Field(max_length=64, pattern=r"^(evt_\d+(-\d+)?)?$"), AfterValidator(_parseable)]
_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {_STREAM: {"schema": {"type": "string", "description": "`event:` is the event's type."}}}
    },
    204: {"description": "`Last-Event-ID` was the job's last event: do not come back."},
    **problems(401, 404, 429),
}


class EventQuery(Spec):
    """The query of a list of events."""

    limit: int = Field(100, ge=1, le=1000, description="Events on a page.")
    after: EventId = Field("", description="The last id of the page before; '': from the first.")


@router.get("/events", response_model=Page[Event], responses=_DOCUMENTED, summary="Events of a job")
async def list_events(
    id: JobId,
    query: Annotated[EventQuery, Query()],
    request: Request,
    services: ServicesOf,
    caller: Caller,
    last_event_id: Annotated[EventId, Header(description="Streams go on after this event.")] = "",
) -> Page[Event] | Response:
    """What happened, oldest first.

    With `Accept: text/event-stream` a live stream: it begins after `Last-Event-ID` (or `after`), else with
    the first event, and ends when the job has ended.
    """
    await run_in_threadpool(services.records.get, caller.tenant, id)
    if _STREAM in request.headers.get("accept", ""):
        return await _stream(id, last_event_id or query.after, services)
    found = await run_in_threadpool(
        services.records.events, id, after=query.after or None, limit=query.limit + 1
    )
    shown = found[: query.limit]
    return Page(data=shown, has_more=len(found) > len(shown), last_id=shown[-1].id if shown else None)


async def _stream(id: str, last: str, services: ServicesOf) -> Response:
    after = stream_id(last) if last else "0-0"
    if await services.streams.is_over(id, after):
        return Response(status_code=204)  # an EventSource reconnects for ever unless it gets this
    services.streams.raise_if_full()
    stopping = anyio.Event()
    return EventSourceResponse(
        services.streams.follow(id, after, stopping),
        ping=PING_S,
        shutdown_event=stopping,
        shutdown_grace_period=STOP_S,
    )
