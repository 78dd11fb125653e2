"""Events as a list and as a live stream."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from schemas.event import Event, EventType
from schemas.job import FailureClass, Status
from service.app import create_app
from service.cli.sse import Message, decode
from service.settings import Settings
from service.store.jobs import EventDraft
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


def follow(live: httpx.Client, id: str, received: list[str], opened: threading.Event) -> None:
    with live.stream("GET", f"/v1/jobs/{id}/events", headers=SSE, timeout=20) as answer:
        for message in decode(answer.iter_bytes()):
            received.append(Event.model_validate_json(message.data).message)
            opened.set()


def test_events_arrive_while_the_job_runs_and_the_stream_ends_with_it(live: httpx.Client, desk: Desk):
    id = desk.submit()
    received: list[str] = []
    opened = threading.Event()
    thread = threading.Thread(target=follow, args=(live, id, received, opened))
    thread.start()
    assert opened.wait(10)
    assert received == ["Waiting for a worker."]

    run_to_the_end(desk)

    thread.join(10)
    assert not thread.is_alive()
    assert received[2] == "Hello."
    assert received[-1] == "Done."


def test_the_stream_of_a_deleted_job_ends(live: httpx.Client, desk: Desk):
    id = desk.submit()
    received: list[str] = []
    opened = threading.Event()
    thread = threading.Thread(target=follow, args=(live, id, received, opened))
    thread.start()
    assert opened.wait(10)

    desk.redis.delete(f"{{secateur}}:events:{id}")

    thread.join(10)
    assert not thread.is_alive()
