"""Writes that wait for Redis."""

import pytest
from redis.exceptions import ConnectionError

from service.store.errors import LeaseLost
from workers.outbox import MAX_REPORTS, Outbox


class Server:
    """Takes writes while it is up."""

    def __init__(self) -> None:
        self.up = True
        self.got: list[str] = []

    def write(self, text: str) -> None:
        if not self.up:
            raise ConnectionError("refused")
        self.got.append(text)


def test_writes_go_out_at_once_and_in_order():
    server, outbox = Server(), Outbox(again_after_s=0)

    for text in "abc":
        outbox.add(lambda text=text: server.write(text))

    assert server.got == ["a", "b", "c"]


def test_writes_wait_for_the_server_and_then_go_out_once():
    server, outbox = Server(), Outbox(again_after_s=0)
    server.up = False
    outbox.add(lambda: server.write("a"))
    outbox.add(lambda: server.write("b"), urgent=True)
    assert not outbox.flush()

    server.up = True

    assert outbox.flush()
    assert outbox.flush()
    assert server.got == ["a", "b"]


def test_a_long_outage_drops_old_reports_but_no_urgent_write():
    server, outbox = Server(), Outbox(again_after_s=0)
    server.up = False
    outbox.add(lambda: server.write("commit"), urgent=True)
    for number in range(MAX_REPORTS + 10):
        outbox.add(lambda number=number: server.write(str(number)))

    server.up = True
    outbox.flush()

    assert server.got[0] == "commit"
    assert server.got[-1] == str(MAX_REPORTS + 9)
    assert len(server.got) == MAX_REPORTS


def test_a_lost_lease_is_raised_not_repeated():
    outbox = Outbox()

    def lost() -> None:
        raise LeaseLost("job_1")

    with pytest.raises(LeaseLost):
        outbox.add(lost)


def test_a_server_that_fails_is_left_alone_for_a_while():
    server, outbox = Server(), Outbox(again_after_s=60)
    server.up = False
    outbox.add(lambda: server.write("a"))

    server.up = True

    assert not outbox.flush()
    assert server.got == []
