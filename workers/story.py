"""The story of a job, from the pull to the last upload; `session` and `link` are its whole world."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from schemas.event import Level
from schemas.job_spec import JobSpec
from schemas.round import Checkpoint, Round
from workers.errors import FloorBroken
from workers.link import Link, Meter, note, step
from workers.messages import DoneMessage, JobOrder

UNITS = {"pull": 2.0, "preflight": 4.0, "baseline": 2.0, "prune": 1.0, "finetune": 6.0, "evaluate": 2.0}
"""Work of a step against others, for the progress bar. `finetune` is for one epoch."""
CLOSING = {"export": 3.0, "benchmark": 4.0, "publish": 2.0}


class Session(Protocol):
    """A model and its data on a device. The real one is TorchSession."""

    def pull(self, meter: Meter) -> None: ...
    def preflight(self, meter: Meter) -> None: ...
    def baseline(self, meter: Meter) -> float: ...
    def restore(self, checkpoint: Checkpoint) -> None: ...
    def prune(self, number: int) -> float: ...
    def fine_tune(self, number: int, epochs: int, meter: Meter) -> tuple[int, float | None]: ...
    def evaluate(self, meter: Meter) -> float: ...
    def checkpoint(self, number: int, dense_metric: float) -> Checkpoint: ...
    def rollback(self) -> None: ...
    def export(self, meter: Meter) -> None: ...
    def benchmark(self, meter: Meter) -> None: ...
    def publish(self, outcome: "Outcome", meter: Meter) -> DoneMessage: ...


@dataclass
class Outcome:
    """What the rounds came to."""

    dense_metric: float
    floor: float
    rounds: list[Round] = field(default_factory=list)

    @property
    def done(self) -> int:
        """The last round that held."""
        return max((one.number for one in self.rounds if one.held), default=0)

    @property
    def broke(self) -> bool:
        """A round fell below the floor, so no more will be tried."""
        return any(not one.held for one in self.rounds)

    def best(self) -> Round:
        """The round that is the result."""
        return next(one for one in self.rounds if one.number == self.done)


def run_job(order: JobOrder, session: Session, link: Link) -> DoneMessage:
    """Pull, check, measure the dense model, run the rounds, publish. Raises JobError and Stopped."""
    spec = order.spec
    meter = Meter(
        link, *_units(spec, order.checkpoint.round if order.checkpoint else 0), rounds=spec.rounds_in_all()
    )
    run = _Run(link, meter)
    with run.step("pull", UNITS["pull"], on_device=False):
        session.pull(meter)
    if order.checkpoint is None:
        outcome = _begin(order, session, run)
    else:
        outcome = _resume(order, order.checkpoint, session, run)
    _run_rounds(order, session, run, outcome)
    with run.step("export", CLOSING["export"]):
        session.export(meter)
    with run.step("benchmark", CLOSING["benchmark"]):
        session.benchmark(meter)
    with run.step("publish", CLOSING["publish"], on_device=False):
        return session.publish(outcome, meter)


class _Run:
    """Steps that move the progress bar too."""

    def __init__(self, link: Link, meter: Meter) -> None:
        self.link = link
        self.meter = meter

    @contextmanager
    def step(self, name: str, units: float, *, round: int = 0, on_device: bool = True) -> Iterator[None]:
        self.meter.begin(name, units, round=round)
        with step(self.link, name, on_device=on_device):
            yield
        self.meter.end()


def _begin(order: JobOrder, session: Session, run: _Run) -> Outcome:
    with run.step("preflight", UNITS["preflight"]):
        session.preflight(run.meter)
    with run.step("baseline", UNITS["baseline"]):
        dense = session.baseline(run.meter)
    run.meter.metric(dense)
    floor = order.spec.floor.threshold(dense)
    note(run.link, f"The dense model reaches {dense:.4f}; the floor is {floor:.4f}.")
    if dense < floor:
        raise FloorBroken(
            f"The dense model reaches {dense:.4f} on the validation split, below the floor {floor:.4f}: "
            "lower the floor, or check that model and data belong together."
        )
    return Outcome(dense, floor)


def _resume(order: JobOrder, checkpoint: Checkpoint, session: Session, run: _Run) -> Outcome:
    session.restore(checkpoint)
    note(run.link, f"Going on after round {checkpoint.round}.")
    floor = order.spec.floor.threshold(checkpoint.dense_metric)
    return Outcome(checkpoint.dense_metric, floor, list(order.rounds))


def _run_rounds(order: JobOrder, session: Session, run: _Run, outcome: Outcome) -> None:
    """Prune and fine-tune until all rounds are done or one falls below the floor."""
    while outcome.done < order.spec.rounds_in_all() and not outcome.broke:
        number = outcome.done + 1
        round = _one_round(order, session, run, number, outcome)
        if round.held:
            run.link.commit(round, session.checkpoint(number, outcome.dense_metric))
        else:
            run.link.commit(round, None)
        outcome.rounds.append(round)
        if not round.held:
            _fall_back(session, run, outcome, round)


def _one_round(order: JobOrder, session: Session, run: _Run, number: int, outcome: Outcome) -> Round:
    began = time.monotonic()
    epochs = order.spec.fine_tune.epochs_of(number, order.spec.rounds_in_all())
    with run.step(f"prune#{number}", UNITS["prune"], round=number):
        sparsity = session.prune(number)
        before = metric = session.evaluate(run.meter)
    loss = None
    if epochs:
        with run.step(f"finetune#{number}", UNITS["finetune"] * epochs, round=number):
            epochs, loss = session.fine_tune(number, epochs, run.meter)
        with run.step(f"evaluate#{number}", UNITS["evaluate"], round=number):
            metric = session.evaluate(run.meter)
    run.meter.metric(metric)
    return Round(
        number=number,
        attempt=order.attempt,
        sparsity=sparsity,
        metric=metric,
        metric_before_fine_tune=before,
        loss=loss,
        epochs=epochs,
        held=metric >= outcome.floor,
        seconds=time.monotonic() - began,
    )


def _fall_back(session: Session, run: _Run, outcome: Outcome, broken: Round) -> None:
    """Back to the last round that held. Raises FloorBroken when there is none."""
    round = f"Round {broken.number} at {broken.sparsity:.1%} sparsity"
    below = f"{round} reaches {broken.metric:.4f}, below the floor"
    if outcome.done == 0:
        raise FloorBroken(
            f"{below} {outcome.floor:.4f}, and no earlier round held: lower goal.sparsity, raise "
            "schedule.rounds or fine_tune.epochs, or allow more with floor."
        )
    session.rollback()
    note(run.link, f"{below} {outcome.floor:.4f}: the result is round {outcome.done}.", Level.warning)


def _units(spec: JobSpec, rounds_known: int) -> tuple[float, float]:
    """All units of work of the job, and those that earlier attempts have done."""
    opening = UNITS["preflight"] + UNITS["baseline"]
    rounds = spec.rounds_in_all()
    per_round = [
        UNITS["prune"] + UNITS["evaluate"] + UNITS["finetune"] * spec.fine_tune.epochs_of(number, rounds)
        for number in range(1, rounds + 1)
    ]
    total = UNITS["pull"] + opening + sum(per_round) + sum(CLOSING.values())
    return total, (opening + sum(per_round[:rounds_known]) if rounds_known else 0.0)
