"""How much each layer bears, measured: one layer cut at a time, and a knapsack over what was measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch

from schemas.report import Curve
from workers.pruning.allocation import shared_out
from workers.pruning.layers import Layer
from workers.pruning.scores.elementwise import magnitude
from workers.pruning.scoring import cut_together

Zero = Callable[[Layer, int], object]
"""Zero so many weights of one layer, in place."""


def zero_by_magnitude(layer: Layer, k: int) -> None:
    """The `k` smallest weights of the layer become zero."""
    cut_together([layer], k, scores={layer.name: magnitude})


def sensitivity_curves(
    layers: Sequence[Layer],
    shares: Sequence[float],
    evaluate: Callable[[], float],
    *,
    on_layer: Callable[[int, int], None],
    zero: Zero = zero_by_magnitude,
) -> list[Curve]:
    """`evaluate()` with one layer cut to each of `shares` while all others are whole (Li et al. 2017).

    Each layer's weights are back, bit by bit, before the next is cut, also where `evaluate` raises.
    `on_layer(done, of)` is called after each layer and may raise Stopped.
    """
    curves = []
    for number, layer in enumerate(layers, start=1):
        metrics = _metrics(layer, shares, evaluate, zero)
        curves.append(Curve(name=layer.name, shares=list(shares), metrics=metrics))
        on_layer(number, len(layers))
    return curves


@torch.no_grad()
def _metrics(layer: Layer, shares: Sequence[float], evaluate: Callable[[], float], zero: Zero) -> list[float]:
    before = layer.weight.detach().clone()
    metrics = []
    try:
        for share in shares:
            zero(layer, round(share * before.numel()))
            metrics.append(evaluate())
            layer.weight.copy_(before)
    finally:
        layer.weight.copy_(before)
    return metrics


@dataclass(frozen=True)
class _Step:
    """Zeros that one layer may make next, and the metric that each of them costs."""

    layer: int
    size: int
    slope: float
    share: float


def zeros_at_least_loss(
    curves: Sequence[Curve], sizes: Sequence[int], zeros: Sequence[int], total: int, *, whole: float
) -> list[int]:
    """`total` zeros over the layers where the metrics that were lost alone, added up, are least.

    A knapsack, solved by taking steps along each curve's convex hull, the cheapest first. That is optimal for
    curves read as straight lines between their points, and meets any total exactly, since the last step is
    taken in part; dynamic programming over the measured points alone would have to round the total. Steps
    that cost the same (often nothing) are shared out, smaller shares first. Past the last measured share
    nothing is known: what is left over is the same share of each layer's rest.

    `sizes` are weights, `zeros` those that are zero now, `whole` is the metric as the model is now.
    """
    counts = list(zeros)
    steps = [
        step
        for place, curve in enumerate(curves)
        for step in _steps(place, curve, sizes[place], zeros[place], whole)
    ]
    left = total - sum(counts)
    ordered = sorted(steps, key=lambda step: (step.slope, step.share, step.layer))
    for _, group in groupby(ordered, key=lambda step: (step.slope, step.share)):
        tied = list(group)
        room = [step.size for step in tied]
        taken = shared_out(min(left, sum(room)), room, [0] * len(room), room)
        for step, amount in zip(tied, taken, strict=True):
            counts[step.layer] += amount
        left -= sum(taken)
    rest = [size - count for size, count in zip(sizes, counts, strict=True)]
    extra = shared_out(left, rest, [0] * len(rest), rest)
    return [count + more for count, more in zip(counts, extra, strict=True)]


def _steps(place: int, curve: Curve, size: int, zeros: int, whole: float) -> list[_Step]:
    points = _hull(_losses(curve, size, zeros, whole))
    return [
        _Step(place, end - start, (worse - loss) / (end - start), end / size)
        for (start, loss), (end, worse) in pairwise(points)
    ]


def _losses(curve: Curve, size: int, zeros: int, whole: float) -> list[tuple[int, float]]:
    """(zeros, metric lost), rising; a metric that got better by chance counts as nothing lost."""
    points, worst = [(zeros, 0.0)], 0.0
    for share, metric in sorted(zip(curve.shares, curve.metrics, strict=True)):
        count = round(share * size)
        worst = max(worst, whole - metric)
        if count > points[-1][0]:
            points.append((count, worst))
    return points


def _hull(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The lower convex hull; points on one line all stay."""
    hull: list[tuple[int, float]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) > _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(first: tuple[int, float], last: tuple[int, float]) -> float:
    return (last[1] - first[1]) / (last[0] - first[0])
