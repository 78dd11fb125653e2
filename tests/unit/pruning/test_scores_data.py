"""Criteria that measure the model, against hand cases and against autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from schemas.method import Unstructured
from tests.unit.pruning.cuts import calibrated, cut_to, layer_of
from tests.unit.pruning.small import small_module
from workers.pruning.calibration import drawn
from workers.pruning.gradients import mean_absolute_gradients, mean_gradients, mean_squared_gradients
from workers.pruning.layers import Choice, prunable_layers
from workers.pruning.scores.gradient import fisher, normalise, snip, taylor
from workers.pruning.scores.lamp import lamp
from workers.pruning.scores.movement import MovementScores
from workers.pruning.scores.score import LOWEST, stored
from workers.pruning.scores.wanda import wanda

METHOD = Unstructured(criterion={"kind": "movement"})
WEIGHT = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
MEAN = torch.tensor([[3.0, -1.0], [0.0, 0.25]])


def test_taylor_and_snip_are_weight_times_gradient():
    assert taylor(WEIGHT, MEAN.abs()).tolist() == [[3, 2], [0, 1]]
    assert snip(WEIGHT, MEAN).tolist() == [[3, 2], [0, 1]]


def test_fisher_is_the_squared_weight_times_the_squared_gradient():
    assert fisher(WEIGHT, MEAN.square()).tolist() == [[9, 4], [0, 1]]


def test_snip_is_a_share_of_all_layers():
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([[5.0]])

    normalise([first, second])

    assert first.tolist() == [0.125, 0.25]
    assert second.tolist() == [[0.625]]


def test_wanda_multiplies_each_input_with_its_norm():
    weight = torch.tensor([[[1.0, -2.0, 3.0, 4.0], [10, 20, 30, -40]]])
    norms = torch.tensor([[100.0, 10, 1, 0.1]])

    scores = wanda(weight, norms)

    assert torch.allclose(scores, torch.tensor([[[100.0, 20, 3, 0.4], [1000, 200, 30, 4]]]))


def test_lamp_is_the_square_over_the_squares_that_are_not_smaller():
    scores = lamp(torch.tensor([2.0, -1.0, 3.0]))

    assert torch.allclose(scores.square(), torch.tensor([1 / 14, 4 / 13, 1.0]))


def test_of_equal_weights_the_later_has_the_larger_lamp_score():
    scores = lamp(torch.tensor([2.0, -2.0, 1.0, 0.0]))

    assert torch.allclose(scores.square(), torch.tensor([0.0, 1 / 9, 4 / 8, 1.0]))


def test_lamp_of_tiny_weights_does_not_underflow():
    scores = lamp(torch.tensor([1e-40, 3e-40, 2e-40]))

    assert torch.allclose(scores.square(), torch.tensor([1 / 14, 4 / 13, 1.0]), rtol=1e-4)


def test_lamp_of_a_layer_of_zeros_is_zero():
    assert lamp(torch.zeros(3)).tolist() == [0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), max_size=40))
def test_lamp_rises_with_magnitude_and_leaves_the_weights_alone(values: list[float]):
    weights = torch.tensor(values)
    before = weights.clone()

    scores = lamp(weights)

    assert torch.equal(weights, before)
    assert len(scores) == len(weights)
    assert (scores.diff() >= 0).all()
    assert not weights.any() or float(scores[-1]) == 1


def test_a_stored_score_is_read_in_parts_and_by_strides():
    scores, weights = torch.arange(6.0), torch.tensor([1.0, 0, 1, 1, 1, 1])
    part, thin = torch.empty(3), torch.empty(2)

    stored(scores)(weights[1:4], slice(1, 4), part)
    stored(scores)(weights[::4], slice(None, None, 4), thin)

    assert part.tolist() == pytest.approx([LOWEST, 2, 3])
    assert thin.tolist() == [0, 4]


def autograd(module: nn.Module, *, batch: int) -> list[list[Tensor]]:
    """By layer, the gradient of the mean loss of each batch, by plain autograd."""
    calibration = calibrated(module)
    split = drawn(calibration.bundle.train, 48, seed=0)
    layers = prunable_layers(module)
    found: list[list[Tensor]] = [[] for _ in layers]
    for start in range(0, len(split), batch):
        part = split.take(torch.arange(start, min(start + batch, len(split))))
        loss = nn.functional.cross_entropy(module(part.inputs["pixel_values"]), part.labels)
        for kept, gradient in zip(
            found, torch.autograd.grad(loss, [layer.weight for layer in layers]), strict=True
        ):
            kept.append(gradient)
    return found


@pytest.mark.parametrize(
    ("means", "batch", "of"),
    [
        (mean_gradients, 16, lambda parts: torch.stack(parts).mean(dim=0)),
        (mean_absolute_gradients, 16, lambda parts: torch.stack(parts).abs().mean(dim=0)),
        (mean_squared_gradients, 1, lambda parts: torch.stack(parts).square().mean(dim=0)),
    ],
)
def test_streamed_means_equal_those_of_autograd(means, batch, of):
    module = small_module()
    layers = prunable_layers(module)

    streamed = means(layers, calibrated(module), 48)

    for layer, parts in zip(layers, autograd(module, batch=batch), strict=True):
        assert torch.allclose(streamed[layer.name], of(parts), rtol=1e-4, atol=1e-7)


def test_movement_sums_minus_weight_times_gradient():
    layer = layer_of(nn.Linear(2, 1, bias=False))
    movement = MovementScores()
    for values, gradient in (([1.0, -2.0], [3.0, 1.0]), ([2.0, -1.0], [-1.0, 2.0])):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([values]))
        layer.weight.grad = torch.tensor([gradient])
        movement.update([layer])

    assert movement.of(layer).tolist() == [[-3 + 2, 2 + 2]]


def test_movement_skips_a_step_whose_gradient_overflowed():
    layer = layer_of(nn.Linear(2, 1, bias=False))
    movement = MovementScores()
    layer.weight.grad = torch.tensor([[float("inf"), 1.0]])

    movement.update([layer])

    assert movement.is_empty


def test_movement_of_a_layer_that_never_learned_is_zero():
    trained, frozen = prunable_layers(nn.Sequential(nn.Linear(2, 1), nn.Conv2d(1, 1, 2)))
    movement = MovementScores()
    trained.weight.grad = torch.ones(1, 2)

    movement.update([trained])

    assert not movement.is_empty
    assert not movement.of(frozen).any()


def test_channels_last_weights_are_cut_where_their_own_scores_are_low():
    plain = small_module()
    last = small_module().to(memory_format=torch.channels_last)
    for module in (plain, last):
        choice = Choice(tuple(prunable_layers(module)), {})
        movement = MovementScores()
        for layer in choice.layers:
            generator = torch.Generator().manual_seed(layer.weight.numel())
            layer.weight.grad = torch.randn(layer.weight.shape, generator=generator)
        movement.update(choice.layers)
        cut_to(choice, 0.6, METHOD, movement=movement)

    assert last[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain[3].weight, last[3].weight)
