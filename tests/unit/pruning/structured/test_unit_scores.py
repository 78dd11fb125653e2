"""Unit scores are the numbers that the papers define."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from schemas.criteria import BnScale, Fisher, GeometricMedian, Magnitude, Random, Taylor
from tests.unit.pruning.small import loaded, small_bundle
from tests.unit.pruning.structured import graphs
from workers.errors import PreflightError
from workers.pruning.calibration import Calibration
from workers.pruning.structured import scores
from workers.pruning.structured.graph import DependencyGraph


def test_magnitude_is_the_norm_of_all_that_a_unit_touches():
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    module[0].weight.data = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    module[0].bias.data = torch.tensor([2.0, -4.0])
    module[2].weight.data = torch.tensor([[4.0, 0.0]])
    group = graphs.group("0", "neurons", graphs.layer("0", 2) + graphs.reader("2", 2))

    assert scores.magnitude(module, [group], norm=1)["0"].tolist() == [1 + 2 + 2 + 4, 3 + 4]
    assert scores.magnitude(module, [group], norm=2)["0"].tolist() == [5, 5]


def test_a_head_counts_all_of_its_rows_wherever_they_are():
    case = graphs.gpt2()
    attention = case.module.transformer.h[0].attn

    found = scores.magnitude(case.module, case.graph.groups, norm=1)["transformer.h.0.attn"]

    fused = attention.c_attn.weight.abs().sum(0) + attention.c_attn.bias.abs()
    expected = fused.view(3, 4, 4).sum(dim=(0, 2)) + attention.c_proj.weight.abs().sum(1).view(4, 4).sum(1)
    assert np.allclose(found, expected.detach().numpy())


def test_positions_of_another_group_do_not_count():
    case = graphs.concatenated()

    found = scores.magnitude(case.module, case.graph.groups, norm=2)

    module = case.module
    parts = [
        module.two.weight,
        module.two.bias[:, None],
        module.norm.weight[4:, None],
        module.norm.bias[4:, None],
    ]
    squares = sum(
        part.flatten(1).square().sum(1) for part in [*parts, module.last.weight[:, 4:].transpose(0, 1)]
    )
    assert np.allclose(found["two"], squares.sqrt().detach().numpy())


def test_statistics_of_a_batch_norm_are_no_weights():
    case = graphs.residual()
    before = scores.magnitude(case.module, case.graph.groups, norm=2)

    case.module.first_norm.running_mean.fill_(1e6)

    after = scores.magnitude(case.module, case.graph.groups, norm=2)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_tensor_that_two_layers_share_counts_once():
    module = nn.ModuleDict({"one": nn.Linear(2, 3, bias=False), "two": nn.Linear(2, 3, bias=False)})
    module["two"].weight = module["one"].weight
    both = graphs.group(
        "one", "hidden", graphs.layer("one", 3, bias=False) + graphs.layer("two", 3, bias=False)
    )

    found = scores.magnitude(module, [both], norm=1)["one"]

    assert np.allclose(found, module["one"].weight.abs().sum(1).detach().numpy())


def test_the_query_heads_that_go_are_those_of_the_smallest_norm():
    case = graphs.llama(whole_groups=False)
    query = case.module.model.layers[0].self_attn.q_proj.weight
    for head in (0, 5):
        query.data[4 * head : 4 * head + 4] *= 0.01
        case.module.model.layers[0].self_attn.o_proj.weight.data[:, 4 * head : 4 * head + 4] *= 0.01

    found = scores.magnitude(case.module, case.graph.groups, norm=2)["model.layers.0.self_attn"]

    assert sorted(np.argsort(found)[:2].tolist()) == [0, 5]


def test_whole_groups_add_up_their_own_query_heads_and_no_others():
    case = graphs.llama()
    attention = case.module.model.layers[0].self_attn
    for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
        part.weight.data.zero_()
    attention.q_proj.weight.data[16:20] = 1.0

    found = scores.magnitude(case.module, case.graph.groups, norm=1)["model.layers.0.self_attn"]

    assert found.tolist() == [0, 4 * 32]


def test_bn_scale_is_the_sum_of_the_scales_behind_a_channel():
    case = graphs.residual()
    case.module.stem_norm.weight.data = torch.arange(8) - 4.0
    case.module.second_norm.weight.data = torch.ones(8)
    case.module.stem_norm.bias.data.fill_(9)

    found = scores.bn_scale(case.module, case.graph.groups)["stem"]

    assert found.tolist() == [5, 4, 3, 2, 1, 2, 3, 4]


def test_bn_scale_names_the_group_that_has_no_norm():
    case = graphs.mlp()

    with pytest.raises(PreflightError, match="'0' has none behind it"):
        scores.bn_scale(case.module, case.graph.groups)


def line_of_filters(values: list[float]) -> tuple[nn.Module, DependencyGraph]:
    module = nn.Sequential(nn.Linear(1, len(values), bias=False))
    module[0].weight.data = torch.tensor(values)[:, None]
    return module, graphs.graph(graphs.group("0", "channels", graphs.layer("0", len(values), bias=False)))


def test_fpgm_is_the_sum_of_distances_to_all_other_filters():
    module, graph = line_of_filters([0.0, 1.0, 5.0])

    assert scores.geometric_median(module, graph.groups)["0"].tolist() == [6, 5, 9]


def test_fpgm_joins_the_filters_of_all_layers_that_make_a_unit():
    module = nn.ModuleDict({name: nn.Linear(1, 2, bias=False) for name in ("one", "two")})
    module["one"].weight.data = torch.tensor([[0.0], [3.0]])
    module["two"].weight.data = torch.tensor([[0.0], [4.0]])
    both = [*graphs.layer("one", 2, bias=False), *graphs.layer("two", 2, bias=False)]

    found = scores.geometric_median(module, [graphs.group("one", "channels", both)])

    assert found["one"].tolist() == [5, 5]


def test_fpgm_takes_all_rows_of_a_head_as_one_filter():
    case = graphs.gpt2()
    group = case.graph.groups[0]

    found = scores.geometric_median(case.module, [group])[group.name]

    rows = case.module.transformer.h[0].attn.c_attn.weight.T.view(3, 4, 4, 16)
    filters = rows.transpose(0, 1).flatten(1)
    assert np.allclose(found, torch.cdist(filters, filters).sum(1).detach().numpy(), rtol=1e-5)


def test_fpgm_of_more_filters_than_are_compared_at_a_time():
    count = 3000
    assert count**2 > scores.DISTANCES
    module, graph = line_of_filters([float(value) for value in range(count)])

    found = scores.geometric_median(module, graph.groups)["0"]

    number = np.arange(count)
    assert np.allclose(
        found, (number * (number + 1) + (count - 1 - number) * (count - number)) / 2, rtol=1e-4
    )


def test_random_scores_follow_seed_round_and_name():
    groups = graphs.residual().graph.groups

    first = scores.random(groups, seed=1, number=2)

    assert np.array_equal(first["stem"], scores.random(groups[::-1], seed=1, number=2)["stem"])
    assert not np.array_equal(first["stem"], scores.random(groups, seed=2, number=2)["stem"])
    assert not np.array_equal(first["stem"], scores.random(groups, seed=1, number=3)["stem"])
    assert not np.array_equal(first["stem"], first["first"][:8])


class Fixed(Calibration):
    """Batches whose loss is a given number times the sum of chosen parameters: so is each gradient."""

    def batches(self, samples: int):
        yield from ((factor, torch.zeros(1)) for factor in self.bundle)

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return sum(
            factor * getattr(self.model.module[int(part)], name).sum() for part, name, factor in inputs
        )


def fixed(module: nn.Module, *batches: list[tuple[int, str, float]]) -> Fixed:
    return Fixed(loaded(module), batches, seed=0, batch_size=1, on_batch=lambda: None)


def one_channel() -> tuple[nn.Module, DependencyGraph]:
    """A convolution of weight 1 and a batch norm."""
    module = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    nn.init.ones_(module[0].weight)
    axes = [*graphs.layer("0", 1, bias=False), *graphs.batch_norm("1", 1)]
    return module, graphs.graph(graphs.group("0", "channels", axes))


def test_fisher_adds_up_squares_of_all_batches():
    module, graph = one_channel()
    calibration = fixed(module, *([(0, "weight", gradient)] for gradient in (1.0, 2.0, 3.0)))

    assert scores.fisher(module, graph.groups, calibration, samples=3)["0"].tolist() == [14]


def test_taylor_adds_up_the_size_of_the_change_of_each_batch():
    module, graph = one_channel()
    calibration = fixed(module, *([(0, "weight", gradient)] for gradient in (1.0, -2.0, 3.0)))

    assert scores.taylor(module, graph.groups, calibration, samples=3)["0"].tolist() == [6]


@pytest.mark.parametrize("measure", [scores.taylor, scores.fisher])
def test_gradients_of_a_batch_norm_count(measure):
    module, graph = one_channel()
    small = fixed(module, [(0, "weight", 1.0), (1, "weight", 1.0)])
    large = fixed(module, [(0, "weight", 1.0), (1, "weight", 1e6)])

    low, high = (measure(module, graph.groups, one, samples=1)["0"][0] for one in (small, large))

    assert high / low > 1e5


def test_taylor_is_the_change_of_the_loss_to_first_order():
    case = graphs.mlp()
    case.module[0].bias.data.zero_()
    model = loaded(case.module)
    model.call = lambda part, batch: part(batch["pixel_values"].flatten(1)[:, :6])
    calibration = Calibration(model, small_bundle(), seed=0, batch_size=96, on_batch=lambda: None)

    found = scores.taylor(case.module, case.graph.groups, calibration, samples=96)["0"]

    inputs, labels = next(iter(calibration.batches(96)))
    for unit in range(8):
        column = case.module[2].weight.data[:, unit].clone()
        row = case.module[0].weight.data[unit].clone()
        losses = []
        for step in (1e-2, -1e-2):
            case.module[2].weight.data[:, unit] = column * (1 + step)
            case.module[0].weight.data[unit] = row * (1 + step)
            losses.append(calibration.loss(inputs, labels).item())
        case.module[2].weight.data[:, unit], case.module[0].weight.data[unit] = column, row
        assert found[unit] == pytest.approx(abs(losses[0] - losses[1]) / 2e-2, rel=0.02, abs=2e-5)


def real() -> tuple[graphs.Case, Calibration]:
    case = graphs.residual()
    model = loaded(case.module)
    model.call = lambda part, batch: part(batch["pixel_values"].repeat(1, 3, 1, 1))
    return case, Calibration(model, small_bundle(), seed=0, batch_size=16, on_batch=lambda: None)


@pytest.mark.parametrize("criterion", [Taylor(samples=40), Fisher(samples=40)], ids=lambda one: one.kind)
def test_gradients_leave_no_trace_in_the_model(criterion):
    case, calibration = real()
    case.module.head.weight.requires_grad_(False)
    case.module.train()
    before = {name: value.clone() for name, value in case.module.state_dict().items()}

    found = scores.unit_scores(
        case.module, case.graph.groups, criterion, seed=0, number=1, calibration=calibration
    )

    assert all(found[group.name].shape == (group.size,) for group in case.graph.groups)
    assert all((values > 0).any() for values in found.values())
    assert all(torch.equal(value, before[name]) for name, value in case.module.state_dict().items())
    assert all(parameter.grad is None for parameter in case.module.parameters())
    assert not case.module.head.weight.requires_grad
    assert case.module.training


def test_gradients_that_vanish_or_are_no_numbers_are_refused():
    module, graph = one_channel()

    with pytest.raises(PreflightError, match="all gradients are zero"):
        scores.taylor(module, graph.groups, fixed(module, [(0, "weight", 0.0)]), samples=1)
    with pytest.raises(PreflightError, match="NaN or infinite"):
        scores.fisher(module, graph.groups, fixed(module, [(0, "weight", float("nan"))]), samples=1)


def test_criteria_that_need_samples_say_so():
    case = graphs.mlp()

    with pytest.raises(PreflightError, match="needs gradients"):
        scores.unit_scores(case.module, case.graph.groups, Taylor(), seed=0, number=1, calibration=None)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (Magnitude(norm=1), lambda case: scores.magnitude(case.module, case.graph.groups, norm=1)),
        (Magnitude(norm=2), lambda case: scores.magnitude(case.module, case.graph.groups, norm=2)),
        (BnScale(), lambda case: scores.bn_scale(case.module, case.graph.groups)),
        (GeometricMedian(), lambda case: scores.geometric_median(case.module, case.graph.groups)),
        (Random(), lambda case: scores.random(case.graph.groups, seed=3, number=1)),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_each_criterion_has_its_function(criterion, expected):
    case = graphs.residual()

    found = scores.unit_scores(case.module, case.graph.groups, criterion, seed=3, number=1, calibration=None)

    wanted = expected(case)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_normalised_scores_have_mean_one_and_keep_their_order():
    values = {"a": np.array([1.0, 2.0, 3.0]), "zero": np.zeros(2)}

    found = scores.normalised(values)

    assert found["a"].tolist() == [0.5, 1.0, 1.5]
    assert found["zero"].tolist() == [0, 0]
