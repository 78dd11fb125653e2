"""Samples to measure a model by before a cut: gradients, inputs of layers. They stream; none are kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from workers.data.bundle import Bundle, Samples
from workers.models.loaded import Batch, LoadedModel


@dataclass(frozen=True)
class Calibration:
    """A model with samples of its task; each pass over `batches()` gives the same ones in the same order."""

    model: LoadedModel
    bundle: Bundle
    seed: int
    batch_size: int
    on_batch: Callable[[], None]
    """Called after each batch; may raise Stopped."""

    def batches(self, samples: int) -> Iterator[tuple[Batch, Tensor]]:
        """(inputs, labels) of at most `samples` samples, drawn with the seed, on the model's device."""
        split = drawn(self.bundle.calibration or self.bundle.train, samples, seed=self.seed)
        for inputs, labels in self.bundle.batches(split, self.batch_size, device=self.model.device):
            yield inputs, labels
            self.on_batch()

    def one_by_one(self) -> "Calibration":
        """The same samples in batches of one."""
        return replace(self, batch_size=1)

    def loss(self, inputs: Batch, labels: Tensor) -> Tensor:
        """Mean loss of one batch, to differentiate."""
        return self.model.kind.loss(self.model.logits(inputs), labels)


def drawn(split: Samples, samples: int, *, seed: int) -> Samples:
    """At most `samples` of the split, without repetition, drawn with `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return split.take(torch.randperm(len(split), generator=generator)[:samples])


@contextmanager
def measuring(module: nn.Module, *weights: nn.Parameter) -> Iterator[None]:
    """The module in eval mode, with gradients for `weights` only; all of it is as before afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    learns = [(one, one.requires_grad, one.grad) for one in module.parameters()]
    try:
        module.eval().requires_grad_(False)
        for one in module.parameters():
            one.grad = None
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for part, was_training in modes:
            part.training = was_training
        for one, learned, gradient in learns:
            one.requires_grad_(learned).grad = gradient
