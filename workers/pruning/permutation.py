"""Reorder channels so that N of each M neighbours keep more magnitude (Pool and Yu 2021), function unchanged.

The order of a group's units is free as long as every tensor that carries them follows it: rows of the layers
that make them, biases, norms, input columns of all layers that read them. One order serves all readers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.pruning.layers import Layer
from workers.pruning.nm import AXES
from workers.pruning.structured.graph import Axis, DependencyGraph, Group

ROUNDS = 30
"""Pairings of stripes that are tried. With 2:4 each takes 0.02 µs of one core for each weight that is read,
with other patterns up to 40 times as much. Beyond 30, a tenth of the gain is left."""

_IDLE = 6  # rounds without gain after which the search ends
_CHUNK = 1 << 18  # numbers that are compared at once
_TOLERANCE = 1e-4  # of the largest output: sums in another order differ by less than 1e-5

Order = NDArray[np.int64]


@dataclass(frozen=True)
class Permuted:
    """What the pattern keeps of the magnitude of the layers that read permuted channels, and notes."""

    before: float
    after: float
    notes: list[str]


@torch.no_grad()
def permute_for(
    module: nn.Module,
    graph: DependencyGraph,
    layers: Sequence[Layer],
    n: int,
    m: int,
    *,
    outputs: Callable[[], Tensor],
    seed: int,
    rounds: int = ROUNDS,
) -> Permuted:
    """Reorder in place the units of each group so that `layers`, cut to `n` of `m`, keep more magnitude.

    Before the first cut only: columns of a layer that holds the pattern already would lose it. Groups whose
    units are wider than one channel (heads) keep their order, and so do those that no layer of `layers` reads
    in whole stripes. `outputs` runs the module in eval mode on an example; a group after which they differ is
    put back and named: the graph says what must go together, not that any order is as good (group norm).
    Deterministic for one `seed`.
    """
    readers = {f"{layer.name}.weight": layer for layer in layers}
    tensors = module.state_dict()
    expected = outputs()
    kept = [0.0, 0.0, 0.0]
    put_back: list[str] = []
    for group in graph.groups:
        moves = _moves(group, tensors)
        channels = _read_by(group, readers, m) if moves is not None else None
        if moves is None or channels is None:
            continue
        order, before, after = search(channels, n, m, seed=seed, rounds=rounds)
        total = float(channels.sum(dtype=torch.float64))
        if after > before:
            _apply(moves, order, tensors)
            if not _same(outputs(), expected):
                _apply(moves, np.argsort(order), tensors)
                put_back.append(group.name)
                after = before
        kept = [old + new for old, new in zip(kept, (before, after, total), strict=True)]
    return _told(kept, put_back, n, m)


def search(
    channels: Tensor, n: int, m: int, *, seed: int, rounds: int = ROUNDS
) -> tuple[Order, float, float]:
    """An order of `channels` [channels, rows], not negative, and what the pattern keeps before and after.

    Stripes are `m` neighbouring channels. In each round all stripes are paired at random and each pair trades
    the channels that keep most: for m up to 4 every way to share them out is tried (35 for m = 4: the paper's
    exhaustive search of two stripes), above that every swap of one. It ends after `rounds`, or when nothing
    has been gained for some.
    """
    count = len(channels)
    order: Order = np.arange(count)
    generator = np.random.default_rng(seed)
    before = _kept_in_order(channels, order, n, m)
    shares = _shares(m)
    idle = 0
    for _ in range(rounds if count > m else 0):
        stripes = generator.permutation(count // m)
        stripes = stripes[: len(stripes) // 2 * 2].reshape(-1, 2)
        places = (stripes[:, :, None] * m + np.arange(m)).reshape(-1, 2 * m)
        best, gained = _best_shares(channels, order[places], shares, n)
        order[places] = np.take_along_axis(order[places], best, axis=1)
        idle = 0 if gained else idle + 1
        if idle == _IDLE:
            break
    return order, before, _kept_in_order(channels, order, n, m)


def _shares(m: int) -> Order:
    """[ways, 2m]: orders of two stripes' columns worth trying, as they are first."""
    if m <= 4:  # the first column stays, so that no two ways are mirror images
        firsts = [(0, *rest) for rest in combinations(range(1, 2 * m), m - 1)]
    else:
        swaps = product(range(m), range(m, 2 * m))
        firsts = [tuple(range(m)), *(tuple(b if i == a else i for i in range(m)) for a, b in swaps)]
    return np.array([[*first, *(i for i in range(2 * m) if i not in first)] for first in firsts])


def _best_shares(channels: Tensor, pairs: Order, shares: Order, n: int) -> tuple[Order, bool]:
    """For each pair of stripes `pairs` [p, 2m] (channels) the best way [p, 2m], and whether any gains."""
    m = shares.shape[1] // 2
    halves, which = np.unique(np.sort(shares.reshape(-1, m), axis=1), axis=0, return_inverse=True)
    sums = torch.empty(len(halves), len(pairs), dtype=torch.float64, device=channels.device)
    step = max(_CHUNK // (channels.shape[1] * 2 * m), 1)
    for start in range(0, len(pairs), step):
        chosen = torch.from_numpy(pairs[start : start + step]).to(channels.device)
        stripe = _Kept([channels[chosen[:, place]] for place in range(2 * m)], n)
        for number, half in enumerate(halves):
            sums[number, start : start + step] = stripe.by(half.tolist())
    values = sums.cpu().numpy()[which.reshape(-1, 2)].sum(axis=1)
    best = values.argmax(axis=0)
    gains = values[best, np.arange(len(pairs))] > values[0] * (1 + 1e-7)
    return shares[np.where(gains, best, 0)], bool(gains.any())


class _Kept:
    """What the pattern keeps of stripes that are made of some of `members`, each [stripes, rows]."""

    def __init__(self, members: Sequence[Tensor], n: int) -> None:
        self._members, self._n = members, n
        self._pairs: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def by(self, which: Sequence[int]) -> Tensor:
        """The sum over rows of the n largest of the members `which`: [stripes] float64."""
        if self._n == 2 and len(which) == 4:
            (high, both), (other_high, other_both) = self._pair(*which[:2]), self._pair(*which[2:])
            largest = torch.maximum(high + other_high, torch.maximum(both, other_both))
        else:
            largest = (
                torch.stack([self._members[one] for one in which]).topk(self._n, dim=0).values.sum(dim=0)
            )
        return largest.sum(dim=-1, dtype=torch.float64)

    def _pair(self, first: int, second: int) -> tuple[Tensor, Tensor]:
        """The larger of two members and their sum: two of four are one of each pair, or both of one."""
        if (first, second) not in self._pairs:
            one, other = self._members[first], self._members[second]
            self._pairs[first, second] = torch.maximum(one, other), one + other
        return self._pairs[first, second]


def _kept_in_order(channels: Tensor, order: Order, n: int, m: int) -> float:
    """What the pattern keeps when channels lie in this order."""
    total = 0.0
    step = max(_CHUNK // (channels.shape[1] * m), 1) * m
    for start in range(0, len(order), step):
        stripes = torch.from_numpy(order[start : start + step].reshape(-1, m)).to(channels.device)
        members = [channels[stripes[:, place]] for place in range(m)]
        total += float(_Kept(members, n).by(range(m)).sum())
    return total


@dataclass(frozen=True, eq=False)
class _Move:
    """One axis of one tensor, and the positions [units, times] that each unit of the group takes up in it."""

    tensor: str
    dim: int
    positions: Order


def _moves(group: Group, tensors: dict[str, Tensor]) -> list[_Move] | None:
    """Where the group's units lie; None: they cannot change places. A tensor under two names moves once."""
    if group.kind == "heads" or (group.widths != 1).any():
        return None
    moves: dict[tuple[int, int], _Move] = {}
    for axis in group.axes:
        positions = _positions(axis, group.size)
        if positions is None:
            return None
        key = (tensors[axis.tensor].data_ptr(), axis.dim)
        moves.setdefault(key, _Move(axis.tensor, axis.dim, positions))
    return list(moves.values())


def _positions(axis: Axis, size: int) -> Order | None:
    """[units, times], or None where units take up unequal numbers of positions."""
    counts = np.bincount(axis.units[axis.units >= 0], minlength=size)
    if (counts != counts[0]).any() or counts[0] == 0:
        return None
    by_unit = np.argsort(axis.units, kind="stable")[-size * counts[0] :]
    return by_unit.reshape(size, counts[0]).astype(np.int64)


def _read_by(group: Group, readers: dict[str, Layer], m: int) -> Tensor | None:
    """Magnitudes [units, rows] in all layers that read the group's units in whole stripes; None: in none."""
    if group.size % m:
        return None
    parts = [
        _columns(readers[axis.tensor], axis)
        for axis in group.axes
        if axis.tensor in readers and _reads_stripes(readers[axis.tensor], axis, group.size, m)
    ]
    return torch.cat(parts, dim=1) if parts else None


def _reads_stripes(layer: Layer, axis: Axis, size: int, m: int) -> bool:
    if axis.role != "in" or AXES.get(layer.kind) != axis.dim:
        return False
    places = np.flatnonzero(axis.units >= 0)
    in_order = len(places) == size and np.array_equal(axis.units[places], np.arange(size))
    return bool(in_order and places[0] % m == 0 and places[-1] - places[0] == size - 1)


def _columns(layer: Layer, axis: Axis) -> Tensor:
    """The magnitudes of the weights that read the units, [units, rows]."""
    places = np.flatnonzero(axis.units >= 0)
    part = layer.weight.detach().narrow(axis.dim, int(places[0]), len(places))
    return part.abs().float().movedim(axis.dim, 0).reshape(len(places), -1)


def _apply(moves: Sequence[_Move], order: Order, tensors: dict[str, Tensor]) -> None:
    """Unit k becomes what unit `order[k]` was, on every axis."""
    for move in moves:
        tensor = tensors[move.tensor]
        index = np.arange(tensor.shape[move.dim])
        index[move.positions] = move.positions[order]
        tensor.copy_(tensor.index_select(move.dim, torch.from_numpy(index).to(tensor.device)))


def _same(outputs: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max())
    return bool(((outputs - expected).abs().max() <= _TOLERANCE * scale).item())


def _told(kept: list[float], put_back: Sequence[str], n: int, m: int) -> Permuted:
    before, after, total = kept
    if total == 0:
        return Permuted(1.0, 1.0, ["No channels were permuted: no layer reads a group in whole stripes."])
    notes = [
        f"Permuted channels: of the magnitude of the layers that read them {n}:{m} keeps "
        f"{after / total:.2%}, not {before / total:.2%}."
    ]
    if put_back:
        notes.append(f"Not permuted, since the model's outputs depend on the order: {', '.join(put_back)}.")
    return Permuted(before / total, after / total, notes)
