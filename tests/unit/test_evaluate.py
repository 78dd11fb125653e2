"""Accuracy on the validation split."""

import pytest
import torch
from torch import nn

from tests.unit.pruning.small import loaded, small_bundle, small_module
from workers.errors import ModelError, Stopped
from workers.evaluate import metric_of


class Guess(nn.Module):
    """Always says class 0, and counts in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(images), 3)


def ignore(done: int, of: int) -> None:
    pass


def test_is_the_share_of_right_answers():
    value = metric_of(loaded(Guess()), small_bundle(), batch_size=16, on_batch=ignore)

    assert value == pytest.approx(14 / 40)


def test_does_not_depend_on_the_batch_size():
    model, bundle = loaded(small_module()), small_bundle()

    values = {metric_of(model, bundle, batch_size=size, on_batch=ignore) for size in (1, 7, 40, 64)}

    assert len(values) == 1


def test_leaves_training_mode():
    model = loaded(Guess())
    model.module.train()

    metric_of(model, small_bundle(), batch_size=16, on_batch=ignore)

    assert not model.module.training


def test_tells_how_many_batches_are_done():
    seen = []

    metric_of(loaded(Guess()), small_bundle(), batch_size=16, on_batch=lambda *told: seen.append(told))

    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_can_be_stopped_between_batches():
    def stop(done: int, of: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        metric_of(loaded(Guess()), small_bundle(), batch_size=16, on_batch=stop)


def test_refuses_scores_that_are_nan():
    model = loaded(small_module())
    with torch.no_grad():
        model.module[8].bias[0] = float("nan")

    with pytest.raises(ModelError, match="answers NaN on the validation split"):
        metric_of(model, small_bundle(), batch_size=16, on_batch=ignore)
