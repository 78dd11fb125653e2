"""The masked fine-tune loop."""

from math import log

import pytest
import torch
from torch import nn

from schemas.fine_tune import AdamW, Distill, FineTune, LrSchedule, Sgd
from schemas.method import Unstructured
from tests.unit.pruning.small import loaded, small_bundle, small_module
from tests.unit.training.runs import STEPS, pruned_model, train
from workers.errors import DataError, ModelError, OutOfMemory, Stopped
from workers.evaluate import metric_of
from workers.fine_tune import FineTuneResult, StepInfo
from workers.loss import softened_divergence
from workers.pruning.layers import choose, prunable_layers
from workers.training.optimizer import lr_factor, mixed_precision, optimizer_for


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)])
def test_pruned_weights_stay_zero_and_the_others_move(optimizer):
    model, choice = pruned_model()
    before = [layer.weight.detach().clone() for layer in choice.pruned]

    train(model, choice, epochs=3, optimizer=optimizer)

    for layer, old in zip(choice.pruned, before, strict=True):
        assert (layer.weight[old == 0] == 0).all()
        assert (layer.weight[old != 0] != old[old != 0]).all()


def test_zeros_of_layers_left_dense_may_grow():
    model = loaded(small_module())
    with torch.no_grad():
        model.module[8].weight.zero_()

    train(model, choose(prunable_layers(model.module), Unstructured(exclude=("8",))))

    assert (model.module[8].weight != 0).all()


def test_learns_back_what_the_cut_took():
    model, choice = pruned_model(0.5)
    bundle = small_bundle()
    before = metric_of(model, bundle, batch_size=40, on_batch=lambda *_: None)

    result = train(model, choice, bundle, epochs=8)

    assert metric_of(model, bundle, batch_size=40, on_batch=lambda *_: None) > max(0.9, before)
    assert result.loss is not None
    assert result.loss < log(3) / 2


def test_tells_every_step():
    model, choice = pruned_model()
    seen: list[StepInfo] = []

    result = train(model, choice, epochs=2, on_step=seen.append)

    assert [(one.epoch, one.step, one.steps) for one in seen] == [
        (1 + number // STEPS, number + 1, 2 * STEPS) for number in range(2 * STEPS)
    ]
    last_epoch = [one.loss for one in seen[STEPS:]]
    assert result == FineTuneResult(2, pytest.approx(sum(last_epoch) / STEPS), None)


def test_trains_in_training_mode_and_ends_in_eval_mode():
    model, choice = pruned_model()
    modes = []

    train(model, choice, on_step=lambda _: modes.append(model.module.training))

    assert all(modes)
    assert not model.module.training


def test_no_epochs_change_nothing():
    model, choice = pruned_model()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}

    result = train(model, choice, epochs=0)

    assert result == FineTuneResult(0, None, None)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_can_be_stopped_after_a_step():
    model, choice = pruned_model()

    def stop(info: StepInfo) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        train(model, choice, on_step=stop)
    assert not model.module.training


def test_stops_after_epochs_without_a_better_metric():
    model, choice = pruned_model()
    metrics = iter([0.5, 0.7, 0.7, 0.6, 0.9])

    result = train(model, choice, epochs=5, patience=2, evaluate_epoch=lambda: next(metrics))

    assert (result.epochs_run, result.best_metric) == (4, 0.7)


def test_trains_on_after_an_evaluation_in_eval_mode():
    model, choice = pruned_model()
    modes = []

    def evaluate() -> float:
        model.module.eval()
        return 0.0

    train(
        model,
        choice,
        epochs=2,
        patience=5,
        evaluate_epoch=evaluate,
        on_step=lambda _: modes.append(model.module.training),
    )

    assert all(modes)


def test_refuses_fewer_samples_than_a_batch():
    model, choice = pruned_model()

    with pytest.raises(DataError, match=r"train split has 10 samples, fewer than fine_tune.batch_size 16"):
        train(model, choice, small_bundle(train=10))


@pytest.mark.parametrize(("bad", "word"), [("nan", "NaN"), ("inf", "NaN|infinite")])
def test_a_loss_that_is_not_finite_names_the_step_and_the_remedy(bad: str, word: str):
    model, choice = pruned_model()
    with torch.no_grad():
        model.module[8].bias[0] = float(bad)

    with pytest.raises(ModelError, match=rf"became ({word}) in round 1, step 1: lower .*lr \(now 0.05\)"):
        train(model, choice)


def test_a_full_card_is_answered_with_a_smaller_batch():
    class Full(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model, choice = pruned_model()
    model.module.append(Full())

    with pytest.raises(OutOfMemory, match=r"lower fine_tune.batch_size \(now 16\)"):
        train(model, choice)


def test_a_teacher_pulls_the_student_towards_its_scores():
    bundle, teacher = small_bundle(), loaded(small_module(seed=5))
    distances = []
    for distill in (None, Distill(weight=1.0, temperature=2.0)):
        model, choice = pruned_model(0.3)
        train(model, choice, bundle, epochs=4, distill=distill, teacher=teacher)
        with torch.no_grad():
            inputs = dict(bundle.validation.inputs)
            distances.append(float(softened_divergence(model.logits(inputs), teacher.logits(inputs), 2.0)))

    assert distances[1] < distances[0] / 2


def test_the_distillation_loss_is_the_softened_divergence():
    student, teacher, t = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 2.0]]), 3.0
    p, q = (teacher / t).softmax(-1), (student / t).softmax(-1)

    loss = softened_divergence(student, teacher, t)

    assert loss == pytest.approx(float(t**2 * (p * (p / q).log()).sum()))


def test_the_learning_rate_rises_and_falls_as_a_cosine():
    schedule = LrSchedule(kind="cosine", warmup=0.2)

    factors = [lr_factor(schedule, step, 10) for step in range(10)]

    assert factors[:3] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]
    assert factors[6] == pytest.approx(0.5)
    assert 0 < factors[9] < 0.05


def test_the_step_schedule_divides_by_ten_at_half_and_three_quarters():
    schedule = LrSchedule(kind="step", warmup=0)

    factors = [lr_factor(schedule, step, 8) for step in range(8)]

    assert factors == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]


def test_the_constant_schedule_is_constant_after_the_warm_up():
    schedule = LrSchedule(kind="constant", warmup=0.1)

    assert [lr_factor(schedule, step, 10) for step in range(3)] == [0.5, 1.0, 1.0]


def test_the_schedule_reaches_the_optimizer():
    model, choice = pruned_model()
    seen: list[StepInfo] = []

    train(model, choice, lr_schedule=LrSchedule(kind="cosine", warmup=0), on_step=seen.append)

    assert [one.lr for one in seen] == pytest.approx(
        [0.05 * lr_factor(LrSchedule(warmup=0), step, STEPS) for step in range(STEPS)]
    )


def test_biases_and_normalization_do_not_decay():
    parameters = list(small_module().parameters())

    decaying, kept = optimizer_for(parameters, FineTune(optimizer=AdamW())).param_groups

    assert {one.dim() for one in decaying["params"]} == {2, 4}
    assert kept["weight_decay"] == 0
    assert len(decaying["params"]) + len(kept["params"]) == len(parameters)


@pytest.mark.parametrize("precision", ["auto", "fp32", "fp16", "bf16"])
def test_a_cpu_trains_in_float32(precision):
    assert mixed_precision(FineTune(precision=precision), torch.device("cpu")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["auto", "fp16", "bf16"])
def test_mixed_precision_keeps_zeros_on_cuda(precision):
    model, choice = pruned_model()
    zeros = [layer.weight.detach() == 0 for layer in choice.pruned]
    model.module.cuda()

    train(model, choice, epochs=2, precision=precision)

    assert all(
        (layer.weight.detach().cpu()[gone] == 0).all()
        for layer, gone in zip(choice.pruned, zeros, strict=True)
    )
