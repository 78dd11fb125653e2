"""Runs one claimed job in a child process: keeps the lease, relays messages, ends it when told."""

import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Literal

import structlog
from pydantic import ValidationError

from schemas.event import EventType, Level
from schemas.job import Progress, Status, Step, StepState
from service.settings import Settings
from service.store.connect import UNREACHABLE
from service.store.errors import LeaseLost
from service.store.jobs import Claim, EventDraft, JobStore, Order
from workers import metrics
from workers.messages import (
    EXIT_STOPPED,
    MESSAGE,
    CommitMessage,
    DoneMessage,
    FailedMessage,
    JobOrder,
    Message,
    NoteMessage,
    ProgressMessage,
    StepMessage,
)
from workers.outbox import Outbox
from workers.process import kill_group, start_child

log = structlog.get_logger(__name__)
STOP_GRACE_S = 2.0
"""Between SIGTERM, answered at the next batch, and SIGKILL. Commits are atomic, so both are safe."""

Why = Literal["cancel", "timeout", "lost", "drain", "stalled", "garbled"]


INBOX_SIZE = 10_000
"""A child that prints faster than we can tell waits for us."""

MESSAGES_A_PASS = 200
"""Then it is time to look at the lease again."""

DRAIN_PATIENCE_S = 3.0
"""How long a worker that shuts down waits for Redis; then the lease runs out by itself."""


@dataclass(frozen=True)
class Line:
    """One line of the child's output."""

    text: str


@dataclass(frozen=True)
class Garbled:
    """The child sent what is no message."""

    cause: str


class Supervisor:
    """One job on one slot. `run` returns when the job has left this worker."""

    def __init__(
        self,
        claim: Claim,
        order: JobOrder,
        store: JobStore,
        settings: Settings,
        *,
        drain: threading.Event,
        child_env: dict[str, str],
    ) -> None:
        self._claim = claim
        self._order = order
        self._store = store
        self._settings = settings
        self._drain = drain
        self._env = child_env
        self._outbox = Outbox()
        self._inbox: queue.Queue[Message | Line | Garbled] = queue.Queue(INBOX_SIZE)
        self._steps: dict[str, Step] = {}
        self._ending: DoneMessage | FailedMessage | None = None
        self._stop: Why | None = None
        self._cause = ""
        self._log = log.bind(job=claim.id, attempt=claim.attempt)

    def run(self) -> None:
        """Start the child, see it to its end, and tell the store. It never raises for what the job does."""
        try:
            with tempfile.TemporaryDirectory(prefix="secateur-job-", ignore_cleanup_errors=True) as scratch:
                self._run(scratch)
        except LeaseLost:
            metrics.LEASES_LOST.inc()
            self._log.warning("lease_lost")

    def _run(self, scratch: str) -> None:
        """The child's scratch is ours to remove: a child that is killed leaves it behind."""
        child, readers = self._start(scratch)
        try:
            self._watch(child)
        finally:
            kill_group(child)
            child.wait()
        for reader in readers:
            reader.join(timeout=2)
        self._drain_inbox(child, INBOX_SIZE)
        self._settle(child.returncode)

    def _start(self, scratch: str) -> tuple["subprocess.Popen[str]", list[threading.Thread]]:
        reading, writing = os.pipe()
        env = {
            **self._env,
            "TMPDIR": scratch,
            "SECATEUR_CHILD_MESSAGES_FD": str(writing),
            "SECATEUR_CHILD_PARENT": str(os.getpid()),
        }
        child = start_child(self._settings.child_module, env=env, messages_fd=writing)
        os.close(writing)
        self._log.info("child_started", pid=child.pid)
        readers = [
            threading.Thread(target=self._read_messages, args=(reading,), daemon=True),
            threading.Thread(target=self._read_output, args=(child,), daemon=True),
        ]
        for reader in readers:
            reader.start()
        self._answer(child, self._order.model_dump_json())
        return child, readers

    def _read_messages(self, descriptor: int) -> None:
        with os.fdopen(descriptor, errors="replace") as lines:
            for line in lines:
                if not line.endswith("\n"):
                    return  # the child died in the middle of it
                try:
                    self._inbox.put(MESSAGE.validate_json(line))
                except ValidationError as error:
                    self._inbox.put(Garbled(str(error.errors(include_url=False)[0])))

    def _read_output(self, child: "subprocess.Popen[str]") -> None:
        assert child.stdout is not None
        for line in child.stdout:
            self._inbox.put(Line(line.rstrip("\n")[:4000]))

    def _watch(self, child: "subprocess.Popen[str]") -> None:
        """Until the child has ended by itself or was killed."""
        beat_at = heard_at = time.monotonic()
        kill_at: float | None = None
        while child.poll() is None:
            heard_at = self._take_messages(child, heard_at)
            now = time.monotonic()
            if now >= beat_at:
                beat_at = now + self._settings.heartbeat_seconds
                self._beat()
            if self._stop is None and now - heard_at > self._settings.stall_seconds:
                self._stop = "stalled"
            if self._stop is None and self._drain.is_set():
                self._stop = "drain"
            if self._stop is not None and kill_at is None:
                self._log.info("child_told_to_stop", why=self._stop)
                child.send_signal(signal.SIGTERM)
                kill_at = now + (0 if self._stop == "lost" else STOP_GRACE_S)
            if kill_at is not None and now >= kill_at:
                return

    def _take_messages(self, child: "subprocess.Popen[str]", heard_at: float) -> float:
        """Handle what arrived, waiting a little for the first; returns when the child was last heard."""
        try:
            self._handle(child, self._inbox.get(timeout=0.1))
            heard_at = time.monotonic()
            self._drain_inbox(child)
        except queue.Empty:
            self._outbox.flush()
        return heard_at

    def _drain_inbox(self, child: "subprocess.Popen[str]", most: int = MESSAGES_A_PASS) -> None:
        lines: list[str] = []
        for _ in range(most):
            if self._inbox.empty():
                break
            message = self._inbox.get()
            if isinstance(message, Line):
                lines.append(message.text)
            else:
                self._handle(child, message)
        if lines:
            self._report(lines=tuple(lines))

    def _beat(self) -> None:
        try:
            order = self._store.heartbeat(self._claim, self._settings.lease_seconds)
        except UNREACHABLE as error:
            self._log.warning("heartbeat_failed", error=str(error))
            return
        self._obey(order)
        if order == "lost":
            raise LeaseLost(self._claim.id)

    def _handle(self, child: "subprocess.Popen[str]", message: Message | Line | Garbled) -> None:
        match message:
            case Line(text):
                self._report(lines=(text,))
            case Garbled(cause):
                self._cause, self._stop = f"The child sent a message that is none: {cause}.", "garbled"
            case StepMessage(step=step):
                self._on_step(step)
            case ProgressMessage(progress=progress):
                self._report(progress=progress)
            case NoteMessage():
                draft = EventDraft(EventType.message, message.message, message.level, message.data)
                self._report(events=(draft,))
            case CommitMessage():
                self._on_commit(child, message)
            case DoneMessage() | FailedMessage():
                self._ending = message

    def _on_step(self, step: Step) -> None:
        self._steps[step.name] = step
        if step.seconds is not None:
            metrics.STEP_SECONDS.labels(metrics.step_kind(step.name), step.state.value).observe(step.seconds)
        level = Level.error if step.state is StepState.failed else Level.info
        took = "" if step.seconds is None else f" in {step.seconds:.1f} s"
        draft = EventDraft(
            EventType.step,
            f"Step {step.name} {'began' if step.state is StepState.running else step.state.value}{took}.",
            level,
            {"step": step.name, "state": step.state.value, "seconds": step.seconds},
        )
        self._report(events=(draft,), steps=list(self._steps.values()))

    def _on_commit(self, child: "subprocess.Popen[str]", message: CommitMessage) -> None:
        metrics.ROUND_SECONDS.observe(message.round.seconds)

        def write() -> None:
            self._store.commit(self._claim, message.round, message.checkpoint)
            self._answer(child, "committed")

        self._outbox.add(write, urgent=True)

    def _report(
        self,
        *,
        progress: Progress | None = None,
        steps: list[Step] | None = None,
        events: tuple[EventDraft, ...] = (),
        lines: tuple[str, ...] = (),
    ) -> None:
        def write() -> None:
            order = self._store.report(
                self._claim, progress=progress, steps=steps, events=events, lines=lines
            )
            self._obey(order)

        self._outbox.add(write)

    def _obey(self, order: Order) -> None:
        """Remember what the store asks for. A progress report brings it sooner than the heartbeat."""
        if order != "ok" and self._stop is None:
            self._stop = order

    def _answer(self, child: "subprocess.Popen[str]", line: str) -> None:
        assert child.stdin is not None
        try:
            child.stdin.write(line + "\n")
            child.stdin.flush()
        except BrokenPipeError:
            self._log.warning("child_gone_before_answer")

    def _settle(self, code: int) -> None:
        """Tell the store how the attempt ended, however long Redis is away; when shutting down, briefly."""
        self._outbox.add(lambda: self._end(code), urgent=True)
        draining_since: float | None = None
        while not self._outbox.flush():
            time.sleep(0.1)
            if self._drain.is_set():
                draining_since = draining_since or time.monotonic()
                if time.monotonic() - draining_since > DRAIN_PATIENCE_S:
                    self._log.warning("job_left_to_its_lease")
                    return

    def _end(self, code: int) -> None:
        if isinstance(self._ending, DoneMessage):
            done = self._ending
            status = self._store.finish(
                self._claim, Status.succeeded, done.reason, summary=done.summary, manifest=done.manifest
            )
        elif isinstance(self._ending, FailedMessage):
            failed = self._ending
            status = self._store.finish(
                self._claim, Status.failed, failed.reason, failure_class=failed.failure_class
            )
        elif self._stop in ("cancel", "timeout", "drain"):
            status = self._store.release(
                self._claim, "released", "The worker is shutting down: the job waits for another."
            )
        elif code == EXIT_STOPPED and self._stop is None:
            status = self._store.release(self._claim, "released", "The worker's child was told to stop.")
        else:
            status = self._store.release(self._claim, "worker_lost", self._cause_of_death(code))
        metrics.JOBS_ENDED.labels(status.value).inc()
        self._log.info("attempt_ended", status=status.value, exit_code=code)

    def _cause_of_death(self, code: int) -> str:
        if self._stop == "garbled":
            return self._cause
        if self._stop == "stalled":
            return f"The child made no progress for {self._settings.stall_seconds:.0f} s and was killed."
        if code == -signal.SIGKILL:
            return "The child process was killed (SIGKILL): often the machine ran out of memory."
        if code < 0:
            return f"The child process died of signal {signal.Signals(-code).name}."
        return f"The child process ended with exit code {code}; its log says more."
