"""A masked twin that is defined for every model: norms over several units count only those that stay."""

from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.pruning.structured.graph import DependencyGraph, Removal
from workers.pruning.structured.masked import is_scale, mask_units
from workers.pruning.structured.surgery import keeps_of


def mask(dense: nn.Module, pruned: nn.Module, graph: DependencyGraph, removal: Removal) -> bool:
    """Turn `dense` into the twin of `pruned`, in place; whether zeros in the weights were enough for that.

    `mask_units` zeroes what goes, and that is all where no norm takes its mean over units that go. A layer or
    group norm which does, and a convolution that standardises its weights, get the pruned model's own
    arithmetic where units stay, and zeros elsewhere.
    """
    mask_units(dense, graph, removal)
    axes = [axis for group in graph.groups for axis in group.axes if is_scale(axis)]
    norms = {axis.tensor.rpartition(".")[0] for axis in axes}
    parts, smaller = dict(dense.named_modules()), dict(pruned.named_modules())
    keeps = keeps_of(graph, removal)
    plain = True
    for path, part in parts.items():
        weight, read = keeps.get((f"{path}.weight", 0)), keeps.get((f"{path}.weight", 1))
        if "StdConv" in type(part).__name__ and (weight is not None or read is not None):
            part.forward = MethodType(_standardised(smaller[path], read, weight), part)  # type: ignore[assignment]
            plain = False
        elif path in norms and weight is not None and _is_norm(part):
            part.forward = MethodType(_over(smaller[path], weight), part)  # type: ignore[assignment]
            plain = False
    return plain


def _is_norm(part: nn.Module) -> bool:
    weight = part.weight
    return isinstance(weight, Tensor) and weight.ndim == 1 and not hasattr(part, "running_mean")


def _over(norm: nn.Module, keep: NDArray[np.bool_]) -> Any:
    positions = torch.from_numpy(np.flatnonzero(keep))

    def forward(self: nn.Module, value: Tensor, *rest: Any) -> Tensor:
        dim = _channels(self, value, len(keep))
        out = norm(value.index_select(dim, positions), *rest)
        return torch.zeros_like(value).index_copy(dim, positions, out)

    return forward


def _standardised(conv: nn.Module, read: NDArray[np.bool_] | None, made: NDArray[np.bool_] | None) -> Any:
    """Weights less their mean over the inputs that stay."""

    def forward(self: nn.Module, value: Tensor) -> Tensor:
        if read is not None and len(read) == value.shape[1]:
            value = value.index_select(1, torch.from_numpy(np.flatnonzero(read)))
        elif value.shape[1] != conv.in_channels:
            # depthwise: it reads what it makes
            assert made is not None
            value = value.index_select(1, torch.from_numpy(np.flatnonzero(made)))
        out: Tensor = conv(value)
        if made is None:
            return out
        whole = out.new_zeros(out.shape[0], len(made), *out.shape[2:])
        return whole.index_copy(1, torch.from_numpy(np.flatnonzero(made)), out)

    return forward


def _channels(norm: nn.Module, value: Tensor, size: int) -> int:
    """The dimension that a norm runs over: the last, and the second for images in torch's own order."""
    first = isinstance(norm, nn.GroupNorm) or "2d" in type(norm).__name__ or value.shape[-1] != size
    if getattr(norm, "data_format", None) == "channels_first" or getattr(norm, "channel_dim", -1) == 1:
        first = True
    return 1 if first and value.shape[1] == size else value.ndim - 1
