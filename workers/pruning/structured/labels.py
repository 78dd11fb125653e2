"""Which unit each element of a tensor belongs to: integer arrays, of size 1 on axes that do not matter."""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
"""Unit numbers, broadcastable to the shape of the tensor that they describe."""

FIXED = 0
"""The unit of positions that no parameter made: padding, constants."""


def varying(ids: Ids) -> tuple[int, ...]:
    """Axes along which `ids` has more than one position."""
    return tuple(axis for axis, size in enumerate(ids.shape) if size > 1)


def aligned(ids: Ids, rank: int) -> Ids:
    """`ids` with axes of size 1 in front, until it has `rank` of them."""
    return ids.reshape((1,) * (rank - ids.ndim) + ids.shape)


def compressed(ids: Ids) -> Ids:
    """`ids` with every axis along which it is constant cut down to one position."""
    for axis in varying(ids):
        first = ids.take([0], axis)
        if (ids == first).all():
            ids = first
    return ids


def reshaped(ids: Ids, old: Sequence[int], new: Sequence[int]) -> Ids:
    """What `ids`, of a tensor of shape `old`, become when the tensor is viewed as `new`.

    Axes are matched in the smallest blocks with equal products; one is written out only if `ids` vary in it.
    """
    if prod(old) == 0:
        return np.full((1,) * len(new), FIXED, dtype=np.int64)
    expanded: list[int] = []
    target: list[int] = []
    for before, after in _blocks(old, new):
        if any(ids.shape[axis] > 1 for axis in before):
            expanded += [old[axis] for axis in before]
            target += [new[axis] for axis in after]
        else:
            expanded += [1] * len(before)
            target += [1] * len(after)
    return compressed(np.broadcast_to(ids, expanded).reshape(target))


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """Smallest runs of axes of `old` and `new` with the same number of elements, in order."""
    blocks = []
    left = right = 0
    while left < len(old) or right < len(new):
        start_left, start_right = left, right
        have = want = 1
        if left < len(old):
            have, left = old[left], left + 1
        if right < len(new):
            want, right = new[right], right + 1
        while have != want:
            if have < want:
                have, left = have * old[left], left + 1
            else:
                want, right = want * new[right], right + 1
        blocks.append((range(start_left, left), range(start_right, right)))
    return blocks


def in_parts(ids: Ids, axis: int, parts: int) -> Ids:
    """`ids` with `axis` split into (`parts`, size / parts); the parts' axis is `axis`."""
    shape = ids.shape
    return ids.reshape(*shape[:axis], parts, shape[axis] // parts, *shape[axis + 1 :])


def at(ids: Ids, index: int, axis: int) -> Ids:
    """`ids` at one position of `axis`, which is gone afterwards."""
    return np.asarray(ids.take(index if ids.shape[axis] > 1 else 0, axis), dtype=np.int64)
