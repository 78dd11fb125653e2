"""torchvision's segmentation models and detectors as folders, and the weights that any loader takes."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from schemas.task import Task
from tests import scenes, tiny
from workers.errors import ModelError
from workers.models.load import load_model
from workers.models.preprocessing import read_preprocessing
from workers.tasks.detection import Detection
from workers.tasks.segmentation import Segmentation

SSD = "ssdlite320_mobilenet_v3_large"
LRASPP = "lraspp_mobilenet_v3_large"


def described(folder: Path, architecture: str, **config: Any) -> Path:
    """A folder whose weights do not matter: it is refused, or asked for its preprocessing."""
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    stated = {"library_name": "torchvision", "architecture": architecture, "num_classes": 3, **config}
    (folder / "config.json").write_text(json.dumps(stated))
    return folder


def test_a_segmentation_model_scores_each_pixel(tmp_path: Path):
    model = load_model(scenes.of_torchvision(tmp_path, LRASPP), Task.segmentation)

    with torch.no_grad():
        scores = model.logits({"pixel_values": torch.randn(1, 3, scenes.SIDE, scenes.SIDE)})

    assert scores.shape == (1, scenes.SIDE, scenes.SIDE, scenes.CLASSES)
    assert isinstance(model.kind, Segmentation)
    assert model.kind.classes == scenes.CLASSES


@pytest.mark.parametrize(
    ("architecture", "task", "config", "message"),
    [
        (LRASPP, Task.detection, {}, r"lraspp_mobilenet_v3_large does segmentation.*set data\.task to"),
        ("resnet18", Task.segmentation, {}, r"resnet18 does image-classification"),
        ("resnet18", Task.causal_lm, {}, r"torchvision has no models for data\.task 'causal-lm'"),
        ("lraspp_mobilenet", Task.segmentation, {}, r"did you mean 'lraspp_mobilenet_v3_large'"),
        (LRASPP, Task.segmentation, {"num_classes": 1}, r"'num_classes' is 1: give .* 2 or more"),
        ("fasterrcnn_resnet50_fpn", Task.detection, {}, r"has two stages.*give one of fcos_resnet50_fpn"),
        ("maskrcnn_resnet50_fpn_v2", Task.detection, {}, r"has two stages"),
        ("retinanet_resnet50_fpn", Task.detection, {}, r"'input_size' is None.*the height and width"),
        (SSD, Task.detection, {"input_size": [3, 64, 64]}, r"give \[3, height, width\] with \[320, 320\]"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    tmp_path: Path, architecture: str, task: Task, config: dict[str, Any], message: str
):
    with pytest.raises(ModelError, match=message):
        load_model(described(tmp_path, architecture, **config), task)


def test_a_detector_gives_classes_and_box_of_each_anchor(tmp_path: Path):
    folder = scenes.of_torchvision(tmp_path, SSD, side=320)
    model = load_model(folder, Task.detection)
    tiny.edit_json(folder / "config.json", class_offset=2)

    with torch.no_grad():
        scores = model.logits({"pixel_values": torch.randn(1, 3, 320, 320)})

    assert scores.shape == (1, 3234, scenes.CLASSES + 4)
    assert isinstance(model.kind, Detection)
    assert model.kind.detections(scores, (320, 320))[0]["boxes"].shape[1] == 4
    with pytest.raises(ModelError, match=r"'class_offset' is 2"):
        load_model(folder, Task.detection)


@pytest.mark.parametrize(
    "stated",
    [
        {"model_type": "upernet", "backbone": "somebody/backbone"},
        {"model_type": "detr", "backbone": "resnet50", "backbone_kwargs": {"out_indices": [1, 2, 3, 4]}},
        {"model_type": "detr", "backbone": "resnet50", "use_timm_backbone": False},
    ],
    ids=["repository", "kwargs", "not timm"],
)
def test_a_backbone_that_would_be_looked_up_on_the_hub_is_refused(tmp_path: Path, stated: dict[str, Any]):
    (tmp_path / "config.json").write_text(json.dumps(stated))

    with pytest.raises(ModelError, match=r"describe it in 'backbone_config'"):
        load_model(tmp_path, Task.detection)


def test_ssd_has_the_preprocessing_that_the_library_builds_into_it(tmp_path: Path):
    preprocessing = read_preprocessing(described(tmp_path, "ssd300_vgg16"), 3)

    assert preprocessing.size == (300, 300)
    assert preprocessing.mean == (0.48235, 0.45882, 0.40784)
    assert preprocessing.std == (1 / 255,) * 3


def test_what_config_json_says_of_preprocessing_goes_before_the_librarys(tmp_path: Path):
    folder = described(tmp_path, SSD, mean=[0.1, 0.2, 0.3])

    preprocessing = read_preprocessing(folder, 3)

    assert preprocessing.mean == (0.1, 0.2, 0.3)
    assert preprocessing.size == (320, 320)


def timm_folder(folder: Path, *, num_classes_in: str = "config") -> Path:
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    model = timm.create_model("test_resnet", num_classes=tiny.CLASSES)
    save_file(model.state_dict(), folder / "model.safetensors")
    stated: dict[str, Any] = {"input_size": [3, 32, 32]}
    config: dict[str, Any] = {"architecture": "test_resnet", "pretrained_cfg": stated}
    (config if num_classes_in == "config" else stated)["num_classes"] = tiny.CLASSES
    (folder / "config.json").write_text(json.dumps(config))
    return folder


FOLDERS = {"timm": timm_folder, "torchvision": tiny.torchvision_folder}


@pytest.mark.parametrize("library", list(FOLDERS))
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_weights_are_loaded_in_float32(tmp_path: Path, library: str, half: torch.dtype):
    folder = FOLDERS[library](tmp_path)
    weights = load_file(folder / "model.safetensors")
    halved = {name: one.to(half) if one.is_floating_point() else one for name, one in weights.items()}
    save_file(halved, folder / "model.safetensors")

    loaded = load_model(folder, Task.image_classification).module.state_dict()

    for name, one in halved.items():
        assert loaded[name].dtype == (torch.float32 if one.is_floating_point() else one.dtype)
        assert torch.equal(loaded[name], one.to(loaded[name].dtype)), name


@pytest.mark.parametrize("library", list(FOLDERS))
def test_shards_with_an_index_are_one_model(tmp_path: Path, library: str):
    folder = FOLDERS[library](tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    weight_map = {name: files[number % 2] for number, name in enumerate(weights)}
    for file in files:
        save_file({name: one for name, one in weights.items() if weight_map[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    loaded = load_model(folder, Task.image_classification).module.state_dict()

    assert all(torch.equal(loaded[name], one) for name, one in weights.items())


def test_timm_folders_with_the_classes_in_pretrained_cfg_only_are_read(tmp_path: Path):
    folder = timm_folder(tmp_path, num_classes_in="pretrained_cfg")

    assert load_model(folder, Task.image_classification).classes == tiny.CLASSES
