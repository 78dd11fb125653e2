"""The masked twin of a pruned model: as large as the dense one, and what was removed is zero."""

import torch
from torch import nn

from workers.pruning.structured.graph import Axis, DependencyGraph, Group, Removal
from workers.pruning.structured.surgery import gone_of, touched

_STATISTICS = ("running_mean", "running_var")


@torch.no_grad()
def mask_units(module: nn.Module, graph: DependencyGraph, removal: Removal) -> None:
    """Zero everything that the units of `removal` own, in place: the rows and biases that make them, scales
    and shifts of norms, the columns that read them. Where `defined`, the outputs are then the pruned model's.

    A running variance stays: a zero divided by it is zero. Columns are zeroed too, since an activation may
    turn a zero into something else (a sigmoid gives 0.5).
    """
    tensors = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    for group in touched(graph, removal):
        gone = gone_of(group, removal[group.name])
        for axis in group.axes:
            if axis.tensor.endswith("running_var"):
                continue
            tensor = tensors[axis.tensor]
            positions = torch.from_numpy(gone[axis.units].nonzero()[0]).to(tensor.device)
            tensor.index_fill_(axis.dim, positions, 0)


def defined(graph: DependencyGraph, removal: Removal) -> bool:
    """Whether the masked twin should give the pruned model's outputs.

    Not so where a norm takes its mean over the units that go (layer, group and RMS norm): zeros count in the
    mean, removed units do not. A batch norm, known by its running statistics, treats each channel by itself.
    An instance norm without them does too, yet counts as the others here: the graph cannot tell it apart.
    """
    return not any(_mixes(group) for group in touched(graph, removal))


def is_scale(axis: Axis) -> bool:
    """Whether an axis is of a norm's scale: a bias that a layer adds by itself has the role of a norm too."""
    return axis.role == "norm" and not axis.tensor.endswith(
        ("bias", "beta", "shift", "table", "logit_scale", *_STATISTICS)
    )


def _mixes(group: Group) -> bool:
    norms = {_owner(axis) for axis in group.axes if is_scale(axis)}
    alone = {_owner(axis) for axis in group.axes if axis.tensor.endswith(_STATISTICS)}
    return bool(norms - alone)


def _owner(axis: Axis) -> str:
    return axis.tensor.rpartition(".")[0]
