"""Whole jobs on tiny real models, through the real session and a real S3."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from schemas.report import Report
from service.store.blobs import Blobs
from tests import tiny
from tests.integration.conftest import Run, order_of, tiny_spec, upload
from tests.memory_link import MemoryLink
from workers.errors import Stopped
from workers.messages import DoneMessage

FULL = {
    "export": ["safetensors", "onnx"],
    "benchmark": {"batch_sizes": [1], "rounds": 5, "round_seconds": 0.01, "warmup_seconds": 0.0},
}


@pytest.fixture
def image_uris(blobs: Blobs, tmp_path: Path) -> tuple[str, str]:
    model = upload(blobs, tiny.resnet(tmp_path / "model"), "zoo/m")
    return model, upload(blobs, tiny.image_npz(tmp_path / "data"), "data/d")


def result(blobs: Blobs, link: MemoryLink, folder: Path) -> Path:
    """The job's artifacts, downloaded and checked against the manifest."""
    end = link.end()
    assert isinstance(end, DoneMessage), end
    folder.mkdir()
    for artifact in end.manifest["artifacts"]:
        data = blobs.get_bytes(end.manifest["prefix"] + artifact["name"])
        assert hashlib.sha256(data).hexdigest() == artifact["sha256"]
        (folder / artifact["name"]).write_bytes(data)
    return folder


def zeros(path: Path) -> float:
    tensors = load_file(path / "model.safetensors")
    weights = [value for name, value in tensors.items() if value.ndim >= 2 and name.endswith("weight")]
    return sum(int((value == 0).sum()) for value in weights) / sum(value.numel() for value in weights)


def test_an_image_job_ends_in_files_that_its_own_library_loads(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    link = run_order(order_of(tiny_spec(*image_uris, **FULL)))

    folder = result(blobs, link, tmp_path / "out")
    report = Report.model_validate_json((folder / "report.json").read_text())
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    pixels = torch.randn(3, 1, tiny.SIDE, tiny.SIDE)
    with torch.no_grad():
        expected = model(pixel_values=pixels).logits.numpy()
    (scores,) = onnxruntime.InferenceSession(folder / "model.onnx").run(
        None, {"pixel_values": pixels.numpy()}
    )
    assert np.abs(scores - expected).max() < 1e-3
    assert zeros(folder) == pytest.approx(0.5, abs=0.01)
    assert report.goal_reached
    assert report.onnx is not None
    assert report.onnx.matches
    assert report.benchmark is not None
    assert report.pruned.nonzeros < report.dense.nonzeros
    assert report.pruned.compressed_bytes < report.dense.compressed_bytes
    assert "<svg" in (folder / "report.html").read_text()
    assert link.step_names()[0] == "pull"
    assert all(step.seconds is not None for step in report.steps)


def test_a_text_job_runs_on_a_tokenizer_of_the_model_folder(blobs: Blobs, tmp_path: Path, run_order: Run):
    model = upload(blobs, tiny.bert(tmp_path / "model"), "zoo/bert")
    data = upload(blobs, tiny.text_parquet(tmp_path / "data"), "data/text")
    task = {"task": "text-classification", "max_length": 8}

    link = run_order(order_of(tiny_spec(model, data, task=task, **FULL)))

    folder = result(blobs, link, tmp_path / "out")
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_labels > 1
    assert (folder / "tokenizer.json").exists()
    assert zeros(folder) > 0.3


def test_a_torchvision_job_keeps_the_layout_of_its_folder(blobs: Blobs, tmp_path: Path, run_order: Run):
    model = upload(blobs, tiny.torchvision_folder(tmp_path / "model"), "zoo/squeeze")
    data = upload(blobs, tiny.image_npz(tmp_path / "data", train=32, validation=16), "data/d")
    one_shot = {"schedule": {"kind": "one_shot"}, "fine_tune": {"epochs": 0}}

    link = run_order(order_of(tiny_spec(model, data, **one_shot)))

    folder = result(blobs, link, tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["architecture"] == "squeezenet1_1"
    assert zeros(folder) == pytest.approx(0.5, abs=0.01)


def test_two_runs_with_one_seed_give_the_same_bits(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    spec = tiny_spec(*image_uris, fine_tune={"epochs": 1, "batch_size": 32, "distill": {}})

    first = result(blobs, run_order(order_of(spec)), tmp_path / "a")
    second = result(blobs, run_order(order_of(spec, token="2:b")), tmp_path / "b")

    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_a_job_that_lost_its_worker_ends_with_the_weights_of_an_undisturbed_one(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    spec = tiny_spec(*image_uris, schedule={"kind": "iterative", "rounds": 3})
    undisturbed = result(blobs, run_order(order_of(spec)), tmp_path / "a")
    cut_short = MemoryLink()
    order = order_of(spec, token="2:b")
    cut_short.commit = stop_after_two(cut_short)  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        run_order(order, cut_short)
    rounds = [round for round, _ in cut_short.commits]
    checkpoint = cut_short.commits[-1][1]

    link = run_order(order_of(spec, token="3:c", attempt=2, checkpoint=checkpoint, rounds=rounds))

    assert link.committed() == [(3, True)]
    resumed = result(blobs, link, tmp_path / "b")
    assert (resumed / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


def stop_after_two(link: MemoryLink):
    def commit(round, checkpoint) -> None:
        link.commits.append((round, checkpoint))
        if round.number == 2:
            raise Stopped("lost")

    return commit


def test_a_round_below_the_floor_is_rolled_back_to_the_bits_of_the_one_before(
    blobs: Blobs, tmp_path: Path, image_uris: tuple[str, str], run_order: Run
):
    learn = {"epochs": 6, "batch_size": 32, "optimizer": {"kind": "sgd", "lr": 0.1}}
    barely = {"goal": {"sparsity": 0.01}, "schedule": {"kind": "one_shot"}, "fine_tune": learn}
    trained = result(blobs, run_order(order_of(tiny_spec(*image_uris, **barely))), tmp_path / "trained")
    model = upload(blobs, trained, "zoo/trained")
    steep = {
        "schedule": {"kind": "iterative", "rounds": 2, "curve": "linear"},
        "goal": {"sparsity": 0.999},
        "fine_tune": learn | {"epochs": 2},
        "floor": {"max_drop": 0.3},
    }

    link = run_order(order_of(tiny_spec(model, image_uris[1], **steep), token="2:b"))

    assert link.committed() == [(1, True), (2, False)]
    folder = result(blobs, link, tmp_path / "out")
    report = Report.model_validate_json((folder / "report.json").read_text())
    checkpoint = link.commits[0][1]
    assert checkpoint is not None
    kept = blobs.get_bytes(checkpoint.prefix + "model.safetensors")
    (tmp_path / "kept.safetensors").write_bytes(kept)
    first_round, ended = load_file(tmp_path / "kept.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(first_round[name], value) for name, value in ended.items())
    assert not report.goal_reached
    assert "fell below the floor" in report.verdict
