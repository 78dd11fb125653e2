"""A cut of a model: the exact share, round after round."""

import pytest
import torch
from torch.nn.utils import prune

from schemas.allocation import GlobalAllocation, UniformAllocation
from schemas.criteria import Magnitude, Random
from schemas.method import Unstructured
from tests.unit.pruning.small import small_module
from workers.pruning.cut import cut, zeros_of
from workers.pruning.layers import choose, prunable_layers

WEIGHTS = 72 + 1728 + 72
UNIFORM = UniformAllocation(keep_first_and_last=False)


def chosen(module=None, **method):
    return choose(prunable_layers(module or small_module()), Unstructured(**method))


@pytest.mark.parametrize("criterion", [Magnitude(norm=1), Magnitude(norm=2), Random()])
@pytest.mark.parametrize("sparsity", [0.0001, 0.3, 0.8, 0.999])
def test_a_global_cut_zeroes_exactly_the_share_asked_for(criterion, sparsity: float):
    choice = chosen()

    result = cut(choice, criterion, GlobalAllocation(), sparsity, seed=0, number=1)

    assert result.zeros == zeros_of(choice.pruned) == round(sparsity * WEIGHTS)
    assert result.weights == WEIGHTS


def test_a_global_cut_equals_that_of_torch():
    module, reference = small_module(), small_module()
    parameters = [(layer.module, "weight") for layer in prunable_layers(reference)]

    cut(chosen(module), Magnitude(), GlobalAllocation(), 0.8, seed=0, number=1)
    prune.global_unstructured(parameters, pruning_method=prune.L1Unstructured, amount=0.8)

    for layer, (part, _) in zip(prunable_layers(module), parameters, strict=True):
        assert torch.equal(layer.weight, part.weight)


def test_the_threshold_is_the_largest_weight_that_went():
    before = torch.cat([layer.weight.detach().abs().view(-1) for layer in prunable_layers(small_module())])

    result = cut(chosen(), Magnitude(), GlobalAllocation(), 0.5, seed=0, number=1)

    assert result.threshold == float(before.sort().values[round(0.5 * WEIGHTS) - 1])


def test_a_uniform_cut_zeroes_the_share_in_each_layer():
    choice = chosen(allocation=UNIFORM)

    result = cut(choice, Magnitude(), UNIFORM, 0.7, seed=0, number=1)

    assert [zeros_of([layer]) for layer in choice.pruned] == [round(0.7 * n) for n in (72, 1728, 72)]
    assert result.zeros == zeros_of(choice.pruned)
    assert result.threshold is None


def test_layers_left_dense_keep_their_weights():
    module = small_module()
    before = module[8].weight.clone()

    cut(chosen(module, exclude=("8",)), Magnitude(), GlobalAllocation(), 0.9, seed=0, number=1)

    assert torch.equal(module[8].weight, before)


@pytest.mark.parametrize("criterion", [Magnitude(), Random()])
def test_what_was_cut_stays_cut_in_later_rounds(criterion):
    choice = chosen()
    gone = None

    for number, sparsity in enumerate((0.2, 0.5, 0.8), start=1):
        cut(choice, criterion, GlobalAllocation(), sparsity, seed=0, number=number)
        zeros = [layer.weight == 0 for layer in choice.pruned]
        assert gone is None or all((old <= new).all() for old, new in zip(gone, zeros, strict=True))
        gone = zeros


@pytest.mark.parametrize("sparsity", [0.0001, 0.5])
def test_a_smaller_share_than_is_zero_already_changes_nothing(sparsity: float):
    choice = chosen()
    cut(choice, Magnitude(), GlobalAllocation(), 0.8, seed=0, number=1)

    result = cut(choice, Magnitude(), GlobalAllocation(), sparsity, seed=0, number=2)

    assert result.zeros == zeros_of(choice.pruned) == round(0.8 * WEIGHTS)


def test_the_same_seed_cuts_the_same_random_weights():
    first, second, other = small_module(), small_module(), small_module()

    for module, seed in ((first, 1), (second, 1), (other, 2)):
        cut(chosen(module), Random(), GlobalAllocation(), 0.5, seed=seed, number=1)

    assert torch.equal(first[3].weight, second[3].weight)
    assert not torch.equal(first[3].weight, other[3].weight)
