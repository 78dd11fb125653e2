"""Weights that share k values a layer (Han et al. 2016, Deep Compression, section 3)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from workers.pruning.layers import Layer

MOST_ROUNDS = 50


@torch.no_grad()
def cluster_layers(layers: Sequence[Layer], k: int) -> None:
    """Set every weight that is not zero to the nearest of at most `k` values of its layer, in place."""
    for layer in layers:
        flat = layer.weight.detach().cpu().double().flatten().numpy()
        live = flat != 0
        if live.any():
            flat = flat.copy()
            flat[live] = clustered(flat[live], k)
            layer.weight.copy_(torch.from_numpy(flat).view(layer.weight.shape))


def clustered(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """`values` [N], none zero, each replaced by the mean of its cluster; no mean is zero.

    k-means on a line: the centres begin evenly between the extremes, which the paper found best, and since
    the values are sorted once, each round is a search of k borders and a difference of running sums. The same
    values give the same centres. Raises ValueError where values hold NaN or infinity.
    """
    if not np.isfinite(values).all():
        raise ValueError("the weights hold NaN or infinity: they have no clusters")
    ordered = np.sort(values)
    if len(np.unique(ordered)) <= k:
        return values
    sums = np.concatenate(([0.0], np.cumsum(ordered)))
    centres = np.linspace(ordered[0], ordered[-1], k)
    for _ in range(MOST_ROUNDS):
        moved = _means(sums, _borders(ordered, centres), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    smallest = np.finfo(np.float32).tiny
    centres[np.abs(centres) < smallest] = smallest  # a zero would be taken for a pruned weight
    nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
    found: NDArray[np.float64] = centres[nearest]
    return found


def _borders(ordered: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    inner = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
    return np.concatenate(([0], inner, [len(ordered)]))


def _means(
    sums: NDArray[np.float64], borders: NDArray[np.int64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The mean of each cluster; an empty one keeps its centre."""
    counts = np.diff(borders)
    totals = sums[borders[1:]] - sums[borders[:-1]]
    return np.where(counts > 0, totals / np.maximum(counts, 1), centres)
