"""Criteria that look at the weights alone, chunk by chunk; a weight that is zero scores zero."""

import zlib
from functools import partial

import numpy as np
import torch
from torch import Tensor

from workers.pruning.scores.score import Score

BLOCK = 32_768
"""Elements that share one seed: chunks begin at a multiple of it, so any pass in any order draws the same."""


def magnitude(weights: Tensor, _where: slice, out: Tensor) -> None:
    """Absolute values [n] (Han et al. 2015): the L1 norm of single weights, and the order of the L2 norm too.

    No squares are taken for L2: they would underflow and make ties of small weights.
    """
    torch.abs(weights.to(out.dtype), out=out)


def random(weights: Tensor, where: slice, out: Tensor, *, key: tuple[int, ...]) -> None:
    """Uniform in (0, 1], the same at each call for one `key`; what is zero already stays lowest."""
    start = where.start or 0
    for begin in range(0, len(out), BLOCK):
        size = min(BLOCK, len(out) - begin)
        generator = np.random.default_rng([*key, (start + begin) // BLOCK])
        drawn = torch.from_numpy(generator.random(size, dtype=np.float32))
        out[begin : begin + size].copy_(1 - drawn)
    out.masked_fill_(weights == 0, 0.0)


def random_for(layer: str, *, seed: int, number: int) -> Score:
    """The random scores of the layer with this name in round `number`."""
    return partial(random, key=(seed, number, zlib.crc32(layer.encode())))
