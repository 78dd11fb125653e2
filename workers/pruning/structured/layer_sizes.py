"""Sizes that layers have of their own tensors: channels, features, groups, the shape of a norm."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workers.errors import PreflightError

Value = int | tuple[int, ...] | str

SHAPES = ("shape", "bias_shape")
_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BY_AXIS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], dict[tuple[str, int], str]], ...] = (
    (nn.Linear, {("weight", 0): "out_features", ("weight", 1): "in_features"}),
    (Conv1D, {("weight", 0): "nx", ("weight", 1): "nf"}),
    (
        nn.Bilinear,
        {("weight", 0): "out_features", ("weight", 1): "in1_features", ("weight", 2): "in2_features"},
    ),
    ((nn.Embedding, nn.EmbeddingBag), {("weight", 0): "num_embeddings", ("weight", 1): "embedding_dim"}),
    (nn.PReLU, {("weight", 0): "num_parameters"}),
)
"""What each axis of a tensor is called, for layers where it is as simple as that."""


def sizes_of_tensors(
    part: nn.Module, own: Mapping[tuple[str, int], NDArray[np.bool_]], path: str
) -> Iterator[tuple[str, Value]]:
    """Sizes that a module's own tensors have: (attribute, new value)."""
    if isinstance(part, _CONV + _TRANSPOSED):
        yield from _of_convolution(part, own, path)
    elif isinstance(part, nn.GroupNorm):
        keep = own["weight", 0]
        yield "num_channels", int(keep.sum())
        yield "num_groups", _groups_left(keep, part.num_groups, path)
    elif hasattr(part, "normalized_shape"):
        yield "normalized_shape", _new_shape(part, own)
    elif hasattr(part, "num_features") and hasattr(part, "eps"):
        yield "num_features", int(next(iter(own.values())).sum())
    else:
        yield from _of_shapes(part, own)
        names = next((names for kinds, names in _BY_AXIS if isinstance(part, kinds)), {})
        yield from ((names[key], int(keep.sum())) for key, keep in own.items() if key in names)


def _of_shapes(
    part: nn.Module, own: Mapping[tuple[str, int], NDArray[np.bool_]]
) -> Iterator[tuple[str, Value]]:
    """The shape that a scale or a table of biases is seen in: its cut axis must be plain to see."""
    for name in SHAPES:
        shape = vars(part).get(name)
        for keep in own.values():
            if isinstance(shape, tuple) and shape.count(len(keep)) == 1:
                yield name, tuple(int(keep.sum()) if one == len(keep) else one for one in shape)


def _new_shape(part: nn.Module, own: Mapping[tuple[str, int], NDArray[np.bool_]]) -> tuple[int, ...]:
    old = part.normalized_shape
    assert isinstance(old, tuple | list)
    shape = list(old)
    for (_, dim), keep in own.items():
        shape[dim] = int(keep.sum())
    return tuple(shape)


def _of_convolution(
    part: nn.Module, own: Mapping[tuple[str, int], NDArray[np.bool_]], path: str
) -> Iterator[tuple[str, Value]]:
    weight, groups = part.weight, part.groups
    assert isinstance(weight, Tensor)
    assert isinstance(groups, int)
    sizes = [int(own["weight", dim].sum()) if ("weight", dim) in own else weight.shape[dim] for dim in (0, 1)]
    left = _groups_left(own["weight", 0], groups, path) if ("weight", 0) in own else groups
    whole, each = (
        ("in_channels", "out_channels")
        if isinstance(part, _TRANSPOSED)
        else (
            "out_channels",
            "in_channels",
        )
    )
    yield whole, sizes[0]
    yield each, sizes[1] * left
    yield "groups", left


def _groups_left(keep: NDArray[np.bool_], groups: int, path: str) -> int:
    """Groups of a convolution or norm after `keep` [channels]: all, each narrower, or fewer whole ones."""
    counts = keep.reshape(groups, -1).sum(axis=1)
    full = len(keep) // groups
    if counts.min() == counts.max():
        return groups
    if np.isin(counts, (0, full)).all():
        return int((counts == full).sum())
    raise PreflightError(
        f"'{path}' has {groups} groups of {full} channels, which would keep {counts.min()} to {counts.max()} "
        "each: groups stay equally wide or go whole; exclude that layer"
    )
