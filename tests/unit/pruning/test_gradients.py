"""Gradients over calibration samples: which, how many, and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.unit.pruning.cuts import calibrated
from tests.unit.pruning.small import CLASSES, small_bundle, small_module
from workers.errors import PreflightError
from workers.models.loaded import Batch
from workers.pruning.calibration import Calibration
from workers.pruning.gradients import mean_absolute_gradients, mean_gradients, mean_squared_gradients
from workers.pruning.layers import prunable_layers

MEANS = [mean_gradients, mean_absolute_gradients, mean_squared_gradients]


class LinearLoss(Calibration):
    """A loss whose gradient is the sum of the images: 1, 2 and 3 for one weight."""

    def loss(self, inputs: Batch, labels: Tensor) -> Tensor:
        return self.model.logits(inputs).sum() / len(labels)


def one_weight(batch_size: int) -> tuple[nn.Module, LinearLoss]:
    module = nn.Linear(1, 1, bias=False)
    bundle = small_bundle(train=3)
    images = torch.tensor([[1.0], [2.0], [3.0]])
    bundle = replace(bundle, train=replace(bundle.train, inputs={"pixel_values": images}))
    calibration = calibrated(module, bundle=bundle, batch_size=batch_size)
    return module, LinearLoss(calibration.model, bundle, 0, batch_size, lambda: None)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_gradients_1_2_and_3_have_squares_that_sum_to_14(batch_size: int):
    module, calibration = one_weight(batch_size)

    squares = mean_squared_gradients(prunable_layers(module), calibration, 3)[""]

    assert float(squares) * 3 == pytest.approx(14)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_short_last_batch_counts_by_its_samples(batch_size: int):
    module, calibration = one_weight(batch_size)

    assert float(mean_gradients(prunable_layers(module), calibration, 3)[""]) == pytest.approx(2)
    assert float(mean_absolute_gradients(prunable_layers(module), calibration, 3)[""]) == pytest.approx(2)


@pytest.mark.parametrize("means", MEANS)
def test_frozen_weights_are_measured_and_stay_frozen(means):
    module = small_module()
    expected = means(prunable_layers(module), calibrated(module), 32)
    module.requires_grad_(False)

    found = means(prunable_layers(module), calibrated(module), 32)

    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(one.requires_grad for one in module.parameters())


def test_gradients_that_are_there_already_are_put_back():
    module = small_module()
    own = torch.ones_like(module[3].weight)
    module[3].weight.grad = own

    mean_gradients(prunable_layers(module), calibrated(module), 32)

    assert module[3].weight.grad is own
    assert (own == 1).all()


def test_running_statistics_do_not_move():
    module = small_module()
    before = module[1].running_mean.clone()

    mean_gradients(prunable_layers(module), calibrated(module), 32)

    assert torch.equal(module[1].running_mean, before)


def test_only_as_many_samples_are_used_as_asked_for():
    module, seen = small_module(), []
    calibration = calibrated(module)
    counting = replace(calibration, on_batch=lambda: seen.append(1))

    mean_gradients(prunable_layers(module), counting, 40)

    assert len(seen) == 3  # 16 + 16 + 8


@pytest.mark.parametrize("means", MEANS)
def test_a_gradient_that_is_nan_is_refused_with_the_layer(means):
    module = small_module()
    with torch.no_grad():
        module[8].bias[0] = float("nan")

    with pytest.raises(PreflightError, match="layer '0' is NaN or infinite"):
        means(prunable_layers(module), calibrated(module), 32)


@pytest.mark.parametrize("means", MEANS)
def test_gradients_that_vanish_everywhere_are_refused(means):
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, CLASSES))
    with torch.no_grad():
        module[1].bias.fill_(-1e4)  # no unit is ever alive

    with pytest.raises(PreflightError, match="vanishes at every weight"):
        means(prunable_layers(module), calibrated(module), 32)


def test_a_model_that_does_not_use_its_layers_is_refused():
    module = small_module()
    calibration = calibrated(module)
    constant = replace(calibration.model, call=lambda _, batch: torch.zeros(len(batch["pixel_values"]), 3))

    with pytest.raises(PreflightError, match="vanishes at every weight"):
        mean_gradients(prunable_layers(module), replace(calibration, model=constant), 32)


def test_the_hooks_go_when_a_batch_stops_the_work():
    module = small_module()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mean_gradients(prunable_layers(module), replace(calibrated(module), on_batch=stop), 32)

    module(torch.randn(2, 1, 6, 6)).sum().backward()
    assert all(layer.weight.grad is not None for layer in prunable_layers(module))
