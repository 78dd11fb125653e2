"""Means over calibration samples of the loss's gradient, streamed: a pass keeps one float32 for each weight,
and one layer's gradient at a time."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from workers.errors import PreflightError
from workers.pruning.calibration import Calibration, measuring
from workers.pruning.layers import Layer

Fold = Callable[[Tensor, Tensor, int], object]
"""Add to a layer's sum the gradient of the mean loss of a batch of so many samples, in the weight's shape."""

Means = dict[str, Tensor]
"""By layer name, float32, in the shape and memory order of its weight."""


def mean_gradients(layers: Sequence[Layer], calibration: Calibration, samples: int) -> Means:
    """E[g]: the gradient of the mean loss over all samples.

    Raises PreflightError, as the others do, where every gradient vanishes, or one is NaN or infinite.
    """
    return _means(layers, calibration, samples, add_gradient)


def mean_absolute_gradients(layers: Sequence[Layer], calibration: Calibration, samples: int) -> Means:
    """E|g|, of the gradients of whole batches, weighted with their sizes."""
    return _means(layers, calibration, samples, add_absolute)


def mean_squared_gradients(layers: Sequence[Layer], calibration: Calibration, samples: int) -> Means:
    """E[g²], of the gradients of single samples: as many backward passes as samples."""
    return _means(layers, calibration.one_by_one(), samples, add_square)


def add_gradient(total: Tensor, gradient: Tensor, samples: int) -> object:
    """total += samples · g."""
    return total.add_(gradient, alpha=samples)


def add_absolute(total: Tensor, gradient: Tensor, samples: int) -> object:
    """total += samples · |g|."""
    return total.add_(gradient.abs(), alpha=samples)


def add_square(total: Tensor, gradient: Tensor, samples: int) -> object:
    """total += samples · g²."""
    return total.addcmul_(gradient, gradient, value=samples)


class _Sums:
    """Sums by layer; each gradient is taken, and dropped, as soon as the backward pass has it."""

    def __init__(self, layers: Sequence[Layer], fold: Fold) -> None:
        self.totals = {layer.name: torch.zeros_like(layer.weight, dtype=torch.float32) for layer in layers}
        self.batch = 0
        self._fold = fold

    def taker(self, layer: Layer) -> Callable[[nn.Parameter], None]:
        def take(weight: Tensor) -> None:
            assert weight.grad is not None
            self._fold(self.totals[layer.name], weight.grad.float(), self.batch)
            weight.grad = None

        return take


@torch.enable_grad()
def _means(layers: Sequence[Layer], calibration: Calibration, samples: int, fold: Fold) -> Means:
    sums, seen = _Sums(layers, fold), 0
    with ExitStack() as stack:
        stack.enter_context(measuring(calibration.model.module, *[layer.weight for layer in layers]))
        for layer in layers:
            handle = layer.weight.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                sums.taker(layer)
            )
            stack.callback(handle.remove)
        for inputs, labels in calibration.batches(samples):
            sums.batch = len(labels)
            seen += sums.batch
            loss = calibration.loss(inputs, labels)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
    for total in sums.totals.values():
        total.div_(max(seen, 1))
    _refuse_infinite(sums.totals)
    refuse_vanished(sums.totals)
    return sums.totals


def _refuse_infinite(totals: Means) -> None:
    for name, total in totals.items():
        if not bool(total.isfinite().all()):
            raise PreflightError(
                f"the gradient of the loss at layer '{name}' is NaN or infinite on the calibration samples: "
                "check inputs and labels, or use method.criterion 'magnitude'"
            )


def refuse_vanished(totals: Means) -> None:
    """PreflightError where gradients, or what was made of them, are zero everywhere."""
    if not any(bool(total.any()) for total in totals.values()):
        raise PreflightError(
            "the gradient of the loss vanishes at every weight of the pruned layers on the calibration "
            "samples, so no weight can be told from another: give more or harder samples "
            "(method.criterion.samples), or use method.criterion 'magnitude'"
        )
