"""timm folders, as timm itself writes them: right, or refused with the reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from schemas.task import Task
from tests import tiny
from workers.errors import ModelError
from workers.models.load import load_model
from workers.models.preprocessing import read_preprocessing
from workers.models.save import save_model
from workers.pruning.structured.history import History
from workers.pruning.structured.reload import save_pruned
from workers.pruning.structured.surgery import remove
from workers.pruning.structured.trace import trace

IMAGES = Task.image_classification
WEIGHTS = "model.safetensors"


def folder_of(folder: Path, name: str = "test_vit", **arguments: Any) -> Path:
    """What timm's own export to the hub writes: config.json and safetensors."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **{"num_classes": tiny.CLASSES, **arguments})
    save_for_hf(model, folder, safe_serialization=True)
    return folder


def refusal(folder: Path, task: Task = IMAGES) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder, task)
    return str(caught.value)


def edit_cfg(folder: Path, **changes: Any) -> None:
    """Set fields of `pretrained_cfg`."""
    stated = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    tiny.edit_json(folder / "config.json", pretrained_cfg={**stated, **changes})


def test_a_model_of_one_number_is_a_regression(tmp_path):
    folder = folder_of(tmp_path, num_classes=1)

    model = load_model(folder, Task.regression)

    assert model.logits({"pixel_values": torch.rand(2, 3, 160, 160)}).shape == (2, 1)
    assert "two or more, or 1 with data.task 'regression'" in refusal(folder)


def test_gives_the_same_logits_as_the_library(tmp_path):
    folder = folder_of(tmp_path)
    pixels = torch.rand(2, 3, 160, 160)

    model = load_model(folder, IMAGES)

    library = timm.create_model("test_vit", num_classes=tiny.CLASSES, checkpoint_path=str(folder / WEIGHTS))
    assert torch.equal(model.logits({"pixel_values": pixels}), library.eval()(pixels))
    assert (model.architecture, model.classes) == ("timm/test_vit", tiny.CLASSES)
    assert (model.image_size, model.image_channels) == ((160, 160), 3)
    assert not model.module.training


def test_builds_with_the_arguments_that_the_config_states(tmp_path):
    folder = folder_of(tmp_path, depth=2, img_size=32, in_chans=1)
    edit_cfg(folder, input_size=[1, 32, 32])

    model = load_model(folder, IMAGES)

    assert len(model.module.blocks) == 2
    assert (model.image_size, model.image_channels) == ((32, 32), 1)
    assert model.logits({"pixel_values": torch.rand(1, 1, 32, 32)}).shape == (1, tiny.CLASSES)


def test_input_size_and_normalisation_are_those_of_pretrained_cfg(tmp_path):
    folder = folder_of(tmp_path)
    edit_cfg(folder, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])

    read = read_preprocessing(folder, 3)

    assert (read.size, read.crop, read.resample) == ((160, 160), 0.95, 3)
    assert (read.mean, read.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_squashed_images_lose_nothing(tmp_path):
    folder = folder_of(tmp_path)
    edit_cfg(folder, crop_mode="squash")

    assert read_preprocessing(folder, 3).crop is None


def test_a_folder_that_names_no_library_is_known_by_its_fields(tmp_path):
    folder = folder_of(tmp_path)

    assert "library_name" not in json.loads((folder / "config.json").read_text())
    assert load_model(folder, IMAGES).architecture == "timm/test_vit"


def test_the_tag_of_pretrained_weights_is_not_part_of_the_architecture(tmp_path):
    folder = folder_of(tmp_path)
    tiny.edit_json(folder / "config.json", architecture="test_vit.r160_in1k")

    assert load_model(folder, IMAGES).architecture == "timm/test_vit"


def test_a_saved_model_is_loaded_by_timm(tmp_path):
    model = load_model(folder_of(tmp_path / "dense"), IMAGES)
    with torch.no_grad():
        next(model.module.parameters()).zero_()

    save_model(model, tmp_path / "pruned")

    library = timm.create_model(f"local-dir:{tmp_path / 'pruned'}", pretrained=True).eval()
    pixels = torch.rand(1, 3, 160, 160)
    assert torch.equal(library(pixels), model.logits({"pixel_values": pixels}))


def test_a_distilled_model_answers_logits_in_training_mode(tmp_path):
    model = load_model(folder_of(tmp_path, "deit_tiny_distilled_patch16_224", depth=1, img_size=32), IMAGES)
    model.module.train()
    model.module.set_distilled_training(True)

    assert model.logits({"pixel_values": torch.rand(1, 3, 32, 32)}).shape == (1, tiny.CLASSES)


def test_names_the_tensors_that_do_not_match(tmp_path):
    folder = folder_of(tmp_path)
    weights = load_file(folder / WEIGHTS)
    weights["extra.weight"] = weights.pop("head.bias")
    save_file(weights, folder / WEIGHTS)
    tiny.edit_json(folder / "config.json", num_classes=7)

    message = refusal(folder)

    assert "missing head.bias; unexpected extra.weight" in message
    assert "head.weight is [4, 64], not [7, 64]" in message


def test_refuses_weights_that_are_not_finite(tmp_path):
    folder = folder_of(tmp_path)
    weights = load_file(folder / WEIGHTS)
    weights["head.bias"][0] = float("nan")
    save_file(weights, folder / WEIGHTS)

    assert "NaN or infinity in head.bias" in refusal(folder)


@pytest.mark.parametrize("name", ["resnet81", "hf-hub:timm/resnet18", "local-dir:/tmp", None, 3])
def test_refuses_what_is_no_architecture(tmp_path, name):
    folder = folder_of(tmp_path)
    tiny.edit_json(folder / "config.json", architecture=name)

    message = refusal(folder)

    assert "unknown architecture" in message
    assert ("did you mean 'resnet18'" in message) is (name == "resnet81")


@pytest.mark.parametrize("argument", ["pretrained", "checkpoint_path", "pretrained_cfg", "features_only"])
def test_arguments_cannot_fetch_weights(tmp_path, argument):
    folder = folder_of(tmp_path)
    tiny.edit_json(folder / "config.json", model_args={argument: "x"})

    assert f"may not set '{argument}'" in refusal(folder)


@pytest.mark.parametrize("arguments", [{"no_such_argument": 1}, {"depth": "deep"}, {"embed_dim": 7}, [1]])
def test_refuses_arguments_that_the_architecture_cannot_take(tmp_path, arguments):
    folder = folder_of(tmp_path)
    tiny.edit_json(folder / "config.json", model_args=arguments)

    assert refusal(folder).startswith("config.json: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", None),
        ("input_size", [160, 160]),
        ("input_size", [0, 160, 160]),
        ("interpolation", "sharp"),
        ("mean", [0.5]),
        ("std", [0.0, 0.5, 0.5]),
        ("crop_pct", 3),
    ],
)
def test_names_the_field_that_cannot_be_read(tmp_path, field, value):
    folder = folder_of(tmp_path)
    edit_cfg(folder, **{field: value})

    assert field in refusal(folder)


def test_names_the_size_that_is_none(tmp_path):
    folder = folder_of(tmp_path)
    edit_cfg(folder, input_size=[3, 160, -1])

    assert "cannot read [160, -1] as an image size" in refusal(folder)


def test_refuses_a_text_task_and_a_missing_head(tmp_path):
    folder = folder_of(tmp_path)

    assert "timm models classify images" in refusal(folder, Task.text_classification)

    tiny.edit_json(folder / "config.json", num_classes=0)

    assert "'num_classes' is 0" in refusal(folder)


def test_a_network_whose_channels_went_loads_again(tmp_path):
    model = load_model(folder_of(tmp_path / "dense", "test_resnet"), IMAGES)
    pixels = {"pixel_values": torch.rand(2, 3, 64, 64)}
    graph = trace(model.module, lambda module: model.call(module, pixels))
    group = next(one for one in graph.groups if one.kind == "channels")
    surgery = remove(model.module, graph, {group.name: np.arange(group.size // 2)})

    save_pruned(model, History(rounds=(surgery,)), tmp_path / "pruned", pixels)
    again = load_model(tmp_path / "pruned", IMAGES)

    assert torch.equal(again.logits(pixels), model.logits(pixels))
    assert sum(one.numel() for one in again.module.parameters()) == sum(
        one.numel() for one in model.module.parameters()
    )
