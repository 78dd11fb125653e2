"""What keeps pruned weights zero through a step, and what makes more of them zero between steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch.optim import Optimizer

from schemas.schedule import Gradual
from workers.pruning.layers import Layer


@dataclass(frozen=True)
class MaskUpdates:
    """Cuts during the training (Zhu and Gupta 2017), on the way to the share `final`."""

    schedule: Gradual
    final: float
    cut_to: Callable[[float], object]
    """Make zeros in place until this share of the goal's quantity is gone. It may run the model and leave
    gradients behind: it is called before a step, which clears them."""

    def share_at(self, step: int, steps: int) -> float | None:
        """The share to cut to before `step` (0-based) of `steps`; None: no cut.

        The goal itself is cut to at the first step past `schedule.end`, at the latest before the last step,
        whatever `every_steps` is.
        """
        last = self.last_step(steps)
        if step == last:
            return self.final
        if step > last or step % self.schedule.every_steps:
            return None
        return self.schedule.removed_at(step, steps, self.final) or None

    def last_step(self, steps: int) -> int:
        """The step (0-based) before which the goal is reached."""
        return min(ceil(self.schedule.end * steps), steps - 1)


def mask_gradients(pruned: Sequence[Layer]) -> None:
    """Zero the gradient wherever the weight is zero, which keeps these weights zero through the step.

    A round begins with a fresh optimizer, so a pruned weight's moments start at zero and only average zero
    gradients: SGD's momentum buffer and AdamW's first moment stay 0, and 0 / (sqrt(0) + eps) moves nothing.
    Weight decay, coupled (wd · w in the gradient) or decoupled (w · (1 - lr · wd)), is a multiple of w = 0.
    Clipping scales a zero gradient to zero. So the zero is the mask, and no other is stored. Whoever makes
    a zero later in the round calls `forget_zeros`.
    """
    for layer in pruned:
        if layer.weight.grad is not None:
            # hardshrink's backward at lambda 0 passes the gradient where |weight| > 0: one pass without a
            # mask in memory, 0.34 ns a weight against 2.6 for `grad.mul_(weight != 0)`
            gradient, weight = layer.weight.grad, layer.weight.detach()
            torch.ops.aten.hardshrink_backward.grad_input(gradient, weight, 0.0, grad_input=gradient)


def forget_zeros(optimizer: Optimizer, pruned: Sequence[Layer]) -> None:
    """Clear the optimizer's moments of weights that are zero; alive, they would move a fresh zero."""
    for layer in pruned:
        moments = [
            value
            for value in optimizer.state.get(layer.weight, {}).values()
            if isinstance(value, torch.Tensor) and value.shape == layer.weight.shape
        ]
        if moments:
            gone = layer.weight.detach() == 0
            for moment in moments:
                moment.masked_fill_(gone, 0.0)
