"""Scores that are learned while the model trains (Sanh et al. 2020)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.pruning.layers import Layer


class MovementScores:
    """Σ −w · g over the steps of a training: weights that shrink go, however large they still are.

    One float32 for each weight. Unlike in the paper, what was cut stays cut, so its score no longer matters.
    """

    def __init__(self) -> None:
        self._scores: dict[str, Tensor] = {}

    @property
    def is_empty(self) -> bool:
        """No step was seen yet: there is no score to cut by."""
        return not self._scores

    @torch.no_grad()
    def update(self, layers: Sequence[Layer]) -> None:
        """Take the gradients of one step, before they are clipped; a step with one that is not finite, which
        fp16's loss scaling will skip, counts for nothing."""
        moved = [(layer, layer.weight.grad) for layer in layers]
        if not all(gradient is None or bool(gradient.sum().isfinite()) for _, gradient in moved):
            return
        for layer, gradient in moved:
            if gradient is None:
                continue
            if layer.name not in self._scores:
                self._scores[layer.name] = torch.zeros_like(layer.weight, dtype=torch.float32)
            self._scores[layer.name].addcmul_(layer.weight.float(), gradient.float(), value=-1)

    def of(self, layer: Layer) -> Tensor:
        """The layer's scores, in the shape and memory order of its weight; zeros where it never learned."""
        if layer.name in self._scores:
            return self._scores[layer.name]
        return torch.zeros_like(layer.weight, dtype=torch.float32)
