"""The child's side of the pipes."""

import io
import os
import signal

import pytest

from schemas.job import StepState
from tests.jobs import checkpoint_of, round_of
from workers.errors import Stopped
from workers.link import Meter, PipeLink, note, step
from workers.messages import MESSAGE, CommitMessage


def sent(outgoing: io.StringIO) -> list:
    return [MESSAGE.validate_json(line) for line in outgoing.getvalue().splitlines()]


def test_a_step_is_told_when_it_begins_and_when_it_ends():
    outgoing = io.StringIO()
    link = PipeLink(outgoing, io.StringIO())

    with step(link, "prune#1"):
        pass

    assert [one.step.state for one in sent(outgoing)] == [StepState.running, StepState.finished]
    assert link.steps[0].device_seconds == link.steps[0].seconds


def test_a_step_that_raises_is_told_as_failed_and_holds_no_device_if_it_does_not():
    link = PipeLink(io.StringIO(), io.StringIO())

    with pytest.raises(ValueError, match="x"), step(link, "pull", on_device=False):
        raise ValueError("x")

    assert link.steps[0].state is StepState.failed
    assert link.steps[0].device_seconds == 0


def test_a_commit_waits_for_its_answer():
    outgoing = io.StringIO()
    link = PipeLink(outgoing, io.StringIO("committed\n"))

    link.commit(round_of(1), checkpoint_of(1))

    assert sent(outgoing) == [CommitMessage(round=round_of(1), checkpoint=checkpoint_of(1))]


def test_a_commit_whose_supervisor_is_gone_stops_the_child():
    link = PipeLink(io.StringIO(), io.StringIO(""))

    with pytest.raises(Stopped):
        link.commit(round_of(1), checkpoint_of(1))


def test_a_signal_is_heard_at_the_next_check():
    link = PipeLink(io.StringIO(), io.StringIO())
    before = signal.getsignal(signal.SIGUSR1)
    link.stop_on(signal.SIGUSR1)
    link.raise_if_stopped()

    os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(Stopped):
        link.raise_if_stopped()
    signal.signal(signal.SIGUSR1, before)


def test_the_meter_counts_units_of_unequal_steps():
    outgoing = io.StringIO()
    link = PipeLink(outgoing, io.StringIO())
    meter = Meter(link, total_units=10, done_units=0, rounds=1)

    meter.begin("pull", 2, round=0)
    meter.end()
    meter.begin("finetune", 8, round=1)

    shown = sent(outgoing)[-1].progress
    assert shown.percent == 20
    assert (shown.step, shown.round) == ("finetune", 1)


def test_a_note_becomes_an_event():
    outgoing = io.StringIO()

    note(PipeLink(outgoing, io.StringIO()), "hello")

    assert sent(outgoing)[0].message == "hello"
