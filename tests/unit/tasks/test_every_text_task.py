"""Each task of text, numbers and sound, from the model's folder to the metric of the ONNX file."""

import copy
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

from schemas.job_spec import JobSpec
from tests import small_tasks as tasks
from tests.jobs import spec
from workers.data.bundle import Bundle
from workers.data.load import load_bundle
from workers.evaluate import judge
from workers.export import export_onnx
from workers.models.load import load_model
from workers.models.loaded import Batch, LoadedModel
from workers.pruning.calibration import Calibration
from workers.pruning.make import make_pruner
from workers.pruning.pruner import Pruner
from workers.quantization.score import judge_onnx
from workers.training.round import train_round

STRUCTURED = {"pattern": "structured", "round_to": 1}
MASKS: dict[str, dict[str, Any]] = {
    "magnitude": {"pattern": "unstructured"},
    "sparsegpt": {"pattern": "unstructured", "criterion": {"kind": "sparsegpt"}},
    "2:4 by wanda": {"pattern": "semi_structured", "criterion": {"kind": "wanda"}},
}
SMALLER = (
    "token-classification",
    "question-answering",
    "regression of images",
    "masked-lm",
    "seq2seq-lm of T5",
    "audio-classification",
)
"""Tracing and exporting takes seconds: one of each kind."""


def opened(folder: Path, what: str) -> tuple[LoadedModel, Bundle, Batch]:
    """The model, its data, and an example of two samples."""
    make_model, make_data, of_data = tasks.CASES[what]
    model = load_model(make_model(folder / "model"), of_data.task)
    bundle = load_bundle(make_data(folder / "data"), of_data, model, seed=0)
    example, _ = next(bundle.batches(bundle.validation, 2, device=model.device))
    return model, bundle, example


def job(what: str, method: dict[str, Any]) -> JobSpec:
    """One round to half of the weights, or to four fifths of the parameters, and distillation."""
    goal = {"params": 0.8} if method is STRUCTURED else {"sparsity": 0.5}
    return spec(
        data=tasks.CASES[what][2].model_dump(mode="json"),
        method=method,
        goal=goal,
        schedule={"kind": "one_shot"},
        fine_tune={"epochs": 1, "batch_size": 8, "distill": {}},
    )


def pruned(of: JobSpec, model: LoadedModel, bundle: Bundle, example: Batch) -> tuple[LoadedModel, Pruner]:
    """The dense model, and the pruner that has cut `model`."""
    dense = replace(model, module=copy.deepcopy(model.module).requires_grad_(False))
    pruner = make_pruner(of, dense, Calibration(model, bundle, 0, 8, lambda: None), example, 1)
    pruner.prune(of.removed_after(1), 1)
    return dense, pruner


def train_one_step(
    of: JobSpec, model: LoadedModel, dense: LoadedModel, bundle: Bundle, pruner: Pruner
) -> list[float]:
    """The losses of an epoch of one batch."""
    losses: list[float] = []
    train_round(
        of,
        model,
        dense,
        replace(bundle, train=bundle.train.first(8)),
        pruner,
        share=of.removed_after(1),
        number=1,
        epochs=1,
        on_step=lambda info: losses.append(info.loss),
        evaluate_epoch=None,
    )
    return losses


@pytest.mark.parametrize("what", tasks.CASES)
@pytest.mark.parametrize("pattern", MASKS)
def test_zeros_go_into_each_task_and_stay_in_training(tmp_path, what, pattern):
    of = job(what, MASKS[pattern])
    model, bundle, example = opened(tmp_path, what)
    dense, pruner = pruned(of, model, bundle, example)

    losses = train_one_step(of, model, dense, bundle, pruner)

    assert pruner.pruned().sparsity == pytest.approx(0.5, abs=0.01)
    assert len(losses) == 1
    assert isfinite(losses[0])
    measured = judge(model, bundle, batch_size=8, on_batch=lambda *_: None)
    assert 0 <= measured.value <= 1
    assert measured.others


@pytest.mark.parametrize("what", SMALLER)
def test_a_smaller_model_is_trained_and_its_onnx_file_has_its_metric(tmp_path, what):
    of = job(what, STRUCTURED)
    model, bundle, example = opened(tmp_path, what)
    dense, pruner = pruned(of, model, bundle, example)

    losses = train_one_step(of, model, dense, bundle, pruner)
    check = export_onnx(model, tmp_path / "model.onnx", example).check

    assert isfinite(losses[0])
    assert pruner.pruned().reached == pytest.approx(0.2, abs=0.02)
    assert check.matches
    measured = judge(model, bundle, batch_size=5, on_batch=lambda *_: None)
    of_file = judge_onnx(
        tmp_path / "model.onnx", model, bundle, batch_size=5, threads=1, on_batch=lambda *_: None
    )
    assert of_file.value == pytest.approx(measured.value, abs=1e-4)
    assert of_file.others.keys() == measured.others.keys()


def test_the_metric_does_not_depend_on_the_batch_size(tmp_path):
    model, bundle, _ = opened(tmp_path, "question-answering")

    values = {judge(model, bundle, batch_size=size, on_batch=lambda *_: None).value for size in (1, 5, 64)}

    assert max(values) - min(values) < 1e-6
