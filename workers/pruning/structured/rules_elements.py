"""Rules for operators that work element by element, or sum elements away."""

from collections.abc import Sequence
from typing import Any

import torch

from workers.pruning.structured.labels import Ids, varying
from workers.pruning.structured.op import Op, Operand, meet, tensors_in, without


def pointwise(op: Op) -> None:
    """Any number of operands, broadcast: positions that meet are one unit."""
    for out in tensors_in(op.out):
        _combine(op, [each for each in op.tensors() if each is not out or op.name.endswith("_")], out)


def _combine(op: Op, tensors: list[torch.Tensor], out: torch.Tensor) -> None:
    rank = out.ndim
    operands = [op.operand(each).lifted(rank) for each in tensors if each.ndim]
    if not operands:
        return
    _note_parameters(op, operands)
    total = operands[0]
    for operand in operands[1:]:
        total = meet(op, total, operand)
    arrays = operands[0].arrays if op.name.endswith("_") else total.arrays
    op.label(out, arrays)


def _note_parameters(op: Op, operands: list[Operand]) -> None:
    """A parameter that meets an activation is a scale or shift; with several axes of its own, a table."""
    if len(operands) < 2 or all(each.weight for each in operands):
        return
    for operand in operands:
        if operand.weight:
            for ids in operand.arrays:
                table = len(operand.arrays) > 1 and ids.shape[-1] > 1
                op.use(ids, "other" if len(operand.arrays) > 1 else "norm", table=table)


def like(op: Op) -> None:
    """zeros_like, empty_like, …: a new tensor that follows the first argument's shape."""
    op.label(op.out, op.operand(op.args[0]).arrays)


def same(op: Op) -> None:
    """The first argument's elements, at their places: detach, _to_copy, dropout."""
    first = op.operand(op.args[0])
    for out in tensors_in(op.out):
        if tuple(out.shape) == first.shape:
            op.label(out, first.arrays)


def reduction(op: Op) -> None:
    """sum, mean, amax, var, norm over `dim` (argument 1), kept or not (`keepdim`)."""
    reduce_over(op, op.arg(1, "dim"))


def norm_reduction(op: Op) -> None:
    """linalg_vector_norm(x, ord, dim, keepdim)."""
    reduce_over(op, op.arg(2, "dim"))


def reduce_over(op: Op, dims: Any) -> None:
    """Results keep the units of the axes that stay."""
    x = op.operand(op.args[0])
    rank = len(x.shape)
    if dims is None or dims == []:
        dims = range(rank)
    axes = sorted({dim % max(rank, 1) for dim in ([dims] if isinstance(dims, int) else dims)})
    for out in tensors_in(op.out):
        arrays = _reduced(op, x.arrays, axes)
        if out.ndim != rank:
            arrays = [
                ids.reshape([s for axis, s in enumerate(ids.shape) if axis not in axes]) for ids in arrays
            ]
        op.label(out, arrays)


def _reduced(op: Op, arrays: Sequence[Ids], axes: Sequence[int]) -> list[Ids]:
    rest = [without(op, ids, axes) for ids in arrays]
    return [ids for ids in rest if ids is not None]


def picking_reduction(op: Op) -> None:
    """max, min over an axis, with the position: the axis must keep its size."""
    if op.arg(1, "dim") is None:
        return reduce_over(op, None)
    along_fixed(op)
    return reduce_over(op, op.arg(1, "dim"))


def along_fixed(op: Op) -> None:
    """The axis `dim` (argument 1) means something as a whole."""
    x = op.operand(op.args[0])
    for ids in x.arrays:
        op.units.fixed(ids, int(op.arg(1, "dim", -1)) % len(x.shape), "compares or orders positions")


def softmax(op: Op) -> None:
    """_softmax, _log_softmax, cumsum, …: shape kept, the axis must keep its size."""
    along_fixed(op)
    same(op)


def spatial(op: Op) -> None:
    """Pooling and resizing over the last one, two or three axes: units along them are summed away."""
    x = op.operand(op.args[0])
    count = next(int(each) for each in op.name if each.isdigit())
    for other in op.tensors()[1:]:
        for ids in op.operand(other).arrays:
            op.units.freeze(ids, "coordinates")
    for out in tensors_in(op.out):
        op.label(out, _reduced(op, x.arrays, range(out.ndim - count, out.ndim)))


def weight_times(op: Op) -> None:
    """_prelu_kernel and prelu: a slope for each channel."""
    x, slope = op.operand(op.args[0]), op.operand(op.args[1])
    if len(slope.shape) == 1 and len(x.shape) > 1:
        shape = (1, *slope.shape, *(1,) * (len(x.shape) - 2))
        slope = Operand(shape, tuple(ids.reshape(shape) for ids in slope.arrays), slope.weight)
    for ids in slope.arrays:
        op.use(ids, "norm")
    op.label(op.out, meet(op, x, slope.lifted(len(x.shape))).arrays)


def accumulate(op: Op) -> None:
    """index_add(x, dim, index, source), scatter_add: other axes meet; `dim` must not be tracked."""
    x, source, dim = op.operand(op.args[0]), op.operand(op.args[3]), int(op.args[1]) % op.args[0].ndim
    for operand in (x, source):
        for ids in operand.along(dim):
            op.units.fixed(ids, dim, "positions picked by number")
    one = Operand((*x.shape[:dim], 1, *x.shape[dim + 1 :]), x.arrays, x.weight)
    arrays = [ids for ids in x.arrays if dim not in varying(ids)]
    others = [ids for ids in source.arrays if dim not in varying(ids)]
    shape = (*source.shape[:dim], 1, *source.shape[dim + 1 :])
    meet(op, Operand(one.shape, tuple(arrays), x.weight), Operand(shape, tuple(others), source.weight))
    op.label(op.out, arrays)
