"""Weights as rows of what one output multiplies, and cuts that compare within a row only."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from workers.pruning.layers import Layer

CHUNK = 1 << 20  # weights whose scores are held at once


def by_rows(layer: Layer, tensor: Tensor) -> Tensor:
    """A view [groups, outputs, inputs, kernel…] of `tensor`, which has the shape of the layer's weight.

    Linear [O, I], transformers' Conv1D [I, O], convolutions [O, I / groups, kernel…], transposed ones
    [I, O / groups, kernel…].
    """
    groups = int(getattr(layer.module, "groups", 1))
    if layer.kind == "Conv1D":
        return tensor.t().unsqueeze(0)
    grouped = tensor.view(groups, tensor.shape[0] // groups, *tensor.shape[1:])
    return grouped.transpose(1, 2) if layer.kind.startswith("ConvTranspose") else grouped


@torch.no_grad()
def cut_rows(layer: Layer, norms: Tensor, k: int, keep: Tensor | None = None) -> int:
    """Zero `k` weights of the layer, the same number in each row, those of the smallest |w| · norm.

    Gives how many are zero afterwards: `k`, or more where more were. What `keep`, of the weight's shape,
    holds goes last.
    """
    weight = by_rows(layer, layer.weight.detach())
    counts = zeros_by_row((weight == 0).flatten(2).sum(dim=2), weight[0, 0].numel(), k)
    zero_in_rows(weight, norms, counts, None if keep is None else by_rows(layer, keep))
    return int(counts.sum())


def zeros_by_row(zeros: Tensor, length: int, k: int) -> Tensor:
    """How many weights of each row are zero once `k` of the layer are: the same number, and one more in the
    first rows where `k` does not divide. `zeros` [groups, outputs] counts what is zero now, which stays.

    The result only ever grows with `k`. Where more than `k` are zero now, it is `zeros`.
    """
    flat = zeros.flatten()
    if int(flat.sum()) >= k:
        return zeros
    low, high = 0, length  # the largest level that does not need more than k
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(flat.clamp(min=middle).sum()) <= k else (low, middle - 1)
    counts = flat.clamp(min=low)
    takers = (flat <= low).nonzero().view(-1)[: k - int(counts.sum())]
    counts[takers] += 1
    return counts.view(zeros.shape)


def zero_in_rows(weight: Tensor, norms: Tensor, counts: Tensor, keep: Tensor | None = None) -> None:
    """Zero the `counts` [groups, outputs] weights of each row whose |w| · norm is smallest, in place.

    `weight` [groups, outputs, inputs, kernel…] is a view by rows, `norms` [groups, inputs, kernel…]. Zeros go
    first, of equal scores the first goes, and what `keep` holds goes last. Raises ValueError where scores
    hold NaN or infinity.
    """
    for part, factor, count, kept in _chunks(weight, norms, counts, keep):
        scores = part.abs().float().mul_(factor.unsqueeze(1)).flatten(2).flatten(0, 1)
        if not bool(scores.sum().isfinite()) and not bool(scores.isfinite().all()):
            raise ValueError("the weights or their inputs hold NaN or infinity: they have no order to cut by")
        if kept is not None:
            scores.masked_fill_(kept.flatten(2).flatten(0, 1), torch.inf)
        scores.masked_fill_(part.flatten(2).flatten(0, 1) == 0, -1.0)
        stays = _all_but_smallest(scores, count.flatten()).view(part.shape)
        part.mul_(stays.to(part.dtype)).add_(0.0)  # adding zero turns -0.0 into 0.0, which compresses


def _chunks(
    weight: Tensor, norms: Tensor, counts: Tensor, keep: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Slices of about `CHUNK` weights along the longer of the two outer axes."""
    groups, outputs = weight.shape[:2]
    dim, size = (0, groups) if groups > outputs else (1, outputs)
    step = max(CHUNK * size // max(weight.numel(), 1), 1)
    for start in range(0, size, step):
        length = min(step, size - start)
        factor = norms.narrow(0, start, length) if dim == 0 else norms
        kept = None if keep is None else keep.narrow(dim, start, length)
        yield weight.narrow(dim, start, length), factor, counts.narrow(dim, start, length), kept


def _all_but_smallest(scores: Tensor, counts: Tensor) -> Tensor:
    """True [rows, n] but for the `counts` [rows] smallest scores of each row; of ties the first go."""
    limits = _limits(scores, counts).unsqueeze(1)
    stays = scores > limits
    ties = scores == limits
    spare = counts - (~stays & ~ties).sum(dim=1)  # how many of the ties go
    uneven = (ties.sum(dim=1) != spare).nonzero().view(-1)
    if len(uneven):
        place = ties[uneven].cumsum(dim=1)
        stays[uneven] |= ties[uneven] & (place > spare[uneven].unsqueeze(1))
    return stays


def _limits(scores: Tensor, counts: Tensor) -> Tensor:
    """The `counts`-th smallest score of each row [rows]; −∞ where the count is 0.

    numpy's selection takes a fifth of the time of torch's stable sort on a CPU.
    """
    places = (counts - 1).clamp(min=0)
    if scores.is_cpu:
        ranked = torch.from_numpy(np.partition(scores.numpy(), sorted(set(places.tolist())), axis=1))
    else:
        ranked = scores.sort(dim=1).values
    limits = ranked.gather(1, places.unsqueeze(1)).squeeze(1)
    return limits.masked_fill(counts == 0, -torch.inf)
