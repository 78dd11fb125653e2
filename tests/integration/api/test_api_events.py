"""Events as a list and as a live stream."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import httpx
import pytest
from sse_starlette.sse import AppStatus

from schemas.event import Event, EventType
from schemas.job import FailureClass, Status
from service.app import create_app
from service.cli.sse import Message, decode
from service.errors import Overloaded
from service.event_stream import MOST_STREAMS, EventStreams
from service.settings import Settings
from service.store.connect import connect_async
from service.store.jobs import EventDraft
from service.store.scripts import PREFIX
from tests.api import Api, bearer, new_key, served
from tests.jobs import Desk, checkpoint_of, round_of

SSE = {"Accept": "text/event-stream"}


def run_to_the_end(desk: Desk) -> None:
    """One attempt with a round, from the claim to success."""
    claim = desk.claim()
    desk.store.report(claim, events=(EventDraft(EventType.message, "Hello.", data={"n": 1}),))
    desk.store.commit(claim, round_of(1), checkpoint_of(1))
    desk.store.finish(claim, Status.succeeded, "Done.")


def stream(api: Api, id: str, **headers: str) -> list[Message]:
    """A whole stream of a job that has ended."""
    answer = api.get(f"/v1/jobs/{id}/events", headers={**SSE, **headers})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    return list(decode([answer.content]))


def test_lists_what_happened_in_order(acme: Api, desk: Desk):
    id = acme.submit()
    run_to_the_end(desk)

    page = acme.get(f"/v1/jobs/{id}/events").json()

    assert [event["type"] for event in page["data"]] == ["state", "state", "message", "round", "state"]
    assert [event["data"].get("status") for event in page["data"]][-1] == "succeeded"
    assert page["data"][2]["data"] == {"n": 1}
    assert not page["has_more"]


def test_pages_go_on_after_the_last_event(acme: Api, desk: Desk):
    id = acme.submit()
    run_to_the_end(desk)
    whole = [event["id"] for event in acme.get(f"/v1/jobs/{id}/events").json()["data"]]

    first = acme.get(f"/v1/jobs/{id}/events?limit=2").json()
    rest = acme.get(f"/v1/jobs/{id}/events?after={first['last_id']}").json()

    assert first["has_more"]
    assert [event["id"] for event in first["data"] + rest["data"]] == whole


def test_a_stream_of_an_ended_job_replays_it_and_ends(acme: Api, desk: Desk):
    id = acme.submit()
    run_to_the_end(desk)

    messages = stream(acme, id)

    events = [Event.model_validate_json(message.data) for message in messages]
    assert [message.event for message in messages] == ["state", "state", "message", "round", "state"]
    assert [message.id for message in messages] == [event.id for event in events]
    assert events[-1].data == {"status": "succeeded"}


def test_a_stream_goes_on_after_the_last_event_id(acme: Api, desk: Desk):
    id = acme.submit()
    run_to_the_end(desk)
    whole = stream(acme, id)

    rest = stream(acme, id, **{"Last-Event-ID": whole[2].id})

    assert rest == whole[3:]


def test_a_client_that_has_seen_the_end_is_told_not_to_come_back(acme: Api, desk: Desk):
    id = acme.submit()
    run_to_the_end(desk)

    answer = acme.get(f"/v1/jobs/{id}/events", headers={**SSE, "Last-Event-ID": stream(acme, id)[-1].id})

    assert (answer.status_code, answer.content) == (204, b"")


def test_the_stream_of_a_retried_job_goes_past_its_first_end(acme: Api, desk: Desk):
    id = acme.submit()
    desk.store.finish(desk.claim(), Status.failed, "No.", failure_class=FailureClass.data)
    acme.post(f"/v1/jobs/{id}/retry")
    run_to_the_end(desk)

    statuses = [
        Event.model_validate_json(message.data).data["status"]
        for message in stream(acme, id)
        if message.event == "state"
    ]

    assert statuses == ["queued", "running", "failed", "queued", "running", "succeeded"]


def test_a_malformed_last_event_id_is_refused(acme: Api):
    answer = acme.get(f"/v1/jobs/{acme.submit()}/events", headers={**SSE, "Last-Event-ID": "evt_x"})

    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["header", "last-event-id"])


@pytest.fixture
def live(settings: Settings, desk: Desk) -> Iterator[httpx.Client]:
    """A client of a real server: the in-process one shows a stream only when it has ended."""
    app = create_app(settings)
    with served(app) as url, httpx.Client(base_url=url, headers=bearer(new_key(app, "acme"))) as client:
        yield client


@dataclass
class Follower:
    """A client in a thread that reads a stream to its end."""

    received: list[str] = field(default_factory=list)
    opened: threading.Event = field(default_factory=threading.Event)

    def follow(self, live: httpx.Client, id: str) -> None:
        with live.stream("GET", f"/v1/jobs/{id}/events", headers=SSE, timeout=20) as answer:
            for message in decode(answer.iter_bytes()):
                self.received.append(Event.model_validate_json(message.data).message)
                self.opened.set()

    @contextmanager
    def following(self, live: httpx.Client, id: str) -> Iterator[None]:
        """Read from before the block until the stream ends; raises what broke the stream."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.follow, live, id)
            assert self.opened.wait(10)
            yield
            future.result(10)


def test_events_arrive_while_the_job_runs_and_the_stream_ends_with_it(live: httpx.Client, desk: Desk):
    id = desk.submit()
    follower = Follower()

    with follower.following(live, id):
        assert follower.received == ["Waiting for a worker."]
        run_to_the_end(desk)

    assert follower.received[2] == "Hello."
    assert follower.received[-1] == "Done."


def test_the_stream_of_a_deleted_job_ends(live: httpx.Client, desk: Desk):
    id = desk.submit()
    follower = Follower()

    with follower.following(live, id):
        desk.redis.delete(f"{PREFIX}events:{id}")

    assert follower.received == ["Waiting for a worker."]


def test_a_stopping_server_ends_its_streams_in_order(
    live: httpx.Client, desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    id = desk.submit()
    follower = Follower()

    with follower.following(live, id):
        monkeypatch.setattr(AppStatus, "should_exit", True)  # sse-starlette does it when SIGTERM comes

    assert follower.received == ["Waiting for a worker."]


def test_a_full_server_refuses_one_more_stream(settings: Settings, acme: Api, desk: Desk):
    id = desk.submit()
    streams = EventStreams(connect_async(settings.redis_url))

    async def fill() -> None:
        opened = [streams.follow(id, "0-0", anyio.Event()) for _ in range(MOST_STREAMS)]
        for stream in opened:
            await anext(stream)
        with pytest.raises(Overloaded):
            streams.raise_if_full()
        await opened[0].aclose()
        streams.raise_if_full()
        for stream in opened:
            await stream.aclose()
        await streams.close()

    anyio.run(fill)
