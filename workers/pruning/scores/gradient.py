"""Criteria made of weights and gradients: float tensors of one shape in, scores of that shape out."""

from collections.abc import Iterable

import torch
from torch import Tensor


def taylor(weight: Tensor, absolute: Tensor) -> Tensor:
    """|w| · E|g| [shape of `weight`] (Molchanov et al. 2019): how much the loss of a batch changes, to first
    order, where the weight goes. `absolute` is the mean over batches of the gradient's absolute value."""
    return weight.abs().mul(absolute)


def snip(weight: Tensor, gradient: Tensor) -> Tensor:
    """|w · g| [shape of `weight`] (Lee et al. 2019), not yet normalised. `gradient` is that of the mean loss
    over all samples, so samples that pull in opposite directions cancel; in `taylor` batches do not."""
    return weight.mul(gradient).abs()


def normalise(scores: Iterable[Tensor]) -> None:
    """Divide by the sum over all layers, in place: SNIP's connection sensitivities are shares of one."""
    parts = list(scores)
    total = sum(float(part.sum(dtype=torch.float64)) for part in parts)
    for part in parts:
        part.div_(total or 1.0)


def fisher(weight: Tensor, squares: Tensor) -> Tensor:
    """w² · E[g²] [shape of `weight`] (Theis et al. 2018), twice what the loss rises by when the weight goes,
    where the gradient's mean is zero. `squares` is the mean over samples of the gradient's square: the
    diagonal of the empirical Fisher matrix."""
    return weight.square().mul(squares)
