"""Rules for operators with weights: products, convolutions, normalisations, embeddings."""

import numpy as np
import torch

from workers.pruning.structured.labels import Ids, at, in_parts, varying
from workers.pruning.structured.op import Op, Operand, Unfollowed, meet, without


def product(op: Op) -> None:
    """mm, bmm (…, M, K) · (…, K, N)."""
    left, right = op.operand(op.args[0]), op.operand(op.args[1])
    outer = left.shape[-1] == 1 and op.all_weight()  # angles: a buffer times the positions
    op.label(op.out, _contract(op, left, right), weight=outer)


def product_and_sum(op: Op) -> None:
    """addmm, baddbmm: a third operand is added."""
    arrays = _contract(op, op.operand(op.args[1]), op.operand(op.args[2]))
    result = Operand(tuple(op.out.shape), arrays, weight=False)
    extra = op.operand(op.args[0]).lifted(op.out.ndim)
    if extra.weight:
        for ids in extra.arrays:
            op.use(ids, "out")
    op.label(op.out, meet(op, result, extra).arrays, weight=False)


def grouped_product(op: Op) -> None:
    """_grouped_mm(x, weight, offsets): (T, K) · (E, K, N), rows of x sorted by expert."""
    x, weight = op.operand(op.args[0]), op.operand(op.args[1])
    if len(x.shape) != 2 or len(weight.shape) != 3:
        raise Unfollowed
    for ids in weight.along(0):
        op.units.freeze(ids, "experts are picked by number")
    flat = Operand(
        weight.shape[1:], tuple(ids[0] for ids in weight.arrays if ids.shape[0] == 1), weight.weight
    )
    op.label(op.out, _contract(op, x, flat), weight=False)


def linear(op: Op) -> None:
    """linear: (…, K) · (N, K)ᵀ + (N)."""
    x, weight = op.operand(op.args[0]), op.operand(op.args[1])
    rank = max(len(x.shape), 2)
    turned = Operand(weight.shape[::-1], tuple(ids.T for ids in weight.arrays), weight.weight)
    arrays = _contract(op, x.lifted(rank), turned.lifted(rank))
    arrays = tuple(ids.reshape(ids.shape[rank - len(x.shape) :]) for ids in arrays)
    bias = op.arg(2, "bias")
    if bias is not None:
        extra = op.operand(bias).lifted(op.out.ndim)
        for ids in extra.arrays:
            op.use(ids, "out")
        arrays = meet(op, Operand(tuple(op.out.shape), arrays, weight=False), extra).arrays
    op.label(op.out, arrays, weight=False)


def vector_product(op: Op) -> None:
    """mv, dot: (M, K) · (K), (K) · (K)."""
    left, right = op.operand(op.args[0]), op.operand(op.args[1])
    wide = Operand((*right.shape, 1), tuple(ids[..., None] for ids in right.arrays), right.weight)
    arrays = _contract(op, left.lifted(2), wide)
    if len(left.shape) == 2:
        op.label(op.out, (ids[:, 0] for ids in arrays), weight=False)


def _contract(op: Op, left: Operand, right: Operand) -> tuple[Ids, ...]:
    """Units of (…, M, K) · (…, K, N): the two sides meet along K and the leading axes."""
    rank = len(left.shape)
    a = Operand((*left.shape, 1), tuple(ids[..., None] for ids in left.arrays), left.weight)
    b = Operand(
        (*right.shape[:-2], 1, *right.shape[-2:]),
        tuple(np.expand_dims(ids, rank - 2) for ids in right.arrays),
        right.weight,
    )
    inner = rank - 1
    if right.weight:
        _use_weight(op, b, inner, rank)
    elif left.weight:
        _use_weight(op, a, inner, rank - 2)
    both = meet(op, a, b)
    if not (left.weight or right.weight):
        _attend(op, a, b, inner)
    arrays = []
    for ids in both.arrays:
        rest = without(op, ids, [inner])
        if rest is not None:
            arrays.append(at(rest, 0, inner))
    return tuple(arrays)


def _use_weight(op: Op, weight: Operand, inner: int, outer: int) -> None:
    for ids in weight.along(inner):
        op.use(ids, "in")
    for ids in weight.along(outer):
        op.use(ids, "out")


def _attend(op: Op, left: Operand, right: Operand, inner: int) -> None:
    """Two activations: what is summed over stays whole, and the leading axis counts heads."""
    for side, other in ((left, right), (right, left)):
        for ids in side.arrays:
            op.units.unite_along(ids, inner)
            lead = varying(ids)[0]
            if lead < inner - 1 and side.shape[lead] == other.shape[lead] and not other.along(lead):
                op.units.freeze(ids, "heads meet something that does not follow them")
            if len(varying(ids)) == 1 and int(ids.ravel()[0]) in op.units.single:
                op.units.freeze(ids, "the width of a head that all queries share")
            if len(varying(ids)) > 1 and varying(ids)[0] < inner - 1:
                op.units.heads(ids)


def convolution(op: Op) -> None:
    """convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)."""
    x, weight = op.operand(op.args[0]), op.operand(op.args[1])
    transposed, groups = bool(op.args[6]), int(op.args[8])
    made, read = (1, 0) if transposed else (0, 1)
    outs, ins = _filter_axis(op, weight, made), _filter_axis(op, weight, read)
    channels = x.shape[1]
    if groups > 1 and weight.shape[1] == 1 and groups == channels:
        out = _depthwise(
            op, x, ins if transposed else outs, weight.shape[made] if not transposed else channels
        )
    elif groups > 1:
        out = _grouped(op, x, (outs, ins), groups, transposed)
    else:
        out = outs
        _read(op, x, ins, channels)
    if ins is not None:
        op.use(ins, "in", filters=True)
    if out is not None:
        op.use(out, "out", filters=True)
    _bias(op, out)
    own = [] if out is None else [_on_channels(out, op.out.ndim)]
    op.label(op.out, _with_heads(op, x, own, op.out.shape[1] == channels == groups), weight=False)


def _with_heads(op: Op, x: Operand, own: list[Ids], depthwise: bool) -> list[Ids]:
    """Heads merged into the batch axis use the same filters, which leaves them apart."""
    spread = range(2 if depthwise else 1, len(x.shape))
    rest = [without(op, ids, spread) for ids in x.along(0)]
    heads = [ids for ids in rest if ids is not None]
    return heads if any(ids.shape[1] > 1 for ids in heads) else [*heads, *own]


def _filter_axis(op: Op, weight: Operand, axis: int) -> Ids | None:
    """[size] Units of one of the first two axes of a filter; those that are mixed with others are frozen."""
    found = None
    for ids in weight.along(axis):
        if varying(ids) == (axis,) and found is None:
            found = ids.ravel()
        else:
            op.units.freeze(ids, "the filter is made in a way that cannot be followed")
    for ids in weight.arrays:
        if axis == 0 and varying(ids)[0] > 1:
            op.units.freeze(ids, "positions of a filter")
    return found


def _on_channels(ids: Ids, rank: int) -> Ids:
    return ids.reshape(1, -1, *(1,) * (rank - 2))


def _read(op: Op, x: Operand, ins: Ids | None, channels: int) -> None:
    rank = len(x.shape)
    arrays = () if ins is None else (_on_channels(ins, rank),)
    meet(op, x, Operand((1, channels, *(1,) * (rank - 2)), arrays, weight=True))


def _depthwise(op: Op, x: Operand, outs: Ids | None, made: int) -> Ids | None:
    """Each channel has `made` / channels filters of its own, which go with it."""
    channels, rank = x.shape[1], len(x.shape)
    if outs is not None and not x.along(1):
        op.units.freeze(outs, "reads an axis of fixed size")
    for ids in x.along(1):
        if outs is None:
            op.units.freeze(ids, "meets an axis of fixed size")
        elif ids.shape[0] > 1 and made == channels:
            op.units.shared(ids, _on_channels(outs, rank))
        else:
            split = outs.reshape(1, channels, made // channels, *(1,) * (rank - 2))
            op.units.unite(ids[:, :, None], split)
    return outs


def _grouped(
    op: Op, x: Operand, sides: tuple[Ids | None, Ids | None], groups: int, transposed: bool
) -> Ids | None:
    """Every group must lose the same count: the same position in each of them goes together."""
    outs, ins = sides
    rank = len(x.shape)
    for ids in x.along(1):
        op.units.even(ids, 1, groups)
        if ins is None:
            op.units.freeze(ids, "meets an axis of fixed size")
        else:
            of_group = ins.reshape(1, groups if transposed else 1, -1, *(1,) * (rank - 2))
            op.units.unite(in_parts(ids, 1, groups), of_group)
    if ins is not None and not x.along(1):
        op.units.freeze(ins, "reads an axis of fixed size")
    if outs is not None and not transposed:
        op.units.even(outs, 0, groups)
    return np.tile(outs, groups) if outs is not None and transposed else outs


def _bias(op: Op, out: Ids | None) -> None:
    if op.args[2] is None:
        return
    for ids in op.operand(op.args[2]).arrays:
        if out is None:
            op.units.freeze(ids, "meets an axis of fixed size")
        else:
            op.units.unite(ids, out)
            op.use(ids, "out", filters=True)


def batch_norm(op: Op) -> None:
    """native_batch_norm(x, weight, bias, running_mean, running_var, …) over axis 1."""
    _normalised(op, op.operand(op.args[0]), [each for each in op.args[1:5] if isinstance(each, torch.Tensor)])


def group_norm(op: Op) -> None:
    """native_group_norm(x, weight, bias, N, C, HxW, groups, eps)."""
    x, groups = op.operand(op.args[0]), int(op.args[6])
    for ids in x.along(1):
        op.units.even(ids, 1, groups)
    _normalised(op, x, [each for each in op.args[1:3] if each is not None])


def _normalised(op: Op, x: Operand, parameters: list[torch.Tensor]) -> None:
    for tensor in parameters:
        known = op.operand(tensor)
        for ids in known.arrays:
            op.use(ids, "norm")
        rank = len(x.shape)
        scale = Operand(
            (1, *known.shape, *(1,) * (rank - 2)),
            tuple(_on_channels(ids, rank) for ids in known.arrays),
            weight=True,
        )
        arrays = meet(op, x, scale).arrays
        x = Operand(x.shape, arrays, x.weight)
    op.label(_first(op.out), x.arrays)


def layer_norm(op: Op) -> None:
    """native_layer_norm(x, shape, weight, bias, eps), _fused_rms_norm(x, shape, weight, eps)."""
    x = op.operand(op.args[0])
    for tensor in op.args[2:4]:
        if isinstance(tensor, torch.Tensor):
            known = op.operand(tensor).lifted(len(x.shape))
            for ids in known.arrays:
                op.use(ids, "norm")
            x = Operand(x.shape, meet(op, x, known).arrays, x.weight)
    op.label(_first(op.out), x.arrays)


def _first(out: object) -> torch.Tensor:
    first = out[0] if isinstance(out, (tuple, list)) else out
    assert isinstance(first, torch.Tensor)
    return first


def embedding(op: Op) -> None:
    """embedding(weight, indices): rows are looked up."""
    weight, indices = op.operand(op.args[0]), op.args[1]
    for ids in weight.along(0):
        op.units.freeze(ids, "rows that are looked up by number")
    arrays = []
    for ids in weight.along(1):
        if varying(ids) != (1,):
            raise Unfollowed
        op.use(ids, "out", table=True)
        arrays.append(ids.reshape((1,) * indices.ndim + (-1,)))
    op.label(op.out, arrays, weight=not op.args[0].requires_grad)  # a fixed table: sines for the positions


def weight_norm(op: Op) -> None:
    """_weight_norm_interface(v, g, dim): v scaled by g."""
    joined = meet(op, op.operand(op.args[0]), op.operand(op.args[1]))
    op.label(_first(op.out), joined.arrays)
