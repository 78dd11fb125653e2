"""A teacher whose hidden states are matched, too."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from schemas.fine_tune import Distill
from tests.unit.pruning.small import loaded, small_bundle, small_module
from tests.unit.training.runs import pruned_model, train
from workers.errors import PreflightError, Stopped
from workers.training.distill import HiddenStates, hidden_modules

CONVOLUTIONS = ("3",)


def tiny_bert(seed: int) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=12,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
    )
    return BertForSequenceClassification(config).eval()


class Pair(nn.Module):
    """Gives a tuple, as layers of transformers may."""

    def forward(self, values: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, values * 2


class Wordy(nn.Module):
    """Gives no tensor."""

    def forward(self, values: torch.Tensor) -> str:
        return str(values.shape)


class Side(nn.Module):
    """Passes its input on, and shows it to another module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.inner(values)
        return values


def hooks_of(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in module.modules())


def test_of_nested_matches_the_outermost_counts():
    names = hidden_modules(tiny_bert(0), ["bert.encoder.layer.*"])

    assert names == ["bert.encoder.layer.0", "bert.encoder.layer.1"]


def test_a_glob_without_a_match_is_refused_with_names_that_exist():
    with pytest.raises(
        PreflightError, match=r"hidden_layers: 'blocks.*' matches no module \(there are: 0, 1"
    ):
        hidden_modules(small_module(), ["3", "blocks.*"])


def test_the_loss_is_the_mean_squared_error_of_the_blocks():
    student, teacher = tiny_bert(0), tiny_bert(1)
    tokens = torch.randint(12, (4, 5))
    states = HiddenStates(student, teacher, ["bert.encoder.layer.*"])

    mine = student(tokens, output_hidden_states=True).hidden_states
    wanted = teacher(tokens, output_hidden_states=True).hidden_states
    loss = states.loss()
    states.close()

    # the first hidden state is the embedding's; the others are the layers'
    expected = sum(((a - b) ** 2).mean() for a, b in zip(mine[1:], wanted[1:], strict=True)) / 2
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert student.bert.encoder.layer[0].output.dense.weight.grad is not None
    assert all(one.grad is None for one in teacher.parameters())


def test_takes_the_first_tensor_of_a_tuple():
    student, teacher = nn.Sequential(Pair()), nn.Sequential(Pair())
    states = HiddenStates(student, teacher, ["0"])

    student(torch.ones(2, 3))
    teacher(torch.zeros(2, 3))

    assert float(states.loss()) == pytest.approx(4.0)


def test_a_module_that_gives_no_tensor_is_named():
    student, teacher = nn.Sequential(Side(Wordy())), nn.Sequential(Side(Wordy()))
    states = HiddenStates(student, teacher, ["0.inner"])
    student(torch.ones(1))
    teacher(torch.ones(1))

    with pytest.raises(PreflightError, match=r"'0.inner' gives no tensor: name another module"):
        states.loss()


def test_a_module_that_lost_channels_is_named_with_both_shapes():
    model, choice = pruned_model()
    model.module[3] = nn.Conv2d(8, 20, 3, padding=1)
    model.module[8] = nn.Linear(20, 3)
    distill = Distill(hidden_weight=1.0, hidden_layers=CONVOLUTIONS)

    expected = r"'3' gives \[16, 20, 6, 6\] in the pruned model and \[16, 24, 6, 6\] in the dense one"
    with pytest.raises(PreflightError, match=expected):
        train(model, choice, distill=distill, teacher=loaded(small_module()))
    assert hooks_of(model.module) == 0


def test_a_module_that_the_dense_model_lacks_is_named():
    with pytest.raises(PreflightError, match="the dense model has no '8'"):
        HiddenStates(small_module(), small_module()[:5], ["8"])


def test_hidden_states_come_closer_to_the_teacher_than_with_scores_alone():
    bundle, teacher = small_bundle(), loaded(small_module(seed=5))
    images = bundle.validation.inputs["pixel_values"]
    distances = []
    for hidden in ({}, {"hidden_weight": 10.0, "hidden_layers": CONVOLUTIONS}):
        model, choice = pruned_model(0.3)
        train(model, choice, bundle, epochs=4, distill=Distill(**hidden), teacher=teacher)
        with torch.no_grad():
            apart = model.module[:4](images) - teacher.module[:4](images)
        distances.append(float((apart**2).mean()))

    assert distances[1] < distances[0] / 2


@pytest.mark.parametrize("stops", [False, True])
def test_no_hook_outlives_the_training(stops):
    model, choice = pruned_model()
    teacher = loaded(small_module())
    seen: list[int] = []

    def on_step(_info) -> None:
        seen.append(hooks_of(model.module) + hooks_of(teacher.module))
        if stops:
            raise Stopped

    distill = Distill(hidden_weight=1.0, hidden_layers=CONVOLUTIONS)
    try:
        train(model, choice, distill=distill, teacher=teacher, on_step=on_step)
    except Stopped:
        assert stops

    assert seen[0] == 2
    assert hooks_of(model.module) + hooks_of(teacher.module) == 0


@pytest.mark.parametrize("fields", [{"hidden_weight": 1.0}, {"hidden_layers": ("layer?",)}])
def test_a_weight_and_its_layers_come_together(fields):
    with pytest.raises(ValidationError, match="hidden_"):
        Distill(**fields)
