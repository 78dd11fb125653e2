"""One operator of the traced forward: its arguments, and what is known of the tensors in them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workers.pruning.structured.graph import Role
from workers.pruning.structured.labels import Ids, aligned, varying
from workers.pruning.structured.parameters import ParameterTable
from workers.pruning.structured.units import Units

_ATTRIBUTE = "_secateur_units"
_PENDING = "_secateur_pending"


class Unfollowed(Exception):
    """This use of the operator cannot be followed."""


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor as the rules see it."""

    shape: tuple[int, ...]
    arrays: tuple[Ids, ...]
    """Each of rank `len(shape)`."""
    weight: bool
    """Made of parameters alone."""

    def along(self, axis: int) -> tuple[Ids, ...]:
        """The arrays that vary along `axis`."""
        return tuple(ids for ids in self.arrays if ids.shape[axis] > 1)

    def lifted(self, rank: int) -> "Operand":
        """With axes of size 1 in front."""
        shape = (1,) * (rank - len(self.shape)) + self.shape
        return Operand(shape, tuple(aligned(ids, rank) for ids in self.arrays), self.weight)


@dataclass(frozen=True, eq=False)
class Op:
    """One call of an operator, after it ran."""

    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    out: Any
    units: Units
    table: ParameterTable

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or name; `default` where the call left it out."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor among the arguments, lists included."""
        return list(tensors_in((*self.args, *self.kwargs.values())))

    def operand(self, tensor: torch.Tensor) -> Operand:
        """What is known of `tensor`; nothing, for a constant or an input of the model."""
        shape = tuple(tensor.shape)
        own = self.table.arrays(tensor)
        if own is not None:
            return Operand(shape, own, weight=True)
        known: Operand | None = getattr(tensor, _ATTRIBUTE, None)
        return known or Operand(shape, (), weight=False)

    def known(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor came out of a traced operator or is a parameter."""
        return self.table.arrays(tensor) is not None or hasattr(tensor, _ATTRIBUTE)

    def all_weight(self) -> bool:
        """Whether what goes in is made of parameters and constants alone."""
        known = [self.operand(tensor).weight for tensor in self.tensors() if self.known(tensor)]
        return bool(known) and all(known)

    def label(self, tensor: torch.Tensor, arrays: Iterable[Ids], *, weight: bool | None = None) -> None:
        """Note what `tensor`, a result, is made of; arrays that do not vary say nothing and are left out."""
        kept = tuple(ids for ids in arrays if varying(ids))
        weight = self.all_weight() if weight is None else weight
        assert all(ids.ndim == tensor.ndim for ids in kept), self.name
        if self.table.arrays(tensor) is None:
            setattr(tensor, _ATTRIBUTE, Operand(tuple(tensor.shape), kept, weight))

    def if_used(self, tensor: torch.Tensor, then: Callable[[], None]) -> None:
        """Do `then` when an operator reads `tensor`: some models pick a position for its shape alone."""
        setattr(tensor, _PENDING, then)

    def settle(self, tensor: torch.Tensor) -> None:
        """`tensor` is read now."""
        then = getattr(tensor, _PENDING, None)
        if then is not None:
            delattr(tensor, _PENDING)
            then()

    def use(self, ids: Ids, role: Role, *, table: bool = False, filters: bool = False) -> None:
        """The parameters that own `ids` are used in this role."""
        self.table.use(ids, role, table=table, filters=filters)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Tensors in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_in(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_in(each)


def meet(op: Op, left: Operand, right: Operand) -> Operand:
    """What an elementwise operator does to two broadcast operands of the same rank.

    Positions that meet are one unit. An axis that only one of them tracks must keep its size.
    """
    left, right = _unlike(op.units, left, right), _unlike(op.units, right, left)
    for ids in left.arrays:
        for others in right.arrays:
            _join(op.units, (ids, left.weight), (others, right.weight))
    shape = tuple(max(pair) if min(pair) > 0 else 0 for pair in zip(left.shape, right.shape, strict=True))
    return Operand(shape, _largest(left.arrays, right.arrays), left.weight and right.weight)


def _unlike(units: Units, mine: Operand, other: Operand) -> Operand:
    """`mine` after its axes met those of `other` that say nothing; a table's that are frozen are left out."""
    arrays = list(mine.arrays)
    for axis, (here, there) in enumerate(zip(mine.shape, other.shape, strict=True)):
        if here == there > 1 and not other.along(axis):
            for ids in mine.along(axis):
                units.fixed(ids, axis, "meets an axis of fixed size")
            if mine.weight:
                arrays = [ids for ids in arrays if varying(ids) != (axis,)]
    return Operand(mine.shape, tuple(arrays), mine.weight)


def _join(units: Units, left: tuple[Ids, bool], right: tuple[Ids, bool]) -> None:
    (ids, weight), (other, other_weight) = left, right
    mine, yours = set(varying(ids)), set(varying(other))
    if not mine & yours:
        return
    if other_weight and not weight and yours < mine:
        units.shared(ids, other)
    elif weight and not other_weight and mine < yours:
        units.shared(other, ids)
    else:
        units.unite(ids, other)


def _largest(left: tuple[Ids, ...], right: tuple[Ids, ...]) -> tuple[Ids, ...]:
    """Of arrays that share axes, those that vary along the most; `left` wins a tie."""
    mine = [set(varying(ids)) for ids in left]
    yours = [set(varying(ids)) for ids in right]
    kept = [ids for ids, axes in zip(left, mine, strict=True) if not any(axes < other for other in yours)]
    return (*kept, *(ids for ids, axes in zip(right, yours, strict=True) if not any(axes <= o for o in mine)))


def without(op: Op, ids: Ids, axes: Sequence[int]) -> Ids | None:
    """`ids` after `axes` were summed away (size 1 left); None where nothing else varies."""
    rest = [axis for axis in varying(ids) if axis not in axes]
    if not rest:
        return None
    if len(rest) < len(varying(ids)):
        op.units.factors(ids)
        for axis in axes:
            ids = ids.take([0], axis)
    return ids
