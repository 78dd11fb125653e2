"""Why the jobs of a queue wait, in a sentence."""

import pytest

from schemas.fleet import Queue, Worker
from schemas.wire import DeviceClass
from service.routes.fleet import queue_of
from service.store.queues import QueueSize
from tests.api import worker

NOW_MS = 1_000_000_000


def gpu(*, slots: int = 1, busy: int = 0, draining: bool = False) -> Worker:
    return worker(device="cuda", serves=["cuda", "any"], slots=slots, busy=busy, draining=draining)


def queue(workers: list[Worker], *, waiting: int = 1, demand: int = 3, waited_s: int = 2) -> Queue:
    size = QueueSize(waiting, demand, NOW_MS - 1000 * waited_s if waiting else None)
    return queue_of(DeviceClass.cuda, size, workers, NOW_MS)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (queue([], waiting=0), "Nothing waits"),
        (queue([]), "No worker serves 'cuda': start a worker on cuda or ampere"),
        (queue([gpu(draining=True)]), "No worker serves"),
        (queue([gpu(slots=2, busy=2), gpu(busy=1)]), "All 3 slots"),
        (queue([gpu()]), "1 slots are free and are being rung"),
        (queue([gpu()], waited_s=60), "steward"),
    ],
)
def test_the_reason_names_what_is_missing(found: Queue, words: str):
    assert words in found.reason


def test_the_figures_add_up():
    found = queue([gpu(slots=4, busy=1), gpu(draining=True)])

    assert (found.waiting, found.running, found.demand) == (1, 2, 3)
    assert (found.workers, found.free_slots, found.oldest_wait_s) == (1, 3, 2.0)


def test_a_clock_that_is_behind_gives_no_negative_wait():
    assert queue([], waited_s=-5).oldest_wait_s == 0
