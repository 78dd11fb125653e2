"""Scores that can be ranked across layers (Lee et al. 2021)."""

import torch
from torch import Tensor


def lamp(weights: Tensor) -> Tensor:
    """The root of w² / Σ v² over all v of the layer with v² ≥ w² [n] (Lee et al. 2021, LAMP), float32.

    The root keeps the order and does not underflow. Equal weights score the same, unlike in the paper, which
    breaks ties by index. Ranks need a sort: 28 bytes a weight for one layer at a time.
    """
    largest = weights.abs().max() if len(weights) else weights.sum()
    if largest == 0:
        return torch.zeros(len(weights), dtype=torch.float32, device=weights.device)
    values, order = (weights.abs().double() / largest).sort(descending=True)
    sums = values.square().cumsum(0)
    last = torch.ones_like(values, dtype=torch.bool)
    last[:-1] = values[1:] != values[:-1]
    places = last.nonzero().view(-1)
    runs = torch.diff(places, prepend=places.new_full((1,), -1))
    values.div_(sums[places].repeat_interleave(runs).sqrt_())
    scores = torch.empty(len(weights), dtype=torch.float32, device=weights.device)
    scores[order] = values.float()
    return scores
