"""Watch jobs until they end: bars for a person, a line an event for a pipe, JSON for a program."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.text import Text

from schemas.event import Event, EventType, Level
from schemas.job import Job, Status
from service.cli.client import Client
from service.cli.errors import CliError, ExitCode
from service.cli.figures import local
from service.cli.follow import fetch_job, follow
from service.cli.output import Output
from service.cli.progress import JobBars
from service.cli.tables import COLOURS, summary_table

_LOOK_EVERY_S = 1.0
_STYLES = {Level.info: "", Level.warning: "yellow", Level.error: "red"}
_ABOVE_THE_BARS = (EventType.state, EventType.round, EventType.message)


@dataclass(frozen=True)
class _Ended:
    """The stream of one job is over; `error` says why, if it is not the job that ended."""

    error: CliError | None = None


def watch(client: Client, output: Output, ids: Sequence[str]) -> list[Job]:
    """Show the events of these jobs until all are terminal, then the results; answers the jobs.

    Raises CliError where one of them cannot be followed.
    """
    for id in ids:
        fetch_job(client, id)  # a wrong id is told before anything is drawn
    try:
        _follow(client, output, ids)
    except KeyboardInterrupt:
        output.note(f"The job goes on; `secateur watch {' '.join(ids)}` follows it again.")
        raise
    payloads = [client.get(f"/v1/jobs/{id}", "The result was not shown.") for id in ids]
    jobs = [Job.model_validate(payload) for payload in payloads]
    for payload, job in zip(payloads, jobs, strict=True):
        output.emit(payload, _result(job))
    return jobs


def exit_code(jobs: Sequence[Job]) -> ExitCode:
    """ok only where every job succeeded."""
    succeeded = all(job.status is Status.succeeded for job in jobs)
    return ExitCode.ok if succeeded else ExitCode.job_failed


def event_text(event: Event) -> Text:
    """Time, job, kind and message on one line."""
    when = local(event.created_at).split(" ")[-1]
    return Text(f"{when} {event.job} {event.type:<8} {event.message}", style=_STYLES[event.level])


def _follow(client: Client, output: Output, ids: Sequence[str]) -> None:
    if output.is_live:
        _watch_live(client, output, ids)
        return
    for event in _events(client, ids):
        if event is not None:
            output.emit(event.model_dump(mode="json"), event_text(event))


def _watch_live(client: Client, output: Output, ids: Sequence[str]) -> None:
    bars = JobBars(output.out, ids)
    looked = 0.0
    with bars.progress:
        for event in _events(client, ids):
            if event is not None and event.type in _ABOVE_THE_BARS:
                bars.progress.console.print(event_text(event))
            if time.monotonic() - looked >= _LOOK_EVERY_S:
                looked = time.monotonic()
                _look(client, ids, bars)
        _look(client, ids, bars)


def _look(client: Client, ids: Sequence[str], bars: JobBars) -> None:
    try:
        for id in ids:
            bars.show(fetch_job(client, id))
    except CliError as error:
        if error.code is not ExitCode.unavailable:  # how long to wait for the service, `follow` decides
            raise


def _events(client: Client, ids: Sequence[str]) -> Iterator[Event | None]:
    """The events of all these jobs as they come, and None when nothing came for a while."""
    inbox: queue.Queue[Event | _Ended] = queue.Queue()
    for id in ids:
        threading.Thread(target=_relay, args=(client, id, inbox), name=f"follow-{id}", daemon=True).start()
    left = len(ids)
    while left:
        try:
            item = inbox.get(timeout=_LOOK_EVERY_S / 2)
        except queue.Empty:
            yield None
            continue
        if isinstance(item, Event):
            yield item
        elif item.error is not None:
            raise item.error
        else:
            left -= 1


def _relay(client: Client, id: str, inbox: "queue.Queue[Event | _Ended]") -> None:
    try:
        for event in follow(client, id):
            inbox.put(event)
    except CliError as error:
        inbox.put(_Ended(error))
    except Exception as error:  # noqa: BLE001 - the edge of the thread
        inbox.put(_Ended(_not_understood(id, error)))
    else:
        inbox.put(_Ended())


def _not_understood(id: str, error: Exception) -> CliError:
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        why = f"What the service sent has a {field or 'form'} that this client does not know: {first['msg']}."
    remedy = "Is the service newer than this client? Then update the client; the job goes on."
    return CliError(f"{id} could not be followed.", ExitCode.unavailable, why, remedy)


def _result(job: Job) -> RenderableType:
    headline = Text(f"{job.id} {job.status}: {job.status_reason or ''}", style=f"bold {COLOURS[job.status]}")
    return Group(headline, summary_table(job)) if job.summary else headline
