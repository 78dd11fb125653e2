"""The masked twin: as large as before, and nothing of a removed unit is left in it."""

import numpy as np
import pytest
import torch

from tests.unit.pruning.structured import graphs
from workers.errors import PreflightError
from workers.pruning.structured.masked import defined, mask_units


def test_what_a_unit_owns_is_zero_and_the_rest_is_as_before():
    case = graphs.residual()
    before = {name: value.clone() for name, value in case.module.state_dict().items()}

    mask_units(case.module, case.graph, {"first": np.array([0, 3])})

    after = case.module.state_dict()
    assert not after["first.weight"][[0, 3]].any()
    assert not after["first_norm.weight"][[0, 3]].any()
    assert not after["first_norm.bias"][[0, 3]].any()
    assert not after["first_norm.running_mean"][[0, 3]].any()
    assert not after["second.weight"][:, [0, 3]].any()
    assert torch.equal(after["first_norm.running_var"], before["first_norm.running_var"])
    stays = [1, 2, *range(4, 16)]
    assert torch.equal(after["first.weight"][stays], before["first.weight"][stays])
    assert torch.equal(after["second.weight"][:, stays], before["second.weight"][:, stays])
    assert torch.equal(after["stem.weight"], before["stem.weight"])


def test_an_activation_that_makes_something_of_zero_changes_nothing():
    case = graphs.mlp()
    dense = case.module[2].weight.clone()

    mask_units(case.module, case.graph, {"0": np.array([2])})

    hidden = torch.sigmoid(case.module[0](case.inputs["input"]))
    assert torch.allclose(hidden[:, 2], torch.tensor(0.5))
    stays = [0, 1, 3, 4, 5, 6, 7]
    assert torch.allclose(
        case.output(), hidden[:, stays] @ dense[:, stays].T + case.module[2].bias, atol=1e-6
    )


def test_a_concatenation_loses_the_positions_of_one_group_only():
    case = graphs.concatenated()

    mask_units(case.module, case.graph, {"two": np.array([1])})

    assert case.module.norm.weight.nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_a_twin_is_not_defined_where_a_norm_takes_its_mean_over_what_goes():
    residual, grouped = graphs.residual(), graphs.grouped()

    assert defined(residual.graph, {"stem": np.array([0]), "first": np.array([0])})
    assert defined(grouped.graph, {"wide": np.array([0])})
    assert not defined(grouped.graph, {"grouped": np.array([0])})
    assert defined(grouped.graph, {"grouped": np.array([], dtype=np.int64)})


def test_a_bias_that_is_added_by_itself_is_no_norm():
    case = graphs.encoder()
    packed = case.graph.groups[0]
    bias = graphs.axis("self_attn.in_proj_bias", 0, "norm", packed.axes[1].units.tolist())
    heads = graphs.group("self_attn", "heads", [packed.axes[0], bias, *packed.axes[2:]], each=4)

    assert defined(graphs.graph(heads), {"self_attn": np.array([0])})


def test_all_units_of_a_group_cannot_be_masked():
    case = graphs.mlp()

    with pytest.raises(PreflightError, match="all 8 units"):
        mask_units(case.module, case.graph, {"0": np.arange(8)})
