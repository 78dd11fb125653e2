"""Cuts to N of M, at once or over several rounds."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from workers.pruning.allocation import shared_out
from workers.pruning.layers import Layer
from workers.pruning.nm import nm_keep
from workers.pruning.rows import by_rows, cut_rows
from workers.pruning.scores.score import flat_weights, stored
from workers.pruning.scores.wanda import wanda
from workers.pruning.scoring import Scores, cut_together, pattern_scores, zeros_of

_HIGHEST = 1e30  # what the pattern keeps goes last


@torch.no_grad()
def cut_to_pattern(
    layers: Sequence[Layer],
    n: int,
    m: int,
    total: int,
    *,
    scores: Scores,
    norms: Mapping[str, Tensor],
) -> int:
    """Zero `total` weights of all layers, the same share of each: of those that the pattern would zero, the
    ones with the smallest scores; how many are zero afterwards.

    A layer with `norms` compares |w| · norm, within each row. Once `total` is what the pattern makes, it is
    the pattern. What is zero already belongs to it, so it only grows from round to round.
    """
    most = [layer.weight.numel() // m * (m - n) for layer in layers]
    least = [zeros_of([layer]) for layer in layers]
    most = [max(pair) for pair in zip(most, least, strict=True)]
    counts = shared_out(min(max(total, sum(least)), sum(most)), most, least, most)
    for layer, count, whole in zip(layers, counts, most, strict=True):
        ranks = _ranks(layer, scores, norms)
        keep = nm_keep(layer.weight, ranks, n, m, kind=layer.kind)
        if count >= whole:
            layer.weight.mul_(keep).add_(0.0)  # adding zero turns -0.0 into 0.0, which compresses
        elif layer.name in norms:
            cut_rows(layer, norms[layer.name], count, keep)
        else:
            ranks.masked_fill_(keep, _HIGHEST)
            cut_together([layer], count, scores={layer.name: stored(flat_weights(ranks))})
    return sum(counts)


def _ranks(layer: Layer, scores: Scores, norms: Mapping[str, Tensor]) -> Tensor:
    if layer.name not in norms:
        return pattern_scores(layer, scores)
    ranks = torch.empty_like(layer.weight, dtype=torch.float32)
    by_rows(layer, ranks).copy_(wanda(by_rows(layer, layer.weight.detach()), norms[layer.name]))
    return ranks
