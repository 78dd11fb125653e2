"""Zeros that move: as many as before, to where the loss wants them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from schemas.fine_tune import AdamW, FineTune, Rigl, Sgd
from tests.unit.pruning.small import small_bundle
from tests.unit.training.runs import STEPS, count, cut_to, gradual, pruned_model, train, zeros
from workers.pruning.layers import Layer
from workers.training.optimizer import optimizer_for
from workers.training.regrow import NUDGE, Regrowth, exchanged_mask

OPTIMIZERS = [Sgd(lr=0.05, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)]
OFTEN = {"every_steps": 2, "share": 0.3, "until": 0.75}


def one_layer(
    weight: list[float], gradient: list[float], **spec
) -> tuple[Layer, Regrowth, torch.optim.Optimizer]:
    """A linear layer in the middle of a training of 10 steps, with a gradient."""
    module = nn.Linear(len(weight), 1, bias=False)
    module.weight.data = torch.tensor([weight])
    module.weight.grad = torch.tensor([gradient])
    layer = Layer("only", module, module.weight, "Linear")
    optimizer = optimizer_for([module.weight], FineTune(optimizer=Sgd(lr=0.1, weight_decay=0)))
    spec = Rigl(**{"every_steps": 1, "share": 0.6, "until": 1.0, **spec})
    return layer, Regrowth(spec, [layer], optimizer, 10), optimizer


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_layer_keeps_its_number_of_zeros_and_not_their_places(optimizer):
    model, choice = pruned_model(0.7)
    before = zeros(choice)

    result = train(model, choice, epochs=4, optimizer=optimizer, regrow=OFTEN)

    after = zeros(choice)
    assert [int(mask.sum()) for mask in after] == [int(mask.sum()) for mask in before]
    assert not all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert result.regrown > 100


def test_zeros_keep_their_number_where_the_learning_rate_moves_nothing():
    model, choice = pruned_model(0.7)
    before = count(zeros(choice))

    result = train(model, choice, epochs=2, optimizer=Sgd(lr=1e-50), regrow=OFTEN)

    assert result.regrown > 0
    assert count(zeros(choice)) == before


def test_zeros_move_at_their_steps_only():
    model, choice = pruned_model(0.7)
    seen = [zeros(choice)]

    train(model, choice, epochs=4, regrow=OFTEN, on_step=lambda _: seen.append(zeros(choice)))

    moved = [
        step
        for step in range(4 * STEPS)
        if not all(torch.equal(*pair) for pair in zip(seen[step], seen[step + 1], strict=True))
    ]
    assert moved == [2, 4, 6, 8, 10, 12, 14, 16]  # of 24 steps; none from 0.75 on


def test_the_smallest_goes_and_the_zero_with_the_largest_gradient_returns():
    weight = torch.tensor([[0.1, -2.0, 3.0, 0.0, 0.0, 0.0]])
    gradient = torch.tensor([[0.5, 9.0, 9.0, 0.1, -0.7, 0.2]])

    assert exchanged_mask(weight, gradient, 0.4).tolist() == [[False, True, True, False, True, False]]


def test_a_weight_that_goes_and_is_wanted_most_keeps_its_value():
    layer, regrowth, _ = one_layer([0.1, -2.0, 3.0, 0.0], [0.5, 9.0, 9.0, 0.1], share=0.4)

    regrowth.mask_gradients(1)

    assert layer.weight.tolist() == [[pytest.approx(0.1), -2.0, 3.0, 0.0]]
    assert regrowth.exchanged == 0


def test_a_zero_without_gradient_never_returns():
    weight, gradient = torch.tensor([0.1, -2.0, 3.0, 0.0, 0.0]), torch.zeros(5)

    assert exchanged_mask(weight, gradient, 0.9).tolist() == [True, True, True, False, False]


WEIGHTS = st.sampled_from([0.0, -0.0, 1e-40, 0.5, -0.5, 3.0])
GRADIENTS = st.sampled_from([0.0, 1e-42, 1.0, -2.0])


@given(st.lists(st.tuples(WEIGHTS, GRADIENTS), min_size=1, max_size=60), st.floats(0.001, 0.999))
def test_an_exchange_keeps_the_number_of_live_weights_whatever_the_ties(pairs, share):
    weight = torch.tensor([one for one, _ in pairs])
    gradient = torch.tensor([one for _, one in pairs])

    stays = exchanged_mask(weight, gradient, share)

    live = weight != 0
    assert int(stays.sum()) == int(live.sum())
    assert not bool((stays & ~live & (gradient == 0)).any())
    assert int((live & ~stays).sum()) <= share * int(live.sum())


def test_a_new_weight_begins_at_zero_and_moves_against_its_gradient_at_once():
    layer, regrowth, optimizer = one_layer([0.1, -2.0, 0.0, 0.0], [0.0, 0.0, 0.3, -0.5])

    assert regrowth.mask_gradients(1)
    assert layer.weight.tolist() == [[0.0, -2.0, 0.0, 0.0]]
    optimizer.step()
    regrowth.settle()

    assert layer.weight[0, 3].item() == pytest.approx(0.1 * 1.9 * 0.5)  # Nesterov: g + 0.9 · g
    assert layer.weight[0, [0, 2]].tolist() == [0.0, 0.0]
    assert regrowth.exchanged == 1


def test_a_new_weight_that_does_not_move_still_counts_as_live():
    layer, regrowth, _ = one_layer([0.1, -2.0, 0.0, 0.0], [0.0, 0.0, 0.3, -0.5])

    regrowth.mask_gradients(1)
    regrowth.settle()

    assert layer.weight.tolist() == [[0.0, -2.0, 0.0, pytest.approx(NUDGE)]]


def test_nothing_moves_where_a_gradient_is_infinite():
    layer, regrowth, _ = one_layer([0.1, -2.0, 0.0, 0.0], [0.0, 0.0, float("inf"), -0.5])

    assert not regrowth.mask_gradients(1)

    assert layer.weight[0, 0].item() == pytest.approx(0.1)
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_the_exchanged_share_falls_as_a_cosine():
    spec = Rigl(every_steps=10, share=0.4, until=0.8)

    found = {step: share for step in range(100) if (share := spec.share_at(step, 100))}

    assert list(found) == [10, 20, 30, 40, 50, 60, 70]
    assert found[40] == pytest.approx(0.2)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_growing_mask_may_move_too():
    model, choice = pruned_model(0.0)

    result = train(model, choice, epochs=4, mask_updates=gradual(choice, 0.8, every_steps=4), regrow=OFTEN)

    assert count(zeros(choice)) == round(0.8 * 1872)
    assert result.regrown > 0


def test_learns_more_than_with_fixed_zeros_where_the_zeros_are_random():
    losses = []
    for regrow in (None, OFTEN):
        model, choice = pruned_model(0.0)
        generator = torch.Generator().manual_seed(0)
        random = [torch.rand(layer.weight.shape, generator=generator) for layer in choice.pruned]
        cut_to(choice, 0.9, random)
        losses.append(train(model, choice, small_bundle(), epochs=8, regrow=regrow).loss)

    assert losses[1] < losses[0] - 0.1
