"""Segmentation and detection from the folder to the judged ONNX file, with each pattern."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.job_spec import JobSpec
from tests import scenes
from workers.data.bundle import Bundle
from workers.data.load import load_bundle
from workers.evaluate import judge
from workers.export import export_onnx
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.pruning.calibration import Calibration
from workers.pruning.make import make_pruner
from workers.pruning.pruner import Pruner
from workers.pruning.structured.history import History
from workers.pruning.structured.reload import save_pruned
from workers.pruning.structured.trace import trace
from workers.quantization.score import judge_onnx
from workers.training.round import train_round

BATCH = 4
MODELS: dict[str, Callable[[Path], Path]] = {"segmentation": scenes.segformer, "detection": scenes.yolos}
DATA: dict[str, Callable[[Path], Path]] = {
    "segmentation": scenes.mask_parquet,
    "detection": scenes.box_parquet,
}
PATTERNS: dict[str, dict[str, Any]] = {
    "unstructured": {"goal": {"sparsity": 0.5}, "method": {"pattern": "unstructured"}},
    "taylor": {"goal": {"sparsity": 0.5}, "method": {"criterion": {"kind": "taylor", "samples": 8}}},
    "2:4": {"goal": {"sparsity": 0.5}, "method": {"pattern": "semi_structured"}},
    "structured": {"goal": {"params": 0.8}, "method": {"pattern": "structured", "round_to": 1}},
}


class Job:
    """A model and its data, as a session holds them."""

    def __init__(self, folder: Path, task: str, pattern: str) -> None:
        self.spec = JobSpec.model_validate(
            {
                "model": {"uri": "s3://zoo/model/"},
                "data": {"uri": "s3://zoo/data/", "task": task},
                "schedule": {"kind": "one_shot"},
                "fine_tune": {"epochs": 1, "batch_size": BATCH, "distill": {}},
                **PATTERNS[pattern],
            }
        )
        self.model: LoadedModel = load_model(MODELS[task](folder / "model"), self.spec.data.task)
        self.dense = replace(self.model, module=copy.deepcopy(self.model.module).requires_grad_(False))
        self.bundle: Bundle = load_bundle(DATA[task](folder / "data"), self.spec.data, self.model, seed=0)
        samples = self.bundle.batches(self.bundle.validation, 2, device=torch.device("cpu"))
        self.example, _ = next(samples)
        calibration = Calibration(self.model, self.bundle, 0, BATCH, lambda: None)
        self.pruner: Pruner = make_pruner(self.spec, self.dense, calibration, self.example, 1)

    def cut_and_train(self) -> float:
        """One round; the mean loss of its epoch."""
        share = self.spec.removed_after(1)
        self.pruner.prune(share, 1)
        result = train_round(
            self.spec,
            self.model,
            self.dense,
            self.bundle,
            self.pruner,
            share=share,
            number=1,
            epochs=1,
            on_step=lambda _: None,
            evaluate_epoch=None,
        )
        assert result.loss is not None
        return result.loss

    def metric(self) -> float:
        return judge(self.model, self.bundle, batch_size=2, on_batch=lambda *_: None).value


@pytest.mark.parametrize("task", list(MODELS))
@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_a_round_cuts_what_was_asked_for_and_trains(tmp_path: Path, task: str, pattern: str):
    job = Job(tmp_path, task, pattern)
    before = {name: one.clone() for name, one in job.model.module.named_parameters()}

    loss = job.cut_and_train()

    asked = 0.2 if pattern == "structured" else 0.5
    assert job.pruner.pruned().sparsity == pytest.approx(asked, abs=0.05)
    assert loss > 0
    assert 0 <= job.metric() <= 1
    moved = [
        name
        for name, one in job.model.module.named_parameters()
        if one.shape != before[name].shape or not torch.equal(one, before[name])
    ]
    assert len(moved) > len(before) / 2


@pytest.mark.parametrize("task", list(MODELS))
def test_a_smaller_model_is_exported_judged_and_loaded_again(tmp_path: Path, task: str):
    job = Job(tmp_path, task, "structured")
    job.cut_and_train()

    exported = export_onnx(job.model, tmp_path / "model.onnx", job.example)
    by_onnx = judge_onnx(
        tmp_path / "model.onnx", job.model, job.bundle, batch_size=2, threads=1, on_batch=lambda *_: None
    )

    surgery = job.pruner.surgery()
    assert surgery is not None
    save_pruned(job.model, History.model_validate_json(surgery), tmp_path / "out", job.example)
    again = load_model(tmp_path / "out", job.spec.data.task)
    with torch.no_grad():
        scores = again.logits(job.example)
    assert exported.check.matches
    assert by_onnx.value == pytest.approx(job.metric(), abs=1e-3)
    assert torch.allclose(scores, job.model.logits(job.example), atol=1e-5)
    assert job.model.kind.loss(scores, next(iter(job.bundle.train.batches(2, None))).labels).isfinite()


def test_a_model_that_collects_hidden_states_answers_after_a_trace_as_before(tmp_path: Path):
    job = Job(tmp_path, "segmentation", "structured")  # it traces the model without a cut

    with torch.no_grad():
        before, after = job.dense.logits(job.example), job.model.logits(job.example)

    assert torch.equal(before, after)
    assert trace(job.model.module, lambda module: job.model.call(module, job.example)).groups
