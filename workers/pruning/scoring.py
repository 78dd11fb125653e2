"""From a criterion to the scores of each layer: what must be measured for them is measured here."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from schemas.criteria import Criterion, Fisher, Movement, Random, Snip, Taylor
from workers.errors import PreflightError
from workers.pruning.calibration import Calibration
from workers.pruning.gradients import (
    Means,
    mean_absolute_gradients,
    mean_gradients,
    mean_squared_gradients,
    refuse_vanished,
)
from workers.pruning.layers import Layer
from workers.pruning.scores.elementwise import magnitude, random_for
from workers.pruning.scores.gradient import fisher, normalise, snip, taylor
from workers.pruning.scores.movement import MovementScores
from workers.pruning.scores.score import Score, flat_weights, stored
from workers.pruning.threshold import Scored, kth_smallest, zero_smallest

Scores = dict[str, Score]
"""By layer name."""


def scores_of(
    criterion: Criterion,
    layers: Sequence[Layer],
    *,
    calibration: Calibration | None,
    movement: MovementScores | None,
    seed: int,
    number: int,
) -> Scores:
    """What each layer is scored with in round `number`; by magnitude, where a criterion has no such scores.

    Magnitude and random hold nothing, the others one float32 for each weight. Raises PreflightError where
    gradients say nothing.
    """
    if isinstance(criterion, Random):
        return {layer.name: random_for(layer.name, seed=seed, number=number) for layer in layers}
    if isinstance(criterion, Movement) and movement is not None and not movement.is_empty:
        return {layer.name: stored(flat_weights(movement.of(layer))) for layer in layers}
    if isinstance(criterion, Taylor | Snip | Fisher):
        return _from_gradients(criterion, layers, needed(calibration, criterion))
    return {layer.name: magnitude for layer in layers}


def needed(calibration: Calibration | None, criterion: Criterion) -> Calibration:
    """The calibration that a criterion cannot do without."""
    if calibration is None:
        raise PreflightError(
            f"method.criterion '{criterion.kind}' measures the model on calibration samples, and there are "
            "none here: use 'magnitude'"
        )
    return calibration


def pattern_scores(layer: Layer, scores: Scores) -> Tensor:
    """The layer's scores, float32, in the shape and memory order of its weight."""
    ranks = torch.empty_like(layer.weight, dtype=torch.float32)
    weights = flat_weights(layer.weight)
    scores[layer.name](weights, slice(0, len(weights)), flat_weights(ranks))
    return ranks


def scored(layers: Sequence[Layer], scores: Scores) -> list[Scored]:
    """As the search for a threshold takes them."""
    return [Scored(layer.name, flat_weights(layer.weight), scores[layer.name]) for layer in layers]


@torch.no_grad()
def cut_together(layers: Sequence[Layer], k: int, *, scores: Scores) -> tuple[int, float | None]:
    """Zero the `k` smallest scores of all layers together: (zeros afterwards, the largest score that went).

    What is zero already goes first; where that is `k` or more, nothing changes and the score is 0. Raises
    ValueError where scores hold NaN or infinity.
    """
    if k == 0:
        return zeros_of(layers), None
    ranked = scored(layers, scores)
    cutoff = kth_smallest(ranked, k)
    if cutoff.value <= 0 and (zeros := zeros_of(layers)) >= k:
        return zeros, 0.0
    zero_smallest(ranked, k, cutoff)
    return k, cutoff.value


def zeros_of(layers: Sequence[Layer]) -> int:
    """Weights that are zero."""
    return sum(layer.weight.numel() - int(layer.weight.count_nonzero()) for layer in layers)


def _from_gradients(
    criterion: Taylor | Snip | Fisher, layers: Sequence[Layer], calibration: Calibration
) -> Scores:
    means, score = _GRADIENTS[criterion.kind]
    totals = means(layers, calibration, criterion.samples)
    for layer in layers:  # one after the other, so that scores take the place of gradients
        totals[layer.name] = score(layer.weight.detach().float(), totals[layer.name])
    refuse_vanished(totals)
    if isinstance(criterion, Snip):
        normalise(totals.values())
    return {name: stored(flat_weights(values)) for name, values in totals.items()}


_GRADIENTS: dict[
    str,
    tuple[Callable[[Sequence[Layer], Calibration, int], Means], Callable[[Tensor, Tensor], Tensor]],
] = {
    "taylor": (mean_absolute_gradients, taylor),
    "snip": (mean_gradients, snip),
    "fisher": (mean_squared_gradients, fisher),
}
