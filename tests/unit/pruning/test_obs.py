"""Optimal brain surgeon in blocks: quadratics whose answer is known, exact shares, zeros that stay."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from schemas.task import Task
from tests.unit.pruning.small import loaded, small_bundle, small_module
from workers.data.bundle import Bundle, Split
from workers.errors import ModelError, PreflightError
from workers.models.loaded import LoadedModel
from workers.pruning.calibration import Calibration
from workers.pruning.layers import Layer, prunable_layers
from workers.pruning.second_order import obs as obs_module
from workers.pruning.second_order.fisher import empirical_fisher
from workers.pruning.second_order.obs import compensated, obs, saliency


def small(bundle: Bundle | None = None) -> tuple[list[Layer], Calibration]:
    module = small_module()
    calibration = Calibration(loaded(module), bundle or small_bundle(), 0, 8, lambda: None)
    return prunable_layers(module), calibration


def cut_to(layers: list[Layer], calibration: Calibration, share: float, **options: float) -> list[str]:
    k = round(share * sum(layer.weight.numel() for layer in layers))
    given = {"samples": 16, "block": 16, "damp": 1e-4, **options}
    return obs([(layers, k)], calibration, **given)  # type: ignore[arg-type]


def test_the_costs_are_those_of_hassibi_and_stork():
    fisher = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]])  # inverse: [[2, -1], [-1, 2]] / 3

    costs, notes = saliency(torch.tensor([1.0, 3.0]), fisher, 1e-12, name="fc")

    assert costs.tolist() == pytest.approx([0.75, 6.75])  # w² / (2 · 2/3)
    assert notes == []


def test_the_weight_that_stays_takes_over_what_it_can():
    fisher = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]])

    moved = compensated(torch.tensor([1.0, 3.0]), torch.tensor([True, False]), fisher, 1e-12, name="fc")

    assert moved.tolist() == pytest.approx([0.0, 3.5])  # 3 − 1 · (−1/3) / (2/3)


@given(size=st.integers(2, 12), seed=st.integers(0, 999), share=st.floats(0.1, 0.9))
@settings(deadline=None, max_examples=30)
def test_what_stays_is_the_minimum_of_the_quadratic(size: int, seed: int, share: float):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size + 2, generator=generator, dtype=torch.float64)
    fisher = root @ root.T / size
    weights = torch.randn(size, generator=generator, dtype=torch.float64)
    gone = torch.rand(size, generator=generator) < share

    moved = compensated(weights, gone, fisher[None].float(), 1e-9, name="fc")

    change = moved - weights
    slope = fisher @ change  # zero wherever a weight is free to move
    assert torch.allclose(slope[~gone], torch.zeros(int((~gone).sum()), dtype=torch.float64), atol=5e-2)
    assert (moved[gone] == 0).all()
    alone = torch.where(gone, -weights, 0.0)
    assert change @ fisher @ change <= alone @ fisher @ alone + 1e-6


def test_a_cost_is_what_the_quadratic_model_loses():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 9, generator=generator)
    fisher = root @ root.T
    weights = torch.randn(6, generator=generator)

    costs, _ = saliency(weights, fisher[None], 1e-9, name="fc")

    for index in range(6):
        gone = torch.arange(6) == index
        change = compensated(weights, gone, fisher[None], 1e-9, name="fc") - weights
        assert float(costs[index]) == pytest.approx(float(change @ fisher @ change / 2), rel=1e-3)


def test_blocks_do_not_touch_each_other_and_the_last_may_be_shorter():
    fisher = torch.ones(2, 2, 2) + torch.eye(2)
    fisher[1, 1] = fisher[1, :, 1] = 0  # padding
    weights = torch.tensor([1.0, 1.0, 5.0])

    moved = compensated(weights, torch.tensor([True, False, False]), fisher, 1e-9, name="fc")

    assert moved.tolist() == pytest.approx([0.0, 1.5, 5.0])


class Line(nn.Module):
    """Two scores, one of which is always zero."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.fc = nn.Linear(len(weights), 1, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([weights]))

    def forward(self, inputs: Tensor) -> Tensor:
        return F.pad(self.fc(inputs), (0, 1))


def on_line(module: Line, inputs: Tensor) -> Calibration:
    split = Split({"pixel_values": inputs}, torch.arange(len(inputs)) % 2)
    model = LoadedModel(
        module.eval(),
        "test/Line",
        Task.image_classification,
        2,
        Path(),
        None,
        1,
        lambda m, b: m(b["pixel_values"]),
    )
    return Calibration(model, Bundle(split, split, dict), 0, 4, lambda: None)


def test_the_fisher_matrix_is_the_mean_of_single_samples_gradients_squared():
    inputs = torch.randn(7, 5, generator=torch.Generator().manual_seed(2))
    module = Line([0.3, -0.2, 0.1, 0.5, -0.4])
    calibration = on_line(module, inputs)
    labels = torch.arange(7) % 2
    errors = torch.sigmoid(inputs @ module.fc.weight.detach()[0]) - (labels == 0).float()
    gradients = errors[:, None] * inputs

    blocks = empirical_fisher(prunable_layers(module), calibration, samples=7, block=3)["fc"]

    expected = gradients.T @ gradients / 7
    assert torch.allclose(blocks[0], expected[:3, :3], atol=1e-6)
    assert torch.allclose(blocks[1, :2, :2], expected[3:, 3:], atol=1e-6)
    assert (blocks[1, 2] == 0).all()


def test_of_two_equal_inputs_one_weight_takes_the_others_part():
    column = torch.randn(12, 1, generator=torch.Generator().manual_seed(1))
    module = Line([0.2, 0.5])

    obs(
        [(prunable_layers(module), 1)],
        on_line(module, torch.cat([column, column], dim=1)),
        samples=12,
        block=2,
        damp=1e-6,
    )

    assert module.fc.weight[0].tolist() == pytest.approx([0.0, 0.7], abs=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.37, 0.5, 0.95])
def test_the_share_of_all_layers_together_is_exact(share: float):
    layers, calibration = small()

    cut_to(layers, calibration, share)

    total = sum(layer.weight.numel() for layer in layers)
    assert sum(int((layer.weight == 0).sum()) for layer in layers) == round(share * total)


def test_each_group_has_its_own_count():
    layers, calibration = small()

    obs([(layers[:2], 100), (layers[2:], 30)], calibration, samples=8, block=8, damp=1e-4)

    assert sum(int((layer.weight == 0).sum()) for layer in layers[:2]) == 100
    assert int((layers[2].weight == 0).sum()) == 30


def test_zeros_stay_and_a_second_round_adds_to_them():
    layers, calibration = small()
    cut_to(layers, calibration, 0.5)
    before = [layer.weight == 0 for layer in layers]

    cut_to(layers, calibration, 0.8)

    for layer, gone in zip(layers, before, strict=True):
        assert (layer.weight[gone] == 0).all()


def test_a_second_time_changes_nothing():
    layers, calibration = small()
    cut_to(layers, calibration, 0.5)
    once = [layer.weight.detach().clone() for layer in layers]

    cut_to(layers, calibration, 0.5)

    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers, once, strict=True))


def test_layers_that_take_turns_give_the_same_weights(monkeypatch: pytest.MonkeyPatch):
    at_once, calibration = small()
    cut_to(at_once, calibration, 0.6)
    in_turns, again = small()
    monkeypatch.setattr(obs_module, "STATE_BYTES", 1)
    monkeypatch.setattr(obs_module, "_AT_ONCE", 1)

    cut_to(in_turns, again, 0.6)

    for one, other in zip(at_once, in_turns, strict=True):
        assert torch.allclose(one.weight, other.weight, atol=1e-5)


def test_the_model_keeps_its_mode_and_no_gradients():
    layers, calibration = small()
    module = calibration.model.module.train()

    cut_to(layers, calibration, 0.5)

    assert module.training
    assert all(one.grad is None and one.requires_grad for one in module.parameters())


def test_singular_blocks_are_damped_more_and_a_note_says_so():
    fisher = torch.tensor([[[1.0, 1.005], [1.005, 1.0]]])

    costs, notes = saliency(torch.ones(2), fisher, 1e-5, name="fc")

    assert costs.isfinite().all()
    assert notes == ["fc: blocks are singular; damp was raised from 1e-05 to 0.01"]


def test_blocks_that_no_damping_mends_are_refused():
    with pytest.raises(ModelError, match="'fc' is singular even when damped"):
        saliency(torch.ones(2), torch.tensor([[[1.0, 90.0], [90.0, 1.0]]]), 1e-6, name="fc")


def test_gradients_that_vanish_are_refused():
    layers, calibration = small()
    with torch.no_grad():
        for parameter in calibration.model.module.parameters():
            parameter.zero_()
        list(calibration.model.module.parameters())[-1].copy_(torch.tensor([200.0, -200.0, -200.0]))
    split = calibration.bundle.train
    only_first = Split(split.inputs, torch.zeros_like(split.labels))
    calibration = Calibration(calibration.model, Bundle(only_first, only_first, dict), 0, 8, lambda: None)

    with pytest.raises(PreflightError, match="vanishes in every pruned layer"):
        cut_to(layers, calibration, 0.5)


def test_gradients_that_are_not_finite_are_refused():
    layers, calibration = small()
    calibration.bundle.train.inputs["pixel_values"][0] = float("nan")

    with pytest.raises(PreflightError, match=r"layer '0' is NaN or infinite"):
        cut_to(layers, calibration, 0.5, samples=96)
