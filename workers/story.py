"""The story of a job, from the pull to the last upload; `session` and `link` are its whole world."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from schemas.event import Level
from schemas.job_spec import JobSpec
from schemas.round import Checkpoint, Round, share_removed
from schemas.schedule import Search
from workers.errors import FloorBroken
from workers.link import Link, Meter, note, step
from workers.messages import DoneMessage, JobOrder

UNITS = {
    "pull": 2.0,
    "preflight": 4.0,
    "baseline": 2.0,
    "explore": 20.0,
    "prune": 1.0,
    "finetune": 6.0,
    "evaluate": 2.0,
}
"""Work of a step against others, for the progress bar. `finetune` is for one epoch."""
CLOSING = {"export": 3.0, "quantize": 2.0, "benchmark": 4.0, "publish": 2.0}


@dataclass(frozen=True)
class Pruned:
    """What is gone from a model."""

    sparsity: float
    """Share of zeros in the pruned layers; for structured pruning, share of the parameters that are gone."""
    reached: float | None = None
    """Share of the goal's quantity that is gone; None: it is the sparsity."""
    parameters: int | None = None
    macs: int | None = None


class Session(Protocol):
    """A model and its data on a device. The real one is TorchSession."""

    def pull(self, meter: Meter) -> None: ...
    def preflight(self, meter: Meter) -> None: ...
    def baseline(self, meter: Meter) -> float: ...
    def explore(self, dense_metric: float, floor: float, meter: Meter) -> JobSpec: ...
    def restore(self, checkpoint: Checkpoint) -> None: ...
    def prune(self, number: int, share: float, meter: Meter) -> None: ...
    def pruned(self) -> Pruned: ...
    def fine_tune(self, number: int, epochs: int, meter: Meter) -> tuple[int, float | None]: ...
    def evaluate(self, meter: Meter) -> float: ...
    def checkpoint(self, number: int, dense_metric: float) -> Checkpoint: ...
    def rollback(self) -> None: ...
    def export(self, meter: Meter) -> None: ...
    def quantize(self, meter: Meter) -> None: ...
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
    order, outcome = _open(order, session, run)
    _run_rounds(order, session, run, outcome)
    with run.step("export", CLOSING["export"]):
        session.export(meter)
    if quantizes(order.spec):
        with run.step("quantize", CLOSING["quantize"]):
            session.quantize(meter)
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


def _open(order: JobOrder, session: Session, run: _Run) -> tuple[JobOrder, Outcome]:
    """Check and measure the dense model, or go on after the last committed round; an order whose recipe is
    decided, which gives the same decision each time."""
    if order.checkpoint is not None:
        floor = order.spec.floor.threshold(order.checkpoint.dense_metric)
        outcome = Outcome(order.checkpoint.dense_metric, floor, list(order.rounds))
        order = _decide(order, session, run, outcome)
        session.restore(order.checkpoint)  # type: ignore[arg-type]
        note(run.link, f"Going on after round {outcome.done}.")
        return order, outcome
    if order.spec.recipe is None:
        _preflight(session, run)
    outcome = _baseline(order, session, run)
    if order.spec.recipe is not None:
        order = _decide(order, session, run, outcome)
        _preflight(session, run)
    return order, outcome


def _preflight(session: Session, run: _Run) -> None:
    with run.step("preflight", UNITS["preflight"]):
        session.preflight(run.meter)


def _baseline(order: JobOrder, session: Session, run: _Run) -> Outcome:
    """A search keeps the tries of an earlier attempt, none of which held; other jobs try them again."""
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
    return Outcome(dense, floor, list(order.rounds) if isinstance(order.spec.schedule, Search) else [])


def _decide(order: JobOrder, session: Session, run: _Run, outcome: Outcome) -> JobOrder:
    if order.spec.recipe is None:
        return order
    with run.step("explore", UNITS["explore"]):
        spec = session.explore(outcome.dense_metric, outcome.floor, run.meter)
    return order.model_copy(update={"spec": spec})


def _run_rounds(order: JobOrder, session: Session, run: _Run, outcome: Outcome) -> None:
    """Prune and fine-tune until the spec plans no further round. Raises FloorBroken when none held."""
    while (share := order.spec.next_share(outcome.rounds)) is not None:
        number = len(outcome.rounds) + 1
        round = _one_round(order, session, run, number, share, outcome)
        checkpoint = session.checkpoint(number, outcome.dense_metric) if round.held else None
        run.link.commit(round, checkpoint)
        outcome.rounds.append(round)
        if not round.held:
            session.rollback()
            note(run.link, _broken(round, outcome), Level.warning)
    if outcome.done == 0:
        raise FloorBroken(_nothing_held(order.spec, outcome))


def _one_round(
    order: JobOrder, session: Session, run: _Run, number: int, share: float, outcome: Outcome
) -> Round:
    began = time.monotonic()
    epochs = order.spec.fine_tune.epochs_of(number, order.spec.rounds_in_all())
    with run.step(f"prune#{number}", UNITS["prune"], round=number):
        session.prune(number, share, run.meter)
        before = metric = session.evaluate(run.meter)
    loss = None
    if epochs:
        with run.step(f"finetune#{number}", UNITS["finetune"] * epochs, round=number):
            epochs, loss = session.fine_tune(number, epochs, run.meter)
        with run.step(f"evaluate#{number}", UNITS["evaluate"], round=number):
            metric = session.evaluate(run.meter)
    run.meter.metric(metric)
    pruned = session.pruned()
    return Round(
        number=number,
        attempt=order.attempt,
        target=share,
        sparsity=pruned.sparsity,
        reached=pruned.reached,
        parameters=pruned.parameters,
        macs=pruned.macs,
        metric=metric,
        metric_before_fine_tune=before,
        loss=loss,
        epochs=epochs,
        held=metric >= outcome.floor,
        seconds=time.monotonic() - began,
    )


def _broken(round: Round, outcome: Outcome) -> str:
    below = f"Round {round.number}, with {share_removed(round):.1%} removed, reaches {round.metric:.4f}, "
    back = f"round {outcome.done}" if outcome.done else "the dense model"
    return f"{below}below the floor {outcome.floor:.4f}: back to {back}."


def _nothing_held(spec: JobSpec, outcome: Outcome) -> str:
    least = min(outcome.rounds, key=share_removed)
    goal = spec.goal
    gentler = "schedule.first" if goal is None else f"goal.{goal.name}"
    verb = "lower" if goal is None or goal.name == "sparsity" else "raise"
    return (
        f"Round {least.number}, with {share_removed(least):.1%} removed, reaches {least.metric:.4f}, below "
        f"the floor {outcome.floor:.4f}, and no earlier round held: {verb} {gentler}, raise schedule.rounds "
        "or fine_tune.epochs, or allow more with floor."
    )


def _units(spec: JobSpec, rounds_known: int) -> tuple[float, float]:
    """All units of work of the job, and those that earlier attempts have done."""
    opening = UNITS["preflight"] + UNITS["baseline"] + (UNITS["explore"] if spec.recipe else 0.0)
    rounds = spec.rounds_in_all()
    per_round = [
        UNITS["prune"] + UNITS["evaluate"] + UNITS["finetune"] * spec.fine_tune.epochs_of(number, rounds)
        for number in range(1, rounds + 1)
    ]
    closing = sum(units for name, units in CLOSING.items() if name != "quantize" or quantizes(spec))
    total = UNITS["pull"] + opening + sum(per_round) + closing
    return total, (opening + sum(per_round[:rounds_known]) if rounds_known else 0.0)


def quantizes(spec: JobSpec) -> bool:
    """A step `quantize` follows the export."""
    return spec.recipe is not None or spec.quantize.kind != "none"
