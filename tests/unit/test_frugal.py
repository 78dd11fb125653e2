"""Jobs that need one copy of the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from schemas.memory import keeps_dtype, needs_one_copy
from schemas.task import Task
from tests import tiny
from tests.jobs import spec
from workers.frugal import adopt, let_go
from workers.models.load import load_model

ZEROS_ONLY: dict[str, Any] = {
    "export": ["safetensors"],
    "benchmark": {"backend": "none"},
    "fine_tune": {"epochs": 0},
}


def test_a_job_that_only_writes_zeros_needs_one_copy():
    assert needs_one_copy(spec(**ZEROS_ONLY))
    assert keeps_dtype(spec(**ZEROS_ONLY))


@pytest.mark.parametrize(
    "change",
    [
        {"fine_tune": {"epochs": 1}},
        {"export": ["safetensors", "onnx"]},
        {"export": ["safetensors", "torch_export"]},
        {"method": {"pattern": "structured"}, "goal": {"params": 0.5}},
        {"quantize": {"kind": "cluster"}},
    ],
    ids=str,
)
def test_a_job_that_does_more_keeps_the_dense_model(change: dict[str, Any]):
    assert not needs_one_copy(spec(**{**ZEROS_ONLY, **change}))


def test_scores_that_need_gradients_are_computed_in_float32():
    by_gradients = spec(**ZEROS_ONLY, method={"criterion": {"kind": "taylor"}})

    assert needs_one_copy(by_gradients)
    assert not keeps_dtype(by_gradients)


def test_weights_that_were_let_go_come_back_into_the_same_parameters():
    module, other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    nn.init.constant_(other.weight, 3.0)
    other.running_mean = torch.full((4,), 5.0)
    weight = module.weight

    let_go(module)
    assert weight.numel() == 0
    adopt(module, other)

    assert module.weight is weight
    assert weight.data_ptr() == other.weight.data_ptr()
    assert torch.equal(module.running_mean, torch.full((4,), 5.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_stays_so_and_scores_in_float32(dtype: torch.dtype, tmp_path: Path):
    folder = tiny.resnet(tmp_path)
    weights = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    task = Task.image_classification

    kept, widened = load_model(folder, task, keep_dtype=True), load_model(folder, task)

    assert next(kept.module.parameters()).dtype is dtype
    assert next(widened.module.parameters()).dtype is torch.float32
    images = torch.rand(2, 1, 28, 28)
    scores = kept.logits({"pixel_values": images})
    assert scores.dtype is torch.float32
    torch.testing.assert_close(scores, widened.logits({"pixel_values": images}), rtol=0.1, atol=0.1)


def test_cutting_a_loaded_model_leaves_its_file_alone(tmp_path: Path):
    folder = tiny.resnet(tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    model = load_model(folder, Task.image_classification, keep_dtype=True)

    with torch.no_grad():
        for one in model.module.parameters():
            one.zero_()

    assert (folder / "model.safetensors").read_bytes() == before
