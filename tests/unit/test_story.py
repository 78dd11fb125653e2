"""The loop of a job, on a session that only remembers what was asked of it."""

import pytest

from schemas.job import FailureClass
from schemas.job_spec import JobSpec
from schemas.round import Checkpoint
from tests.jobs import checkpoint_of, round_of, spec
from tests.memory_link import MemoryLink
from workers.errors import FloorBroken, Stopped
from workers.link import Meter
from workers.messages import DoneMessage, JobOrder
from workers.story import Outcome, Pruned, run_job


class MemorySession:
    """A session whose metric after each round is given."""

    def __init__(self, metrics: list[float], dense: float = 0.91) -> None:
        self._metrics = [dense, *metrics]
        self._tuned = 0
        self.calls: list[str] = []
        self.shares: list[float] = []

    def pull(self, meter: Meter) -> None:
        self.calls.append("pull")

    def preflight(self, meter: Meter) -> None:
        self.calls.append("preflight")

    def baseline(self, meter: Meter) -> float:
        return self._metrics[0]

    def restore(self, checkpoint: Checkpoint) -> None:
        self.calls.append(f"restore {checkpoint.round}")
        self._tuned = checkpoint.round

    def explore(self, dense_metric: float, floor: float, meter: Meter) -> JobSpec:
        self.calls.append("explore")
        return spec(**THREE, quantize={"kind": "int8_dynamic"})

    def prune(self, number: int, share: float, meter: Meter) -> None:
        self.calls.append(f"prune {number}")
        self._share = share
        self.shares.append(share)

    def pruned(self) -> Pruned:
        return Pruned(sparsity=self._share)

    def fine_tune(self, number: int, epochs: int, meter: Meter) -> tuple[int, float | None]:
        self.calls.append(f"fine_tune {number} for {epochs}")
        self._tuned = number
        return epochs, 0.5

    def evaluate(self, meter: Meter) -> float:
        return self._metrics[self._tuned]

    def checkpoint(self, number: int, dense_metric: float) -> Checkpoint:
        return checkpoint_of(number)

    def rollback(self) -> None:
        self.calls.append("rollback")

    def export(self, meter: Meter) -> None:
        self.calls.append("export")

    def quantize(self, meter: Meter) -> None:
        self.calls.append("quantize")

    def benchmark(self, meter: Meter) -> None:
        self.calls.append("benchmark")

    def publish(self, outcome: Outcome, meter: Meter) -> DoneMessage:
        return DoneMessage(reason=f"round {outcome.done}", summary={}, manifest={})


def order(wanted: JobSpec, **fields: object) -> JobOrder:
    return JobOrder.model_validate(
        {
            "id": "job_1",
            "tenant": "acme",
            "token": "1:a",
            "attempt": 1,
            "spec": wanted,
            "device": "cpu",
            "threads": 1,
            **fields,
        }
    )


THREE = {"schedule": {"kind": "iterative", "rounds": 3}, "floor": {"max_drop": 0.01}}


def test_runs_all_rounds_that_hold_and_publishes_the_last():
    link, session = MemoryLink(), MemorySession([0.91, 0.905, 0.902])

    done = run_job(order(spec(**THREE)), session, link)

    assert done.reason == "round 3"
    assert link.committed() == [(1, True), (2, True), (3, True)]
    assert link.step_names()[:5] == ["pull", "preflight", "baseline", "prune#1", "finetune#1"]
    assert link.step_names()[-3:] == ["export", "benchmark", "publish"]


def test_rolls_back_the_round_that_breaks_the_floor_and_stops():
    link, session = MemoryLink(), MemorySession([0.91, 0.89, 0.91])

    done = run_job(order(spec(**THREE)), session, link)

    assert done.reason == "round 1"
    assert link.committed() == [(1, True), (2, False)]
    assert "rollback" in session.calls
    assert "prune 3" not in session.calls


def test_fails_when_not_even_the_first_round_holds():
    link, session = MemoryLink(), MemorySession([0.5, 0.9, 0.9])

    with pytest.raises(FloorBroken, match=r"lower goal\.sparsity") as caught:
        run_job(order(spec(**THREE)), session, link)

    assert caught.value.failure_class is FailureClass.accuracy_floor
    assert link.committed() == [(1, False)]


def test_fails_before_any_pruning_when_the_dense_model_is_below_an_absolute_floor():
    session = MemorySession([0.9] * 3, dense=0.4)

    with pytest.raises(FloorBroken, match=r"The dense model reaches 0\.4000"):
        run_job(order(spec(**{**THREE, "floor": {"min_value": 0.5}})), session, MemoryLink())

    assert "prune 1" not in session.calls


def test_goes_on_after_the_last_committed_round_without_preflight():
    link, session = MemoryLink(), MemorySession([0.91, 0.91, 0.91])
    rounds = [round_of(1), round_of(2)]

    done = run_job(order(spec(**THREE), checkpoint=checkpoint_of(2), rounds=rounds, attempt=2), session, link)

    assert done.reason == "round 3"
    assert session.calls[:2] == ["pull", "restore 2"]
    assert link.committed() == [(3, True)]


def test_a_lost_worker_does_not_try_again_a_round_that_broke_the_floor():
    link, session = MemoryLink(), MemorySession([0.91, 0.5, 0.91])
    rounds = [round_of(1), round_of(2, held=False)]

    done = run_job(order(spec(**THREE), checkpoint=checkpoint_of(1), rounds=rounds, attempt=2), session, link)

    assert done.reason == "round 1"
    assert link.committed() == []


SEARCH = {
    "goal": None,
    "schedule": {"kind": "search", "first": 0.5, "most": 0.9, "resolution": 0.1, "rounds": 6},
    "floor": {"max_drop": 0.01},
}


def test_a_search_goes_back_after_each_try_that_broke_and_ends_at_the_most_that_held():
    link, session = MemoryLink(), MemorySession([0.91, 0.5, 0.905, 0.4])

    done = run_job(order(spec(**SEARCH)), session, link)

    assert session.shares == [0.5, 0.75, 0.625, 0.6875]
    assert done.reason == "round 3"
    assert link.committed() == [(1, True), (2, False), (3, True), (4, False)]
    assert session.calls.count("rollback") == 2


def test_a_search_whose_first_try_breaks_tries_less():
    link, session = MemoryLink(), MemorySession([0.5, 0.905, 0.4, 0.4])

    done = run_job(order(spec(**SEARCH)), session, link)

    assert session.shares[:3] == [0.5, 0.25, 0.375]
    assert done.reason == "round 2"


def test_a_search_goes_on_with_the_tries_of_a_lost_worker():
    tried = [
        round_of(1).model_copy(update={"target": 0.5}),
        round_of(2, held=False).model_copy(update={"target": 0.75}),
    ]
    session = MemorySession([0.91, 0.5, 0.5, 0.91])

    run_job(
        order(spec(**SEARCH), checkpoint=checkpoint_of(1), rounds=tried, attempt=2), session, MemoryLink()
    )

    assert session.shares == [0.625, 0.5625]


def test_a_search_where_nothing_held_fails_with_the_remedy():
    with pytest.raises(FloorBroken, match=r"lower schedule\.first"):
        run_job(order(spec(**SEARCH)), MemorySession([0.1] * 6), MemoryLink())


def test_the_recipe_auto_is_decided_on_the_dense_model_before_anything_is_restored():
    session = MemorySession([0.91] * 3)

    run_job(
        order(
            spec(goal=None, schedule={"kind": "iterative"}, recipe="auto"),
            checkpoint=checkpoint_of(1),
            rounds=[round_of(1)],
            attempt=2,
        ),
        session,
        MemoryLink(),
    )

    assert session.calls[:3] == ["pull", "explore", "restore 1"]
    assert "prune 3" in session.calls
    assert "quantize" in session.calls


def test_zero_epochs_mean_no_fine_tuning():
    link, session = MemoryLink(), MemorySession([])
    wanted = spec(schedule={"kind": "one_shot"}, fine_tune={"epochs": 0}, floor={"min_value": 0})

    run_job(order(wanted), session, link)

    assert not [call for call in session.calls if call.startswith("fine_tune")]
    assert "finetune#1" not in link.step_names()


def test_final_epochs_are_added_to_the_last_round_only():
    session = MemorySession([0.91] * 3)

    run_job(order(spec(**THREE, fine_tune={"epochs": 1, "final_epochs": 2})), session, MemoryLink())

    tuned = [call for call in session.calls if call.startswith("fine_tune")]
    assert tuned == ["fine_tune 1 for 1", "fine_tune 2 for 1", "fine_tune 3 for 3"]


def test_the_budget_ends_the_rounds_early():
    link = MemoryLink()

    done = run_job(order(spec(**THREE, budget={"max_rounds": 2})), MemorySession([0.91] * 3), link)

    assert done.reason == "round 2"


@pytest.mark.parametrize("checks", [0, 1, 3, 6])
def test_a_stop_is_heard_between_any_two_steps(checks: int):
    link = MemoryLink(stop_after=checks)

    with pytest.raises(Stopped):
        run_job(order(spec(**THREE)), MemorySession([0.91] * 3), link)

    assert len(link.committed()) <= checks


def test_progress_never_falls_and_ends_near_the_whole():
    link = MemoryLink()

    run_job(order(spec(**THREE)), MemorySession([0.91] * 3), link)

    told = [message.progress.percent for message in link.messages if message.kind == "progress"]
    assert told == sorted(told)
    assert told[-1] > 85
