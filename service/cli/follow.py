"""A job's events as they happen: the live stream, joined again when it breaks, else by asking."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from schemas.event import Event
from schemas.job import Job
from service.cli.client import Client
from service.cli.errors import CliError, ExitCode

_PATIENCE_S = 120.0
_STREAM_FAILURES = 3
_ASK_EVERY_S = 1.0


@dataclass
class _Patience:
    """Lasts _PATIENCE_S from the first failure since the service was heard."""

    clock: Callable[[], float]
    failing_since: float | None = None

    def renew(self) -> None:
        self.failing_since = None

    def is_lost(self) -> bool:
        """Told of one more failure: whether they have gone on for too long."""
        now = self.clock()
        if self.failing_since is None:
            self.failing_since = now
        return now - self.failing_since > _PATIENCE_S


def follow(
    client: Client,
    id: str,
    after: str | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Every event of a job after the event `after`, once and in order, until the job is terminal.

    Raises CliError when the service stays away for two minutes or refuses.
    """
    patience, failures = _Patience(clock), 0
    while True:
        is_live = False
        try:
            is_over = fetch_job(client, id).status.is_terminal
            is_live = not is_over and failures < _STREAM_FAILURES
            if is_live:
                patience.renew()  # a stream without events does not show that it opened; this answer does
            for event in client.events(id, after) if is_live else _listed(client, id, after):
                after, failures = event.id, 0 if is_live else failures
                patience.renew()
                yield event
            if is_over:
                return
            failures = 0 if is_live else failures
            patience.renew()
        except CliError as error:
            if error.code is not ExitCode.unavailable or patience.is_lost():
                raise
            failures += is_live  # a service that is away says nothing about its streams
        sleep(_ASK_EVERY_S)


def fetch_job(client: Client, id: str) -> Job:
    """The job as it is now."""
    return Job.model_validate(client.get(f"/v1/jobs/{id}", f"{id} was not shown."))


def _listed(client: Client, id: str, after: str | None) -> Iterator[Event]:
    params = {"limit": 100, **({"after": after} if after else {})}
    for item in client.pages(f"/v1/jobs/{id}/events", f"The events of {id} were not listed.", params):
        yield Event.model_validate(item)
