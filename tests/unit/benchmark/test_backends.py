"""The same contract for every runtime: it says whether it can run, and gives the scores of the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from schemas.benchmark import BenchmarkSpec
from tests.unit.benchmark.models import feeds_of, write_matmuls
from workers.benchmark.backends.backend import Backend
from workers.benchmark.backends.onnx_runtime import CUDA, OnnxRuntime
from workers.benchmark.backends.openvino import OpenVino
from workers.benchmark.backends.registry import availability, backend_of
from workers.benchmark.backends.torch_program import TorchProgram, sparsify
from workers.benchmark.compare import compare
from workers.benchmark.runner import measure

SHORT = BenchmarkSpec(batch_sizes=(2,), rounds=5, round_seconds=0.002, warmup_seconds=0.0)


def written(backend: Backend, folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A model in the file that the backend reads, and two samples for it."""
    if backend.suffix == ".onnx":
        return write_matmuls(folder / "m.onnx", depth=2), dict(feeds_of(2))
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    example = torch.ones(2, 8)
    torch.export.save(torch.export.export(module, (example,)), folder / "m.pt2")
    return folder / "m.pt2", {"x": example.numpy()}


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_a_backend_that_can_run_measures_a_model_against_itself(name: str, tmp_path: Path):
    backend = backend_of(name, "cpu")
    if reason := backend.why_not():
        pytest.skip(reason)
    model, feeds = written(backend, tmp_path)

    (comparison,) = measure(backend, model, model, {2: feeds}, SHORT, threads=1, on_round=lambda: None)

    assert comparison.dense.samples >= SHORT.rounds
    assert backend.device()


@pytest.mark.skipif(OpenVino().why_not() is not None, reason="openvino is not installed")
def test_openvino_measures_in_a_process_of_its_own(tmp_path: Path):
    """In ours it would change the stack of signal handlers, and a later signal would end the process."""
    model = write_matmuls(tmp_path / "m.onnx", depth=2)
    spec = SHORT.model_copy(update={"backend": "openvino"})

    result = compare(model, model, feeds_of, spec, threads=1, on_round=lambda *_: None)

    assert result.backend == "openvino"
    assert result.comparisons[0].dense.samples >= SHORT.rounds
    assert "OpenVINO computes zeros like any other weight" in result.note


def test_auto_is_onnx_runtime():
    assert isinstance(backend_of("auto", "cpu"), OnnxRuntime)


def test_every_backend_that_cannot_run_says_why():
    reasons = {one.backend: one.reason for one in availability("cpu")}

    assert reasons["onnxruntime"] is None
    assert reasons["torch-sparse"] == "semi-structured kernels are for CUDA only"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_runs_on_one():
    reasons = {one.backend: one.reason for one in availability("cuda")}

    assert reasons["torch"] == "PyTorch sees no CUDA device"
    assert f"has no {CUDA}" in str(reasons["onnxruntime"])


def test_openvino_is_an_extra_that_is_asked_for():
    reason = OpenVino().why_not()

    assert reason is None or "openvino" in reason


def test_only_weights_that_hold_the_pattern_would_become_sparse():
    module = nn.Sequential(nn.Linear(64, 64)).half()

    assert sparsify(module) == []


@pytest.mark.gpu
@pytest.mark.skipif(TorchProgram("sparse", "cuda").why_not() is not None, reason="needs sparse tensor cores")
def test_2_to_4_weights_run_in_sparse_kernels():
    layer = nn.Linear(128, 128, bias=False).half().cuda()
    with torch.no_grad():
        layer.weight.view(-1, 4)[:, :2] = 0
    module, example = nn.Sequential(layer), torch.randn(64, 128, device="cuda", dtype=torch.half)
    with torch.no_grad():
        expected = module(example)

    assert sparsify(module) == ["0.weight"]
    with torch.no_grad():
        assert torch.allclose(module(example), expected, rtol=1e-2, atol=1e-2)
