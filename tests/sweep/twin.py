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


def mask(dense: nn.Module, pruned: nn.Module, graph: DependencyGraph, removal: Removal) -> None:
    """Turn `dense` into the twin of `pruned`, in place.

    `mask_units` zeroes what goes, and that is all where no norm takes its mean over units that go. A layer or
    group norm which does gets the pruned model's own arithmetic where units stay, and zeros elsewhere.
    """
    mask_units(dense, graph, removal)
    axes = [axis for group in graph.groups for axis in group.axes if is_scale(axis)]
    norms = {axis.tensor.rpartition(".")[0] for axis in axes}
    parts, smaller = dict(dense.named_modules()), dict(pruned.named_modules())
    for (tensor, dim), keep in keeps_of(graph, removal).items():
        path, _, local = tensor.rpartition(".")
        if path in norms and dim == 0 and local == "weight" and not keep.all():
            part = parts[path]
            if not hasattr(part, "running_mean") and part.weight.ndim == 1:
                part.forward = MethodType(_over(smaller[path], keep), part)  # type: ignore[assignment]


def _over(norm: nn.Module, keep: NDArray[np.bool_]) -> Any:
    positions = torch.from_numpy(np.flatnonzero(keep))

    def forward(self: nn.Module, value: Tensor, *rest: Any) -> Tensor:
        dim = 1 if _channels_first(self, value, len(keep)) else value.ndim - 1
        out = norm(value.index_select(dim, positions), *rest)
        return torch.zeros_like(value).index_copy(dim, positions, out)

    return forward


def _channels_first(norm: nn.Module, value: Tensor, channels: int) -> bool:
    """Layer norms for images permute inside; some take both orders and are told by a flag."""
    if isinstance(norm, nn.GroupNorm) or getattr(norm, "data_format", None) == "channels_first":
        return True
    return "2d" in type(norm).__name__ and value.ndim == 4 and value.shape[1] == channels
