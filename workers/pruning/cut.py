"""One cut: the weights of the chosen layers that count least become zero, in place. A zero is the mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from schemas.allocation import Allocation, UniformAllocation
from schemas.criteria import Criterion
from workers.pruning.layers import Choice, Layer
from workers.pruning.scores import score_for
from workers.pruning.threshold import Scored, flat_weights, kth_smallest, zero_smallest


@dataclass(frozen=True)
class CutResult:
    """Zeros among the weights of the pruned layers, and the one threshold of the cut, if there is one."""

    zeros: int
    weights: int
    threshold: float | None

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.weights


@torch.no_grad()
def cut(
    choice: Choice, criterion: Criterion, allocation: Allocation, sparsity: float, *, seed: int, number: int
) -> CutResult:
    """Cut to `sparsity` in round `number`: exactly round(sparsity · N) weights are zero afterwards.

    Global: of all layers together. Uniform: of each. Weights that are zero already go first, so sparsity
    never falls from round to round. Raises ValueError where weights hold NaN or infinity.
    """
    layers = [_scored(layer, criterion, seed=seed, number=number) for layer in choice.pruned]
    groups = [[layer] for layer in layers] if isinstance(allocation, UniformAllocation) else [layers]
    results = [_cut_together(group, sparsity) for group in groups]
    return CutResult(
        zeros=sum(result.zeros for result in results),
        weights=sum(result.weights for result in results),
        threshold=results[0].threshold if len(results) == 1 else None,
    )


def zeros_of(layers: Sequence[Layer]) -> int:
    """Weights that are zero."""
    return sum(int((layer.weight == 0).sum()) for layer in layers)


def _scored(layer: Layer, criterion: Criterion, *, seed: int, number: int) -> Scored:
    score = score_for(criterion, layer=layer.name, seed=seed, number=number)
    return Scored(layer.name, flat_weights(layer.weight), score)


def _cut_together(layers: Sequence[Scored], sparsity: float) -> CutResult:
    weights = sum(len(layer.weights) for layer in layers)
    k = round(sparsity * weights)
    if k == 0:
        zeros = sum(int((layer.weights == 0).sum()) for layer in layers)
        return CutResult(zeros, weights, None)
    cutoff = kth_smallest(layers, k)
    if cutoff.value == 0:  # more weights are zero already than asked for
        return CutResult(cutoff.at, weights, 0.0)
    zero_smallest(layers, k, cutoff)
    return CutResult(k, weights, cutoff.value)
