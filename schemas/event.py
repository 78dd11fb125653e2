"""What happened to a job, in order."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from schemas.base import Resource, Timestamp


class EventType(StrEnum):
    """The kinds of events; each is also the SSE event name."""

    state = "state"
    step = "step"
    progress = "progress"
    round = "round"
    message = "message"


class Level(StrEnum):
    """How much an event matters."""

    info = "info"
    warning = "warning"
    error = "error"


class Event(Resource):
    """One event. Its id is also the SSE id, for `Last-Event-ID`."""

    object: Literal["event"] = "event"
    id: str = Field(examples=["evt_1764000000000-0"])
    job: str
    created_at: Timestamp
    type: EventType
    level: Level = Level.info
    message: str
    data: dict[str, Any] = Field(default_factory=dict)
