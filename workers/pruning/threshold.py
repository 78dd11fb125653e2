"""The exact k-th smallest score over all layers, found and applied chunk by chunk.

A strided sample brackets the answer; one pass counts the scores below the bracket and keeps those inside it,
and the k-th smallest is picked among these. Where the bracket missed or holds too much, it moves or shrinks,
and the pass is repeated. Nothing of the model's size is ever held in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, gcd, inf, isfinite, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.pruning.scores.score import Score

CPU_CHUNK = (
    32_768  # torch's grain size: a larger one wakes threads that spin and cost 3x the work in CPU time
)
DEVICE_CHUNK = 1 << 22  # elsewhere kernel launches dominate
SAMPLE = 1 << 17
KEPT = 1 << 21  # scores held at once: 8 MiB
_TRUSTED_SAMPLE = 1024  # below this, a bracket is no better than the whole interval
_SIGMAS = 5.0

Values = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Scored:
    """A layer's weights, flat [n], a view on the model's own memory, with the criterion that scores them."""

    name: str
    weights: Tensor
    score: Score


@dataclass(frozen=True)
class Cutoff:
    """The k-th smallest score, how many lie strictly below it, and how many equal it."""

    value: float
    below: int
    at: int


@dataclass(frozen=True)
class _Interval:
    """The answer lies strictly between `low` and `high`; `under` scores are ≤ low, `upto` are < high."""

    low: float
    high: float
    under: int
    upto: int


def kth_smallest(layers: Sequence[Scored], k: int) -> Cutoff:
    """The exact `k`-th smallest score (1-based) over all layers.

    Ends always: each pass either answers or takes at least one value out of the interval (a pass that only
    fills the sample is followed by one that does). Raises ValueError where weights hold NaN or infinity.
    """
    total = sum(len(layer.weights) for layer in layers)
    if not 1 <= k <= total:
        raise ValueError(f"k must be between 1 and {total}, not {k}")
    interval = _Interval(-inf, inf, 0, total)
    sample = _strided_sample(layers, total)
    while True:
        low, high = _bracket(sample, interval, k)
        below, kept = _sweep(layers, low, high)
        if k <= below:
            under, at = _count(layers, low)
            if under < k:
                return Cutoff(low, under, at)
            interval = _Interval(interval.low, low, interval.under, under)
        elif k > below + kept.seen:
            under, at = _count(layers, high)
            if k <= under + at:
                return Cutoff(high, under, at)
            interval = _Interval(high, interval.high, under + at, interval.upto)
        elif kept.is_complete:
            return _pick(kept.values(), k, below)
        else:
            interval, sample = _Interval(low, high, below, below + kept.seen), kept.values()


def zero_smallest(layers: Sequence[Scored], k: int, cutoff: Cutoff) -> None:
    """Write zeros over the `k` smallest scores: of those equal to the cut-off, the first in module order and,
    within a layer, in memory order."""
    ties = k - cutoff.below
    takes_all_ties = ties == cutoff.at
    for weights, scores in _chunks(layers):
        if takes_all_ties:
            torch.gt(scores, cutoff.value, out=scores)
        else:
            tied = (scores == cutoff.value).nonzero().view(-1)[:ties]
            ties -= len(tied)
            torch.ge(scores, cutoff.value, out=scores)
            scores[tied] = 0.0
        # masked_fill_ takes 3x longer on random masks; adding zero turns -0.0 into 0.0, which compresses.
        weights.mul_(scores.to(weights.dtype)).add_(0.0)


def zeros_by_layer(layers: Sequence[Scored], k: int, cutoff: Cutoff) -> list[int]:
    """How many of the `k` smallest scores lie in each layer: what `zero_smallest` would zero."""
    ties, counts = k - cutoff.below, []
    for layer in layers:
        below, at = _count([layer], cutoff.value)
        taken = min(at, ties)
        ties -= taken
        counts.append(below + taken)
    return counts


class _Kept:
    """Holds what it is given up to `KEPT` scores, then an evenly thinned sample of it."""

    def __init__(self) -> None:
        self.seen = 0
        self._step = 1
        self._parts: list[Values] = []
        self._held = 0

    @property
    def is_complete(self) -> bool:
        return self._step == 1

    def add(self, part: Values) -> None:
        self.seen += len(part)
        part = part[:: self._step]
        self._parts.append(part)
        self._held += len(part)
        while self._held > KEPT:
            self._step *= 2
            self._parts = [self.values()[::2].copy()]
            self._held = len(self._parts[0])

    def values(self) -> Values:
        return np.concatenate(self._parts)


def _chunks(layers: Sequence[Scored]) -> Iterator[tuple[Tensor, Tensor]]:
    """(weights, scores) chunk by chunk: a view on the model's weights, and a buffer that is used again."""
    dtype = torch.float32
    for layer in layers:
        dtype = torch.promote_types(dtype, layer.weights.dtype)
    buffers: dict[torch.device, Tensor] = {}
    for layer in layers:
        device = layer.weights.device
        size = CPU_CHUNK if device.type == "cpu" else DEVICE_CHUNK
        if device not in buffers:
            buffers[device] = torch.empty(size, dtype=dtype, device=device)
        for start in range(0, len(layer.weights), size):
            weights = layer.weights[start : start + size]
            scores = buffers[device][: len(weights)]
            layer.score(weights, slice(start, start + len(weights)), scores)
            yield weights, scores


def _sweep(layers: Sequence[Scored], low: float, high: float) -> tuple[int, _Kept]:
    """How many scores are ≤ low, and the ones strictly between low and high."""
    below, kept = 0, _Kept()
    for _, scores in _chunks(layers):
        if not isfinite(float(scores.sum())) and not bool(scores.isfinite().all()):
            raise ValueError("the weights hold NaN or infinity: they have no order to cut by")
        if (
            scores.is_cpu
        ):  # numpy compares and picks in a quarter of torch's time: 0.5 against 2.0 ns a weight
            values = scores.numpy()
            under = values <= low
            below += int(np.count_nonzero(under))
            kept.add(values[(values < high) ^ under])
        else:
            beneath = scores <= low
            below += int(beneath.sum())
            kept.add(scores[(scores < high) ^ beneath].cpu().numpy())
    return below, kept


def _count(layers: Sequence[Scored], value: float) -> tuple[int, int]:
    """How many scores are below `value`, and how many equal it."""
    below = at = 0
    for _, scores in _chunks(layers):
        below += int((scores < value).sum())
        at += int((scores == value).sum())
    return below, at


def _strided_sample(layers: Sequence[Scored], total: int) -> Values:
    """About `SAMPLE` scores; the stride shares no factor with the sizes that layers have."""
    stride = ceil(total / SAMPLE)
    while gcd(stride, 2 * 3 * 5 * 7) != 1:
        stride += 1
    parts = []
    for layer in layers:
        weights = layer.weights[::stride]
        dtype = torch.promote_types(weights.dtype, torch.float32)
        scores = torch.empty(len(weights), dtype=dtype, device=weights.device)
        layer.score(weights, slice(None, None, stride), scores)
        parts.append(scores.cpu().numpy())
    return np.concatenate(parts)


def _bracket(sample: Values, interval: _Interval, k: int) -> tuple[float, float]:
    """Two values of the sample between which the answer very probably lies, or the interval's own ends."""
    inside = sample[(sample > interval.low) & (sample < interval.high)]
    size = len(inside)
    if size < _TRUSTED_SAMPLE:
        return interval.low, interval.high
    share = (k - interval.under) / (interval.upto - interval.under)
    # At most a third: at least one end then is a value of the sample, so the interval always shrinks.
    margin = min(_SIGMAS * sqrt(size * share * (1 - share)) + 2, size / 3)
    first, last = floor(size * share - margin), ceil(size * share + margin)
    inside.sort()
    low = float(inside[first]) if first >= 0 else interval.low
    high = float(inside[last]) if last < size else interval.high
    return low, high


def _pick(values: Values, k: int, below: int) -> Cutoff:
    value = np.partition(values, k - below - 1)[k - below - 1]
    under = int(np.count_nonzero(values < value))
    return Cutoff(float(value), below + under, int(np.count_nonzero(values == value)))
