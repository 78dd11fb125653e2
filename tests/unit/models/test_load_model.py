"""Loading: transformers and torchvision folders, and every way in which a folder can be wrong."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, ViTForImageClassification

from schemas.task import Task
from tests import tiny
from workers.errors import ModelError
from workers.models.load import load_model

IMAGES, TEXTS = Task.image_classification, Task.text_classification
WEIGHTS = "model.safetensors"


def refusal(folder: Path, task: Task = IMAGES) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder, task)
    return str(caught.value)


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def test_gives_the_same_logits_as_the_library(tmp_path):
    folder = tiny.resnet(tmp_path)
    pixels = torch.rand(2, 1, tiny.SIDE, tiny.SIDE)

    model = load_model(folder, IMAGES)

    expected = AutoModelForImageClassification.from_pretrained(folder)(pixel_values=pixels).logits
    assert torch.equal(model.logits({"pixel_values": pixels}), expected)
    assert model.architecture == "transformers/ResNetForImageClassification"
    assert (model.classes, model.image_size, model.image_channels) == (tiny.CLASSES, (16, 16), 1)
    assert not model.module.training


def test_reads_a_vit_whose_tensors_have_other_names_on_the_hub(tmp_path):
    folder = tiny.vit(tmp_path)
    pixels = torch.rand(2, 1, tiny.SIDE, tiny.SIDE)

    model = load_model(folder, IMAGES)

    names_in_file = load_file(folder / WEIGHTS).keys()
    assert names_in_file != model.module.state_dict().keys()
    expected = ViTForImageClassification.from_pretrained(folder)(pixel_values=pixels).logits
    assert torch.equal(model.logits({"pixel_values": pixels}), expected)


def test_reads_a_text_classifier(tmp_path):
    model = load_model(tiny.bert(tmp_path), TEXTS)

    ids = torch.tensor([[2, 5, 6, 3]])
    logits = model.logits({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    assert logits.shape == (1, tiny.CLASSES)
    assert (model.architecture, model.image_size) == ("transformers/BertForSequenceClassification", None)


def test_reads_a_torchvision_model(tmp_path):
    model = load_model(tiny.torchvision_folder(tmp_path), IMAGES)

    logits = model.logits({"pixel_values": torch.rand(1, 3, 64, 64)})

    assert logits.shape == (1, tiny.CLASSES)
    assert (model.architecture, model.image_size) == ("torchvision/squeezenet1_1", (64, 64))


def test_answers_logits_in_training_mode_although_googlenet_answers_three_tensors(tmp_path):
    model = load_model(tiny.torchvision_folder(tmp_path, "googlenet"), IMAGES)
    model.module.train()

    logits = model.logits({"pixel_values": torch.rand(2, 3, 64, 64)})

    assert logits.shape == (2, tiny.CLASSES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(tmp_path, dtype):
    folder = tiny.resnet(tmp_path)
    tiny.edit_json(folder / "config.json", dtype=str(dtype).removeprefix("torch."))
    change_weights(
        folder,
        lambda weights: weights.update(
            {name: value.to(dtype) for name, value in weights.items() if value.is_floating_point()}
        ),
    )

    model = load_model(folder, IMAGES)

    assert {value.dtype for value in model.module.parameters()} == {torch.float32}


def test_reads_shards_by_their_index(tmp_path):
    folder = tiny.resnet(tmp_path)
    names = shard(folder)

    model = load_model(folder, IMAGES)

    assert len(names) > 3
    assert model.module.state_dict().keys() == set(names)


def shard(folder: Path) -> list[str]:
    """Split the weights into two files with an index."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names, weight_map = sorted(weights), {}
    for number, part in enumerate((names[:3], names[3:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return names


def test_names_a_shard_that_is_not_there(tmp_path):
    shard(tiny.resnet(tmp_path))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()

    message = refusal(tmp_path)

    assert "model-00002-of-00002.safetensors, which is not in the folder" in message


def test_an_index_cannot_name_a_file_outside_the_folder(tmp_path):
    folder = tiny.resnet(tmp_path / "model")
    (folder / WEIGHTS).rename(tmp_path / "other.safetensors")
    index = {"weight_map": {"a": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert "../other.safetensors" in refusal(folder)


def test_refuses_a_folder_without_config(tmp_path):
    (tiny.resnet(tmp_path) / "config.json").unlink()

    assert "has no config.json (it holds model.safetensors, preprocessor_config.json)" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, "\ud800"])
def test_refuses_a_config_that_is_not_a_json_object(tmp_path, text):
    (tiny.resnet(tmp_path) / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))

    assert refusal(tmp_path).startswith("config.json")


def test_suggests_the_architecture_that_was_meant(tmp_path):
    tiny.edit_json(tiny.resnet(tmp_path) / "config.json", model_type="resnett")

    assert "did you mean 'resnet'" in refusal(tmp_path)


def test_suggests_the_torchvision_architecture_that_was_meant(tmp_path):
    tiny.edit_json(tiny.torchvision_folder(tmp_path) / "config.json", architecture="resnet81")

    assert "did you mean 'resnet18'" in refusal(tmp_path)


def test_refuses_a_detector_of_torchvision_as_a_classifier(tmp_path):
    name = "fasterrcnn_resnet50_fpn"
    tiny.edit_json(tiny.torchvision_folder(tmp_path) / "config.json", architecture=name)

    assert f"{name} does detection" in refusal(tmp_path)


def test_refuses_another_library(tmp_path):
    tiny.edit_json(tiny.resnet(tmp_path) / "config.json", library_name="keras")

    assert "'library_name' is 'keras'" in refusal(tmp_path)


def test_refuses_a_config_that_the_architecture_cannot_take(tmp_path):
    tiny.edit_json(tiny.resnet(tmp_path) / "config.json", layer_type="spiral")

    assert refusal(tmp_path).startswith("config.json")


def test_refuses_an_image_model_for_a_text_task(tmp_path):
    tiny.resnet(tmp_path / "resnet")
    tiny.torchvision_folder(tmp_path / "squeezenet")

    assert "'resnet' has no text-classification model" in refusal(tmp_path / "resnet", TEXTS)
    told = refusal(tmp_path / "squeezenet", TEXTS)
    assert "torchvision has no models for data.task 'text-classification'" in told


def test_refuses_a_regression_head(tmp_path):
    tiny.edit_json(tiny.bert(tmp_path) / "config.json", problem_type="regression")

    assert "only single-label classification" in refusal(tmp_path, TEXTS)


def test_refuses_quantized_weights(tmp_path):
    tiny.edit_json(tiny.resnet(tmp_path) / "config.json", quantization_config={"quant_method": "gptq"})

    assert "before quantization" in refusal(tmp_path)


def test_names_tensors_that_do_not_match_the_config(tmp_path):
    folder = tiny.resnet(tmp_path)

    def change(weights):
        del weights["classifier.1.bias"]
        weights["extra.weight"] = torch.zeros(2)
        weights["classifier.1.weight"] = torch.zeros(7, 16)

    change_weights(folder, change)

    message = refusal(folder)

    assert "missing classifier.1.bias" in message
    assert "unexpected extra.weight" in message
    assert "classifier.1.weight is [7, 16], not [4, 16]" in message


def test_names_torchvision_tensors_that_do_not_match(tmp_path):
    folder = tiny.torchvision_folder(tmp_path)
    tiny.edit_json(folder / "config.json", num_classes=7)

    assert "classifier.1.weight is [4, 512, 1, 1], not [7, 512, 1, 1]" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_names_the_tensor_that_is_not_finite(tmp_path, value):
    folder = tiny.resnet(tmp_path)
    change_weights(folder, lambda weights: weights["classifier.1.bias"].fill_(value))

    assert "NaN or infinity in classifier.1.bias" in refusal(folder)
