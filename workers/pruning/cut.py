"""One cut: the weights of the chosen layers that count least become zero, in place. A zero is the mask."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from schemas.allocation import (
    Allocation,
    ErkAllocation,
    GlobalAllocation,
    LampAllocation,
    SensitivityAllocation,
    UniformAllocation,
)
from schemas.criteria import Criterion, Hessian, SparseGpt, Wanda
from schemas.method import SemiStructured, Unstructured
from schemas.report import Curve
from workers.errors import PreflightError
from workers.pruning.activations import input_norms
from workers.pruning.allocation import (
    Group,
    erk_zeros,
    lamp_zeros,
    overridden_zeros,
    ranked_groups,
    uniform_zeros,
)
from workers.pruning.calibration import Calibration
from workers.pruning.layers import Choice, Layer
from workers.pruning.pattern import cut_to_pattern
from workers.pruning.rows import cut_rows
from workers.pruning.scores.movement import MovementScores
from workers.pruning.scoring import Scores, cut_together, needed, scores_of, zeros_of
from workers.pruning.second_order.obs import obs
from workers.pruning.second_order.sparsegpt import sparsegpt
from workers.pruning.sensitivity import sensitivity_curves, zeros_at_least_loss

__all__ = ["CutResult", "cut", "zeros_of"]

_ROUNDING = 2e-6
"""A spec may give the sparsity of a pattern with six digits: 0.666667 for 1:3."""


class _Zeroing(Protocol):
    """Zeroes `k` weights of some layers: (zeros afterwards, the threshold if there is one)."""

    def __call__(self, layers: Sequence[Layer], k: int) -> tuple[int, float | None]: ...


@dataclass(frozen=True)
class CutResult:
    """Zeros among the weights of the pruned layers, the one threshold if there is one, curves where they were
    measured, and what a reader of the report must know."""

    zeros: int
    weights: int
    threshold: float | None
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.weights


@dataclass(frozen=True)
class _Given:
    """What a cut may draw on."""

    calibration: Calibration | None
    evaluate: Callable[[], float] | None
    movement: MovementScores | None
    seed: int
    number: int


@torch.no_grad()
def cut(
    choice: Choice,
    method: Unstructured | SemiStructured,
    share: float,
    *,
    calibration: Calibration | None,
    evaluate: Callable[[], float] | None,
    movement: MovementScores | None,
    seed: int,
    number: int,
    progress: float = 1.0,
) -> CutResult:
    """Cut to `share` in round `number`: exactly round(share · N) of the N weights of the layers are zero.

    Weights that are zero already go first, so masks only grow from round to round; where more than asked for
    are zero already, nothing changes. `evaluate` gives the metric, larger is better, for allocation
    'sensitivity'. `movement` has seen the training so far; before its first step, magnitude decides.
    `progress` is how far the round is on the way to the goal: the shares of `method.overrides` grow with it.
    A pattern of N:M is whole once `share` reaches what it makes; before, each layer loses the same share.

    Raises PreflightError where samples, a metric or a way to the share are missing, ValueError where weights
    hold NaN or infinity.
    """
    given = _Given(calibration, evaluate, movement, seed, number)
    layers = choice.pruned
    if isinstance(method, SemiStructured):
        return _cut_to_pattern(layers, method, share, given)
    return _cut_weights(layers, method, share, given, progress)


def _cut_weights(
    layers: list[Layer], method: Unstructured, share: float, given: _Given, progress: float
) -> CutResult:
    _refuse_cap_on_hessian(method)
    total = round(share * sum(layer.weight.numel() for layer in layers))
    zero, scores = _zeroing(layers, method, given)
    fixed = overridden_zeros(layers, method.overrides, total, progress=progress)
    groups: list[Group] = [([layer], fixed[layer.name]) for layer in layers if layer.name in fixed]
    rest = [layer for layer in layers if layer.name not in fixed]
    curves: list[Curve] = []
    if rest:
        total -= sum(max(k, zeros_of(group)) for group, k in groups)
        shared, curves = _share_out(rest, method.allocation, max(total, 0), zero, scores, given)
        groups += shared
    if isinstance(method.criterion, SparseGpt | Hessian):
        return _solved(layers, method.criterion, groups, curves, given)
    results = [zero(group, k) for group, k in groups]
    return CutResult(
        zeros=sum(zeros for zeros, _ in results),
        weights=sum(layer.weight.numel() for layer in layers),
        threshold=results[0][1] if len(results) == 1 else None,
        curves=curves,
    )


def _refuse_cap_on_hessian(method: Unstructured) -> None:
    allocation = method.allocation
    if (
        isinstance(method.criterion, Hessian)
        and isinstance(allocation, GlobalAllocation)
        and allocation.cap < 1
    ):
        raise PreflightError(
            "method.allocation.cap cannot be held with criterion 'hessian', which ranks all layers by "
            "itself: leave cap at 1, or use allocation 'erk' or 'uniform'"
        )


def _zeroing(layers: list[Layer], method: Unstructured, given: _Given) -> tuple[_Zeroing, Scores]:
    """What zeroes so many weights of a group of layers, and the scores by which it does."""
    criterion = method.criterion
    if isinstance(criterion, Wanda):
        return partial(_cut_rows, norms=_norms(layers, criterion, given)), {}
    scores = _scores(layers, criterion, given)
    return partial(cut_together, scores=scores), scores


def _cut_rows(layers: Sequence[Layer], k: int, *, norms: Mapping[str, Tensor]) -> tuple[int, float | None]:
    return sum(cut_rows(layer, norms[layer.name], k) for layer in layers), None


def _share_out(
    layers: list[Layer], allocation: Allocation, total: int, zero: _Zeroing, scores: Scores, given: _Given
) -> tuple[list[Group], list[Curve]]:
    """`total` zeros over the layers; curves where they were measured for it."""
    if isinstance(allocation, GlobalAllocation):
        return ranked_groups(layers, scores, total, cap=allocation.cap), []
    zeros = [zeros_of([layer]) for layer in layers]
    total = max(total, sum(zeros))
    curves: list[Curve] = []
    if isinstance(allocation, UniformAllocation):
        counts = uniform_zeros(layers, total, zeros)
    elif isinstance(allocation, LampAllocation):
        counts = lamp_zeros(layers, total)
    elif isinstance(allocation, ErkAllocation):
        counts = erk_zeros(layers, total, zeros)
    else:
        curves, whole = _measured(layers, allocation, zero, given.evaluate)
        sizes = [layer.weight.numel() for layer in layers]
        counts = zeros_at_least_loss(curves, sizes, zeros, total, whole=whole)
    return [([layer], count) for layer, count in zip(layers, counts, strict=True)], curves


def _measured(
    layers: list[Layer],
    allocation: SensitivityAllocation,
    zero: _Zeroing,
    evaluate: Callable[[], float] | None,
) -> tuple[list[Curve], float]:
    """Each layer's curve, and the metric of the model as it is."""
    if evaluate is None:
        raise PreflightError(
            "method.allocation 'sensitivity' measures the metric on calibration samples, and there are none "
            "here: use 'global' or 'erk'"
        )
    curves = sensitivity_curves(
        layers, allocation.shares, evaluate, on_layer=lambda *_: None, zero=lambda layer, k: zero([layer], k)
    )
    return curves, evaluate()


def _solved(
    layers: list[Layer],
    criterion: SparseGpt | Hessian,
    groups: list[Group],
    curves: list[Curve],
    given: _Given,
) -> CutResult:
    """With a criterion that moves what stays; it prunes by itself."""
    calibration = needed(given.calibration, criterion)
    if isinstance(criterion, SparseGpt):
        shares = {layer.name: k / layer.weight.numel() for (layer,), k in groups}
        notes = sparsegpt(
            layers,
            calibration,
            samples=criterion.samples,
            block=criterion.block,
            damp=criterion.damp,
            shares=shares,
            nm=None,
        )
    else:
        notes = obs(
            groups, calibration, samples=criterion.samples, block=criterion.block, damp=criterion.damp
        )
    weights = sum(layer.weight.numel() for layer in layers)
    return CutResult(zeros_of(layers), weights, None, curves, notes)


def _cut_to_pattern(layers: list[Layer], method: SemiStructured, share: float, given: _Given) -> CutResult:
    criterion, n, m = method.criterion, method.n, method.m
    weights = sum(layer.weight.numel() for layer in layers)
    if isinstance(criterion, SparseGpt):
        return _solved_to_pattern(layers, criterion, method, share, given)
    norms = _norms(layers, criterion, given) if isinstance(criterion, Wanda) else {}
    scores = _scores(layers, criterion, given)
    total = weights if share >= method.sparsity - _ROUNDING else round(share * weights)
    zeros = cut_to_pattern(layers, n, m, total, scores=scores, norms=norms)
    return CutResult(zeros, weights, None)


def _solved_to_pattern(
    layers: list[Layer], criterion: SparseGpt, method: SemiStructured, share: float, given: _Given
) -> CutResult:
    if share < method.sparsity - _ROUNDING:
        raise PreflightError(
            f"method.criterion 'sparsegpt' makes {method.n}:{method.m} at once: use schedule 'one_shot', or "
            "criterion 'wanda'"
        )
    notes = sparsegpt(
        layers,
        needed(given.calibration, criterion),
        samples=criterion.samples,
        block=criterion.block,
        damp=criterion.damp,
        shares={},
        nm=(method.n, method.m),
    )
    return CutResult(zeros_of(layers), sum(layer.weight.numel() for layer in layers), None, [], notes)


def _norms(layers: list[Layer], criterion: Wanda, given: _Given) -> dict[str, Tensor]:
    return input_norms(layers, needed(given.calibration, criterion), criterion.samples)


def _scores(layers: list[Layer], criterion: Criterion, given: _Given) -> Scores:
    return scores_of(
        criterion,
        layers,
        calibration=given.calibration,
        movement=given.movement,
        seed=given.seed,
        number=given.number,
    )
