"""Whole jobs on `torch.export` archives, through the real session and a real S3."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from schemas.report import Report
from schemas.task import Task
from service.store.blobs import Blobs
from tests import programs, tiny
from tests.integration.conftest import Run, order_of, tiny_spec, upload
from tests.memory_link import MemoryLink
from workers.messages import DoneMessage
from workers.models.load import load_model
from workers.models.save import save_model


def result(blobs: Blobs, link: MemoryLink, folder: Path) -> tuple[Path, Report]:
    end = link.end()
    assert isinstance(end, DoneMessage), end
    folder.mkdir()
    for artifact in end.manifest["artifacts"]:
        (folder / artifact["name"]).write_bytes(blobs.get_bytes(end.manifest["prefix"] + artifact["name"]))
    return folder, Report.model_validate_json((folder / "report.json").read_text())


def test_a_job_on_one_file_gives_an_archive_that_torch_loads(blobs: Blobs, tmp_path: Path, run_order: Run):
    images = {"pixel_values": torch.rand(2, 1, programs.SIDE, programs.SIDE)}
    programs.save(programs.exported(programs.Cnn(1).eval(), images), tmp_path / "model" / "small.pt2")
    uri = upload(blobs, tmp_path / "model", "zoo/pt2") + "small.pt2"
    data = upload(blobs, tiny.image_npz(tmp_path / "data", train=64, validation=32), "data/pt2")

    spec = tiny_spec(uri, data, export=["safetensors", "onnx"])

    folder, report = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    tensors = load_file(folder / "model.safetensors")
    program = torch.export.load(folder / "model.pt2")
    for name, value in program.state_dict.items():
        assert torch.equal(value, tensors[name]), name
    assert report.architecture == "torch.export/small"
    assert report.goal_reached
    assert report.onnx is not None
    assert report.onnx.matches
    assert "divided by 255" in " ".join(report.notes)
    assert "torch.export.load('model.pt2').module()(pixel_values)" in " ".join(report.notes)
    assert json.loads((folder / "config.json").read_text()) == {"library_name": "torch.export"}


def test_a_result_folder_is_pruned_again_and_loses_neurons(blobs: Blobs, tmp_path: Path, run_order: Run):
    folder = tmp_path / "model"
    programs.save(programs.exported(programs.bert(folder), programs.words()), folder / "model.pt2")
    save_model(load_model(folder, Task.text_classification), tmp_path / "earlier")
    shutil.copy(folder / "model.pt2", tmp_path / "earlier")
    model = upload(blobs, tmp_path / "earlier", "zoo/pt2-bert")
    data = upload(blobs, tiny.text_parquet(tmp_path / "data", train=64, validation=32), "data/texts")
    texts = {"task": {"task": "text-classification"}}
    structured = {
        "goal": {"params": 0.7},
        "method": {"pattern": "structured", "round_to": 1},
        "schedule": {"kind": "one_shot"},
    }
    spec = tiny_spec(model, data, **texts, **structured)

    out, report = result(blobs, run_order(order_of(spec)), tmp_path / "out")

    assert report.pruned.parameters < 0.75 * report.dense.parameters
    program = torch.export.load(out / "model.pt2")
    assert sum(one.numel() for one in program.parameters()) == report.pruned.parameters
    scores = program.module()(*programs.words().values())
    assert scores.shape == (4, tiny.CLASSES)
