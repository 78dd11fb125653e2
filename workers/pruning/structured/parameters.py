"""Unit numbers of parameters and stored buffers: one run of numbers for each axis."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from torch import nn

from workers.pruning.structured.graph import Role
from workers.pruning.structured.labels import FIXED, Ids

_STRONGEST: tuple[Role, ...] = ("other", "norm", "in", "out")


@dataclass(eq=False)
class ParameterAxis:
    """One axis of one parameter or buffer, with the numbers `start` … `start + size - 1`."""

    tensor: str
    dim: int
    start: int
    size: int
    rank: int
    """Number of axes of the tensor."""
    learned: bool
    role: Role | None = None
    """What the operators use it for; None until one does."""

    @property
    def ids(self) -> Ids:
        """[size]"""
        return np.arange(self.start, self.start + self.size, dtype=np.int64)


@dataclass(eq=False)
class ParameterTable:
    """Every axis longer than one of a module's parameters and floating-point buffers."""

    axes: list[ParameterAxis] = field(default_factory=list)
    size: int = FIXED + 1
    """The first number not used."""
    embeddings: set[int] = field(default_factory=set)
    """Positions in `axes` of embeddings' vectors and of tables that are added or concatenated."""
    filters: set[str] = field(default_factory=set)
    """Tensors that a convolution uses."""
    _arrays: dict[int, tuple[Ids, ...]] = field(default_factory=dict)
    _starts: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def arrays(self, tensor: torch.Tensor) -> tuple[Ids, ...] | None:
        """The numbers along each axis of a parameter; None for any other tensor."""
        return self._arrays.get(id(tensor))

    def _owners(self, ids: Ids) -> list[int]:
        """Positions in `axes` of those that `ids` come from."""
        ends = np.searchsorted(self._starts, [ids.min(), ids.max()], side="right") - 1
        if ends[0] != ends[1]:
            ends = np.unique(np.searchsorted(self._starts, ids.ravel(), side="right") - 1)
        return [owner for owner in dict.fromkeys(ends.tolist()) if owner >= 0]

    def use(self, ids: Ids, role: Role, *, table: bool = False, filters: bool = False) -> None:
        """Note that the axes that own `ids` are used in this role; the strongest one counts."""
        for owner in self._owners(ids):
            axis = self.axes[owner]
            if axis.role is None or _STRONGEST.index(role) > _STRONGEST.index(axis.role):
                axis.role = role
            if table:
                self.embeddings.add(owner)
            if filters:
                self.filters.add(axis.tensor)


def parameter_table(module: nn.Module) -> ParameterTable:
    """Number the axes of `module`'s parameters and buffers, in module order.

    Buffers that are not stored count as well: BEiT adds one of zeros to the keys, which shrinks with them.
    """
    table = ParameterTable()
    for name, tensor in _tensors(module):
        if not tensor.is_floating_point() or prod(tensor.shape) == 0:
            continue
        if id(tensor) not in table._arrays:
            table._arrays[id(tensor)] = _number(table, name, tensor)
    table._starts = np.array([axis.start for axis in table.axes], dtype=np.int64)
    return table


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for prefix, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor


def _number(table: ParameterTable, name: str, tensor: torch.Tensor) -> tuple[Ids, ...]:
    arrays = []
    learned = isinstance(tensor, nn.Parameter)
    for dim in range(tensor.ndim):
        if tensor.shape[dim] == 1:
            continue
        axis = ParameterAxis(name, dim, table.size, tensor.shape[dim], tensor.ndim, learned)
        table.axes.append(axis)
        table.size += axis.size
        arrays.append(axis.ids.reshape([-1 if each == dim else 1 for each in range(tensor.ndim)]))
    return tuple(arrays)
