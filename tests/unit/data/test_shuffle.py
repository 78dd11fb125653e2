"""The shuffle buffer."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.data.shuffle import random_of, shuffled

SIZES = st.lists(st.integers(0, 50), max_size=200)


def order(sizes: list[int], seed: int, samples: int, max_bytes: int) -> list[int]:
    items = enumerate(sizes)
    random = np.random.default_rng(seed)
    mixed = shuffled(items, random, size_of=lambda item: item[1], samples=samples, max_bytes=max_bytes)
    return [number for number, _ in mixed]


@given(SIZES, st.integers(0, 9), st.integers(1, 300), st.integers(1, 2000))
def test_each_sample_comes_exactly_once(sizes: list[int], seed: int, samples: int, max_bytes: int):
    assert sorted(order(sizes, seed, samples, max_bytes)) == list(range(len(sizes)))


@given(SIZES, st.integers(0, 9), st.integers(1, 300), st.integers(1, 2000))
def test_the_same_seed_gives_the_same_order(sizes: list[int], seed: int, samples: int, max_bytes: int):
    assert order(sizes, seed, samples, max_bytes) == order(sizes, seed, samples, max_bytes)


@given(SIZES, st.integers(1, 300), st.integers(1, 500))
def test_the_buffer_never_holds_more_than_it_may(sizes: list[int], samples: int, max_bytes: int):
    came: list[int] = []
    gone: list[int] = []

    def coming():
        for number in range(len(sizes)):
            held = set(came) - set(gone)
            assert len(held) <= samples
            assert len(held) <= 1 or sum(sizes[one] for one in held) <= max_bytes
            came.append(number)
            yield number

    random = np.random.default_rng(0)
    for out in shuffled(coming(), random, size_of=sizes.__getitem__, samples=samples, max_bytes=max_bytes):
        gone.append(out)

    assert sorted(gone) == came


def test_a_buffer_as_large_as_the_split_mixes_all_of_it():
    mixed = order([1] * 1000, 0, 1000, 10_000)

    assert mixed != sorted(mixed)
    assert np.corrcoef(mixed, np.arange(1000))[0, 1] == pytest.approx(0, abs=0.1)


def test_two_epochs_of_one_generator_differ():
    generator = torch.Generator().manual_seed(1)

    first, second = (random_of(generator).permutation(100).tolist() for _ in range(2))

    assert first != second
