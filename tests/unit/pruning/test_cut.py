"""A cut of a model: the exact share, round after round."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from schemas.criteria import Magnitude
from schemas.method import Unstructured
from tests.unit.pruning.cuts import (
    ERK,
    LAMP,
    UNIFORM,
    WEIGHTS,
    calibrated,
    chosen,
    cut_module,
    cut_to,
    grew,
    masks,
    nudged,
    zeros,
)
from tests.unit.pruning.small import small_module
from workers.errors import PreflightError
from workers.pruning.cut import zeros_of
from workers.pruning.layers import prunable_layers
from workers.pruning.scores.movement import MovementScores

DATA_FREE = ("magnitude", "random")
GRADIENTS = ("taylor", "snip", "fisher")


def criterion(kind: str) -> dict:
    return {"kind": kind} | ({} if kind in (*DATA_FREE, "movement") else {"samples": 48})


@pytest.mark.parametrize("kind", [*DATA_FREE, *GRADIENTS])
@pytest.mark.parametrize("sparsity", [0.0001, 0.3, 0.8, 0.999])
def test_a_global_cut_zeroes_exactly_the_share_asked_for(kind: str, sparsity: float):
    module = small_module()

    result = cut_module(module, sparsity, criterion=criterion(kind))

    assert result.zeros == sum(zeros(module)) == round(sparsity * WEIGHTS)
    assert result.weights == WEIGHTS


def test_a_global_cut_equals_that_of_torch():
    module, reference = small_module(), small_module()
    parameters = [(layer.module, "weight") for layer in prunable_layers(reference)]

    cut_to(chosen(module), 0.8)
    prune.global_unstructured(parameters, pruning_method=prune.L1Unstructured, amount=0.8)

    for layer, (part, _) in zip(prunable_layers(module), parameters, strict=True):
        assert torch.equal(layer.weight, part.weight)


def test_the_norm_of_magnitude_makes_no_difference_to_single_weights():
    first, second = small_module(), small_module()

    cut_module(first, 0.6, criterion=Magnitude(norm=1))
    cut_module(second, 0.6, criterion=Magnitude(norm=2))

    assert torch.equal(first[3].weight, second[3].weight)


def test_the_threshold_is_the_largest_weight_that_went():
    before = torch.cat([layer.weight.detach().abs().view(-1) for layer in prunable_layers(small_module())])

    result = cut_to(chosen(), 0.5)

    assert result.threshold == float(before.sort().values[round(0.5 * WEIGHTS) - 1])


@pytest.mark.parametrize("kind", [*DATA_FREE, *GRADIENTS, "wanda"])
def test_a_uniform_cut_zeroes_the_share_in_each_layer(kind: str):
    module = small_module()

    result = cut_module(module, 0.7, criterion=criterion(kind), allocation=UNIFORM)

    assert all(abs(k - 0.7 * n) < 1 for k, n in zip(zeros(module), (72, 1728, 72), strict=True))
    assert result.zeros == sum(zeros(module)) == round(0.7 * WEIGHTS)
    assert result.threshold is None


def test_layers_left_dense_keep_their_weights():
    module = small_module()
    before = module[8].weight.clone()

    cut_to(chosen(module, exclude=("8",)), 0.9)

    assert torch.equal(module[8].weight, before)


GLOBAL = {"kind": "global"}
ALONE = [(kind, allocation) for kind in (*DATA_FREE, *GRADIENTS, "wanda") for allocation in (UNIFORM, ERK)]
RANKED = [(kind, GLOBAL | {"cap": cap}) for kind in (*DATA_FREE, *GRADIENTS) for cap in (0.82, 1)]
SOLVED = [("hessian", GLOBAL), ("hessian", ERK), ("sparsegpt", UNIFORM), ("sparsegpt", ERK)]


@pytest.mark.parametrize(("kind", "allocation"), [*ALONE, *RANKED, *SOLVED])
def test_what_was_cut_stays_cut_in_later_rounds(kind: str, allocation: dict):
    module = small_module()

    for number, sparsity in enumerate((0.21, 0.5, 0.501, 0.8), start=1):
        before = masks(module)
        cut_module(module, sparsity, number=number, criterion=criterion(kind), allocation=allocation)

        assert grew(before, masks(module))
        assert sum(zeros(module)) == round(sparsity * WEIGHTS)
        nudged(module, seed=number)


@pytest.mark.parametrize("allocation", [{"kind": "global"}, UNIFORM, ERK, LAMP])
def test_the_same_cut_again_changes_nothing(allocation: dict):
    module = small_module()
    cut_module(module, 0.7, allocation=allocation)
    before = masks(module)

    result = cut_module(module, 0.7, number=2, allocation=allocation)

    assert all(map(torch.equal, before, masks(module)))
    assert result.zeros == round(0.7 * WEIGHTS)


@pytest.mark.parametrize("sparsity", [0.0001, 0.5])
@pytest.mark.parametrize("kind", ["magnitude", "taylor"])
def test_a_smaller_share_than_is_zero_already_changes_nothing(sparsity: float, kind: str):
    module = small_module()
    cut_module(module, 0.8)

    result = cut_module(module, sparsity, number=2, criterion=criterion(kind))

    assert result.zeros == sum(zeros(module)) == round(0.8 * WEIGHTS)


def test_weights_without_gradient_go_after_those_that_are_zero():
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        module[1].bias[:4] = -1e3  # dead units: no gradient reaches their weights
        module[3].weight[0, :4] = 0

    cut_module(module, 4 / 312, criterion=criterion("snip"))

    assert zeros(module) == [0, 4]


@pytest.mark.parametrize("kind", GRADIENTS)
def test_scores_that_vanish_though_gradients_do_not_are_refused(kind: str):
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    nn.init.zeros_(module[1].weight)  # as a fresh head is in some models

    with pytest.raises(PreflightError, match="vanishes at every weight"):
        cut_module(module, 0.5, criterion=criterion(kind))


def test_the_same_seed_cuts_the_same_random_weights():
    first, second, other = small_module(), small_module(), small_module()
    method = Unstructured(criterion={"kind": "random"})

    for module, seed in ((first, 1), (second, 1), (other, 2)):
        cut_to(chosen(module), 0.5, method, seed=seed)

    assert torch.equal(first[3].weight, second[3].weight)
    assert not torch.equal(first[3].weight, other[3].weight)


@pytest.mark.parametrize("kind", [*GRADIENTS, "wanda"])
def test_a_criterion_that_needs_samples_says_so(kind: str):
    method = Unstructured.model_validate({"criterion": criterion(kind), "allocation": UNIFORM})

    with pytest.raises(PreflightError, match=rf"method\.criterion '{kind}'"):
        cut_to(chosen(), 0.5, method)


def test_criteria_that_move_weights_share_out_by_overrides_too():
    for kind in ("hessian", "sparsegpt"):
        module = small_module()

        cut_module(module, 0.6, criterion=criterion(kind), allocation=ERK, overrides={"0": 0.25, "8": 0.5})

        assert zeros(module) == [18, round(0.6 * WEIGHTS) - 18 - 36, 36]


def test_a_cap_that_the_hessian_cannot_hold_is_refused():
    with pytest.raises(PreflightError, match=r"method\.allocation\.cap"):
        cut_module(
            small_module(), 0.5, criterion=criterion("hessian"), allocation={"kind": "global", "cap": 0.9}
        )


def test_an_allocation_that_needs_the_metric_says_so():
    with pytest.raises(PreflightError, match=r"method\.allocation 'sensitivity'"):
        cut_module(small_module(), 0.5, allocation={"kind": "sensitivity"})


def test_movement_cuts_what_shrank_and_keeps_what_grew():
    module = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
    choice, movement = chosen(module), MovementScores()
    module.weight.grad = torch.tensor([[1.0, 1.0, -1.0, -1.0]])  # a step shrinks the first two

    movement.update(choice.pruned)
    cut_to(choice, 0.5, Unstructured(criterion={"kind": "movement"}), movement=movement)

    assert module.weight.tolist() == [[0, 0, 2, 1]]


def test_movement_that_has_seen_no_step_cuts_by_magnitude():
    first, second = small_module(), small_module()

    cut_to(chosen(first), 0.5, Unstructured(criterion={"kind": "movement"}), movement=MovementScores())
    cut_to(chosen(second), 0.5)

    assert torch.equal(first[3].weight, second[3].weight)


VALUES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1e-42, -1e-42, 0.5, 1.0, 3.0])


@st.composite
def networks(draw: st.DrawFn) -> nn.ModuleList:
    """Layers of any shape, with ties, zeros and denormals."""
    module = nn.ModuleList()
    for _ in range(draw(st.integers(1, 4))):
        inputs, outputs = draw(st.integers(1, 6)), draw(st.integers(1, 6))
        part = nn.Linear(inputs, outputs) if draw(st.booleans()) else nn.Conv2d(inputs, outputs, (1, 2))
        values = draw(st.lists(VALUES, min_size=part.weight.numel(), max_size=part.weight.numel()))
        with torch.no_grad():
            part.weight.copy_(torch.tensor(values).view(part.weight.shape))
        module.append(part)
    return module


@settings(max_examples=150, deadline=None)
@given(
    module=networks(),
    first=st.floats(0, 0.999),
    second=st.floats(0, 0.999),
    allocation=st.sampled_from([{"kind": "global"}, UNIFORM, ERK, LAMP]),
)
def test_any_layers_lose_exactly_the_share_whatever_is_zero_already(module, first, second, allocation):
    method = Unstructured(allocation=allocation)
    choice = chosen(module)
    weights = sum(layer.weight.numel() for layer in choice.pruned)

    for share in (first, second):
        before, kept = zeros_of(choice.pruned), masks(module)
        result = cut_to(choice, share, method)

        assert result.zeros == zeros_of(choice.pruned) == max(round(share * weights), before)
        assert grew(kept, masks(module))


@pytest.mark.parametrize("allocation", [{"kind": "global"}, UNIFORM, ERK, LAMP])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_without_an_order_are_refused(allocation: dict, bad: float):
    module = small_module()
    with torch.no_grad():
        module[3].weight[0, 0, 0, 0] = bad

    with pytest.raises(ValueError, match="NaN or infinity"):
        cut_module(module, 0.5, allocation=allocation)


def test_a_model_is_left_in_the_mode_it_was_in_and_without_gradients():
    module = small_module()
    calibration = calibrated(module)
    module.train()
    module[1].eval()
    choice = chosen(module)
    modes = [part.training for part in module.modules()]

    for kind in (*GRADIENTS, "wanda"):
        method = Unstructured.model_validate({"criterion": criterion(kind), "allocation": UNIFORM})
        cut_to(choice, 0.5, method, calibration=calibration)

    assert [part.training for part in module.modules()] == modes
    assert all(one.grad is None and one.requires_grad for one in module.parameters())
