"""The average of the weights of many steps, which generalizes better than the last ones."""

from collections.abc import Callable, Iterable, Sequence
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from schemas.fine_tune import Ema, Swa
from workers.models.loaded import Batch, LoadedModel

BATCHES = 100
"""Batches that the statistics of batch norms are measured on: five times what a momentum of 0.1 remembers."""


class WeightAverage:
    """A running average of the parameters, one copy of them in memory.

    Zeros stay zeros, since an average over constant masks is zero where they are: `restart` when they move.
    """

    def __init__(self, spec: Ema | Swa, parameters: Sequence[nn.Parameter], steps: int) -> None:
        self._spec = spec
        self._parameters = [one.detach() for one in parameters]
        self._first = 0 if isinstance(spec, Ema) else min(ceil(spec.begin * steps), steps - 1)
        self._mean: list[Tensor] = []
        self._count = 0

    def restart(self) -> None:
        """Forget what was averaged so far: the masks have changed."""
        self._count = 0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after `step` (0-based) into the average, where it has begun."""
        if step < self._first:
            return
        if not self._mean:
            self._mean = [one.clone() for one in self._parameters]
        elif self._count == 0:
            torch._foreach_copy_(self._mean, self._parameters)
        elif isinstance(self._spec, Swa):
            average = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
            average(self._mean, self._parameters, self._count)
        else:
            decay = min(self._spec.decay, (1 + self._count) / (10 + self._count))
            average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            average(self._mean, self._parameters, self._count)
        self._count += 1

    @torch.no_grad()
    def apply(self) -> bool:
        """Write the average over the weights; False where nothing was averaged and nothing is written."""
        if self._count == 0:
            return False
        torch._foreach_copy_(self._parameters, self._mean)
        return True


@torch.no_grad()
def measure_batch_norms(
    model: LoadedModel, batches: Iterable[tuple[Batch, Tensor]], *, on_batch: Callable[[], None]
) -> None:
    """Running means and variances of batch norms anew, as plain averages over at most `BATCHES` batches.

    As `torch.optim.swa_utils.update_bn`, but all other modules are in eval mode: statistics for inference are
    those without dropout. The model is left in eval mode. `on_batch` may raise Stopped.
    """
    model.module.eval()
    norms = [
        part
        for part in model.module.modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over all batches
            norm.train()
        for _, (inputs, _labels) in zip(range(BATCHES), batches, strict=False):
            model.logits(inputs)
            on_batch()
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
