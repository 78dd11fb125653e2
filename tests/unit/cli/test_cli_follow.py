"""How long, and by which way, a job is followed over a service that comes and goes."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.event import Event
from schemas.job import Job
from service.cli.errors import CliError, ExitCode, unreachable
from service.cli.follow import follow
from tests.jobs import spec

AWAY = unreachable("http://here", "Connection refused.")


class Clock:
    """Time passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Service:
    """A client of a service whose streams live and break as `streams` tells, one after the other.

    After them the job has ended. `outages` are spans of time in which nothing answers.
    """

    def __init__(self, clock: Clock, *streams: Callable[["Service"], Iterator[Event]]) -> None:
        self.clock = clock
        self.streams = list(streams)
        self.outages: list[tuple[float, float]] = []
        self.events_so_far: list[Event] = []
        self.listings = 0

    def get(self, path: str, what: str) -> dict[str, Any]:
        self.raise_if_away()
        job = Job.model_validate(
            {
                "id": "job_1",
                "status": "running" if self.streams else "succeeded",
                "created_at": datetime.now(UTC),
                "device": "any",
                "priority": 4,
                "spec": spec(),
            }
        )
        return job.model_dump(mode="json")

    def events(self, id: str, after: str | None) -> Iterator[Event]:
        self.raise_if_away()
        return self.streams.pop(0)(self)

    def pages(self, path: str, what: str, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.raise_if_away()
        self.listings += 1
        ids = [one.id for one in self.events_so_far]
        begin = ids.index(params["after"]) + 1 if "after" in params else 0
        yield from (one.model_dump(mode="json") for one in self.events_so_far[begin:])

    def happen(self) -> Event:
        """One more event of the job."""
        number = len(self.events_so_far) + 1
        event = Event.model_validate(
            {
                "id": f"{number}-0",
                "job": "job_1",
                "type": "message",
                "created_at": datetime.now(UTC),
                "message": f"event {number}",
            }
        )
        self.events_so_far.append(event)
        return event

    def raise_if_away(self) -> None:
        if any(begin <= self.clock.now < end for begin, end in self.outages):
            raise AWAY

    def away_for(self, seconds: float) -> None:
        self.outages.append((self.clock.now, self.clock.now + seconds))


class Refusing(Service):
    """It knows the key no more."""

    def get(self, path: str, what: str) -> dict[str, Any]:
        raise CliError("No.", ExitCode.refused)


class WithoutStreams(Service):
    """Every stream breaks at once; whoever asks finds one more event, until the second, the last."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, *[breaks()] * 4)

    def pages(self, path: str, what: str, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if len(self.events_so_far) < 2:
            self.happen()
        else:
            self.streams.clear()
        return super().pages(path, what, params)


def breaks(
    *, after_s: float = 0.0, events: int = 0, away_s: float = 0.0
) -> Callable[[Service], Iterator[Event]]:
    """A stream that tells some events, is quiet for a while, and breaks with the service."""

    def stream(service: Service) -> Iterator[Event]:
        for _ in range(events):
            yield service.happen()
        service.clock.sleep(after_s)
        service.away_for(away_s)
        raise AWAY

    return stream


def ends(*, events: int = 0) -> Callable[[Service], Iterator[Event]]:
    """A stream that the service ends."""

    def stream(service: Service) -> Iterator[Event]:
        for _ in range(events):
            yield service.happen()

    return stream


def followed(service: Service) -> list[str]:
    clock = service.clock
    return [one.id for one in follow(service, "job_1", clock=clock, sleep=clock.sleep)]  # type: ignore[arg-type]


def test_a_stream_that_lived_longer_than_the_patience_is_joined_again_when_it_breaks():
    service = Service(Clock(), breaks(after_s=600, events=2), ends(events=1))

    assert followed(service) == ["1-0", "2-0", "3-0"]


def test_a_quiet_stream_that_breaks_gets_the_full_patience_every_time():
    quiet = breaks(after_s=600, away_s=110)
    service = Service(Clock(), quiet, quiet, ends(events=1))

    assert followed(service) == ["1-0"]


def test_gives_up_after_two_minutes_of_failures_and_not_before():
    service = Service(Clock(), breaks(after_s=600, events=1, away_s=10_000), ends())
    broke_at = service.clock.now + 600

    with pytest.raises(CliError) as caught:
        followed(service)

    assert caught.value.code is ExitCode.unavailable
    assert 120 < service.clock.now - broke_at <= 122


def test_a_service_that_was_never_there_is_given_up_after_two_minutes():
    service = Service(Clock(), ends())
    service.away_for(10_000)
    began = service.clock.now

    with pytest.raises(CliError):
        followed(service)

    assert 120 < service.clock.now - began <= 122


def test_a_refusal_ends_it_at_once():
    service = Refusing(Clock(), ends())
    began = service.clock.now

    with pytest.raises(CliError, match=r"^No\.$"):
        followed(service)

    assert service.clock.now == began


def test_streams_that_tell_something_before_they_break_are_not_counted_as_failures():
    service = Service(Clock(), *[breaks(events=1)] * 6, ends(events=1))

    assert followed(service) == [f"{number}-0" for number in range(1, 8)]
    assert service.listings == 1  # what was left when the job had ended


def test_an_outage_does_not_make_it_doubt_the_streams():
    service = Service(Clock(), breaks(away_s=30), ends(events=1), ends(events=1))

    assert followed(service) == ["1-0", "2-0"]
    assert service.listings == 1


def test_where_no_stream_holds_it_asks():
    service = WithoutStreams(Clock())

    assert followed(service) == ["1-0", "2-0"]
