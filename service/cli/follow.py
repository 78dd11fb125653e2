"""A job's events as they happen: the live stream, joined again when it breaks, else by asking."""

import time
from collections.abc import Iterator

from schemas.event import Event
from schemas.job import Job
from service.cli.client import Client
from service.cli.errors import CliError, ExitCode

_PATIENCE_S = 120.0
_STREAM_FAILURES = 3
_ASK_EVERY_S = 1.0


def follow(client: Client, id: str, after: str | None = None) -> Iterator[Event]:
    """Every event of a job after the event `after`, once and in order, until the job is terminal.

    Raises CliError when the service stays away for two minutes or refuses.
    """
    failures, give_up = 0, time.monotonic() + _PATIENCE_S
    while True:
        try:
            source = client.events(id, after) if failures < _STREAM_FAILURES else _listed(client, id, after)
            for event in source:
                after, failures = event.id, min(failures, _STREAM_FAILURES)
                yield event
            if fetch_job(client, id).status.is_terminal:
                yield from _listed(client, id, after)  # what came between the stream's end and the question
                return
            give_up = time.monotonic() + _PATIENCE_S
        except CliError as error:
            if error.code is not ExitCode.unavailable or time.monotonic() > give_up:
                raise
            failures += 1
        time.sleep(_ASK_EVERY_S)


def fetch_job(client: Client, id: str) -> Job:
    """The job as it is now."""
    return Job.model_validate(client.get(f"/v1/jobs/{id}", f"{id} was not shown."))


def _listed(client: Client, id: str, after: str | None) -> Iterator[Event]:
    params = {"limit": 100, **({"after": after} if after else {})}
    for item in client.pages(f"/v1/jobs/{id}/events", f"The events of {id} were not listed.", params):
        yield Event.model_validate(item)
