"""The random order of samples that are read as a stream."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")

SAMPLES = 8192
BYTES = 256 * 2**20


def random_of(generator: torch.Generator) -> np.random.Generator:
    """Numpy's random numbers from the next number of `generator`."""
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))


def shuffled(
    items: Iterable[T],
    random: np.random.Generator,
    *,
    size_of: Callable[[T], int],
    samples: int = SAMPLES,
    max_bytes: int = BYTES,
) -> Iterator[T]:
    """Each of `items` once, through a buffer of at most `samples` items and `max_bytes` bytes: where a new
    one is too much, random ones come out. The order depends on `items` and `random` alone."""
    buffer: list[T] = []
    held = 0
    for item in items:
        buffer.append(item)
        held += size_of(item)
        while len(buffer) > samples or (held > max_bytes and len(buffer) > 1):
            place = int(random.integers(len(buffer)))
            buffer[place], buffer[-1] = buffer[-1], buffer[place]
            out = buffer.pop()
            held -= size_of(out)
            yield out
    for place in random.permutation(len(buffer)):
        yield buffer[place]
