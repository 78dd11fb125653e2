"""The empirical Fisher matrix of single samples' gradients, in blocks along each weight's memory."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor

from workers.errors import PreflightError
from workers.pruning.calibration import Calibration, measuring
from workers.pruning.layers import Layer
from workers.pruning.scores.score import flat_weights

Blocks = dict[str, Tensor]
"""By layer name [b, block, block] float32: E[g gᵀ] of each `block` weights, the last padded with zeros."""


def in_blocks(flat: Tensor, block: int) -> Tensor:
    """[n] as [b, block], padded with zeros."""
    return F.pad(flat, (0, -len(flat) % block)).view(-1, block)


def bytes_of(layer: Layer, block: int) -> int:
    """Of the layer's blocks, and of the gradients that wait to be added to them."""
    return 4 * (layer.weight.numel() + block) * (block + _waiting(block))


@torch.enable_grad()
def empirical_fisher(
    layers: Sequence[Layer], calibration: Calibration, *, samples: int, block: int
) -> Blocks:
    """One backward pass for each sample; a few gradients are added to the blocks at once.

    Raises PreflightError where gradients are not finite.
    """
    sums = {layer.name: _Sum(layer, block) for layer in layers}
    seen = 0
    with ExitStack() as stack:
        stack.enter_context(measuring(calibration.model.module, *[layer.weight for layer in layers]))
        for layer in layers:
            handle = layer.weight.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                sums[layer.name].take
            )
            stack.callback(handle.remove)
        for inputs, labels in calibration.one_by_one().batches(samples):
            seen += len(labels)
            loss = calibration.loss(inputs, labels)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
    blocks = {name: total.finish(max(seen, 1)) for name, total in sums.items()}
    for name, total in blocks.items():
        if not bool(total.diagonal(dim1=-2, dim2=-1).isfinite().all()):
            raise PreflightError(
                f"the gradient of the loss at layer '{name}' is NaN or infinite on the calibration samples: "
                "check inputs and labels, or use method.criterion 'magnitude'"
            )
    return blocks


class _Sum:
    """Σ g gᵀ in blocks, and gradients that wait until it pays to multiply them."""

    def __init__(self, layer: Layer, block: int) -> None:
        device = layer.weight.device
        self._block = block
        count = -(-layer.weight.numel() // block)
        self._total = torch.zeros(count, block, block, device=device)
        self._waiting = torch.empty(_waiting(block), count, block, device=device)
        self._held = 0

    def take(self, weight: Tensor) -> None:
        """Add the weight's gradient and drop it."""
        assert weight.grad is not None
        gradient = torch.empty_like(weight, dtype=torch.float32).copy_(
            weight.grad
        )  # in the weight's own order
        weight.grad = None
        self._waiting[self._held] = in_blocks(flat_weights(gradient), self._block)
        self._held += 1
        if self._held == len(self._waiting):
            self._flush()

    def _flush(self) -> None:
        held = self._waiting[: self._held]
        with torch.no_grad():
            self._total.baddbmm_(held.permute(1, 2, 0), held.permute(1, 0, 2))
        self._held = 0

    def finish(self, samples: int) -> Tensor:
        """The mean over `samples`."""
        self._flush()
        return self._total.div_(samples)


def _waiting(block: int) -> int:
    return max(block // 4, 1)
