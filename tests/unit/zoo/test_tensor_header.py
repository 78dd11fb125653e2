"""The head of a safetensors file tells what is in it; a broken one tells what is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.tensor_header import (
    LENGTH_BYTES,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    HeaderError,
    TensorHeader,
    header_length,
    parse_header,
)
from tests.zoo import safetensors, with_header

GOOD = safetensors(weight=("F32", [4, 3]), half=("BF16", [5]), steps=("I64", []))


def read(file: bytes) -> TensorHeader:
    length = header_length(file[:LENGTH_BYTES], len(file))
    return parse_header(file[LENGTH_BYTES : LENGTH_BYTES + length], len(file))


def entry(**changes: object) -> bytes:
    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return json.dumps({"w": {**good, **changes}}).encode()


def test_counts_elements_by_type():
    found = read(GOOD)

    assert found.tensors == 3
    assert dict(found.elements) == {"F32": 12, "BF16": 5, "I64": 1}


def test_several_files_add_up():
    both = read(GOOD) + read(safetensors(more=("F32", [8])))

    assert (both.tensors, both.elements["F32"]) == (4, 20)


def test_a_type_that_is_not_known_is_counted_as_other():
    found = read(with_header(entry(dtype="F3_X", data_offsets=[0, 8]), 8))

    assert dict(found.elements) == {"other": 2}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "cut short"),
        (b"\x01\x00", "cut short"),
        (GOOD[:40], "cut short or not a safetensors file"),
        (GOOD[:-3], "its tensors take 66 bytes, and it holds 63: upload it again"),
        (GOOD + b"x", "it holds 67"),
        (b"PK\x03\x04" + bytes(100), "not a safetensors file"),
        (with_header(b"[]"), "no JSON object"),
        (with_header(b"{" * 2000), "no JSON"),
        (with_header(b"[" * 100_000), "no JSON"),
        (with_header(b"\xff\xfe"), "no JSON"),
        (with_header(b'{"w": 3}'), "broken header at tensor 'w'"),
        (with_header(entry(shape=[-2]), 8), "broken header at tensor 'w'"),
        (with_header(entry(shape=[True]), 8), "broken header at tensor 'w'"),
        (with_header(entry(shape=[2**64]), 8), "broken header at tensor 'w'"),
        (with_header(entry(shape=[1] * 65), 8), "broken header at tensor 'w'"),
        (with_header(entry(data_offsets=[0]), 8), "broken header at tensor 'w'"),
        (with_header(entry(shape=[3]), 8), "'w' of 3 F32 takes 8 bytes"),
        (with_header(entry(dtype="X", shape=[2**62, 2**62]), 8), "broken header"),
    ],
)
def test_a_broken_file_is_refused_with_what_is_wrong(file: bytes, message: str):
    with pytest.raises(HeaderError, match=message):
        read(file)


def test_a_header_over_the_limit_is_refused_before_it_is_read():
    with pytest.raises(HeaderError, match="at most 16,777,216 are read"):
        header_length((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), 2**40)


def test_too_many_tensors_are_refused_before_they_are_parsed():
    header = b'"data_offsets"' * (MAX_TENSORS + 1)  # no JSON at all

    with pytest.raises(HeaderError, match="names 100,001 tensors; at most 100,000"):
        parse_header(header, len(header) + LENGTH_BYTES)


@given(st.data())
def test_a_mutated_file_is_read_or_refused_and_nothing_else(data: st.DataObject):
    file = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))

    try:
        found = read(bytes(file))
    except HeaderError:
        return
    assert found.elements.total() < 2**63
