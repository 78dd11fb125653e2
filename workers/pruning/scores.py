"""Criteria: how much each weight counts. The smallest scores are cut; a weight that is zero scores zero."""

import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from schemas.criteria import Criterion, Magnitude

Score = Callable[[Tensor, int, Tensor], None]
"""Write the scores of `weights` [n], which begin at element `start` of their layer, into `out` [n] float."""

BLOCK = 32_768
"""Elements that share one seed: `start` is a multiple of it, so any pass in any order draws the same."""


def magnitude(weights: Tensor, _start: int, out: Tensor) -> None:
    """Absolute values (Han et al. 2015): the L1 norm of single weights, and the order of the L2 norm too.

    No squares are taken for L2: they would underflow and make ties of small weights.
    """
    torch.abs(weights.to(out.dtype), out=out)


def random(weights: Tensor, start: int, out: Tensor, *, key: tuple[int, ...]) -> None:
    """Uniform in (0, 1], the same at each call for one `key`; what is zero already stays lowest."""
    for begin in range(0, len(out), BLOCK):
        size = min(BLOCK, len(out) - begin)
        generator = np.random.default_rng([*key, (start + begin) // BLOCK])
        drawn = torch.from_numpy(generator.random(size, dtype=np.float32))
        out[begin : begin + size].copy_(1 - drawn)
    out.masked_fill_(weights == 0, 0.0)


def score_for(criterion: Criterion, *, layer: str, seed: int, number: int) -> Score:
    """The score function of one layer in round `number`."""
    if isinstance(criterion, Magnitude):
        return magnitude
    return partial(random, key=(seed, number, zlib.crc32(layer.encode())))
