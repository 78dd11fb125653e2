"""Zeros that move while the model trains (Evci et al. 2020, RigL)."""

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor
from torch.optim import Optimizer

from schemas.fine_tune import Rigl
from workers.pruning.layers import Layer
from workers.training.masks import forget_zeros, mask_gradients

NUDGE = 1e-8
"""What a new weight is set to if its first step leaves it at zero."""


class Regrowth:
    """Exchanges weights of each pruned layer; every layer keeps its number of zeros.

    A new weight begins at zero, which is also how a pruned one is told from a live one. So an exchange is
    part of a step: a new weight passes the mask of the gradient at once, and moves with the very gradient
    that it was chosen for. After the step zero means pruned again, and no mask is kept.
    """

    def __init__(self, spec: Rigl, pruned: Sequence[Layer], optimizer: Optimizer, steps: int) -> None:
        self.exchanged = 0
        self._spec = spec
        self._pruned = pruned
        self._optimizer = optimizer
        self._steps = steps
        self._new: list[tuple[Layer, Tensor]] = []

    @torch.no_grad()
    def mask_gradients(self, step: int) -> bool:
        """At `step` (0-based), after the backward pass: zero the gradients of pruned weights; True where some
        weights were exchanged first.

        Nothing is exchanged where a gradient is not finite, as in a step that fp16's loss scaling will skip.
        """
        self._new.clear()
        share = self._spec.share_at(step, self._steps)
        layers = [layer for layer in self._pruned if layer.weight.grad is not None]
        if share > 0 and all(_is_finite(layer.weight.grad) for layer in layers):
            for layer in layers:
                self._exchange(layer, share)
        if not self._new:
            mask_gradients(layers)
            return False
        forget_zeros(self._optimizer, layers)
        return True

    @torch.no_grad()
    def settle(self) -> None:
        """After the optimizer's step: a new weight that did not move (a skipped step, a gradient that
        underflows) is nudged, so that it counts as live."""
        for layer, new in self._new:
            layer.weight.masked_fill_(new & (layer.weight == 0), NUDGE)
        self._new.clear()

    def _exchange(self, layer: Layer, share: float) -> None:
        weight, gradient = layer.weight.detach(), layer.weight.grad
        assert gradient is not None
        live = weight != 0
        stays = exchanged_mask(weight, gradient, share)
        weight.masked_fill_(~stays, 0.0)
        gradient.masked_fill_(~stays, 0.0)
        new = stays & ~live
        self.exchanged += int(new.sum())
        self._new.append((layer, new))


def exchanged_mask(weight: Tensor, gradient: Tensor, share: float) -> Tensor:
    """Which weights live after an exchange: bool, in `weight`'s shape, true as often as `weight` is not 0.

    The k = ⌊share · live⌋ smallest go; of these and the zeros, the k with the largest gradients live. One
    that goes and is chosen again keeps its value, as in the paper's code. A zero without gradient never
    returns.
    """
    live = (weight != 0).flatten()
    k = int(share * int(live.sum()))
    if k == 0:
        return live.view(weight.shape)
    dropped = weight.abs().flatten().masked_fill_(~live, inf).topk(k, largest=False, sorted=False).indices
    live[dropped] = False
    pull = gradient.abs().flatten()
    pull[dropped] = pull[dropped].clamp_min_(torch.finfo(pull.dtype).tiny)
    live[pull.masked_fill_(live, -1.0).topk(k, sorted=False).indices] = True
    return live.view(weight.shape)


def _is_finite(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all())
