"""The contract of each Lua script, on Valkey and on Redis."""

import threading
import time

import pytest

from schemas.job import FailureClass, JobPatch, Progress, Status
from schemas.wire import DeviceClass
from service.store.connect import UNREACHABLE
from service.store.errors import IdempotencyMismatch, JobNotFound, LeaseLost, StateConflict
from service.store.jobs import Claim, EventDraft, new_job_id
from service.store.records import Filter
from service.store.scripts import PREFIX, Scripts
from tests.jobs import ALL, Desk, checkpoint_of, round_of, spec
from tests.servers import on_both_servers

pytestmark = on_both_servers


@pytest.fixture
def desk(redis_url: str) -> Desk:
    return Desk.on(redis_url)


def test_submit_queues_a_job_with_its_first_event(desk: Desk):
    id = desk.submit()

    job = desk.job(id)
    assert job.status is Status.queued
    assert [event.message for event in desk.records.events(id)] == ["Waiting for a worker."]
    assert desk.queues.size(DeviceClass.any).waiting == 1
    assert desk.queues.counts() == {"queued": 1}


def test_the_same_idempotency_key_gives_the_first_job_again(desk: Desk):
    first = desk.store.submit(spec(), id=new_job_id(), tenant="acme", idempotency_key="k", request_hash="h")

    again = desk.store.submit(spec(), id=new_job_id(), tenant="acme", idempotency_key="k", request_hash="h")

    assert (again.id, again.created) == (first.id, False)
    assert desk.queues.size(DeviceClass.any).waiting == 1
    assert desk.store.replayed("acme", "k", "h") == first.id


def test_an_idempotency_key_with_another_body_is_refused(desk: Desk):
    desk.store.submit(spec(), id=new_job_id(), tenant="acme", idempotency_key="k", request_hash="h")

    with pytest.raises(IdempotencyMismatch):
        desk.store.submit(spec(), id=new_job_id(), tenant="acme", idempotency_key="k", request_hash="other")
    with pytest.raises(IdempotencyMismatch):
        desk.store.replayed("acme", "k", "other")


def test_a_repeated_submit_of_one_id_leaves_the_job_that_runs_alone(desk: Desk):
    id = new_job_id()
    desk.store.submit(spec(), id=id, tenant="acme")
    claim = desk.claim()

    again = desk.store.submit(spec(), id=id, tenant="acme")

    assert again.id == id
    assert desk.store.heartbeat(claim, 30) == "ok"
    assert desk.queues.totals()["submitted"] == 1


def test_patch_and_delete_of_a_job_that_is_gone_say_so(desk: Desk):
    with pytest.raises(JobNotFound):
        desk.store.patch("job_gone", JobPatch(priority=1), old_tags=[])
    with pytest.raises(JobNotFound):
        desk.store.delete("job_gone", [])


def test_idempotency_keys_of_two_tenants_do_not_meet(desk: Desk):
    first = desk.store.submit(spec(), id=new_job_id(), tenant="acme", idempotency_key="k", request_hash="h")

    other = desk.store.submit(spec(), id=new_job_id(), tenant="zoo", idempotency_key="k", request_hash="x")

    assert other.created
    assert other.id != first.id


def test_claim_gives_each_job_to_one_worker_only(desk: Desk):
    ids = {desk.submit() for _ in range(40)}
    claims: list[Claim] = []

    def take() -> None:
        while (claim := desk.store.claim("w", ALL, 30)) is not None:
            claims.append(claim)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claim.id for claim in claims) == sorted(ids)
    assert len({claim.token for claim in claims}) == 40


def test_claim_answers_a_stale_ring_with_nothing(desk: Desk):
    assert desk.store.claim("w", ALL, 30) is None


def test_claim_takes_only_jobs_of_the_classes_served(desk: Desk):
    desk.submit(placement={"device": "cuda"})

    assert desk.store.claim("cpu-worker", ALL, 30) is None
    assert desk.store.claim("gpu-worker", (DeviceClass.cuda,), 30) is not None


def test_claim_takes_higher_priority_first_and_age_within_it(desk: Desk):
    low = desk.submit(placement={"priority": 1})
    high = desk.submit(placement={"priority": 8})

    assert [desk.claim().id, desk.claim().id] == [high, low]


def test_claim_prefers_the_tenant_that_runs_least(desk: Desk):
    for _ in range(3):
        desk.submit("big", placement={"priority": 9})
    desk.claim()
    small = desk.submit("small", placement={"priority": 0})

    assert desk.claim().id == small


def test_tenant_share_and_priority_hold_across_device_classes(desk: Desk):
    for _ in range(3):
        desk.submit("big", placement={"device": "cpu", "priority": 9})
    small = desk.submit("small", placement={"device": "any", "priority": 0})
    desk.claim()

    assert desk.claim().id == small


def test_a_repeated_claim_call_gives_the_same_claim(desk: Desk):
    desk.submit()
    desk.submit()
    scripts = Scripts(desk.redis)

    first, again = (scripts.call("claim", "w", 30_000, "nonce-1", "any") for _ in range(2))

    assert first[:3] == again[:3]
    assert desk.queues.size(DeviceClass.any).running == 1


def test_a_cancelled_attempt_is_told_as_cancelled(desk: Desk):
    id = desk.submit()
    claim = desk.claim()
    desk.store.cancel(id)

    desk.store.release(claim, "released", "The worker is shutting down.")

    attempt = desk.records.attempts(id, 1)[0]
    assert (attempt.outcome, attempt.reason) == ("cancelled", "Cancelled by the user.")


def test_a_retried_job_gets_its_start_deadline_again(desk: Desk):
    id = desk.submit(budget={"start_within_s": 60})
    desk.pass_deadline(id)
    desk.store.expire()

    desk.store.retry(id)

    assert desk.redis.zscore(f"{PREFIX}deadlines", id) is not None


def test_a_chore_that_came_up_anew_is_not_ticked_off(desk: Desk):
    id = desk.submit()
    desk.store.cancel(id)
    [(name, since)] = desk.queues.due("archive", 10)
    desk.store.retry(id)
    time.sleep(0.002)
    desk.store.cancel(id)

    desk.queues.done("archive", name, since)

    assert [one for one, _ in desk.queues.due("archive", 10)] == [id]
    desk.queues.postpone("archive", *desk.queues.due("archive", 10)[0], 60)
    assert desk.queues.due("archive", 10) == []


def test_a_server_that_takes_no_writes_counts_as_away(desk: Desk):
    desk.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(UNREACHABLE):
            desk.submit()
    finally:
        desk.redis.config_set("maxmemory", 0)

    assert desk.submit()


def test_heartbeat_of_a_stale_token_is_lost(desk: Desk):
    desk.submit()
    claim = desk.claim()
    assert desk.store.heartbeat(claim, 30) == "ok"

    desk.lapse(claim.id)
    desk.store.reap()

    assert desk.store.heartbeat(claim, 30) == "lost"


def test_a_late_heartbeat_before_the_reaper_saves_the_lease(desk: Desk):
    desk.submit()
    claim = desk.claim()
    desk.lapse(claim.id)

    assert desk.store.heartbeat(claim, 30) == "ok"
    assert desk.store.reap() == []


def test_report_shows_progress_steps_events_and_lines(desk: Desk):
    id = desk.submit()
    claim = desk.claim()

    draft = EventDraft("message", "halfway")
    told = desk.store.report(claim, progress=Progress(percent=50, round=2), events=(draft,), lines=("a", "b"))

    assert told == "ok"
    assert desk.job(id).progress.percent == 50
    assert desk.records.log_lines(id) == ["a", "b"]
    assert desk.records.events(id)[-1].message == "halfway"


def test_report_of_a_stale_owner_is_refused(desk: Desk):
    desk.submit()
    claim = desk.claim()
    desk.store.release(claim, "released", "drain")

    with pytest.raises(LeaseLost):
        desk.store.report(claim, progress=Progress(percent=50))


def test_commit_takes_rounds_in_order_and_each_once(desk: Desk):
    id = desk.submit()
    claim = desk.claim()

    desk.store.commit(claim, round_of(1), checkpoint_of(1))
    desk.store.commit(claim, round_of(1), checkpoint_of(1))
    desk.store.commit(claim, round_of(2), checkpoint_of(2))

    assert desk.job(id).rounds_done == 2
    assert [one.number for one in desk.records.rounds(id)] == [1, 2]
    assert desk.records.checkpoint(id) == checkpoint_of(2)
    assert sum(event.type == "round" for event in desk.records.events(id)) == 2


def test_commit_of_a_zombie_is_refused(desk: Desk):
    id = desk.submit()
    zombie = desk.claim("w1")
    desk.lapse(id)
    desk.store.reap()
    owner = desk.claim("w2")

    with pytest.raises(LeaseLost):
        desk.store.commit(zombie, round_of(1), checkpoint_of(1))
    desk.store.commit(owner, round_of(1), checkpoint_of(1))

    assert desk.job(id).rounds_done == 1


def test_a_round_that_broke_the_floor_is_kept_but_is_no_checkpoint(desk: Desk):
    id = desk.submit()
    claim = desk.claim()
    desk.store.commit(claim, round_of(1), checkpoint_of(1))

    desk.store.commit(claim, round_of(2, held=False), None)

    assert desk.job(id).rounds_done == 1
    assert [one.held for one in desk.records.rounds(id)] == [True, False]
    assert desk.records.checkpoint(id) == checkpoint_of(1)


def test_finish_ends_a_job_once_and_for_all(desk: Desk):
    id = desk.submit()
    claim = desk.claim()

    status = desk.store.finish(
        claim, Status.succeeded, "done", summary={"sparsity": 0.8}, manifest={"prefix": "p/"}
    )

    job = desk.job(id)
    assert status is job.status is Status.succeeded
    assert job.is_terminal
    assert job.summary == {"sparsity": 0.8}
    assert desk.queues.size(DeviceClass.any).demand == 0
    with pytest.raises(LeaseLost):
        desk.store.finish(claim, Status.failed, "again", failure_class=FailureClass.internal)
    assert desk.job(id).status is Status.succeeded


def test_a_failed_job_says_why(desk: Desk):
    id = desk.submit()

    desk.store.finish(desk.claim(), Status.failed, "no such bucket", failure_class=FailureClass.storage)

    job = desk.job(id)
    assert (job.status_reason, job.failure_class) == ("no such bucket", FailureClass.storage)
    assert desk.queues.totals()["finished:failed:storage"] == 1


def test_release_makes_a_job_wait_again_without_a_recovery(desk: Desk):
    id = desk.submit()

    desk.store.release(desk.claim(), "released", "drain")

    job = desk.job(id)
    assert (job.status, job.recoveries, job.attempt) == (Status.queued, 0, 1)
    assert desk.claim().attempt == 2


def test_a_lost_child_counts_as_a_recovery_and_a_poison_job_stops(desk: Desk):
    id = desk.submit(retry={"max_recoveries": 2})

    statuses = [desk.store.release(desk.claim(), "worker_lost", "killed") for _ in range(3)]

    assert statuses == [Status.recovering, Status.recovering, Status.failed]
    job = desk.job(id)
    assert job.failure_class is FailureClass.worker_lost
    assert "retry.max_recoveries" in (job.status_reason or "")


def test_reap_takes_back_only_expired_leases(desk: Desk):
    lost, kept = desk.submit(), desk.submit()
    desk.claim("w1")
    desk.claim("w2")
    desk.lapse(lost)

    assert desk.store.reap() == [lost]

    assert desk.job(lost).status is Status.recovering
    assert desk.job(kept).status is Status.running
    assert desk.records.attempts(lost, 1)[0].outcome == "worker_lost"


def test_a_recovered_job_goes_before_younger_ones(desk: Desk):
    old = desk.submit()
    desk.claim()
    desk.submit()
    desk.lapse(old)
    desk.store.reap()

    assert desk.claim().id == old


def test_expire_ends_a_job_that_nobody_took(desk: Desk):
    id = desk.submit(budget={"start_within_s": 60})
    assert desk.store.expire() == []

    desk.pass_deadline(id)

    assert desk.store.expire() == [id]
    assert desk.job(id).status is Status.expired
    assert desk.store.claim("w", ALL, 30) is None


def test_expire_tells_a_running_job_to_stop_and_it_fails_as_timeout(desk: Desk):
    id = desk.submit()
    claim = desk.claim()
    desk.pass_deadline(id)

    desk.store.expire()

    assert desk.store.heartbeat(claim, 30) == "timeout"
    assert desk.store.release(claim, "released", "stopped") is Status.failed
    assert desk.job(id).failure_class is FailureClass.timeout


def test_cancel_ends_a_waiting_job_at_once(desk: Desk):
    id = desk.submit()

    assert desk.store.cancel(id) is Status.cancelled

    assert desk.store.claim("w", ALL, 30) is None
    assert desk.queues.size(DeviceClass.any).demand == 0


def test_cancel_tells_a_running_job_to_stop_and_wins_over_its_success(desk: Desk):
    id = desk.submit()
    claim = desk.claim()

    assert desk.store.cancel(id) is Status.cancelling
    assert desk.store.cancel(id) is Status.cancelling
    assert desk.store.heartbeat(claim, 30) == "cancel"
    assert desk.store.report(claim, lines=("x",)) == "cancel"

    assert desk.store.finish(claim, Status.succeeded, "done") is Status.cancelled
    assert desk.job(id).status is Status.cancelled


def test_a_cancelled_job_whose_worker_dies_is_cancelled(desk: Desk):
    id = desk.submit()
    desk.claim()
    desk.store.cancel(id)
    desk.lapse(id)

    desk.store.reap()

    assert desk.job(id).status is Status.cancelled


def test_cancel_of_a_finished_job_is_a_conflict(desk: Desk):
    id = desk.submit()
    desk.store.finish(desk.claim(), Status.succeeded, "done")

    with pytest.raises(StateConflict):
        desk.store.cancel(id)
    with pytest.raises(JobNotFound):
        desk.store.cancel("job_nowhere")


def test_retry_queues_a_failed_job_with_its_rounds(desk: Desk):
    id = desk.submit()
    claim = desk.claim()
    desk.store.commit(claim, round_of(1), checkpoint_of(1))
    desk.store.finish(claim, Status.failed, "disk full", failure_class=FailureClass.storage)

    assert desk.store.retry(id) is Status.queued

    job = desk.job(id)
    assert (job.failure_class, job.finished_at, job.rounds_done) == (None, None, 1)
    assert desk.claim().attempt == 2


def test_retry_of_a_succeeded_or_running_job_is_a_conflict(desk: Desk):
    id = desk.submit()
    with pytest.raises(StateConflict):
        desk.store.retry(id)

    desk.store.finish(desk.claim(), Status.succeeded, "done")

    with pytest.raises(StateConflict):
        desk.store.retry(id)


def test_patch_moves_a_waiting_job_and_its_tags(desk: Desk):
    first, second = desk.submit(), desk.submit(tags=["old"])

    desk.store.patch(second, JobPatch(priority=9, tags=("new",)), old_tags=["old"])

    assert desk.claim().id == second
    assert desk.records.page("acme", Filter(tag="old"), limit=10, after=None) == ([], False)
    found, _ = desk.records.page("acme", Filter(tag="new"), limit=10, after=None)
    assert [job.id for job in found] == [second]
    with pytest.raises(StateConflict):
        desk.store.patch(second, JobPatch(priority=1), old_tags=["new"])
    assert desk.job(first).priority == 4


def test_delete_forgets_terminal_jobs_only(desk: Desk):
    id = desk.submit(tags=["t"])
    with pytest.raises(StateConflict):
        desk.store.delete(id, ["t"])
    desk.store.cancel(id)

    desk.store.delete(id, ["t"])

    with pytest.raises(JobNotFound):
        desk.job(id)
    assert desk.records.page("acme", Filter(), limit=10, after=None) == ([], False)
    assert [name for name, _ in desk.queues.due("trash", 10)] == [f"acme/jobs/{id}/"]
    assert all(count == 0 for count in desk.queues.counts().values())
    assert not [key for key in desk.redis.scan_iter() if id in key]


def test_another_tenant_sees_nothing_of_a_job(desk: Desk):
    id = desk.submit("acme")

    with pytest.raises(JobNotFound):
        desk.records.get("zoo", id)
    assert desk.records.page("zoo", Filter(), limit=10, after=None) == ([], False)


def test_pages_cover_all_jobs_once_newest_first(desk: Desk):
    ids = [desk.submit(metadata={"n": str(n % 2)}) for n in range(25)]
    seen: list[str] = []
    after, more = None, True

    while more:
        page, more = desk.records.page("acme", Filter(), limit=7, after=after)
        seen += [job.id for job in page]
        after = seen[-1]

    assert sorted(seen) == sorted(ids)
    odd, _ = desk.records.page("acme", Filter(metadata={"n": "1"}), limit=100, after=None)
    assert len(odd) == 12


def test_a_page_goes_on_after_a_job_that_left_the_filter(desk: Desk):
    ids = [desk.submit() for _ in range(3)]
    page, _ = desk.records.page("acme", Filter(statuses=(Status.queued,)), limit=1, after=None)
    desk.store.cancel(page[0].id)

    rest, more = desk.records.page("acme", Filter(statuses=(Status.queued,)), limit=5, after=page[0].id)

    assert {job.id for job in rest} == set(ids) - {page[0].id}
    assert not more
