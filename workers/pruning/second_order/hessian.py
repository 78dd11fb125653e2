"""The Hessian of a layer's squared output error: the sum of its inputs' outer products, batch by batch."""

from collections.abc import Iterator
from math import prod

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from workers.pruning.layers import Layer

_PANEL = 512  # columns of one product: only products on and above the diagonal are taken
_PIECE = 1 << 23  # numbers of a convolution's unfolded input at once: 32 MiB

CONVOLUTIONS = {"Conv1d": 1, "Conv2d": 2, "Conv3d": 3}
SUPPORTED = {"Linear", "Conv1D", *CONVOLUTIONS}


def geometry(layer: Layer) -> tuple[object, ...]:
    """Layers of one geometry make the same rows of the same input, and so have the same Hessian."""
    if layer.kind not in CONVOLUTIONS:
        return ("rows",)
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return tuple(getattr(layer.module, name) for name in names)


def as_columns(layer: Layer) -> Tensor:
    """A float32 copy of the weight as [g, c, o]: groups, columns, outputs of a group.

    The columns of a convolution are kernel positions with the input channels of the group inside, so that
    the channels at one position are neighbours.
    """
    weight = layer.weight.detach().float()
    if layer.kind == "Conv1D":
        return weight[None].clone(memory_format=torch.contiguous_format)
    if layer.kind == "Linear":
        return weight.mT[None].clone(memory_format=torch.contiguous_format)
    groups = int(layer.module.groups)  # type: ignore[arg-type]
    split = weight.reshape(groups, -1, weight.shape[1], prod(weight.shape[2:]))  # [g, o, i, k]
    return split.permute(0, 3, 2, 1).reshape(groups, -1, split.shape[1]).contiguous()


@torch.no_grad()
def write_columns(layer: Layer, columns: Tensor) -> None:
    """Put [g, c, o] back into the weight, in place. A negative zero becomes zero."""
    weight = layer.weight
    if layer.kind == "Conv1D":
        weight.copy_(columns[0])
    elif layer.kind == "Linear":
        weight.copy_(columns[0].mT)
    else:
        groups, kernel = columns.shape[0], weight.shape[2:]
        split = columns.view(groups, prod(kernel), weight.shape[1], -1).permute(0, 3, 2, 1)
        weight.copy_(split.reshape(weight.shape))


class HessianSum:
    """X Xᵀ [g, c, c] float32 of one layer, upper triangle, of all inputs added: g · c² · 4 bytes."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.rows = 0
        """Input rows added: tokens, or positions of a convolution."""
        self.total: Tensor | None = None

    def add(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        """Add one batch: [..., i] of a linear layer, [N, i, spatial…] of a convolution.

        Where `mask` [N, T] has the first two sizes of the inputs, only tokens that it marks count: padding is
        no input.
        """
        if self._layer.kind in CONVOLUTIONS:
            for rows in unfolded(self._layer.module, inputs):
                self._add_rows(rows)
            return
        if mask is not None and inputs.dim() == 3 and mask.shape == inputs.shape[:2]:
            inputs = inputs[mask.bool()]
        self._add_rows(inputs.reshape(1, -1, inputs.shape[-1]).float())

    def _add_rows(self, rows: Tensor) -> None:
        groups, count, columns = rows.shape
        if self.total is None:
            self.total = rows.new_zeros((groups, columns, columns))
        self.rows += count
        for start in range(0, columns, _PANEL):
            panel = rows[:, :, start : start + _PANEL].mT
            target = self.total[:, start : start + _PANEL, start:]
            target.baddbmm_(panel, rows[:, :, start:])


def unfolded(module: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
    """What each output position of a convolution reads, [g, positions, c] float32, in pieces of `_PIECE`."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    kernel, groups = module.kernel_size, module.groups
    dims = len(kernel)
    if inputs.dim() == dims + 1:
        inputs = inputs[None]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    view = F.pad(inputs.float(), module._reversed_padding_repeated_twice, mode=mode)
    for axis in range(dims):
        reach = module.dilation[axis] * (kernel[axis] - 1) + 1
        view = view.unfold(2 + axis, reach, module.stride[axis])[..., :: module.dilation[axis]]
    samples, _, high = view.shape[:3]
    each = max(view[:1].numel(), 1)
    take, rows = max(_PIECE // each, 1), max(min(high * _PIECE // each, high), 1)
    order = (1, 0, *range(3, 3 + 2 * dims), 2)  # [n, g, i, out…, k…] to [g, n, out…, k…, i]
    for sample in range(0, samples, take):
        for row in range(0, high, rows):
            piece = view[sample : sample + take, :, row : row + rows]
            split = piece.reshape(len(piece), groups, -1, *piece.shape[2:])
            ordered = split.permute(order)
            yield ordered.reshape(groups, -1, prod(kernel) * split.shape[2])
