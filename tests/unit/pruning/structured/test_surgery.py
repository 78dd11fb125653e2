"""Units leave every tensor that knows them, and what remains runs, learns and computes the same."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.pruning.structured import graphs
from workers.errors import PreflightError
from workers.pruning.structured.graph import Removal
from workers.pruning.structured.masked import defined, mask_units
from workers.pruning.structured.surgery import remove


def half(case: graphs.Case) -> Removal:
    """Every other unit of each group, beginning with the first."""
    return {group.name: np.arange(0, group.size, 2) for group in case.graph.groups}


@pytest.mark.parametrize("name", graphs.CASES)
def test_the_pruned_model_gives_what_the_masked_dense_one_gives(name: str):
    case = graphs.CASES[name]()
    removal = half(case)
    masked, pruned = copy.deepcopy(case.module), copy.deepcopy(case.module)

    mask_units(masked, case.graph, removal)
    remove(pruned, case.graph, removal)

    with torch.no_grad():
        difference = (case.output(masked) - case.output(pruned)).abs().max()
        moved = (case.output() - case.output(pruned)).abs().max()
    assert (difference < 1e-5) == defined(case.graph, removal)
    assert moved > 1e-4


@pytest.mark.parametrize("name", graphs.CASES)
def test_the_pruned_model_learns(name: str):
    case = graphs.CASES[name]()
    remove(case.module, case.graph, half(case))
    case.module.train()
    optimizer = torch.optim.SGD(case.module.parameters(), lr=0.01)
    before = case.output().square().mean()

    before.backward()
    optimizer.step()

    assert case.output().square().mean() < before


def test_the_right_rows_and_columns_stay():
    case = graphs.mlp()
    first, bias, second = (
        case.module[0].weight.clone(),
        case.module[0].bias.clone(),
        case.module[2].weight.clone(),
    )

    remove(case.module, case.graph, {"0": np.array([1, 6])})

    stays = [0, 2, 3, 4, 5, 7]
    assert torch.equal(case.module[0].weight, first[stays])
    assert torch.equal(case.module[0].bias, bias[stays])
    assert torch.equal(case.module[2].weight, second[:, stays])


def test_buffers_lose_their_channels_too():
    case = graphs.residual()
    mean, variance = case.module.first_norm.running_mean.clone(), case.module.first_norm.running_var.clone()

    remove(case.module, case.graph, {"first": np.arange(12)})

    assert torch.equal(case.module.first_norm.running_mean, mean[12:])
    assert torch.equal(case.module.first_norm.running_var, variance[12:])
    assert "running_mean" in case.module.first_norm.state_dict()


def test_a_fused_weight_loses_the_same_heads_of_query_key_and_value():
    case = graphs.gpt2()
    fused = case.module.transformer.h[0].attn.c_attn.weight.clone().unflatten(1, (3, 4, 4))

    remove(case.module, case.graph, {"transformer.h.0.attn": np.array([0, 2])})

    left = case.module.transformer.h[0].attn.c_attn.weight.unflatten(1, (3, 2, 4))
    assert torch.equal(left, fused[:, :, [1, 3]])


def test_an_axis_of_two_groups_loses_the_units_of_both():
    case = graphs.concatenated()
    columns = case.module.last.weight.clone()

    remove(case.module, case.graph, {"one": np.array([0, 3]), "two": np.array([5])})

    assert torch.equal(case.module.last.weight, columns[:, [1, 2, 4, 5, 6, 7, 8]])


class Tied(nn.Module):
    """An embedding whose weight is the output layer's too, as in most language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(10, 6), nn.Linear(6, 10, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.output(self.embedding(input))


def test_a_tensor_that_two_modules_share_is_cut_once_and_stays_shared():
    module = Tied()
    both = [graphs.axis(f"{name}.weight", 1, "out", range(6)) for name in ("embedding", "output")]

    remove(module, graphs.graph(graphs.group("embedding", "hidden", both)), {"embedding": np.array([0, 1])})

    assert module.embedding.weight is module.output.weight
    assert module.output.weight.shape == (10, 4)
    assert (module.embedding.embedding_dim, module.output.in_features) == (4, 4)
    assert module(torch.tensor([3])).shape == (1, 10)


def test_a_module_that_is_used_under_two_names_is_cut_once():
    shared = nn.Linear(4, 4)
    module = nn.ModuleDict({"one": shared, "two": shared})

    remove(
        module, graphs.graph(graphs.group("two", "neurons", graphs.layer("two", 4))), {"two": np.array([3])}
    )

    assert module["one"] is module["two"]
    assert module["one"].weight.shape == (3, 4)


def test_kind_flags_and_marks_of_a_parameter_stay_and_gradients_go():
    case = graphs.mlp()
    case.module[0].to(torch.float64)
    case.module[2].weight.requires_grad_(False)
    case.module[2].weight.origin = "hub"
    case.module[2].bias.grad = torch.ones(3)

    remove(case.module, case.graph, {"0": np.array([0])})

    assert case.module[0].weight.dtype == torch.float64
    assert case.module[0].weight.requires_grad
    assert not case.module[2].weight.requires_grad
    assert case.module[2].weight.origin == "hub"
    assert all(parameter.grad is None for parameter in case.module.parameters())


def test_a_group_never_loses_all_of_its_units():
    case = graphs.mlp()

    with pytest.raises(PreflightError, match="all 8 units of '0' would go"):
        remove(case.module, case.graph, {"0": np.arange(8)})

    assert case.output().shape == (5, 3)


def test_a_grouped_convolution_is_not_made_uneven():
    module = nn.Sequential(nn.Conv2d(4, 8, 1, groups=2))
    case = graphs.graph(graphs.group("0", "channels", graphs.layer("0", 8)))

    with pytest.raises(PreflightError, match="groups stay equally wide or go whole"):
        remove(module, case, {"0": np.array([0])})

    assert module[0].weight.shape[0] == 8


@pytest.mark.parametrize(("name", "units"), [("nothing", [0]), ("0", [8]), ("0", [-1])])
def test_what_the_model_does_not_have_cannot_go(name: str, units: list[int]):
    case = graphs.mlp()

    with pytest.raises(ValueError, match=r"has no group|has units 0 to 7"):
        remove(case.module, case.graph, {name: np.array(units)})


def test_a_surgery_of_nothing_changes_nothing():
    case = graphs.residual()
    before = copy.deepcopy(case.module.state_dict())

    surgery = remove(case.module, case.graph, {"stem": np.array([], dtype=np.int64)})

    assert surgery.cuts == surgery.changes == ()
    assert all(torch.equal(value, before[name]) for name, value in case.module.state_dict().items())


def test_two_rounds_take_what_one_round_takes():
    once, twice = graphs.mlp(), graphs.mlp()

    remove(once.module, once.graph, {"0": np.array([0, 5, 7])})
    remove(twice.module, twice.graph, {"0": np.array([0, 7])})
    smaller = graphs.graph(graphs.group("0", "neurons", graphs.layer("0", 6) + graphs.reader("2", 6)))
    remove(twice.module, smaller, {"0": np.array([4])})

    assert torch.equal(once.output(), twice.output())
