"""The cut itself: positions of removed units leave every tensor, and the modules learn their new sizes."""

import copy
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.errors import PreflightError
from workers.pruning.structured import attributes
from workers.pruning.structured.graph import DependencyGraph, Group, Removal
from workers.pruning.structured.records import Cut, Surgery, as_ints, runs_of

Keeps = dict[tuple[str, int], NDArray[np.bool_]]
"""By tensor and dimension: which positions stay, [size of the axis]."""


def remove(module: nn.Module, graph: DependencyGraph, removal: Removal) -> Surgery:
    """Take the units of `removal` out of `module`, for good; returns what was done, for the history.

    Needs beyond the weights one copy of the largest tensor. Gradients are dropped; dtype, device and
    `requires_grad` stay; a tensor that several modules share stays shared. Parameters are new objects: build
    optimizers afterwards. Raises PreflightError where a group would lose all of its units, or a module cannot
    have the sizes that are left; the module is then as it was.
    """
    surgery = surgery_of(module, graph, removal)
    operate(module, surgery)
    return surgery


def surgery_of(module: nn.Module, graph: DependencyGraph, removal: Removal) -> Surgery:
    """What `remove` would do; nothing changes. Raises as `remove` does."""
    keeps = keeps_of(graph, removal)
    for tensor, dim in keeps:
        if not keeps[tensor, dim].any():
            raise PreflightError(
                f"nothing would be left of axis {dim} of '{tensor}': remove less, or exclude that layer"
            )
    cuts = tuple(
        Cut(tensor=tensor, dim=dim, size=len(keep), runs=runs_of(keep))
        for (tensor, dim), keep in keeps.items()
        if not keep.all()
    )
    return Surgery(
        removed={name: as_ints(units) for name, units in removal.items() if len(units)},
        cuts=cuts,
        changes=tuple(attributes.changes(module, keeps, graph, removal)),
    )


def keeps_of(graph: DependencyGraph, removal: Removal) -> Keeps:
    """One mask for each axis that the removal touches; several groups may share an axis."""
    keeps: Keeps = {}
    for group in touched(graph, removal):
        gone = gone_of(group, removal[group.name])
        for axis in group.axes:
            key = axis.tensor, axis.dim
            if key not in keeps:
                keeps[key] = np.ones(len(axis.units), dtype=bool)
            # -1, which is no unit of this group, finds the False at the end
            keeps[key] &= ~gone[axis.units]
    return keeps


def touched(graph: DependencyGraph, removal: Removal) -> list[Group]:
    """The groups that lose units, in order of the graph. Raises PreflightError where one would lose all."""
    groups = {group.name: group for group in graph.groups}
    unknown = sorted(removal.keys() - groups.keys())
    if unknown:
        raise ValueError(f"the model has no group '{unknown[0]}'")
    for name, units in removal.items():
        if len(np.unique(units)) >= groups[name].size:
            raise PreflightError(
                f"all {groups[name].size} units of '{name}' would go: remove less, or exclude that layer"
            )
    return [group for group in graph.groups if len(removal.get(group.name, ()))]


def gone_of(group: Group, units: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[size + 1]: True for units that go; the last, which index -1 finds, is False."""
    if len(units) and not 0 <= int(np.min(units)) <= int(np.max(units)) < group.size:
        raise ValueError(f"'{group.name}' has units 0 to {group.size - 1}, not {np.asarray(units).tolist()}")
    gone = np.zeros(group.size + 1, dtype=bool)
    gone[np.asarray(units, dtype=np.int64)] = True
    return gone


@torch.no_grad()
def operate(module: nn.Module, surgery: Surgery) -> None:
    """Do what `surgery` says. Raises ValueError where the module has no such tensor, size or attribute."""
    holders = _Holders(module)
    by_tensor: dict[int, tuple[str, dict[int, Cut]]] = {}
    for cut in surgery.cuts:
        if cut.tensor not in holders.by_name:
            raise ValueError(f"the model has no tensor '{cut.tensor}'")
        tensor = holders.by_name[cut.tensor]
        _check(cut, tensor)
        _, dims = by_tensor.setdefault(id(tensor), (cut.tensor, {}))
        # two names of one tensor say the same
        if dims.setdefault(cut.dim, cut).runs != cut.runs:
            raise ValueError(f"'{cut.tensor}' and '{dims[cut.dim].tensor}' are one tensor, cut in two ways")
    attributes.check(module, surgery.changes)
    for name, dims in by_tensor.values():
        holders.replace(name, _narrowed(holders.by_name[name], dims.values()))
    attributes.apply(module, surgery.changes)
    for parameter in module.parameters():
        parameter.grad = None


class _Holders:
    """All parameters and buffers of a module by name, with every place that holds each."""

    def __init__(self, module: nn.Module) -> None:
        self.by_name: dict[str, Tensor] = {}
        self._places: dict[int, list[tuple[nn.Module, str]]] = {}
        self._names: dict[int, list[str]] = {}
        for path, part in module.named_modules(remove_duplicate=False):
            own = {**part._parameters, **part._buffers}
            for local, tensor in own.items():
                if tensor is None:
                    continue
                name = f"{path}.{local}" if path else local
                self.by_name[name] = tensor
                self._names.setdefault(id(tensor), []).append(name)
                places = self._places.setdefault(id(tensor), [])
                if not any(holder is part and at == local for holder, at in places):
                    places.append((part, local))

    def replace(self, name: str, new: Tensor) -> None:
        """Put `new` wherever the tensor of that name is held; the old one is then free."""
        old = id(self.by_name[name])
        for part, local in self._places.pop(old):
            setattr(part, local, new)
        for alias in self._names.pop(old):
            self.by_name[alias] = new


def _check(cut: Cut, tensor: Tensor) -> None:
    if cut.dim >= tensor.ndim or tensor.shape[cut.dim] != cut.size:
        raise ValueError(
            f"'{cut.tensor}' is {list(tensor.shape)}: its axis {cut.dim} is not of length {cut.size}"
        )
    bounds = [edge for run in cut.runs for edge in run]
    rising = all(a < b for a, b in cut.runs) and all(a <= b for a, b in pairwise(bounds))
    if not rising or bounds[-1] > cut.size:
        raise ValueError(f"'{cut.tensor}': the runs {cut.runs[:3]} … are no ascending part of {cut.size}")


def _narrowed(tensor: Tensor, cuts: Iterable[Cut]) -> Tensor:
    # the dimension that loses most goes first, so that the second copy is small
    data = tensor.detach()
    for cut in sorted(cuts, key=lambda cut: cut.kept / cut.size):
        index = torch.from_numpy(cut.positions()).to(tensor.device)
        data = data.index_select(cut.dim, index)
    if not isinstance(tensor, nn.Parameter):
        return data
    new = nn.Parameter(data, requires_grad=tensor.requires_grad)
    new.__dict__.update(copy.copy(tensor.__dict__))
    return new
