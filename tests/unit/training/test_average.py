"""A round that ends with the average of its weights."""

import pytest
import torch
from torch import Tensor, nn

from schemas.fine_tune import Ema, Rigl, Swa
from tests.unit.pruning.small import loaded, small_bundle
from tests.unit.training.runs import BATCH, STEPS, count, gradual, pruned_model, same, state, train, zeros
from workers.errors import Stopped
from workers.training.average import BATCHES, WeightAverage, measure_batch_norms


def nothing() -> None:
    """What one batch more is answered with."""


def weights_of_each_step(**options) -> tuple[list[Tensor], Tensor]:
    """The first layer's weights after each step of 4 epochs, and as the training leaves them."""
    model, choice = pruned_model()
    seen: list[Tensor] = []
    weight = choice.pruned[0].weight

    train(model, choice, epochs=4, on_step=lambda _: seen.append(weight.detach().clone()), **options)
    return seen[: 4 * STEPS], weight.detach()  # the last step is told again while batch norms are measured


def test_ends_with_the_mean_of_the_last_quarter_of_the_steps():
    seen, final = weights_of_each_step(average=Swa(begin=0.75))

    torch.testing.assert_close(final, torch.stack(seen[-STEPS:]).mean(0))
    assert not torch.equal(final, seen[-1])


def test_ends_with_a_moving_average_that_forgets_the_first_steps_faster():
    seen, final = weights_of_each_step(average=Ema(decay=0.6))

    expected = seen[0]
    for step, weight in enumerate(seen[1:], start=1):
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(final, expected)


@pytest.mark.parametrize("average", [Ema(), Swa(begin=0.5)])
def test_averaged_zeros_are_zeros(average):
    model, choice = pruned_model()
    before = zeros(choice)

    train(model, choice, epochs=3, average=average)

    assert all(torch.equal(*pair) for pair in zip(before, zeros(choice), strict=True))


@pytest.mark.parametrize("average", [Ema(), Swa(begin=0.0)])
@pytest.mark.parametrize("regrow", [None, Rigl(every_steps=2, until=0.9)])
def test_averages_only_what_has_the_same_zeros(average, regrow):
    model, choice = pruned_model(0.0)
    updates = gradual(choice, 0.7, every_steps=2)

    train(model, choice, epochs=3, average=average, mask_updates=updates, regrow=regrow)

    assert count(zeros(choice)) == round(0.7 * 1872)


def test_averages_the_last_step_at_least():
    weight = nn.Parameter(torch.ones(2))
    average = WeightAverage(Swa(begin=0.99), [weight], 10)

    for step in range(10):
        weight.data.fill_(step)
        average.update(step)

    assert average.apply()
    assert weight.tolist() == [9.0, 9.0]


def test_nothing_averaged_is_nothing_written():
    weight = nn.Parameter(torch.ones(2))
    average = WeightAverage(Swa(begin=0.5), [weight], 10)

    average.update(4)

    assert not average.apply()
    assert weight.tolist() == [1.0, 1.0]


def test_batch_norms_fit_the_averaged_weights():
    model, choice = pruned_model()
    bundle = small_bundle()

    train(model, choice, bundle, average=Swa(begin=0.5), epochs=2)

    convolution, norm = model.module[0], model.module[1]
    with torch.no_grad():
        outputs = convolution(bundle.train.inputs["pixel_values"])
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)))
    assert norm.num_batches_tracked == STEPS
    assert norm.momentum == 0.1
    assert not model.module.training
    assert not norm.training


def test_statistics_are_those_of_inference_without_dropout():
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    model = loaded(module)
    batch = {"pixel_values": torch.randn(8, 3) + 2}

    measure_batch_norms(model, [(batch, torch.zeros(8))], on_batch=nothing)

    torch.testing.assert_close(module[1].running_mean, batch["pixel_values"].mean(0))


def test_a_model_without_batch_norms_reads_no_batch():
    model = loaded(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)))
    before = state(model)

    def batches():
        pytest.fail("a batch was read")
        yield

    measure_batch_norms(model, batches(), on_batch=nothing)

    assert same(before, state(model))


def test_reads_a_bounded_number_of_batches():
    model = loaded(nn.Sequential(nn.BatchNorm1d(3)))
    batch = ({"pixel_values": torch.randn(BATCH, 3)}, torch.zeros(BATCH))

    measure_batch_norms(model, iter(batch for _ in range(10 * BATCHES)), on_batch=nothing)

    assert model.module[0].num_batches_tracked == BATCHES


def test_can_be_stopped_while_batch_norms_are_measured():
    model, choice = pruned_model()
    heard: list[int] = []

    def stop_after_the_last_step(info) -> None:
        heard.append(info.step)
        if len(heard) > STEPS:
            raise Stopped

    with pytest.raises(Stopped):
        train(model, choice, average=Ema(), on_step=stop_after_the_last_step)

    assert heard == [*range(1, STEPS + 1), STEPS]
    assert model.module[1].momentum == 0.1
    assert not model.module[1].training
