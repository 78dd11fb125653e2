"""Whole jobs on ONNX files, through the real session and a real S3."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from schemas.report import Report
from service.store.blobs import Blobs
from tests import onnx_models, tiny
from tests.integration.conftest import Run, order_of, tiny_spec, upload
from tests.memory_link import MemoryLink
from workers.messages import DoneMessage, FailedMessage

FULL: dict[str, Any] = {
    "fine_tune": {"epochs": 0},
    "export": ["safetensors", "onnx"],
    "benchmark": {"batch_sizes": [1], "rounds": 5, "round_seconds": 0.01, "warmup_seconds": 0.0},
}
TEXTS = {"task": {"task": "text-classification"}}


def result(blobs: Blobs, link: MemoryLink, folder: Path) -> tuple[Path, Report]:
    end = link.end()
    assert isinstance(end, DoneMessage), end
    folder.mkdir()
    for artifact in end.manifest["artifacts"]:
        (folder / artifact["name"]).write_bytes(blobs.get_bytes(end.manifest["prefix"] + artifact["name"]))
    return folder, Report.model_validate_json((folder / "report.json").read_text())


def zeros(folder: Path) -> float:
    tensors = load_file(folder / "model.safetensors")
    weights = [value for value in tensors.values() if value.ndim >= 2]
    return sum(int((value == 0).sum()) for value in weights) / sum(value.size for value in weights)


def test_an_image_file_of_a_single_uri_goes_from_pull_to_report(blobs: Blobs, tmp_path: Path, run_order: Run):
    onnx_models.cnn(tmp_path / "model")
    uri = upload(blobs, tmp_path / "model", "zoo/onnx") + "model.onnx"
    data = upload(blobs, tiny.image_npz(tmp_path / "data", train=64, validation=64), "data/onnx")

    folder, report = result(blobs, run_order(order_of(tiny_spec(uri, data, **FULL))), tmp_path / "out")

    stored = {
        one.name: numpy_helper.to_array(one) for one in onnx.load(folder / "model.onnx").graph.initializer
    }
    tensors = load_file(folder / "model.safetensors")
    assert zeros(folder) == pytest.approx(0.5, abs=0.01)
    for name, value in tensors.items():
        assert np.array_equal(value, stored[name]), name
    assert report.goal_reached
    assert report.onnx is not None
    assert report.onnx.matches
    assert report.benchmark is not None
    assert report.pruned.nonzeros < report.dense.nonzeros
    assert report.dense.macs is not None
    assert "images are divided by 255" in " ".join(report.notes)
    (scores,) = onnxruntime.InferenceSession(folder / "model.onnx").run(
        None, {"image": np.zeros((5, 1, tiny.SIDE, tiny.SIDE), np.float32)}
    )
    assert scores.shape == (5, tiny.CLASSES)


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_a_text_folder_is_pruned_by_what_its_layers_read(
    blobs: Blobs, tmp_path: Path, run_order: Run, criterion: str
):
    onnx_models.bert(tmp_path / "model")
    model = upload(blobs, tmp_path / "model", "zoo/onnx-bert")
    data = upload(blobs, tiny.text_parquet(tmp_path / "data", train=64, validation=64), "data/texts")
    changes = {
        "benchmark": {"backend": "none"},
        "method": {"pattern": "semi_structured", "criterion": {"kind": criterion}},
        "schedule": {"kind": "one_shot"},
        "quantize": {"kind": "int8_dynamic"},
    }

    link = run_order(order_of(tiny_spec(model, data, **TEXTS, **{**FULL, **changes})))
    folder, report = result(blobs, link, tmp_path / "out")

    assert report.goal_reached
    assert (folder / "model.int8.onnx").is_file()
    assert (folder / "tokenizer.json").is_file()
    assert any("2:4 holds in all" in (stage.note or "") for stage in report.stages)


def test_a_folder_with_an_onnx_file_is_not_fine_tuned(blobs: Blobs, tmp_path: Path, run_order: Run):
    onnx_models.cnn(tmp_path / "model")
    model = upload(blobs, tmp_path / "model", "zoo/onnx-folder")
    data = upload(blobs, tiny.image_npz(tmp_path / "data", train=64, validation=64), "data/onnx")

    end = run_order(order_of(tiny_spec(model, data))).end()

    assert isinstance(end, FailedMessage)
    assert "set fine_tune.epochs and fine_tune.final_epochs to 0" in end.reason
