"""The chores of the control loop, on a real Valkey and a real S3."""

import json
import time
from datetime import UTC, datetime

import pytest
from celery import Celery

from schemas.fleet import Worker
from schemas.job import Status
from schemas.wire import SERVED_BY, DeviceClass
from service.archive import Archivist
from service.settings import Settings
from service.steward import Grace, Leadership, Ringer, Steward, free_slots
from service.store.blobs import Blobs
from service.store.scripts import PREFIX
from tests.jobs import Desk


@pytest.fixture
def desk(redis_url: str) -> Desk:
    return Desk.on(redis_url)


def worker(slots: int = 1, busy: int = 0, *, draining: bool = False) -> Worker:
    now = datetime.now(UTC)
    return Worker(
        id="w1",
        hostname="h",
        version="0",
        device=DeviceClass.cpu,
        device_name="cpu",
        serves=list(SERVED_BY[DeviceClass.cpu]),
        slots=slots,
        busy=busy,
        draining=draining,
        started_at=now,
        seen_at=now,
    )


def test_only_one_steward_leads_and_the_next_takes_over(desk: Desk):
    first, second = Leadership(desk.redis), Leadership(desk.redis)

    assert first.held()
    assert not second.held()
    assert first.held()

    first.give_up()
    assert second.held()


def test_nothing_is_reaped_for_a_lease_after_redis_was_away():
    grace = Grace(lease_seconds=0.2)
    grace.redis_back(uptime_seconds=1000)
    assert grace.over()

    grace.redis_away()
    grace.redis_back(uptime_seconds=1000)

    assert not grace.over()
    time.sleep(0.25)
    assert grace.over()


def test_a_restart_of_redis_between_two_ticks_also_counts_as_away():
    grace = Grace(lease_seconds=30)

    grace.redis_back(uptime_seconds=2)

    assert not grace.over()


def test_the_grace_after_a_restart_ends_one_lease_after_it():
    grace = Grace(lease_seconds=0.3)
    began = time.monotonic()

    while not grace.over() or time.monotonic() == began:
        grace.redis_back(uptime_seconds=time.monotonic() - began)
        time.sleep(0.02)
        assert time.monotonic() - began < 0.5

    grace.redis_back(uptime_seconds=1000)
    assert grace.over()


def test_draining_and_busy_slots_are_not_free():
    assert free_slots(worker(slots=3, busy=1)) == 2
    assert free_slots(worker(slots=3, draining=True)) == 0


def test_rings_as_often_as_jobs_and_free_slots_allow_and_no_more(desk: Desk, settings: Settings):
    ringer = Ringer(Celery("secateur", broker=settings.broker_url), desk.queues)
    for _ in range(3):
        desk.submit()

    assert ringer.ring([]) == 0
    assert ringer.ring([worker(slots=2)]) == 2
    assert ringer.ring([worker(slots=2)]) == 0
    assert ringer.ring([worker(slots=8)]) == 1


def test_an_ended_job_is_archived_with_its_record_rounds_and_log(desk: Desk, blobs: Blobs):
    id = desk.submit()
    claim = desk.claim()
    desk.store.report(claim, lines=("hello",))
    desk.store.finish(claim, Status.succeeded, "done", manifest={"prefix": "p/", "artifacts": []})

    Archivist(desk.redis, desk.queues, blobs).work()

    folder = f"acme/jobs/{id}/"
    archived = json.loads(blobs.get_bytes(folder + "job.json"))
    assert archived["record"]["status"] == "succeeded"
    assert archived["attempts"][0]["outcome"] == "succeeded"
    assert json.loads(blobs.get_bytes(folder + "manifest.json"))["prefix"] == "p/"
    assert blobs.get_bytes(folder + "log.txt") == b"hello\n"
    assert desk.queues.due("archive", 10) == []


def test_a_deleted_job_leaves_nothing_in_s3(desk: Desk, blobs: Blobs):
    id = desk.submit()
    blobs.put_bytes(f"acme/jobs/{id}/spec.json", b"{}")
    desk.store.cancel(id)
    desk.store.delete(id, ["demo"])

    Archivist(desk.redis, desk.queues, blobs).work()

    assert list(blobs.list(f"acme/jobs/{id}/")) == []
    assert desk.queues.due("trash", 10) == []


def test_a_tick_acts_on_all_that_is_due(desk: Desk, settings: Settings):
    steward = Steward(settings.model_copy(update={"lease_seconds": 0.001}))
    lost = desk.submit()
    desk.claim()
    desk.lapse(lost)
    expired = desk.submit(budget={"start_within_s": 60})
    desk.pass_deadline(expired)
    time.sleep(0.01)

    steward.tick()
    time.sleep(0.01)
    steward.tick()
    steward.archive()

    assert desk.job(expired).status is Status.expired
    assert desk.job(lost).status is Status.recovering
    assert desk.queues.due("archive", 10) == []
    steward.stop()


def test_what_s3_refuses_comes_up_later_and_holds_up_nothing(desk: Desk, blobs: Blobs):
    id = desk.submit()
    desk.store.cancel(id)

    Archivist(desk.redis, desk.queues, blobs.of("no-such-bucket-here")).work()

    assert desk.queues.due("archive", 10) == []
    assert desk.redis.zcard(f"{PREFIX}archive") == 1
