"""A `torch.export` archive is pruned, trained, and exported again; torch alone loads the result."""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from schemas.task import Task
from tests import programs, tiny
from tests.jobs import spec
from workers.data.bundle import Bundle, Split
from workers.errors import PreflightError
from workers.models.load import load_model
from workers.models.loaded import Batch, LoadedModel
from workers.models.save import save_model
from workers.program.write import PROGRAM, wants_program, write_program
from workers.pruning.calibration import Calibration
from workers.pruning.make import make_pruner
from workers.pruning.structured.history import History
from workers.pruning.structured.reload import save_pruned
from workers.training.round import train_round

IMAGES, TEXT = Task.image_classification, Task.text_classification
STRUCTURED = {"pattern": "structured", "round_to": 1}
ALONE = """
import sys, torch
from safetensors.torch import load_file, save_file
assert not any(name in sys.modules for name in ("schemas", "service", "workers"))
inputs = load_file(sys.argv[2])
program = torch.export.load(sys.argv[1]).module()
save_file({"scores": program(*(inputs[name] for name in sys.argv[4:])).contiguous()}, sys.argv[3])
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Each model as torch exports it."""
    root = tmp_path_factory.mktemp("zoo")
    bert = programs.bert(root / "bert")
    programs.save(programs.exported(bert, programs.words()), root / "bert" / "model.pt2")
    made = {"cnn": (programs.Cnn().eval(), SIDES["cnn"]), "resnet": (programs.resnet(), SIDES["resnet"])}
    for name, (module, side) in made.items():
        inputs = {"x" if name == "resnet" else "pixel_values": programs.images(side=side)["pixel_values"]}
        programs.save(programs.exported(module, inputs), root / name / "model.pt2")
    return {name: root / name for name in ("cnn", "resnet", "bert")}


SIDES = {"cnn": 16, "resnet": 32}


def example(name: str, count: int = 4) -> Batch:
    return programs.words(count) if name == "bert" else programs.images(count, SIDES[name])


def bundle(name: str) -> Bundle:
    split = Split(dict(example(name, 16)), torch.arange(16) % 4)
    return Bundle(split, split, lambda stored: dict(stored))


def pruned(folder: Path, name: str, **changes: Any) -> tuple[LoadedModel, LoadedModel]:
    """The model after one cut and one epoch, and the dense one."""
    model = load_model(folder, TEXT if name == "bert" else IMAGES)
    dense = replace(model, module=copy.deepcopy(model.module).requires_grad_(False))
    wanted = spec(**{"goal": {"sparsity": 0.5}, "fine_tune": {"epochs": 1, "batch_size": 8}, **changes})
    calibration = Calibration(model, bundle(name), 0, 8, lambda: None)
    pruner = make_pruner(wanted, dense, calibration, example(name), 1)
    pruner.prune(0.5, 1)
    train_round(
        wanted,
        model,
        dense,
        bundle(name),
        pruner,
        share=0.5,
        number=1,
        epochs=1,
        on_step=lambda _: None,
        evaluate_epoch=None,
    )
    return model, dense


def scores_alone(path: Path, inputs: Batch, names: list[str], scratch: Path) -> torch.Tensor:
    """What a Python without our code makes of the archive."""
    save_file(dict(inputs), scratch / "inputs.safetensors")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    files = [str(path), str(scratch / "inputs.safetensors"), str(scratch / "scores.safetensors")]
    subprocess.run(
        [sys.executable, "-P", "-c", ALONE, *files, *names], cwd=scratch, env=environment, check=True
    )
    return load_file(files[2])["scores"]


def zeros(module: nn.Module) -> dict[str, float]:
    return {
        name: float((one == 0).float().mean()) for name, one in module.named_parameters() if one.dim() > 1
    }


def check_round_trip(model: LoadedModel, name: str, tmp_path: Path) -> LoadedModel:
    """Written, and loaded by torch alone and by us: the same scores."""
    save_model(model, tmp_path / "out")
    sentence = write_program(model, tmp_path / "out" / PROGRAM, example(name))
    names = {"resnet": ["pixel_values"]}.get(name, list(example(name)))
    with torch.no_grad():
        wanted = model.logits(example(name))
    alone = scores_alone(tmp_path / "out" / PROGRAM, example(name), names, tmp_path)
    again = load_model(tmp_path / "out", model.task)

    assert "torch.export.load('model.pt2').module()" in sentence
    assert (alone - wanted).abs().max() <= 1e-5
    with torch.no_grad():
        assert (again.logits(example(name)) - wanted).abs().max() <= 1e-5
    assert zeros(again.module) == zeros(model.module)
    return again


@pytest.mark.parametrize("name", ["cnn", "resnet", "bert"])
def test_zeros_survive_training_and_the_way_out_and_back(folders, name: str, tmp_path: Path):
    model, dense = pruned(folders[name], name)

    check_round_trip(model, name, tmp_path)
    before, after = dense.module.state_dict(), model.module.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in after if key.endswith("bias"))
    assert max(zeros(model.module).values()) > 0.3


def test_two_of_four_holds_in_the_file(folders, tmp_path: Path):
    model, _ = pruned(folders["bert"], "bert", method={"pattern": "semi_structured"})

    again = check_round_trip(model, "bert", tmp_path)

    layer = again.module.get_submodule("bert.encoder.layer.0.output.dense")
    groups = layer.weight.movedim(1, -1).reshape(-1, 4)
    assert ((groups != 0).sum(1) == 2).all()


@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_channels_neurons_and_heads_leave_the_file(folders, name: str, tmp_path: Path):
    model, dense = pruned(folders[name], name, goal={"params": 0.5}, method=STRUCTURED)

    check_round_trip(model, name, tmp_path)

    left, before = (sum(one.numel() for one in each.module.parameters()) for each in (model, dense))
    assert left < 0.6 * before


def test_a_structured_result_needs_no_surgery_beside_its_archive(folders, tmp_path: Path):
    model, _ = pruned(folders["cnn"], "cnn", goal={"params": 0.5}, method=STRUCTURED)

    notes = save_pruned(model, History(), tmp_path, example("cnn"))

    assert notes == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_any_model_is_written_as_an_archive_when_the_spec_asks_for_it(tmp_path: Path):
    model = load_model(tiny.bert(tmp_path / "bert"), TEXT)
    asked = spec(export=["safetensors", "onnx", "torch_export"])

    assert wants_program(asked, model)
    assert not wants_program(spec(), model)
    write_program(model, tmp_path / PROGRAM, programs.words(1))

    with torch.no_grad():
        wanted = model.logits(programs.words())
    alone = scores_alone(tmp_path / PROGRAM, programs.words(), ["input_ids", "attention_mask"], tmp_path)
    assert (alone - wanted).abs().max() <= 1e-5
    again = load_model(tmp_path, TEXT)
    assert [one.name for one in again.module.inputs] == ["input_ids", "attention_mask"]


def test_what_cannot_be_exported_is_refused_with_the_reason(folders, tmp_path: Path):
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, pixel_values):
            seen = pixel_values.mean((2, 3))
            return self.head(seen) if seen.sum() > 0 else self.head(-seen)

    model = replace(
        load_model(folders["cnn"], IMAGES),
        module=Branches(),
        call=lambda module, batch: module(batch["pixel_values"]),
    )

    with pytest.raises(PreflightError, match=r"torch.export cannot write .*leave 'torch_export' out"):
        write_program(model, tmp_path / PROGRAM, example("cnn"))
