"""Recorded log lines of TensorRT's builder, of the versions that say something of sparsity."""

import pytest

from workers.benchmark.tensorrt.sparsity_log import Layers, SparsityLog, read_sparsity_log

OLD = """\
[03/23/2021-00:14:05] [I] [TRT] (Sparsity) Layers eligible for sparse math: conv1, conv2, conv3
[I] [TRT] (Sparsity) TRT inference plan picked sparse implementation for layers: conv2, conv3
"""
NEW = """\
[V] [TRT] (Sparsity) Found 39 layer(s) eligible to use sparse tactics
[V] [TRT] (Sparsity) Chose 0 layer(s) using sparse tactics
"""


def read(text: str) -> SparsityLog:
    return read_sparsity_log(text.splitlines())


def test_reads_the_words_of_8():
    found = read(OLD)

    assert found.eligible == Layers(3, ("conv1", "conv2", "conv3"))
    assert found.picked == Layers(2, ("conv2", "conv3"))


def test_reads_the_words_of_10():
    found = read(NEW)

    assert found.eligible == Layers(39, ())
    assert found.picked == Layers(0, ())


def test_reads_names_after_the_count():
    found = read("(Sparsity) Found 2 layer(s) eligible to use sparse tactics: /l1/Conv, /l2/MatMul")

    assert found.eligible == Layers(2, ("/l1/Conv", "/l2/MatMul"))


@pytest.mark.parametrize("end", [":", ": ", ""])
def test_an_empty_list_of_8_is_none_picked(end: str):
    found = read(f"(Sparsity) TRT inference plan picked sparse implementation for layers{end}")

    assert found.picked == Layers(0, ())


def test_the_last_pair_is_that_of_the_engine():
    again = NEW.replace("39", "4").replace("Chose 0", "Chose 3")

    found = read(NEW + "[V] [TRT] other words\n" + again)

    assert (found.eligible, found.picked) == (Layers(4, ()), Layers(3, ()))


def test_a_second_pair_without_its_end_does_not_keep_the_first_ones():
    found = read(NEW + "(Sparsity) Found 7 layer(s) eligible to use sparse tactics")

    assert (found.eligible, found.picked) == (Layers(7, ()), None)


def test_a_log_without_such_lines_says_nothing():
    assert read("[I] [TRT] Engine generation completed in 3.2 seconds.") == SparsityLog(None, None)
