"""What a criterion is to a cut: a function that scores any part of a layer's flat weights."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

Score = Callable[[Tensor, slice, Tensor], None]
"""Write the scores of `weights` [n], the elements `where` of a layer's flat weights, into `out` [n] float."""

LOWEST = -1e30
"""Of a weight that is zero already, where a weight that is not may score 0 or less. It can be summed."""


def stored(scores: Tensor) -> Score:
    """Scores [n] that lie in memory, in the order of the flat weights; what is zero already goes first."""
    return partial(_read, scores=scores)


def _read(weights: Tensor, where: slice, out: Tensor, *, scores: Tensor) -> None:
    out.copy_(scores[where]).masked_fill_(weights == 0, LOWEST)


def flat_weights(tensor: Tensor) -> Tensor:
    """A flat view in memory order, so channels-last weights need no copy. Raises RuntimeError on gaps."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.detach().permute(order).view(-1)
