"""Work in a process of its own."""

import os
import signal

import pytest

from workers.apart import Died, run_apart
from workers.errors import PreflightError, Stopped


def test_the_answer_comes_back():
    assert run_apart(lambda: 6 * 7, lambda: None) == 42


def test_an_error_of_the_work_is_raised_here():
    def refuse() -> None:
        raise PreflightError("no")

    with pytest.raises(PreflightError, match=r"^no$"):
        run_apart(refuse, lambda: None)


def test_a_crash_ends_the_other_process_alone_and_is_named():
    with pytest.raises(Died, match="signal SIGSEGV"):
        run_apart(lambda: os.kill(os.getpid(), signal.SIGSEGV), lambda: None)


def test_a_job_that_is_stopped_waits_no_longer():
    def stop() -> None:
        raise Stopped("asked to")

    with pytest.raises(Stopped):
        run_apart(signal.pause, stop)
