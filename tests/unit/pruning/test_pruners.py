"""The two pruners round by round: masks in place, and units that leave for good."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.jobs import spec
from tests.unit.pruning.small import loaded, small_bundle, small_module
from workers.errors import PreflightError
from workers.models.loaded import LoadedModel
from workers.pruning.calibration import Calibration
from workers.pruning.make import make_pruner
from workers.pruning.masks import MaskPruner
from workers.pruning.pruner import Pruner
from workers.pruning.structured.pruner import UnitPruner

EXAMPLE = {"pixel_values": torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))}
STRUCTURED = {"pattern": "structured", "round_to": 1}


def pruner_for(**changes: Any) -> tuple[LoadedModel, LoadedModel, Pruner]:
    """The model that is pruned, the dense one, and the pruner that a spec with these changes makes."""
    model = loaded(small_module())
    dense = replace(model, module=copy.deepcopy(model.module).requires_grad_(False))
    calibration = Calibration(model, small_bundle(), 0, 16, lambda: None)
    return model, dense, make_pruner(spec(**changes), dense, calibration, EXAMPLE, 1)


def test_the_pattern_decides_which_pruner_it_is():
    assert isinstance(pruner_for()[2], MaskPruner)
    assert isinstance(pruner_for(goal={"macs": 0.5}, method=STRUCTURED)[2], UnitPruner)


def test_masks_grow_to_each_share_exactly():
    _, _, pruner = pruner_for()

    shares = []
    for number, share in enumerate((0.3, 0.6, 0.8), start=1):
        pruner.prune(share, number)
        shares.append(pruner.pruned().sparsity)

    assert shares == pytest.approx([0.3, 0.6, 0.8], abs=1e-3)
    assert pruner.pruned().reached is None
    assert pruner.surgery() is None


def test_two_of_four_leaves_layers_out_with_the_reason():
    _, _, pruner = pruner_for(goal={"sparsity": 0.5}, method={"pattern": "semi_structured"})

    pruner.prune(0.5, 1)

    assert [layer.name for layer in pruner.choice.pruned] == ["3", "8"]
    assert "multiple of 4 inputs" in pruner.choice.reasons["0"]
    assert pruner.pruned().sparsity == 0.5


def test_a_pattern_that_no_layer_can_take_is_refused():
    with pytest.raises(PreflightError, match="no layer can take the pattern 7:16"):
        pruner_for(goal={"sparsity": 0.5625}, method={"pattern": "semi_structured", "n": 7, "m": 16})


def test_a_permutation_is_made_once_and_told():
    _model, _dense, pruner = pruner_for(
        goal={"sparsity": 0.5}, method={"pattern": "semi_structured", "permute": True}
    )

    pruner.prune(0.25, 1)
    pruner.prune(0.5, 2)

    assert len(pruner.notes()) == 1
    assert "magnitude" in pruner.notes()[0]
    assert pruner.pruned().sparsity == 0.5


def test_a_job_that_goes_on_elsewhere_keeps_the_order_of_its_channels():
    first, _, before = pruner_for(
        goal={"sparsity": 0.5}, method={"pattern": "semi_structured", "permute": True}
    )
    before.prune(0.25, 1)
    model, _, pruner = pruner_for(
        goal={"sparsity": 0.5}, method={"pattern": "semi_structured", "permute": True}
    )
    pruner.reset(before.surgery())
    model.module.load_state_dict(first.module.state_dict())

    before.prune(0.5, 2)
    pruner.prune(0.5, 2)

    for name, weights in first.module.state_dict().items():
        assert torch.equal(weights, model.module.state_dict()[name]), name


def test_weights_that_lie_in_no_layer_are_told():
    model, _, pruner = pruner_for()
    assert pruner.notes() == []

    model.module.experts = torch.nn.Parameter(torch.ones(2, 3, 4))

    assert pruner.notes() == [
        "24 weights lie in no linear layer and no convolution (experts, for example) and stay dense: the "
        "first of 1 tensors is experts."
    ]


def test_a_size_that_no_sparsity_makes_is_refused():
    _, _, pruner = pruner_for(goal={"size": 0.01})

    with pytest.raises(PreflightError, match=r"goal\.size: 1\.0% shall remain after compression"):
        pruner.prune(0.99, 0)


@pytest.mark.parametrize(
    ("goal", "method"),
    [
        (0.6, {"allocation": {"kind": "global", "cap": 0.6}}),
        (0.6, {"overrides": {"3": 0.5}}),
        (0.9, {"overrides": {"3": 0.8}}),
    ],
    ids=str,
)
def test_a_size_is_found_within_caps_and_overrides(goal: float, method: dict[str, Any]):
    _, _, pruner = pruner_for(goal={"size": goal}, method=method)

    pruner.prune(1 - goal, 1)

    assert pruner.pruned().reached == pytest.approx(1 - goal, abs=0.02)


def test_a_size_that_a_cap_does_not_allow_is_refused_with_the_cap():
    _, _, pruner = pruner_for(goal={"size": 0.3}, method={"allocation": {"kind": "global", "cap": 0.6}})

    with pytest.raises(PreflightError, match=r"with method\.allocation\.cap 0\.6 at most"):
        pruner.prune(0.7, 1)


@pytest.mark.parametrize(("share", "expected"), [(0.53, 0.5), (0.25, 0.25 * 1872 / 1728)])
def test_a_search_gives_overrides_as_much_as_there_is_room_for(share: float, expected: float):
    model, _, pruner = pruner_for(goal=None, schedule={"kind": "search"}, method={"overrides": {"3": 0.5}})

    pruner.prune(share, 1)

    assert pruner.pruned().sparsity == pytest.approx(share, abs=1e-3)
    weight = model.module[3].weight
    assert float((weight == 0).float().mean()) == pytest.approx(expected, abs=1e-3)


def test_a_size_is_met_after_compression():
    _, _, pruner = pruner_for(goal={"size": 0.5})

    pruner.prune(0.5, 1)

    assert pruner.pruned().reached == pytest.approx(0.5, abs=0.02)
    assert 0.4 < pruner.pruned().sparsity < 0.8


@pytest.mark.parametrize("goal", ["macs", "params", "size"])
def test_units_leave_until_the_goal_is_met(goal: str):
    model, dense, pruner = pruner_for(goal={goal: 0.5}, method=STRUCTURED)

    pruner.prune(0.5, 1)

    found = pruner.pruned()
    assert found.reached is not None
    assert 0.5 <= found.reached < 0.65
    parameters = sum(one.numel() for one in model.module.parameters())
    assert found.parameters == parameters
    assert found.sparsity == pytest.approx(
        1 - parameters / sum(one.numel() for one in dense.module.parameters())
    )
    assert model.logits(EXAMPLE).shape == (2, 3)


def test_rounds_of_units_add_up_and_a_dense_module_is_given_their_shapes():
    model, dense, pruner = pruner_for(goal={"macs": 0.4}, method=STRUCTURED)
    for number, share in enumerate((0.2, 0.4, 0.6), start=1):
        pruner.prune(share, number)
    weights, surgery = copy.deepcopy(model.module.state_dict()), pruner.surgery()
    expected = model.logits(EXAMPLE)

    pruner.reset(None)
    assert model.logits(EXAMPLE).shape == (2, 3)
    assert pruner.pruned().parameters == sum(one.numel() for one in dense.module.parameters())

    pruner.reset(surgery)
    model.module.load_state_dict(weights)
    model.module.eval()
    assert torch.equal(model.logits(EXAMPLE), expected)
    assert all(one.requires_grad for one in model.module.parameters())


def test_a_round_that_is_there_already_takes_nothing():
    _, _, pruner = pruner_for(goal={"macs": 0.4}, method={**STRUCTURED, "round_to": 8})
    pruner.prune(0.5, 1)
    before = pruner.surgery()

    pruner.prune(0.5, 2)

    assert pruner.surgery() == before


def test_widths_are_told_before_and_after():
    _, _, pruner = pruner_for(goal={"macs": 0.5}, method={**STRUCTURED, "exclude": ["0"]})

    pruner.prune(0.5, 1)

    by_name = {group.name: group for group in pruner.groups()}
    assert by_name["0"].after == by_name["0"].before == 8
    assert "excluded by '0'" in (by_name["0"].reason or "")
    assert by_name["3"].after < by_name["3"].before == 24


def test_a_goal_that_cannot_be_met_is_refused_with_the_remedies():
    _, _, pruner = pruner_for(goal={"macs": 0.01}, method={**STRUCTURED, "round_to": 8})

    with pytest.raises(PreflightError, match=r"lower method\.round_to"):
        pruner.prune(0.99, 1)


def test_a_search_takes_all_that_may_go_and_then_nothing_more():
    _, _, pruner = pruner_for(goal=None, schedule={"kind": "search"}, method={**STRUCTURED, "round_to": 8})

    pruner.prune(0.95, 1)
    reached, surgery = pruner.pruned().reached, pruner.surgery()
    pruner.prune(0.95, 2)

    assert reached is not None
    assert 0.5 < reached < 0.95
    assert pruner.surgery() == surgery


def test_latency_is_measured_and_reached():
    _, _, pruner = pruner_for(
        goal={"latency": 0.9},
        method=STRUCTURED,
        benchmark={"batch_sizes": [8], "warmup_seconds": 0},
    )

    pruner.prune(0.1, 1)

    found = pruner.pruned()
    assert found.reached is not None
    assert found.sparsity > 0
