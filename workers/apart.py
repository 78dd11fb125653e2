"""Work in a process of its own that a crash of native code cannot take the job with."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from workers.process import die_with_parent

_ASK_EVERY_S = 0.2
Result = TypeVar("Result")
_FORK = multiprocessing.get_context("fork")


class Died(Exception):
    """The process ended without an answer; the message names the signal or the exit code."""


def run_apart(work: Callable[[], Result], heard: Callable[[], None]) -> Result:
    """What `work` returns, or raises, in a fork of this process; both must be picklable.

    The fork shares this process's memory until one of them writes, uses one thread, and must not touch a GPU.
    `heard` is called while it works and may raise Stopped, which ends the fork. Raises Died.
    """
    receiver, sender = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_answer, args=(work, sender, os.getpid()))
    process.start()
    sender.close()
    try:
        while not receiver.poll(_ASK_EVERY_S):
            heard()
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise Died(_end(process.exitcode)) from None
    finally:
        receiver.close()
        process.kill()
        process.join()
    if isinstance(answer, BaseException):
        raise answer
    return answer  # type: ignore[no-any-return]


def _answer(work: Callable[[], Any], sender: Connection, parent: int) -> None:
    die_with_parent(parent)
    torch.set_num_threads(1)  # the threads of the parent's pools are not here
    try:
        answer = work()
    except Exception as error:  # noqa: BLE001 - the parent raises it again
        answer = error
    sender.send(answer)


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
