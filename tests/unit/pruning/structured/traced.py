"""What a trace found, in a form that a test can compare; and a knife that knows nothing but the graph."""

import copy

import numpy as np
import torch
from torch import nn

from workers.pruning.structured.graph import DependencyGraph, Group
from workers.pruning.structured.trace import follow

Places = dict[tuple[str, int], list[int]]


def traced(module: nn.Module, *shape: int) -> DependencyGraph:
    """The graph of a module that takes one batch of this shape (two samples in front)."""
    batch = torch.randn(2, *shape)
    return follow(module, lambda each: each(batch))


def by_name(graph: DependencyGraph) -> dict[str, tuple[str, int]]:
    """Kind and size of each group."""
    return {group.name: (group.kind, group.size) for group in graph.groups}


def places(group: Group) -> Places:
    """The units along each axis of each tensor."""
    return {(axis.tensor, axis.dim): axis.units.tolist() for axis in group.axes}


def one(graph: DependencyGraph, name: str) -> Group:
    """The group of that name."""
    return next(group for group in graph.groups if group.name == name)


def without_first_units(module: nn.Module, graph: DependencyGraph) -> nn.Module:
    """A copy of `module` without unit 0 of every group; depthwise convolutions count their groups again."""
    small = copy.deepcopy(module)
    kept: dict[tuple[str, int], np.ndarray] = {}
    for group in graph.groups:
        for axis in group.axes:
            key = (axis.tensor, axis.dim)
            kept[key] = kept.get(key, np.ones(len(axis.units), dtype=np.bool_)) & (axis.units != 0)
    for (name, dim), keep in kept.items():
        owner, _, leaf = name.rpartition(".")
        holder = small.get_submodule(owner)
        value = getattr(holder, leaf).detach()
        value = value.index_select(dim, torch.from_numpy(np.flatnonzero(keep)))
        if leaf in holder._parameters:
            holder._parameters[leaf] = nn.Parameter(value)
        else:
            holder._buffers[leaf] = value
    for holder in small.modules():
        if isinstance(holder, nn.Conv2d) and holder.groups == holder.in_channels > 1:
            holder.groups = holder.weight.shape[0]
    return small
