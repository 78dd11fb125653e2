"""The decoder of event streams."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.sse import Message, decode

STREAM = 'id: 1\nevent: state\ndata: {"a":\ndata: 1}\n\n: ping\n\nid:2\r\ndata:x\u2028y\r\n\r\n'.encode()
MESSAGES = [Message("1", "state", '{"a":\n1}'), Message("2", "message", "x\u2028y")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_it_does_not_matter_where_the_stream_is_cut_into_chunks(cuts: list[int]):
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in pairwise(edges)]

    assert list(decode(chunks)) == MESSAGES


@pytest.mark.parametrize("tail", [b"data: cut off", b"data: cut off\n", b"data: cut off\ndata"])
def test_a_message_without_its_end_is_not_told(tail: bytes):
    assert list(decode([STREAM + tail])) == MESSAGES


def test_an_id_holds_until_the_next():
    assert [one.id for one in decode([b"id: 7\ndata: a\n\ndata: b\n\n"])] == ["7", "7"]
