"""Rules for operators that move elements: the same is done to their unit numbers."""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch

from workers.pruning.structured.labels import FIXED, Ids, at, in_parts, reshaped, varying
from workers.pruning.structured.op import Op, Operand, Unfollowed, meet


def view(op: Op) -> None:
    """view, reshape, flatten, unsqueeze, squeeze: same elements in the same order, another shape."""
    x, target = op.operand(op.args[0]), tuple(op.out.shape)
    if prod(x.shape) != prod(target):
        raise Unfollowed
    arrays = []
    for ids in x.arrays:
        new = reshaped(ids, x.shape, target)
        if varying(new) != varying(ids):
            op.units.factors(new)
            _note_single_head(op, new)
        arrays.append(new)
    op.label(op.out, arrays)


def _note_single_head(op: Op, ids: Ids) -> None:
    """The code states the width of a head, even where there is one: (width) to (1, width)."""
    last = ids.ndim - 1
    if op.name in ("view", "_unsafe_view") and varying(ids) == (last,) and op.out.shape[last - 1] == 1:
        op.units.single.add(int(ids.ravel()[0]))


def permute(op: Op) -> None:
    """permute(x, dims)."""
    _moved(op, list(op.args[1]))


def transpose(op: Op) -> None:
    """transpose(x, one, other)."""
    order = list(range(op.args[0].ndim))
    one, other = op.args[1], op.args[2]
    order[one], order[other] = order[other], order[one]
    _moved(op, order)


def turned(op: Op) -> None:
    """t, mT, adjoint: the last two axes are swapped."""
    order = list(range(op.args[0].ndim))
    _moved(op, [*order[:-2], *order[-2:][::-1]])


def _moved(op: Op, order: Sequence[int]) -> None:
    op.label(op.out, (np.transpose(ids, order) for ids in op.operand(op.args[0]).arrays))


def restrided(op: Op) -> None:
    """as_strided(x, size, stride), where it only restates the usual strides (pooling to one position)."""
    x, usual = op.operand(op.args[0]), 1
    for size, stride in reversed(list(zip(op.out.shape, op.out.stride(), strict=True))):
        if size > 1 and stride != usual:
            raise Unfollowed
        usual *= size
    if tuple(op.out.shape) != x.shape or op.out.storage_offset():
        raise Unfollowed
    op.label(op.out, x.arrays)


def fresh(op: Op) -> None:
    """new_zeros(x, size), …: a constant, whatever `x` is."""
    if op.known(op.out):
        op.label(op.out, (), weight=False)


def expand(op: Op) -> None:
    """expand(x, size): new and stretched axes say nothing. A parameter that is stretched is a table."""
    x = op.operand(op.args[0])
    if x.weight:
        for ids in x.arrays:
            op.use(ids, "other", table=ids.shape[-1] > 1)
    op.label(op.out, x.lifted(op.out.ndim).arrays)


def repeat(op: Op) -> None:
    """repeat(x, times)."""
    times = tuple(op.args[1])
    x = op.operand(op.args[0]).lifted(len(times))
    op.label(
        op.out,
        (
            np.tile(ids, [many if size > 1 else 1 for many, size in zip(times, ids.shape, strict=True)])
            for ids in x.arrays
        ),
    )


def unfolded(op: Op) -> None:
    """unfold(x, dim, size, step): windows of an axis that is not tracked."""
    x, dim = op.operand(op.args[0]), int(op.args[1])
    if x.along(dim % len(x.shape)):
        raise Unfollowed
    op.label(op.out, (ids[..., None] for ids in x.arrays))


def as_complex(op: Op) -> None:
    """view_as_complex: the last axis, of two, becomes one number."""
    x = op.operand(op.args[0])
    for ids in x.along(-1):
        op.units.unite_along(ids, ids.ndim - 1)
    op.label(op.out, (ids[..., 0] for ids in x.arrays))


def as_real(op: Op) -> None:
    """view_as_real: a last axis of two."""
    op.label(op.out, (ids[..., None] for ids in op.operand(op.args[0]).arrays))


def diagonal(op: Op) -> None:
    """tril, triu: same shape; the last two axes must keep their sizes."""
    x = op.operand(op.args[0])
    for axis in (len(x.shape) - 1, len(x.shape) - 2):
        for ids in x.arrays:
            op.units.fixed(ids, axis, "compares positions")
    op.label(op.out, x.arrays)


def select(op: Op) -> None:
    """select(x, dim, index): what is picked by number from an axis goes together with the rest of it."""
    x = op.operand(op.args[0])
    dim, index = op.args[1] % len(x.shape), op.args[2] % x.shape[op.args[1]]
    tied = x.along(dim)

    def tie() -> None:
        for ids in tied:
            op.units.even(ids, dim, x.shape[dim])

    op.if_used(op.out, tie)
    op.label(op.out, (at(ids, index, dim) for ids in x.arrays))


def unbind(op: Op) -> None:
    """unbind(x, dim)."""
    x, dim = op.operand(op.args[0]), int(op.arg(1, "dim", 0)) % op.args[0].ndim
    for ids in x.along(dim):
        op.units.even(ids, dim, x.shape[dim])
    for index, out in enumerate(op.out):
        op.label(out, (at(ids, index, dim) for ids in x.arrays))


def slices(op: Op) -> None:
    """slice(x, dim, start, end, step)."""
    x, dim = op.operand(op.args[0]), int(op.arg(1, "dim", 0)) % op.args[0].ndim
    size = x.shape[dim]
    start, end, step = slice(op.arg(2, "start"), op.arg(3, "end"), op.arg(4, "step", 1)).indices(size)
    _cut(op, x, dim, [(op.out, start, end, step)])


def split(op: Op) -> None:
    """split(x, size, dim) and split_with_sizes(x, sizes, dim)."""
    x, dim = op.operand(op.args[0]), int(op.arg(2, "dim", 0)) % op.args[0].ndim
    pieces, start = [], 0
    for out in op.out:
        pieces.append((out, start, start + out.shape[dim], 1))
        start += out.shape[dim]
    _cut(op, x, dim, pieces)


def _cut(op: Op, x: Operand, dim: int, pieces: list[tuple[torch.Tensor, int, int, int]]) -> None:
    """Equal parts: the same position in each goes together. Others: the axis must keep its size."""
    size = x.shape[dim]
    for out, start, end, step in pieces:
        length = end - start
        whole = length == size and step == 1
        even = step == 1 and length > 0 and size % length == 0 and start % length == 0
        for ids in x.along(dim):
            if even:
                op.units.even(ids, dim, size // length)
            elif not whole:
                op.units.fixed(ids, dim, "is cut into unequal parts")
        cut = [slice(None)] * len(x.shape)
        cut[dim] = slice(start, end, step)
        op.label(out, (ids[tuple(cut)] if ids.shape[dim] > 1 else ids for ids in x.arrays))


def concatenate(op: Op) -> None:
    """cat(tensors, dim): along other axes they meet."""
    tensors = [each for each in op.args[0] if each.ndim == op.out.ndim]
    dim = int(op.arg(1, "dim", 0)) % op.out.ndim
    _note_tables(op, tensors)
    _joined(op, [op.operand(each) for each in tensors], dim)


def stack(op: Op) -> None:
    """stack(tensors, dim)."""
    dim = int(op.arg(1, "dim", 0)) % op.out.ndim
    operands = []
    for tensor in op.args[0]:
        x = op.operand(tensor)
        shape = (*x.shape[:dim], 1, *x.shape[dim:])
        operands.append(Operand(shape, tuple(np.expand_dims(ids, dim) for ids in x.arrays), x.weight))
    _joined(op, operands, dim)


def _note_tables(op: Op, tensors: list[torch.Tensor]) -> None:
    if not op.all_weight():
        for x in map(op.operand, tensors):
            for ids in x.arrays if x.weight else ():
                op.use(ids, "other", table=ids.shape[-1] > 1)


def _joined(op: Op, operands: list[Operand], dim: int) -> None:
    arrays = []
    if any(each.along(dim) for each in operands):
        arrays.append(_end_to_end(op, operands, dim))
    across = [_across(each, dim) for each in operands]
    total = across[0]
    for each in across[1:]:
        total = meet(op, total, each)
    if arrays:
        total = (
            meet(op, Operand(_flat(arrays[0].shape, dim), (), False), total) if not total.arrays else total
        )
        for ids in total.arrays:
            if set(varying(ids)) & set(varying(arrays[0])):
                op.units.unite(ids, arrays[0])
    op.label(op.out, [*arrays, *(ids for ids in total.arrays if not arrays or not _inside(ids, arrays[0]))])


def _inside(ids: Ids, other: Ids) -> bool:
    return set(varying(ids)) <= set(varying(other))


def _flat(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return tuple(1 if axis == dim else size for axis, size in enumerate(shape))


def _across(x: Operand, dim: int) -> Operand:
    """`x` without its axis `dim`, and without what varies along it."""
    return Operand(_flat(x.shape, dim), tuple(ids for ids in x.arrays if ids.shape[dim] == 1), x.weight)


def _end_to_end(op: Op, operands: list[Operand], dim: int) -> Ids:
    """One array along `dim` from the first that each operand has; `FIXED` where it has none."""
    parts = []
    for x in operands:
        own = x.along(dim)
        for more in own[1:]:
            op.units.freeze(more, "joined end to end in more than one way")
        part = own[0] if own else np.full((1,) * len(x.shape), FIXED, dtype=np.int64)
        parts.append((part, x.shape[dim]))
    common = np.broadcast_shapes(*(_flat(part.shape, dim) for part, _ in parts))
    whole = [np.broadcast_to(part, (*common[:dim], size, *common[dim + 1 :])) for part, size in parts]
    ids = np.concatenate(whole, axis=dim)
    op.units.factors(ids)
    return ids


def pad(op: Op) -> None:
    """constant_pad_nd(x, pad, value): new positions belong to no unit."""
    x = op.operand(op.args[0])
    amounts = list(op.args[1])
    widths = [(0, 0)] * len(x.shape)
    for axis in range(len(amounts) // 2):
        widths[-1 - axis] = (amounts[2 * axis], amounts[2 * axis + 1])
    if any(low < 0 or high < 0 for low, high in widths):
        raise Unfollowed
    arrays = []
    for ids in x.arrays:
        grown = [pair if size > 1 else (0, 0) for pair, size in zip(widths, ids.shape, strict=True)]
        arrays.append(np.pad(ids, grown, constant_values=FIXED))
    op.label(op.out, arrays)


def reordered(op: Op) -> None:
    """roll, flip: an axis that is tracked must keep its size; others say nothing."""
    x = op.operand(op.args[0])
    dims = op.arg(2, "dims", []) if op.name == "roll" else op.args[1]
    for dim in dims or range(len(x.shape)):
        for ids in x.arrays:
            op.units.fixed(ids, dim % len(x.shape), "positions are reordered")
    op.label(op.out, x.arrays)


def picked(op: Op) -> None:
    """index_select(x, dim, index), gather(x, dim, index): an axis picked from must keep its size."""
    x, dim = op.operand(op.args[0]), int(op.args[1]) % max(op.args[0].ndim, 1)
    _pick(op, x, [dim])
    op.label(op.out, (ids if ids.shape[dim] == 1 else ids.take([0], dim) for ids in x.arrays))


def _pick(op: Op, x: Operand, dims: Sequence[int]) -> None:
    for dim in dims:
        for ids in x.arrays:
            op.units.fixed(ids, dim, "positions are picked by number")


def index(op: Op) -> None:
    """index(x, indices): numpy's advanced indexing; axes that are indexed must keep their sizes."""
    x = op.operand(op.args[0])
    dims: list[int] = []
    dim = 0
    for each in op.args[1]:
        taken = each.ndim if each is not None and each.dtype in (torch.bool, torch.uint8) else 1
        dims += range(dim, dim + taken) if each is not None else []
        dim += taken
    _pick(op, x, dims)
    width = op.out.ndim - (len(x.shape) - len(dims))
    front = dims[0] if dims == list(range(dims[0], dims[-1] + 1)) else 0
    arrays = []
    for ids in x.arrays:
        rest = [size for dim, size in enumerate(ids.shape) if dim not in dims]
        one = ids[tuple(slice(0, 1) if dim in dims else slice(None) for dim in range(ids.ndim))]
        arrays.append(one.reshape([*rest[:front], *(1,) * width, *rest[front:]]))
    op.label(op.out, arrays)


def columns(op: Op) -> None:
    """im2col(x, kernel, …): (B, C, H, W) to (B, C·k·k, L)."""
    x, out = op.operand(op.args[0]), op.out
    arrays = []
    for ids in x.arrays:
        if varying(ids) != (1,):
            raise Unfollowed
        arrays.append(np.repeat(ids.reshape(1, -1, 1), out.shape[1] // x.shape[1], axis=1))
    op.label(out, arrays)


def uncolumns(op: Op) -> None:
    """col2im(x, size, kernel, …): (B, C·k·k, L) to (B, C, H, W)."""
    x, out = op.operand(op.args[0]), op.out
    arrays = []
    for ids in x.along(1):
        if varying(ids) != (1,):
            raise Unfollowed
        split = ids.reshape(1, out.shape[1], -1)
        op.units.unite_along(split, 2)
        arrays.append(split[:, :, :1, None])
    op.label(out, arrays)


def pixel_shuffle(op: Op) -> None:
    """pixel_shuffle(x, r): (…, C·r·r, H, W) to (…, C, H·r, W·r)."""
    x = op.operand(op.args[0])
    channels, many = op.out.ndim - 3, op.args[1] ** 2
    arrays = []
    for ids in x.arrays:
        if varying(ids) != (channels,):
            raise Unfollowed
        split = ids.reshape(*ids.shape[:channels], -1, many)
        op.units.unite_along(split, channels + 1)
        arrays.append(split[..., :1, None])
    op.label(op.out, (ids.reshape((*(1,) * channels, -1, 1, 1)) for ids in arrays))


def pixel_unshuffle(op: Op) -> None:
    """pixel_unshuffle(x, r): (…, C, H·r, W·r) to (…, C·r·r, H, W)."""
    x, channels = op.operand(op.args[0]), op.out.ndim - 3
    if any(varying(ids) != (channels,) for ids in x.arrays):
        raise Unfollowed
    op.label(op.out, (np.repeat(ids, op.args[1] ** 2, axis=channels) for ids in x.arrays))


def channel_shuffle(op: Op) -> None:
    """channel_shuffle(x, groups): (g, C / g) to (C / g, g) along axis 1."""
    x, groups = op.operand(op.args[0]), int(op.args[1])
    arrays = []
    for ids in x.arrays:
        if ids.shape[1] > 1:
            op.units.even(ids, 1, groups)
            arrays.append(np.swapaxes(in_parts(ids, 1, groups), 1, 2).reshape(ids.shape))
        else:
            arrays.append(ids)
    op.label(op.out, arrays)
