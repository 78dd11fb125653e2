"""Whatever the order of calls and lapses: no job is lost, none has two owners, no round is done twice."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from schemas.job import FailureClass, Status
from schemas.wire import DeviceClass
from service.store.errors import LeaseLost, StateConflict
from service.store.jobs import Claim
from service.store.scripts import PREFIX
from tests.jobs import ALL, Desk, checkpoint_of, round_of

MAX_RECOVERIES = 2


class Model:
    """What the test believes of one job."""

    def __init__(self) -> None:
        self.owner: Claim | None = None
        self.rounds = 0
        self.terminal: Status | None = None


class JobMachine(RuleBasedStateMachine):
    """Calls in any order, by owners, by zombies that lost their lease, and by users."""

    desk: Desk
    jobs = Bundle("jobs")
    claims = Bundle("claims")

    @initialize()
    def begin(self) -> None:
        self.desk.redis.flushdb()
        self.models: dict[str, Model] = {}

    @rule(target=jobs, priority=st.integers(0, 9), tenant=st.sampled_from(["a", "b"]))
    def submit(self, priority: int, tenant: str) -> str:
        changes = {"placement": {"priority": priority}, "retry": {"max_recoveries": MAX_RECOVERIES}}
        id = self.desk.submit(tenant, **changes)
        self.models[id] = Model()
        return id

    @rule(target=claims)
    def claim(self) -> object:
        claim = self.desk.store.claim("w", ALL, 30)
        waiting = [id for id, model in self.models.items() if not model.owner and not model.terminal]
        if claim is None:
            assert not waiting
            return multiple()
        assert claim.id in waiting
        self.models[claim.id].owner = claim
        return claim

    @rule(claim=claims)
    def commit(self, claim: Claim) -> None:
        model = self.models[claim.id]
        number = model.rounds + 1
        if model.owner == claim:
            self.desk.store.commit(claim, round_of(number), checkpoint_of(number))
            model.rounds = number
        else:
            with pytest.raises(LeaseLost):
                self.desk.store.commit(claim, round_of(number), checkpoint_of(number))

    @rule(claim=claims)
    def heartbeat(self, claim: Claim) -> None:
        alive = self.models[claim.id].owner == claim
        assert (self.desk.store.heartbeat(claim, 30) != "lost") == alive

    @rule(claim=consumes(claims), status=st.sampled_from([Status.succeeded, Status.failed]))
    def finish(self, claim: Claim, status: Status) -> None:
        failure = FailureClass.data if status is Status.failed else None
        self._end(claim, lambda: self.desk.store.finish(claim, status, "r", failure_class=failure))

    @rule(claim=consumes(claims), outcome=st.sampled_from(["released", "worker_lost"]))
    def release(self, claim: Claim, outcome: str) -> None:
        self._end(claim, lambda: self.desk.store.release(claim, outcome, "r"))

    def _end(self, claim: Claim, call) -> None:
        model = self.models[claim.id]
        if model.owner != claim:
            with pytest.raises(LeaseLost):
                call()
            return
        status = call()
        model.owner = None
        model.terminal = status if status.is_terminal else None

    @rule(id=jobs)
    def lapse_and_reap(self, id: str) -> None:
        model = self.models[id]
        if model.owner is None:
            return
        self.desk.lapse(id)
        assert self.desk.store.reap() == [id]
        model.owner = None
        status = self._status(id)
        model.terminal = status if status.is_terminal else None

    @rule(id=jobs)
    def cancel(self, id: str) -> None:
        model = self.models[id]
        if model.terminal is Status.cancelled:
            assert self.desk.store.cancel(id) is Status.cancelled
            return
        if model.terminal:
            with pytest.raises(StateConflict):
                self.desk.store.cancel(id)
            return
        status = self.desk.store.cancel(id)
        assert status is (Status.cancelling if model.owner else Status.cancelled)
        model.terminal = status if status.is_terminal else None

    @rule(id=jobs)
    def retry(self, id: str) -> None:
        model = self.models[id]
        if model.terminal in (Status.failed, Status.cancelled, Status.expired):
            self.desk.store.retry(id)
            model.terminal = None
            return
        with pytest.raises(StateConflict):
            self.desk.store.retry(id)

    def _status(self, id: str) -> Status:
        return Status(self.desk.records.raw(id)["status"])

    @invariant()
    def the_store_agrees(self) -> None:
        owned = {id for id, model in self.models.items() if model.owner}
        waiting = {id for id, model in self.models.items() if not model.owner and not model.terminal}
        assert set(self.desk.redis.zrange(f"{PREFIX}leases", 0, -1)) == owned
        assert set(self.desk.redis.zrange(f"{PREFIX}waiting:any", 0, -1)) == waiting
        assert self.desk.queues.size(DeviceClass.any).demand == len(owned | waiting)
        for id, model in self.models.items():
            record = self.desk.records.raw(id)
            assert int(record["round"]) == model.rounds
            assert Status(record["status"]).is_terminal == bool(model.terminal)
            assert record["token"] == (model.owner.token if model.owner else "")

    @invariant()
    def the_counts_add_up(self) -> None:
        counts = self.desk.queues.counts()
        assert sum(counts.values()) == len(self.models)
        assert all(count >= 0 for count in counts.values())
        running = self.desk.redis.hvals(f"{PREFIX}running")
        assert sum(map(int, running)) == sum(bool(model.owner) for model in self.models.values())


def test_no_order_of_calls_breaks_the_promise(redis_url: str):
    desk = Desk.on(redis_url)

    class OnServer(JobMachine):
        pass

    OnServer.desk = desk
    run_state_machine_as_test(
        OnServer,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
