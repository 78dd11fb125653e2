"""The child's side of the pipes to its supervisor: tell progress, ask for commits, hear the stop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Protocol

from schemas.event import Level
from schemas.job import Progress, Step, StepState
from schemas.round import Checkpoint, Round
from workers.errors import Stopped
from workers.messages import CommitMessage, Message, NoteMessage, ProgressMessage, StepMessage

PROGRESS_EVERY_S = 0.5


class Link(Protocol):
    """What the story of a job needs of the world outside."""

    steps: list[Step]

    def send(self, message: Message) -> None: ...
    def commit(self, round: Round, checkpoint: Checkpoint | None) -> None: ...
    def raise_if_stopped(self) -> None: ...


class PipeLink:
    """Over two pipes. Thread-safe."""

    def __init__(self, outgoing: IO[str], incoming: IO[str]) -> None:
        self.steps: list[Step] = []
        self._outgoing = outgoing
        self._incoming = incoming
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop_on(self, *signals: int) -> None:
        """Take these signals as the order to stop at the next batch."""
        for number in signals:
            signal.signal(number, lambda *_: self._stopped.set())

    def send(self, message: Message) -> None:
        """Tell the supervisor. It never blocks for long: the supervisor always reads."""
        with self._lock:
            self._outgoing.write(message.model_dump_json() + "\n")
            self._outgoing.flush()

    def commit(self, round: Round, checkpoint: Checkpoint | None) -> None:
        """Have a round committed, however long Redis is away. Raises Stopped when the lease is lost."""
        self.send(CommitMessage(round=round, checkpoint=checkpoint))
        if self._incoming.readline().strip() != "committed":
            raise Stopped("the lease is lost")

    def raise_if_stopped(self) -> None:
        """To be called at every batch. Raises Stopped."""
        if self._stopped.is_set():
            raise Stopped("the supervisor asked")


@contextmanager
def step(link: Link, name: str, *, on_device: bool = True) -> Iterator[None]:
    """Report a step and its seconds; `on_device`: it holds the device, so its time counts as device time."""
    link.raise_if_stopped()
    started = datetime.now(UTC)
    clock = time.monotonic()
    link.send(StepMessage(step=Step(name=name, state=StepState.running, started_at=started)))
    state = StepState.failed
    try:
        yield
        state = StepState.finished
    except Stopped:
        state = StepState.stopped
        raise
    finally:
        seconds = time.monotonic() - clock
        done = Step(
            name=name,
            state=state,
            started_at=started,
            seconds=round(seconds, 3),
            device_seconds=round(seconds, 3) if on_device else 0.0,
        )
        link.steps.append(done)
        link.send(StepMessage(step=done))


def note(link: Link, message: str, level: Level = Level.info) -> None:
    """Put a sentence into the event list."""
    link.send(NoteMessage(message=message, level=level))


class Meter:
    """Turns the work done into percent and an estimate of the time left; tells it at most twice a second."""

    def __init__(self, link: Link, total_units: float, done_units: float, rounds: int) -> None:
        self._link = link
        self._total = total_units
        self._before = self._done = done_units
        self._share = 0.0
        self._units = 0.0
        self._rounds = rounds
        self._began = time.monotonic()
        self._told = 0.0
        self._shown = Progress(rounds=rounds)

    def begin(self, step: str, units: float, *, round: int) -> None:
        """A step of so many units of work begins."""
        self._units, self._share = units, 0.0
        self._shown = self._shown.model_copy(update={"step": step, "round": round})
        self._tell()

    def end(self) -> None:
        """The step is over."""
        self._done += self._units
        self._units = self._share = 0.0

    def advance(self, share: float, *, loss: float | None = None) -> None:
        """So much of the step is done (0..1). Also the place where a stop is heard. Raises Stopped."""
        self._link.raise_if_stopped()
        self._share = min(1.0, share)
        if loss is not None:
            self._shown = self._shown.model_copy(update={"loss": loss})
        if time.monotonic() - self._told >= PROGRESS_EVERY_S:
            self._tell()

    def metric(self, value: float) -> None:
        """A metric was measured."""
        self._shown = self._shown.model_copy(update={"metric": value})
        self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        done = self._done + self._units * self._share
        here = done - self._before
        elapsed = self._told - self._began
        eta = elapsed * (self._total - done) / here if here > 0 else None
        self._shown = self._shown.model_copy(
            update={
                "percent": round(min(100.0, 100 * done / self._total), 2),
                "step_percent": round(100 * self._share, 1),
                "eta_s": round(eta, 1) if eta is not None else None,
            }
        )
        self._link.send(ProgressMessage(progress=self._shown))
